//! The scheduling cycle: one pod, the nodes as they are, a decision. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::{NodeInfo, Snapshot};
use crate::framework::{Enabled, Filter, Rejection, Score};
use crate::model::PodInfo;

/// A set of plugins under a scheduler's name (`KubeSchedulerProfile`).
pub struct Profile {
    pub scheduler_name: String,
    pub plugins: Vec<Enabled>,
    /// How many of the nodes to look for before scoring; 0 lets the size of the cluster decide.
    pub percentage_of_nodes_to_score: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// The name of the node.
    Node(Box<str>),
    Unschedulable(Diagnosis),
}

/// Why no node takes a pod (`framework.FitError`).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    nodes: usize,
    /// How many nodes gave each reason.
    reasons: BTreeMap<String, usize>,
    /// Whose change of mind the pod waits for.
    pub plugins: BTreeSet<&'static str>,
}

impl Diagnosis {
    fn reject(&mut self, plugin: &'static str, rejection: &Rejection) {
        self.plugins.insert(plugin);
        for reason in &rejection.reasons {
            *self.reasons.entry(reason.clone()).or_default() += 1;
        }
    }

    /// As upstream words it in the event and the condition.
    pub fn message(&self) -> String {
        if self.nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut message = format!("0/{} nodes are available", self.nodes);
        let mut reasons: Vec<String> = self
            .reasons
            .iter()
            .map(|(reason, nodes)| format!("{nodes} {reason}"))
            .collect();
        reasons.sort();
        if !reasons.is_empty() {
            message.push_str(&format!(": {}.", reasons.join(", ")));
        }
        message
    }
}

/// With fewer nodes than this all are looked at (`minFeasibleNodesToFind`).
const FEW_NODES: usize = 100;

impl Profile {
    /// How many feasible nodes are enough (`numFeasibleNodesToFind`).
    fn enough(&self, nodes: usize) -> usize {
        if nodes < FEW_NODES {
            return nodes;
        }
        let percentage = match self.percentage_of_nodes_to_score {
            0 => 50_usize.saturating_sub(nodes / 125).max(5),
            given => given,
        };
        if percentage >= 100 {
            nodes
        } else {
            (nodes * percentage / 100).max(FEW_NODES)
        }
    }

    /// Decides where a pod goes. `start` is the node to begin with; it moves on so that
    /// all nodes get their turn. `draw(n)` picks one of n nodes of the same score.
    pub fn schedule(
        &self,
        pod: &PodInfo,
        snapshot: &Snapshot,
        start: &mut usize,
        draw: &mut dyn FnMut(usize) -> usize,
    ) -> Decision {
        let nodes = &snapshot.nodes;
        let mut diagnosis = Diagnosis {
            nodes: nodes.len(),
            ..Diagnosis::default()
        };
        if nodes.is_empty() {
            return Decision::Unschedulable(diagnosis);
        }
        let mut filters = Vec::new();
        let mut only: Option<BTreeSet<String>> = None;
        for Enabled { plugin, .. } in &self.plugins {
            match plugin.filter(pod, snapshot) {
                Filter::Skip => {}
                Filter::Node(judge) => filters.push((plugin.name(), judge)),
                Filter::Only(names, judge) => {
                    let names: BTreeSet<String> = names.into_iter().collect();
                    only = Some(match only {
                        None => names,
                        Some(before) => before.intersection(&names).cloned().collect(),
                    });
                    filters.push((plugin.name(), judge));
                }
            }
        }
        let enough = self.enough(nodes.len());
        let mut feasible: Vec<&NodeInfo> = Vec::new();
        let mut looked_at = 0;
        for node in (0..nodes.len()).map(|i| &nodes[(*start + i) % nodes.len()]) {
            looked_at += 1;
            // A node that is out of the question says so with its own filter's reason.
            let out = only
                .as_ref()
                .is_some_and(|names| !names.contains(&*node.name));
            let verdict = filters
                .iter()
                .try_for_each(|(name, judge)| judge(node).map_err(|rejection| (*name, rejection)));
            match verdict {
                Ok(()) if !out => feasible.push(node),
                Ok(()) => {}
                Err((plugin, rejection)) => diagnosis.reject(plugin, &rejection),
            }
            if feasible.len() >= enough {
                break;
            }
        }
        *start = (*start + looked_at) % nodes.len();
        match feasible.as_slice() {
            [] => Decision::Unschedulable(diagnosis),
            [one] => Decision::Node(one.name.clone()),
            several => Decision::Node(self.best(pod, several, draw).name.clone()),
        }
    }

    fn best<'a>(
        &self,
        pod: &PodInfo,
        nodes: &[&'a NodeInfo],
        draw: &mut dyn FnMut(usize) -> usize,
    ) -> &'a NodeInfo {
        let mut totals = vec![0_i64; nodes.len()];
        for Enabled { plugin, weight } in &self.plugins {
            if *weight == 0 {
                continue;
            }
            let Score::Node(score, normalize) = plugin.score(pod, nodes) else {
                continue;
            };
            let mut scores: Vec<i64> = nodes.iter().map(|node| score(node)).collect();
            normalize.apply(&mut scores);
            for (total, score) in totals.iter_mut().zip(scores) {
                *total += score * weight;
            }
        }
        let highest = totals.iter().copied().max().unwrap_or(0);
        let best: Vec<&&NodeInfo> = nodes
            .iter()
            .zip(&totals)
            .filter(|(_, t)| **t == highest)
            .map(|(n, _)| n)
            .collect();
        best[draw(best.len()).min(best.len() - 1)]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::plugins::default_profile;
    use crate::plugins::testing::{node, pod};

    fn profile() -> Profile {
        Profile {
            scheduler_name: "default-scheduler".into(),
            plugins: default_profile(),
            percentage_of_nodes_to_score: 0,
        }
    }

    fn decide(pod: &PodInfo, nodes: Vec<NodeInfo>) -> Decision {
        let snapshot = Snapshot {
            nodes: Arc::new(nodes.into_iter().map(Arc::new).collect()),
        };
        profile().schedule(pod, &snapshot, &mut 0, &mut |_| 0)
    }

    #[test]
    fn the_message_counts_reasons_as_upstream_does() {
        let big = pod(json!({"containers": [{"resources": {"requests": {"cpu": "64"}}}]}));
        let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
        let cordoned = json!({"spec": {"unschedulable": true}});
        let nodes = vec![
            node("a", json!({})),
            node("b", json!({})),
            node("c", tainted),
            node("d", cordoned),
        ];
        let Decision::Unschedulable(diagnosis) = decide(&big, nodes) else {
            panic!("it cannot fit")
        };
        assert_eq!(
            diagnosis.message(),
            "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu."
        );
        assert_eq!(
            diagnosis.plugins.into_iter().collect::<Vec<_>>(),
            ["NodeResourcesFit", "NodeUnschedulable", "TaintToleration"]
        );
        let Decision::Unschedulable(none) = decide(&big, vec![]) else {
            panic!("there is no node")
        };
        assert_eq!(none.message(), "no nodes available to schedule pods");
    }

    #[test]
    fn a_pod_goes_to_the_emptier_node() {
        let small = pod(json!({"containers": [{"resources": {"requests": {"cpu": "100m"}}}]}));
        let mut busy = node("a", json!({}));
        busy.add(&pod(
            json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}),
        ));
        let decision = decide(&small, vec![busy, node("b", json!({}))]);
        assert_eq!(decision, Decision::Node("b".into()));
    }

    #[test]
    fn large_clusters_are_not_searched_to_the_end() {
        assert_eq!(profile().enough(99), 99);
        assert_eq!(profile().enough(1000), 420);
        assert_eq!(profile().enough(5000), 500);
        let mut all = profile();
        all.percentage_of_nodes_to_score = 100;
        assert_eq!(all.enough(5000), 5000);
    }
}
