//! Probes: a task each, and the verdicts that the rest of the kubelet reads.

mod check;
mod grpc_health;
pub mod http;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, Probe};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use self::check::{Outcome, Target, check};
use self::worker::{Step, Verdict, Worker};
use crate::cri::client::CriClient;
use crate::cri::plan::{Health, Probed};
use crate::event::{Event, ProbeKind};
use crate::events::{Events, Kind};
use crate::metrics::{Metrics, ProbeOf};
use crate::pods::pod::{PodExt, PodUid, is_sidecar};
use crate::status::StatusManager;
use crate::status::containers::runtime_id;
use crate::status::generate::Readiness;

type Key = (PodUid, String, ProbeKind);

#[derive(Clone)]
struct Handle {
    stop: CancellationToken,
    now: Arc<Notify>,
}

/// Every probe of this node.
pub struct Prober {
    shared: Arc<Shared>,
    workers: Mutex<HashMap<Key, Handle>>,
}

struct Shared {
    runtime: CriClient,
    events: Arc<Events>,
    status: Arc<StatusManager>,
    verdicts: Mutex<HashMap<(ProbeKind, String), Health>>,
    told: mpsc::UnboundedSender<Event>,
    metrics: Arc<Metrics>,
    started: Timestamp,
}

/// Errors of the check itself are tried this often before they are reported.
const RETRIES: usize = 3;
/// Containers started this much before the kubelet are taken to be inherited.
const RESTART_MARGIN: SignedDuration = SignedDuration::from_secs(10);

impl Prober {
    pub fn new(
        runtime: CriClient,
        events: Arc<Events>,
        status: Arc<StatusManager>,
        told: mpsc::UnboundedSender<Event>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Shared {
            runtime,
            events,
            status,
            verdicts: Mutex::default(),
            told,
            metrics,
            started: Timestamp::now(),
        };
        Self {
            shared: Arc::new(shared),
            workers: Mutex::default(),
        }
    }

    /// Starts the pod's probes that do not run yet.
    pub fn add_pod(&self, pod: &Arc<Pod>) {
        let uid: PodUid = pod.uid().into();
        let mut workers = self.workers.lock();
        for container in probed_containers(pod) {
            for (kind, probe) in probes(container) {
                workers
                    .entry((uid.clone(), container.name.clone(), kind))
                    .or_insert_with(|| {
                        let handle = Handle {
                            stop: CancellationToken::new(),
                            now: Arc::new(Notify::new()),
                        };
                        let task = Task {
                            shared: self.shared.clone(),
                            pod: pod.clone(),
                            uid: uid.clone(),
                            container: container.clone(),
                            kind,
                            probe: probe.clone(),
                            handle: handle.clone(),
                        };
                        tokio::spawn(task.run());
                        handle
                    });
            }
        }
    }

    /// Ends the probes that would restart a container of a pod on its way out. Readiness goes on.
    pub fn stop_liveness_and_startup(&self, uid: &str) {
        self.remove(|key| &*key.0 == uid && key.2 != ProbeKind::Readiness);
    }

    /// Ends all probes of a pod.
    pub fn remove_pod(&self, uid: &str) {
        self.remove(|key| &*key.0 == uid);
    }

    fn remove(&self, which: impl Fn(&Key) -> bool) {
        self.workers.lock().retain(|key, handle| {
            let gone = which(key);
            if gone {
                handle.stop.cancel();
            }
            !gone
        });
    }

    fn verdict(&self, kind: ProbeKind, id: &str) -> Option<Health> {
        self.shared
            .verdicts
            .lock()
            .get(&(kind, id.to_owned()))
            .copied()
    }

    /// The pod's readings as a status wants them. `pod` is as the API has it.
    pub fn of_pod<'a>(&'a self, pod: &'a Pod) -> PodProbes<'a> {
        PodProbes { prober: self, pod }
    }

    fn worker(&self, uid: &str, container: &str, kind: ProbeKind) -> Option<Handle> {
        self.workers
            .lock()
            .get(&(uid.into(), container.to_owned(), kind))
            .cloned()
    }
}

impl Probed for Prober {
    fn liveness(&self, container_id: &str) -> Option<Health> {
        self.verdict(ProbeKind::Liveness, container_id)
    }
    fn startup(&self, container_id: &str) -> Option<Health> {
        self.verdict(ProbeKind::Startup, container_id)
    }
}

/// One pod's probes.
pub struct PodProbes<'a> {
    prober: &'a Prober,
    pod: &'a Pod,
}

impl Readiness for PodProbes<'_> {
    fn started(&self, container: &Container, status: &ContainerStatus) -> bool {
        let id = runtime_id(status.container_id.as_deref().unwrap_or_default());
        match self.prober.verdict(ProbeKind::Startup, id) {
            Some(health) => health == Health::Success,
            // Not probed yet: as it was before the kubelet restarted.
            None => status.started == Some(true) || container.startup_probe.is_none(),
        }
    }

    fn ready(&self, container: &Container, status: &ContainerStatus) -> bool {
        let id = runtime_id(status.container_id.as_deref().unwrap_or_default());
        let verdict = self.prober.verdict(ProbeKind::Readiness, id);
        if container.readiness_probe.is_none() || verdict == Some(Health::Success) {
            return true;
        }
        if let Some(worker) =
            self.prober
                .worker(self.pod.uid(), &container.name, ProbeKind::Readiness)
        {
            worker.now.notify_one();
        }
        // An inherited container keeps its readiness until it has been checked.
        let started_at = status
            .state
            .as_ref()
            .and_then(|s| s.running.as_ref()?.started_at.as_ref())
            .map(|t| t.0);
        let inherited =
            started_at.is_some_and(|at| at < self.prober.shared.started - RESTART_MARGIN);
        verdict.is_none() && inherited && was_ready(self.pod, &container.name)
    }
}

fn was_ready(pod: &Pod, container: &str) -> bool {
    let Some(status) = &pod.status else {
        return false;
    };
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists
        .into_iter()
        .flatten()
        .flatten()
        .any(|status| status.name == container && status.ready)
}

fn probed_containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.containers()
        .iter()
        .chain(pod.init_containers().iter().filter(|c| is_sidecar(c)))
}

fn probes(container: &Container) -> impl Iterator<Item = (ProbeKind, &Probe)> {
    let startup = container
        .startup_probe
        .as_ref()
        .map(|probe| (ProbeKind::Startup, probe));
    let readiness = container
        .readiness_probe
        .as_ref()
        .map(|probe| (ProbeKind::Readiness, probe));
    let liveness = container
        .liveness_probe
        .as_ref()
        .map(|probe| (ProbeKind::Liveness, probe));
    [startup, readiness, liveness].into_iter().flatten()
}

struct Task {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    uid: PodUid,
    container: Container,
    kind: ProbeKind,
    probe: Probe,
    handle: Handle,
}

impl Task {
    async fn run(self) {
        let period = Duration::from_secs(
            u64::try_from(self.probe.period_seconds.unwrap_or(10))
                .unwrap_or(10)
                .max(1),
        );
        let restarted_at = self.shared.started - RESTART_MARGIN;
        let mut worker = Worker::new(
            self.kind,
            self.container.clone(),
            self.probe.clone(),
            restarted_at,
        );
        // After a restart of the kubelet not all probes of a node should go off at once.
        let uptime = Timestamp::now().duration_since(self.shared.started);
        if Duration::try_from(uptime).is_ok_and(|uptime| uptime < period)
            && inherited(&self.pod, restarted_at)
        {
            let pause = period.mul_f64(rand::random());
            let _ = tokio::time::timeout(pause, self.handle.stop.cancelled()).await;
        }
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.handle.stop.cancelled() => break,
                _ = ticks.tick() => {}
                () = self.handle.now.notified() => ticks.reset(),
            }
            let mut verdicts = Vec::new();
            let status = self.shared.status.get(&self.uid);
            let step = worker.tick(
                &self.pod,
                status.as_deref(),
                Timestamp::now(),
                &mut verdicts,
            );
            if step == Step::Check {
                let pod_ip = status
                    .and_then(|status| status.pod_ip.clone())
                    .unwrap_or_default();
                let begun = Instant::now();
                let outcome = tokio::select! {
                    () = self.handle.stop.cancelled() => break,
                    outcome = self.check(worker.container_id(), &pod_ip) => outcome,
                };
                let success = match outcome {
                    Outcome::Success | Outcome::Warning(_) => Some(true),
                    Outcome::Failure(_) => Some(false),
                    Outcome::Error(_) => None,
                };
                let metrics = &self.shared.metrics;
                metrics.probed(self.labels(), success, begun.elapsed());
                self.report(&outcome);
                worker.record(&outcome, &mut verdicts);
            }
            self.publish(verdicts);
            if step == Step::Stop {
                break;
            }
        }
        self.publish(vec![(worker.container_id().to_owned(), None)]);
        self.shared.metrics.probe_over(self.labels());
    }

    fn name(&self) -> &'static str {
        match self.kind {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    fn labels(&self) -> ProbeOf<'_> {
        ProbeOf {
            probe_type: self.name(),
            container: &self.container.name,
            pod: self.pod.name(),
            namespace: self.pod.namespace(),
            pod_uid: &self.uid,
        }
    }

    async fn check(&self, container_id: &str, pod_ip: &str) -> Outcome {
        let target = Target {
            container: &self.container,
            container_id,
            pod_ip,
        };
        let mut outcome = Outcome::Success;
        for _ in 0..RETRIES {
            outcome = check(&self.shared.runtime, &self.probe, target).await;
            if !matches!(outcome, Outcome::Error(_)) {
                break;
            }
        }
        outcome
    }

    fn report(&self, outcome: &Outcome) {
        let name = self.name();
        let (reason, message) = match outcome {
            Outcome::Success => return,
            Outcome::Warning(text) => ("ProbeWarning", format!("{name} probe warning: {text}")),
            Outcome::Failure(text) => ("Unhealthy", format!("{name} probe failed: {text}")),
            Outcome::Error(text) => (
                "Unhealthy",
                format!("{name} probe errored and resulted in unknown state: {text}"),
            ),
        };
        self.shared.events.container(
            &self.pod,
            &self.container.name,
            Kind::Warning,
            reason,
            &message,
        );
    }

    fn publish(&self, verdicts: Vec<Verdict>) {
        for (container_id, health) in verdicts.into_iter().filter(|(id, _)| !id.is_empty()) {
            let key = (self.kind, container_id.clone());
            let mut all = self.shared.verdicts.lock();
            let changed = match health {
                Some(health) => all.insert(key, health) != Some(health),
                None => {
                    all.remove(&key);
                    false
                }
            };
            drop(all);
            if let Some(health) = health.filter(|_| changed) {
                // The loop is gone only when the process is about to be.
                let _ = self.shared.told.send(Event::Probe {
                    uid: self.uid.clone(),
                    kind: self.kind,
                    container_id,
                    health,
                });
            }
        }
    }
}

fn inherited(pod: &Pod, before: Timestamp) -> bool {
    let start = pod
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref())
        .map(|time| time.0);
    start.is_some_and(|start| start < before)
}
