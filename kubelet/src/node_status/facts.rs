//! What the rest of the kubelet needs to know of its node, as of now. Readers take a snapshot.

use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::{Node, NodeFeatures, NodeRuntimeHandler};

use crate::eviction::Pressure;
use crate::resources::requests::ResourceList;

/// One moment's facts.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The node's addresses, the primary first.
    pub host_ips: Vec<String>,
    pub capacity: ResourceList,
    pub allocatable: ResourceList,
    /// As the runtime calls itself: `containerd`.
    pub runtime_name: String,
    pub runtime_version: String,
    pub handlers: Vec<NodeRuntimeHandler>,
    pub features: Option<NodeFeatures>,
    /// The default runtime handler can make mounts read-only to the bottom.
    pub recursive_read_only: bool,
    /// Why the runtime, or pods' network, is not ready.
    pub runtime_errors: Vec<String>,
    pub network_error: Option<String>,
    /// What the node is short of.
    pub pressure: Pressure,
    /// The machine goes down.
    pub shutting_down: bool,
    /// Attached volumes that are in use, or may be.
    pub volumes_in_use: Vec<String>,
    /// The node as the API server has it.
    pub node: Option<Arc<Node>>,
}

pub struct NodeFacts(ArcSwap<Facts>);

impl NodeFacts {
    pub fn new(facts: Facts) -> Self {
        Self(ArcSwap::from_pointee(facts))
    }

    pub fn get(&self) -> Arc<Facts> {
        self.0.load_full()
    }

    /// Changes some of the facts.
    pub fn update(&self, change: impl Fn(&mut Facts)) {
        self.0.rcu(|facts| {
            let mut facts = Facts::clone(facts);
            change(&mut facts);
            facts
        });
    }
}
