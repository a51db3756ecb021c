//! *Apply*: has the node measured, does what [`super::plan`] says, and waits until the pods that it
//! ends have ended.
//!
//! Every round costs a few small files. What pods use is measured only where something is due, or
//! where a pod has a limit on the node's disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::disks::Spare;
use super::limits::{self, Watched};
use super::measure::{Meter, Sources};
use super::plan::{Observations, Plan, State};
use super::ranking::{Candidate, rank};
use super::thresholds::{Policy, Threshold, with_container_fs};
use super::{REASON, message};
use crate::event::Event;
use crate::events::Kind;
use crate::images::ImageGc;
use crate::pods::dirs::Root;
use crate::pods::ending::Ending;
use crate::pods::pod::PodExt;
use crate::pods::sync::Syncer;
use crate::status::Eviction;

/// Upstream's monitoring period.
const EVERY: Duration = Duration::from_secs(10);
/// Seconds that a pod gets where there is no time.
const IMMEDIATE: i64 = 1;
/// How long a pod that has been stopped may take to be cleared away before another one is chosen.
const CLEAN_UP: Duration = Duration::from_secs(30);

/// The runtime says that a container is removed before its layer is: it would be a pity to evict a
/// pod for want of a moment.
const SETTLE: Duration = Duration::from_secs(3);

/// Evicts pods.
pub struct Manager {
    pub syncer: Arc<Syncer>,
    pub policy: Policy,
    pub images: Arc<ImageGc>,
    pub root: Root,
    pub told: mpsc::UnboundedSender<Event>,
    /// Woken when a pressure comes or goes.
    pub node_changed: Arc<Notify>,
}

/// What is remembered from round to round.
struct Memory {
    meter: Meter,
    state: State,
}

/// Why a pod is to go.
struct Cause {
    signal: &'static str,
    message: String,
    annotations: BTreeMap<String, String>,
    /// Whether its status says that it was no fault of the pod's.
    disrupted: bool,
    grace: i64,
}

impl Manager {
    /// Runs until `stop`; not at all where there is nothing to watch.
    pub async fn run(self, stop: CancellationToken) {
        if self.policy.thresholds.is_empty() && !self.policy.local_limits {
            return;
        }
        stop.run_until_cancelled(async {
            let runtime = &self.syncer.runtime;
            let sources = Sources {
                runtime: runtime.client.clone(),
                cgroups: runtime.cgroups.clone(),
                root: self.root.clone(),
                logs_root: runtime.settings.logs_root.clone(),
            };
            let meter = Meter::find(sources, EVERY).await;
            let thresholds = with_container_fs(&self.policy.thresholds, meter.disks());
            let state = State::new(thresholds, self.policy.transition_period);
            let mut memory = Memory { meter, state };
            loop {
                let victims = self.round(&mut memory).await;
                if victims.is_empty() {
                    tokio::time::sleep(EVERY).await;
                } else {
                    join_all(victims.into_iter().map(|victim| self.wait(victim))).await;
                }
            }
        })
        .await;
    }

    /// One look, and what follows from it: the pods that are to end.
    async fn round(&self, memory: &mut Memory) -> Vec<Ending> {
        memory.meter.retain(|uid| self.syncer.index.may_run(uid));
        let observed = memory.meter.node().await;
        let plan = memory.state.plan(&observed, Instant::now());
        self.show(&plan);
        let victims = self.enforce_limits(memory).await;
        let Some(threshold) = plan.due.first().filter(|_| victims.is_empty()) else {
            return victims;
        };
        let resource = threshold.signal.resource().name();
        let message = format!("Attempting to reclaim {resource}");
        let events = &self.syncer.runtime.events;
        events.node(Kind::Warning, "EvictionThresholdMet", &message);
        let spare = memory.meter.disks().spare(threshold.signal);
        if self.give_up(spare, memory).await {
            info!(resource, "there is enough again without a pod having to go");
            return Vec::new();
        }
        let victim = self.choose(memory, threshold, &plan, &observed).await;
        victim.into_iter().collect()
    }

    /// Tells the rest of the kubelet what the node is short of.
    fn show(&self, plan: &Plan) {
        let facts = &self.syncer.facts;
        let before = facts.get().pressure;
        if before != plan.pressure {
            let (before, now) = (before.conditions(), plan.pressure.conditions());
            info!(?before, ?now, "what the node is short of has changed");
            facts.update(|facts| facts.pressure = plan.pressure);
            self.node_changed.notify_one();
        }
    }

    /// Gives up what no pod needs. Whether that is enough.
    async fn give_up(&self, spare: Spare, memory: &Memory) -> bool {
        if !spare.containers && !spare.images {
            return false;
        }
        let mut patience = Duration::ZERO;
        if spare.containers {
            let (done, removed) = oneshot::channel();
            // The loop is gone only when the process is about to be.
            let _ = self.told.send(Event::CollectDead(done));
            if removed.await.is_ok_and(|removed| removed > 0) {
                patience = SETTLE;
            }
        }
        if spare.images
            && let Err(error) = self.images.delete_unused().await
        {
            warn!(%error, "cannot remove all images that nobody uses");
        }
        let begun = Instant::now();
        loop {
            if memory.state.is_relieved(&memory.meter.node().await) {
                return true;
            }
            if begun.elapsed() >= patience {
                return false;
            }
            tokio::time::sleep(SETTLE / 10).await;
        }
    }

    /// The pods that may have containers running.
    fn active(&self) -> Vec<Arc<Pod>> {
        let index = &self.syncer.index;
        let mut pods = index.all();
        pods.retain(|pod| index.may_run(pod.uid()));
        pods
    }

    /// Ends the pods that use more of the disk than they may.
    async fn enforce_limits(&self, memory: &mut Memory) -> Vec<Ending> {
        if !self.policy.local_limits {
            return Vec::new();
        }
        let mut pods = self.active();
        let mut all = Watched::default();
        pods.retain(|pod| {
            let own = limits::watched(pod);
            all.volumes |= own.volumes;
            all.containers |= own.containers;
            own.volumes
        });
        if pods.is_empty() {
            return Vec::new();
        }
        let disks = memory.meter.disks();
        let age = self.policy.volume_age;
        let candidates = match memory.meter.pods(pods, all.containers, age).await {
            Ok(candidates) => candidates,
            Err(error) => {
                warn!(%error, "cannot measure what pods use of the disk");
                return Vec::new();
            }
        };
        let mut victims = Vec::new();
        for Candidate { pod, usage } in candidates {
            let exceeded = usage.and_then(|usage| limits::exceeded(&pod, &usage, disks));
            if let Some(exceeded) = exceeded {
                let cause = Cause {
                    signal: exceeded.signal,
                    message: exceeded.message,
                    annotations: BTreeMap::new(),
                    disrupted: false,
                    grace: IMMEDIATE,
                };
                victims.extend(self.evict(&pod, cause));
            }
        }
        victims
    }

    /// The pod that goes for a threshold's sake.
    async fn choose(
        &self,
        memory: &mut Memory,
        threshold: &Threshold,
        plan: &Plan,
        observed: &Observations,
    ) -> Option<Ending> {
        let allocations = &self.syncer.allocations;
        let pods: Vec<_> = self
            .active()
            .iter()
            .map(|pod| allocations.granted(pod))
            .collect();
        if pods.is_empty() {
            warn!("the node is short of something, and no pod runs that could be evicted");
            return None;
        }
        let disks = memory.meter.disks();
        let age = Some(Duration::ZERO);
        let mut candidates = match memory.meter.pods(pods, true, age).await {
            Ok(candidates) => candidates,
            Err(error) => {
                warn!(%error, "cannot measure what pods use, and so choose none to evict");
                return None;
            }
        };
        rank(&mut candidates, threshold.signal, disks);
        for threshold in &plan.due {
            if let Some(observed) = observed.get(&threshold.signal) {
                let age = &self.syncer.runtime.metrics.eviction_stats_age;
                age.with_label_values(&[threshold.signal.name()])
                    .observe(observed.at.elapsed().as_secs_f64());
            }
        }
        let chosen = candidates.iter().find(|c| !c.pod.is_critical());
        let Some(chosen) = chosen else {
            warn!("the node is short of something, and only critical pods run");
            return None;
        };
        let own = chosen.pod.pod_spec().termination_grace_period_seconds;
        let most = self.policy.max_pod_grace;
        let grace = match threshold.is_hard() {
            true => IMMEDIATE,
            false => own.map_or(most, |own| own.min(most)).max(IMMEDIATE),
        };
        let (message, annotations) = message::eviction(chosen, threshold, observed);
        let cause = Cause {
            signal: threshold.signal.name(),
            message,
            annotations,
            disrupted: true,
            grace,
        };
        self.evict(&chosen.pod, cause)
    }

    /// Has a pod ended. `None` for one that must not be, and one that is already.
    fn evict(&self, pod: &Arc<Pod>, cause: Cause) -> Option<Ending> {
        if pod.is_critical() {
            warn!(pod = %pod.full_name(), cause.message, "cannot evict a critical pod");
            return None;
        }
        if self.syncer.evictions.lock().contains_key(pod.uid()) {
            info!(pod = %pod.full_name(), "waiting for an evicted pod to end");
            return None;
        }
        let Cause { message, grace, .. } = cause;
        info!(pod = %pod.full_name(), signal = cause.signal, grace, "evicting a pod");
        let runtime = &self.syncer.runtime;
        let annotations = cause.annotations;
        runtime
            .events
            .annotated(pod, Kind::Warning, REASON, &message, annotations);
        let evictions = runtime.metrics.evictions.with_label_values(&[cause.signal]);
        evictions.inc();
        let eviction = Eviction::evicted(message, cause.disrupted);
        Some(Ending::begin(&self.told, pod.clone(), eviction, grace))
    }

    /// Waits until a pod has ended and what it had is free, but not for ever.
    async fn wait(&self, mut victim: Ending) {
        victim.stopped(&self.syncer.runtime.events).await;
        let cleared = tokio::time::timeout(CLEAN_UP, victim.cleared());
        if cleared.await.is_err() {
            warn!(pod = %victim.pod.full_name(), "an evicted pod is not cleared away yet");
        }
    }
}
