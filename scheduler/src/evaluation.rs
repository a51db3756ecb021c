//! What plugins say of every node for one kind of pod, in columns by the node's slot.
//! Pods of the kind share it: only nodes that have changed since the last one are looked
//! at again. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::{Cache, NodeInfo};
use crate::framework::{
    Filter, LocalFilter, LocalScore, Normalize, Own, Rejection, Relief, Score, Shift, Verdict, Wide,
};
use crate::model::PodInfo;
use crate::profile::{EXTENDER, Profile};

/// A filter, by its place in the profile.
enum Kept {
    Skip,
    Local(LocalFilter),
    Wide(Box<dyn Wide>),
    /// Asked anew for each pod.
    Own,
}

/// Only these nodes, say these plugins.
pub struct Only {
    pub names: Vec<String>,
    pub plugins: Vec<&'static str>,
}

/// No node is there.
pub const ABSENT: u16 = u16::MAX;
/// The node takes the pod.
pub const FEASIBLE: u16 = 0;

pub struct Evaluation {
    /// The first of its kind.
    pod: Arc<PodInfo>,
    seen: u64,
    epoch: u64,
    filters: Vec<Kept>,
    scores: Vec<(i64, LocalScore)>,
    normalized: Vec<(i64, LocalScore, Normalize)>,
    wide_scores: Vec<(i64, Box<dyn Wide>)>,
    pub only: Option<Only>,
    /// PreFilter's: no node will do, and the place of the plugin that says so.
    pub rejected: Option<(usize, Rejection)>,
    /// What local filters say of a node: [`FEASIBLE`], [`ABSENT`] (also when it is not one
    /// of the only ones), or one more than the place in `rejections`.
    verdicts: Vec<u16>,
    rejections: Vec<(usize, Rejection)>,
    /// Sums of weighted scores that need no normalizing.
    base: Vec<i64>,
    /// Scores that do.
    raw: Vec<Vec<i64>>,
    /// When it was last asked for.
    used: u64,
}

impl Evaluation {
    fn new(profile: &Profile, pod: &Arc<PodInfo>, cluster: &Cache) -> Self {
        let mut evaluation = Self {
            pod: Arc::clone(pod),
            seen: cluster.now(),
            epoch: cluster.epoch,
            filters: Vec::new(),
            scores: Vec::new(),
            normalized: Vec::new(),
            wide_scores: Vec::new(),
            only: None,
            rejected: None,
            verdicts: Vec::new(),
            rejections: Vec::new(),
            base: Vec::new(),
            raw: Vec::new(),
            used: 0,
        };
        for (place, plugin) in profile.filters.iter().enumerate() {
            if plugin.is_own(pod) {
                evaluation.filters.push(Kept::Own);
                continue;
            }
            let kept = match plugin.filter(pod, cluster) {
                Filter::Skip | Filter::Own(_) => Kept::Skip,
                Filter::Reject(rejection) => {
                    evaluation.rejected.get_or_insert((place, rejection));
                    Kept::Skip
                }
                Filter::Local(judge) => Kept::Local(judge),
                Filter::Only(names, judge) => {
                    evaluation.narrow(names, plugin.name());
                    Kept::Local(judge)
                }
                Filter::Wide(wide) => Kept::Wide(wide),
            };
            evaluation.filters.push(kept);
        }
        // One node needs no score.
        let choice = evaluation.only.as_ref().is_none_or(|o| o.names.len() > 1);
        for (plugin, weight) in profile.scores.iter().filter(|_| choice) {
            match plugin.score(pod, cluster) {
                Score::Skip => {}
                Score::Local(score, Normalize::Not) => evaluation.scores.push((*weight, score)),
                Score::Local(score, normalize) => {
                    evaluation.normalized.push((*weight, score, normalize));
                    evaluation.raw.push(Vec::new());
                }
                Score::Wide(wide) => evaluation.wide_scores.push((*weight, wide)),
            }
        }
        for slot in evaluation.worth_a_look(cluster) {
            evaluation.look_at(slot, cluster);
        }
        evaluation.settle(cluster);
        evaluation
    }

    /// Slots of nodes of which there is something to say, or to count.
    fn worth_a_look(&mut self, cluster: &Cache) -> Vec<usize> {
        let blind = self.wides().all(|wide| wide.is_blind());
        match &self.only {
            Some(only) if blind => {
                let nodes = only
                    .names
                    .iter()
                    .filter_map(|name| cluster.node_named(name));
                nodes.map(|node| node.slot).collect()
            }
            _ => (0..cluster.slots()).collect(),
        }
    }

    fn narrow(&mut self, names: Vec<String>, plugin: &'static str) {
        match &mut self.only {
            None => {
                self.only = Some(Only {
                    names,
                    plugins: vec![plugin],
                });
            }
            Some(only) => {
                only.names.retain(|name| names.contains(name));
                only.plugins.push(plugin);
            }
        }
    }

    fn wides(&mut self) -> impl Iterator<Item = &mut Box<dyn Wide>> {
        let filters = self.filters.iter_mut().filter_map(|kept| match kept {
            Kept::Wide(wide) => Some(wide),
            _ => None,
        });
        filters.chain(self.wide_scores.iter_mut().map(|(_, wide)| wide))
    }

    fn settle(&mut self, cluster: &Cache) {
        for wide in self.wides() {
            wide.settle(cluster);
        }
    }

    /// Looks at nodes that have changed; false when that is not enough.
    fn catch_up(&mut self, cluster: &Cache) -> bool {
        if self.epoch != cluster.epoch || !self.wides().all(|wide| wide.holds(cluster)) {
            return false;
        }
        let Some(changes) = cluster.changes_since(self.seen) else {
            return false;
        };
        let mut changed: Vec<usize> = changes.collect();
        if !changed.is_empty() {
            changed.sort_unstable();
            changed.dedup();
            for slot in changed {
                self.look_at(slot, cluster);
            }
            self.settle(cluster);
        }
        self.seen = cluster.now();
        true
    }

    fn look_at(&mut self, slot: usize, cluster: &Cache) {
        if self.verdicts.len() <= slot {
            self.verdicts.resize(slot + 1, ABSENT);
            self.base.resize(slot + 1, 0);
            for column in &mut self.raw {
                column.resize(slot + 1, 0);
            }
        }
        for wide in self.wides() {
            wide.refresh(slot, cluster);
        }
        let node = cluster.node(slot).filter(|node| match &self.only {
            Some(only) => only.names.iter().any(|name| **name == *node.name),
            None => true,
        });
        let Some(node) = node else {
            self.verdicts[slot] = ABSENT;
            return;
        };
        self.verdicts[slot] = match self.judge_locally(node, cluster) {
            Ok(()) => FEASIBLE,
            Err((place, rejection)) => number(&mut self.rejections, place, rejection),
        };
        self.base[slot] = self
            .scores
            .iter()
            .map(|(weight, score)| weight * score(node, cluster))
            .sum();
        for ((_, score, _), column) in self.normalized.iter().zip(&mut self.raw) {
            column[slot] = score(node, cluster);
        }
    }

    /// Local filters, with and without pods that are nominated for the node.
    fn judge_locally(&self, node: &NodeInfo, cluster: &Cache) -> Result<(), (usize, Rejection)> {
        let judge = |node: &NodeInfo| {
            for (place, kept) in self.filters.iter().enumerate() {
                if let Kept::Local(filter) = kept {
                    filter(node).map_err(|rejection| (place, rejection))?;
                }
            }
            Ok(())
        };
        let mut nominated = yields_to(self.pod.priority, node, cluster).peekable();
        if nominated.peek().is_some() {
            let mut crowded = node.clone();
            nominated.for_each(|pod| crowded.add(pod));
            judge(&crowded)?;
        }
        judge(node)
    }
}

/// The number of a rejection in a list of different ones.
fn number(list: &mut Vec<(usize, Rejection)>, place: usize, rejection: Rejection) -> u16 {
    let known = list
        .iter()
        .position(|(p, r)| *p == place && *r == rejection);
    let at = known.unwrap_or_else(|| {
        list.push((place, rejection));
        list.len() - 1
    });
    // There are as many as plugins and resources have reasons; more share the last number.
    u16::try_from(at + 1).unwrap_or(ABSENT - 1).min(ABSENT - 1)
}

/// Pods that are nominated for the node and that one of `priority` has to yield to.
fn yields_to<'a>(
    priority: i32,
    node: &NodeInfo,
    cluster: &'a Cache,
) -> impl Iterator<Item = &'a Arc<PodInfo>> {
    let nominated = cluster.nominated_to(&node.name).iter();
    nominated.filter(move |pod| pod.priority >= priority)
}

/// How many kinds of pods evaluations are kept for: a handful of kinds are being
/// scheduled at any time, and one takes some 50 bytes per node.
const KEPT: usize = 64;

#[derive(Default)]
pub struct Evaluations {
    kept: HashMap<u32, Evaluation>,
    clock: u64,
}

impl Evaluations {
    /// The evaluation of the pod's kind as of now.
    pub fn of(
        &mut self,
        profile: &Profile,
        pod: &Arc<PodInfo>,
        cluster: &Cache,
    ) -> &mut Evaluation {
        self.clock += 1;
        let id = pod.template.id;
        let current = self
            .kept
            .get_mut(&id)
            .is_some_and(|evaluation| evaluation.catch_up(cluster));
        if !current {
            if self.kept.len() >= KEPT
                && let Some(oldest) = self
                    .kept
                    .iter()
                    .min_by_key(|(_, e)| e.used)
                    .map(|(id, _)| *id)
            {
                self.kept.remove(&oldest);
            }
            self.kept.insert(id, Evaluation::new(profile, pod, cluster));
        }
        let evaluation = self
            .kept
            .entry(id)
            .or_insert_with(|| Evaluation::new(profile, pod, cluster));
        evaluation.used = self.clock;
        evaluation
    }
}

/// One pod's attempt: its kind's evaluation, and what is its own.
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
    /// Slots of nodes that pods are nominated for; empty when there are none.
    nominated: Vec<bool>,
    /// The node that this pod is nominated for.
    own_slot: Option<usize>,
    /// Whether filters that are not local say anything.
    beyond: bool,
    /// Slots of nodes that extenders have said no to.
    pub excluded: HashMap<usize, Rejection>,
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
        for slot in cluster.nominated_slots() {
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
        }
    }

    /// What local filters say of a node: see [`Attempt::verdict`].
    fn local_verdict(&self, slot: usize) -> u16 {
        let verdicts = &self.evaluation.verdicts;
        verdicts.get(slot).copied().unwrap_or(ABSENT)
    }

    /// [`FEASIBLE`], [`ABSENT`] or one more than the place in `rejections`.
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
        if local == ABSENT || !(self.beyond || nominated) {
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
        for ((weight, _, normalize), column) in evaluation.normalized.iter().zip(&evaluation.raw) {
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

#[cfg(test)]
mod tests;
