//! *Apply*: keeps the state, and containers on their CPUs.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use component::features::FeatureGates;
use grpc::cri;
use k8s_openapi::api::core::v1::{Container, Pod};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::CpuSet;
use super::assign::{Level, Topology};
use super::options::StaticOptions;
use super::policy::{Static, exclusive};
use super::state::{File, State};
use crate::cri::client::{CriClient, CriError, Of};
use crate::cri::labels;
use crate::metrics::Metrics;
use crate::pods::active::ActivePods;
use crate::pods::pod::PodExt;
use crate::sys::numa::Layout;
use crate::topology::{AllocateError, Hint, Hints};

/// Everything that the manager takes.
pub struct Setup<'a> {
    pub policy: &'a str,
    pub options: &'a BTreeMap<String, String>,
    pub gates: &'a FeatureGates,
    pub layout: &'a Layout,
    /// What is reserved, in thousandths of a CPU.
    pub reserved: i64,
    /// `reservedSystemCPUs`.
    pub named: CpuSet,
    pub single_numa_node: bool,
    /// Where the state is kept.
    pub root: PathBuf,
    pub active: ActivePods,
    pub metrics: Arc<Metrics>,
}

struct Inner {
    state: State,
    /// `None` with the policy `none`: all share all.
    policy: Option<Static>,
    /// The CPUs that each container was put on last, with its id, by pod and name.
    told: HashMap<(String, String), (String, CpuSet)>,
    /// Some container may not be on its CPUs.
    stale: bool,
}

/// The node's CPUs.
pub struct Cpus {
    inner: Mutex<Inner>,
    file: File,
    active: ActivePods,
    metrics: Arc<Metrics>,
}

fn static_policy(setup: &Setup<'_>) -> Result<Static, String> {
    if setup.reserved == 0 {
        return Err(
            "[cpumanager] unable to determine reserved CPU resources for static policy: systemReserved, kubeReserved or \
             reservedSystemCPUs must leave it some"
                .into(),
        );
    }
    let options = StaticOptions::parse(setup.options, setup.gates)?;
    let topology = Topology::new(setup.layout);
    if options.by_socket && setup.single_numa_node {
        return Err(
            "Topology manager single-numa-node policy is incompatible with CPUManager align-by-socket policy option"
                .into(),
        );
    }
    if options.by_socket && topology.count(Level::Socket) > topology.count(Level::Numa) {
        return Err(
            "Align by socket is not compatible with hardware where number of sockets are more than number of NUMA"
                .into(),
        );
    }
    let count = usize::try_from((setup.reserved + 999) / 1000).unwrap_or_default();
    let policy = Static::new(topology, options, count, &setup.named);
    let policy = policy.map_err(|why| format!("new static policy error: {why}"))?;
    info!(reserved = %policy.reserved, ?options, "CPUs can be given to containers alone");
    Ok(policy)
}

impl Cpus {
    /// # Errors
    /// When the policy does not fit the machine, or what the kubelet before has written down.
    pub fn open(setup: Setup<'_>) -> Result<Arc<Self>, String> {
        let policy = match setup.policy {
            "static" => Some(static_policy(&setup)?),
            "none" if !setup.options.is_empty() => {
                let given = setup.options;
                return Err(format!(
                    "None policy: received unsupported options={given:?}"
                ));
            }
            "none" => None,
            other => return Err(format!("unknown policy: \"{other}\"")),
        };
        let name = if policy.is_some() { "static" } else { "none" };
        let (file, state) = File::open(&setup.root, name, |state| match &policy {
            Some(policy) => policy.start(state).map_err(|why| {
                format!("invalid state, please drain node and remove policy state file: {why}")
            }),
            None => Ok(()),
        })?;
        let cpus = Self {
            inner: Mutex::new(Inner {
                state,
                policy,
                told: HashMap::new(),
                stale: true,
            }),
            file,
            active: setup.active,
            metrics: setup.metrics,
        };
        cpus.count(&cpus.inner.lock());
        Ok(Arc::new(cpus))
    }

    pub fn is_static(&self) -> bool {
        self.inner.lock().policy.is_some()
    }

    /// Shows who has how many.
    fn count(&self, inner: &Inner) {
        let Some(policy) = &inner.policy else { return };
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let (metrics, taken) = (&self.metrics.resources, inner.state.all_exclusive());
        let shared = policy.available(&inner.state).len() * 1000;
        metrics.cpus_shared.set(number(shared));
        metrics.cpus_exclusive.set(number(taken.len()));
        for node in policy.topology.ids(Level::Numa) {
            let here = policy.topology.within(Level::Numa, node);
            let here = here.intersection(&taken).len();
            let gauge = metrics
                .cpus_per_numa
                .with_label_values(&[&node.to_string()]);
            gauge.set(number(here));
        }
    }

    fn changed(&self, inner: &mut Inner) {
        inner.stale = true;
        self.count(inner);
        if let Err(error) = self.file.write(&inner.state) {
            // It holds as long as this kubelet runs.
            warn!(%error, "cannot write down who has which CPUs");
        }
    }

    /// Takes CPUs back from pods that are no more.
    pub fn give_back(&self) {
        let mut inner = self.inner.lock();
        let Some(active) = self.active.uids().filter(|_| inner.policy.is_some()) else {
            return;
        };
        inner.told.retain(|(uid, _), _| active.contains(uid));
        let pods = inner.state.exclusive.iter();
        let gone = pods.filter(|(uid, _)| !active.contains(*uid));
        let gone = gone.flat_map(|(uid, own)| own.keys().map(|name| (uid.clone(), name.clone())));
        let gone: Vec<(String, String)> = gone.collect();
        let Inner { state, policy, .. } = &mut *inner;
        if let Some(policy) = policy.as_ref().filter(|_| !gone.is_empty()) {
            for (uid, name) in gone {
                policy.release(state, &uid, &name);
            }
            self.changed(&mut inner);
        }
    }

    /// Where the pod's CPUs could be had, or one container's.
    pub fn hints(&self, pod: &Pod, container: Option<&Container>) -> Hints {
        self.give_back();
        let inner = self.inner.lock();
        match (&inner.policy, container) {
            (None, _) => Hints::new(),
            (Some(policy), Some(container)) => policy.hints(&inner.state, pod, container),
            (Some(policy), None) => policy.pod_hints(&inner.state, pod),
        }
    }

    /// Gives a container its CPUs; what it has it keeps. Init containers come first, in order.
    ///
    /// # Errors
    /// When it cannot have them.
    pub fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        hint: Hint,
    ) -> Result<(), AllocateError> {
        self.give_back();
        let mut inner = self.inner.lock();
        let Inner { state, policy, .. } = &mut *inner;
        let Some(policy) = policy.as_mut().filter(|_| exclusive(pod, container) > 0) else {
            return Ok(());
        };
        let metrics = &self.metrics.resources;
        metrics.cpu_pinnings.inc();
        let whole_cores = policy.options.full_cores;
        match policy.allocate(state, pod, container, hint.affinity) {
            Ok(given) => {
                let aligned =
                    |of: &str| metrics.aligned.with_label_values(&["container", of]).inc();
                if whole_cores {
                    aligned("physical_cpu");
                }
                if let Some(given) = given {
                    if policy.topology.shares_uncore(&given) {
                        aligned("uncore_cache");
                    }
                    self.changed(&mut inner);
                }
                Ok(())
            }
            Err(error) => {
                metrics.cpu_pinning_errors.inc();
                if whole_cores {
                    let failures = &metrics.aligned_failures;
                    let of = &["container", "physical_cpu"];
                    failures.with_label_values(of).inc();
                }
                Err(error)
            }
        }
    }

    /// The CPUs that are this container's alone.
    pub fn exclusive(&self, uid: &str, container: &str) -> Option<CpuSet> {
        self.inner.lock().state.get(uid, container).cloned()
    }

    /// Whether any container of the pod has CPUs alone: its use of them is not limited.
    pub fn has_exclusive(&self, pod: &Pod) -> bool {
        let inner = self.inner.lock();
        let mut containers = pod.init_containers().iter().chain(pod.containers());
        containers.any(|c| {
            inner
                .state
                .get(pod.uid(), &c.name)
                .is_some_and(|cpus| !cpus.is_empty())
        })
    }

    /// The CPUs that a container is to be on; empty: any.
    pub fn of(&self, uid: &str, container: &str) -> CpuSet {
        let inner = self.inner.lock();
        let own = inner.state.get(uid, container);
        own.unwrap_or(&inner.state.shared).clone()
    }

    /// A container was made with these CPUs.
    pub fn started(&self, uid: &str, container: &str, id: &str, with: CpuSet) {
        let now = self.of(uid, container);
        let mut inner = self.inner.lock();
        if inner.policy.is_some() {
            inner.stale |= now != with;
            let of = (uid.to_owned(), container.to_owned());
            inner.told.insert(of, (id.to_owned(), with));
        }
    }

    /// Those that can be somebody's alone, whether they are or not.
    pub fn allocatable(&self) -> CpuSet {
        let inner = self.inner.lock();
        let policy = inner.policy.as_ref();
        policy.map(Static::allocatable).unwrap_or_default()
    }

    /// Puts containers on their CPUs, now and then, until `stop`: those that share have fewer or
    /// more as others come and go.
    pub async fn run(self: Arc<Self>, client: CriClient, every: Duration, stop: CancellationToken) {
        loop {
            self.give_back();
            let stale = std::mem::take(&mut self.inner.lock().stale);
            if stale && let Err(error) = self.reconcile(&client).await {
                warn!(%error, "cannot put containers on their CPUs yet");
                self.inner.lock().stale = true;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    async fn reconcile(&self, client: &CriClient) -> Result<(), CriError> {
        let of = Of {
            pod_uid: None,
            running: true,
        };
        let running = client.list_containers(of).await?;
        let mut failed = Ok(());
        for container in &running {
            let label = |key: &str| container.labels.get(key).map_or("", String::as_str);
            let (uid, name) = (label(labels::POD_UID), label(labels::CONTAINER_NAME));
            let pod = self.active.index.get(uid);
            let Some(pod) = pod.filter(|pod| self.active.is_active(pod)) else {
                continue;
            };
            let mut containers = pod.init_containers().iter().chain(pod.containers());
            let cpus = self.of(uid, name);
            let (of, told) = (
                (uid.to_owned(), name.to_owned()),
                (container.id.clone(), cpus.clone()),
            );
            let known = self.inner.lock().told.get(&of) == Some(&told);
            if known || cpus.is_empty() || containers.all(|c| c.name != name) {
                continue;
            }
            let linux = cri::LinuxContainerResources {
                cpuset_cpus: cpus.to_string(),
                ..Default::default()
            };
            match client
                .update_container_resources(&container.id, linux)
                .await
            {
                Ok(()) => {
                    self.inner.lock().told.insert(of, told);
                }
                Err(error) => failed = Err(error),
            }
        }
        failed
    }
}
