//! The static policy (KEP-1769): containers of guaranteed pods have their memory and huge pages of
//! certain NUMA nodes. A node gives either to containers that have all of it alone, or to such that
//! have it together with always the same other nodes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::state::{Block, Node, Nodes, State, Table};
use crate::pods::pod::{PodExt, is_sidecar};
use crate::resources::qos::{QosClass, qos_class};
use crate::resources::requests::{amounts, container_requests, has_pod_level};
use crate::sys::numa::NumaNode;
use crate::topology::{Hint, Hints, Mask};

/// Bytes by kind of memory.
pub type Amounts = BTreeMap<String, u64>;
/// What is reserved for the system, by node.
pub type Reserved = BTreeMap<u32, Amounts>;

/// Bytes by nodes and kind of memory.
type Reusable = BTreeMap<(Mask, String), u64>;

pub struct Static {
    machine: Vec<NumaNode>,
    reserved: Reserved,
    /// The pod that is being admitted, and the memory of its init containers that later ones may
    /// have too.
    reusable: Option<(String, Reusable)>,
}

fn is_memory(kind: &str) -> bool {
    kind == "memory" || kind.starts_with("hugepages-")
}

/// What a container has of certain nodes: all that it requests, if its pod is guaranteed. Resources
/// of the pod itself (KEP-2837) are shared by its containers.
pub fn wanted(pod: &Pod, container: &Container) -> Amounts {
    if qos_class(pod) != QosClass::Guaranteed || has_pod_level(pod) {
        return Amounts::new();
    }
    let mut wanted = amounts(container_requests(container));
    wanted.retain(|kind, _| is_memory(kind));
    let bytes = |amount: i64| u64::try_from(amount).unwrap_or_default();
    let wanted = wanted.into_iter();
    wanted.map(|(kind, amount)| (kind, bytes(amount))).collect()
}

/// What the pod as a whole has: init containers run one at a time, beside the sidecars that were
/// started before them.
fn pod_wanted(pod: &Pod) -> Amounts {
    let (mut peak, mut sidecars, mut own) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in pod.init_containers() {
        for (kind, amount) in wanted(pod, container) {
            let before = sidecars.entry(kind.clone()).or_default();
            if is_sidecar(container) {
                *before += amount;
            } else {
                let peak = peak.entry(kind).or_default();
                *peak = (*peak).max(*before + amount);
            }
        }
    }
    for container in pod.containers() {
        for (kind, amount) in wanted(pod, container) {
            *own.entry(kind).or_default() += amount;
        }
    }
    let of = |list: &Amounts, kind: &str| list.get(kind).copied().unwrap_or_default();
    own.into_iter()
        .map(|(kind, amount)| {
            let long = amount + of(&sidecars, &kind);
            let most = long.max(of(&peak, &kind));
            (kind, most)
        })
        .collect()
}

fn table(nodes: &Nodes, node: u32, kind: &str) -> Table {
    let known = nodes.get(&node).and_then(|node| node.memory_map.get(kind));
    known.copied().unwrap_or_default()
}

fn free(nodes: &Nodes, mask: Mask, kind: &str) -> u64 {
    mask.nodes().map(|node| table(nodes, node, kind).free).sum()
}

fn same_group(node: &Node, mask: Mask) -> bool {
    node.cells.len() == mask.count() && node.cells.iter().all(|cell| mask.contains(*cell))
}

impl Static {
    /// # Errors
    /// When nothing is reserved for the system.
    pub fn new(machine: &[NumaNode], reserved: Reserved) -> Result<Self, String> {
        let memory = reserved.values().filter_map(|node| node.get("memory"));
        if memory.sum::<u64>() == 0 {
            return Err("[memorymanager] you should specify the system reserved memory".into());
        }
        Ok(Self {
            machine: machine.to_vec(),
            reserved,
            reusable: None,
        })
    }

    /// The nodes as nobody has anything of them.
    fn idle(&self) -> Nodes {
        let node = |node: &NumaNode| {
            let reserved = |kind: &str| {
                let own = self.reserved.get(&node.id).and_then(|own| own.get(kind));
                own.copied().unwrap_or_default()
            };
            let table = |kind: &str, total: u64, huge: u64| {
                let system_reserved = reserved(kind);
                let allocatable = total.saturating_sub(system_reserved).saturating_sub(huge);
                Table {
                    total,
                    system_reserved,
                    allocatable,
                    reserved: 0,
                    free: allocatable,
                }
            };
            let mut memory_map = BTreeMap::new();
            let mut huge = 0;
            for pages in &node.hugepages {
                let (kind, total) = (pages.resource_name(), pages.count * pages.kib * 1024);
                memory_map.insert(kind.clone(), table(&kind, total, 0));
                huge += total;
            }
            memory_map.insert("memory".into(), table("memory", node.memory, huge));
            let state = Node {
                number_of_assignments: 0,
                memory_map,
                cells: vec![node.id],
            };
            (node.id, state)
        };
        self.machine.iter().map(node).collect()
    }

    /// Makes a first state, or sees whether the one that was found fits this machine.
    ///
    /// # Errors
    /// When it does not: the node must be drained and the file removed.
    pub fn start(&self, state: &mut State) -> Result<(), String> {
        if state.nodes.is_empty() {
            if !state.assignments.is_empty() {
                return Err(
                    "[memorymanager] machine state can not be empty when it has memory assignments"
                        .into(),
                );
            }
            state.nodes = self.idle();
            return Ok(());
        }
        let mut expected = self.idle();
        for (uid, containers) in &state.assignments {
            for (name, blocks) in containers {
                for block in blocks {
                    let wrong = |what: &str| {
                        format!(
                            "[memorymanager] (pod: {uid}, container: {name}) the memory assignment uses {what} that does not exist"
                        )
                    };
                    for node in &block.nodes {
                        let node = expected.get(node);
                        let node = node.ok_or_else(|| wrong("the NUMA"))?;
                        if !node.memory_map.contains_key(&block.kind) {
                            return Err(wrong("memory resource"));
                        }
                    }
                    assign(&mut expected, &block.nodes, &block.kind, block.size);
                }
            }
        }
        match fits(&state.nodes, &expected) {
            true => Ok(()),
            false => Err(
                "[memorymanager] the expected machine state is different from the real one".into(),
            ),
        }
    }

    fn reusable(&self, uid: &str, mask: Mask, kind: &str) -> u64 {
        let own = self.reusable.as_ref().filter(|(pod, _)| pod == uid);
        let own = own.and_then(|(_, memory)| memory.get(&(mask, kind.to_owned())));
        own.copied().unwrap_or_default()
    }

    /// A container of the pod has all that it asks for.
    fn settle(&mut self, pod: &Pod, container: &str, blocks: &[Block]) {
        let uid = pod.uid();
        let known = self.reusable.take().filter(|(pod, _)| pod == uid);
        let (_, mut memory) = known.unwrap_or_default();
        let mut init = pod.init_containers().iter();
        let ends = init.any(|c| c.name == container && !is_sidecar(c));
        for block in blocks {
            let key = (Mask::of(block.nodes.iter().copied()), block.kind.clone());
            let known = memory.entry(key).or_default();
            *known = match ends {
                true => (*known).max(block.size),
                false => known.saturating_sub(block.size),
            };
        }
        self.reusable = Some((uid.to_owned(), memory));
    }

    /// Gives a container its memory; what it has it keeps. True where it was given any.
    ///
    /// # Errors
    /// When it cannot have it.
    pub fn allocate(
        &mut self,
        state: &mut State,
        pod: &Pod,
        container: &Container,
        hint: Hint,
    ) -> Result<bool, String> {
        let uid = pod.uid();
        if let Some(blocks) = state.get(uid, &container.name).cloned() {
            self.settle(pod, &container.name, &blocks);
            return Ok(false);
        }
        let wanted = wanted(pod, container);
        let mask = self.place(&state.nodes, uid, &wanted, hint)?;
        let nodes: Vec<u32> = mask.nodes().collect();
        let mut blocks = Vec::new();
        for (kind, size) in &wanted {
            let reusable = self.reusable(uid, mask, kind);
            assign(
                &mut state.nodes,
                &nodes,
                kind,
                size.saturating_sub(reusable),
            );
            blocks.push(Block {
                nodes: nodes.clone(),
                kind: kind.clone(),
                size: *size,
            });
        }
        self.settle(pod, &container.name, &blocks);
        let own = state.assignments.entry(uid.to_owned()).or_default();
        own.insert(container.name.clone(), blocks.clone());
        // What is had again counts once: for who has it now.
        for block in blocks {
            let mut left = block.size;
            let init = pod.init_containers().iter();
            let before = init.take_while(|c| c.name != container.name);
            for init in before.filter(|c| !is_sidecar(c)) {
                for other in own.get_mut(&init.name).into_iter().flatten() {
                    if other.kind == block.kind && other.nodes == block.nodes {
                        let again = other.size.min(left);
                        other.size -= again;
                        left -= again;
                    }
                }
            }
        }
        Ok(true)
    }

    /// The nodes that the container's memory is of: those of the hint, with more if they are too
    /// few.
    fn place(
        &self,
        nodes: &Nodes,
        uid: &str,
        wanted: &Amounts,
        hint: Hint,
    ) -> Result<Mask, String> {
        let better = |what: &str, found: Hint, hint: Hint| match hint.preferred && !found.preferred
        {
            true => Err(format!(
                "[memorymanager] failed to find the {what} preferred hint"
            )),
            false => Ok(found),
        };
        let all = || -> Vec<Hint> {
            let mut hints = self.generate(nodes, uid, wanted);
            hints.remove("memory").flatten().unwrap_or_default()
        };
        let mut best = hint;
        if hint.affinity.is_none() {
            let found = narrowest(all()).ok_or(
                "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is available",
            )?;
            best = better("default", found, hint)?;
        }
        let mask = best.affinity.unwrap_or_default();
        let enough = |mask: Mask| {
            wanted
                .iter()
                .all(|(kind, size)| free(nodes, mask, kind) >= *size)
        };
        if !enough(mask) {
            let mut wider = all();
            wider.retain(|other| other.affinity.is_some_and(|other| other.and(mask) == mask));
            let found = narrowest(wider).ok_or(
                "[memorymanager] failed to find NUMA nodes to extend the current topology hint",
            )?;
            best = better("extended", found, best)?;
        }
        let mask = best.affinity.unwrap_or_default();
        let breaks = |node: u32| {
            let used = nodes
                .get(&node)
                .filter(|node| node.number_of_assignments > 0);
            used.is_some_and(|node| node.cells.len() == 1 || !same_group(node, mask))
        };
        match mask.count() > 1 && mask.nodes().any(breaks) {
            true => Err("[memorymanager] preferred hint violates NUMA node allocation".into()),
            false => Ok(mask),
        }
    }

    /// Takes a container's memory back.
    pub fn release(&self, state: &mut State, uid: &str, container: &str) {
        let Some(containers) = state.assignments.get_mut(uid) else {
            return;
        };
        let blocks = containers.remove(container);
        if containers.is_empty() {
            state.assignments.remove(uid);
        }
        for block in blocks.into_iter().flatten() {
            let mut left = block.size;
            for id in block.nodes {
                let Some(node) = state.nodes.get_mut(&id) else {
                    continue;
                };
                node.number_of_assignments -= 1;
                if node.number_of_assignments == 0 {
                    node.cells = vec![id];
                }
                if let Some(table) = node.memory_map.get_mut(&block.kind) {
                    let some = left.min(table.reserved);
                    table.reserved -= some;
                    table.free += some;
                    left -= some;
                }
            }
        }
    }

    /// Where one container's memory could be had.
    pub fn hints(&self, state: &State, pod: &Pod, container: &Container) -> Hints {
        let wanted = wanted(pod, container);
        match state.get(pod.uid(), &container.name) {
            Some(blocks) => again(blocks, &wanted),
            None => self.generate(&state.nodes, pod.uid(), &wanted),
        }
    }

    /// Where that of the pod as a whole could be had.
    pub fn pod_hints(&self, state: &State, pod: &Pod) -> Hints {
        let wanted = pod_wanted(pod);
        if wanted.is_empty() {
            return Hints::new();
        }
        let containers = pod.init_containers().iter().chain(pod.containers());
        let mut has = containers.filter_map(|c| state.get(pod.uid(), &c.name));
        match has.next() {
            Some(blocks) => again(blocks, &wanted),
            None => self.generate(&state.nodes, pod.uid(), &wanted),
        }
    }

    /// The same for every kind of memory. Where it cannot be had at all, there is no hint, and that
    /// is found when it is to be given.
    fn generate(&self, nodes: &Nodes, uid: &str, wanted: &Amounts) -> Hints {
        if wanted.is_empty() {
            return Hints::new();
        }
        let ids: Vec<u32> = nodes.keys().copied().collect();
        let mut least = ids.len();
        let mut masks = Vec::new();
        for mask in Mask::subsets(&ids) {
            let allocatable = |kind: &String| -> u64 {
                let tables = mask.nodes().map(|node| table(nodes, node, kind));
                tables.map(|table| table.allocatable).sum()
            };
            if wanted.iter().any(|(kind, size)| allocatable(kind) < *size) {
                continue;
            }
            least = least.min(mask.count());
            let fits = |node: u32| {
                let Some(node) = nodes.get(&node) else {
                    return false;
                };
                match mask.count() {
                    1 => node.cells.len() <= 1,
                    _ if node.number_of_assignments == 0 => true,
                    _ => node.cells.len() > 1 && same_group(node, mask),
                }
            };
            let enough = |(kind, size): (&String, &u64)| {
                free(nodes, mask, kind) + self.reusable(uid, mask, kind) >= *size
            };
            if mask.nodes().all(fits) && wanted.iter().all(enough) {
                masks.push(mask);
            }
        }
        if masks.is_empty() {
            return Hints::new();
        }
        let hint = |mask: &Mask| Hint {
            affinity: Some(*mask),
            preferred: mask.count() == least,
        };
        let hints: Vec<Hint> = masks.iter().map(hint).collect();
        let kinds = wanted.keys();
        kinds
            .map(|kind| (kind.clone(), Some(hints.clone())))
            .collect()
    }

    /// What each node can give, whether it has or not.
    pub fn allocatable(state: &State) -> Vec<Block> {
        let nodes = state.nodes.iter();
        let blocks = nodes.flat_map(|(id, node)| {
            let some = node
                .memory_map
                .iter()
                .filter(|(_, table)| table.allocatable > 0);
            some.map(|(kind, table)| Block {
                nodes: vec![*id],
                kind: kind.clone(),
                size: table.allocatable,
            })
        });
        blocks.collect()
    }
}

/// Takes memory of the nodes, of each as much as it has.
fn assign(nodes: &mut Nodes, ids: &[u32], kind: &str, size: u64) {
    let mut left = size;
    for id in ids {
        let Some(node) = nodes.get_mut(id) else {
            continue;
        };
        node.number_of_assignments += 1;
        node.cells = ids.to_vec();
        if let Some(table) = node.memory_map.get_mut(kind) {
            let some = left.min(table.free);
            table.reserved += some;
            table.free -= some;
            left -= some;
        }
    }
}

/// A container that has its memory keeps it; where it asks for other now, it has no say.
fn again(blocks: &[Block], wanted: &Amounts) -> Hints {
    let same = |block: &Block| wanted.get(&block.kind) == Some(&block.size);
    if blocks.len() != wanted.len() || !blocks.iter().all(same) {
        return Hints::new();
    }
    let hint = |block: &Block| Hint {
        affinity: Some(Mask::of(block.nodes.iter().copied())),
        preferred: true,
    };
    let blocks = blocks.iter();
    blocks
        .map(|block| (block.kind.clone(), Some(vec![hint(block)])))
        .collect()
}

/// A preferred one, of those the narrowest.
fn narrowest(hints: Vec<Hint>) -> Option<Hint> {
    hints.into_iter().min_by_key(|hint| {
        let mask = hint.affinity.unwrap_or_default();
        (!hint.preferred, mask.count(), mask)
    })
}

/// Whether two states say the same. How much containers of a group have of each of its nodes
/// depends on who came first, so that it is the sum that counts.
fn fits(found: &Nodes, expected: &Nodes) -> bool {
    let sums = |nodes: &Nodes, cells: &[u32], kind: &str| {
        let tables = cells.iter().map(|cell| table(nodes, *cell, kind));
        tables.fold((0, 0), |sum, table| {
            (sum.0 + table.free, sum.1 + table.reserved)
        })
    };
    let same = |(id, node): (&u32, &Node)| {
        let Some(other) = expected.get(id) else {
            return false;
        };
        let mask = Mask::of(other.cells.iter().copied());
        let fixed = |table: &Table| (table.total, table.system_reserved, table.allocatable);
        node.number_of_assignments == other.number_of_assignments
            && same_group(node, mask)
            && node.memory_map.len() == other.memory_map.len()
            && node.memory_map.iter().all(|(kind, table)| {
                other
                    .memory_map
                    .get(kind)
                    .is_some_and(|other| fixed(other) == fixed(table))
                    && sums(found, &node.cells, kind) == sums(expected, &node.cells, kind)
            })
    };
    found.len() == expected.len() && found.iter().all(same)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
