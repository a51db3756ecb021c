//! What happens in a cluster that may make a waiting pod schedulable.

use crate::cache::devices::DeviceEvent;
use crate::cache::storage::StorageEvent;
use crate::model::{Node, PodInfo};

/// A plugin's guess about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Worth another attempt.
    Queue,
    Skip,
}

impl Hint {
    pub fn queue_if(condition: bool) -> Self {
        if condition { Self::Queue } else { Self::Skip }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum ClusterEvent<'a> {
    NodeAdded(&'a Node),
    NodeUpdated {
        old: &'a Node,
        new: &'a Node,
    },
    NodeGone(&'a Node),
    /// A pod is on a node now.
    PodAdded(&'a PodInfo),
    /// A pod on a node has changed in a way that plugins see.
    PodUpdated {
        old: &'a PodInfo,
        new: &'a PodInfo,
    },
    /// A pod has left a node, or the node it was nominated for: what it used is free.
    PodGone(&'a PodInfo),
    /// The waiting pod itself has changed.
    PodChanged {
        old: &'a PodInfo,
    },
    /// Something has changed that volumes depend on.
    Storage(&'a StorageEvent),
    /// Something has changed that claims of devices depend on.
    Devices(&'a DeviceEvent),
}

impl ClusterEvent<'_> {
    /// As metrics call it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NodeAdded(_) => "NodeAdd",
            Self::NodeUpdated { old, new } => node_update(old, new),
            Self::NodeGone(_) => "NodeDelete",
            Self::PodAdded(_) => "AssignedPodAdd",
            Self::PodUpdated { .. } => "AssignedPodUpdate",
            Self::PodGone(_) => "AssignedPodDelete",
            Self::PodChanged { .. } => "UnschedulablePodUpdate",
            Self::Storage(event) => event.label(),
            Self::Devices(event) => event.label(),
        }
    }
}

/// What of a node has changed; of several things the first that upstream looks at.
fn node_update(old: &Node, new: &Node) -> &'static str {
    if old.spec.unschedulable != new.spec.unschedulable {
        "NodeUpdateNodeTaint"
    } else if old.status.allocatable != new.status.allocatable {
        "NodeUpdateNodeAllocatable"
    } else if old.metadata.labels != new.metadata.labels {
        "NodeUpdateNodeLabel"
    } else if old.spec.taints != new.spec.taints {
        "NodeUpdateNodeTaint"
    } else if old.status.declared_features != new.status.declared_features {
        "NodeUpdateNodeDeclaredFeature"
    } else {
        "NodeUpdate"
    }
}
