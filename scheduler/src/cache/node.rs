//! One node: what it has and what is taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use super::Resources;
use crate::model::{HostPort, Node, PodInfo};

#[derive(Debug, Clone)]
pub struct NodeInfo {
    pub name: Box<str>,
    pub labels: BTreeMap<String, String>,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    pub allocatable: Resources,
    /// How many pods it may run.
    pub allowed_pods: i64,
    pub requested: Resources,
    /// See [`PodInfo::scored_requests`].
    pub scored: Resources,
    pub pod_count: i64,
    /// Ports that pods have taken for themselves; a port may be in here for two addresses.
    pub ports: Vec<HostPort>,
}

impl NodeInfo {
    pub fn new(node: &Node) -> Self {
        let mut info = Self {
            name: node.metadata.name.clone(),
            labels: BTreeMap::new(),
            unschedulable: false,
            taints: Vec::new(),
            allocatable: Resources::default(),
            allowed_pods: 0,
            requested: Resources::default(),
            scored: Resources::default(),
            pod_count: 0,
            ports: Vec::new(),
        };
        info.update(node);
        info
    }

    pub fn update(&mut self, node: &Node) {
        self.labels.clone_from(&node.metadata.labels);
        self.unschedulable = node.spec.unschedulable;
        self.taints.clone_from(&node.spec.taints);
        self.allocatable = Resources::of(&node.status.allocatable);
        self.allowed_pods = node.status.allocatable.get("pods").map_or(0, |q| q.value());
    }

    pub fn add(&mut self, pod: &Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored.add(&pod.scored_requests);
        self.pod_count += 1;
        self.ports.extend(pod.host_ports.iter().cloned());
    }

    pub fn remove(&mut self, pod: &Arc<PodInfo>) {
        self.requested.subtract(&pod.requests);
        self.scored.subtract(&pod.scored_requests);
        self.pod_count -= 1;
        for port in &pod.host_ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
        }
    }
}
