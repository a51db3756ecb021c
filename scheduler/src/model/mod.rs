//! Pods and nodes as the scheduler reads them: slim structs for the informers. What is
//! worked out of them once is in [`pod`] and [`terms`].

pub mod pod;
mod templates;
pub mod terms;

use std::collections::BTreeMap;

use client::{ObjectKey, SlimMeta, slim_kind};
use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, Affinity, AzureDiskVolumeSource, CinderVolumeSource,
    ContainerPort, EphemeralVolumeSource, GCEPersistentDiskVolumeSource, ISCSIVolumeSource,
    ImageVolumeSource, NodeAddress, PersistentVolumeClaimVolumeSource, PodCondition,
    PortworxVolumeSource, RBDVolumeSource, Taint, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meta::quantity::Quantity;
use serde::{Deserialize, Serialize};

pub use pod::{HostPort, PodInfo, Template};
pub use templates::Templates;

/// A pod, with the fields that decide where it goes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    pub metadata: SlimMeta,
    pub spec: PodSpec,
    pub status: PodStatus,
}
slim_kind!(Pod, "", "v1", "Pod", "pods", namespaced);

impl Pod {
    /// The group that it is a member of.
    pub fn group(&self) -> Option<ObjectKey> {
        let group = self.spec.scheduling_group.as_ref()?;
        let name = group.pod_group_name.as_deref()?;
        Some(ObjectKey::new(&self.metadata.namespace, name))
    }
}

/// Serialized, it is what tells kinds of pods apart: what differs between pods that are
/// alike to the plugins is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    #[serde(skip_serializing)]
    pub node_name: String,
    pub scheduler_name: String,
    pub priority: Option<i32>,
    pub preemption_policy: Option<String>,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub overhead: BTreeMap<String, Quantity>,
    pub resources: Requirements,
    pub node_selector: BTreeMap<String, String>,
    pub affinity: Option<Affinity>,
    pub tolerations: Vec<Toleration>,
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    #[serde(skip_serializing)]
    pub scheduling_gates: Vec<Gate>,
    pub host_network: bool,
    pub host_users: Option<bool>,
    #[serde(skip_serializing)]
    pub volumes: Vec<PodVolume>,
    pub resource_claims: Vec<ClaimName>,
    pub scheduling_group: Option<SchedulingGroup>,
}

/// Which group a pod is to be scheduled with (KEP-4671).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SchedulingGroup {
    pub pod_group_name: Option<String>,
}

/// A volume of one of the sorts that may keep a pod off a node. Most pods have one of
/// another sort, with their token.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodVolume {
    pub name: String,
    pub persistent_volume_claim: Option<Box<PersistentVolumeClaimVolumeSource>>,
    pub ephemeral: Option<Box<EphemeralVolumeSource>>,
    pub gce_persistent_disk: Option<Box<GCEPersistentDiskVolumeSource>>,
    pub aws_elastic_block_store: Option<Box<AWSElasticBlockStoreVolumeSource>>,
    pub azure_disk: Option<Box<AzureDiskVolumeSource>>,
    pub cinder: Option<Box<CinderVolumeSource>>,
    pub portworx_volume: Option<Box<PortworxVolumeSource>>,
    pub iscsi: Option<Box<ISCSIVolumeSource>>,
    pub rbd: Option<Box<RBDVolumeSource>>,
    pub image: Option<Box<ImageVolumeSource>>,
}

impl PodVolume {
    /// Whether it is of a plugin of old and counts as its driver's.
    pub fn is_driven(&self) -> bool {
        self.gce_persistent_disk.is_some()
            || self.aws_elastic_block_store.is_some()
            || self.azure_disk.is_some()
            || self.cinder.is_some()
            || self.portworx_volume.is_some()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub image: String,
    pub resources: Requirements,
    pub ports: Vec<ContainerPort>,
    pub restart_policy: String,
    pub restart_policy_rules: Vec<RestartRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartRule {
    pub action: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Requirements {
    pub requests: BTreeMap<String, Quantity>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gate {
    pub name: String,
}

/// A claim for devices, by its name within the pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimName {
    pub name: String,
    #[serde(skip_serializing)]
    pub resource_claim_name: Option<String>,
    #[serde(skip_serializing)]
    pub resource_claim_template_name: Option<String>,
}

/// Which claim was made for a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimStatus {
    pub name: String,
    pub resource_claim_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    pub conditions: Vec<PodCondition>,
    pub nominated_node_name: String,
    pub start_time: Option<Time>,
    /// What the pod as a whole has by now, where its spec says what it is to have.
    pub resources: Option<Requirements>,
    pub allocated_resources: BTreeMap<String, Quantity>,
    pub container_statuses: Vec<ContainerStatus>,
    pub init_container_statuses: Vec<ContainerStatus>,
    pub resource_claim_statuses: Vec<ClaimStatus>,
}

/// What a container has by now, which differs from what it is to have while it is being
/// resized.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub resources: Option<Requirements>,
    pub allocated_resources: BTreeMap<String, Quantity>,
}

/// A node, with the fields that decide what it may run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    pub metadata: SlimMeta,
    pub spec: NodeSpec,
    pub status: NodeStatus,
}
slim_kind!(Node, "", "v1", "Node", "nodes", cluster);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    pub allocatable: BTreeMap<String, Quantity>,
    pub addresses: Vec<NodeAddress>,
    pub images: Vec<Image>,
    pub declared_features: Vec<String>,
}

/// An image that a node has.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Image {
    pub names: Vec<String>,
    pub size_bytes: i64,
}

impl Node {
    /// Whether the scheduler sees no difference: heartbeats are most of what happens to a node.
    pub fn looks_like(&self, other: &Self) -> bool {
        self.spec == other.spec
            && self.status.allocatable == other.status.allocatable
            && self.status.images == other.status.images
            && self.status.declared_features == other.status.declared_features
            && self.metadata.labels == other.metadata.labels
    }
}
