//! The pod as controllers see it: the fields that any of them reads, and the predicates over
//! them. One cache of these serves the whole process.

use client::{Kind, ResourceInfo, SlimMeta};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, AzureFileVolumeSource,
    CinderVolumeSource, FCVolumeSource, GCEPersistentDiskVolumeSource, ISCSIVolumeSource,
    PortworxVolumeSource, Volume as FullVolume, VsphereVirtualDiskVolumeSource,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use serde::{Deserialize, Serialize};

/// A pod with only the fields that controllers read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub metadata: SlimMeta,
    pub spec: PodSpec,
    pub status: PodStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: Box<str>,
    pub hostname: Box<str>,
    pub subdomain: Box<str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<Container>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_containers: Vec<Container>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Box<Affinity>>,
    /// Those that are claims, and those that somebody attaches to the node; others are of no
    /// interest here.
    #[serde(deserialize_with = "volumes", skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_claims: Vec<PodResourceClaim>,
    /// Few pods have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduling_group: Option<Box<SchedulingGroup>>,
}

/// The PodGroup that a pod is scheduled with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SchedulingGroup {
    pub pod_group_name: Box<str>,
}

/// A claim of devices, by the name of an object or made from a template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodResourceClaim {
    pub name: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_claim_name: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_claim_template_name: Option<Box<str>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    pub name: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Ephemeral>,
    /// The pod's own, on a disk that is attached to the node. Few pods have any.
    #[serde(skip)]
    pub disk: Option<Box<FullVolume>>,
}

impl Volume {
    /// The name of its claim, and whether that is one which is made for the pod (KEP-1698).
    pub fn claim(&self, pod: &str) -> Option<(String, bool)> {
        if let Some(source) = &self.persistent_volume_claim {
            return Some((source.claim_name.to_string(), false));
        }
        self.ephemeral.as_ref()?;
        Some((format!("{pod}-{}", self.name), true))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSource {
    pub claim_name: Box<str>,
}

/// That the volume's claim is made for the pod; of the template nothing is needed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ephemeral {}

/// A volume as it comes, of every sort that is of interest.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    name: Box<str>,
    persistent_volume_claim: Option<ClaimSource>,
    ephemeral: Option<Ephemeral>,
    iscsi: Option<ISCSIVolumeSource>,
    fc: Option<FCVolumeSource>,
    aws_elastic_block_store: Option<AWSElasticBlockStoreVolumeSource>,
    gce_persistent_disk: Option<GCEPersistentDiskVolumeSource>,
    azure_disk: Option<AzureDiskVolumeSource>,
    azure_file: Option<AzureFileVolumeSource>,
    cinder: Option<CinderVolumeSource>,
    vsphere_volume: Option<VsphereVirtualDiskVolumeSource>,
    portworx_volume: Option<PortworxVolumeSource>,
}

impl From<Source> for Volume {
    fn from(source: Source) -> Self {
        let disk = FullVolume {
            iscsi: source.iscsi,
            fc: source.fc,
            aws_elastic_block_store: source.aws_elastic_block_store,
            gce_persistent_disk: source.gce_persistent_disk,
            azure_disk: source.azure_disk,
            azure_file: source.azure_file,
            cinder: source.cinder,
            vsphere_volume: source.vsphere_volume,
            portworx_volume: source.portworx_volume,
            ..FullVolume::default()
        };
        let disk = (disk != FullVolume::default()).then(|| {
            Box::new(FullVolume {
                name: source.name.to_string(),
                ..disk
            })
        });
        Self {
            name: source.name,
            persistent_volume_claim: source.persistent_volume_claim,
            ephemeral: source.ephemeral,
            disk,
        }
    }
}

/// Every pod has volumes of other sorts, such as its token: they would only take room.
pub fn volumes<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Volume>, D::Error> {
    let volumes = Vec::<Source>::deserialize(from)?.into_iter();
    let mut volumes: Vec<Volume> = volumes
        .map(Volume::from)
        .filter(|v| {
            v.persistent_volume_claim.is_some() || v.ephemeral.is_some() || v.disk.is_some()
        })
        .collect();
    volumes.shrink_to_fit();
    Ok(volumes)
}

/// Of a pod's affinity only what pins daemon pods to their nodes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity {
    pub node_affinity: NodeAffinity,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: NodeSelector,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    pub node_selector_terms: Vec<NodeSelectorTerm>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelectorTerm {
    pub match_fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FieldRequirement {
    pub key: Box<str>,
    pub operator: Box<str>,
    pub values: Vec<Box<str>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: Box<str>,
    pub restart_policy: Box<str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<ContainerPort>,
}

impl Container {
    /// An init container that runs as long as the pod does.
    pub fn is_sidecar(&self) -> bool {
        &*self.restart_policy == "Always"
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    pub name: Box<str>,
    pub container_port: i32,
    pub protocol: Box<str>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    pub key: Box<str>,
    pub operator: Box<str>,
    pub value: Box<str>,
    pub effect: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: Box<str>,
    #[serde(rename = "podIP")]
    pub pod_ip: Box<str>,
    #[serde(rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<PodIp>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<PodCondition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub container_statuses: Vec<ContainerStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// What was made for [`PodSpec::resource_claims`] that have templates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resource_claim_statuses: Vec<ResourceClaimStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extended_resource_claim_status: Option<ExtendedResourceClaimStatus>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceClaimStatus {
    pub name: Box<str>,
    /// `None`: no claim is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_claim_name: Option<Box<str>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtendedResourceClaimStatus {
    pub resource_claim_name: Box<str>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PodIp {
    pub ip: Box<str>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    pub r#type: Box<str>,
    pub status: Box<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: Box<str>,
    pub restart_count: i32,
    pub state: ContainerState,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<Running>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated: Option<Terminated>,
}

/// That it runs; since when is of no interest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Running {}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    pub exit_code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}

client::slim_object!(Pod, trim: forget_applied);

fn forget_applied(pod: &mut Pod) {
    // As large as the object itself, and of use to kubectl only.
    let applied = "kubectl.kubernetes.io/last-applied-configuration";
    pod.metadata.annotations.remove(applied);
}

impl Kind for Pod {
    const RESOURCE: ResourceInfo = ResourceInfo::of("", "v1", "Pod", "pods", true);
}

/// The reference that says `controller: true`, if any.
fn controller_of(owners: &[OwnerReference]) -> Option<&OwnerReference> {
    owners.iter().find(|r| r.controller == Some(true))
}

impl Pod {
    /// The object that manages this pod, if any.
    pub fn controller(&self) -> Option<&OwnerReference> {
        controller_of(&self.metadata.owner_references)
    }

    pub fn is_controlled_by(&self, uid: &str) -> bool {
        self.controller().is_some_and(|r| r.uid == uid)
    }

    pub fn condition(&self, kind: &str) -> Option<&PodCondition> {
        self.status.conditions.iter().find(|c| &*c.r#type == kind)
    }

    pub fn is_ready(&self) -> bool {
        self.condition("Ready")
            .is_some_and(|c| &*c.status == "True")
    }

    /// When the pod became ready, if it is.
    pub fn ready_since(&self) -> Option<Timestamp> {
        let ready = self.condition("Ready").filter(|c| &*c.status == "True")?;
        ready.last_transition_time.as_ref().map(|t| t.0)
    }

    /// Ready for at least `min_ready_seconds`.
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        if !self.is_ready() {
            return false;
        }
        if min_ready_seconds == 0 {
            return true;
        }
        let span = SignedDuration::from_secs(min_ready_seconds.into());
        self.ready_since()
            .is_some_and(|since| now.duration_since(since) >= span)
    }

    /// How long until the pod is available, if it will be by waiting alone.
    pub fn available_in(&self, min_ready_seconds: i32, now: Timestamp) -> Option<SignedDuration> {
        if min_ready_seconds <= 0 {
            return None;
        }
        let span = SignedDuration::from_secs(min_ready_seconds.into());
        let left = span - now.duration_since(self.ready_since()?);
        left.is_positive().then_some(left)
    }

    /// The node that the pod is on, or the only one that it may go to.
    pub fn target_node(&self) -> Option<&str> {
        if !self.spec.node_name.is_empty() {
            return Some(&self.spec.node_name);
        }
        let terms = &self
            .spec
            .affinity
            .as_ref()?
            .node_affinity
            .required
            .node_selector_terms;
        let fields = terms.iter().flat_map(|t| &t.match_fields);
        let mut names = fields.filter(|f| &*f.key == "metadata.name" && &*f.operator == "In");
        match &names.next()?.values[..] {
            [name] => Some(name),
            _ => None,
        }
    }

    /// The names of the claims that the pod's volumes use, and whether each is one that is made
    /// for this pod (KEP-1698).
    pub fn claims(&self) -> impl Iterator<Item = (String, bool)> {
        let volumes = self.spec.volumes.iter();
        volumes.filter_map(|volume| volume.claim(&self.metadata.name))
    }

    /// The pod's own volumes on disks that are attached to its node.
    pub fn disks(&self) -> impl Iterator<Item = &FullVolume> {
        self.spec.volumes.iter().filter_map(|v| v.disk.as_deref())
    }

    /// Ended, for good or bad.
    pub fn is_terminal(&self) -> bool {
        matches!(&*self.status.phase, "Succeeded" | "Failed")
    }

    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Neither ended nor being deleted.
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.is_deleting()
    }

    /// Being deleted but not ended yet.
    pub fn is_terminating(&self) -> bool {
        !self.is_terminal() && self.is_deleting()
    }

    /// The most restarts of any container, and of any sidecar.
    pub fn max_restarts(&self) -> (i32, i32) {
        let regular = self.status.container_statuses.iter();
        let sidecars = self.status.init_container_statuses.iter().filter(|s| {
            let mut inits = self.spec.init_containers.iter();
            inits.any(|c| c.name == s.name && c.is_sidecar())
        });
        let most = |m: i32, s: &ContainerStatus| m.max(s.restart_count);
        (regular.fold(0, most), sidecars.fold(0, most))
    }

    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.metadata.finalizers.iter().any(|f| f == finalizer)
    }

    /// When the last container ended; else when the pod was not ready any more, else when its
    /// deletion began, else when it was created.
    pub fn finished_at(&self) -> Option<Timestamp> {
        let sidecar = |s: &&ContainerStatus| {
            let mut inits = self.spec.init_containers.iter();
            inits.any(|c| c.name == s.name && c.is_sidecar())
        };
        let sidecars = self.status.init_container_statuses.iter().filter(sidecar);
        let all = self.status.container_statuses.iter().chain(sidecars);
        let ends: Option<Vec<Timestamp>> = all
            .map(|s| Some(s.state.terminated.as_ref()?.finished_at.as_ref()?.0))
            .collect();
        let not_ready = || {
            let ready = self.condition("Ready").filter(|c| &*c.status == "False")?;
            Some(ready.last_transition_time.as_ref()?.0)
        };
        let last = ends.and_then(|e| e.into_iter().max());
        last.or_else(not_ready)
            .or_else(|| self.metadata.deletion_timestamp.as_ref().map(|t| t.0))
            .or_else(|| self.metadata.creation_timestamp.as_ref().map(|t| t.0))
    }

    /// `controller.kubernetes.io/pod-deletion-cost`; what is no number counts as 0.
    pub fn deletion_cost(&self) -> i32 {
        const ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
        let Some(text) = self.metadata.annotations.get(ANNOTATION) else {
            return 0;
        };
        // As the API validates it: no plus sign, no leading zeroes.
        let digits = text.strip_prefix('-').unwrap_or(text);
        if text.starts_with('+') || (digits.starts_with('0') && text != "0") {
            return 0;
        }
        text.parse().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_of_interest() {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"volumes": [
            {"name": "token", "projected": {"sources": []}},
            {"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {"name": "files", "nfs": {"server": "s", "path": "/"}},
            {"name": "d", "iscsi": {"targetPortal": "p", "iqn": "i", "lun": 1}},
            {"name": "e", "vsphereVolume": {"volumePath": "v"}},
        ]}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let names: Vec<&str> = pod.spec.volumes.iter().map(|v| &*v.name).collect();
        assert_eq!(names, ["a", "b", "d", "e"]);
        let claims: Vec<(String, bool)> = pod.claims().collect();
        assert_eq!(claims, [("c".to_owned(), false), ("p-b".to_owned(), true)]);
        let disks: Vec<&FullVolume> = pod.disks().collect();
        assert_eq!(disks.len(), 2);
        assert_eq!(disks[0].name, "d");
        assert_eq!(disks[0].iscsi.as_ref().unwrap().lun, 1);
        assert_eq!(disks[1].vsphere_volume.as_ref().unwrap().volume_path, "v");
    }
}
