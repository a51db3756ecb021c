//! PodGroupPodsCount: of placements, the one that takes more pods of the group is better.

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Hint, Normalize, Plugin};
use crate::groups::placement::Proposal;
use crate::model::PodInfo;

pub struct PodGroupPodsCount;

impl Plugin for PodGroupPodsCount {
    fn name(&self) -> &'static str {
        "PodGroupPodsCount"
    }

    fn score_placement(&self, proposal: &Proposal<'_>, _cluster: &Cache) -> i64 {
        let pods = proposal.placed + proposal.pods.len();
        i64::try_from(pods).unwrap_or(i64::MAX)
    }

    /// By the most pods that any placement takes, so that one pod more is not all the
    /// difference.
    fn normalize_placements(&self, scores: &mut [i64]) {
        Normalize::Highest.apply(scores);
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        Hint::Skip
    }
}
