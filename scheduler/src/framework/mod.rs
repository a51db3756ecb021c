//! What a plugin is, and how plugins together judge a pod and its nodes.
//!
//! A plugin prepares once per pod (PreFilter, PreScore) and hands back a closure that
//! judges one node (Filter, Score): the closure *is* upstream's `CycleState`, typed.
//!
//! What must not be here: any particular plugin, queues, I/O.

mod event;

pub use event::{ClusterEvent, Hint};

use crate::cache::{NodeInfo, Snapshot};
use crate::model::PodInfo;

/// Why a node does not take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// As upstream words it: events and conditions carry these.
    pub reasons: Vec<String>,
    /// No pod going away would change it (`UnschedulableAndUnresolvable`).
    pub unresolvable: bool,
}

impl Rejection {
    pub fn unresolvable(reason: impl Into<String>) -> Self {
        Self {
            reasons: vec![reason.into()],
            unresolvable: true,
        }
    }

    pub fn resolvable(reasons: Vec<String>) -> Self {
        Self {
            reasons,
            unresolvable: false,
        }
    }
}

type FilterFn<'a> = Box<dyn Fn(&NodeInfo) -> Result<(), Rejection> + 'a>;

/// A plugin's answer to PreFilter.
pub enum Filter<'a> {
    /// Nothing of this pod concerns the plugin.
    Skip,
    /// Judges each node.
    Node(FilterFn<'a>),
    /// Only these nodes come into question; each is judged by the closure.
    Only(Vec<String>, FilterFn<'a>),
}

/// Scores of nodes for a pod, 0 to [`MAX_SCORE`] after normalizing.
pub enum Score<'a> {
    Skip,
    Node(Box<dyn Fn(&NodeInfo) -> i64 + 'a>, Normalize),
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

/// A scheduling plugin. Each default is to have no opinion.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name.
    fn name(&self) -> &'static str;

    /// PreEnqueue: may the pod be looked at at all?
    fn admit(&self, _pod: &PodInfo) -> Result<(), Rejection> {
        Ok(())
    }

    /// PreFilter and Filter.
    fn filter<'a>(&'a self, _pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
        Filter::Skip
    }

    /// PreScore and Score.
    fn score<'a>(&'a self, _pod: &'a PodInfo, _nodes: &[&NodeInfo]) -> Score<'a> {
        Score::Skip
    }

    /// QueueingHint: may `event` have made a pod schedulable that this plugin rejected?
    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint;
}

/// A plugin in the profile, with the weight of its scores.
pub struct Enabled {
    pub plugin: Box<dyn Plugin>,
    pub weight: i64,
}
