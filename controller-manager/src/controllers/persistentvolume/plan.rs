//! What becomes of claims and volumes: pure. Binding writes the volume first, then the claim, so
//! that no two claims get one volume; a crash in between leaves what the next sync completes.

use std::sync::Arc;

use api::csi_translation::driver_of;
use client::Object as _;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::matching::{self, claim_ref, claim_spec, class_of_claim, is_bound_to};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_US: &str = "pv.kubernetes.io/bound-by-controller";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// The finalizer of volumes that plugins of old delete.
const KEPT_BY_PLUGIN: &str = "kubernetes.io/pv-controller";
const HOST_PATH_PLUGIN: &str = "kubernetes.io/host-path";
const NFS_PLUGIN: &str = "kubernetes.io/nfs";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const OLD_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// A volume that is to grow once it is mounted has this size until then.
const SIZE_BEFORE: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";
const DEFAULT_CLASS: [&str; 2] = [
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
];

/// An event: whether a warning, reason, message.
pub type Event = (bool, &'static str, String);

fn has(metadata: &ObjectMeta, annotation: &str) -> bool {
    metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.contains_key(annotation))
}

fn annotate(metadata: &mut ObjectMeta, annotation: &str, value: &str) {
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(annotation.to_owned(), value.to_owned());
}

fn claim_phase(claim: &PersistentVolumeClaim) -> &str {
    claim
        .status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or_default()
}

pub fn volume_phase(volume: &PersistentVolume) -> &str {
    volume
        .status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or_default()
}

/// What to do about a claim.
#[derive(Debug, PartialEq)]
pub enum ClaimAct {
    Bind(Arc<PersistentVolume>),
    /// It stays or becomes pending.
    Pend(Option<Event>),
    /// It gets the default class.
    Assign(String),
    /// Somebody is to make a volume for it.
    Provision(Arc<StorageClass>),
    /// The volume that it was bound to is not its any more; the event is told once.
    Lose(Event),
    /// It names a class that does not exist, or the like.
    Fail(Event),
}

/// What is known when a claim is looked at.
pub struct AroundClaim<'a> {
    pub volumes: &'a [Arc<PersistentVolume>],
    pub classes: &'a [Arc<StorageClass>],
    /// Names of pods that use the claim and are on no node yet.
    pub waiting_pods: &'a [String],
    pub provisioning: bool,
}

fn find<'a>(volumes: &'a [Arc<PersistentVolume>], name: &str) -> Option<&'a Arc<PersistentVolume>> {
    volumes.iter().find(|v| v.name() == name)
}

/// The newest default class; of those of one age the first by name.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    let is_default = |c: &&Arc<StorageClass>| {
        let annotations = c.metadata.annotations.as_ref();
        let is = |key: &&str| {
            annotations
                .and_then(|a| a.get(*key))
                .is_some_and(|v| v == "true")
        };
        DEFAULT_CLASS.iter().any(is)
    };
    let age = |c: &&Arc<StorageClass>| {
        let at = c.metadata.creation_timestamp.as_ref().map(|t| t.0);
        (std::cmp::Reverse(at), c.name().to_owned())
    };
    classes.iter().filter(is_default).min_by_key(age)
}

/// What to do about a claim.
pub fn claim(claim: &PersistentVolumeClaim, around: &AroundClaim) -> ClaimAct {
    let named = claim_spec(claim).volume_name.filter(|n| !n.is_empty());
    match (has(&claim.metadata, BIND_COMPLETED), named) {
        (true, named) => bound_claim(claim, named.as_deref(), around),
        (false, Some(name)) => claim_of_volume(claim, &name, around),
        (false, None) => free_claim(claim, around),
    }
}

fn bound_claim(
    claim: &PersistentVolumeClaim,
    named: Option<&str>,
    around: &AroundClaim,
) -> ClaimAct {
    let lose = |reason, message: &str| ClaimAct::Lose((true, reason, message.to_owned()));
    let Some(name) = named else {
        return lose(
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        );
    };
    let Some(volume) = find(around.volumes, name) else {
        return lose(
            "ClaimLost",
            "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        );
    };
    match claim_ref(volume) {
        Some(r) if r.uid.as_deref() != Some(claim.uid()) => lose(
            "ClaimMisbound",
            "Two claims are bound to the same volume, this one is bound incorrectly",
        ),
        _ => ClaimAct::Bind(Arc::clone(volume)),
    }
}

fn claim_of_volume(claim: &PersistentVolumeClaim, name: &str, around: &AroundClaim) -> ClaimAct {
    let Some(volume) = find(around.volumes, name) else {
        return ClaimAct::Pend(None);
    };
    if claim_ref(volume).is_none() {
        return match matching::mismatch(volume, claim) {
            Ok(()) => ClaimAct::Bind(Arc::clone(volume)),
            Err(why) => {
                let message = format!("Cannot bind to requested volume {name:?}: {why}");
                ClaimAct::Pend(Some((true, "VolumeMismatch", message)))
            }
        };
    }
    if is_bound_to(volume, claim) {
        return ClaimAct::Bind(Arc::clone(volume));
    }
    let message = format!("volume {name:?} already bound to a different claim.");
    ClaimAct::Pend(Some((true, "FailedBinding", message)))
}

fn free_claim(claim: &PersistentVolumeClaim, around: &AroundClaim) -> ClaimAct {
    let class_name = class_of_claim(claim);
    let class = around.classes.iter().find(|c| c.name() == class_name);
    let later =
        class.is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    if let Some(volume) = matching::best(claim, around.volumes, later) {
        return ClaimAct::Bind(volume);
    }
    if !matching::names_class(claim)
        && let Some(class) = default_class(around.classes)
    {
        return ClaimAct::Assign(class.name().to_owned());
    }
    if later && !has(&claim.metadata, SELECTED_NODE) {
        let (reason, message) = match around.waiting_pods {
            [] => (
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding".to_owned(),
            ),
            [one] => (
                "WaitForPodScheduled",
                format!("waiting for pod {one} to be scheduled"),
            ),
            pods => (
                "WaitForPodScheduled",
                format!("waiting for pods {} to be scheduled", pods.join(",")),
            ),
        };
        return ClaimAct::Pend(Some((false, reason, message)));
    }
    if class_name.is_empty() {
        let message = "no persistent volumes available for this claim and no storage class is set";
        return ClaimAct::Pend(Some((false, "FailedBinding", message.to_owned())));
    }
    if !around.provisioning {
        return ClaimAct::Pend(None);
    }
    let Some(class) = class else {
        let message = format!("storageclass.storage.k8s.io {class_name:?} not found");
        return ClaimAct::Fail((true, "ProvisioningFailed", message));
    };
    let inside = class.provisioner.starts_with("kubernetes.io/");
    if inside && driver_of(&class.provisioner).is_none() {
        let message = "no volume plugin matched".to_owned();
        return ClaimAct::Fail((true, "ProvisioningFailed", message));
    }
    ClaimAct::Provision(Arc::clone(class))
}

/// Says which driver does the work of the plugin that one of these annotations names; whether that
/// was not said yet. Drivers see to nothing of a plugin of old that does not say so.
fn note_driver(metadata: &mut ObjectMeta, named_by: &[&str]) -> bool {
    let Some(annotations) = &mut metadata.annotations else {
        return false;
    };
    let mut named = named_by.iter().filter_map(|key| annotations.get(*key));
    let Some(plugin) = named.next() else {
        return false;
    };
    let noted = annotations.get(MIGRATED_TO).map_or("", String::as_str);
    match driver_of(plugin) {
        Some(driver) if noted != driver => {
            annotations.insert(MIGRATED_TO.to_owned(), driver.to_owned());
            true
        }
        None if !noted.is_empty() => annotations.remove(MIGRATED_TO).is_some(),
        _ => false,
    }
}

/// The claim with the driver whose it is, if it does not say so yet.
pub fn driven_claim(claim: &PersistentVolumeClaim) -> Option<PersistentVolumeClaim> {
    let mut changed = claim.clone();
    note_driver(&mut changed.metadata, &[PROVISIONER, OLD_PROVISIONER]).then_some(changed)
}

/// The volume with the driver whose it is, and without what keeps it until a plugin of old has
/// deleted it; if it does not say so yet.
pub fn driven_volume(volume: &PersistentVolume) -> Option<PersistentVolume> {
    let mut changed = volume.clone();
    let metadata = &mut changed.metadata;
    let mut differs = note_driver(metadata, &[PROVISIONED_BY]);
    let annotations = metadata.annotations.as_ref();
    let plugin = annotations.and_then(|all| all.get(PROVISIONED_BY));
    if plugin.is_some_and(|plugin| driver_of(plugin).is_some())
        && let Some(finalizers) = &mut metadata.finalizers
    {
        let before = finalizers.len();
        finalizers.retain(|finalizer| finalizer != KEPT_BY_PLUGIN);
        differs |= finalizers.len() != before;
    }
    differs.then_some(changed)
}

/// The claim with who is to make its volume, if it does not say so yet; and what to tell.
pub fn for_provisioner(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
) -> (Option<PersistentVolumeClaim>, Event) {
    let plugin = class.provisioner.as_str();
    let name = driver_of(plugin).unwrap_or(plugin);
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{name}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    let event = (false, "ExternalProvisioning", message);
    let known = claim
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(PROVISIONER));
    if known.is_some_and(|k| k == name) {
        return (None, event);
    }
    let mut changed = claim.clone();
    annotate(&mut changed.metadata, OLD_PROVISIONER, name);
    annotate(&mut changed.metadata, PROVISIONER, name);
    (Some(changed), event)
}

/// The volume, bound to the claim; `None` if it is.
pub fn bind_volume(
    volume: &PersistentVolume,
    claim: &PersistentVolumeClaim,
    reference: ObjectReference,
) -> Option<PersistentVolume> {
    let ours = !is_bound_to(volume, claim);
    let complete =
        !ours && claim_ref(volume).is_some_and(|r| r.uid.as_deref() == Some(claim.uid()));
    let marked = !ours || has(&volume.metadata, BOUND_BY_US);
    if complete && marked {
        return None;
    }
    let mut changed = volume.clone();
    if !complete {
        changed.spec.get_or_insert_default().claim_ref = Some(reference);
    }
    if ours {
        annotate(&mut changed.metadata, BOUND_BY_US, "yes");
    }
    Some(changed)
}

/// The claim, bound to the volume; `None` if it is.
pub fn bind_claim(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<PersistentVolumeClaim> {
    let named = claim_spec(claim).volume_name.as_deref() == Some(volume.name());
    if named && has(&claim.metadata, BIND_COMPLETED) {
        return None;
    }
    let mut changed = claim.clone();
    if !named {
        changed.spec.get_or_insert_default().volume_name = Some(volume.name().to_owned());
        annotate(&mut changed.metadata, BOUND_BY_US, "yes");
    }
    annotate(&mut changed.metadata, BIND_COMPLETED, "yes");
    Some(changed)
}

/// The claim in a phase, with what its volume gives it; `None` if it is so.
pub fn claim_in(
    claim: &PersistentVolumeClaim,
    phase: &str,
    volume: Option<&PersistentVolume>,
) -> Option<PersistentVolumeClaim> {
    let old = claim.status.clone().unwrap_or_default();
    let mut new = PersistentVolumeClaimStatus {
        phase: Some(phase.to_owned()),
        ..old.clone()
    };
    match volume.and_then(|v| Some((v, v.spec.as_ref()?))) {
        None => {
            new.access_modes = None;
            new.capacity = None;
            new.current_volume_attributes_class_name = None;
        }
        Some((volume, spec)) => {
            new.access_modes.clone_from(&spec.access_modes);
            // What is bound already may rightly have another size than its volume.
            if claim_phase(claim) != phase {
                let annotations = volume.metadata.annotations.as_ref();
                new.capacity.clone_from(&spec.capacity);
                if let Some(size) = annotations.and_then(|a| a.get(SIZE_BEFORE)) {
                    let capacity = new.capacity.get_or_insert_default();
                    let size =
                        k8s_openapi::apimachinery::pkg::api::resource::Quantity(size.clone());
                    capacity.insert("storage".to_owned(), size);
                }
                if claim_phase(claim) == "Pending" && phase == "Bound" {
                    let class = &spec.volume_attributes_class_name;
                    new.current_volume_attributes_class_name.clone_from(class);
                }
            }
        }
    }
    (new != old).then(|| PersistentVolumeClaim {
        status: Some(new),
        ..claim.clone()
    })
}

/// The volume in a phase; `None` if it is.
pub fn volume_in(
    volume: &PersistentVolume,
    phase: &str,
    message: &str,
) -> Option<PersistentVolume> {
    if volume_phase(volume) == phase {
        return None;
    }
    let mut changed = volume.clone();
    let status = changed.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    status.message = Some(message.to_owned()).filter(|m| !m.is_empty());
    Some(changed)
}

/// The volume without its claim; if somebody else keeps it for a claim it stays kept.
pub fn unbind(volume: &PersistentVolume) -> PersistentVolume {
    let mut changed = volume.clone();
    let spec = changed.spec.get_or_insert_default();
    if has(&volume.metadata, BOUND_BY_US) {
        spec.claim_ref = None;
        if let Some(annotations) = &mut changed.metadata.annotations {
            annotations.remove(BOUND_BY_US);
        }
    } else if let Some(reference) = &mut spec.claim_ref {
        reference.uid = None;
    }
    changed
}

/// What to do about a volume.
#[derive(Debug, PartialEq, Eq)]
pub enum VolumeAct {
    Phase(&'static str),
    /// Its claim is gone: what its policy says.
    Reclaim,
    /// Its claim has another volume.
    Unbind,
    /// The claim's sync completes the binding.
    LookAtClaim,
    /// The two do not fit.
    Mismatch,
}

/// What to do about a volume. `claim` is the one of its reference's name and UID.
pub fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> VolumeAct {
    let Some(reference) = claim_ref(volume) else {
        return VolumeAct::Phase("Available");
    };
    if reference.uid.as_deref().unwrap_or_default().is_empty() {
        return VolumeAct::Phase("Available");
    }
    let Some(claim) = claim else {
        return VolumeAct::Reclaim;
    };
    let spec = claim_spec(claim);
    match spec.volume_name.as_deref().unwrap_or_default() {
        "" if matching::modes_differ(&spec, volume) => VolumeAct::Mismatch,
        "" => VolumeAct::LookAtClaim,
        name if name == volume.name() => VolumeAct::Phase("Bound"),
        // Made for the claim, which has found another.
        _ if has(&volume.metadata, PROVISIONED_BY) && policy(volume) == "Delete" => {
            VolumeAct::Reclaim
        }
        _ => VolumeAct::Unbind,
    }
}

pub fn policy(volume: &PersistentVolume) -> &str {
    let spec = volume.spec.as_ref();
    let policy = spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

/// What becomes of a volume that nobody claims any more.
#[derive(Debug, PartialEq, Eq)]
pub enum Reclaiming {
    /// It stays, or somebody else sees to it.
    Leave,
    /// A pod cleans it.
    Recycle,
    /// What is at this path of this very host is removed; or why not.
    Remove(Result<String, String>),
    /// Nobody knows how to.
    Fail(Event),
}

/// What its policy says. Of the plugins that upstream has built in only those of hostPath and NFS
/// do any of this; all else is done by drivers.
pub fn reclaiming(volume: &PersistentVolume) -> Reclaiming {
    if has(&volume.metadata, MIGRATED_TO) {
        return Reclaiming::Leave;
    }
    let spec = volume.spec.as_ref();
    let is_host_path = spec.is_some_and(|s| s.host_path.is_some());
    let is_nfs = spec.is_some_and(|s| s.nfs.is_some());
    match policy(volume) {
        "Retain" => Reclaiming::Leave,
        "Recycle" if is_host_path || is_nfs => Reclaiming::Recycle,
        "Recycle" => {
            let message = "No recycler plugin found for the volume!".to_owned();
            Reclaiming::Fail((true, "VolumeFailedRecycle", message))
        }
        "Delete" => deleting(volume),
        _ => {
            let message = "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned();
            Reclaiming::Fail((true, "VolumeUnknownReclaimPolicy", message))
        }
    }
}

/// Who deletes a volume: whoever has made it, if that is known.
fn deleting(volume: &PersistentVolume) -> Reclaiming {
    let fail = |message: String| Reclaiming::Fail((true, "VolumeFailedDelete", message));
    let spec = volume.spec.as_ref();
    let path = spec.and_then(|s| s.host_path.as_ref()).map(|h| &*h.path);
    let annotations = volume.metadata.annotations.as_ref();
    let by = annotations.and_then(|a| a.get(PROVISIONED_BY));
    match by.map_or("", String::as_str) {
        "" => {}
        HOST_PATH_PLUGIN => {
            let missing = || {
                format!(
                    "failed to create deleter for volume {:?}: spec.PersistentVolumeSource.HostPath is nil",
                    volume.name()
                )
            };
            return Reclaiming::Remove(path.ok_or_else(missing).and_then(removable));
        }
        NFS_PLUGIN => return fail("no deletable volume plugin matched".to_owned()),
        by if by.starts_with("kubernetes.io/") && driver_of(by).is_none() => {
            return fail(format!("no volume plugin matched name: {by}"));
        }
        _ => return Reclaiming::Leave,
    }
    if spec.is_some_and(|s| s.csi.is_some()) {
        return Reclaiming::Leave;
    }
    if let Some(path) = path {
        return Reclaiming::Remove(removable(path));
    }
    let why = if spec.is_some_and(|s| s.nfs.is_some()) {
        "no deletable volume plugin matched"
    } else {
        "no volume plugin matched"
    };
    fail(format!(
        "error getting deleter volume plugin for volume {:?}: {why}",
        volume.name()
    ))
}

/// The path, if it may be removed: as upstream's `/tmp/.+`, which is found anywhere in it.
fn removable(path: &str) -> Result<String, String> {
    let mut found = path.match_indices("/tmp/");
    let any =
        found.any(|(at, tmp)| !matches!(path[at + tmp.len()..].chars().next(), None | Some('\n')));
    if any {
        return Ok(path.to_owned());
    }
    Err(format!(
        "host_path deleter only supports /tmp/.+ but received provided {path}"
    ))
}

/// The volume without what keeps it until a plugin has deleted it; `None` if nothing does.
pub fn unkept(volume: &PersistentVolume) -> Option<PersistentVolume> {
    let mut changed = volume.clone();
    let finalizers = changed.metadata.finalizers.as_mut()?;
    finalizers.retain(|finalizer| finalizer != KEPT_BY_PLUGIN);
    (changed != *volume).then_some(changed)
}
