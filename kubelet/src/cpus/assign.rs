//! Which CPUs go together: whole NUMA nodes, sockets and cores first, and of those that are begun
//! the ones with least left, so that what is whole stays whole. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::CpuSet;
use crate::sys::numa::{Cpu, Layout};

/// What CPUs have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Numa,
    Socket,
    Core,
    Uncore,
}

type Cpus = BTreeMap<u32, Cpu>;

fn place(cpu: &Cpu, level: Level) -> u32 {
    match level {
        Level::Numa => cpu.numa,
        Level::Socket => cpu.socket,
        Level::Core => cpu.core,
        Level::Uncore => cpu.uncore,
    }
}

fn ids(cpus: &Cpus, level: Level) -> BTreeSet<u32> {
    cpus.values().map(|cpu| place(cpu, level)).collect()
}

fn within(cpus: &Cpus, level: Level, id: u32) -> CpuSet {
    let own = cpus.iter().filter(|(_, cpu)| place(cpu, level) == id);
    own.map(|(cpu, _)| *cpu).collect()
}

/// The machine's CPUs.
#[derive(Debug, Clone)]
pub struct Topology {
    cpus: Cpus,
}

impl Topology {
    pub fn new(layout: &Layout) -> Self {
        Self {
            cpus: layout.cpus.clone(),
        }
    }

    pub fn all(&self) -> CpuSet {
        self.cpus.keys().copied().collect()
    }

    pub fn count(&self, level: Level) -> usize {
        ids(&self.cpus, level).len()
    }

    /// In ascending order.
    pub fn ids(&self, level: Level) -> Vec<u32> {
        ids(&self.cpus, level).into_iter().collect()
    }

    pub fn within(&self, level: Level, id: u32) -> CpuSet {
        within(&self.cpus, level, id)
    }

    pub fn place(&self, cpu: u32, level: Level) -> Option<u32> {
        self.cpus.get(&cpu).map(|cpu| place(cpu, level))
    }

    /// How many CPUs a core, socket or cache has, on average.
    pub fn per(&self, level: Level) -> usize {
        self.cpus.len() / self.count(level).max(1)
    }

    /// Whether these CPUs share one cache.
    pub fn shares_uncore(&self, cpus: &CpuSet) -> bool {
        let caches: BTreeSet<_> = cpus
            .iter()
            .map(|cpu| self.place(cpu, Level::Uncore))
            .collect();
        caches.len() <= 1
    }
}

/// How CPUs are picked where there is a choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// One of each core before a second of any.
    pub spread: bool,
    pub by_uncore_cache: bool,
}

/// Picks so many of the available CPUs, packed as tightly as can be.
///
/// # Errors
/// When there are not enough.
pub fn packed(
    topology: &Topology,
    available: &CpuSet,
    count: usize,
    manner: Manner,
) -> Result<CpuSet, String> {
    let mut picker = Picker::new(topology, available, count, manner);
    if picker.needed == 0 {
        return Ok(picker.taken);
    }
    picker.check(available, count)?;
    let [first, second] = picker.order();
    for level in [first, second] {
        picker.take_whole(level);
        if picker.needed == 0 {
            return Ok(picker.taken);
        }
    }
    if manner.by_uncore_cache {
        picker.take_uncore();
    }
    if picker.needed > 0 && !manner.spread {
        picker.take_whole(Level::Core);
    }
    for cpu in picker.sorted_cpus() {
        if picker.needed == 0 {
            break;
        }
        picker.take(&CpuSet::from_iter([cpu]));
    }
    match picker.needed {
        0 => Ok(picker.taken),
        _ => Err("failed to allocate cpus".into()),
    }
}

struct Picker<'a> {
    topology: &'a Topology,
    free: Cpus,
    needed: usize,
    taken: CpuSet,
    manner: Manner,
}

impl<'a> Picker<'a> {
    fn new(topology: &'a Topology, available: &CpuSet, count: usize, manner: Manner) -> Self {
        let mut free = topology.cpus.clone();
        free.retain(|cpu, _| available.contains(*cpu));
        Self {
            topology,
            free,
            needed: count,
            taken: CpuSet::default(),
            manner,
        }
    }

    fn check(&self, available: &CpuSet, count: usize) -> Result<(), String> {
        if self.needed <= self.free.len() {
            return Ok(());
        }
        Err(format!(
            "not enough cpus available to satisfy request: requested={count}, available={}",
            available.len()
        ))
    }

    /// What is larger on this machine comes first: NUMA nodes or sockets.
    fn order(&self) -> [Level; 2] {
        let topology = self.topology;
        match topology.count(Level::Socket) >= topology.count(Level::Numa) {
            true => [Level::Numa, Level::Socket],
            false => [Level::Socket, Level::Numa],
        }
    }

    /// Those with least left first.
    fn by_free(&self, ids: impl IntoIterator<Item = u32>, level: Level) -> Vec<u32> {
        let mut ids: Vec<u32> = ids.into_iter().collect();
        ids.sort_by_key(|id| (within(&self.free, level, *id).len(), *id));
        ids
    }

    /// What is `inner` in each of the outer ones, in their order.
    fn nested(&self, outer: (Vec<u32>, Level), inner: Level) -> Vec<u32> {
        let mut sorted = Vec::new();
        for id in outer.0 {
            let here = self.free.values().filter(|cpu| place(cpu, outer.1) == id);
            let here: BTreeSet<u32> = here.map(|cpu| place(cpu, inner)).collect();
            let fresh = here.into_iter().filter(|id| !sorted.contains(id));
            let fresh: Vec<u32> = fresh.collect();
            sorted.extend(self.by_free(fresh, inner));
        }
        sorted
    }

    fn sorted(&self, level: Level) -> Vec<u32> {
        let [first, second] = self.order();
        match level {
            level if level == first => self.by_free(ids(&self.free, first), first),
            level if level == second => self.nested((self.sorted(first), first), second),
            Level::Uncore => self.nested((self.sorted(Level::Numa), Level::Numa), level),
            _ => self.nested((self.sorted(second), second), Level::Core),
        }
    }

    fn sorted_cpus(&self) -> Vec<u32> {
        let outer = if self.manner.spread {
            Level::Socket
        } else {
            Level::Core
        };
        let sorted = self.sorted(outer).into_iter();
        sorted
            .flat_map(|id| within(&self.free, outer, id).iter().collect::<Vec<_>>())
            .collect()
    }

    fn is_whole(&self, level: Level, id: u32) -> bool {
        let whole = match level {
            Level::Socket | Level::Core => self.topology.per(level),
            Level::Numa | Level::Uncore => self.topology.within(level, id).len(),
        };
        within(&self.free, level, id).len() == whole
    }

    fn take(&mut self, cpus: &CpuSet) {
        self.taken = self.taken.union(cpus);
        self.free.retain(|cpu, _| !cpus.contains(*cpu));
        self.needed = self.needed.saturating_sub(cpus.len());
    }

    fn take_whole(&mut self, level: Level) {
        let mut whole = self.sorted(level);
        whole.retain(|id| self.is_whole(level, *id));
        for id in whole {
            let cpus = self.topology.within(level, id);
            if self.needed >= cpus.len() {
                self.take(&cpus);
            }
        }
    }

    fn take_uncore(&mut self) {
        for id in self.sorted(Level::Uncore) {
            if self.needed >= self.topology.per(Level::Uncore) {
                self.take_whole(Level::Uncore);
            }
            if self.needed > 0 {
                self.take_part(id);
            }
            if self.needed == 0 {
                return;
            }
        }
    }

    /// All that is needed from one cache, or nothing.
    fn take_part(&mut self, uncore: u32) {
        let per_core = self.topology.per(Level::Core).max(1);
        let here = self.free.values().filter(|cpu| cpu.uncore == uncore);
        let cores: BTreeSet<u32> = here.map(|cpu| cpu.core).collect();
        let cores = cores.into_iter().take(self.needed.div_ceil(per_core));
        let cpus = cores.flat_map(|core| {
            within(&self.free, Level::Core, core)
                .iter()
                .collect::<Vec<_>>()
        });
        let mut cpus: Vec<u32> = cpus.collect();
        cpus.sort_unstable();
        // Of an odd number the last core gives but one.
        if !self.needed.is_multiple_of(2) && per_core > 1 && cpus.len() > self.needed {
            cpus.pop();
        }
        if cpus.len() == self.needed {
            self.take(&cpus.into_iter().collect());
        }
    }
}

/// Picks so many CPUs evenly from as few NUMA nodes as it takes, `group` at a time; packed, where
/// that cannot be.
///
/// # Errors
/// As [`packed`].
pub fn distributed(
    topology: &Topology,
    available: &CpuSet,
    count: usize,
    group: usize,
    manner: Manner,
) -> Result<CpuSet, String> {
    let manner = Manner {
        by_uncore_cache: false,
        ..manner
    };
    if count == 0 || !count.is_multiple_of(group) {
        return packed(topology, available, count, manner);
    }
    let mut picker = Picker::new(topology, available, count, manner);
    picker.check(available, count)?;
    let nodes = picker.sorted(Level::Numa);
    let groups = count.div_ceil(group);
    let groups_per_node = topology
        .cpus
        .len()
        .div_ceil(group)
        .div_ceil(topology.count(Level::Numa).max(1));
    let least = groups.div_ceil(groups_per_node.max(1));
    for size in least..=groups.min(nodes.len()) {
        let free = |node: u32| within(&picker.free, Level::Numa, node).len();
        let free: BTreeMap<u32, usize> = nodes.iter().map(|node| (*node, free(*node))).collect();
        let mut best: Option<(f64, Split)> = None;
        for combination in combinations(&nodes, size) {
            if best.as_ref().is_some_and(|(balance, _)| *balance == 0.0) {
                break;
            }
            let split = split(&free, &combination, count, group);
            if let Some((balance, split)) = split
                && best.as_ref().is_none_or(|(known, _)| balance < *known)
            {
                best = Some((balance, split));
            }
        }
        let Some((_, split)) = best else { continue };
        let mut take = |node: u32, count: usize| {
            let here = within(&picker.free, Level::Numa, node);
            let cpus = packed(topology, &here, count, manner).unwrap_or_default();
            picker.take(&cpus);
        };
        for node in &split.nodes {
            take(*node, split.each);
        }
        for node in split.more {
            take(node, group);
        }
        return match picker.taken.len() {
            taken if taken == count => Ok(picker.taken),
            taken => Err(format!(
                "accounting error, not enough CPUs allocated, remaining: {}",
                count.saturating_sub(taken)
            )),
        };
    }
    packed(topology, available, count, manner)
}

/// So many CPUs from each of some nodes, and one group more from each of `more`, which may name a
/// node several times.
struct Split {
    nodes: Vec<u32>,
    each: usize,
    more: Vec<u32>,
}

/// The best way of taking the CPUs from these nodes, and how unevenly that leaves all nodes; `None`
/// where they do not have them.
fn split(
    free: &BTreeMap<u32, usize>,
    nodes: &[u32],
    count: usize,
    group: usize,
) -> Option<(f64, Split)> {
    let whole: usize = nodes.iter().map(|node| free[node] / group * group).sum();
    let each = count / nodes.len() / group * group;
    if whole < count || nodes.iter().any(|node| free[node] < each) {
        return None;
    }
    let mut left = free.clone();
    for node in nodes {
        left.entry(*node).and_modify(|free| *free -= each);
    }
    let remainder = count - each * nodes.len();
    let done = |more| Split {
        nodes: nodes.to_vec(),
        each,
        more,
    };
    if remainder == 0 {
        return Some((deviation(&left), done(Vec::new())));
    }
    let able: Vec<u32> = nodes
        .iter()
        .copied()
        .filter(|node| left[node] >= group)
        .collect();
    let mut best: Option<(f64, Vec<u32>)> = None;
    for size in (1..=able.len()).rev() {
        for subset in combinations(&able, size) {
            let mut left = left.clone();
            let usable = |left: &BTreeMap<u32, usize>| -> usize {
                subset.iter().map(|node| left[node] / group * group).sum()
            };
            if usable(&left) < remainder {
                continue;
            }
            let (mut rest, mut more) = (remainder, Vec::new());
            for node in subset.iter().cycle() {
                if rest == 0 {
                    break;
                }
                if left[node] >= group {
                    left.entry(*node).and_modify(|free| *free -= group);
                    more.push(*node);
                    rest = rest.saturating_sub(group);
                }
            }
            let balance = deviation(&left);
            if best.as_ref().is_none_or(|(known, _)| balance < *known) {
                best = Some((balance, more));
            }
        }
    }
    best.map(|(balance, more)| (balance, done(more)))
}

/// Standard deviation to three digits, so that what is equal compares as equal.
fn deviation(counts: &BTreeMap<u32, usize>) -> f64 {
    let rounded = |x: f64| (x * 1000.0).round() / 1000.0;
    let n = counts.len() as f64;
    let mean = rounded(counts.values().map(|c| *c as f64).sum::<f64>() / n);
    let squares = counts.values().map(|c| (*c as f64 - mean).powi(2));
    rounded((squares.sum::<f64>() / n).sqrt())
}

/// Every choice of so many, in order.
fn combinations(of: &[u32], size: usize) -> Vec<Vec<u32>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (i, first) in of.iter().enumerate() {
        for mut rest in combinations(&of[i + 1..], size - 1) {
            rest.insert(0, *first);
            all.push(rest);
        }
    }
    all
}

#[cfg(test)]
#[path = "assign_tests.rs"]
pub(super) mod tests;
