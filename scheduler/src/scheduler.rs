//! The loop: informers fill the cache and the queue, one task decides pod after pod, and
//! bindings go out beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event, Informer};
use client::{Object as _, ObjectKey};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bind::Binder;
use crate::cache::Cache;
use crate::cycle::{Decision, Profile};
use crate::framework::{ClusterEvent, Enabled};
use crate::metrics::Metrics;
use crate::model::{Node, Pod, PodInfo};
use crate::queue::{Backoff, Queue, Taken};

/// How often pods that were left over are looked for.
const FLUSH: Duration = Duration::from_secs(30);

pub struct Scheduler {
    profiles: HashMap<String, Profile>,
    state: Mutex<State>,
    /// The queue may have something to take.
    wake: Notify,
    binder: Binder,
    metrics: Metrics,
}

struct State {
    cache: Cache,
    queue: Queue,
    /// Where the search for nodes begins next.
    start: usize,
}

impl Scheduler {
    /// `profiles` must not be empty.
    pub fn new(
        profiles: Vec<Profile>,
        backoff: Backoff,
        binder: Binder,
        metrics: Metrics,
    ) -> Arc<Self> {
        let by_name = profiles
            .into_iter()
            .map(|p| (p.scheduler_name.clone(), p))
            .collect();
        Arc::new(Self {
            profiles: by_name,
            state: Mutex::new(State {
                cache: Cache::default(),
                queue: Queue::new(backoff),
                start: 0,
            }),
            wake: Notify::new(),
            binder,
            metrics,
        })
    }

    /// The plugins that speak for a pod.
    fn plugins(&self, pod: &PodInfo) -> &[Enabled] {
        self.profiles
            .get(&*pod.scheduler_name)
            .map_or(&[], |profile| &profile.plugins)
    }

    /// The plugins that are told of events. Profiles of this build have the same ones.
    fn any_plugins(&self) -> &[Enabled] {
        self.profiles
            .values()
            .next()
            .map_or(&[], |profile| &profile.plugins)
    }

    /// Hears of every pod that has not ended and of every node.
    pub fn follow(self: &Arc<Self>, pods: &Informer<Pod>, nodes: &Informer<Node>) {
        let this = Arc::clone(self);
        pods.add_handler(move |event: &Event<Pod>| {
            match event {
                Event::Added(pod) => this.pod_changed(None, pod),
                Event::Updated { old, new } if old.uid() == new.uid() => {
                    this.pod_changed(Some(old), new);
                }
                // One has gone and another of its name has come.
                Event::Updated { old, new } => {
                    this.pod_gone(old);
                    this.pod_changed(None, new);
                }
                Event::Deleted(pod) => this.pod_gone(pod),
            }
            this.wake.notify_one();
        });
        let this = Arc::clone(self);
        nodes.add_handler(move |event: &Event<Node>| {
            this.node_changed(event);
            this.wake.notify_one();
        });
    }

    fn pod_changed(&self, old: Option<&Pod>, pod: &Pod) {
        let info = PodInfo::new(pod);
        if info.terminal {
            return self.pod_gone(old.unwrap_or(pod));
        }
        let mut state = self.state.lock();
        if info.is_assigned() {
            state.queue.remove(&info.key);
            state.cache.put_pod(info);
        } else if !state.cache.is_assumed(&info.key) {
            if info.deleting {
                state.queue.remove(&info.key);
            } else if self.profiles.contains_key(&*info.scheduler_name) {
                let plugins = self.plugins(&info);
                state.queue.put(Arc::clone(&info), plugins, Instant::now());
            }
        }
    }

    fn pod_gone(&self, pod: &Pod) {
        let info = PodInfo::new(pod);
        let mut state = self.state.lock();
        state.queue.remove(&info.key);
        let assumed = state.cache.is_assumed(&info.key);
        if info.is_assigned() || assumed {
            state.cache.remove_pod(&info.key);
            let event = ClusterEvent::PodGone {
                requests: &info.requests,
                host_ports: &info.host_ports,
            };
            state
                .queue
                .happened(&event, self.any_plugins(), Instant::now());
        }
    }

    fn node_changed(&self, event: &Event<Node>) {
        let mut state = self.state.lock();
        let now = Instant::now();
        match event {
            Event::Added(node) => {
                state.cache.put_node(node);
                state
                    .queue
                    .happened(&ClusterEvent::NodeAdded(node), self.any_plugins(), now);
            }
            Event::Updated { old, new } => {
                // Heartbeats are most of what happens to a node.
                let same = old.spec == new.spec
                    && old.status.allocatable == new.status.allocatable
                    && old.metadata.labels == new.metadata.labels;
                if !same {
                    state.cache.put_node(new);
                    let event = ClusterEvent::NodeUpdated { old, new };
                    state.queue.happened(&event, self.any_plugins(), now);
                }
            }
            Event::Deleted(node) => state.cache.remove_node(&node.metadata.name),
        }
    }

    /// Schedules until `stop`. What was taken but not bound by then is in nobody's way:
    /// the next leader finds it unassigned.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut flush = tokio::time::interval(FLUSH);
        loop {
            let (taken, deadline) = {
                let mut state = self.state.lock();
                let taken = state.queue.take(Instant::now());
                (taken, state.queue.next_deadline())
            };
            if let Some(taken) = taken {
                self.schedule(taken);
                if stop.is_cancelled() {
                    return;
                }
                // Bindings want their turn as well.
                tokio::task::yield_now().await;
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
                _ = flush.tick() => self.state.lock().queue.flush_left_over(Instant::now()),
            }
        }
    }

    pub fn report_pending(&self) {
        self.metrics.pending(self.state.lock().queue.counts());
    }

    /// One scheduling cycle, and its effects in a task of their own.
    fn schedule(self: &Arc<Self>, taken: Taken) {
        let began = Instant::now();
        let pod = Arc::clone(&taken.pod);
        let Some(profile) = self.profiles.get(&*pod.scheduler_name) else {
            self.state.lock().queue.remove(&pod.key);
            return;
        };
        let (snapshot, mut start) = {
            let mut state = self.state.lock();
            (state.cache.snapshot(), state.start)
        };
        let mut draw = |n: usize| rand::random_range(0..n.max(1));
        let decision = profile.schedule(&pod, &snapshot, &mut start, &mut draw);
        let mut state = self.state.lock();
        state.start = start;
        match decision {
            Decision::Node(node) => {
                state.cache.assume(Arc::clone(&pod), &node);
                state.queue.done(&pod.key);
                drop(state);
                let this = Arc::clone(self);
                tokio::spawn(async move { this.bind(taken, &node, began).await });
            }
            Decision::Unschedulable(diagnosis) => {
                let message = diagnosis.message();
                state
                    .queue
                    .unschedulable(&pod.key, diagnosis.plugins, Instant::now());
                drop(state);
                tracing::debug!("pod {} is unschedulable: {message}", pod.key);
                let elapsed = began.elapsed().as_secs_f64();
                self.metrics
                    .attempted(&profile.scheduler_name, "unschedulable", elapsed);
                let binder = self.binder.clone();
                tokio::spawn(async move { binder.failed(&pod, "Unschedulable", &message).await });
            }
        }
    }

    /// The binding cycle.
    async fn bind(self: Arc<Self>, taken: Taken, node: &str, began: Instant) {
        let pod = &taken.pod;
        let profile = &*pod.scheduler_name;
        match self.binder.bind(pod, node).await {
            Ok(()) => {
                tracing::debug!("pod {} goes to node {node}", pod.key);
                self.metrics
                    .attempted(profile, "scheduled", began.elapsed().as_secs_f64());
                let attempts = if taken.attempts < 16 {
                    taken.attempts.to_string()
                } else {
                    "16+".to_owned()
                };
                self.metrics
                    .sli_duration
                    .with_label_values(&[attempts.as_str()])
                    .observe(taken.first_seen.elapsed().as_secs_f64());
                self.binder.scheduled(pod, node);
            }
            Err(error) => {
                self.metrics
                    .attempted(profile, "error", began.elapsed().as_secs_f64());
                // A pod that is gone needs no second try.
                let retry = !error.is_not_found();
                self.unassume(&pod.key, retry.then_some(&taken));
                if retry {
                    tracing::warn!("cannot bind pod {} to node {node}: {error}", pod.key);
                    let message = format!("binding rejected: {error}");
                    self.binder.failed(pod, "SchedulerError", &message).await;
                }
            }
        }
    }

    /// Gives the node back, and the pod to the queue.
    fn unassume(&self, key: &ObjectKey, retry: Option<&Taken>) {
        let mut state = self.state.lock();
        if !state.cache.forget(key) {
            // It is bound after all: the answer was lost, not the binding.
            return;
        }
        let now = Instant::now();
        if let Some(taken) = retry {
            let plugins = self.plugins(&taken.pod);
            state
                .queue
                .put_back(taken, Arc::clone(&taken.pod), plugins, now);
        }
        let event = match retry {
            Some(taken) => ClusterEvent::PodGone {
                requests: &taken.pod.requests,
                host_ports: &taken.pod.host_ports,
            },
            None => return,
        };
        state.queue.happened(&event, self.any_plugins(), now);
        drop(state);
        self.wake.notify_one();
    }
}
