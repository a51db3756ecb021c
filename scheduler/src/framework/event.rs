//! What happens in a cluster that may make a waiting pod schedulable.

use crate::cache::Resources;
use crate::model::{HostPort, Node};

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

#[derive(Debug)]
pub enum ClusterEvent<'a> {
    NodeAdded(&'a Node),
    NodeUpdated {
        old: &'a Node,
        new: &'a Node,
    },
    /// A pod has left a node: what it used is free.
    PodGone {
        requests: &'a Resources,
        host_ports: &'a [HostPort],
    },
    /// The waiting pod itself has changed.
    PodChanged,
}
