//! Which pools a node can have devices of, and what state they are in.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use api::placement;

use super::Features;
use crate::cache::NodeInfo;
use crate::cache::devices::slice::{Device, Reach};
use crate::cache::devices::{Capacities, Devices, Slice};

#[derive(Debug)]
pub struct Pool {
    pub driver: Arc<str>,
    pub name: Arc<str>,
    pub state: State,
    /// Slices with devices that the node may have, by name.
    pub slices: Vec<Arc<Slice>>,
    /// All its others, where counters are shared: their devices use them, too.
    pub others: Vec<Arc<Slice>>,
    /// Counters that devices share.
    pub counters: HashMap<Box<str>, Capacities>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Usable,
    /// Some of its slices are not there yet.
    Incomplete,
    /// What it says contradicts itself.
    Invalid,
}

impl Pool {
    fn new(slice: &Slice, state: State) -> Self {
        Self {
            driver: Arc::clone(&slice.driver),
            name: Arc::clone(&slice.pool),
            state,
            slices: Vec::new(),
            others: Vec::new(),
            counters: HashMap::new(),
        }
    }

    /// Devices with binding conditions are taken last.
    fn has_conditions(&self) -> bool {
        let mut devices = self.slices.iter().flat_map(|slice| &slice.devices);
        devices.any(|device| device.binding_conditions.is_some())
    }
}

impl Reach {
    /// Whether a node has it.
    pub fn includes(&self, node: &NodeInfo) -> bool {
        if let Some(name) = &self.node {
            return *name == node.name;
        }
        if self.all {
            return true;
        }
        self.selector.as_ref().is_some_and(|selector| {
            let terms = selector.node_selector_terms.iter();
            let matches = |term| placement::matches(term, &node.name, &node.labels);
            terms.into_iter().any(matches)
        })
    }

    fn is_given(&self) -> bool {
        self.node.is_some() || self.all || self.selector.is_some()
    }
}

fn concerns(slice: &Slice, node: &NodeInfo, features: &Features) -> bool {
    let partitioned = slice.per_device.is_some() || !slice.shared_counters.is_empty();
    if partitioned && !features.partitionable {
        return false;
    }
    if !slice.shared_counters.is_empty() {
        // A pool cannot be used without them.
        return true;
    }
    if slice.reach.is_given() {
        return slice.reach.includes(node);
    }
    slice.per_device == Some(true) && slice.devices.iter().any(|d| d.reach.includes(node))
}

/// Pools that have something for the node, in the order in which their devices are tried.
pub fn gather(devices: &Devices, node: &NodeInfo, features: &Features) -> Vec<Pool> {
    let mut found: BTreeMap<(&str, &str), Vec<&Arc<Slice>>> = BTreeMap::new();
    for slice in devices.slices_for(&node.name) {
        if !concerns(slice, node, features) {
            continue;
        }
        let slices = found.entry((&slice.driver, &slice.pool)).or_default();
        match slices.first().map(|first| first.generation) {
            Some(newest) if slice.generation < newest => continue,
            Some(newest) if slice.generation > newest => slices.clear(),
            _ => {}
        }
        slices.push(slice);
    }
    let mut pools = Vec::new();
    for mut slices in found.into_values() {
        slices.sort_by(|a, b| a.name.cmp(&b.name));
        let first = slices[0];
        let complete = |known: usize| i64::try_from(known) == Ok(first.count);
        if complete(slices.len()) {
            pools.push(build(&slices, &[], features));
            continue;
        }
        // Slices that do not concern the node belong to the pool all the same.
        let of_pool =
            |slice: &&Arc<Slice>| slice.driver == first.driver && slice.pool == first.pool;
        let all: Vec<&Arc<Slice>> = devices.slices().filter(of_pool).collect();
        if all.iter().any(|slice| slice.generation > first.generation) {
            // It is being replaced, by one that has nothing for the node.
            continue;
        }
        let current = all.into_iter().filter(|s| s.generation == first.generation);
        let current: Vec<&Arc<Slice>> = current.collect();
        if !complete(current.len()) {
            pools.push(Pool::new(first, State::Incomplete));
            continue;
        }
        let others = current.into_iter();
        let others = others.filter(|slice| slices.iter().all(|known| known.name != slice.name));
        let others: Vec<&Arc<Slice>> = others.collect();
        pools.push(build(&slices, &others, features));
    }
    pools.sort_by_cached_key(Pool::has_conditions);
    pools
}

fn build(slices: &[&Arc<Slice>], others: &[&Arc<Slice>], features: &Features) -> Pool {
    let mut pool = Pool::new(slices[0], State::Usable);
    let mut names: HashSet<&str> = HashSet::new();
    for slice in slices {
        if slice.shared_counters.is_empty() || !features.partitionable {
            let mut fresh = slice.devices.iter().map(|d| names.insert(&*d.id.device));
            if !fresh.all(|fresh| fresh) {
                return Pool::new(slices[0], State::Invalid);
            }
            pool.slices.push(Arc::clone(slice));
            continue;
        }
        for (name, counters) in &slice.shared_counters {
            if pool
                .counters
                .insert(name.clone(), counters.clone())
                .is_some()
            {
                return Pool::new(slices[0], State::Invalid);
            }
        }
    }
    if !features.partitionable {
        return pool;
    }
    let counted = |device: &Device| {
        device.consumes.iter().all(|(set, used)| {
            let known = pool.counters.get(set);
            known.is_some_and(|known| used.keys().all(|name| known.contains_key(name)))
        })
    };
    let mut all = slices.iter().chain(others).flat_map(|slice| &slice.devices);
    if !all.all(counted) {
        return Pool::new(slices[0], State::Invalid);
    }
    pool.others = others.iter().map(|slice| Arc::clone(slice)).collect();
    pool
}
