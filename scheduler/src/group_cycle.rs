//! The scheduling cycle of a group: takes all of its pods that wait out of the queue, has
//! `groups/` decide about them on one state of the cluster, and lets what comes of it go.

use std::sync::{Arc, Weak};

use client::{Object as _, ObjectKey};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::bind::{GroupCondition, Preemptor};
use crate::cycle::{Nomination, Unschedulable};
use crate::groups::Told;
use crate::groups::decision::{self, Decision, UNSCHEDULABLE};
use crate::groups::preemption::Victims;
use crate::groups::trial::{Bench, Outcome, Verdict};
use crate::model::PodInfo;
use crate::profile::{Profile, Rejectors};
use crate::queue::Taken;
use crate::reserve::Promised;
use crate::scheduler::{Scheduler, State, draw};
use crate::unschedulable::{Effects, Eviction};

impl Scheduler {
    /// One scheduling cycle of the group that a pod is of.
    pub(crate) fn schedule_group(self: &Arc<Self>, state: &mut State, first: Taken) {
        let began = Instant::now();
        let Some((group, members)) = self.begin_group(state, first, began) else {
            return;
        };
        let pods: Vec<Arc<PodInfo>> = members.iter().map(|t| Arc::clone(&t.pod)).collect();
        let Some(profile) = pods.first().and_then(|pod| self.profile(pod)) else {
            return;
        };
        let mut draw = draw;
        let mut bench = Bench {
            cache: &mut state.cache,
            evaluations: &mut state.evaluations,
            start: &mut state.start,
            draw: &mut draw,
        };
        let decide = || decision::decide(profile, &mut bench, &group, &pods);
        // Most pods of a group are alike, but there may be many, with devices to be found for
        // each; the lease is to be renewed meanwhile.
        let decision = tokio::task::block_in_place(decide);
        self.metrics.groups.algorithm(began.elapsed());
        self.conclude_group(state, profile, members, decision, began);
    }

    /// The group of a pod, and all of its pods that wait; `None` when they cannot be decided
    /// about together.
    pub(crate) fn begin_group(
        self: &Arc<Self>,
        state: &mut State,
        first: Taken,
        began: Instant,
    ) -> Option<(ObjectKey, Vec<Taken>)> {
        let group = first.pod.group.clone()?;
        let members = gather(state, first);
        if let Some(why) = stranger(&members) {
            for taken in &members {
                self.fail_member(state, taken, why.clone(), began);
            }
            return None;
        }
        Some((group, members))
    }

    /// Notes what was decided for a group, and lets the effects go.
    pub(crate) fn conclude_group(
        self: &Arc<Self>,
        state: &mut State,
        profile: &Profile,
        members: Vec<Taken>,
        mut decision: Decision,
        began: Instant,
    ) {
        let Some(group) = members.first().and_then(|taken| taken.pod.group.clone()) else {
            return;
        };
        // Each pod that may go is promised its node before the first of them goes.
        let mut promises = Vec::new();
        if decision.trial.verdict == Verdict::Schedulable {
            match promise(state, profile, &members, &decision) {
                Ok(made) => promises = made,
                Err(why) => {
                    decision.trial.outcomes.clear();
                    decision.trial.verdict = Verdict::Failed(why.clone());
                    decision.message = why;
                }
            }
        }
        let told = told(&decision);
        let (result, scheduler) = (result(&decision), &*profile.scheduler_name);
        self.metrics
            .groups
            .attempted(scheduler, result, began.elapsed());
        let message = &decision.message;
        let waits = decision.trial.verdict == Verdict::AfterPreemption;
        let error = match &decision.trial.verdict {
            Verdict::Failed(why) => Some(why.clone()),
            _ => None,
        };
        let mut rejected: Vec<(Arc<PodInfo>, Unschedulable)> = Vec::new();
        let mut outcomes = decision.trial.outcomes.into_iter();
        let mut promises = promises.into_iter();
        for taken in members {
            let outcome = outcomes.next();
            let pod = Arc::clone(&taken.pod);
            match (outcome, &error) {
                (Some(Outcome::Failed(why)), _) => self.fail_member(state, &taken, why, began),
                (_, Some(why)) => self.fail_member(state, &taken, why.clone(), began),
                (Some(Outcome::Fits { node, .. }), None)
                    if decision.trial.verdict == Verdict::Schedulable =>
                {
                    if let Some(promised) = promises.next() {
                        self.send(state, taken, node, promised, began);
                    }
                }
                (Some(Outcome::Fits { node, .. }), None) if waits => {
                    rejected.push((pod, unschedulable(message.clone(), Nomination::Node(node))));
                }
                (Some(Outcome::Preempts { verdict, .. }), None) if waits => {
                    rejected.push((pod, verdict));
                }
                // Nobody leaves for a group that would not fit all the same.
                (Some(Outcome::Fits { waits, .. } | Outcome::Preempts { waits, .. }), None) => {
                    let message = match waits {
                        Some(why) => format!("{UNSCHEDULABLE}, {why}"),
                        None => UNSCHEDULABLE.to_owned(),
                    };
                    rejected.push((pod, unschedulable(message, Nomination::Clear)));
                }
                (Some(Outcome::Unschedulable(verdict)), None) => rejected.push((pod, verdict)),
                (None, None) => {
                    rejected.push((pod, unschedulable(message.clone(), Nomination::Keep)));
                }
            }
        }
        // A group that goes without some of its pods has nobody leave for them; the next time
        // it is about them alone.
        let again = decision.trial.verdict == Verdict::Schedulable && profile.groups.preempts;
        let again = rejected.iter().filter(|_| again);
        let again: Vec<ObjectKey> = again.map(|(pod, _)| pod.key.clone()).collect();
        self.reject(state, profile, rejected, decision.victims, began);
        let now = Instant::now();
        again.iter().for_each(|key| state.queue.helped(key, now));
        let groups = &mut state.cache.groups;
        let uid = groups.object(&group).map(|object| object.uid().into());
        let condition = groups.tell(&group, &told, Timestamp::now());
        if let (Some(uid), Some(condition)) = (uid, condition) {
            let write = GroupCondition {
                group,
                uid,
                condition,
            };
            // The task is there as long as its runtime is.
            let _ = self.group_conditions.send(write);
        }
    }

    /// Pods that get no node for now, and those who leave for them.
    fn reject(
        self: &Arc<Self>,
        state: &mut State,
        profile: &Profile,
        rejected: Vec<(Arc<PodInfo>, Unschedulable)>,
        victims: Option<Victims>,
        began: Instant,
    ) {
        if let Some(victims) = &victims {
            self.metrics.preempts(victims.pods.len());
        }
        let mut effects: Vec<(Arc<PodInfo>, Effects)> = Vec::with_capacity(rejected.len());
        for (pod, verdict) in rejected {
            // Those that fit have not come to PostFilter.
            if profile.preemption.is_some() && !verdict.rejectors.is_empty() {
                self.metrics.preemptions.inc();
            }
            let noted = self.note_unschedulable(state, &pod, verdict, began);
            effects.push((pod, noted));
        }
        let evictions = evictions(&effects, victims.as_ref());
        for (pod, noted) in &effects {
            let (queue, now) = (&mut state.queue, Instant::now());
            queue.unschedulable(&pod.key, noted.rejectors, now);
            self.hold_if_not_admitted(state, pod);
        }
        if !effects.is_empty() {
            self.tell(effects, evictions);
        }
    }

    /// There is no verdict about a pod.
    fn fail_member(self: &Arc<Self>, state: &mut State, taken: &Taken, why: String, at: Instant) {
        self.no_verdict(state, taken, why, at);
        self.hold_if_not_admitted(state, &taken.pod);
    }

    /// Pods of a group that is gone wait for it to come back.
    fn hold_if_not_admitted(&self, state: &mut State, pod: &PodInfo) {
        let profile = self.profile(pod);
        if profile.is_some_and(|profile| profile.admit(pod, &state.cache).is_err()) {
            state.queue.hold(&pod.key);
        }
    }
}

/// The pods of a group that wait, the more important ones first.
fn gather(state: &mut State, first: Taken) -> Vec<Taken> {
    let group = first.pod.group.as_ref();
    let waiting = group
        .into_iter()
        .flat_map(|g| state.cache.groups.waiting(g));
    let others: Vec<_> = waiting.filter(|k| **k != first.pod.key).cloned().collect();
    let others = others.iter().filter_map(|key| state.queue.take_along(key));
    let mut members: Vec<Taken> = others.collect();
    members.push(first);
    members.sort_by_key(|taken| (std::cmp::Reverse(taken.pod.priority), taken.number));
    members
}

/// Why pods cannot be decided about together.
fn stranger(members: &[Taken]) -> Option<String> {
    let name = &members.first()?.pod.scheduler_name;
    let mut others = members.iter().map(|taken| &taken.pod.scheduler_name);
    let other = others.find(|other| *other != name)?;
    Some(format!(
        "all pods in a single pod group should have the same .spec.schedulerName set, got: {other:?} and {name:?}"
    ))
}

/// Reserve of all pods that may go, in their order; or of none, where one fails.
fn promise(
    state: &mut State,
    profile: &Profile,
    members: &[Taken],
    decision: &Decision,
) -> Result<Vec<Promised>, String> {
    let mut promises = Vec::new();
    let mut placed = Vec::new();
    for (taken, outcome) in members.iter().zip(&decision.trial.outcomes) {
        let Outcome::Fits { node, .. } = outcome else {
            continue;
        };
        match Promised::make(&mut state.cache, profile, &taken.pod, node) {
            Ok(promised) => promises.push(promised),
            Err(why) => {
                let cache = &mut state.cache;
                promises
                    .iter()
                    .for_each(|made: &Promised| made.forget(cache));
                for pod in placed {
                    cache.forget(pod);
                }
                return Err(why);
            }
        }
        state.cache.assume(Arc::clone(&taken.pod), node);
        placed.push(&taken.pod);
    }
    Ok(promises)
}

fn unschedulable(message: String, nomination: Nomination) -> Unschedulable {
    let mut verdict = Unschedulable::new(message, Rejectors::default());
    verdict.nomination = nomination;
    verdict
}

/// What the group's condition is to say.
fn told(decision: &Decision) -> Told {
    let (scheduled, reason) = match &decision.trial.verdict {
        Verdict::Schedulable => (true, "Scheduled"),
        Verdict::AfterPreemption | Verdict::Unschedulable => (false, "Unschedulable"),
        Verdict::Failed(_) => (false, "SchedulerError"),
    };
    // Its pods wait for victims of their own, and say so; the group is what it was.
    let message = match &decision.trial.verdict {
        Verdict::Schedulable => String::new(),
        _ => decision.message.clone(),
    };
    Told {
        scheduled,
        reason,
        message,
    }
}

/// As metrics call it.
fn result(decision: &Decision) -> &'static str {
    match &decision.trial.verdict {
        Verdict::Schedulable => "scheduled",
        Verdict::AfterPreemption => "waiting_on_preemption",
        Verdict::Unschedulable => "unschedulable",
        Verdict::Failed(_) => "error",
    }
}

/// Who leaves for whom: for single pods of the group, or for all of it.
fn evictions(effects: &[(Arc<PodInfo>, Effects)], victims: Option<&Victims>) -> Vec<Eviction> {
    let mut evictions: Vec<Eviction> = Vec::new();
    for eviction in effects.iter().flat_map(|(pod, noted)| noted.evictions(pod)) {
        // Two pods of the group may want the same one to leave.
        if evictions
            .iter()
            .all(|e| e.victim.key != eviction.victim.key)
        {
            evictions.push(eviction);
        }
    }
    if let (Some(victims), Some((pod, _))) = (victims, effects.first()) {
        let fresh = victims.pods.iter().filter(|victim| !victim.deleting);
        evictions.extend(fresh.map(|victim| Eviction {
            victim: Arc::clone(victim),
            preemptor: Preemptor::group(&victims.preemptor, &pod.scheduler_name),
        }));
    }
    evictions
}

/// Writes conditions of groups, one after the other: what is decided last is to stand.
pub(crate) async fn write_conditions(
    scheduler: Weak<Scheduler>,
    mut decided: mpsc::UnboundedReceiver<GroupCondition>,
) {
    while let Some(next) = decided.recv().await {
        let Some(scheduler) = scheduler.upgrade() else {
            return;
        };
        let Err(error) = scheduler.binder.group_condition(&next).await else {
            continue;
        };
        if !error.is_not_found() {
            tracing::warn!(
                "cannot write the condition of group {}: {error}",
                next.group
            );
        }
        let mut state = scheduler.lock();
        let groups = &mut state.cache.groups;
        groups.not_written(&next.group, &next.condition);
    }
}
