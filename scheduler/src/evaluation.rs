//! What plugins say of every node for one kind of pod, in columns by the node's slot.
//! Pods of the kind share it: only nodes that have changed since the last one are looked
//! at again. Pure.

mod attempt;
mod highest;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

pub use attempt::Attempt;

use self::highest::Highest;
use crate::cache::{Cache, NodeInfo};
use crate::framework::{Filter, LocalFilter, LocalScore, Normalize, Rejection, Score, Wide};
use crate::model::{PodInfo, Template};
use crate::plugins::default_preemption::Trials;
use crate::profile::Profile;

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
    /// `base` of the nodes that take the pod.
    best: Highest,
    /// Of which nodes one of `raw` says something.
    uneven: Vec<bool>,
    uneven_nodes: usize,
    /// What preemption on single nodes would cost.
    trials: RefCell<Trials>,
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
            best: Highest::default(),
            uneven: Vec::new(),
            uneven_nodes: 0,
            trials: RefCell::default(),
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
            self.uneven.resize(slot + 1, false);
            for column in &mut self.raw {
                column.resize(slot + 1, 0);
            }
        }
        for wide in self.wides() {
            wide.refresh(slot, cluster);
        }
        self.trials.get_mut().forget(slot);
        let node = cluster.node(slot).filter(|node| match &self.only {
            Some(only) => only.names.iter().any(|name| **name == *node.name),
            None => true,
        });
        let verdict = match node.map(|node| self.judge_locally(node, cluster)) {
            None => ABSENT,
            Some(Ok(())) => FEASIBLE,
            Some(Err((place, rejection))) => number(&mut self.rejections, place, rejection),
        };
        self.verdicts[slot] = verdict;
        let mut uneven = false;
        if let Some(node) = node {
            let scores = self.scores.iter();
            let scores = scores.map(|(weight, score)| weight * score(node, cluster));
            self.base[slot] = scores.sum();
            for ((_, score, _), column) in self.normalized.iter().zip(&mut self.raw) {
                column[slot] = score(node, cluster);
                uneven |= column[slot] != 0;
            }
        }
        self.best
            .set(slot, (verdict == FEASIBLE).then(|| self.base[slot]));
        let before = std::mem::replace(&mut self.uneven[slot], uneven);
        self.uneven_nodes += usize::from(uneven);
        self.uneven_nodes -= usize::from(before);
    }

    /// A node with the highest score, where nothing but what is kept has a say; `None` where
    /// that is not so, or no node takes the pod. `draw(n)` picks one of n.
    pub fn pick(&self, cluster: &Cache, draw: &mut dyn FnMut(usize) -> usize) -> Option<usize> {
        let plain = self.rejected.is_none()
            && self
                .rejections
                .iter()
                .all(|(_, rejection)| !rejection.error)
            && self.uneven_nodes == 0
            && self.wide_scores.iter().all(|(_, wide)| wide.is_idle())
            && self.filters.iter().all(|kept| match kept {
                Kept::Skip | Kept::Local(_) => true,
                Kept::Wide(wide) => wide.is_idle(),
                Kept::Own => false,
            })
            && cluster.nominated_kinds().all(|kind| self.ignores(kind));
        plain.then(|| self.best.pick(draw))?
    }

    /// Whether pods of a kind that come to a node or leave it change only what local filters
    /// say of it.
    fn ignores(&self, kind: &Template) -> bool {
        self.filters.iter().all(|kept| match kept {
            Kept::Skip | Kept::Local(_) => true,
            Kept::Wide(wide) => wide.ignores(kind),
            Kept::Own => false,
        })
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

#[cfg(test)]
mod tests;
