//! Which pods to remove: pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::Object as _;
use jiff::{SignedDuration, Timestamp};

use crate::kinds::{Node, Pod};

/// A node must have been missing for so long.
const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// One of too many that have ended.
    Terminated,
    /// Its node has been declared dead by an operator.
    OutOfService,
    NodeGone,
    /// Deleted before it was assigned to a node: no kubelet will ever finish it.
    Unscheduled,
}

impl Reason {
    /// As metrics call it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Terminated => "terminated",
            Self::OutOfService => "out-of-service",
            Self::NodeGone => "orphaned",
            Self::Unscheduled => "unscheduled",
        }
    }
}

/// A pod to be removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Doomed {
    pub pod: Arc<Pod>,
    pub reason: Reason,
}

/// Nodes that pods name and that have been missing for long enough. `missing` is brought up to
/// date.
pub fn overdue(
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    missing: &mut HashMap<String, Timestamp>,
    now: Timestamp,
) -> Vec<String> {
    let existing: HashSet<&str> = nodes.iter().map(|n| n.name()).collect();
    let named = pods
        .iter()
        .map(|p| &*p.spec.node_name)
        .filter(|n| !n.is_empty());
    let absent: HashSet<&str> = named.filter(|n| !existing.contains(n)).collect();
    missing.retain(|name, _| absent.contains(name.as_str()));
    for name in absent {
        missing.entry(name.to_owned()).or_insert(now);
    }
    let long = |since: &Timestamp| now.duration_since(*since) >= QUARANTINE;
    missing
        .iter()
        .filter(|(_, since)| long(since))
        .map(|(name, _)| name.clone())
        .collect()
}

/// Makes the plan. `gone`: nodes that are known not to exist. Pods that have ended are kept up
/// to `threshold`; 0 keeps all.
pub fn plan(
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    gone: &[String],
    threshold: usize,
) -> Vec<Doomed> {
    let mut doomed = Vec::new();
    let mut seen = HashSet::new();
    let mut add = |pod: &Arc<Pod>, reason| {
        if seen.insert(pod.metadata.uid.clone()) {
            doomed.push(Doomed {
                pod: Arc::clone(pod),
                reason,
            });
        }
    };
    let mut ended: Vec<&Arc<Pod>> = pods.iter().filter(|p| p.is_terminal()).collect();
    if threshold > 0 && ended.len() > threshold {
        ended.sort_by(|a, b| {
            let order = |p: &Pod| {
                (
                    p.metadata.creation_timestamp.clone(),
                    p.metadata.name.clone(),
                )
            };
            order(a).cmp(&order(b))
        });
        let excess = ended.len() - threshold;
        ended
            .iter()
            .take(excess)
            .for_each(|pod| add(pod, Reason::Terminated));
    }
    let by_name: HashMap<&str, &Arc<Node>> = nodes.iter().map(|n| (n.name(), n)).collect();
    for pod in pods {
        let node_name = &*pod.spec.node_name;
        let out_of_service = by_name.get(node_name).is_some_and(|node| {
            let ready = node
                .condition("Ready")
                .is_some_and(|c| &*c.status == "True");
            !ready && node.spec.taints.iter().any(|t| &*t.key == OUT_OF_SERVICE)
        });
        if pod.is_deleting() && out_of_service {
            add(pod, Reason::OutOfService);
        }
        if gone.iter().any(|n| n == node_name) {
            add(pod, Reason::NodeGone);
        }
        if pod.is_deleting() && node_name.is_empty() {
            add(pod, Reason::Unscheduled);
        }
    }
    doomed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, node: &str, phase: &str, deleting: bool, created: i64) -> Arc<Pod> {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let value = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": at(created),
                         "deletionTimestamp": deleting.then(|| at(1))},
            "spec": {"nodeName": node}, "status": {"phase": phase},
        });
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn names(list: &[Doomed]) -> Vec<(&str, Reason)> {
        list.iter().map(|d| (d.pod.name(), d.reason)).collect()
    }

    #[test]
    fn each_reason() {
        let node = json!({
            "metadata": {"name": "dead"}, "spec": {"taints": [{"key": OUT_OF_SERVICE, "effect": "NoExecute"}]},
            "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]},
        });
        let nodes = [Arc::new(serde_json::from_value(node).unwrap())];
        let pods = [
            pod("young", "n", "Succeeded", false, 9),
            pod("old", "n", "Failed", false, 5),
            pod("stuck", "dead", "Running", true, 1),
            pod("fine", "dead", "Running", false, 1),
            pod("orphan", "gone", "Running", false, 1),
            pod("nowhere", "", "Pending", true, 1),
        ];
        let plan = plan(&pods, &nodes, &["gone".to_owned()], 1);
        assert_eq!(
            names(&plan),
            [
                ("old", Reason::Terminated),
                ("stuck", Reason::OutOfService),
                ("orphan", Reason::NodeGone),
                ("nowhere", Reason::Unscheduled)
            ]
        );
    }

    #[test]
    fn missing_nodes_are_waited_for() {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let pods = [pod("p", "n", "Running", false, 1)];
        let mut missing = HashMap::new();
        assert!(overdue(&pods, &[], &mut missing, at(0)).is_empty());
        assert!(overdue(&pods, &[], &mut missing, at(39)).is_empty());
        assert_eq!(overdue(&pods, &[], &mut missing, at(40)), ["n"]);
        let back = Arc::new(serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap());
        assert!(overdue(&pods, &[back], &mut missing, at(60)).is_empty());
        assert!(overdue(&pods, &[], &mut missing, at(80)).is_empty());
    }
}
