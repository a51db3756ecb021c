//! Pods that wait for a node. Synchronous and pure: the time is passed in, and so is what
//! plugins say.
//!
//! A pod is *active* (to be looked at next, by priority and age), *backing off* (it
//! failed a moment ago), *unschedulable* (waiting for an event that a plugin which
//! rejected it calls helpful), *gated*, or *in flight* (looked at right now). Unschedulable
//! pods of one kind that the same plugins rejected are asked about once. A member of a
//! PodGroup is *paused* instead: what helps it may help another member, so it is tried again
//! after a while even if nothing has happened.

mod report;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::ObjectKey;
use tokio::time::Instant;

pub use self::report::Counts;
use crate::model::PodInfo;
use crate::profile::Rejectors;

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
    /// The pause after so many failures.
    fn after(self, failures: Failures) -> Duration {
        let count = match failures.errors {
            0 => failures.verdicts,
            errors => errors,
        };
        let doubled = self
            .initial
            .saturating_mul(1 << count.saturating_sub(1).min(16));
        doubled.min(self.max)
    }
}

/// What a pod's attempts have come to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failures {
    /// How often no node took it.
    verdicts: u32,
    /// How often in a row, up to now, there was no verdict, or the binding failed.
    errors: u32,
}

/// Pods that plugins tell nothing apart between: kind, rejecting plugins, and a number of
/// its own for a pod whose volumes or devices matter.
type Group = (u32, Rejectors, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Active,
    BackingOff { until: Instant },
    Unschedulable { since: Instant },
    Paused { until: Instant },
    Gated,
    InFlight,
}

#[derive(Debug)]
struct Queued {
    pod: Arc<PodInfo>,
    /// Order of arrival, and of coming back after an attempt.
    number: u64,
    attempts: u32,
    failures: Failures,
    first_seen: Instant,
    /// The pause after the last attempt ends then.
    backoff_until: Instant,
    /// The last attempt failed for no plugin's reason: it must pause.
    error: bool,
    rejectors: Rejectors,
    place: Place,
    /// What came of its attempt is being told, and its victims are: it stays out of the way
    /// until they all have been.
    held: bool,
    /// An event has helped meanwhile; one that helped after `entered` is noted by the group.
    helped: bool,
    /// Of whom events during the present attempt would change the mind.
    heard: Rejectors,
    /// The number of the last event before it came to its place.
    entered: u64,
    flushed: bool,
}

/// A pod that has been taken out to be scheduled.
#[derive(Debug, Clone)]
pub struct Taken {
    pub pod: Arc<PodInfo>,
    /// Order of arrival.
    pub number: u64,
    pub attempts: u32,
    pub failures: Failures,
    pub first_seen: Instant,
    /// It had waited so long that it was tried without any event.
    pub flushed: bool,
}

type ActiveOrder = (Reverse<i32>, u64, ObjectKey);

#[derive(Debug)]
pub struct Queue {
    backoff: Backoff,
    pods: HashMap<ObjectKey, Queued>,
    active: BTreeSet<ActiveOrder>,
    backing_off: BTreeSet<(Instant, ObjectKey)>,
    /// Pods in flight: more than one, and while something happens, where others are asked.
    flying: HashSet<ObjectKey>,
    groups: HashMap<Group, HashSet<ObjectKey>>,
    /// Those of unschedulable pods that are held, and the last event that helped them: there
    /// may be many of both.
    held: HashMap<Group, (HashSet<ObjectKey>, u64)>,
    events: u64,
    arrivals: u64,
    /// Pods put into a queue, by the queue and the event: for metrics.
    incoming: HashMap<(&'static str, &'static str), u64>,
}

impl Queue {
    pub fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            pods: HashMap::new(),
            active: BTreeSet::new(),
            backing_off: BTreeSet::new(),
            flying: HashSet::new(),
            groups: HashMap::new(),
            held: HashMap::new(),
            events: 0,
            arrivals: 0,
            incoming: HashMap::new(),
        }
    }

    fn came(&mut self, queue: &'static str, event: &'static str) {
        *self.incoming.entry((queue, event)).or_default() += 1;
    }

    /// A pod is new, or has changed. `helps(old, rejectors)` is whether the change may have
    /// made it schedulable.
    pub fn put(
        &mut self,
        pod: Arc<PodInfo>,
        admitted: bool,
        now: Instant,
        helps: impl Fn(&PodInfo, Rejectors) -> bool,
    ) {
        let key = pod.key.clone();
        let Some(queued) = self.pods.get_mut(&key) else {
            self.insert(pod, now);
            if admitted {
                self.activate(&key, "UnschedulablePodAdd");
            } else {
                self.came("unschedulable", "UnschedulablePodAdd");
            }
            return;
        };
        if queued.pod.uid != pod.uid {
            // Another pod of the same name: it has no history.
            self.remove(&key);
            return self.put(pod, admitted, now, helps);
        }
        let place = queued.place;
        let before = Arc::clone(&queued.pod);
        self.leave(&key);
        if let Some(queued) = self.pods.get_mut(&key) {
            queued.pod = pod;
        }
        self.enter(&key, place);
        match place {
            Place::Gated if admitted => self.activate(&key, "UnschedulablePodUpdate"),
            Place::Unschedulable { .. } | Place::Paused { .. } => {
                let rejectors = self.pods[&key].rejectors;
                if helps(&before, rejectors) {
                    self.retry(&key, now, "UnschedulablePodUpdate");
                }
            }
            Place::InFlight => {
                if let Some(queued) = self.pods.get_mut(&key) {
                    let helped = Rejectors::of(|one| helps(&before, one));
                    queued.heard = queued.heard.and(helped);
                }
            }
            _ => {}
        }
    }

    /// A pod comes in, and has no place yet.
    fn insert(&mut self, pod: Arc<PodInfo>, now: Instant) {
        self.arrivals += 1;
        let key = pod.key.clone();
        let queued = Queued {
            pod,
            number: self.arrivals,
            attempts: 0,
            failures: Failures::default(),
            first_seen: now,
            backoff_until: now,
            error: false,
            rejectors: Rejectors::default(),
            place: Place::Gated,
            held: false,
            helped: false,
            heard: Rejectors::default(),
            entered: 0,
            flushed: false,
        };
        self.pods.insert(key, queued);
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.pods.get(key).map(|queued| &queued.pod)
    }

    /// Whether this very pod is in the queue, and not another of its name.
    pub fn has(&self, pod: &PodInfo) -> bool {
        self.get(&pod.key)
            .is_some_and(|queued| queued.uid == pod.uid)
    }

    pub fn remove(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        self.leave(key);
        self.pods.remove(key).map(|queued| queued.pod)
    }

    /// Takes a pod out of the order or group that its place has.
    fn leave(&mut self, key: &ObjectKey) {
        let Some(queued) = self.pods.get_mut(key) else {
            return;
        };
        match queued.place {
            Place::Active => {
                self.active.remove(&order(queued));
            }
            Place::BackingOff { until } => {
                self.backing_off.remove(&(until, key.clone()));
            }
            Place::Paused { until } => {
                self.backing_off.remove(&(until, key.clone()));
                let group = group(queued);
                forget(&mut self.groups, group, key);
            }
            Place::Unschedulable { .. } if queued.held => {
                let group = group(queued);
                if let Some((keys, helped)) = self.held.get_mut(&group) {
                    queued.helped |= *helped > queued.entered;
                    keys.remove(key);
                    if keys.is_empty() {
                        self.held.remove(&group);
                    }
                }
            }
            Place::Unschedulable { .. } => {
                let group = group(queued);
                forget(&mut self.groups, group, key);
            }
            Place::InFlight => {
                self.flying.remove(key);
            }
            Place::Gated => {}
        }
    }

    fn enter(&mut self, key: &ObjectKey, place: Place) {
        let Some(queued) = self.pods.get_mut(key) else {
            return;
        };
        queued.place = place;
        queued.entered = self.events;
        match place {
            Place::Active => {
                self.active.insert(order(queued));
            }
            Place::BackingOff { until } => {
                self.backing_off.insert((until, key.clone()));
            }
            Place::Paused { until } => {
                self.backing_off.insert((until, key.clone()));
                // Who was not rejected waits for another member; that one is asked about.
                if !queued.rejectors.is_empty() {
                    let group = group(queued);
                    self.groups.entry(group).or_default().insert(key.clone());
                }
            }
            Place::Unschedulable { .. } => {
                let group = group(queued);
                let keys = match queued.held {
                    true => &mut self.held.entry(group).or_default().0,
                    false => self.groups.entry(group).or_default(),
                };
                keys.insert(key.clone());
            }
            Place::InFlight => {
                self.flying.insert(key.clone());
            }
            Place::Gated => {}
        }
    }

    /// Nothing holds a pod any longer.
    fn let_go(&mut self, key: &ObjectKey) {
        let Some(place) = self.pods.get(key).map(|queued| queued.place) else {
            return;
        };
        self.leave(key);
        if let Some(queued) = self.pods.get_mut(key) {
            queued.held = false;
        }
        self.enter(key, place);
    }

    fn activate(&mut self, key: &ObjectKey, event: &'static str) {
        self.leave(key);
        self.enter(key, Place::Active);
        self.came("active", event);
    }

    /// Back to the active pods, now or when the pause is over.
    fn retry(&mut self, key: &ObjectKey, now: Instant, event: &'static str) {
        let Some(queued) = self.pods.get_mut(key) else {
            return;
        };
        if queued.held {
            queued.helped = true;
            return;
        }
        let until = queued.backoff_until;
        if until <= now {
            self.activate(key, event);
        } else {
            self.leave(key);
            self.enter(key, Place::BackingOff { until });
            self.came("backoff", event);
        }
    }

    /// The next pod to schedule; it is in flight until [`Queue::done`],
    /// [`Queue::unschedulable`] or [`Queue::failed`]. When no pod is active, one that a
    /// plugin rejected need not pause any longer.
    pub fn take(&mut self, now: Instant) -> Option<Taken> {
        while let Some((until, key)) = self.backing_off.first().cloned() {
            if until > now {
                break;
            }
            self.activate(&key, "BackoffComplete");
        }
        let key = match self.active.first() {
            Some((_, _, key)) => key.clone(),
            None => {
                let mut waiting = self.backing_off.iter();
                let early = |q: &Queued| !q.error && matches!(q.place, Place::BackingOff { .. });
                let next = waiting.find(|(_, key)| self.pods.get(key).is_some_and(early));
                let key = next.map(|(_, key)| key.clone())?;
                self.came("active", "PopFromBackoffQ");
                key
            }
        };
        self.fly(&key)
    }

    fn fly(&mut self, key: &ObjectKey) -> Option<Taken> {
        self.leave(key);
        self.enter(key, Place::InFlight);
        let queued = self.pods.get_mut(key)?;
        queued.heard = Rejectors::default();
        queued.attempts += 1;
        Some(Taken {
            pod: Arc::clone(&queued.pod),
            number: queued.number,
            attempts: queued.attempts,
            failures: queued.failures,
            first_seen: queued.first_seen,
            flushed: std::mem::take(&mut queued.flushed),
        })
    }

    /// A pod that is to be scheduled together with one that [`Queue::take`] gave
    /// (`PopSpecificPod`); `None` when it is not to be looked at now.
    pub fn take_along(&mut self, key: &ObjectKey) -> Option<Taken> {
        let queued = self.pods.get(key)?;
        match queued.place {
            Place::Gated | Place::InFlight => None,
            _ if queued.held => None,
            _ => self.fly(key),
        }
    }

    /// When the next pause ends.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.backing_off.first().map(|(until, _)| *until)
    }

    /// The pod has got a node.
    pub fn done(&mut self, key: &ObjectKey) {
        self.remove(key);
    }

    /// No node takes the pod; `rejectors` are the plugins that said so. It is held until
    /// [`Queue::told`].
    pub fn unschedulable(&mut self, key: &ObjectKey, rejectors: Rejectors, now: Instant) {
        let Some(queued) = self.pods.get_mut(key) else {
            return;
        };
        if queued.place != Place::InFlight {
            return;
        }
        self.arrivals += 1;
        queued.number = self.arrivals;
        queued.failures.verdicts += 1;
        queued.failures.errors = 0;
        queued.backoff_until = now + self.backoff.after(queued.failures);
        queued.rejectors = rejectors;
        queued.error = false;
        queued.held = true;
        queued.helped = queued.heard.meets(rejectors);
        let is_member = queued.pod.group.is_some();
        self.leave(key);
        self.enter(key, Place::Unschedulable { since: now });
        let place = if is_member {
            "backoff"
        } else {
            "unschedulable"
        };
        self.came(place, "ScheduleAttemptFailure");
    }

    /// What has just been decided may help a member of a group: it need not wait for an event.
    pub fn helped(&mut self, key: &ObjectKey, now: Instant) {
        let waits = |q: &Queued| q.held || matches!(q.place, Place::Paused { .. });
        if self.pods.get(key).is_some_and(waits) {
            self.retry(key, now, "ScheduleAttemptFailure");
        }
    }

    /// A pod that waits is not to be looked at until [`Queue::admit`].
    pub fn hold(&mut self, key: &ObjectKey) {
        let waits = |q: &Queued| !matches!(q.place, Place::Gated | Place::InFlight);
        if self.pods.get(key).is_some_and(waits) {
            self.leave(key);
            self.enter(key, Place::Gated);
            self.came("unschedulable", "ScheduleAttemptFailure");
        }
    }

    /// What came of the pod's last attempt has been told, and all victims have been told to go;
    /// `failed` when some could not be, `gone` when the last of them, if there is one, is known
    /// to go. If it is not, what has helped so far is too little.
    pub fn told(&mut self, key: &ObjectKey, failed: bool, gone: bool, now: Instant) {
        self.let_go(key);
        let Some(queued) = self.pods.get(key) else {
            return;
        };
        let waits = matches!(queued.place, Place::Unschedulable { .. });
        if waits && ((queued.helped && gone) || failed) {
            self.retry(key, now, "ScheduleAttemptFailure");
        } else if waits && queued.pod.group.is_some() {
            let until = queued.backoff_until;
            self.leave(key);
            self.enter(key, Place::Paused { until });
        }
    }

    /// An attempt came to no verdict, or a binding failed: the pod, which may have left the
    /// queue, is tried again after a pause; it is held until [`Queue::told`].
    pub fn failed(&mut self, taken: &Taken, now: Instant) {
        let key = &taken.pod.key;
        if !self.pods.contains_key(key) {
            self.insert(Arc::clone(&taken.pod), now);
        }
        let Some(queued) = self.pods.get_mut(key) else {
            return;
        };
        let is_other = queued.pod.uid != taken.pod.uid;
        if is_other || !matches!(queued.place, Place::Gated | Place::InFlight) {
            return;
        }
        queued.attempts = taken.attempts;
        queued.first_seen = taken.first_seen;
        self.arrivals += 1;
        queued.number = self.arrivals;
        queued.failures = taken.failures;
        queued.failures.errors += 1;
        queued.backoff_until = now + self.backoff.after(queued.failures);
        queued.error = true;
        queued.rejectors = Rejectors::default();
        queued.held = true;
        queued.helped = true;
        self.leave(key);
        self.enter(key, Place::Unschedulable { since: now });
    }

    /// Something happened in the cluster: `helps` is asked about one pod of each sort.
    pub fn happened(
        &mut self,
        event: &'static str,
        now: Instant,
        mut helps: impl FnMut(&PodInfo, Rejectors) -> bool,
    ) {
        self.events += 1;
        for key in &self.flying {
            if let Some(queued) = self.pods.get_mut(key) {
                let helped = Rejectors::of(|one| helps(&queued.pod, one));
                queued.heard = queued.heard.and(helped);
            }
        }
        let pods = &self.pods;
        let mut helps = |rejectors: Rejectors, keys: &HashSet<ObjectKey>| {
            let one = keys.iter().next().and_then(|key| pods.get(key));
            // Without a verdict there is nobody to ask.
            one.is_some_and(|one| rejectors.is_empty() || helps(&one.pod, rejectors))
        };
        for ((_, rejectors, _), (keys, last)) in &mut self.held {
            if helps(*rejectors, keys) {
                *last = self.events;
            }
        }
        let mut helped: Vec<ObjectKey> = Vec::new();
        for ((_, rejectors, _), keys) in &self.groups {
            if helps(*rejectors, keys) {
                helped.extend(keys.iter().cloned());
            }
        }
        for key in helped {
            self.retry(&key, now, event);
        }
    }

    /// Tries pods again that have waited for so long.
    pub fn flush_left_over(&mut self, now: Instant, waited: Duration) {
        let left: Vec<ObjectKey> = self
            .pods
            .iter()
            .filter(|(_, q)| matches!(q.place, Place::Unschedulable { since } if now.duration_since(since) >= waited))
            .map(|(key, _)| key.clone())
            .collect();
        for key in left {
            self.let_go(&key);
            if let Some(queued) = self.pods.get_mut(&key) {
                queued.flushed = true;
            }
            self.retry(&key, now, "UnschedulableTimeout");
        }
    }

    /// Pods that are not let in.
    pub fn gated(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        let gated = self.pods.values().filter(|q| q.place == Place::Gated);
        gated.map(|queued| &queued.pod)
    }

    /// A gated pod is let in.
    pub fn admit(&mut self, key: &ObjectKey, event: &'static str) {
        if self.pods.get(key).is_some_and(|q| q.place == Place::Gated) {
            self.activate(key, event);
        }
    }
}

fn order(queued: &Queued) -> ActiveOrder {
    (
        Reverse(queued.pod.priority),
        queued.number,
        queued.pod.key.clone(),
    )
}

/// Takes a pod out of its group of pods that are asked about together.
fn forget(groups: &mut HashMap<Group, HashSet<ObjectKey>>, group: Group, key: &ObjectKey) {
    if let Some(keys) = groups.get_mut(&group) {
        keys.remove(key);
        if keys.is_empty() {
            groups.remove(&group);
        }
    }
}

fn group(queued: &Queued) -> Group {
    let own = if queued.pod.is_own() {
        queued.number
    } else {
        0
    };
    (queued.pod.template.id, queued.rejectors, own)
}

#[cfg(test)]
mod tests;
