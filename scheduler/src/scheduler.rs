//! The loop: informers fill the cache and the queue, one task decides pod after pod, and
//! what comes of it goes out beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::informer::Informer;
use component::aside::aside;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bind::{Binder, GroupCondition, Patch};
use crate::cache::Cache;
use crate::courier::Courier;
use crate::cycle::Decision;
use crate::evaluation::Evaluations;
use crate::extender::Extender;
use crate::framework::ClusterEvent;
use crate::group_cycle::write_conditions;
use crate::metrics::Metrics;
use crate::model::{Pod, PodInfo, Templates};
use crate::prebind::InPreBind;
use crate::profile::Profile;
use crate::queue::{Backoff, Queue, Taken};
use crate::reserve::Promised;
use crate::resource_metrics;

/// How often pods that were left over are looked for.
const FLUSH: Duration = Duration::from_secs(30);
/// Decisions are made one after the other for so long before what they lead to, and what has
/// happened meanwhile, has its turn.
const TURN: Duration = Duration::from_micros(500);

/// So many failed attempts may be told of before the next pod is looked at: bindings share a
/// rate limit with them, and whoever waits would be tried again and again in vain meanwhile.
const TELLERS: usize = 16;

/// What configuration, flags and feature gates say of scheduling as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether pods are members of groups (the feature GenericWorkload).
    pub groups: bool,
    /// Whether a pod's status says where it is about to go (NominatedNodeNameForExpectation).
    pub expectations: bool,
    pub backoff: Backoff,
    /// A pod that no event has moved for so long is tried again all the same.
    pub left_over: Duration,
}

pub struct Scheduler {
    pub(crate) settings: Settings,
    pub(crate) profiles: HashMap<String, Profile>,
    /// What is known of pods that have not ended.
    pub(crate) pods: Informer<Pod>,
    state: Mutex<State>,
    /// Whether it is this one that schedules.
    leading: AtomicBool,
    /// The queue may have something to take.
    pub(crate) wake: Notify,
    /// Something has changed that bindings wait for: claims, of volumes or of devices, or nodes.
    pub(crate) awaited_changed: Notify,
    pub(crate) binder: Binder,
    pub(crate) courier: Courier,
    /// Failed attempts that may be told of at once.
    pub(crate) tellers: Arc<Semaphore>,
    /// Conditions of groups, to be written in this order. Unbounded: one for each decision
    /// that says something new of a group.
    pub(crate) group_conditions: mpsc::UnboundedSender<GroupCondition>,
    pub(crate) extenders: Vec<Extender>,
    pub(crate) metrics: Metrics,
}

pub(crate) struct State {
    pub cache: Cache,
    pub queue: Queue,
    pub evaluations: Evaluations,
    pub templates: Templates,
    /// Where the search for nodes begins next.
    pub start: usize,
    pub in_pre_bind: InPreBind,
}

impl Scheduler {
    /// `profiles` must not be empty. Within a runtime.
    pub fn new(
        profiles: Vec<Profile>,
        pods: Informer<Pod>,
        settings: Settings,
        binder: Binder,
        extenders: Vec<Extender>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let by_name = profiles
            .into_iter()
            .map(|p| (p.scheduler_name.clone(), p))
            .collect();
        let (group_conditions, decided) = mpsc::unbounded_channel();
        let state = State {
            cache: Cache::default(),
            queue: Queue::new(settings.backoff),
            evaluations: Evaluations::default(),
            templates: Templates::new(settings.groups),
            start: 0,
            in_pre_bind: InPreBind::default(),
        };
        let scheduler = Arc::new(Self {
            settings,
            profiles: by_name,
            pods,
            state: Mutex::new(state),
            leading: AtomicBool::new(false),
            wake: Notify::new(),
            awaited_changed: Notify::new(),
            binder,
            courier: Courier::start(),
            tellers: Arc::new(Semaphore::new(TELLERS)),
            group_conditions,
            extenders,
            metrics,
        });
        tokio::spawn(write_conditions(Arc::downgrade(&scheduler), decided));
        scheduler
    }

    /// What is known and waits. Some decisions take seconds: while another thread holds it for
    /// one of them, the other tasks of this one go on, such as the renewal of the lease.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        let free = self.state.try_lock();
        free.unwrap_or_else(|| aside(true, || self.state.lock()))
    }

    pub(crate) fn profile(&self, pod: &PodInfo) -> Option<&Profile> {
        self.profiles.get(&*pod.scheduler_name)
    }

    /// Lets pods go that the event may have helped.
    pub(crate) fn happened(&self, state: &mut State, event: &ClusterEvent<'_>) {
        let began = Instant::now();
        let State { cache, queue, .. } = state;
        queue.happened(event.label(), Instant::now(), |pod, rejectors| {
            let profile = self.profile(pod);
            profile.is_some_and(|p| p.helps(pod, rejectors, event, cache))
        });
        let seconds = began.elapsed().as_secs_f64();
        let duration = &self.metrics.event_handling;
        duration
            .with_label_values(&[event.label()])
            .observe(seconds);
    }

    /// Schedules until `stop`. What was taken but not bound by then is in nobody's way:
    /// the next leader finds it unassigned.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        self.leading.store(true, Ordering::Relaxed);
        let mut flush = Instant::now() + FLUSH;
        let mut turn = Instant::now();
        loop {
            let (worked, deadline) = if self.tellers.available_permits() == 0 {
                // Whoever gets it gives it back at once: it is another's turn to tell.
                tokio::select! {
                    () = stop.cancelled() => return,
                    free = self.tellers.acquire() => drop(free),
                }
                (true, None)
            } else if self.extenders.is_empty() {
                self.schedule_one()
            } else {
                self.schedule_extended().await
            };
            if worked {
                if stop.is_cancelled() {
                    return;
                }
                if turn.elapsed() >= TURN {
                    tokio::task::yield_now().await;
                    turn = Instant::now();
                    if turn >= flush {
                        self.flush_left_over(&mut flush);
                    }
                }
                continue;
            }
            let pause = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = pause => {}
                () = tokio::time::sleep_until(flush) => self.flush_left_over(&mut flush),
            }
            turn = Instant::now();
        }
    }

    fn flush_left_over(&self, next: &mut Instant) {
        let (now, waited) = (Instant::now(), self.settings.left_over);
        self.lock().queue.flush_left_over(now, waited);
        *next = now + FLUSH;
    }

    /// `/metrics/resources`; empty while another one schedules.
    pub fn resources(&self) -> String {
        match self.leading.load(Ordering::Relaxed) {
            true => resource_metrics::render(&self.pods.store().list()),
            false => String::new(),
        }
    }

    /// Brings the gauges up to date.
    pub fn report(&self) {
        let mut state = self.lock();
        self.metrics.pending(state.queue.counts());
        for ((queue, event), pods) in state.queue.take_incoming() {
            self.metrics
                .incoming
                .with_label_values(&[queue, event])
                .inc_by(pods);
        }
        let (nodes, pods, assumed) = state.cache.sizes();
        self.metrics.cache_size(nodes, pods, assumed);
        self.metrics.unschedulable.reset();
        for (pod, rejectors, count) in state.queue.rejected() {
            let Some(profile) = self.profile(pod) else {
                continue;
            };
            for plugin in profile.names(rejectors) {
                let labels = [plugin, &*profile.scheduler_name];
                let gauge = self.metrics.unschedulable.with_label_values(&labels);
                gauge.add(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }

    /// One scheduling cycle; its effects go on in tasks of their own. Nothing happens to
    /// the cache or the queue while it decides, so that no event is missed between.
    /// Returns whether there was a pod, or when the next pod's pause ends.
    fn schedule_one(self: &Arc<Self>) -> (bool, Option<Instant>) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(taken) = state.queue.take(Instant::now()) else {
            return (false, state.queue.next_deadline());
        };
        if taken.pod.group.is_some() {
            self.schedule_group(state, taken);
            return (true, None);
        }
        let began = Instant::now();
        let pod = Arc::clone(&taken.pod);
        let Some(profile) = self.profile(&pod) else {
            state.queue.remove(&pod.key);
            return (true, None);
        };
        let mut draw = draw;
        let decide = || {
            profile.schedule(
                &pod,
                &state.cache,
                &mut state.evaluations,
                &mut state.start,
                &mut draw,
            )
        };
        // Finding volumes or devices may take seconds.
        let decision = aside(pod.is_own(), decide);
        let took = began.elapsed();
        self.metrics.algorithm(took);
        let failed = matches!(&decision, Decision::Unschedulable(verdict) if verdict.failed);
        let name = &profile.scheduler_name;
        self.metrics.ran("Filter", !failed, name, took);
        self.conclude(state, profile, taken, decision, began);
        (true, None)
    }

    /// Notes a decision, and lets its effects go.
    pub(crate) fn conclude(
        self: &Arc<Self>,
        state: &mut State,
        profile: &Profile,
        taken: Taken,
        decision: Decision,
        began: Instant,
    ) {
        let pod = Arc::clone(&taken.pod);
        match decision {
            Decision::Node(node) => match Promised::make(&mut state.cache, profile, &pod, &node) {
                Ok(promised) => {
                    state.cache.assume(pod, &node);
                    self.send(state, taken, node, promised, began);
                }
                Err(why) => self.no_verdict(state, &taken, why, began),
            },
            Decision::Unschedulable(verdict) if verdict.failed => {
                self.no_verdict(state, &taken, verdict.message(), began);
            }
            Decision::Unschedulable(verdict) => {
                if profile.preemption.is_some() {
                    self.metrics.preemptions.inc();
                }
                let effects = self.note_unschedulable(state, &pod, verdict, began);
                let evictions = effects.evictions(&pod);
                let (queue, now) = (&mut state.queue, Instant::now());
                queue.unschedulable(&pod.key, effects.rejectors, now);
                self.tell(vec![(pod, effects)], evictions);
            }
        }
    }

    /// An attempt has failed for no plugin's verdict: the pod is tried again after a pause.
    pub(crate) fn no_verdict(
        self: &Arc<Self>,
        state: &mut State,
        taken: &Taken,
        why: String,
        began: Instant,
    ) {
        let pod = Arc::clone(&taken.pod);
        tracing::warn!("pod {} is not scheduled: {why}", pod.key);
        state.queue.failed(taken, Instant::now());
        let seconds = began.elapsed().as_secs_f64();
        self.metrics
            .attempted(&pod.scheduler_name, "error", seconds);
        let (this, turn) = (Arc::clone(self), self.turn_to_tell());
        self.courier.carry(async move {
            let patch = Patch {
                reason: "SchedulerError",
                message: &why,
                nominated: None,
            };
            this.binder.failed(&pod, &patch).await;
            drop(turn);
            this.told([&pod], false, true);
        });
    }
}

/// One of so many, any.
pub(crate) fn draw(n: usize) -> usize {
    rand::random_range(0..n.max(1))
}
