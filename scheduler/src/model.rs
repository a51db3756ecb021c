//! Pods and nodes as the scheduler reads them: slim structs for the informers, and
//! [`PodInfo`], which is worked out once per version of a pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{ObjectKey, SlimMeta, slim_kind};
use k8s_openapi::api::core::v1::{
    Affinity, ContainerPort, NodeAddress, PodCondition, Taint, Toleration,
};
use meta::quantity::Quantity;
use serde::Deserialize;

use crate::cache::Resources;

/// A pod, with the fields that decide where it goes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    pub metadata: SlimMeta,
    pub spec: PodSpec,
    pub status: PodStatus,
}
slim_kind!(Pod, "", "v1", "Pod", "pods", namespaced);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: String,
    pub scheduler_name: String,
    pub priority: Option<i32>,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub overhead: BTreeMap<String, Quantity>,
    pub resources: Requirements,
    pub node_selector: BTreeMap<String, String>,
    pub affinity: Option<Affinity>,
    pub tolerations: Vec<Toleration>,
    pub scheduling_gates: Vec<Gate>,
    pub host_network: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub resources: Requirements,
    pub ports: Vec<ContainerPort>,
    pub restart_policy: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Requirements {
    pub requests: BTreeMap<String, Quantity>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Gate {
    pub name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    pub conditions: Vec<PodCondition>,
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
}

/// A port of the node that a pod wants for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    pub ip: Box<str>,
    pub protocol: Box<str>,
    pub port: i32,
}

/// What the scheduler needs of one version of a pod.
#[derive(Debug)]
pub struct PodInfo {
    pub key: ObjectKey,
    pub uid: Box<str>,
    pub node_name: Box<str>,
    pub scheduler_name: Box<str>,
    pub priority: i32,
    pub requests: Resources,
    /// With upstream's stand-ins for containers that request no CPU or memory, so that
    /// many of them do not look like nothing when nodes are scored.
    pub scored_requests: Resources,
    pub host_ports: Vec<HostPort>,
    pub node_selector: BTreeMap<String, String>,
    pub affinity: Option<Affinity>,
    pub tolerations: Vec<Toleration>,
    pub gates: Vec<String>,
    pub terminal: bool,
    pub deleting: bool,
    pub conditions: Vec<PodCondition>,
}

/// Stand-ins for what a container does not request (`GetNonzeroRequests`).
const DEFAULT_MILLI_CPU: i64 = 100;
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

impl PodInfo {
    pub fn new(pod: &Pod) -> Arc<Self> {
        let spec = &pod.spec;
        Arc::new(Self {
            key: ObjectKey::new(&pod.metadata.namespace, &pod.metadata.name),
            uid: pod.metadata.uid.clone(),
            node_name: spec.node_name.as_str().into(),
            scheduler_name: spec.scheduler_name.as_str().into(),
            priority: spec.priority.unwrap_or(0),
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
            gates: spec
                .scheduling_gates
                .iter()
                .map(|gate| gate.name.clone())
                .collect(),
            terminal: matches!(pod.status.phase.as_str(), "Succeeded" | "Failed"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            conditions: pod.status.conditions.clone(),
        })
    }

    pub fn is_assigned(&self) -> bool {
        !self.node_name.is_empty()
    }
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
