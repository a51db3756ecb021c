//! One pod's attempt at the cluster: what is kept for its kind, and what is its own.

use std::collections::HashMap;
use std::sync::Arc;

use super::{ABSENT, Evaluation, FEASIBLE, Kept, number, yields_to};
use crate::cache::{Cache, NodeInfo};
use crate::framework::{Filter, Judged, Own, Rejection, Relief, Shift, Verdict};
use crate::groups::placement::Placement;
use crate::model::PodInfo;
use crate::plugins::default_preemption::Trial;
use crate::profile::{EXTENDER, Profile};

pub struct Attempt<'a> {
    pub pod: &'a Arc<PodInfo>,
    pub cluster: &'a Cache,
    evaluation: &'a Evaluation,
    own: Vec<(usize, Box<dyn Own>)>,
    /// Weights of their scores.
    own_weights: Vec<i64>,
    /// See [`Evaluation::rejected`].
    pub rejected: Option<(usize, Rejection)>,
    /// Different rejections so far, with the places of their plugins.
    pub rejections: Vec<(usize, Rejection)>,
    /// Slots of nodes that pods are nominated for; empty when there are none, or only such
    /// that make no difference beyond what local filters have said.
    nominated: Vec<bool>,
    /// The node that this pod is nominated for.
    own_slot: Option<usize>,
    /// Whether filters that are not local say anything.
    beyond: bool,
    /// Slots of nodes that extenders have said no to.
    pub excluded: HashMap<usize, Rejection>,
    /// The only nodes that come into question.
    pub within: Option<&'a Placement>,
}

impl<'a> Attempt<'a> {
    pub fn new(
        profile: &Profile,
        pod: &'a Arc<PodInfo>,
        cluster: &'a Cache,
        evaluation: &'a Evaluation,
    ) -> Self {
        let mut rejected = evaluation.rejected.clone();
        let mut own: Vec<(usize, Box<dyn Own>)> = Vec::new();
        let mut own_weights = Vec::new();
        for (place, plugin) in profile.filters.iter().enumerate() {
            if !matches!(evaluation.filters.get(place), Some(Kept::Own)) {
                continue;
            }
            match plugin.filter(pod, cluster) {
                Filter::Own(filter) => {
                    let mut scores = profile.scores.iter();
                    let score = scores.find(|(scorer, _)| scorer.name() == plugin.name());
                    own_weights.push(score.map_or(0, |(_, weight)| *weight));
                    own.push((place, filter));
                }
                Filter::Reject(rejection)
                    if rejected.as_ref().is_none_or(|(before, _)| place < *before) =>
                {
                    rejected = Some((place, rejection));
                }
                _ => {}
            }
        }
        let mut nominated = Vec::new();
        let crowds = cluster
            .nominated_kinds()
            .any(|kind| !evaluation.ignores(kind));
        let slots = crowds.then(|| cluster.nominated_slots());
        for slot in slots.into_iter().flatten() {
            if nominated.len() <= slot {
                nominated.resize(slot + 1, false);
            }
            nominated[slot] = true;
        }
        let own_slot = cluster
            .nomination(&pod.key)
            .and_then(|name| Some(cluster.node_named(name)?.slot));
        let wide = evaluation
            .filters
            .iter()
            .any(|kept| matches!(kept, Kept::Wide(wide) if !wide.is_idle()));
        Self {
            beyond: wide || !own.is_empty(),
            pod,
            cluster,
            evaluation,
            own,
            own_weights,
            rejected,
            rejections: evaluation.rejections.clone(),
            nominated,
            own_slot,
            excluded: HashMap::new(),
            within: None,
        }
    }

    /// Whether the node comes into question.
    pub fn covers(&self, slot: usize) -> bool {
        self.within.is_none_or(|within| within.contains(slot))
    }

    /// How many nodes come into question.
    pub fn node_count(&self) -> usize {
        let within = self.within.map(Placement::node_count);
        within.unwrap_or_else(|| self.cluster.node_count())
    }

    /// What local filters say of a node: see [`Attempt::verdict`].
    fn local_verdict(&self, slot: usize) -> u16 {
        let verdicts = &self.evaluation.verdicts;
        verdicts.get(slot).copied().unwrap_or(ABSENT)
    }

    /// Whether all that is asked of nodes is asked for all pods of the kind.
    pub fn is_shared(&self) -> bool {
        self.own.is_empty()
    }

    /// Of every node, by slot, where [`Attempt::is_shared`]: [`FEASIBLE`], [`ABSENT`] or one
    /// more than the place in `rejections`.
    pub fn verdicts(&mut self) -> Vec<u16> {
        let mut verdicts = self.evaluation.verdicts.clone();
        verdicts.resize(self.cluster.slots(), ABSENT);
        for (place, kept) in self.evaluation.filters.iter().enumerate() {
            if let Kept::Wide(wide) = kept
                && !wide.is_idle()
            {
                let judged = wide.judge_all(verdicts.len(), self.cluster);
                self.take_in(&mut verdicts, place, &judged);
            }
        }
        let nominated = (self.nominated.iter().enumerate()).filter(|(_, is)| **is);
        let nominated = nominated.map(|(slot, _)| slot);
        let special: Vec<usize> = nominated.chain(self.own_slot).collect();
        for slot in special {
            verdicts[slot] = self.verdict_of_plugins(slot);
        }
        let excluded = std::mem::take(&mut self.excluded);
        for (slot, why) in &excluded {
            if let Some(verdict) = verdicts.get_mut(*slot).filter(|v| **v == FEASIBLE) {
                *verdict = number(&mut self.rejections, EXTENDER, why.clone());
            }
        }
        self.excluded = excluded;
        verdicts
    }

    /// What a filter says of all nodes, where none before it has rejected them.
    fn take_in(&mut self, verdicts: &mut [u16], place: usize, judged: &Judged) {
        // By number: whether it is of a later place.
        let later = |rejections: &[(usize, Rejection)], verdict: u16| match verdict {
            FEASIBLE => true,
            ABSENT => false,
            n => rejections[usize::from(n) - 1].0 > place,
        };
        let mut numbers = vec![None; judged.rejections.len()];
        for (verdict, said) in verdicts.iter_mut().zip(&judged.said) {
            if *said == 0 || !later(&self.rejections, *verdict) {
                continue;
            }
            let at = usize::from(*said) - 1;
            *verdict = *numbers[at].get_or_insert_with(|| {
                number(&mut self.rejections, place, judged.rejections[at].clone())
            });
        }
    }

    /// As [`Attempt::verdicts`], of one node.
    pub fn verdict(&mut self, slot: usize) -> u16 {
        match self.verdict_of_plugins(slot) {
            FEASIBLE if !self.excluded.is_empty() => match self.excluded.get(&slot) {
                Some(why) => number(&mut self.rejections, EXTENDER, why.clone()),
                None => FEASIBLE,
            },
            verdict => verdict,
        }
    }

    fn verdict_of_plugins(&mut self, slot: usize) -> u16 {
        let local = self.local_verdict(slot);
        let nominated = self.nominated.get(slot) == Some(&true);
        if local == ABSENT || !(self.beyond || nominated || self.own_slot == Some(slot)) {
            return local;
        }
        let before = match local {
            FEASIBLE => usize::MAX,
            n => self.rejections[usize::from(n) - 1].0,
        };
        let Some(node) = self.cluster.node(slot) else {
            return ABSENT;
        };
        let verdict = if self.own_slot == Some(slot) {
            // Others of its kind have to yield to it; it does not.
            match self.judge(node, &[]) {
                Ok(()) => return FEASIBLE,
                Err(rejected) => Err(rejected),
            }
        } else {
            self.judge_beyond(node, before, nominated)
        };
        match verdict {
            Ok(()) => local,
            Err((place, rejection)) => number(&mut self.rejections, place, rejection),
        }
    }

    /// Filters that are not local and come before a place.
    fn judge_beyond(
        &self,
        node: &NodeInfo,
        before: usize,
        nominated: bool,
    ) -> Result<(), (usize, Rejection)> {
        let judge = |shifts: &[Shift]| {
            for (place, kept) in self.evaluation.filters.iter().enumerate().take(before) {
                let verdict = match kept {
                    Kept::Skip | Kept::Local(_) => continue,
                    Kept::Wide(wide) if shifts.is_empty() && wide.is_idle() => continue,
                    Kept::Wide(wide) => wide.judge(node, shifts, self.cluster),
                    Kept::Own => self.judge_own(place, node, shifts),
                };
                verdict.map_err(|rejection| (place, rejection))?;
            }
            Ok(())
        };
        if nominated {
            let come = self.yields_to(node);
            if !come.is_empty() {
                judge(&come)?;
            }
        }
        judge(&[])
    }

    /// Pods that are nominated for the node and that this one has to yield to.
    fn yields_to(&self, node: &NodeInfo) -> Vec<Shift> {
        // Only there can it be one of them itself.
        let own = self.own_slot == Some(node.slot);
        yields_to(self.pod.priority, node, self.cluster)
            .filter(|other| !own || other.uid != self.pod.uid)
            .map(|pod| Shift {
                pod: Arc::clone(pod),
                by: 1,
            })
            .collect()
    }

    fn judge_own(&self, place: usize, node: &NodeInfo, shifts: &[Shift]) -> Verdict {
        match self.own.iter().find(|(p, _)| *p == place) {
            Some((_, own)) => own.judge(node, shifts, self.cluster),
            None => Ok(()),
        }
    }

    /// All filters on a node that may be an imagined one: `shifts` says how it differs from
    /// the real one. Pods that are nominated for it are considered
    /// (`RunFilterPluginsWithNominatedPods`).
    pub fn judge(&self, node: &NodeInfo, shifts: &[Shift]) -> Result<(), (usize, Rejection)> {
        let come = self.yields_to(node);
        if !come.is_empty() {
            let mut crowded = node.clone();
            come.iter().for_each(|shift| crowded.add(&shift.pod));
            let more = [shifts, &come].concat();
            self.judge_once(&crowded, &more)?;
        }
        self.judge_once(node, shifts)
    }

    fn judge_once(&self, node: &NodeInfo, shifts: &[Shift]) -> Result<(), (usize, Rejection)> {
        for (place, kept) in self.evaluation.filters.iter().enumerate() {
            let verdict = match kept {
                Kept::Skip => continue,
                Kept::Local(filter) => filter(node),
                Kept::Wide(wide) => wide.judge(node, shifts, self.cluster),
                Kept::Own => self.judge_own(place, node, shifts),
            };
            verdict.map_err(|rejection| (place, rejection))?;
        }
        Ok(())
    }

    /// What preemption on a node would cost, kept until the node changes where nothing else
    /// has a say; `budgets` is which version of them counts.
    pub fn trial(&self, slot: usize, budgets: u64, find: impl FnOnce() -> Trial) -> Arc<Trial> {
        let filters = &self.evaluation.filters;
        let kept = self.own_slot != Some(slot)
            && self.nominated.is_empty()
            && !self.beyond
            && filters.iter().all(|kept| !matches!(kept, Kept::Own));
        if !kept {
            return Arc::new(find());
        }
        self.evaluation.trials.borrow_mut().get(slot, budgets, find)
    }

    /// Whether the last of the nodes looked at made a plugin fail; there is no verdict then,
    /// whatever it says of others.
    pub fn has_failed(&self) -> bool {
        self.rejections.last().is_some_and(|(_, last)| last.error)
    }

    /// Why a plugin failed, if one did.
    pub fn error(&self) -> Option<String> {
        let all = self.rejections.iter().chain(&self.rejected);
        let failed = all.map(|(_, rejection)| rejection).find(|r| r.error);
        failed.map(|rejection| rejection.reasons.join(", "))
    }

    /// What may help the pod, by the places of who says so.
    pub fn reliefs(&self) -> impl Iterator<Item = (usize, Relief)> {
        self.own.iter().map(|(place, own)| (*place, own.relief()))
    }

    /// Weighted sums of the scores of feasible nodes.
    pub fn totals(&self, slots: &[usize]) -> Vec<i64> {
        let evaluation = self.evaluation;
        let mut totals: Vec<i64> = slots.iter().map(|slot| evaluation.base[*slot]).collect();
        let uneven = evaluation.uneven_nodes > 0;
        let normalized = evaluation.normalized.iter().zip(&evaluation.raw);
        for ((weight, _, normalize), column) in normalized.filter(|_| uneven) {
            let mut scores: Vec<i64> = slots.iter().map(|slot| column[*slot]).collect();
            if scores.iter().all(|score| *score == 0) {
                continue;
            }
            normalize.apply(&mut scores);
            add(&mut totals, &scores, *weight);
        }
        for (weight, (_, own)) in self.own_weights.iter().zip(&self.own) {
            if *weight > 0
                && let Some(scores) = own.score(slots)
            {
                add(&mut totals, &scores, *weight);
            }
        }
        for (weight, wide) in &evaluation.wide_scores {
            if let Some(scores) = wide.score(slots, self.cluster) {
                add(&mut totals, &scores, *weight);
            }
        }
        totals
    }
}

fn add(totals: &mut [i64], scores: &[i64], weight: i64) {
    for (total, score) in totals.iter_mut().zip(scores) {
        *total += weight * score;
    }
}
