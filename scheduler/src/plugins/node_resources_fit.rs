//! NodeResourcesFit: a node must have left what a pod requests, and the more it has left
//! the better (`LeastAllocated`, upstream's default).

use crate::cache::{NodeInfo, Resources, Snapshot};
use crate::framework::{
    ClusterEvent, Filter, Hint, MAX_SCORE, Normalize, Plugin, Rejection, Score,
};
use crate::model::{Node, PodInfo};

pub struct Fit;

/// What a node with `free` lacks for `wanted`, as upstream words it; and whether it would
/// lack it even if it were empty.
fn lacking(wanted: &Resources, allocatable: &Resources, taken: &Resources) -> (Vec<String>, bool) {
    let mut reasons = Vec::new();
    let mut never = false;
    let mut check = |name: &str, wanted: i64, all: i64, taken: i64| {
        if wanted > 0 && wanted > all - taken {
            reasons.push(format!("Insufficient {name}"));
            never |= wanted > all;
        }
    };
    check(
        "cpu",
        wanted.milli_cpu,
        allocatable.milli_cpu,
        taken.milli_cpu,
    );
    check("memory", wanted.memory, allocatable.memory, taken.memory);
    check(
        "ephemeral-storage",
        wanted.ephemeral_storage,
        allocatable.ephemeral_storage,
        taken.ephemeral_storage,
    );
    for (name, amount) in &wanted.scalars {
        check(name, *amount, allocatable.scalar(name), taken.scalar(name));
    }
    (reasons, never)
}

fn fits(pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
    let mut reasons = Vec::new();
    if node.pod_count + 1 > node.allowed_pods {
        reasons.push("Too many pods".to_owned());
    }
    let (lacks, never) = lacking(&pod.requests, &node.allocatable, &node.requested);
    reasons.extend(lacks);
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Rejection {
        reasons,
        unresolvable: never,
    })
}

/// Would an empty node of this size take the pod?
fn could_fit(pod: &PodInfo, node: &Node) -> bool {
    let allocatable = Resources::of(&node.status.allocatable);
    lacking(&pod.requests, &allocatable, &Resources::default())
        .0
        .is_empty()
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
        Filter::Node(Box::new(|node| fits(pod, node)))
    }

    fn score<'a>(&'a self, pod: &'a PodInfo, _nodes: &[&NodeInfo]) -> Score<'a> {
        let left = |wanted: i64, taken: i64, all: i64| {
            let used = taken + wanted;
            if all == 0 || used > all {
                0
            } else {
                (all - used) * MAX_SCORE / all
            }
        };
        let score = move |node: &NodeInfo| {
            let (wanted, taken, all) = (&pod.scored_requests, &node.scored, &node.allocatable);
            let cpu = left(wanted.milli_cpu, taken.milli_cpu, all.milli_cpu);
            let memory = left(wanted.memory, taken.memory, all.memory);
            (cpu + memory) / 2
        };
        Score::Node(Box::new(score), Normalize::Not)
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(could_fit(pod, node)),
            ClusterEvent::NodeUpdated { old, new } => Hint::queue_if(
                old.status.allocatable != new.status.allocatable && could_fit(pod, new),
            ),
            ClusterEvent::PodGone { requests, .. } => {
                let frees = |wanted: i64, freed: i64| wanted > 0 && freed > 0;
                let wanted = &pod.requests;
                // A slot is free in any case, and a pod may have waited for just that.
                let slot_only = *wanted == Resources::default();
                Hint::queue_if(
                    slot_only
                        || frees(wanted.milli_cpu, requests.milli_cpu)
                        || frees(wanted.memory, requests.memory)
                        || frees(wanted.ephemeral_storage, requests.ephemeral_storage)
                        || wanted
                            .scalars
                            .iter()
                            .any(|(name, n)| frees(*n, requests.scalar(name)))
                        || **requests == Resources::default(),
                )
            }
            ClusterEvent::PodChanged => Hint::Queue,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{filter, node, pod};

    fn asking(requests: serde_json::Value) -> std::sync::Arc<PodInfo> {
        pod(json!({"containers": [{"resources": {"requests": requests}}]}))
    }

    #[test]
    fn what_is_lacking_is_named() {
        let mut node = node("a", json!({}));
        node.add(&asking(json!({"cpu": "1500m"})));
        assert!(filter(&Fit, &asking(json!({"cpu": "500m"})), &node).is_ok());
        let rejection = filter(
            &Fit,
            &asking(json!({"cpu": "501m", "example.com/gpu": "1"})),
            &node,
        )
        .unwrap_err();
        assert_eq!(
            rejection.reasons,
            ["Insufficient cpu", "Insufficient example.com/gpu"]
        );
        assert!(rejection.unresolvable, "no node of this size has a gpu");
    }

    #[test]
    fn a_full_node_takes_nobody() {
        let node = node("a", json!({"status": {"allocatable": {"pods": "0"}}}));
        let rejection = filter(&Fit, &asking(json!({})), &node).unwrap_err();
        assert_eq!(rejection.reasons, ["Too many pods"]);
    }

    #[test]
    fn the_emptier_node_is_the_better() {
        let empty = node("a", json!({}));
        let mut half = node("b", json!({}));
        half.add(&asking(json!({"cpu": "1", "memory": "1Gi"})));
        let pod = asking(json!({"cpu": "100m", "memory": "100Mi"}));
        let Score::Node(score, _) = Fit.score(&pod, &[]) else {
            panic!("fit always scores")
        };
        assert!(score(&empty) > score(&half));
    }
}
