//! The scheduling cycle: one pod, the cluster as it is, a decision. Pure.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::cache::Cache;
use crate::evaluation::{ABSENT, Attempt, Evaluations, FEASIBLE};
use crate::framework::{Plugin, Rejection, Relief};
use crate::groups::placement::Placement;
use crate::model::PodInfo;
use crate::plugins::default_preemption::{Offer, Preemption};
use crate::plugins::dynamic_resources;
use crate::profile::{Profile, Rejectors};

#[derive(Debug)]
pub enum Decision {
    Node(Box<str>),
    Unschedulable(Unschedulable),
}

/// What becomes of `status.nominatedNodeName`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nomination {
    Keep,
    Clear,
    Node(Box<str>),
}

/// Why no node takes a pod (`framework.FitError`), and what is done about it.
#[derive(Debug)]
pub struct Unschedulable {
    /// How many nodes said no, and why; then what each plugin has to say that has tried to make
    /// room.
    words: Vec<String>,
    /// Whose change of mind the pod waits for.
    pub rejectors: Rejectors,
    pub nomination: Nomination,
    /// Pods that have to go from the nominated node.
    pub victims: Vec<Arc<PodInfo>>,
    /// What is done about its claims.
    pub relief: Relief,
    /// Nodes that others could leave, of which extenders say which it is to be.
    pub offers: Box<[Offer]>,
    /// A plugin has failed: there is no verdict, and the message says why.
    pub failed: bool,
}

impl Unschedulable {
    /// With nothing done about it.
    pub fn new(reasons: String, rejectors: Rejectors) -> Self {
        Self {
            words: vec![reasons],
            rejectors,
            nomination: Nomination::Clear,
            victims: Vec::new(),
            relief: Relief::None,
            offers: Box::default(),
            failed: false,
        }
    }

    /// As upstream words it in the event and the condition.
    pub fn message(&self) -> String {
        match &*self.words {
            [reasons, attempts @ ..] if !attempts.is_empty() => {
                format!("{reasons} {}", attempts.join(", "))
            }
            words => words.concat(),
        }
    }

    /// What preemption has come to.
    pub fn preempted(&mut self, outcome: Preemption) {
        match outcome {
            Preemption::Node { name, victims } => {
                self.words.truncate(1);
                self.nomination = Nomination::Node(name);
                self.victims = victims;
            }
            Preemption::NotEligible(why) => {
                self.words.push(format!("preemption: {why}"));
                self.nomination = Nomination::Keep;
            }
            Preemption::Hopeless(why) => self.words.push(format!("preemption: {why}")),
            Preemption::Offers(offers) => self.offers = offers.into(),
            Preemption::Failed(why) => {
                self.words.truncate(1);
                self.words.push(format!("preemption: {why}"));
                self.nomination = Nomination::Keep;
            }
        }
    }
}

/// Where a pod could go.
#[derive(Debug, Default)]
pub struct Candidates {
    pub slots: Vec<usize>,
    /// Scores, in the same order; empty when there is nothing to choose.
    pub totals: Vec<i64>,
}

/// What narrows an attempt down.
#[derive(Debug, Default)]
pub struct Bounds<'a> {
    /// Nodes that extenders have said no to.
    pub excluded: HashMap<usize, Rejection>,
    /// The only nodes that come into question.
    pub within: Option<&'a Placement>,
    pub post_filter: PostFilter,
}

/// What is done for a pod that no node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PostFilter {
    #[default]
    Run,
    /// Nothing: it is only asked whether it fits.
    Skip,
    /// Others need not go, for this reason.
    Refuse(&'static str),
    /// Others may have to go, and extenders have a say in who.
    Offer,
}

/// How many nodes gave each reason, worded as upstream does.
#[derive(Debug, Default)]
pub struct Reasons(BTreeMap<Cow<'static, str>, usize>);

impl Reasons {
    pub fn add(&mut self, rejection: &Rejection, nodes: usize) {
        if nodes > 0 {
            for reason in &rejection.reasons {
                *self.0.entry(reason.clone()).or_default() += nodes;
            }
        }
    }

    /// Of so many nodes, why none is available.
    pub fn message(&self, nodes: usize) -> String {
        let mut message = format!("0/{nodes} nodes are available:");
        let mut reasons: Vec<String> = self
            .0
            .iter()
            .map(|(reason, nodes)| format!("{nodes} {reason}"))
            .collect();
        reasons.sort();
        if !reasons.is_empty() {
            message.push_str(&format!(" {}.", reasons.join(", ")));
        }
        message
    }
}

/// What came of looking at the nodes.
pub struct Failure {
    /// By slot; see [`Attempt::verdict`].
    pub verdicts: Vec<u16>,
    /// Of nodes that were not looked at.
    pub absent: Option<Rejection>,
    pub reasons: Reasons,
    /// What is said of all nodes together, instead of the reasons.
    pub beforehand: Option<String>,
    /// Why there is no verdict at all.
    pub error: Option<String>,
}

/// With fewer nodes than this all are looked at (`minFeasibleNodesToFind`).
const FEW_NODES: usize = 100;

impl Profile {
    /// How many feasible nodes are enough (`numFeasibleNodesToFind`).
    fn enough(&self, nodes: usize) -> usize {
        match self.percentage_of_nodes_to_score {
            Some(percentage @ 1..100) if nodes >= FEW_NODES => {
                (nodes * percentage / 100).max(FEW_NODES)
            }
            _ => nodes,
        }
    }

    /// Decides where a pod goes. `start` is the node to begin with when not all are looked
    /// at; it moves on so that all get their turn. `draw(n)` picks one of n.
    pub fn schedule(
        &self,
        pod: &Arc<PodInfo>,
        cluster: &Cache,
        evaluations: &mut Evaluations,
        start: &mut usize,
        draw: &mut dyn FnMut(usize) -> usize,
    ) -> Decision {
        let bounds = Bounds::default();
        self.schedule_within(pod, cluster, evaluations, start, bounds, draw)
    }

    /// As [`Profile::schedule`], within bounds.
    pub fn schedule_within(
        &self,
        pod: &Arc<PodInfo>,
        cluster: &Cache,
        evaluations: &mut Evaluations,
        start: &mut usize,
        bounds: Bounds<'_>,
        draw: &mut dyn FnMut(usize) -> usize,
    ) -> Decision {
        if bounds.within.is_none()
            && bounds.excluded.is_empty()
            && cluster.nomination(&pod.key).is_none()
            && self.enough(cluster.node_count()) >= cluster.node_count()
            && let Some(slot) = evaluations.of(self, pod, cluster).pick(cluster, draw)
            && let Some(node) = cluster.node(slot)
        {
            return Decision::Node(node.name.clone());
        }
        match self.survey(pod, cluster, evaluations, start, bounds, draw) {
            Ok(candidates) => match cluster.node(candidates.choose(draw)) {
                Some(node) => Decision::Node(node.name.clone()),
                None => unreachable!("candidates are nodes"),
            },
            Err(verdict) => Decision::Unschedulable(verdict),
        }
    }

    /// Where a pod could go.
    pub fn survey(
        &self,
        pod: &Arc<PodInfo>,
        cluster: &Cache,
        evaluations: &mut Evaluations,
        start: &mut usize,
        bounds: Bounds<'_>,
        draw: &mut dyn FnMut(usize) -> usize,
    ) -> Result<Candidates, Unschedulable> {
        if cluster.node_count() == 0 {
            let reasons = "no nodes available to schedule pods".to_owned();
            return Err(Unschedulable::new(reasons, Rejectors::default()));
        }
        let evaluation = evaluations.of(self, pod, cluster);
        let only = evaluation.only.as_ref();
        let only = only.map(|o| (&*o.names, &*o.plugins));
        let mut attempt = Attempt::new(self, pod, cluster, evaluation);
        attempt.excluded = bounds.excluded;
        attempt.within = bounds.within;
        let post_filter = bounds.post_filter;
        self.look(&mut attempt, only, start)
            .map_err(|failed| self.give_up(&attempt, &failed.0, failed.1, post_filter, draw))
    }

    /// Finds nodes that take the pod.
    fn look(
        &self,
        attempt: &mut Attempt<'_>,
        only: Option<(&[String], &[&'static str])>,
        start: &mut usize,
    ) -> Result<Candidates, Box<(Failure, Rejectors)>> {
        let cluster = attempt.cluster;
        let mut rejectors = Rejectors::default();
        if let Some((place, rejection)) = &attempt.rejected {
            rejectors.insert(*place);
            let failure = Failure {
                verdicts: Vec::new(),
                error: attempt.error(),
                beforehand: Some(rejection.reasons.join(", ")),
                absent: Some(rejection.clone()),
                reasons: Reasons::default(),
            };
            return Err(Box::new((failure, rejectors)));
        }
        // A node that the pod is nominated for is most likely the only one.
        let nominated = cluster.nomination(&attempt.pod.key);
        if let Some(node) = nominated.and_then(|name| cluster.node_named(name))
            && only.is_none_or(|(names, _)| names.iter().any(|n| **n == *node.name))
            && attempt.covers(node.slot)
            && !attempt.excluded.contains_key(&node.slot)
            && attempt.judge(node, &[]).is_ok()
        {
            return Ok(Candidates {
                slots: vec![node.slot],
                totals: Vec::new(),
            });
        }
        let mut feasible = Vec::new();
        let (within, nodes) = (attempt.within, attempt.node_count());
        let verdicts = match only {
            Some((names, _)) => {
                let mut verdicts = vec![ABSENT; cluster.slots()];
                let nodes = names.iter().filter_map(|name| cluster.node_named(name));
                for node in nodes.filter(|node| within.is_none_or(|w| w.contains(node.slot))) {
                    verdicts[node.slot] = attempt.verdict(node.slot);
                    if verdicts[node.slot] == FEASIBLE {
                        feasible.push(node.slot);
                    }
                    if attempt.has_failed() {
                        break;
                    }
                }
                verdicts
            }
            None => {
                let slots = cluster.slots();
                let enough = self.enough(nodes);
                let mut verdicts = match attempt.is_shared() {
                    true => attempt.verdicts(),
                    false => vec![ABSENT; slots],
                };
                let first = *start % slots;
                feasible.reserve(enough.min(slots));
                for slot in (first..slots).chain(0..first) {
                    if within.is_some_and(|within| !within.contains(slot)) {
                        verdicts[slot] = ABSENT;
                        continue;
                    }
                    if !attempt.is_shared() {
                        verdicts[slot] = attempt.verdict(slot);
                        if attempt.has_failed() {
                            break;
                        }
                    }
                    if verdicts[slot] == FEASIBLE {
                        feasible.push(slot);
                        if feasible.len() >= enough {
                            *start = slot + 1;
                            break;
                        }
                    }
                }
                verdicts
            }
        };
        if let Some(error) = attempt.error() {
            let failure = Failure {
                verdicts,
                absent: None,
                reasons: Reasons::default(),
                beforehand: None,
                error: Some(error),
            };
            return Err(Box::new((failure, rejectors)));
        }
        if !feasible.is_empty() {
            let totals = if feasible.len() > 1 {
                attempt.totals(&feasible)
            } else {
                Vec::new()
            };
            return Ok(Candidates {
                slots: feasible,
                totals,
            });
        }
        let mut counts = vec![0; attempt.rejections.len()];
        let mut looked_at = 0;
        for verdict in verdicts.iter().filter(|v| **v != ABSENT) {
            counts[usize::from(*verdict) - 1] += 1;
            looked_at += 1;
        }
        let mut reasons = Reasons::default();
        for ((place, rejection), count) in attempt.rejections.iter().zip(counts) {
            if count > 0 {
                rejectors.insert(*place);
                reasons.add(rejection, count);
            }
        }
        let absent = only.map(|(_, plugins)| {
            for (place, plugin) in self.filters.iter().enumerate() {
                if plugins.contains(&plugin.name()) {
                    rejectors.insert(place);
                }
            }
            Rejection::unresolvable(format!(
                "node(s) didn't satisfy plugin(s) [{}]",
                plugins.join(" ")
            ))
        });
        if let Some(absent) = &absent {
            reasons.add(absent, nodes - looked_at);
        }
        let failure = Failure {
            verdicts,
            absent,
            reasons,
            beforehand: None,
            error: None,
        };
        Err(Box::new((failure, rejectors)))
    }

    /// PostFilter: whether preemption helps, and the words for what came of it all.
    fn give_up(
        &self,
        attempt: &Attempt<'_>,
        failure: &Failure,
        rejectors: Rejectors,
        post_filter: PostFilter,
        draw: &mut dyn FnMut(usize) -> usize,
    ) -> Unschedulable {
        let nodes = attempt.node_count();
        let reasons = match (&failure.error, &failure.beforehand) {
            (Some(error), _) => error.clone(),
            (None, Some(words)) => format!("0/{nodes} nodes are available: {words}."),
            (None, None) => failure.reasons.message(nodes),
        };
        let mut result = Unschedulable::new(reasons, rejectors);
        if failure.error.is_some() {
            result.failed = true;
            result.nomination = Nomination::Keep;
            return result;
        }
        if post_filter == PostFilter::Skip {
            return result;
        }
        let place = |plugin: &Arc<dyn Plugin>| plugin.name() == dynamic_resources::NAME;
        let reached = self
            .filters
            .iter()
            .position(place)
            .is_some_and(|at| rejectors.contains(at));
        if self.deallocates && failure.beforehand.is_some() && !reached {
            // Upstream's DynamicResources misses what its PreFilter, which was not reached,
            // would have left, and ends PostFilter with these words.
            result.words.push("not found".to_owned());
            result.nomination = Nomination::Keep;
            return result;
        }
        if self.deallocates {
            let reliefs = attempt.reliefs();
            let mut reliefs = reliefs.filter(|_| failure.beforehand.is_none());
            let relief = reliefs.find(|(at, _)| self.filters.get(*at).is_some_and(place));
            result.relief = relief
                .as_ref()
                .map_or(Relief::None, |(_, relief)| relief.clone());
            let said = match (&relief, &result.relief) {
                (None, _) => "no new claims to deallocate",
                (_, Relief::None) => "still not schedulable",
                (_, Relief::Deallocate(_)) => "deallocation of ResourceClaim completed",
                (_, Relief::Delete(_)) => "deletion of ResourceClaim completed",
            };
            result.words.push(said.to_owned());
        }
        if let Some(preemption) = &self.preemption {
            result.preempted(match post_filter {
                PostFilter::Refuse(why) => Preemption::NotEligible(why),
                PostFilter::Offer => preemption.offer(attempt, failure, draw),
                PostFilter::Run | PostFilter::Skip => preemption.preempt(attempt, failure, draw),
            });
        }
        result
    }
}

impl Candidates {
    /// Names of nodes with their scores.
    pub fn named(&self, cluster: &Cache) -> Vec<(String, i64)> {
        let slots = self.slots.iter().enumerate();
        let named = slots.filter_map(|(i, slot)| {
            let total = self.totals.get(i).copied().unwrap_or(0);
            Some((cluster.node(*slot)?.name.to_string(), total))
        });
        named.collect()
    }

    /// The slot of the best, of several equal ones any.
    pub fn choose(&self, draw: &mut dyn FnMut(usize) -> usize) -> usize {
        let (mut highest, mut shared) = (i64::MIN, 0);
        for total in &self.totals {
            match total.cmp(&highest) {
                Ordering::Less => {}
                Ordering::Equal => shared += 1,
                Ordering::Greater => (highest, shared) = (*total, 1),
            }
        }
        if shared == 0 {
            return self.slots[0];
        }
        let drawn = draw(shared).min(shared - 1);
        let totals = self.totals.iter().enumerate();
        let mut best = totals.filter(|(_, total)| **total == highest);
        let at = best.nth(drawn).map_or(0, |(at, _)| at);
        self.slots[at]
    }
}

#[cfg(test)]
mod speed;
#[cfg(test)]
pub mod tests;
