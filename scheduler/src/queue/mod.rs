//! Pods that wait for a node. Synchronous and pure: the time is passed in.
//!
//! A pod is *active* (to be looked at next, by priority and age), *backing off* (it
//! failed a moment ago), *unschedulable* (waiting for an event that a plugin which
//! rejected it calls helpful), *gated*, or *in flight* (looked at right now).

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::ObjectKey;
use tokio::time::Instant;

use crate::framework::{ClusterEvent, Enabled, Hint};
use crate::model::PodInfo;

/// A pod that no event has moved for so long is tried again all the same.
const LEFT_OVER: Duration = Duration::from_secs(5 * 60);

/// `podInitialBackoffSeconds` and `podMaxBackoffSeconds`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub initial: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// The pause after so many attempts in a row.
    fn after(self, attempts: u32) -> Duration {
        let doubled = self
            .initial
            .saturating_mul(1 << attempts.saturating_sub(1).min(16));
        doubled.min(self.max)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    BackingOff {
        until: Instant,
    },
    Unschedulable {
        since: Instant,
    },
    Gated,
    /// `events` is the count of events when it was taken.
    InFlight {
        events: u64,
    },
}

#[derive(Debug)]
struct Queued {
    pod: Arc<PodInfo>,
    /// Order of arrival; stays while the pod waits.
    number: u64,
    attempts: u32,
    first_seen: Instant,
    /// The pause after the last attempt ends then.
    backoff_until: Instant,
    rejected_by: BTreeSet<&'static str>,
    place: Place,
}

/// A pod that has been taken out to be scheduled.
#[derive(Debug, Clone)]
pub struct Taken {
    pub pod: Arc<PodInfo>,
    pub attempts: u32,
    pub first_seen: Instant,
}

type ActiveOrder = (Reverse<i32>, u64, ObjectKey);

#[derive(Debug)]
pub struct Queue {
    backoff: Backoff,
    pods: HashMap<ObjectKey, Queued>,
    active: BTreeSet<ActiveOrder>,
    backing_off: BTreeSet<(Instant, ObjectKey)>,
    arrivals: u64,
    events: u64,
}

/// How many pods are where, for `scheduler_pending_pods`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
    pub gated: usize,
}

impl Queue {
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            pods: HashMap::new(),
            active: BTreeSet::new(),
            backing_off: BTreeSet::new(),
            arrivals: 0,
            events: 0,
        }
    }

    /// A pod is new, or has changed.
    pub fn put(&mut self, pod: Arc<PodInfo>, plugins: &[Enabled], now: Instant) {
        let key = pod.key.clone();
        let gate = plugins.iter().find(|p| p.plugin.admit(&pod).is_err());
        let Some(queued) = self.pods.get_mut(&key) else {
            self.arrivals += 1;
            let queued = Queued {
                pod,
                number: self.arrivals,
                attempts: 0,
                first_seen: now,
                backoff_until: now,
                rejected_by: BTreeSet::new(),
                place: Place::Gated,
            };
            self.pods.insert(key.clone(), queued);
            if gate.is_none() {
                self.activate(&key);
            }
            return;
        };
        let same_object = queued.pod.uid == pod.uid;
        let place = queued.place;
        if !same_object {
            // Another pod of the same name: it has no history.
            self.remove(&key);
            return self.put(pod, plugins, now);
        }
        if place == Place::Active {
            self.active.remove(&order(queued));
        }
        queued.pod = pod;
        match place {
            Place::Active => {
                let order = order(queued);
                self.active.insert(order);
            }
            Place::Gated if gate.is_none() => self.activate(&key),
            Place::Unschedulable { .. } => {
                let event = ClusterEvent::PodChanged;
                if helps(queued, plugins, &event) {
                    self.retry(&key, now);
                }
            }
            Place::InFlight { .. } => self.events += 1,
            Place::BackingOff { .. } | Place::Gated => {}
        }
    }

    pub fn remove(&mut self, key: &ObjectKey) {
        if let Some(queued) = self.pods.remove(key) {
            match queued.place {
                Place::Active => {
                    self.active.remove(&order(&queued));
                }
                Place::BackingOff { until } => {
                    self.backing_off.remove(&(until, key.clone()));
                }
                _ => {}
            }
        }
    }

    fn activate(&mut self, key: &ObjectKey) {
        if let Some(queued) = self.pods.get_mut(key) {
            queued.place = Place::Active;
            let order = order(queued);
            self.active.insert(order);
        }
    }

    /// Back to the active pods, now or when the pause is over.
    fn retry(&mut self, key: &ObjectKey, now: Instant) {
        let Some(queued) = self.pods.get_mut(key) else {
            return;
        };
        let until = queued.backoff_until;
        if until <= now {
            self.activate(key);
        } else {
            queued.place = Place::BackingOff { until };
            self.backing_off.insert((until, key.clone()));
        }
    }

    /// The next pod to schedule; it is in flight until [`Queue::done`] or
    /// [`Queue::unschedulable`].
    pub fn take(&mut self, now: Instant) -> Option<Taken> {
        while let Some((until, key)) = self.backing_off.first().cloned() {
            if until > now {
                break;
            }
            self.backing_off.pop_first();
            self.activate(&key);
        }
        let (_, _, key) = self.active.pop_first()?;
        let queued = self.pods.get_mut(&key)?;
        queued.place = Place::InFlight {
            events: self.events,
        };
        queued.attempts += 1;
        Some(Taken {
            pod: Arc::clone(&queued.pod),
            attempts: queued.attempts,
            first_seen: queued.first_seen,
        })
    }

    /// When the next pause ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.backing_off.first().map(|(until, _)| *until)
    }

    /// The pod has got a node.
    pub fn done(&mut self, key: &ObjectKey) {
        self.remove(key);
    }

    /// No node takes the pod; `plugins` are those that said so. Without any (an error, not
    /// a verdict) it is tried again after its pause.
    pub fn unschedulable(
        &mut self,
        key: &ObjectKey,
        plugins: BTreeSet<&'static str>,
        now: Instant,
    ) {
        let Some(queued) = self.pods.get_mut(key) else {
            return;
        };
        let missed = match queued.place {
            Place::InFlight { events } => events != self.events,
            _ => return,
        };
        queued.backoff_until = now + self.backoff.after(queued.attempts);
        queued.rejected_by = plugins;
        if missed || queued.rejected_by.is_empty() {
            // Something happened that the attempt did not see.
            self.retry(key, now);
        } else {
            queued.place = Place::Unschedulable { since: now };
        }
    }

    /// A binding failed: the pod, which had left the queue, comes back.
    pub fn put_back(
        &mut self,
        taken: &Taken,
        pod: Arc<PodInfo>,
        plugins: &[Enabled],
        now: Instant,
    ) {
        let key = pod.key.clone();
        self.put(pod, plugins, now);
        if let Some(queued) = self.pods.get_mut(&key)
            && queued.place == Place::Active
            && queued.attempts == 0
        {
            self.active.remove(&order(queued));
            queued.attempts = taken.attempts;
            queued.first_seen = taken.first_seen;
            queued.backoff_until = now + self.backoff.after(taken.attempts);
            self.retry(&key, now);
        }
    }

    /// Something happened in the cluster.
    pub fn happened(&mut self, event: &ClusterEvent<'_>, plugins: &[Enabled], now: Instant) {
        self.events += 1;
        let helped: Vec<ObjectKey> = self
            .pods
            .iter()
            .filter(|(_, q)| matches!(q.place, Place::Unschedulable { .. }))
            .filter(|(_, queued)| helps(queued, plugins, event))
            .map(|(key, _)| key.clone())
            .collect();
        for key in helped {
            self.retry(&key, now);
        }
    }

    /// Tries pods again that have waited for long.
    pub fn flush_left_over(&mut self, now: Instant) {
        let left: Vec<ObjectKey> = self
            .pods
            .iter()
            .filter(|(_, q)| matches!(q.place, Place::Unschedulable { since } if now.duration_since(since) >= LEFT_OVER))
            .map(|(key, _)| key.clone())
            .collect();
        for key in left {
            self.retry(&key, now);
        }
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for queued in self.pods.values() {
            match queued.place {
                Place::Active => counts.active += 1,
                Place::BackingOff { .. } => counts.backoff += 1,
                Place::Unschedulable { .. } => counts.unschedulable += 1,
                Place::Gated => counts.gated += 1,
                Place::InFlight { .. } => {}
            }
        }
        counts
    }
}

fn order(queued: &Queued) -> ActiveOrder {
    (
        Reverse(queued.pod.priority),
        queued.number,
        queued.pod.key.clone(),
    )
}

/// Does one of the plugins that rejected the pod call the event helpful?
fn helps(queued: &Queued, plugins: &[Enabled], event: &ClusterEvent<'_>) -> bool {
    plugins
        .iter()
        .filter(|enabled| queued.rejected_by.contains(enabled.plugin.name()))
        .any(|enabled| enabled.plugin.hint(&queued.pod, event) == Hint::Queue)
}

#[cfg(test)]
mod tests;
