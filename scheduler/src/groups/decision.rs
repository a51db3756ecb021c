//! The decision for a group: which placement takes it, and what is done where none does.

use std::sync::Arc;

use client::ObjectKey;

use super::placement::{Placement, Proposal, everywhere};
use super::preemption::{self, Hopeless, Victims};
use super::trial::{self, Bench, Outcome, Trial, Verdict};
use crate::cycle::PostFilter;
use crate::model::PodInfo;
use crate::profile::Profile;

pub const UNSCHEDULABLE: &str = "pod group is unschedulable";

/// What is decided for a group, and in which words its condition tells so.
#[derive(Debug)]
pub struct Decision {
    pub trial: Trial,
    /// Of a group that is not scheduled.
    pub message: String,
    /// Pods all over the cluster that have to go (KEP-5710).
    pub victims: Option<Victims>,
}

impl Decision {
    fn failed(why: String) -> Self {
        let trial = Trial {
            outcomes: Vec::new(),
            verdict: Verdict::Failed(why),
        };
        Self::of(trial)
    }

    fn of(trial: Trial) -> Self {
        let message = match &trial.verdict {
            Verdict::Schedulable => String::new(),
            Verdict::AfterPreemption => {
                format!("{UNSCHEDULABLE}, pod group is waiting for preemption to complete")
            }
            Verdict::Unschedulable => UNSCHEDULABLE.to_owned(),
            Verdict::Failed(why) => why.clone(),
        };
        Self {
            trial,
            message,
            victims: None,
        }
    }
}

/// Decides for the pods of a group that have no node, in this order. They are all of the
/// same profile.
pub fn decide(
    profile: &Profile,
    bench: &mut Bench<'_>,
    group: &ObjectKey,
    pods: &[Arc<PodInfo>],
) -> Decision {
    let post_filter = post_filter(profile, bench, group);
    let decision = place(profile, bench, group, pods, post_filter);
    with_preemption(profile, bench, group, pods, decision)
}

/// A decision, and who has to leave where it is that no node takes the group.
pub fn with_preemption(
    profile: &Profile,
    bench: &mut Bench<'_>,
    group: &ObjectKey,
    pods: &[Arc<PodInfo>],
    mut decision: Decision,
) -> Decision {
    if profile.groups.preempts && unschedulable(&decision.trial.verdict) {
        match preemption::preempt(profile, bench, group, pods) {
            Ok(victims) => {
                decision.trial.verdict = Verdict::AfterPreemption;
                decision.victims = Some(victims);
            }
            Err(Hopeless::Refused(why)) => decision.message.push_str(&format!(", {why}")),
            Err(Hopeless::Failed(why)) => {
                decision.trial.verdict = Verdict::Failed(why.clone());
                decision.message = why;
            }
        }
    }
    decision
}

fn unschedulable(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Unschedulable | Verdict::AfterPreemption)
}

/// Whether single pods of the group may have others leave.
pub fn post_filter(profile: &Profile, bench: &Bench<'_>, group: &ObjectKey) -> PostFilter {
    if profile.groups.placements {
        let Some(object) = bench.cache.groups.object(group) else {
            return PostFilter::Refuse("pod group for pod not found");
        };
        if object.spec.scheduling_constraints.is_some() {
            return PostFilter::Refuse(
                "not eligible due to placement-based pod group scheduling limitation",
            );
        }
    }
    if profile.groups.preempts {
        return PostFilter::Refuse("not eligible due to workload aware preemption enabled");
    }
    PostFilter::Run
}

/// Tries the group in each of its placements, and takes the best that takes it.
pub fn place(
    profile: &Profile,
    bench: &mut Bench<'_>,
    group: &ObjectKey,
    pods: &[Arc<PodInfo>],
    post_filter: PostFilter,
) -> Decision {
    let placements = match placements(profile, bench, group) {
        Ok(placements) => placements,
        Err(failed) => return failed,
    };
    let mut trials = Vec::new();
    for within in placements.as_deref().unwrap_or(&[None]) {
        let within = within.as_ref();
        trials.push(trial::run(profile, bench, pods, within, post_filter));
    }
    settle(profile, bench, group, placements.as_deref(), trials, pods)
}

/// What comes of trials, one for each placement or the only one.
pub fn settle(
    profile: &Profile,
    bench: &mut Bench<'_>,
    group: &ObjectKey,
    placements: Option<&[Option<Placement>]>,
    mut trials: Vec<Trial>,
    pods: &[Arc<PodInfo>],
) -> Decision {
    let failed = |trial: &Trial| matches!(trial.verdict, Verdict::Failed(_));
    if let Some(at) = trials.iter().position(failed) {
        return Decision::of(trials.swap_remove(at));
    }
    match placements {
        Some(placements) => choose(profile, bench, group, placements, trials, pods),
        None => Decision::of(trials.swap_remove(0)),
    }
}

/// Sets of nodes to try a group in, one of which may be all (`None`); nothing at all where
/// groups have no placements.
pub fn placements(
    profile: &Profile,
    bench: &Bench<'_>,
    group: &ObjectKey,
) -> Result<Option<Vec<Option<Placement>>>, Decision> {
    if !profile.groups.placements {
        return Ok(None);
    }
    let Some(generator) = &profile.groups.generator else {
        return Ok(Some(vec![None]));
    };
    match generator.placements(group, bench.cache) {
        Err(why) => Err(Decision::failed(why)),
        Ok(None) => Ok(Some(vec![None])),
        Ok(Some(placements)) if placements.is_empty() => {
            let trial = Trial {
                outcomes: Vec::new(),
                verdict: Verdict::Unschedulable,
            };
            let mut decision = Decision::of(trial);
            decision.message = "no feasible placements found".to_owned();
            Err(decision)
        }
        Ok(Some(placements)) => Ok(Some(placements.into_iter().map(Some).collect())),
    }
}

/// The best of trials in placements, one each; there is at least one.
fn choose(
    profile: &Profile,
    bench: &mut Bench<'_>,
    group: &ObjectKey,
    placements: &[Option<Placement>],
    mut trials: Vec<Trial>,
    pods: &[Arc<PodInfo>],
) -> Decision {
    let takes = |trial: &Trial| {
        matches!(
            trial.verdict,
            Verdict::Schedulable | Verdict::AfterPreemption
        )
    };
    let good: Vec<usize> = (0..trials.len()).filter(|at| takes(&trials[*at])).collect();
    match *good {
        [] => {
            let count = trials.len();
            let mut decision = Decision::of(trials.swap_remove(0));
            decision.message = format!(
                "0/{count} placements are available, first placement status: {UNSCHEDULABLE}"
            );
            decision
        }
        [only] => Decision::of(trials.swap_remove(only)),
        _ => {
            let everywhere = everywhere(bench.cache);
            let proposals: Vec<Proposal<'_>> = good
                .iter()
                .map(|at| Proposal {
                    placement: placements[*at].as_ref().unwrap_or(&everywhere),
                    placed: bench.cache.groups.placed_count(group),
                    pods: proposed(&trials[*at], pods),
                })
                .collect();
            let totals = totals(profile, bench, &proposals);
            let highest = totals.iter().max();
            let best = totals.iter().zip(&good);
            let best: Vec<usize> = best
                .filter(|(total, _)| Some(*total) == highest)
                .map(|(_, at)| *at)
                .collect();
            let drawn = (bench.draw)(best.len()).min(best.len() - 1);
            Decision::of(trials.swap_remove(best[drawn]))
        }
    }
}

/// Pods that a trial has found a node for.
fn proposed<'a>(trial: &Trial, pods: &'a [Arc<PodInfo>]) -> Vec<&'a Arc<PodInfo>> {
    let outcomes = trial.outcomes.iter().zip(pods);
    outcomes
        .filter(|(outcome, _)| matches!(outcome, Outcome::Fits { .. } | Outcome::Preempts { .. }))
        .map(|(_, pod)| pod)
        .collect()
}

/// Weighted sums of what plugins say of placements.
fn totals(profile: &Profile, bench: &Bench<'_>, proposals: &[Proposal<'_>]) -> Vec<i64> {
    let mut totals = vec![0; proposals.len()];
    for (plugin, weight) in &profile.groups.scores {
        let scores = proposals.iter();
        let scores = scores.map(|proposal| plugin.score_placement(proposal, bench.cache));
        let mut scores: Vec<i64> = scores.collect();
        plugin.normalize_placements(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += weight * score;
        }
    }
    totals
}
