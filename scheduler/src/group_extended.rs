//! The scheduling cycle of a group where extenders have a say: they are asked about each pod
//! over HTTP while the cluster goes on, and those before it count as placed meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use client::ObjectKey;
use component::aside::aside;
use tokio::time::Instant;

use crate::cycle::{Bounds, Decision as OfPod, PostFilter};
use crate::framework::Rejection;
use crate::groups::decision::{self, Decision};
use crate::groups::placement::Placement;
use crate::groups::trial::{Bench, Running, Trial};
use crate::model::PodInfo;
use crate::profile::Profile;
use crate::queue::Taken;
use crate::scheduler::{Scheduler, State, draw};

/// Narrows the nodes of a trial down.
#[derive(Clone, Copy)]
struct Limits<'a> {
    within: Option<&'a Placement>,
    post_filter: PostFilter,
}

impl Scheduler {
    /// One scheduling cycle of the group that a pod is of; see `schedule_group`.
    pub(crate) async fn schedule_group_extended(self: &Arc<Self>, first: Taken) {
        let began = Instant::now();
        let Some((group, members)) = self.begin_group(&mut self.lock(), first, began) else {
            return;
        };
        let pods: Vec<Arc<PodInfo>> = members.iter().map(|t| Arc::clone(&t.pod)).collect();
        let Some(profile) = pods.first().and_then(|pod| self.profile(pod)) else {
            return;
        };
        let decision = self.decide_extended(profile, &group, &pods).await;
        self.metrics.groups.algorithm(began.elapsed());
        let mut guard = self.lock();
        let state = &mut *guard;
        let (members, decision) = still_there(state, members, decision);
        self.conclude_group(state, profile, members, decision, began);
    }

    async fn decide_extended(
        &self,
        profile: &Profile,
        group: &ObjectKey,
        pods: &[Arc<PodInfo>],
    ) -> Decision {
        let (placements, post_filter) = {
            let mut guard = self.lock();
            with_bench(&mut guard, |bench| {
                let post_filter = decision::post_filter(profile, bench, group);
                (decision::placements(profile, bench, group), post_filter)
            })
        };
        let (placements, placed) = match placements {
            Ok(Some(placements)) => (placements, true),
            Ok(None) => (vec![None], false),
            Err(decision) => return decision,
        };
        let mut trials = Vec::new();
        for within in &placements {
            let limits = Limits {
                within: within.as_ref(),
                post_filter,
            };
            trials.push(self.try_extended(profile, pods, limits).await);
        }
        let mut guard = self.lock();
        with_bench(&mut guard, |bench| {
            let placements = placed.then_some(&*placements);
            let chosen = decision::settle(profile, bench, group, placements, trials, pods);
            // Extenders are not asked who could leave for all of the group.
            decision::with_preemption(profile, bench, group, pods, chosen)
        })
    }

    async fn try_extended(
        &self,
        profile: &Profile,
        pods: &[Arc<PodInfo>],
        limits: Limits<'_>,
    ) -> Trial {
        let mut running = Running::default();
        for pod in pods {
            let goes_on = match self.decide_member(profile, pod, limits).await {
                Ok(decision) => {
                    let cache = &mut self.lock().cache;
                    running.note(profile, cache, pod, decision)
                }
                Err(why) => running.fail(why),
            };
            if !goes_on {
                break;
            }
        }
        running.finish(&mut self.lock().cache)
    }

    /// The decision for one pod; the error says which extender failed.
    async fn decide_member(
        &self,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        limits: Limits<'_>,
    ) -> Result<OfPod, String> {
        let limits = Limits {
            post_filter: self.post_filter(pod, limits.post_filter),
            ..limits
        };
        match self.look_for_node(profile, pod, limits).await? {
            OfPod::Unschedulable(verdict) => {
                let verdict = self.preempt_extended(pod, verdict).await;
                Ok(OfPod::Unschedulable(verdict))
            }
            node => Ok(node),
        }
    }

    async fn look_for_node(
        &self,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        limits: Limits<'_>,
    ) -> Result<OfPod, String> {
        let looked = {
            let mut guard = self.lock();
            let looked = survey(&mut guard, profile, pod, limits, HashMap::new());
            looked.map(|candidates| candidates.named(&guard.cache))
        };
        let named = match looked {
            Ok(named) => named,
            Err(verdict) => return Ok(OfPod::Unschedulable(verdict)),
        };
        let asked = self.ask_extenders(pod, named).await;
        let (left, excluded) = asked.map_err(|error| error.to_string())?;
        let mut guard = self.lock();
        if let Some(node) = best(&left, &guard) {
            return Ok(OfPod::Node(node));
        }
        let excluded = excluded.into_iter();
        let excluded = excluded
            .filter_map(|(name, why)| Some((guard.cache.node_named(&name)?.slot, why)))
            .collect();
        match survey(&mut guard, profile, pod, limits, excluded) {
            Err(verdict) => Ok(OfPod::Unschedulable(verdict)),
            Ok(_) => Err("nodes have changed while extenders were asked".to_owned()),
        }
    }
}

/// One of the nodes with the highest score that are there.
fn best(left: &[(String, i64)], state: &State) -> Option<Box<str>> {
    let highest = left.iter().map(|(_, total)| *total).max();
    let best = left
        .iter()
        .filter(|(name, total)| Some(*total) == highest && state.cache.node_named(name).is_some());
    let best: Vec<&str> = best.map(|(name, _)| name.as_str()).collect();
    let drawn = draw(best.len());
    best.get(drawn).map(|name| (*name).into())
}

fn survey(
    state: &mut State,
    profile: &Profile,
    pod: &Arc<PodInfo>,
    limits: Limits<'_>,
    excluded: HashMap<usize, Rejection>,
) -> Result<crate::cycle::Candidates, crate::cycle::Unschedulable> {
    let bounds = Bounds {
        excluded,
        within: limits.within,
        post_filter: limits.post_filter,
    };
    with_bench(state, |bench| {
        let (cache, evaluations) = (&*bench.cache, &mut *bench.evaluations);
        aside(pod.is_own(), || {
            profile.survey(pod, cache, evaluations, bench.start, bounds, bench.draw)
        })
    })
}

fn with_bench<T>(state: &mut State, work: impl FnOnce(&mut Bench<'_>) -> T) -> T {
    let mut draw = draw;
    work(&mut Bench {
        cache: &mut state.cache,
        evaluations: &mut state.evaluations,
        start: &mut state.start,
        draw: &mut draw,
    })
}

/// Without pods that have been deleted meanwhile, or bound by somebody else.
fn still_there(
    state: &State,
    members: Vec<Taken>,
    mut decision: Decision,
) -> (Vec<Taken>, Decision) {
    let mut outcomes = std::mem::take(&mut decision.trial.outcomes).into_iter();
    let mut left = Vec::with_capacity(members.len());
    for taken in members {
        let outcome = outcomes.next();
        if state.queue.has(&taken.pod) {
            left.push(taken);
            decision.trial.outcomes.extend(outcome);
        }
    }
    (left, decision)
}
