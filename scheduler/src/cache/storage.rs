//! Claims, volumes, classes and what drivers can do, as plugins of volumes ask for them;
//! and which volume or node a claim would get. Pure.
//!
//! What has been decided for a claim, and is not yet in the API, is remembered here: no
//! volume is promised twice.

mod progress;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::csi_translation;
use client::{ObjectKey, SlimMeta, slim_kind};
use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, CinderPersistentVolumeSource,
    GCEPersistentDiskVolumeSource, NodeSelectorTerm, ObjectReference, PersistentVolume,
    PersistentVolumeSpec, PortworxVolumeSource, TopologySelectorTerm, VolumeNodeAffinity,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use meta::labels::Selector;
use meta::quantity::Quantity;
use serde::Deserialize;

pub use self::progress::Awaited;
use super::NodeInfo;
use crate::model::{PodInfo, PodVolume};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Claim {
    pub metadata: SlimMeta,
    pub spec: ClaimSpec,
    pub status: Phase,
}
slim_kind!(
    Claim,
    "",
    "v1",
    "PersistentVolumeClaim",
    "persistentvolumeclaims",
    namespaced
);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    pub volume_name: String,
    pub storage_class_name: Option<String>,
    pub access_modes: Vec<String>,
    pub resources: crate::model::Requirements,
    pub selector: Option<LabelSelector>,
    pub volume_mode: Option<String>,
    pub volume_attributes_class_name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Phase {
    pub phase: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, from = "RawVolume")]
pub struct Volume {
    pub metadata: SlimMeta,
    pub spec: VolumeSpec,
    pub status: Phase,
    /// What it is to its driver, where it is of a plugin of old.
    pub driven: Option<Box<Driven>>,
}
slim_kind!(
    Volume,
    "",
    "v1",
    "PersistentVolume",
    "persistentvolumes",
    cluster
);

#[derive(Debug, Clone, Default, PartialEq)]
pub struct VolumeSpec {
    pub capacity: BTreeMap<String, Quantity>,
    pub access_modes: Vec<String>,
    pub claim_ref: Option<ObjectReference>,
    pub storage_class_name: String,
    pub volume_mode: Option<String>,
    pub node_affinity: Option<VolumeNodeAffinity>,
    pub csi: Option<CsiSource>,
    pub volume_attributes_class_name: Option<String>,
}

/// A volume of a plugin of old as its driver's (KEP-625).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Driven {
    pub plugin: &'static str,
    pub csi: CsiSource,
    pub node_affinity: Option<VolumeNodeAffinity>,
}

/// A volume as it comes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawVolume {
    metadata: SlimMeta,
    spec: RawSpec,
    status: Phase,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    capacity: BTreeMap<String, Quantity>,
    access_modes: Vec<String>,
    claim_ref: Option<ObjectReference>,
    storage_class_name: String,
    volume_mode: Option<String>,
    node_affinity: Option<VolumeNodeAffinity>,
    csi: Option<CsiSource>,
    volume_attributes_class_name: Option<String>,
    aws_elastic_block_store: Option<AWSElasticBlockStoreVolumeSource>,
    gce_persistent_disk: Option<GCEPersistentDiskVolumeSource>,
    azure_disk: Option<AzureDiskVolumeSource>,
    cinder: Option<CinderPersistentVolumeSource>,
    portworx_volume: Option<PortworxVolumeSource>,
}

impl From<RawVolume> for Volume {
    fn from(raw: RawVolume) -> Self {
        let RawVolume {
            metadata,
            spec,
            status,
        } = raw;
        let old = PersistentVolumeSpec {
            access_modes: Some(spec.access_modes.clone()),
            node_affinity: spec.node_affinity.clone(),
            aws_elastic_block_store: spec.aws_elastic_block_store,
            gce_persistent_disk: spec.gce_persistent_disk,
            azure_disk: spec.azure_disk,
            cinder: spec.cinder,
            portworx_volume: spec.portworx_volume,
            ..PersistentVolumeSpec::default()
        };
        let driven = csi_translation::plugin_of(&old).and_then(|(plugin, _)| {
            let mut volume = PersistentVolume::default();
            volume.metadata.labels = Some(metadata.labels.clone());
            volume.spec = Some(old);
            let translated = csi_translation::persistent(&volume).ok()??.spec?;
            let csi = translated.csi?;
            Some(Box::new(Driven {
                plugin,
                csi: CsiSource {
                    driver: csi.driver,
                    volume_handle: csi.volume_handle,
                },
                node_affinity: translated.node_affinity,
            }))
        });
        Self {
            metadata,
            spec: VolumeSpec {
                capacity: spec.capacity,
                access_modes: spec.access_modes,
                claim_ref: spec.claim_ref,
                storage_class_name: spec.storage_class_name,
                volume_mode: spec.volume_mode,
                node_affinity: spec.node_affinity,
                csi: spec.csi,
                volume_attributes_class_name: spec.volume_attributes_class_name,
            },
            status,
            driven,
        }
    }
}

impl Volume {
    /// The driver's volume that it is.
    pub fn csi(&self) -> Option<&CsiSource> {
        let driven = self.driven.as_ref().map(|driven| &driven.csi);
        self.spec.csi.as_ref().or(driven)
    }
}

/// Plugins that were part of Kubernetes once and whose volumes do not count, although there are
/// drivers for them.
const UNCOUNTED: [&str; 2] = ["kubernetes.io/azure-file", "kubernetes.io/vsphere-volume"];

/// The driver of the volumes that a class's provisioner makes; `None` where they do not count.
pub fn provisioned_by(provisioner: &str) -> Option<&str> {
    let counts = !UNCOUNTED.contains(&provisioner);
    counts.then(|| csi_translation::driver_of(provisioner).unwrap_or(provisioner))
}

const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";

impl CsiNode {
    /// The plugins whose volumes the node leaves to drivers.
    pub fn migrated(&self) -> Option<&String> {
        self.metadata.annotations.get(MIGRATED)
    }

    fn has_migrated(&self, plugin: &str) -> bool {
        let migrated = self.migrated();
        migrated.is_some_and(|all| all.split(',').any(|name| name == plugin))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiSource {
    pub driver: String,
    pub volume_handle: String,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Class {
    pub metadata: SlimMeta,
    pub provisioner: String,
    pub volume_binding_mode: Option<String>,
    pub allowed_topologies: Vec<TopologySelectorTerm>,
}
slim_kind!(
    Class,
    "storage.k8s.io",
    "v1",
    "StorageClass",
    "storageclasses",
    cluster
);

impl Class {
    fn waits_for_consumer(&self) -> bool {
        self.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CsiNode {
    pub metadata: SlimMeta,
    pub spec: CsiNodeSpec,
}
slim_kind!(
    CsiNode,
    "storage.k8s.io",
    "v1",
    "CSINode",
    "csinodes",
    cluster
);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CsiNodeSpec {
    pub drivers: Vec<CsiNodeDriver>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CsiNodeDriver {
    pub name: String,
    pub allocatable: Option<VolumeCount>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct VolumeCount {
    pub count: Option<usize>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct CsiDriver {
    pub metadata: SlimMeta,
    pub spec: CsiDriverSpec,
}
slim_kind!(
    CsiDriver,
    "storage.k8s.io",
    "v1",
    "CSIDriver",
    "csidrivers",
    cluster
);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiDriverSpec {
    pub storage_capacity: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capacity {
    pub metadata: SlimMeta,
    pub storage_class_name: String,
    pub node_topology: Option<LabelSelector>,
    pub capacity: Option<Quantity>,
    pub maximum_volume_size: Option<Quantity>,
}
slim_kind!(
    Capacity,
    "storage.k8s.io",
    "v1",
    "CSIStorageCapacity",
    "csistoragecapacities",
    namespaced
);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Attachment {
    pub metadata: SlimMeta,
    pub spec: AttachmentSpec,
}
slim_kind!(
    Attachment,
    "storage.k8s.io",
    "v1",
    "VolumeAttachment",
    "volumeattachments",
    cluster
);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentSpec {
    pub attacher: String,
    pub node_name: String,
    pub source: AttachmentSource,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachmentSource {
    pub persistent_volume_name: Option<String>,
}

/// Volumes that are attached, by the nodes that they are attached to.
#[derive(Debug, Default)]
pub struct Attachments(HashMap<Box<str>, HashMap<Box<str>, Arc<Attachment>>>);

impl Attachments {
    pub fn put(&mut self, attachment: &Arc<Attachment>) {
        let node = attachment.spec.node_name.as_str().into();
        let name = attachment.metadata.name.clone();
        let of_node = self.0.entry(node).or_default();
        of_node.insert(name, Arc::clone(attachment));
    }

    pub fn remove(&mut self, attachment: &Attachment) {
        let node = attachment.spec.node_name.as_str();
        if let Some(of_node) = self.0.get_mut(node) {
            of_node.remove(&attachment.metadata.name);
            if of_node.is_empty() {
                self.0.remove(node);
            }
        }
    }

    /// Those of a node.
    pub fn of(&self, node: &str) -> impl Iterator<Item = &Arc<Attachment>> {
        self.0.get(node).into_iter().flat_map(HashMap::values)
    }

    /// How many a node has.
    pub fn count(&self, node: &str) -> usize {
        self.0.get(node).map_or(0, HashMap::len)
    }
}

/// Something has changed that pods with volumes may have waited for.
#[derive(Debug, Clone)]
pub enum StorageEvent {
    Claim {
        key: ObjectKey,
        added: bool,
    },
    Volume {
        added: bool,
        labels: bool,
    },
    /// `waits`: its claims wait for a pod.
    Class {
        added: bool,
        topologies: bool,
        waits: bool,
    },
    CsiNode,
    CsiDriver,
    Capacity,
    Attachment,
}

impl StorageEvent {
    /// As metrics call it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Claim { added: true, .. } => "PersistentVolumeClaimAdd",
            Self::Claim { .. } => "PersistentVolumeClaimUpdate",
            Self::Volume { added: true, .. } => "PersistentVolumeAdd",
            Self::Volume { .. } => "PersistentVolumeUpdate",
            Self::Class { added: true, .. } => "StorageClassAdd",
            Self::Class { .. } => "StorageClassUpdate",
            Self::CsiNode => "CSINodeUpdate",
            Self::CsiDriver => "CSIDriverUpdate",
            Self::Capacity => "CSIStorageCapacityUpdate",
            Self::Attachment => "VolumeAttachmentDelete",
        }
    }
}

#[derive(Debug, Default)]
pub struct Storage {
    pub claims: HashMap<ObjectKey, Arc<Claim>>,
    pub volumes: HashMap<ObjectKey, Arc<Volume>>,
    pub classes: HashMap<ObjectKey, Arc<Class>>,
    pub csi_nodes: HashMap<ObjectKey, Arc<CsiNode>>,
    pub drivers: HashMap<ObjectKey, Arc<CsiDriver>>,
    pub capacities: HashMap<ObjectKey, Arc<Capacity>>,
    pub attachments: Attachments,
    /// Volumes that have been promised to claims.
    promised: HashMap<ObjectKey, ObjectKey>,
    /// Nodes that have been chosen for volumes to be made.
    selected: HashMap<ObjectKey, Box<str>>,
}

/// A pod's claims, by what has to be done for them.
#[derive(Debug, Default)]
pub struct Claims {
    pub bound: Vec<Arc<Claim>>,
    /// Get a volume once the pod has a node.
    pub delayed: Vec<Arc<Claim>>,
}

/// What has to be done so that a pod's claims have volumes on its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Volumes, and the claims that get them.
    pub bindings: Vec<(ObjectKey, ObjectKey)>,
    /// Claims whose volumes are to be made.
    pub provisions: Vec<ObjectKey>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.provisions.is_empty()
    }
}

/// The claim that a pod's volume is of, and whether the pod has to own it.
pub fn claim_of(pod: &PodInfo, volume: &PodVolume) -> Option<(ObjectKey, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((ObjectKey::new(&pod.namespace, &source.claim_name), false));
    }
    volume.ephemeral.as_ref()?;
    let name = format!("{}-{}", pod.key.name(), volume.name);
    Some((ObjectKey::new(&pod.namespace, &name), true))
}

fn size(claim: &Claim) -> i64 {
    claim
        .spec
        .resources
        .requests
        .get("storage")
        .map_or(0, Quantity::value)
}

pub fn class_of(claim: &Claim) -> &str {
    match claim.metadata.annotations.get(BETA_CLASS) {
        Some(class) => class,
        None => claim.spec.storage_class_name.as_deref().unwrap_or_default(),
    }
}

pub fn is_bound(claim: &Claim) -> bool {
    !claim.spec.volume_name.is_empty() && claim.metadata.annotations.contains_key(BIND_COMPLETED)
}

/// Whether a volume can be reached from a node.
fn reaches(volume: &Volume, node: &NodeInfo) -> bool {
    meets(volume.spec.node_affinity.as_ref(), node)
}

fn meets(affinity: Option<&VolumeNodeAffinity>, node: &NodeInfo) -> bool {
    let Some(required) = affinity.and_then(|a| a.required.as_ref()) else {
        return true;
    };
    let terms: &[NodeSelectorTerm] = &required.node_selector_terms;
    let matches = |term| api::placement::matches(term, "", &node.labels);
    terms.iter().any(matches)
}

/// Whether a volume has been set aside for the claim.
fn is_for(volume: &Volume, key: &ObjectKey, uid: &str) -> bool {
    volume.spec.claim_ref.as_ref().is_some_and(|reference| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        text(&reference.name) == key.name()
            && text(&reference.namespace) == key.namespace()
            && reference
                .uid
                .as_deref()
                .is_none_or(|u| u.is_empty() || u == uid)
    })
}

impl Storage {
    /// The claims of a pod; or why no node can take it for now.
    pub fn claims(&self, pod: &PodInfo) -> Result<Claims, String> {
        let mut claims = Claims::default();
        let mut immediate = false;
        for volume in &pod.volumes {
            let Some((key, owned)) = claim_of(pod, volume) else {
                continue;
            };
            let name = key.name();
            let Some(claim) = self.claims.get(&key) else {
                return Err(if owned {
                    format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                    )
                } else {
                    format!("persistentvolumeclaim {name:?} not found")
                });
            };
            if claim.status.phase == "Lost" {
                return Err(format!(
                    "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {:?}",
                    claim.spec.volume_name
                ));
            }
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
            }
            let owner = |uid: &str| {
                let owners = claim.metadata.owner_references.iter();
                owners
                    .clone()
                    .any(|o| o.controller == Some(true) && o.uid == uid)
            };
            if owned && !owner(&pod.uid) {
                return Err(format!(
                    "PVC {key} was not created for pod {} (pod is not owner)",
                    pod.key
                ));
            }
            if is_bound(claim) {
                claims.bound.push(Arc::clone(claim));
                continue;
            }
            let class = self.classes.get(class_of(claim));
            let waits = class.is_some_and(|c| c.waits_for_consumer());
            if waits && claim.spec.volume_name.is_empty() {
                claims.delayed.push(Arc::clone(claim));
            } else {
                immediate = true;
            }
        }
        if immediate {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        Ok(claims)
    }

    /// Whether the claims' volumes are there and can be reached from every node.
    pub fn are_everywhere(&self, claims: &Claims) -> bool {
        let is_everywhere = |claim: &Arc<Claim>| {
            let volume = self.volumes.get(claim.spec.volume_name.as_str());
            volume.is_some_and(|volume| {
                let driven = volume.driven.as_ref();
                volume.spec.node_affinity.is_none()
                    && driven.is_none_or(|driven| driven.node_affinity.is_none())
            })
        };
        claims.delayed.is_empty() && claims.bound.iter().all(is_everywhere)
    }

    /// What it takes to have the claims' volumes on a node; or why they cannot be there.
    pub fn plan(&self, claims: &Claims, node: &NodeInfo) -> Result<Plan, Vec<&'static str>> {
        const CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
        const NONE: &str = "node(s) didn't find available persistent volumes to bind";
        const FULL: &str = "node(s) did not have enough free storage";
        const GONE: &str =
            "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
        let mut reasons = Vec::new();
        for claim in &claims.bound {
            match self.volumes.get(claim.spec.volume_name.as_str()) {
                None => {
                    reasons.push(GONE);
                    break;
                }
                Some(volume) if !self.reaches_bound(volume, node) => {
                    reasons.push(CONFLICT);
                    break;
                }
                Some(_) => {}
            }
        }
        let mut plan = Plan::default();
        let mut delayed: Vec<(ObjectKey, &Arc<Claim>)> = Vec::new();
        for claim in &claims.delayed {
            let key = client::Object::key(&**claim);
            let written = claim.metadata.annotations.get(SELECTED_NODE);
            let selected = self
                .selected
                .get(&key)
                .map(|node| &**node)
                .or(written.map(String::as_str));
            match selected {
                Some(name) if name == &*node.name => plan.provisions.push(key),
                Some(_) => {
                    reasons.push(NONE);
                    return Err(reasons);
                }
                None => delayed.push((key, claim)),
            }
        }
        // The smallest first, so that it does not get what a larger one needs.
        delayed.sort_by_key(|(_, claim)| size(claim));
        for (key, claim) in delayed {
            match self.volume_for(&key, claim, node, &plan) {
                Some(volume) => plan.bindings.push((volume, key)),
                None => plan.provisions.push(key),
            }
        }
        for key in &plan.provisions {
            let claim = &self.claims[key];
            let class = self.classes.get(class_of(claim));
            let makes = class.filter(|class| {
                !matches!(class.provisioner.as_str(), "" | NO_PROVISIONER)
                    && is_allowed(&class.allowed_topologies, node)
            });
            let Some(class) = makes else {
                reasons.push(NONE);
                break;
            };
            if !self.has_room(claim, class, node) {
                reasons.push(FULL);
                break;
            }
        }
        if reasons.is_empty() {
            Ok(plan)
        } else {
            Err(reasons)
        }
    }

    /// Whether a node that has a driver for the volume's plugin of old can reach the driver's; any
    /// other as it is.
    fn reaches_bound(&self, volume: &Volume, node: &NodeInfo) -> bool {
        let csi_node = self.csi_nodes.get(&*node.name);
        let has_migrated = |plugin| csi_node.is_some_and(|csi_node| csi_node.has_migrated(plugin));
        match &volume.driven {
            Some(driven) if has_migrated(driven.plugin) => {
                meets(driven.node_affinity.as_ref(), node)
            }
            _ => reaches(volume, node),
        }
    }

    /// The smallest free volume that will do for a claim on a node.
    fn volume_for(
        &self,
        key: &ObjectKey,
        claim: &Claim,
        node: &NodeInfo,
        plan: &Plan,
    ) -> Option<ObjectKey> {
        let selector = claim.spec.selector.as_ref().map(|s| {
            Selector::from_label_selector(Some(s)).unwrap_or_else(|_| Selector::nothing())
        });
        let mode = |mode: &Option<String>| mode.as_deref().unwrap_or("Filesystem") == "Block";
        let capacity = |v: &Volume| v.spec.capacity.get("storage").map_or(0, Quantity::value);
        let fits = |name: &ObjectKey, volume: &Volume| {
            let taken = plan.bindings.iter().any(|(v, _)| v == name)
                || self.promised.get(name).is_some_and(|to| to != key);
            !taken
                && capacity(volume) >= size(claim)
                && mode(&volume.spec.volume_mode) == mode(&claim.spec.volume_mode)
                && volume
                    .spec
                    .volume_attributes_class_name
                    .as_deref()
                    .unwrap_or("")
                    == claim
                        .spec
                        .volume_attributes_class_name
                        .as_deref()
                        .unwrap_or("")
                && volume.metadata.deletion_timestamp.is_none()
        };
        let mut best: Option<(i64, &ObjectKey)> = None;
        for (name, volume) in &self.volumes {
            let mine = is_for(volume, key, &claim.metadata.uid);
            if (volume.spec.claim_ref.is_some() && !mine) || !fits(name, volume) {
                continue;
            }
            if mine {
                return reaches(volume, node).then(|| name.clone());
            }
            let class = volume.metadata.annotations.get(BETA_CLASS);
            let usable = volume.status.phase == "Available"
                && selector
                    .as_ref()
                    .is_none_or(|s| s.matches_labels(Some(&volume.metadata.labels)))
                && class.unwrap_or(&volume.spec.storage_class_name) == class_of(claim)
                && claim
                    .spec
                    .access_modes
                    .iter()
                    .all(|mode| volume.spec.access_modes.contains(mode))
                && reaches(volume, node);
            let candidate = (capacity(volume), name);
            if usable && best.is_none_or(|best| candidate < best) {
                best = Some(candidate);
            }
        }
        best.map(|(_, name)| name.clone())
    }

    /// Whether the driver, if it says how much there is, has room for the claim's volume.
    fn has_room(&self, claim: &Claim, class: &Class, node: &NodeInfo) -> bool {
        let driver = self.drivers.get(class.provisioner.as_str());
        if !driver.is_some_and(|d| d.spec.storage_capacity)
            || !claim.spec.resources.requests.contains_key("storage")
        {
            return true;
        }
        self.capacities.values().any(|capacity| {
            let limit = capacity
                .maximum_volume_size
                .as_ref()
                .or(capacity.capacity.as_ref());
            let near = capacity.node_topology.as_ref().is_some_and(|topology| {
                Selector::from_label_selector(Some(topology))
                    .is_ok_and(|s| s.matches_labels(Some(&node.labels)))
            });
            *capacity.storage_class_name == *class.metadata.name
                && limit.is_some_and(|limit| limit.value() >= size(claim))
                && near
        })
    }

    /// Remembers what is going to be done.
    pub fn assume(&mut self, plan: &Plan, node: &str) {
        for (volume, claim) in &plan.bindings {
            self.promised.insert(volume.clone(), claim.clone());
        }
        for claim in &plan.provisions {
            self.selected.insert(claim.clone(), node.into());
        }
    }

    /// Forgets it: it has been done, or will not be.
    pub fn forget(&mut self, plan: &Plan) {
        for (volume, claim) in &plan.bindings {
            if self.promised.get(volume) == Some(claim) {
                self.promised.remove(volume);
            }
        }
        for claim in &plan.provisions {
            self.selected.remove(claim);
        }
    }
}

fn is_allowed(topologies: &[TopologySelectorTerm], node: &NodeInfo) -> bool {
    topologies.is_empty()
        || topologies.iter().any(|term| {
            let expressions = term.match_label_expressions.as_deref().unwrap_or_default();
            let meets = |r: &k8s_openapi::api::core::v1::TopologySelectorLabelRequirement| {
                node.labels
                    .get(&r.key)
                    .is_some_and(|v| r.values.contains(v))
            };
            !expressions.is_empty() && expressions.iter().all(meets)
        })
}
