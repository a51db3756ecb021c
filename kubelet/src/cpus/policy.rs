//! The static policy (KEP-3570): containers of guaranteed pods that ask for whole CPUs have theirs
//! alone; all others share the rest. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::CpuSet;
use super::assign::{Level, Manner, Topology, distributed, packed};
use super::options::StaticOptions;
use super::state::State;
use crate::pods::pod::{PodExt, is_sidecar};
use crate::resources::qos::{QosClass, qos_class};
use crate::resources::requests::{container_requests, has_pod_level, of};
use crate::topology::{AllocateError, Hint, Hints, Mask};

pub struct Static {
    pub topology: Topology,
    pub options: StaticOptions,
    /// Nobody's alone: what the system needs.
    pub reserved: CpuSet,
    /// With the others of their cores.
    reserved_cores: CpuSet,
    /// The pod that is being admitted, and the CPUs of its init containers that later ones may
    /// have too.
    reusable: Option<(String, CpuSet)>,
}

impl Static {
    /// Reserves so many CPUs, or exactly `named` ones.
    ///
    /// # Errors
    /// When there are not as many.
    pub fn new(
        topology: Topology,
        options: StaticOptions,
        count: usize,
        named: &CpuSet,
    ) -> Result<Self, String> {
        let mut policy = Self {
            topology,
            options,
            reserved: CpuSet::default(),
            reserved_cores: CpuSet::default(),
            reusable: None,
        };
        policy.reserved = match named.is_empty() {
            true => policy
                .take(&policy.topology.all(), count)
                .unwrap_or_default(),
            false => named.clone(),
        };
        let reserved = &policy.reserved;
        if reserved.len() != count {
            return Err(format!(
                "[cpumanager] unable to reserve the required amount of CPUs (size of {reserved} did not equal {count})"
            ));
        }
        let cores = reserved.iter().map(|cpu| {
            let core = policy.topology.place(cpu, Level::Core);
            let core = core.ok_or_else(|| {
                format!("[cpumanager] unable to build the reserved physical CPUs from the reserved set: unknown CPU ID: {cpu}")
            })?;
            Ok(policy.topology.within(Level::Core, core))
        });
        let cores: Result<Vec<CpuSet>, String> = cores.collect();
        policy.reserved_cores = cores?.iter().fold(CpuSet::default(), |all, c| all.union(c));
        Ok(policy)
    }

    fn take(&self, available: &CpuSet, count: usize) -> Result<CpuSet, String> {
        let manner = Manner {
            spread: self.options.across_cores,
            by_uncore_cache: self.options.by_uncore_cache,
        };
        if self.options.across_numa {
            let whole = self.options.full_cores;
            let group = if whole {
                self.topology.per(Level::Core)
            } else {
                1
            };
            return distributed(&self.topology, available, count, group, manner);
        }
        packed(&self.topology, available, count, manner)
    }

    /// Makes a first state, or sees whether the one that was found fits this machine.
    ///
    /// # Errors
    /// When it does not: the node must be drained and the file removed.
    pub fn start(&self, state: &mut State) -> Result<(), String> {
        let strict = self.options.strict_reservation;
        let all = self.topology.all();
        if state.shared.is_empty() {
            if !state.exclusive.is_empty() {
                return Err("default cpuset cannot be empty".into());
            }
            state.shared = if strict {
                all.without(&self.reserved)
            } else {
                all
            };
            return Ok(());
        }
        let (shared, reserved) = (&state.shared, &self.reserved);
        let both = reserved.intersection(shared);
        if strict && !both.is_empty() {
            return Err(format!(
                "some of strictly reserved cpus: \"{both}\" are present in defaultCpuSet: \"{shared}\""
            ));
        }
        if !strict && both != *reserved {
            return Err(format!(
                "not all reserved cpus: \"{reserved}\" are present in defaultCpuSet: \"{shared}\""
            ));
        }
        for (uid, containers) in &state.exclusive {
            for (name, cpus) in containers {
                if !cpus.intersection(shared).is_empty() {
                    return Err(format!(
                        "pod: {uid}, container: {name} cpuset: \"{cpus}\" overlaps with default cpuset \"{shared}\""
                    ));
                }
            }
        }
        let known = shared.union(&state.all_exclusive());
        let there = if strict { all.without(reserved) } else { all };
        if known != there {
            return Err(format!(
                "current set of available CPUs \"{there}\" doesn't match with CPUs in state \"{known}\""
            ));
        }
        Ok(())
    }

    /// Those that can be somebody's alone, whether they are or not.
    pub fn allocatable(&self) -> CpuSet {
        self.topology.all().without(&self.reserved)
    }

    pub fn available(&self, state: &State) -> CpuSet {
        state.shared.without(&self.reserved)
    }

    fn reusable(&self, uid: &str) -> CpuSet {
        let own = self.reusable.as_ref().filter(|(pod, _)| pod == uid);
        own.map(|(_, cpus)| cpus.clone()).unwrap_or_default()
    }

    /// A container of the pod has all that it asks for.
    fn settle(&mut self, pod: &Pod, container: &Container, cpus: &CpuSet) {
        let known = self.reusable(pod.uid());
        let mut init = pod.init_containers().iter();
        let ends = init.any(|c| c.name == container.name && !is_sidecar(c));
        let reusable = if ends {
            known.union(cpus)
        } else {
            known.without(cpus)
        };
        self.reusable = Some((pod.uid().to_owned(), reusable));
    }

    /// Gives a container its CPUs; what it has it keeps. True where it has any of its own.
    ///
    /// # Errors
    /// When it cannot have them.
    pub fn allocate(
        &mut self,
        state: &mut State,
        pod: &Pod,
        container: &Container,
        affinity: Option<Mask>,
    ) -> Result<Option<CpuSet>, AllocateError> {
        let count = exclusive(pod, container);
        self.align_cores(state, count)?;
        if let Some(has) = state.get(pod.uid(), &container.name).cloned() {
            self.settle(pod, container, &has);
            return Ok(None);
        }
        let from = self.available(state).union(&self.reusable(pod.uid()));
        let mut cpus = CpuSet::default();
        if let Some(mask) = affinity {
            let near = self.near(mask, &from);
            let most = near.len().min(count);
            cpus = self.take(&near, most).map_err(AllocateError::Other)?;
        }
        let missing = count - cpus.len();
        let more = self.take(&from.without(&cpus), missing);
        cpus = cpus.union(&more.map_err(AllocateError::Other)?);
        state.shared = state.shared.without(&cpus);
        let own = state.exclusive.entry(pod.uid().to_owned()).or_default();
        own.insert(container.name.clone(), cpus.clone());
        self.settle(pod, container, &cpus);
        Ok(Some(cpus))
    }

    /// With `full-pcpus-only`, no core may be shared.
    fn align_cores(&self, state: &State, count: usize) -> Result<(), AllocateError> {
        let per_core = self.topology.per(Level::Core);
        if !self.options.full_cores {
            return Ok(());
        }
        let error = |available| AllocateError::Smt {
            requested: count,
            per_core,
            available,
        };
        if !count.is_multiple_of(per_core) {
            return Err(error(None));
        }
        let available = state.shared.without(&self.reserved_cores).len();
        match count > available {
            true => Err(error(Some(available))),
            false => Ok(()),
        }
    }

    /// Those of these CPUs that lie on the nodes, or with `align-by-socket` on their sockets.
    fn near(&self, mask: Mask, from: &CpuSet) -> CpuSet {
        let numa = |cpu: u32| self.topology.place(cpu, Level::Numa);
        let on_nodes = |cpu: u32| numa(cpu).is_some_and(|node| mask.contains(node));
        if !self.options.by_socket {
            return from.iter().filter(|cpu| on_nodes(*cpu)).collect();
        }
        let sockets = self.sockets(mask);
        let on_sockets = |cpu: &u32| {
            let socket = self.topology.place(*cpu, Level::Socket);
            socket.is_some_and(|socket| sockets.contains(&socket))
        };
        from.iter().filter(on_sockets).collect()
    }

    fn sockets(&self, mask: Mask) -> Vec<u32> {
        let on = |socket: &u32| {
            let cpus = self.topology.within(Level::Socket, *socket);
            let mut nodes = cpus
                .iter()
                .filter_map(|cpu| self.topology.place(cpu, Level::Numa));
            nodes.any(|node| mask.contains(node))
        };
        let mut sockets = self.topology.ids(Level::Socket);
        sockets.retain(on);
        sockets
    }

    /// Takes a container's CPUs back, but for those that others of its pod have too.
    pub fn release(&self, state: &mut State, uid: &str, container: &str) {
        let Some(containers) = state.exclusive.get_mut(uid) else {
            return;
        };
        let Some(mut cpus) = containers.remove(container) else {
            return;
        };
        for others in containers.values() {
            cpus = cpus.without(others);
        }
        if containers.is_empty() {
            state.exclusive.remove(uid);
        }
        state.shared = state.shared.union(&cpus);
    }

    /// Where one container's CPUs could be had.
    pub fn hints(&self, state: &State, pod: &Pod, container: &Container) -> Hints {
        let count = exclusive(pod, container);
        if count == 0 {
            return Hints::new();
        }
        let hints = match state.get(pod.uid(), &container.name) {
            Some(has) if has.len() == count => self.generate(has, &CpuSet::default(), count),
            Some(_) => Vec::new(),
            None => {
                let reusable = self.reusable(pod.uid());
                self.generate(&self.available(state), &reusable, count)
            }
        };
        Hints::from([("cpu".to_owned(), Some(hints))])
    }

    /// Where those of the pod as a whole could be had.
    pub fn pod_hints(&self, state: &State, pod: &Pod) -> Hints {
        let count = pod_exclusive(pod);
        if count == 0 {
            return Hints::new();
        }
        let only = |hints| Hints::from([("cpu".to_owned(), Some(hints))]);
        let mut has = CpuSet::default();
        for container in pod.init_containers().iter().chain(pod.containers()) {
            if let Some(own) = state.get(pod.uid(), &container.name) {
                if own.len() != exclusive(pod, container) {
                    return only(Vec::new());
                }
                has = has.union(own);
            }
        }
        if has.len() == count {
            return only(self.generate(&has, &CpuSet::default(), count));
        }
        let reusable = self.reusable(pod.uid()).union(&has);
        only(self.generate(&self.available(state), &reusable, count))
    }

    fn generate(&self, available: &CpuSet, reusable: &CpuSet, count: usize) -> Vec<Hint> {
        let nodes = self.topology.ids(Level::Numa);
        let numa = |cpu: u32| self.topology.place(cpu, Level::Numa).unwrap_or_default();
        let all = self.topology.all();
        let mut narrowest = nodes.len();
        let mut masks = Vec::new();
        for mask in Mask::subsets(&nodes) {
            let on = |cpus: &CpuSet| cpus.iter().filter(|cpu| mask.contains(numa(*cpu))).count();
            if on(&all) >= count {
                narrowest = narrowest.min(mask.count());
            }
            // What is there to be used again is used.
            if on(reusable) == reusable.len() && reusable.len() + on(available) >= count {
                masks.push(mask);
            }
        }
        let hints = masks.into_iter().map(|mask| Hint {
            affinity: Some(mask),
            preferred: mask.count() == narrowest
                || self.options.by_socket && self.is_on_few_sockets(mask, narrowest),
        });
        hints.collect()
    }

    /// Whether the nodes span no more sockets than so many nodes take.
    fn is_on_few_sockets(&self, mask: Mask, nodes: usize) -> bool {
        let per_socket =
            self.topology.count(Level::Numa) / self.topology.count(Level::Socket).max(1);
        per_socket > 0 && self.sockets(mask).len() == nodes.div_ceil(per_socket)
    }
}

/// How many CPUs a container has alone: what it requests, if that is whole CPUs of a guaranteed pod.
/// Resources of the pod itself (KEP-2837) are shared by its containers.
pub fn exclusive(pod: &Pod, container: &Container) -> usize {
    let milli = of(container_requests(container), "cpu");
    let whole = milli % 1000 == 0 && !has_pod_level(pod);
    match whole && qos_class(pod) == QosClass::Guaranteed {
        true => usize::try_from(milli / 1000).unwrap_or_default(),
        false => 0,
    }
}

/// How many the pod as a whole has: init containers run one at a time, beside the sidecars that
/// were started before them.
fn pod_exclusive(pod: &Pod) -> usize {
    let (mut sidecars, mut peak) = (0, 0);
    for container in pod.init_containers() {
        let count = exclusive(pod, container);
        match is_sidecar(container) {
            true => sidecars += count,
            false => peak = peak.max(sidecars + count),
        }
    }
    let containers = pod.containers().iter();
    let long: usize = containers.map(|container| exclusive(pod, container)).sum();
    peak.max(long + sidecars)
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
