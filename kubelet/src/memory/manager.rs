//! *Apply*: keeps the state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tracing::warn;

use super::policy::{Amounts, Reserved, Static, wanted};
use super::state::{Block, File, State};
use crate::config::MemoryReservation;
use crate::metrics::Metrics;
use crate::pods::active::ActivePods;
use crate::pods::pod::{PodExt, is_sidecar};
use crate::resources::requests::{amounts, quantity};
use crate::sys::numa::NumaNode;
use crate::topology::{AllocateError, Hint, Hints};

/// Everything that the manager takes.
pub struct Setup<'a> {
    pub policy: &'a str,
    pub machine: &'a [NumaNode],
    /// `reservedMemory`.
    pub reserved: &'a [MemoryReservation],
    /// What the node keeps of memory and huge pages in all, in bytes: the other must add up to it.
    pub kept: BTreeMap<String, i64>,
    /// Where the state is kept.
    pub root: PathBuf,
    pub active: ActivePods,
    pub metrics: Arc<Metrics>,
}

struct Inner {
    state: State,
    /// `None` with the policy `None`: all have memory of all nodes.
    policy: Option<Static>,
}

/// The node's memory.
pub struct Memory {
    inner: Mutex<Inner>,
    file: File,
    active: ActivePods,
    metrics: Arc<Metrics>,
}

/// By node; where it does not add up to what the node keeps, why.
fn reserved(setup: &Setup<'_>) -> Result<Reserved, String> {
    let mut reserved: Reserved = setup
        .machine
        .iter()
        .map(|n| (n.id, Amounts::new()))
        .collect();
    let mut totals: BTreeMap<String, i64> = BTreeMap::new();
    for reservation in setup.reserved {
        let node = reserved.get_mut(&reservation.numa_node).ok_or_else(|| {
            let id = reservation.numa_node;
            format!("the reserved memory configuration references a NUMA node {id} that does not exist on this machine")
        })?;
        for (kind, amount) in amounts(Some(&reservation.limits)) {
            *totals.entry(kind.clone()).or_default() += amount;
            node.insert(kind, u64::try_from(amount).unwrap_or_default());
        }
    }
    let kinds: BTreeSet<&String> = totals.keys().chain(setup.kept.keys()).collect();
    for kind in kinds {
        let of = |list: &BTreeMap<String, i64>| list.get(kind).copied().unwrap_or_default();
        let (total, kept) = (of(&totals), of(&setup.kept));
        if total != kept {
            let text = |amount| quantity(kind, amount).0;
            return Err(format!(
                "the total amount {:?} of type {kind:?} is not equal to the value {:?} determined by Node Allocatable feature",
                text(total),
                text(kept)
            ));
        }
    }
    Ok(reserved)
}

impl Memory {
    /// # Errors
    /// When the policy does not fit the machine, or what the kubelet before has written down.
    pub fn open(setup: Setup<'_>) -> Result<Arc<Self>, String> {
        let policy = match setup.policy {
            "None" => None,
            "Static" => Some(Static::new(setup.machine, reserved(&setup)?)?),
            other => return Err(format!("unknown policy: {other:?}")),
        };
        let name = if policy.is_some() { "Static" } else { "None" };
        let (file, state) = File::open(&setup.root, name, |state| match &policy {
            Some(policy) => policy.start(state).map_err(|why| {
                format!("Invalid state, please drain node and remove policy state file: {why}")
            }),
            None => Ok(()),
        })?;
        Ok(Arc::new(Self {
            inner: Mutex::new(Inner { state, policy }),
            file,
            active: setup.active,
            metrics: setup.metrics,
        }))
    }

    pub fn is_static(&self) -> bool {
        self.inner.lock().policy.is_some()
    }

    fn write(&self, state: &State) {
        if let Err(error) = self.file.write(state) {
            // It holds as long as this kubelet runs.
            warn!(%error, "cannot write down who has which memory");
        }
    }

    fn release(&self, which: impl Fn(&str, &str) -> bool) {
        let mut inner = self.inner.lock();
        let Inner { state, policy } = &mut *inner;
        let Some(policy) = policy else { return };
        let pods = state.assignments.iter();
        let all = pods.flat_map(|(uid, own)| own.keys().map(move |name| (uid, name)));
        let gone = all.filter(|(uid, name)| which(uid, name));
        let gone: Vec<(String, String)> = gone.map(|(u, n)| (u.clone(), n.clone())).collect();
        for (uid, name) in &gone {
            policy.release(state, uid, name);
        }
        if !gone.is_empty() {
            self.write(state);
        }
    }

    /// Takes memory back from pods that are no more.
    pub fn give_back(&self) {
        if self.is_static()
            && let Some(active) = self.active.uids()
        {
            self.release(|uid, _| !active.contains(uid));
        }
    }

    /// A container was made: init containers before it have ended, and need no memory.
    pub fn started(&self, pod: &Pod, container: &str) {
        let init = pod.init_containers().iter();
        let ended = init.take_while(|c| c.name != container);
        let ended: Vec<&str> = ended
            .filter(|c| !is_sidecar(c))
            .map(|c| c.name.as_str())
            .collect();
        if !ended.is_empty() {
            self.release(|uid, name| uid == pod.uid() && ended.contains(&name));
        }
    }

    /// Where the pod's memory could be had, or one container's.
    pub fn hints(&self, pod: &Pod, container: Option<&Container>) -> Hints {
        self.give_back();
        let inner = self.inner.lock();
        match (&inner.policy, container) {
            (None, _) => Hints::new(),
            (Some(policy), Some(container)) => policy.hints(&inner.state, pod, container),
            (Some(policy), None) => policy.pod_hints(&inner.state, pod),
        }
    }

    /// Gives a container its memory; what it has it keeps. Init containers come first, in order.
    ///
    /// # Errors
    /// When it cannot have it.
    pub fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        hint: Hint,
    ) -> Result<(), AllocateError> {
        self.give_back();
        let mut inner = self.inner.lock();
        let Inner { state, policy } = &mut *inner;
        let Some(policy) = policy
            .as_mut()
            .filter(|_| !wanted(pod, container).is_empty())
        else {
            return Ok(());
        };
        let metrics = &self.metrics.resources;
        metrics.memory_pinnings.inc();
        match policy.allocate(state, pod, container, hint) {
            Ok(given) => {
                if given {
                    self.write(state);
                }
                Ok(())
            }
            Err(error) => {
                metrics.memory_pinning_errors.inc();
                Err(AllocateError::Other(error))
            }
        }
    }

    /// What a container has.
    pub fn of_container(&self, uid: &str, container: &str) -> Vec<Block> {
        let inner = self.inner.lock();
        inner.state.get(uid, container).cloned().unwrap_or_default()
    }

    /// The nodes that a container's memory is of, as the kernel writes them; empty: any.
    pub fn nodes_of(&self, uid: &str, container: &str) -> String {
        let blocks = self.of_container(uid, container);
        let nodes: BTreeSet<u32> = blocks.into_iter().flat_map(|block| block.nodes).collect();
        let nodes: Vec<String> = nodes.iter().map(u32::to_string).collect();
        nodes.join(",")
    }

    /// What can be given of each node, whether it is or not.
    pub fn allocatable(&self) -> Vec<Block> {
        let inner = self.inner.lock();
        let policy = inner.policy.as_ref();
        policy.map_or_else(Vec::new, |_| Static::allocatable(&inner.state))
    }
}
