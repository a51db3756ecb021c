//! Groups of pods that are scheduled together (PodGroup, KEP-4671): which there are, who is
//! in them, and how a whole group is decided about. Synchronous and pure.
//!
//! What must not be here: the queue, I/O (`group_cycle.rs` has both).

pub mod decision;
pub mod placement;
pub mod preemption;
#[cfg(test)]
mod tests;
pub mod trial;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::{Object as _, ObjectKey, SlimMeta, slim_kind};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Deserialize;

use crate::model::PodInfo;

/// A PodGroup, with the fields that decide where its pods go.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodGroup {
    pub metadata: SlimMeta,
    pub spec: PodGroupSpec,
    pub status: PodGroupStatus,
}
slim_kind!(
    PodGroup,
    "scheduling.k8s.io",
    "v1alpha2",
    "PodGroup",
    "podgroups",
    namespaced
);

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodGroupSpec {
    pub scheduling_policy: SchedulingPolicy,
    pub scheduling_constraints: Option<SchedulingConstraints>,
    pub disruption_mode: Option<String>,
    pub priority: Option<i32>,
}

/// Basic where it is no gang.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SchedulingPolicy {
    pub gang: Option<Gang>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Gang {
    /// So many pods are scheduled at the same time, or none.
    pub min_count: i32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SchedulingConstraints {
    pub topology: Vec<TopologyConstraint>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TopologyConstraint {
    /// A label of nodes: all pods of the group go to nodes where it says the same.
    pub key: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct PodGroupStatus {
    pub conditions: Vec<Condition>,
}

/// The condition that tells whether the group has been scheduled.
pub const SCHEDULED: &str = "PodGroupScheduled";

impl PodGroup {
    /// How many pods have to be scheduled at the same time, of a gang.
    pub fn min_count(&self) -> Option<usize> {
        let gang = self.spec.scheduling_policy.gang.as_ref()?;
        Some(usize::try_from(gang.min_count).unwrap_or(0))
    }

    /// The node label that all pods of the group must find the same.
    pub fn topology_key(&self) -> Option<&str> {
        let constraints = self.spec.scheduling_constraints.as_ref()?;
        // There can be one by now.
        Some(&constraints.topology.first()?.key)
    }

    pub fn priority(&self) -> i32 {
        self.spec.priority.unwrap_or(0)
    }

    /// Whether it is disrupted as a whole or not at all.
    pub fn is_one_victim(&self) -> bool {
        self.spec.disruption_mode.as_deref() == Some("PodGroup")
    }

    fn scheduled(&self) -> Option<&Condition> {
        let mut conditions = self.status.conditions.iter();
        conditions.find(|condition| condition.type_ == SCHEDULED)
    }
}

/// What a group's condition is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub scheduled: bool,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug)]
struct Known {
    object: Arc<PodGroup>,
    /// The condition that is being written and has not come back yet.
    written: Option<Condition>,
}

/// The pods of a group, as far as the scheduler knows of them.
#[derive(Debug, Default)]
struct Members {
    waiting: HashSet<ObjectKey>,
    /// On a node, or sent to one.
    placed: HashSet<ObjectKey>,
}

#[derive(Debug, Default)]
pub struct Groups {
    objects: HashMap<ObjectKey, Known>,
    members: HashMap<ObjectKey, Members>,
}

impl Groups {
    pub fn object(&self, group: &ObjectKey) -> Option<&Arc<PodGroup>> {
        self.objects.get(group).map(|known| &known.object)
    }

    pub fn put_object(&mut self, object: Arc<PodGroup>) {
        let written = self.objects.remove(&object.key()).and_then(|known| {
            let same = known.object.uid() == object.uid();
            let written = known.written.filter(|_| same)?;
            // What was written has come back: from now on the object is right.
            (object.scheduled() != Some(&written)).then_some(written)
        });
        self.objects.insert(object.key(), Known { object, written });
    }

    pub fn remove_object(&mut self, group: &ObjectKey) {
        self.objects.remove(group);
    }

    /// A pod of the group has no node.
    pub fn wait(&mut self, pod: &PodInfo) {
        if let Some(group) = &pod.group {
            let members = self.members.entry(group.clone()).or_default();
            members.waiting.insert(pod.key.clone());
        }
    }

    /// A pod of the group has a node.
    pub fn place(&mut self, group: &ObjectKey, pod: &ObjectKey) {
        let members = self.members.entry(group.clone()).or_default();
        members.waiting.remove(pod);
        members.placed.insert(pod.clone());
    }

    /// A pod of the group is no more, or has no node any more.
    pub fn remove(&mut self, group: &ObjectKey, pod: &ObjectKey) {
        if let Some(members) = self.members.get_mut(group) {
            members.waiting.remove(pod);
            members.placed.remove(pod);
            if members.waiting.is_empty() && members.placed.is_empty() {
                self.members.remove(group);
            }
        }
    }

    /// How many pods there are, with a node or without.
    pub fn count(&self, group: &ObjectKey) -> usize {
        let members = self.members.get(group);
        members.map_or(0, |m| m.waiting.len() + m.placed.len())
    }

    /// How many pods have a node.
    pub fn placed_count(&self, group: &ObjectKey) -> usize {
        self.members.get(group).map_or(0, |m| m.placed.len())
    }

    pub fn placed(&self, group: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        let members = self.members.get(group).into_iter();
        members.flat_map(|members| &members.placed)
    }

    pub fn waiting(&self, group: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        let members = self.members.get(group).into_iter();
        members.flat_map(|members| &members.waiting)
    }

    /// Whether its pods may be looked at: it is there, and so are enough of them.
    pub fn is_ready(&self, group: &ObjectKey) -> bool {
        let object = self.object(group);
        object.is_some_and(|object| self.count(group) >= object.min_count().unwrap_or(0))
    }

    /// The condition to write, if it says anything new. What has been scheduled once stays
    /// so: pods that come later are beyond what was asked for.
    pub fn tell(&mut self, group: &ObjectKey, told: &Told, now: Timestamp) -> Option<Condition> {
        let known = self.objects.get_mut(group)?;
        let before = known.written.as_ref().or(known.object.scheduled());
        let status = if told.scheduled { "True" } else { "False" };
        let generation = known.object.metadata.generation;
        let mut since = Time(now);
        if let Some(before) = before {
            if before.status == "True" && !told.scheduled {
                return None;
            }
            if before.status == status {
                since = before.last_transition_time.clone();
            }
        }
        let condition = Condition {
            type_: SCHEDULED.to_owned(),
            status: status.to_owned(),
            reason: told.reason.to_owned(),
            message: told.message.clone(),
            observed_generation: (generation > 0).then_some(generation),
            last_transition_time: since,
        };
        if before == Some(&condition) {
            return None;
        }
        known.written = Some(condition.clone());
        Some(condition)
    }

    /// A condition could not be written; the next one is to be compared with what is there.
    pub fn not_written(&mut self, group: &ObjectKey, condition: &Condition) {
        if let Some(known) = self.objects.get_mut(group)
            && known.written.as_ref() == Some(condition)
        {
            known.written = None;
        }
    }
}
