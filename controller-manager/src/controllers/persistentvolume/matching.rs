//! Which volume is right for a claim: pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::Object as _;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeSpec,
};
use meta::labels::Selector;
use meta::quantity::Quantity;

const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub fn claim_spec(claim: &PersistentVolumeClaim) -> PersistentVolumeClaimSpec {
    claim.spec.clone().unwrap_or_default()
}

pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// The class that the claim asks for; empty for none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let annotation = claim
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(CLASS_ANNOTATION));
    let field = claim
        .spec
        .as_ref()
        .and_then(|s| s.storage_class_name.as_ref());
    annotation.or(field).map_or("", String::as_str)
}

/// Whether the claim says anything of a class, be it that it wants none.
pub fn names_class(claim: &PersistentVolumeClaim) -> bool {
    let annotations = claim.metadata.annotations.as_ref();
    annotations.is_some_and(|a| a.contains_key(CLASS_ANNOTATION))
        || claim
            .spec
            .as_ref()
            .is_some_and(|s| s.storage_class_name.is_some())
}

fn class_of_volume(volume: &PersistentVolume) -> &str {
    let annotation = volume
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get(CLASS_ANNOTATION));
    let field = volume
        .spec
        .as_ref()
        .and_then(|s| s.storage_class_name.as_ref());
    annotation.or(field).map_or("", String::as_str)
}

/// Whether the volume is the claim's, or is kept for it.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|r| {
        let uid = r.uid.as_deref().unwrap_or_default();
        r.name.as_deref() == Some(claim.name())
            && r.namespace.as_deref() == Some(claim.namespace())
            && (uid.is_empty() || uid == claim.uid())
    })
}

fn size(of: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> Quantity {
    of.and_then(|q| q.0.parse().ok()).unwrap_or(Quantity::ZERO)
}

fn asked(spec: &PersistentVolumeClaimSpec) -> Quantity {
    let requests = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    size(requests.and_then(|r| r.get("storage")))
}

fn capacity(spec: &PersistentVolumeSpec) -> Quantity {
    size(spec.capacity.as_ref().and_then(|c| c.get("storage")))
}

/// A file system unless it says otherwise.
fn mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

pub fn modes_differ(claim: &PersistentVolumeClaimSpec, volume: &PersistentVolume) -> bool {
    let volume = volume.spec.as_ref().and_then(|s| s.volume_mode.as_ref());
    mode(claim.volume_mode.as_ref()) != mode(volume)
}

fn access(modes: Option<&Vec<String>>) -> BTreeSet<&str> {
    modes.into_iter().flatten().map(String::as_str).collect()
}

/// Why a volume that a claim names is not good enough for it.
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let (wanted, given) = (claim_spec(claim), volume.spec.clone().unwrap_or_default());
    let attributes = |name: &Option<String>| name.clone().unwrap_or_default();
    let wrong = |what: &str| Err(what.to_owned());
    if volume.metadata.deletion_timestamp.is_some() {
        return Err(format!(
            "the volume is marked for deletion {:?}",
            volume.name()
        ));
    }
    if capacity(&given) < asked(&wanted) {
        return wrong("requested PV is too small");
    }
    if class_of_volume(volume) != class_of_claim(claim) {
        return wrong("storageClassName does not match");
    }
    if attributes(&wanted.volume_attributes_class_name)
        != attributes(&given.volume_attributes_class_name)
    {
        return wrong("volumeAttributesClassName does not match");
    }
    if modes_differ(&wanted, volume) {
        return wrong("incompatible volumeMode");
    }
    if !access(wanted.access_modes.as_ref()).is_subset(&access(given.access_modes.as_ref())) {
        return wrong("incompatible accessMode");
    }
    Ok(())
}

/// What is better comes first: what is kept for the claim, few access modes, a small size.
type Rank = (bool, usize, Quantity);

/// The volume that is kept for the claim; else the smallest available one of those with the
/// fewest access modes. With `later` binding is the scheduler's: only what is kept counts.
pub fn best(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    later: bool,
) -> Option<Arc<PersistentVolume>> {
    let wanted = claim_spec(claim);
    let modes = access(wanted.access_modes.as_ref());
    let selector = wanted.selector.as_ref();
    let selector = selector.map(|s| Selector::from_label_selector(Some(s)));
    let attributes = |name: &Option<String>| name.clone().unwrap_or_default();
    let mut found: Option<(Rank, &Arc<PersistentVolume>)> = None;
    for volume in volumes {
        let Some(given) = &volume.spec else { continue };
        let bound = is_bound_to(volume, claim);
        let given_modes = access(given.access_modes.as_ref());
        let size = capacity(given);
        let usable = (given.claim_ref.is_none() || bound)
            && modes.is_subset(&given_modes)
            && size >= asked(&wanted)
            && !modes_differ(&wanted, volume)
            && attributes(&wanted.volume_attributes_class_name)
                == attributes(&given.volume_attributes_class_name)
            && volume.metadata.deletion_timestamp.is_none();
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
        let free = !later
            && phase == Some("Available")
            && class_of_volume(volume) == class_of_claim(claim)
            && selector.as_ref().is_none_or(|s| {
                s.as_ref()
                    .is_ok_and(|s| s.matches_labels(volume.metadata.labels.as_ref()))
            });
        if !usable || !(bound || free) {
            continue;
        }
        let rank = (!bound, given_modes.len(), size);
        if found.as_ref().is_none_or(|(best, _)| rank < *best) {
            found = Some((rank, volume));
        }
    }
    found.map(|(_, volume)| Arc::clone(volume))
}
