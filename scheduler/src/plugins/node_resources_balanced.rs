//! NodeResourcesBalancedAllocation: prefers nodes where CPU and memory run out together.

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, Hint, MAX_SCORE, Normalize, Plugin, Score};
use crate::model::PodInfo;

pub struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score<'a>(&'a self, pod: &'a PodInfo, _nodes: &[&NodeInfo]) -> Score<'a> {
        // A pod that requests nothing unbalances nothing.
        if pod.requests.milli_cpu == 0 && pod.requests.memory == 0 {
            return Score::Skip;
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "a share of a node, not an amount"
        )]
        let share = |wanted: i64, taken: i64, all: i64| {
            if all == 0 {
                1.0
            } else {
                ((taken + wanted) as f64 / all as f64).min(1.0)
            }
        };
        let score = move |node: &NodeInfo| {
            let (wanted, taken, all) = (&pod.requests, &node.requested, &node.allocatable);
            let cpu = share(wanted.milli_cpu, taken.milli_cpu, all.milli_cpu);
            let memory = share(wanted.memory, taken.memory, all.memory);
            // The standard deviation of two numbers is half their distance.
            let deviation = ((cpu - memory) / 2.0).abs();
            #[allow(clippy::cast_possible_truncation, reason = "0 to 100")]
            let score = ((1.0 - deviation) * MAX_SCORE as f64) as i64;
            score
        };
        Score::Node(Box::new(score), Normalize::Not)
    }

    fn hint(&self, _pod: &PodInfo, _event: &ClusterEvent<'_>) -> Hint {
        // It rejects no pod, so none waits for it.
        Hint::Skip
    }
}
