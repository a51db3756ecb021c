//! The topology manager (KEP-693): has devices, CPUs and memory of a pod come from the same NUMA
//! nodes, as far as `topologyManagerPolicy` demands it. Those who have something to give tell where
//! they could (`hints.rs`, where their hints become one); then each gives accordingly.
//!
//! What must not be here: who has what (`devices/`, `cpus/`, `memory/`).

mod hints;
mod options;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use thiserror::Error;

use crate::cpus::Cpus;
use crate::devices::Devices;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::pods::admission::Rejection;
use crate::pods::pod::PodExt;

pub use hints::{Hint, Hints, Mask, Numa, Policy};
pub use options::TopologyOptions;

/// Why a pod cannot have what it asks for.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AllocateError {
    #[error("Resources cannot be allocated with Topology locality")]
    Topology,
    /// Whole cores only, and it is no whole number of them, or so many CPUs are not there.
    #[error("SMT Alignment Error: {}", smt(*requested, *per_core, *available))]
    Smt {
        requested: usize,
        per_core: usize,
        available: Option<usize>,
    },
    #[error("Allocate failed due to {0}, which is unexpected")]
    Other(String),
}

fn smt(requested: usize, per_core: usize, available: Option<usize>) -> String {
    match available {
        None => format!("requested {requested} cpus not multiple cpus per core = {per_core}"),
        Some(available) => format!(
            "not enough free physical CPUs: available physical CPUs = {available}, requested CPUs = {requested}, \
             CPUs per core = {per_core}"
        ),
    }
}

impl From<AllocateError> for Rejection {
    fn from(error: AllocateError) -> Self {
        let reason = match &error {
            AllocateError::Topology => "TopologyAffinityError",
            AllocateError::Smt { .. } => "SMTAlignmentError",
            AllocateError::Other(_) => "UnexpectedAdmissionError",
        };
        Self {
            reason: reason.into(),
            message: error.to_string(),
        }
    }
}

/// Where containers have been placed, by pod and name.
#[derive(Debug, Default)]
pub struct Affinities(Mutex<HashMap<String, HashMap<String, Hint>>>);

impl Affinities {
    pub fn get(&self, uid: &str, container: &str) -> Hint {
        let all = self.0.lock();
        let known = all
            .get(uid)
            .and_then(|containers| containers.get(container));
        known.copied().unwrap_or_default()
    }

    fn set(&self, uid: &str, container: &str, hint: Hint) {
        let mut all = self.0.lock();
        let containers = all.entry(uid.to_owned()).or_default();
        containers.insert(container.to_owned(), hint);
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// What is placed as one (`topologyManagerScope`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Container,
    Pod,
}

/// Gives pods what they ask for.
pub struct Topology {
    pub policy: Policy,
    pub scope: Scope,
    pub options: TopologyOptions,
    pub numa: Numa,
    pub devices: Arc<Devices>,
    pub cpus: Arc<Cpus>,
    pub memory: Arc<Memory>,
    pub affinities: Arc<Affinities>,
    pub metrics: Arc<Metrics>,
    /// Pods are placed one after the other: each sees what those before it have left.
    pub placing: tokio::sync::Mutex<()>,
}

impl Topology {
    /// Whether there is anything to decide about the pod.
    pub fn concerns(&self, pod: &Pod) -> bool {
        self.policy != Policy::None
            || self.cpus.is_static()
            || self.memory.is_static()
            || self.devices.wants(pod)
    }

    /// A pod came that this is not about.
    pub fn pass(&self) {
        self.metrics.resources.admissions.inc();
        self.metrics.resources.admission_duration.observe(0.0);
    }

    /// Gives all containers of the pod what they ask for. Can be repeated: what they have they keep.
    /// `starting`: the kubelet has just started, and containers may run already.
    ///
    /// # Errors
    /// When one cannot have it. What others were given is taken back once the pod has failed.
    pub async fn admit(&self, pod: &Pod, starting: bool) -> Result<(), AllocateError> {
        let _turn = self.placing.lock().await;
        let (metrics, begun) = (&self.metrics.resources, Instant::now());
        metrics.admissions.inc();
        let placed = self.place(pod, starting).await;
        if placed.is_err() && self.policy != Policy::None {
            metrics.admission_errors.inc();
        }
        let took = begun.elapsed().as_millis() as f64;
        metrics.admission_duration.observe(took);
        placed
    }

    async fn place(&self, pod: &Pod, starting: bool) -> Result<(), AllocateError> {
        let placed_as_one = match self.scope {
            Scope::Pod if self.policy != Policy::None => Some(self.merge(pod, None)?),
            _ => None,
        };
        for container in pod.init_containers().iter().chain(pod.containers()) {
            let hint = match placed_as_one {
                Some(hint) => hint,
                None => self.merge(pod, Some(container))?,
            };
            self.affinities.set(pod.uid(), &container.name, hint);
            let devices = self.devices.allocate(pod, container, starting).await;
            devices.map_err(AllocateError::Other)?;
            self.cpus.allocate(pod, container, hint)?;
            self.memory.allocate(pod, container, hint)?;
            if placed_as_one.is_none() {
                self.aligned("container");
            }
        }
        if placed_as_one.is_some() {
            self.aligned("pod");
        }
        Ok(())
    }

    fn aligned(&self, scope: &str) {
        if self.policy == Policy::SingleNumaNode {
            let aligned = &self.metrics.resources.aligned;
            aligned.with_label_values(&[scope, "numa_node"]).inc();
        }
    }

    /// Where the container, or the pod as a whole, is best placed.
    fn merge(&self, pod: &Pod, container: Option<&Container>) -> Result<Hint, AllocateError> {
        if self.policy == Policy::None {
            return Ok(Hint::default());
        }
        let hints = [
            self.devices.hints(pod, container),
            self.cpus.hints(pod, container),
            self.memory.hints(pod, container),
        ];
        let closest = self.options.prefer_closest;
        match self.policy.merge(&hints, &self.numa, closest) {
            (hint, true) => Ok(hint),
            (_, false) => {
                if self.policy == Policy::SingleNumaNode {
                    let scope = if container.is_some() {
                        "container"
                    } else {
                        "pod"
                    };
                    let failures = &self.metrics.resources.aligned_failures;
                    failures.with_label_values(&[scope, "numa_node"]).inc();
                }
                Err(AllocateError::Topology)
            }
        }
    }
}

#[cfg(test)]
mod tests;
