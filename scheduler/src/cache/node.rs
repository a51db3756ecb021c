//! One node: what it has and what is taken.

use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::Arc;

use client::ObjectKey;
use k8s_openapi::api::core::v1::Taint;

use super::Resources;
use crate::model::{HostPort, Node, PodInfo, Template};

/// What the node's object says; pods come and go without changing it.
#[derive(Debug)]
pub struct NodeObject {
    pub name: Box<str>,
    pub labels: BTreeMap<String, String>,
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    pub allocatable: Resources,
    /// How many pods it may run.
    pub allowed_pods: i64,
    /// Sizes of the images it has, by each of their names.
    pub images: HashMap<String, i64>,
    pub features: Vec<String>,
}

/// Pods of one kind on one node.
#[derive(Debug, Clone)]
pub struct Group {
    pub template: Arc<Template>,
    pub pods: u32,
    /// How many of them are being deleted.
    pub deleting: u32,
}

/// Cheap to clone, for the sake of "what if" questions.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Its place in the columns that evaluations keep.
    pub slot: usize,
    pub object: Arc<NodeObject>,
    pub requested: Resources,
    /// See [`Template::scored_requests`].
    pub scored: Resources,
    /// Ports that pods have taken for themselves; a port may be in here for two addresses.
    pub ports: Vec<HostPort>,
    pub pods: Vec<Arc<PodInfo>>,
    /// How many volumes they have that may be attached to the node.
    pub volumes: usize,
    /// The same pods by their kind: few, where there may be many pods.
    pub groups: Vec<Group>,
}

impl Deref for NodeInfo {
    type Target = NodeObject;
    fn deref(&self) -> &NodeObject {
        &self.object
    }
}

impl NodeObject {
    fn new(node: &Node) -> Self {
        let images = node.status.images.iter();
        Self {
            name: node.metadata.name.clone(),
            labels: node.metadata.labels.clone(),
            unschedulable: node.spec.unschedulable,
            taints: node.spec.taints.clone(),
            allocatable: Resources::of(&node.status.allocatable),
            allowed_pods: node.status.allocatable.get("pods").map_or(0, |q| q.value()),
            images: images
                .flat_map(|i| i.names.iter().map(|name| (name.clone(), i.size_bytes)))
                .collect(),
            features: node.status.declared_features.clone(),
        }
    }
}

impl NodeInfo {
    pub fn new(node: &Node) -> Self {
        Self {
            slot: 0,
            object: Arc::new(NodeObject::new(node)),
            requested: Resources::default(),
            scored: Resources::default(),
            ports: Vec::new(),
            pods: Vec::new(),
            volumes: 0,
            groups: Vec::new(),
        }
    }

    pub fn update(&mut self, node: &Node) {
        self.object = Arc::new(NodeObject::new(node));
    }

    pub fn pod_count(&self) -> i64 {
        i64::try_from(self.pods.len()).unwrap_or(i64::MAX)
    }

    pub fn add(&mut self, pod: &Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored.add(&pod.scored_requests);
        self.ports.extend(pod.host_ports.iter().cloned());
        self.pods.push(Arc::clone(pod));
        self.volumes += pod.attachable_volumes();
        let known = self
            .groups
            .iter()
            .position(|g| g.template.id == pod.template.id);
        let at = known.unwrap_or_else(|| {
            self.groups.push(Group {
                template: Arc::clone(&pod.template),
                pods: 0,
                deleting: 0,
            });
            self.groups.len() - 1
        });
        self.groups[at].pods += 1;
        self.groups[at].deleting += u32::from(pod.deleting);
    }

    /// Takes off a pod that is there, as it was when it was added.
    pub fn remove(&mut self, key: &ObjectKey) {
        let Some(at) = self.pods.iter().position(|p| p.key == *key) else {
            return;
        };
        let pod = self.pods.swap_remove(at);
        self.volumes -= pod.attachable_volumes();
        self.requested.subtract(&pod.requests);
        self.scored.subtract(&pod.scored_requests);
        for port in &pod.host_ports {
            if let Some(at) = self.ports.iter().position(|taken| taken == port) {
                self.ports.swap_remove(at);
            }
        }
        let group = self
            .groups
            .iter()
            .position(|g| g.template.id == pod.template.id);
        if let Some(at) = group {
            let group = &mut self.groups[at];
            group.pods -= 1;
            group.deleting -= u32::from(pod.deleting);
            if group.pods == 0 {
                self.groups.swap_remove(at);
            }
        }
    }

    /// Keeps a newer version of a pod that counts as much as the one before.
    pub fn replace(&mut self, pod: &Arc<PodInfo>) {
        if let Some(old) = self.pods.iter_mut().find(|p| p.key == pod.key) {
            *old = Arc::clone(pod);
        }
    }
}
