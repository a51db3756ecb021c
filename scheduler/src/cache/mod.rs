//! The nodes as the scheduler sees them: what they have, and what of it is taken by
//! pods that run there or have just been sent there. Synchronous and pure.
//!
//! A [`Snapshot`] is a list of shared nodes; a node is copied only when it changes while
//! a snapshot of it is held.

mod node;
mod resources;

use std::collections::HashMap;
use std::sync::Arc;

use client::ObjectKey;

pub use node::NodeInfo;
pub use resources::Resources;

use crate::model::{Node, PodInfo};

/// Nodes in a fixed order, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub nodes: Arc<Vec<Arc<NodeInfo>>>,
}

/// Where a pod is counted.
#[derive(Debug)]
struct Placed {
    pod: Arc<PodInfo>,
    node: Box<str>,
    /// Sent there, but the API server has not told so yet.
    assumed: bool,
}

#[derive(Debug, Default)]
pub struct Cache {
    nodes: Vec<Arc<NodeInfo>>,
    index: HashMap<Box<str>, usize>,
    pods: HashMap<ObjectKey, Placed>,
    snapshot: Option<Snapshot>,
}

impl Cache {
    /// The nodes now; the same list as before when nothing has changed since.
    pub fn snapshot(&mut self) -> Snapshot {
        self.snapshot
            .get_or_insert_with(|| Snapshot {
                nodes: Arc::new(self.nodes.clone()),
            })
            .clone()
    }

    pub fn put_node(&mut self, node: &Node) {
        self.snapshot = None;
        let name = &*node.metadata.name;
        if let Some(at) = self.index.get(name) {
            Arc::make_mut(&mut self.nodes[*at]).update(node);
            return;
        }
        let mut info = NodeInfo::new(node);
        for placed in self.pods.values().filter(|placed| &*placed.node == name) {
            info.add(&placed.pod);
        }
        self.index.insert(name.into(), self.nodes.len());
        self.nodes.push(Arc::new(info));
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(at) = self.index.remove(name) {
            self.snapshot = None;
            self.nodes.swap_remove(at);
            if let Some(moved) = self.nodes.get(at) {
                self.index.insert(moved.name.clone(), at);
            }
        }
    }

    /// Counts a pod that the API server says is on a node.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>) {
        let node = pod.node_name.clone();
        self.place(pod, &node, false);
    }

    /// Counts a pod on the node that has been chosen for it, until the API server says
    /// so or [`Cache::forget`] takes it back.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.place(pod, node, true);
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        self.remove_pod(&pod.key);
        if let Some(info) = self.node_mut(node) {
            info.add(&pod);
        }
        let key = pod.key.clone();
        self.pods.insert(
            key,
            Placed {
                pod,
                node: node.into(),
                assumed,
            },
        );
    }

    /// Takes back an assumption; false when the API server has confirmed it meanwhile.
    pub fn forget(&mut self, key: &ObjectKey) -> bool {
        let assumed = self.is_assumed(key);
        if assumed {
            self.remove_pod(key);
        }
        assumed
    }

    pub fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.pods.get(key).is_some_and(|placed| placed.assumed)
    }

    pub fn remove_pod(&mut self, key: &ObjectKey) {
        if let Some(placed) = self.pods.remove(key)
            && let Some(info) = self.node_mut(&placed.node)
        {
            info.remove(&placed.pod);
        }
    }

    fn node_mut(&mut self, name: &str) -> Option<&mut NodeInfo> {
        let at = *self.index.get(name)?;
        self.snapshot = None;
        Some(Arc::make_mut(&mut self.nodes[at]))
    }
}

#[cfg(test)]
mod tests;
