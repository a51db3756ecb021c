//! The cluster as the scheduler sees it: what nodes have, and what of it is taken by
//! pods that run there, have just been sent there, or are nominated to go there.
//! Synchronous and pure.
//!
//! Nodes have slots, which are their places in the columns of topology domains and of
//! evaluations. Whoever keeps something per node follows [`Cache::changes_since`] rather
//! than looking at every node again.

pub mod devices;
mod node;
pub mod objects;
mod resources;
pub mod storage;
mod topology;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use client::ObjectKey;

pub use devices::Devices;
pub use node::{NodeInfo, NodeObject};
pub use objects::Objects;
pub use resources::Resources;
pub use storage::Storage;
pub use topology::{Key, NOWHERE, Topology};

use crate::groups::Groups;
use crate::model::{Node, PodInfo, Template};

/// Changes that are remembered; whoever has missed more looks at everything again.
const REMEMBERED: usize = 8192;

/// Where a pod is counted.
#[derive(Debug, Clone)]
pub struct Placed {
    pod: Arc<PodInfo>,
    node: Box<str>,
    /// Sent there, but the API server has not told so yet.
    assumed: bool,
}

/// Which slots have changed, in order.
#[derive(Debug, Default)]
struct Changes {
    slots: VecDeque<usize>,
    /// How many have been forgotten.
    forgotten: u64,
}

#[derive(Debug, Default)]
pub struct Cache {
    nodes: Vec<Option<NodeInfo>>,
    index: HashMap<Box<str>, usize>,
    free: Vec<usize>,
    pods: HashMap<ObjectKey, Placed>,
    /// Pods on nodes that are not known.
    orphans: HashMap<Box<str>, Vec<ObjectKey>>,
    nominated: HashMap<Box<str>, Vec<Arc<PodInfo>>>,
    nominations: HashMap<ObjectKey, Box<str>>,
    /// Kinds of pods that are nominated, and how many are.
    nominated_kinds: HashMap<u32, (Arc<Template>, usize)>,
    /// How many nodes have an image.
    images: HashMap<String, usize>,
    topology: RefCell<Topology>,
    changes: Changes,
    /// How many pods on nodes have terms of affinity or anti-affinity.
    with_terms: usize,
    /// Claims that pods use, and how many do.
    claims: HashMap<ObjectKey, usize>,
    pub objects: Objects,
    pub storage: Storage,
    pub devices: Devices,
    pub groups: Groups,
    /// Changes when anything does that is not of one node.
    pub epoch: u64,
}

impl Cache {
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().flatten()
    }

    pub fn node_count(&self) -> usize {
        self.index.len()
    }

    /// One more than the largest slot of a node.
    pub fn slots(&self) -> usize {
        self.nodes.len()
    }

    pub fn node(&self, slot: usize) -> Option<&NodeInfo> {
        self.nodes.get(slot)?.as_ref()
    }

    pub fn node_named(&self, name: &str) -> Option<&NodeInfo> {
        self.node(*self.index.get(name)?)
    }

    /// The number of the next change, for [`Cache::changes_since`].
    pub fn now(&self) -> u64 {
        self.changes.forgotten + self.changes.slots.len() as u64
    }

    /// Slots of nodes that have changed, appeared or gone since; `None` when it is easier to
    /// look at all of them.
    pub fn changes_since(&self, then: u64) -> Option<impl Iterator<Item = usize> + '_> {
        let from = usize::try_from(then.checked_sub(self.changes.forgotten)?).ok()?;
        let missed = self.changes.slots.len().saturating_sub(from);
        (missed <= self.nodes.len().max(16)).then(|| self.changes.slots.iter().skip(from).copied())
    }

    fn changed(&mut self, slot: usize) {
        self.changes.slots.push_back(slot);
        if self.changes.slots.len() > REMEMBERED {
            self.changes.slots.pop_front();
            self.changes.forgotten += 1;
        }
    }

    /// The column of a topology key.
    pub fn topology_key(&self, label: &str) -> Key {
        self.topology.borrow_mut().key(label, self.nodes())
    }

    pub fn topology(&self) -> std::cell::Ref<'_, Topology> {
        self.topology.borrow()
    }

    /// How many nodes have the image.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    fn count_images(&mut self, slot: usize, add: bool) {
        let Some(node) = self.nodes[slot].as_ref() else {
            return;
        };
        for image in node.object.images.keys() {
            match self.images.get_mut(image) {
                Some(nodes) if add => *nodes += 1,
                Some(nodes) => *nodes -= 1,
                None => {
                    self.images.insert(image.clone(), 1);
                }
            }
        }
    }

    pub fn put_node(&mut self, node: &Node) {
        let name = &*node.metadata.name;
        let slot = match self.index.get(name) {
            Some(slot) => *slot,
            None => self.free.pop().unwrap_or(self.nodes.len()),
        };
        if slot == self.nodes.len() {
            self.nodes.push(None);
        }
        let before = self.nodes[slot].as_ref().map(|old| Arc::clone(&old.object));
        self.count_images(slot, false);
        match &mut self.nodes[slot] {
            Some(info) => info.update(node),
            empty => {
                let mut info = NodeInfo::new(node);
                info.slot = slot;
                for key in self.orphans.remove(name).into_iter().flatten() {
                    if let Some(placed) = self.pods.get(&key) {
                        info.add(&placed.pod);
                    }
                }
                *empty = Some(info);
                self.index.insert(name.into(), slot);
            }
        }
        self.count_images(slot, true);
        let images = |object: Option<&NodeObject>| object.map(|o| o.images.clone());
        let now = self.nodes[slot].as_ref().map(|info| &*info.object);
        if images(before.as_deref()) != images(now) {
            // What an image is worth depends on how many nodes have it.
            self.epoch += 1;
        }
        if let Some(info) = &self.nodes[slot] {
            self.topology.get_mut().put(info);
        }
        self.changed(slot);
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(slot) = self.index.remove(name) else {
            return;
        };
        self.count_images(slot, false);
        if let Some(info) = self.nodes[slot].take() {
            let keys: Vec<ObjectKey> = info.pods.iter().map(|p| p.key.clone()).collect();
            if !keys.is_empty() {
                self.orphans.insert(name.into(), keys);
            }
        }
        self.free.push(slot);
        self.topology.get_mut().remove(slot);
        self.epoch += 1;
        self.changed(slot);
    }

    /// Counts a pod that the API server says is on a node.
    pub fn put_pod(&mut self, pod: Arc<PodInfo>) {
        let node = pod.node_name.clone();
        self.place(pod, &node, false);
    }

    /// Counts a pod on the node that has been chosen for it, until the API server says
    /// so or [`Cache::forget`] takes it back.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.denominate(&pod.key);
        self.place(pod, node, true);
    }

    fn place(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        if let Some(placed) = self.pods.get_mut(&pod.key) {
            let alike = placed.pod.uid == pod.uid
                && placed.pod.template.id == pod.template.id
                && placed.pod.deleting == pod.deleting
                && placed.pod.start_time == pod.start_time
                && &*placed.node == node;
            if alike {
                placed.pod = Arc::clone(&pod);
                placed.assumed = assumed;
                if let Some(info) = self.slot_mut(node) {
                    info.replace(&pod);
                }
                return;
            }
        }
        self.remove_pod(&pod.key);
        self.count_claims(&pod, true);
        if let Some(group) = &pod.group {
            self.groups.place(group, &pod.key);
        }
        self.with_terms += usize::from(!pod.terms.is_empty());
        match self.slot_mut(node) {
            Some(info) => {
                info.add(&pod);
                let slot = info.slot;
                self.changed(slot);
            }
            None => self
                .orphans
                .entry(node.into())
                .or_default()
                .push(pod.key.clone()),
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

    /// How many nodes, pods, and assumed pods there are.
    pub fn sizes(&self) -> (usize, usize, usize) {
        let assumed = self.pods.values().filter(|placed| placed.assumed).count();
        (self.index.len(), self.pods.len(), assumed)
    }

    /// Takes back an assumption; false when the API server has confirmed it meanwhile, or the
    /// pod is gone. Another one of its name keeps its own.
    pub fn forget(&mut self, pod: &PodInfo) -> bool {
        let placed = self.pods.get(&pod.key);
        let assumed = placed.is_some_and(|placed| placed.assumed && placed.pod.uid == pod.uid);
        if assumed && let Some(placed) = self.take_pod(&pod.key) {
            self.groups.wait(&placed.pod);
        }
        assumed
    }

    pub fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.pods.get(key).is_some_and(|placed| placed.assumed)
    }

    /// A pod that is on a node or has been sent to one.
    pub fn pod(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.pods.get(key).map(|placed| &placed.pod)
    }

    pub fn remove_pod(&mut self, key: &ObjectKey) {
        self.take_pod(key);
    }

    /// Takes a pod off its node; [`Cache::put_back`] undoes that.
    pub fn take_pod(&mut self, key: &ObjectKey) -> Option<Placed> {
        let placed = self.pods.remove(key)?;
        if let Some(group) = &placed.pod.group {
            self.groups.remove(group, key);
        }
        self.count_claims(&placed.pod, false);
        self.with_terms -= usize::from(!placed.pod.terms.is_empty());
        match self.slot_mut(&placed.node) {
            Some(info) => {
                info.remove(key);
                let slot = info.slot;
                self.changed(slot);
            }
            None => {
                if let Some(keys) = self.orphans.get_mut(&placed.node) {
                    keys.retain(|k| k != key);
                    if keys.is_empty() {
                        self.orphans.remove(&placed.node);
                    }
                }
            }
        }
        Some(placed)
    }

    pub fn put_back(&mut self, placed: &Placed) {
        self.place(Arc::clone(&placed.pod), &placed.node, placed.assumed);
    }

    /// The node that a pod is on or has been sent to.
    pub fn node_of(&self, key: &ObjectKey) -> Option<&str> {
        self.pods.get(key).map(|placed| &*placed.node)
    }

    /// Whether any pod on a node has terms of affinity or anti-affinity.
    pub fn has_terms(&self) -> bool {
        self.with_terms > 0
    }

    fn slot_mut(&mut self, name: &str) -> Option<&mut NodeInfo> {
        let slot = *self.index.get(name)?;
        self.nodes[slot].as_mut()
    }

    fn count_claims(&mut self, pod: &PodInfo, add: bool) {
        for claim in pod
            .volumes
            .iter()
            .filter_map(|v| v.persistent_volume_claim.as_ref())
        {
            let key = ObjectKey::new(&pod.namespace, &claim.claim_name);
            let used = self.claims.entry(key.clone()).or_default();
            if add {
                *used += 1;
            } else {
                *used -= 1;
                if *used == 0 {
                    self.claims.remove(&key);
                }
            }
        }
    }

    /// Whether a pod on a node uses the claim.
    pub fn claim_is_used(&self, claim: &ObjectKey) -> bool {
        self.claims.contains_key(claim)
    }

    /// Notes that a waiting pod is to go to a node once there is room (`nominator`).
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.denominate(&pod.key);
        if self.pods.contains_key(&pod.key) {
            return;
        }
        self.nominations.insert(pod.key.clone(), node.into());
        let kind = &pod.template;
        let (_, pods) = (self.nominated_kinds.entry(kind.id)).or_insert((Arc::clone(kind), 0));
        *pods += 1;
        self.nominated
            .entry(node.into())
            .or_default()
            .push(Arc::clone(pod));
        if let Some(slot) = self.index.get(node) {
            self.changed(*slot);
        }
    }

    /// The node that the pod was nominated for.
    pub fn denominate(&mut self, key: &ObjectKey) -> Option<Box<str>> {
        let node = self.nominations.remove(key)?;
        if let Some(pods) = self.nominated.get_mut(&node) {
            if let Some(at) = pods.iter().position(|p| p.key == *key) {
                let id = pods.remove(at).template.id;
                if let Some((_, left)) = self.nominated_kinds.get_mut(&id) {
                    *left -= 1;
                    if *left == 0 {
                        self.nominated_kinds.remove(&id);
                    }
                }
            }
            if pods.is_empty() {
                self.nominated.remove(&node);
            }
        }
        if let Some(slot) = self.index.get(&node) {
            self.changed(*slot);
        }
        Some(node)
    }

    pub fn nomination(&self, key: &ObjectKey) -> Option<&str> {
        self.nominations.get(key).map(|node| &**node)
    }

    pub fn nominated_to(&self, node: &str) -> &[Arc<PodInfo>] {
        self.nominated.get(node).map_or(&[], Vec::as_slice)
    }

    /// Kinds of pods that are nominated for some node.
    pub fn nominated_kinds(&self) -> impl Iterator<Item = &Template> + '_ {
        self.nominated_kinds.values().map(|(kind, _)| &**kind)
    }

    /// Slots of nodes that pods are nominated for.
    pub fn nominated_slots(&self) -> impl Iterator<Item = usize> + '_ {
        let nodes = self.nominated.keys();
        nodes.filter_map(|name| self.index.get(name).copied())
    }
}

#[cfg(test)]
mod tests;
