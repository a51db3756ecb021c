//! NodeResourcesBalancedAllocation: prefers nodes where the pod makes resources run out
//! together rather than one before the other.

use std::sync::Arc;

use super::node_resources::{Weighted, amount, cpu_and_memory, taken_and_all};
use crate::cache::{Cache, NodeInfo};
use crate::framework::{ClusterEvent, Hint, MAX_SCORE, Normalize, Plugin, Score};
use crate::model::PodInfo;

/// `NodeResourcesBalancedAllocationArgs`.
#[derive(Debug, Clone)]
pub struct BalancedAllocation {
    pub resources: Vec<Weighted>,
}

impl Default for BalancedAllocation {
    fn default() -> Self {
        Self {
            resources: cpu_and_memory(),
        }
    }
}

/// 100 when the same share of each resource is taken, down to 50 when all of one is and
/// nothing of another.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "shares of a node, and a score of 0 to 100"
)]
fn balance(shares: &[f64]) -> i64 {
    let deviation = match shares {
        [a, b] => ((a - b) / 2.0).abs(),
        [_, _, ..] => {
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            let squares = shares.iter().map(|share| (share - mean) * (share - mean));
            (squares.sum::<f64>() / shares.len() as f64).sqrt()
        }
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_SCORE as f64) as i64
}

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score(&self, pod: &Arc<PodInfo>, _cluster: &Cache) -> Score {
        let wanted: Vec<(String, i64)> = self
            .resources
            .iter()
            .map(|r| (r.name.clone(), amount(&pod.requests, &r.name)))
            .collect();
        // A pod that requests nothing unbalances nothing.
        if wanted.iter().all(|(_, amount)| *amount == 0) {
            return Score::Skip;
        }
        #[allow(clippy::cast_precision_loss, reason = "a share of a node")]
        let share = |amount: i64, all: i64| (amount as f64 / all as f64).min(1.0);
        let score = move |node: &NodeInfo, _: &Cache| {
            let (mut before, mut after) = ([0.0; 16], [0.0; 16]);
            let mut n = 0;
            for (name, wanted) in wanted.iter().take(16) {
                let found = taken_and_all(name, *wanted, &node.requested, &node.allocatable);
                if let Some((taken, all)) = found {
                    before[n] = share(taken, all);
                    after[n] = share(taken + wanted, all);
                    n += 1;
                }
            }
            let half = MAX_SCORE / 2;
            half + (half + balance(&after[..n]) - balance(&before[..n])) / 2
        };
        Score::Local(Box::new(score), Normalize::Not)
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        // It rejects no pod, so none waits for it.
        Hint::Skip
    }
}
