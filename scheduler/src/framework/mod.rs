//! What a plugin is, and how plugins together judge a pod and its nodes.
//!
//! A plugin prepares once per *kind* of pod (PreFilter, PreScore) and hands back what
//! judges nodes (Filter, Score): that is upstream's `CycleState`, typed, and kept from one
//! pod to the next of its kind. A [`Filter::Local`] looks at one node alone, so its
//! verdicts are kept until the node changes; a [`Wide`] one keeps counters of domains and
//! is told which nodes have changed.
//!
//! What must not be here: any particular plugin, queues, I/O.

mod event;

use std::borrow::Cow;
use std::sync::Arc;

use client::ObjectKey;
pub use event::{ClusterEvent, Hint};
use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::cache::{Cache, NodeInfo};
use crate::groups::placement::{Placement, Proposal};
use crate::model::{PodInfo, Template};

/// Why a node does not take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// As upstream words it: events and conditions carry these.
    pub reasons: Vec<Cow<'static, str>>,
    /// No pod going away would change it (`UnschedulableAndUnresolvable`).
    pub unresolvable: bool,
    /// It is no verdict: the plugin failed, and with it the attempt.
    pub error: bool,
}

impl Rejection {
    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reasons: vec![reason.into()],
            unresolvable: true,
            error: false,
        }
    }

    /// For no reason that is known.
    pub fn wordless() -> Self {
        Self {
            reasons: Vec::new(),
            unresolvable: true,
            error: false,
        }
    }

    /// A plugin has failed, for this reason.
    pub fn error(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reasons: vec![reason.into()],
            unresolvable: true,
            error: true,
        }
    }

    pub fn resolvable(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reasons: vec![reason.into()],
            unresolvable: false,
            error: false,
        }
    }
}

pub type Verdict = Result<(), Rejection>;

/// A pod that is thought to have come to the judged node, or to have left it.
#[derive(Debug, Clone)]
pub struct Shift {
    pub pod: Arc<PodInfo>,
    /// 1 or -1.
    pub by: i64,
}

pub type LocalFilter = Box<dyn Fn(&NodeInfo) -> Verdict + Send>;
pub type LocalScore = Box<dyn Fn(&NodeInfo, &Cache) -> i64 + Send>;

/// A plugin's answer to PreFilter.
pub enum Filter {
    /// Nothing of this pod concerns the plugin.
    Skip,
    /// No node will do.
    Reject(Rejection),
    /// Judges each node by itself.
    Local(LocalFilter),
    /// Only nodes of these names come into question; each is judged by itself.
    Only(Vec<String>, LocalFilter),
    /// Judges nodes by what is on others, too.
    Wide(Box<dyn Wide>),
    /// Judges for this very pod; not kept for others of its kind.
    Own(Box<dyn Own>),
}

impl Filter {
    /// See [`Filter::Own`].
    pub fn own(judge: impl Fn(&NodeInfo, &[Shift], &Cache) -> Verdict + Send + 'static) -> Self {
        Self::Own(Box::new(judge))
    }
}

/// A plugin's answer to PreScore. Scores are 0 to [`MAX_SCORE`] once normalized.
pub enum Score {
    Skip,
    Local(LocalScore, Normalize),
    Wide(Box<dyn Wide>),
}

/// What a filter says of all nodes.
#[derive(Debug, Default)]
pub struct Judged {
    /// By slot: 0 where the pod may go, or else one more than the place of the rejection.
    /// What is said of slots without a node does not matter.
    pub said: Vec<u8>,
    pub rejections: Vec<Rejection>,
}

/// Counters of domains, kept for one kind of pod.
pub trait Wide: Send {
    /// A node has changed, come or gone.
    fn refresh(&mut self, slot: usize, cluster: &Cache);

    /// Whether it has nothing to count, whatever nodes change, as long as it holds.
    fn is_blind(&self) -> bool {
        false
    }

    /// All changed nodes have been told of.
    fn settle(&mut self, _cluster: &Cache) {}

    /// False when it was made from something that has changed since.
    fn holds(&mut self, _cluster: &Cache) -> bool {
        true
    }

    /// Whether it says nothing about any node, as long as there are no shifts: neither
    /// verdicts nor scores.
    fn is_idle(&self) -> bool {
        false
    }

    /// Filter, with pods that are thought to come to the node or to leave it.
    fn judge(&self, _node: &NodeInfo, _shifts: &[Shift], _cluster: &Cache) -> Verdict {
        Ok(())
    }

    /// Filter of all nodes as they are: what [`Wide::judge`] says of each without shifts.
    fn judge_all(&self, _slots: usize, _cluster: &Cache) -> Judged {
        Judged::default()
    }

    /// Whether [`Wide::judge`] says the same with shifts of pods of this kind as without.
    fn ignores(&self, kind: &Template) -> bool;

    /// Score of these nodes, normalized; `None` when it makes no difference.
    fn score(&self, _slots: &[usize], _cluster: &Cache) -> Option<Vec<i64>> {
        None
    }
}

/// What judges nodes for one pod only.
pub trait Own: Send {
    /// Filter, with pods that are thought to come to the node or to leave it.
    fn judge(&self, node: &NodeInfo, shifts: &[Shift], cluster: &Cache) -> Verdict;

    /// Score of nodes that it has let pass, normalized; `None` when it makes no difference.
    fn score(&self, _slots: &[usize]) -> Option<Vec<i64>> {
        None
    }

    /// PostFilter, where no node takes the pod.
    fn relief(&self) -> Relief {
        Relief::None
    }
}

impl<F> Own for F
where
    F: Fn(&NodeInfo, &[Shift], &Cache) -> Verdict + Send,
{
    fn judge(&self, node: &NodeInfo, shifts: &[Shift], cluster: &Cache) -> Verdict {
        self(node, shifts, cluster)
    }
}

/// What may help a pod that no node takes.
#[derive(Debug, Clone, Default)]
pub enum Relief {
    #[default]
    None,
    /// A claim could have other devices.
    Deallocate(Arc<ResourceClaim>),
    /// A claim for extended resources, left by an attempt that failed, has to go.
    Delete(Arc<ResourceClaim>),
}

/// A plugin's answer to Permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    Allow,
    /// Not yet, for this reason.
    Wait(&'static str),
    /// The plugin failed, and with it the attempt.
    Fail(String),
}

/// How raw scores become 0 to [`MAX_SCORE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalize {
    /// They are already.
    Not,
    /// The highest becomes the maximum.
    Highest,
    /// The highest becomes 0.
    Reversed,
}

pub const MAX_SCORE: i64 = 100;

impl Normalize {
    /// `DefaultNormalizeScore`.
    pub fn apply(self, scores: &mut [i64]) {
        if self == Self::Not {
            return;
        }
        let highest = scores.iter().copied().max().unwrap_or(0);
        let reversed = self == Self::Reversed;
        for score in scores {
            let part = if highest == 0 {
                0
            } else {
                MAX_SCORE * *score / highest
            };
            *score = if reversed { MAX_SCORE - part } else { part };
        }
    }
}

/// Changes each score by what it is. Scores are between `least` and `most`; where they are
/// close together each different one is worked out once.
pub fn change_scores(scores: &mut [i64], least: i64, most: i64, to: impl Fn(i64) -> i64) {
    let span = usize::try_from(most - least).unwrap_or(usize::MAX);
    if span >= scores.len() {
        scores.iter_mut().for_each(|score| *score = to(*score));
        return;
    }
    let table: Vec<i64> = (least..=most).map(to).collect();
    for score in scores {
        let at = usize::try_from(*score - least).unwrap_or(usize::MAX);
        *score = table.get(at).copied().unwrap_or(*score);
    }
}

/// A scheduling plugin. Each default is to have no opinion.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// PreEnqueue: may the pod be looked at at all?
    fn admit(&self, _pod: &PodInfo, _cluster: &Cache) -> Verdict {
        Ok(())
    }

    /// Whether PreFilter asks something of this pod that others of its kind do not share;
    /// it is asked again for each then.
    fn is_own(&self, _pod: &PodInfo) -> bool {
        false
    }

    /// PreFilter and Filter.
    fn filter(&self, _pod: &Arc<PodInfo>, _cluster: &Cache) -> Filter {
        Filter::Skip
    }

    /// PreScore and Score.
    fn score(&self, _pod: &Arc<PodInfo>, _cluster: &Cache) -> Score {
        Score::Skip
    }

    /// Permit: may the pod, which counts as on its node, go there now?
    fn permit(&self, _pod: &PodInfo, _cluster: &Cache) -> Permit {
        Permit::Allow
    }

    /// PlacementGenerate: sets of nodes that a group is tried on, one after the other; `None`
    /// where nothing narrows them down. The error says why there is no answer.
    fn placements(
        &self,
        _group: &ObjectKey,
        _cluster: &Cache,
    ) -> Result<Option<Vec<Placement>>, String> {
        Ok(None)
    }

    /// PlacementScore.
    fn score_placement(&self, _proposal: &Proposal<'_>, _cluster: &Cache) -> i64 {
        0
    }

    /// Makes the scores of all placements 0 to [`MAX_SCORE`], where they are not.
    fn normalize_placements(&self, _scores: &mut [i64]) {}

    /// QueueingHint: may `event` have made a pod schedulable that this plugin rejected?
    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, cluster: &Cache) -> Hint;
}
