//! [`PodInfo`]: what the scheduler needs of one version of a pod. What decides where it
//! goes is its [`Template`], which pods of one kind share: they share filter and score
//! work as well.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use client::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Affinity, PodCondition, Toleration};
use meta::quantity::Quantity;

use super::templates::Likeness;
use super::terms::{Spread, Terms};
use super::{ClaimName, Container, Pod, PodSpec, PodVolume};
use crate::cache::Resources;

/// A port of the node that a pod wants for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    pub ip: Box<str>,
    pub protocol: Box<str>,
    pub port: i32,
}

/// Who made a pod, as far as default constraints of topology spread ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub api_version: String,
    pub kind: String,
    pub name: String,
}

/// All that pods of one kind have in common.
#[derive(Debug)]
pub struct Template {
    /// Never given to another template.
    pub id: u32,
    pub namespace: Box<str>,
    pub labels: BTreeMap<String, String>,
    pub owner: Option<Owner>,
    /// The PodGroup that it is scheduled with.
    pub group: Option<ObjectKey>,
    pub scheduler_name: Box<str>,
    pub priority: i32,
    pub never_preempts: bool,
    pub requests: Resources,
    /// With upstream's stand-ins for containers that request no CPU or memory, so that
    /// many of them do not look like nothing when nodes are scored.
    pub scored_requests: Resources,
    pub host_ports: Vec<HostPort>,
    pub node_selector: BTreeMap<String, String>,
    pub affinity: Option<Affinity>,
    pub tolerations: Vec<Toleration>,
    pub terms: Terms,
    pub spread: Vec<Spread>,
    /// Images of containers and of volumes, with a tag.
    pub images: Vec<String>,
    pub containers: usize,
    /// Features that its node must have declared (KEP-5328).
    pub features: Vec<&'static str>,
    /// Containers that request extended resources.
    pub extended: Vec<ExtendedContainer>,
    pub(super) likeness: Likeness,
}

/// A container, as far as extended resources go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedContainer {
    /// Among all containers, init containers first.
    pub index: usize,
    pub name: String,
    pub init: bool,
    pub sidecar: bool,
    /// What it requests, how much of it, and its place among all its requests by name.
    pub requests: Vec<(Box<str>, i64, usize)>,
}

/// A pod's claim for devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimUse {
    /// Within the pod.
    pub name: String,
    pub source: ClaimSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimSource {
    Named(String),
    /// Of a template, when there is one.
    Made(Option<String>),
    /// Of a template, and none is needed.
    NotNeeded,
    /// Of a kind that is not known.
    Unknown,
}

/// What the scheduler needs of one version of a pod.
#[derive(Debug)]
pub struct PodInfo {
    pub key: ObjectKey,
    pub uid: Box<str>,
    /// `metadata.resourceVersion`; 0 when there is none.
    pub version: u64,
    pub template: Arc<Template>,
    pub node_name: Box<str>,
    /// `status.nominatedNodeName`.
    pub nominated: Box<str>,
    pub gates: Vec<String>,
    pub volumes: Vec<PodVolume>,
    pub claims: Vec<ClaimUse>,
    pub terminal: bool,
    pub deleting: bool,
    pub generation: i64,
    pub start_time: Option<Timestamp>,
    pub conditions: Vec<PodCondition>,
}

impl Deref for PodInfo {
    type Target = Template;
    fn deref(&self) -> &Template {
        &self.template
    }
}

impl PodInfo {
    /// A pod of a kind of its own; for tests.
    #[cfg(test)]
    pub fn new(pod: &Pod) -> Arc<Self> {
        super::Templates::default().pod(pod)
    }

    pub fn is_assigned(&self) -> bool {
        !self.node_name.is_empty()
    }

    /// Whether it is judged for itself, unlike others of its kind.
    pub fn is_own(&self) -> bool {
        self.has_volumes() || !self.claims.is_empty() || !self.extended.is_empty()
    }

    /// Whether plugins ask what its volumes are.
    pub fn has_volumes(&self) -> bool {
        self.volumes.iter().any(concerns_scheduling)
    }

    /// How many volumes it has that may be attached to its node; never too few.
    pub fn attachable_volumes(&self) -> usize {
        let volumes = self.volumes.iter();
        volumes.filter(|v| concerns_scheduling(v)).count()
    }
}

pub(super) fn claims(pod: &Pod) -> Vec<ClaimUse> {
    let source = |claim: &ClaimName| {
        if let Some(name) = &claim.resource_claim_name {
            return ClaimSource::Named(name.clone());
        }
        if claim.resource_claim_template_name.is_none() {
            return ClaimSource::Unknown;
        }
        let mut statuses = pod.status.resource_claim_statuses.iter();
        match statuses.find(|status| status.name == claim.name) {
            None => ClaimSource::Made(None),
            Some(status) => match &status.resource_claim_name {
                Some(name) => ClaimSource::Made(Some(name.clone())),
                None => ClaimSource::NotNeeded,
            },
        }
    };
    let claims = pod.spec.resource_claims.iter();
    claims
        .map(|claim| ClaimUse {
            name: claim.name.clone(),
            source: source(claim),
        })
        .collect()
}

/// Whether a resource is one that somebody else than Kubernetes knows of, or a class of devices.
pub fn is_extended(name: &str) -> bool {
    if name.starts_with(crate::cache::devices::CLASS_RESOURCE_PREFIX) {
        return true;
    }
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

fn extended(spec: &PodSpec) -> Vec<ExtendedContainer> {
    let inits = spec.init_containers.len();
    let containers = spec.init_containers.iter().chain(&spec.containers);
    containers
        .enumerate()
        .filter_map(|(index, container)| {
            let all = container.resources.requests.iter().enumerate();
            let requests: Vec<(Box<str>, i64, usize)> = all
                .filter(|(_, (name, quantity))| is_extended(name) && !quantity.is_zero())
                .map(|(at, (name, quantity))| (name.as_str().into(), quantity.value(), at))
                .collect();
            (!requests.is_empty()).then(|| ExtendedContainer {
                index,
                name: container.name.clone(),
                init: index < inits,
                sidecar: container.restart_policy == "Always",
                requests,
            })
        })
        .collect()
}

/// Whether a volume may keep a pod off a node.
pub(super) fn concerns_scheduling(volume: &PodVolume) -> bool {
    volume.persistent_volume_claim.is_some()
        || volume.ephemeral.is_some()
        || volume.is_driven()
        || volume.iscsi.is_some()
        || volume.rbd.is_some()
}

/// Stand-ins for what a container does not request (`GetNonzeroRequests`).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

impl Template {
    pub(super) fn new(id: u32, pod: &Pod, spec: &PodSpec, groups: bool) -> Self {
        let metadata = &pod.metadata;
        let owner = metadata
            .owner_references
            .iter()
            .find(|o| o.controller == Some(true))
            .map(|o| Owner {
                api_version: o.api_version.clone(),
                kind: o.kind.clone(),
                name: o.name.clone(),
            });
        Self {
            id,
            namespace: metadata.namespace.clone(),
            labels: metadata.labels.clone(),
            owner,
            group: pod.group().filter(|_| groups),
            scheduler_name: spec.scheduler_name.as_str().into(),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            requests: requests(spec, |container| {
                Resources::of(&container.resources.requests)
            }),
            scored_requests: requests(spec, |container| {
                let mut resources = Resources::of(&container.resources.requests);
                if !container.resources.requests.contains_key("cpu") {
                    resources.milli_cpu = DEFAULT_MILLI_CPU;
                }
                if !container.resources.requests.contains_key("memory") {
                    resources.memory = DEFAULT_MEMORY;
                }
                resources
            }),
            host_ports: host_ports(spec),
            node_selector: spec.node_selector.clone(),
            affinity: spec.affinity.clone(),
            tolerations: spec.tolerations.clone(),
            terms: Terms::new(spec.affinity.as_ref(), &metadata.namespace),
            spread: spec
                .topology_spread_constraints
                .iter()
                .filter_map(|c| Spread::new(c, &metadata.labels))
                .collect(),
            images: spec
                .init_containers
                .iter()
                .chain(&spec.containers)
                .map(|c| c.image.as_str())
                .chain(image_volumes(spec))
                .map(with_tag)
                .collect(),
            containers: spec.init_containers.len() + spec.containers.len(),
            features: features(spec),
            extended: extended(spec),
            likeness: Likeness::of(pod, spec),
        }
    }
}

type Requests = BTreeMap<String, Quantity>;

/// The spec with requests as they count: while a container is being resized, or the pod as a
/// whole, the larger of what it has and what it is to have; what it has when it will not get it
/// (KEP-1287, KEP-5419).
pub(super) fn effective(pod: &Pod) -> Cow<'_, PodSpec> {
    let mut spec = Cow::Borrowed(&pod.spec);
    let status = &pod.status;
    let mut resizes = status.conditions.iter();
    let infeasible = resizes
        .find(|c| c.type_ == "PodResizePending")
        .is_some_and(|c| c.reason.as_deref() == Some("Infeasible"));
    let largest = |wanted: &Requests, actual: &Requests, allocated: &Requests| {
        let mut requests = if infeasible {
            BTreeMap::new()
        } else {
            wanted.clone()
        };
        for (name, quantity) in actual.iter().chain(allocated) {
            match requests.get_mut(name) {
                Some(most) if most.to_f64() >= quantity.to_f64() => {}
                _ => {
                    requests.insert(name.clone(), quantity.clone());
                }
            }
        }
        requests
    };
    let both = [
        (&status.container_statuses, false),
        (&status.init_container_statuses, true),
    ];
    for (statuses, init) in both {
        for status in statuses {
            let Some(actual) = &status.resources else {
                continue;
            };
            let containers = if init {
                &pod.spec.init_containers
            } else {
                &pod.spec.containers
            };
            let Some(at) = containers.iter().position(|c| c.name == status.name) else {
                continue;
            };
            let container = &containers[at];
            if init && container.restart_policy != "Always" {
                continue;
            }
            let wanted = &container.resources.requests;
            let requests = largest(wanted, &actual.requests, &status.allocated_resources);
            if requests != *wanted {
                let spec = spec.to_mut();
                let containers = if init {
                    &mut spec.init_containers
                } else {
                    &mut spec.containers
                };
                containers[at].resources.requests = requests;
            }
        }
    }
    if let Some(actual) = &status.resources {
        let wanted = &pod.spec.resources.requests;
        let mut requests = largest(wanted, &actual.requests, &status.allocated_resources);
        // Nothing else is asked for the pod as a whole.
        requests.retain(|name, _| wanted.contains_key(name));
        if requests != *wanted {
            spec.to_mut().resources.requests = requests;
        }
    }
    spec
}

pub(super) fn image_volumes(spec: &PodSpec) -> impl Iterator<Item = &str> {
    spec.volumes
        .iter()
        .filter_map(|v| v.image.as_ref()?.reference.as_deref())
}

/// Nodes list their images with tags.
pub fn with_tag(image: &str) -> String {
    if image.rfind(':') <= image.rfind('/') {
        return format!("{image}:latest");
    }
    image.to_owned()
}

/// What a node must have declared to run the pod.
fn features(spec: &PodSpec) -> Vec<&'static str> {
    let mut features = Vec::new();
    let mut containers = spec.containers.iter().chain(&spec.init_containers);
    if containers.any(|c| {
        c.restart_policy_rules
            .iter()
            .any(|r| r.action == "RestartAllContainers")
    }) {
        features.push("RestartAllContainersOnContainerExits");
    }
    if spec.host_network && spec.host_users == Some(false) {
        features.push("UserNamespacesHostNetworkSupport");
    }
    features
}

/// What a pod requests by its spec.
pub fn requested(pod: &Pod) -> Resources {
    requests(&pod.spec, |container| {
        Resources::of(&container.resources.requests)
    })
}

/// What a pod needs at once: all its containers and sidecars together, or the largest
/// of its init containers beside the sidecars that run by then, whichever is more (KEP-753).
fn requests(spec: &PodSpec, of: impl Fn(&Container) -> Resources) -> Resources {
    let mut sum = Resources::default();
    for container in &spec.containers {
        sum.add(&of(container));
    }
    let mut sidecars = Resources::default();
    let mut init = Resources::default();
    for container in &spec.init_containers {
        let mut needed = of(container);
        if container.restart_policy == "Always" {
            sum.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        init.raise_to(&needed);
    }
    sum.raise_to(&init);
    // What the pod as a whole declares replaces the sum (KEP-2837).
    sum.replace(
        &Resources::of(&spec.resources.requests),
        &spec.resources.requests,
    );
    sum.add(&Resources::of(&spec.overhead));
    sum
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .filter(|c| c.restart_policy == "Always");
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| &c.ports);
    ports
        .filter_map(|port| {
            let number = port
                .host_port
                .or(spec.host_network.then_some(port.container_port))?;
            (number > 0).then(|| HostPort {
                ip: port
                    .host_ip
                    .as_deref()
                    .filter(|ip| !ip.is_empty())
                    .unwrap_or("0.0.0.0")
                    .into(),
                protocol: port.protocol.as_deref().unwrap_or("TCP").into(),
                port: number,
            })
        })
        .collect()
}
