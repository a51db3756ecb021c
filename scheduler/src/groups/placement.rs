//! Placements: sets of nodes, one of which takes all pods of a group (KEP-5732).

use std::sync::Arc;

use crate::cache::Cache;
use crate::model::PodInfo;

/// Nodes that come into question together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placement {
    /// Slots of its nodes.
    slots: Vec<usize>,
    /// By slot.
    members: Vec<bool>,
}

impl Placement {
    pub fn add(&mut self, slot: usize) {
        if self.members.len() <= slot {
            self.members.resize(slot + 1, false);
        }
        if !std::mem::replace(&mut self.members[slot], true) {
            self.slots.push(slot);
        }
    }

    pub fn contains(&self, slot: usize) -> bool {
        self.members.get(slot) == Some(&true)
    }

    pub fn node_count(&self) -> usize {
        self.slots.len()
    }

    pub fn slots(&self) -> &[usize] {
        &self.slots
    }
}

/// All nodes.
pub fn everywhere(cluster: &Cache) -> Placement {
    let mut placement = Placement::default();
    let nodes = cluster.nodes();
    nodes.for_each(|node| placement.add(node.slot));
    placement
}

/// What would come of a group in a placement (`PodGroupAssignments`).
pub struct Proposal<'a> {
    pub placement: &'a Placement,
    /// Pods of the group that had a node before.
    pub placed: usize,
    /// Pods that would get one.
    pub pods: Vec<&'a Arc<PodInfo>>,
}
