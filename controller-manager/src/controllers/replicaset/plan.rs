//! Which pods a ReplicaSet creates and deletes, and what its status says: pure.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::replicator::Replicator;
use crate::kinds::Pod;

/// No more pods are created or deleted in one sync.
pub const BURST_REPLICAS: usize = 500;
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What to do about a ReplicaSet's pods.
#[derive(Debug, Clone, PartialEq)]
pub enum Manage {
    Nothing,
    /// So many more.
    Create(usize),
    /// These, the least worth keeping.
    Delete(Vec<Arc<Pod>>),
}

/// Compares what is with what is wanted. `related` are the pods of all ReplicaSets of the same
/// owner: pods on nodes that have many of them go first.
pub fn manage(
    wanted: i32,
    active: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Manage {
    let wanted = usize::try_from(wanted).unwrap_or(0);
    match active.len().cmp(&wanted) {
        Ordering::Equal => Manage::Nothing,
        Ordering::Less => Manage::Create((wanted - active.len()).min(BURST_REPLICAS)),
        Ordering::Greater => {
            let excess = (active.len() - wanted).min(BURST_REPLICAS);
            let mut pods = active.to_vec();
            if excess < pods.len() {
                rank(&mut pods, &related(), now);
            }
            pods.truncate(excess);
            Manage::Delete(pods)
        }
    }
}

/// Puts pods that should go first to the front: unassigned before assigned, pending before
/// unknown before running, not ready before ready, then lower deletion cost, more company on
/// the node, ready for less time, more restarts, younger. Times are compared by their
/// logarithm, so that pods of about the same age are taken at random (KEP-2185).
fn rank(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|p| p.is_active()) {
        *on_node.entry(&pod.spec.node_name).or_default() += 1;
    }
    let company = |p: &Pod| on_node.get(&*p.spec.node_name).copied().unwrap_or(0);
    pods.sort_by(|a, b| {
        let unassigned = |p: &Pod| p.spec.node_name.is_empty();
        let order = unassigned(b)
            .cmp(&unassigned(a))
            .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
            .then_with(|| a.is_ready().cmp(&b.is_ready()))
            .then_with(|| a.deletion_cost().cmp(&b.deletion_cost()))
            .then_with(|| company(b).cmp(&company(a)));
        order
            .then_with(|| {
                if a.is_ready() && b.is_ready() {
                    younger_first(a.ready_since(), b.ready_since(), now)
                } else {
                    Ordering::Equal
                }
            })
            .then_with(|| b.max_restarts().cmp(&a.max_restarts()))
            .then_with(|| {
                let created = |p: &Pod| p.metadata.creation_timestamp.as_ref().map(|t| t.0);
                younger_first(created(a), created(b), now)
            })
    });
}

fn phase_rank(pod: &Pod) -> u8 {
    match &*pod.status.phase {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

/// By how long ago it was, roughly; what is about as long ago, in no order that means anything. An
/// order of all times it is nevertheless: a sort whose order contradicts itself ends the process.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    let (Some(x), Some(y)) = (a, b) else {
        return a.is_some().cmp(&b.is_some());
    };
    let magnitude = |t: Timestamp| match now.duration_since(t).as_nanos() {
        n if n > 0 => (n as f64).log2() as i64,
        _ => -1,
    };
    let scattered = |t: Timestamp| t.as_second().wrapping_mul(0x1E37_79B9_7F4A_7C15);
    let order = magnitude(x).cmp(&magnitude(y));
    order
        .then_with(|| scattered(x).cmp(&scattered(y)))
        .then_with(|| x.cmp(&y))
}

/// A sync's failure to create or delete, for the status.
#[derive(Debug, Clone)]
pub struct Failure {
    pub message: String,
}

/// The status from the pods. `failure` is that of this sync, if any.
pub fn status(
    set: &impl Replicator,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<&Failure>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let template = set
        .template()
        .and_then(|t| t.metadata.clone()?.labels)
        .unwrap_or_default();
    let min_ready = set.min_ready_seconds();
    let count = |f: &dyn Fn(&Pod) -> bool| active.iter().filter(|p| f(p)).count() as i32;
    let nonzero = |n: i32| Some(n).filter(|n| *n != 0);
    let fully_labeled = |p: &Pod| {
        template
            .iter()
            .all(|(k, v)| p.metadata.labels.get(k) == Some(v))
    };

    let mut conditions = set.status().conditions.unwrap_or_default();
    let failing = conditions.iter().any(|c| c.type_ == REPLICA_FAILURE);
    match failure {
        Some(failure) if !failing => {
            let wanted = usize::try_from(set.replicas()).unwrap_or(0);
            let reason = match active.len().cmp(&wanted) {
                Ordering::Less => "FailedCreate",
                Ordering::Greater => "FailedDelete",
                Ordering::Equal => "",
            };
            conditions.push(ReplicaSetCondition {
                type_: REPLICA_FAILURE.to_owned(),
                status: "True".to_owned(),
                reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
                message: Some(failure.message.clone()),
                last_transition_time: Some(Time(now)),
            });
        }
        None if failing => conditions.retain(|c| c.type_ != REPLICA_FAILURE),
        _ => {}
    }
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: nonzero(count(&fully_labeled)),
        ready_replicas: nonzero(count(&|p| p.is_ready())),
        available_replicas: nonzero(count(&|p| p.is_available(min_ready, now))),
        terminating_replicas: Some(terminating as i32),
        observed_generation: set.metadata().generation.filter(|g| *g != 0),
        conditions: Some(conditions).filter(|c| !c.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use serde_json::json;

    fn now() -> Timestamp {
        "2024-01-01T01:00:00Z".parse().unwrap()
    }

    fn pod(name: &str, node: &str, phase: &str, ready: bool, extra: serde_json::Value) -> Arc<Pod> {
        let mut value = json!({
            "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "a"},
                         "creationTimestamp": "2024-01-01T00:00:00Z"},
            "spec": {"nodeName": node},
            "status": {"phase": phase, "conditions": [
                {"type": "Ready", "status": if ready { "True" } else { "False" },
                 "lastTransitionTime": "2024-01-01T00:00:00Z"}]},
        });
        let extra: serde_json::Map<_, _> = extra.as_object().cloned().unwrap_or_default();
        for (k, v) in extra {
            value["metadata"][k] = v;
        }
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn names(m: Manage) -> Vec<String> {
        match m {
            Manage::Delete(pods) => pods.iter().map(|p| p.metadata.name.to_string()).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn creates_what_is_missing() {
        let pods = [pod("a", "n", "Running", true, json!({}))];
        assert_eq!(manage(3, &pods, Vec::new, now()), Manage::Create(2));
        assert_eq!(manage(1, &pods, Vec::new, now()), Manage::Nothing);
        assert_eq!(manage(9000, &pods, Vec::new, now()), Manage::Create(500));
    }

    #[test]
    fn deletes_the_least_useful_first() {
        let cost = json!({"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-5"}});
        let pods = vec![
            pod("ready", "n1", "Running", true, json!({})),
            pod("cheap", "n1", "Running", true, cost),
            pod("unready", "n1", "Running", false, json!({})),
            pod("pending", "n1", "Pending", false, json!({})),
            pod("unassigned", "", "Pending", false, json!({})),
            pod(
                "young",
                "n1",
                "Running",
                true,
                json!({"creationTimestamp": "2024-01-01T00:59:59Z"}),
            ),
        ];
        let all = pods.clone();
        let deleted = names(manage(1, &pods, move || all, now()));
        assert_eq!(
            deleted,
            ["unassigned", "pending", "unready", "cheap", "young"]
        );
    }

    /// A sort may panic where one pod is before another, that before a third, and the third is as
    /// good as the first.
    #[test]
    fn times_are_in_one_order() {
        let at = |seconds: i64| Timestamp::from_second(now().as_second() - seconds).ok();
        let times: Vec<_> = [None]
            .into_iter()
            .chain([0, 1, 5, 20, 21, 22, 23, 40, 41, 3000, 3001].map(at))
            .collect();
        let order = |a: usize, b: usize| younger_first(times[a], times[b], now());
        let all = 0..times.len();
        for a in all.clone() {
            for b in all.clone() {
                assert_eq!(order(a, b), order(b, a).reverse());
                assert_eq!(order(a, b).is_eq(), a == b);
                for c in all.clone() {
                    assert!(order(a, b).is_gt() || order(b, c).is_gt() || order(a, c).is_le());
                }
            }
        }
        assert!(order(1, 10).is_lt() && order(10, 1).is_gt());
    }

    #[test]
    fn crowded_nodes_first() {
        let pods = vec![
            pod("lone", "n1", "Running", true, json!({})),
            pod("crowd", "n2", "Running", true, json!({})),
        ];
        let mut related = pods.clone();
        related.push(pod("other", "n2", "Running", true, json!({})));
        assert_eq!(names(manage(1, &pods, move || related, now())), ["crowd"]);
    }

    #[test]
    fn status_counts_and_failure() {
        let rs: ReplicaSet = serde_json::from_value(json!({
            "metadata": {"name": "rs", "generation": 2},
            "spec": {"replicas": 3, "minReadySeconds": 7200, "selector": {},
                     "template": {"metadata": {"labels": {"app": "a"}}}},
        }))
        .unwrap();
        let pods = [
            pod("a", "n", "Running", true, json!({})),
            pod("b", "n", "Running", false, json!({"labels": {}})),
        ];
        let failure = Failure {
            message: "quota".into(),
        };
        let got = status(&rs, &pods, 1, Some(&failure), now());
        assert_eq!(
            serde_json::to_value(&got).unwrap(),
            json!({
                "replicas": 2, "fullyLabeledReplicas": 1, "readyReplicas": 1,
                "terminatingReplicas": 1, "observedGeneration": 2,
                "conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate",
                    "message": "quota", "lastTransitionTime": "2024-01-01T01:00:00Z"}],
            })
        );
        let failed = ReplicaSet {
            status: Some(got),
            ..rs
        };
        assert_eq!(status(&failed, &pods, 0, None, now()).conditions, None);
    }
}
