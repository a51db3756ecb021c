use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use serde_json::{Value, json};

use super::plan::{Changes, FailedPods, Observed, manage, roll, status};
use crate::kinds::{Node, Pod};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn ds(strategy: Value) -> DaemonSet {
    serde_json::from_value(json!({
        "metadata": {"name": "ds", "namespace": "d", "uid": "ds", "generation": 2},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, "updateStrategy": strategy,
                 "template": {"metadata": {"labels": {"app": "a"}},
                              "spec": {"containers": [{"name": "c"}], "nodeSelector": {"os": "linux"}}}},
    }))
    .unwrap()
}

fn node(name: &str, extra: Value) -> Arc<Node> {
    let mut value = json!({"metadata": {"name": name, "labels": {"os": "linux"}}, "spec": {}});
    for (k, v) in extra.as_object().unwrap() {
        value["spec"][k] = v.clone();
    }
    Arc::new(serde_json::from_value(value).unwrap())
}

fn pod(name: &str, node: &str, hash: &str, phase: &str, ready: bool) -> Arc<Pod> {
    let value = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"controller-revision-hash": hash}},
        "spec": {"nodeName": node},
        "status": {"phase": phase, "conditions": [
            {"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": at(0)}]},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

fn with<T>(
    ds: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    f: impl FnOnce(&Observed) -> T,
) -> T {
    let spec = ds.spec.as_ref().unwrap();
    f(&Observed::new(
        ds,
        spec,
        nodes,
        pods.to_vec(),
        "new",
        at(10),
    ))
}

fn names(changes: &Changes) -> (Vec<&str>, Vec<&str>) {
    let create = changes.create.iter().map(String::as_str).collect();
    (
        create,
        changes.delete.iter().map(|p| &*p.metadata.name).collect(),
    )
}

#[test]
fn one_pod_on_each_fitting_node() {
    let windows: Node = serde_json::from_value(json!({"metadata": {"name": "w"}})).unwrap();
    let nodes = [
        node("n1", json!({})),
        node(
            "n2",
            json!({"unschedulable": true, "taints": [
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}),
        ),
        node(
            "n3",
            json!({"taints": [{"key": "mine", "effect": "NoSchedule"}]}),
        ),
        node(
            "n4",
            json!({"taints": [{"key": "mine", "effect": "NoExecute"}]}),
        ),
        node("n5", json!({})),
        Arc::new(windows),
    ];
    let pods = [
        pod("extra", "n5", "new", "Running", true),
        pod("first", "n5", "new", "Running", true),
        pod("stays", "n3", "new", "Running", true),
        pod("goes", "n4", "new", "Running", true),
    ];
    let ds = ds(json!({}));
    let changes = with(&ds, &nodes, &pods, |o| {
        manage(o, &mut FailedPods::default())
    });
    assert_eq!(names(&changes), (vec!["n1", "n2"], vec!["goes", "first"]));
    let s = with(&ds, &nodes, &pods, |o| status(o, true));
    assert_eq!(
        (
            s.desired_number_scheduled,
            s.current_number_scheduled,
            s.number_misscheduled
        ),
        (3, 1, 2)
    );
    assert_eq!(
        (
            s.number_available,
            s.number_unavailable,
            s.observed_generation
        ),
        (Some(1), Some(2), Some(2))
    );
}

#[test]
fn pending_pods_count_for_the_node_they_are_bound_for() {
    let value = json!({
        "metadata": {"name": "p", "namespace": "d"}, "status": {"phase": "Pending"},
        "spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}}}},
    });
    let pending: Arc<Pod> = Arc::new(serde_json::from_value(value).unwrap());
    let ds = ds(json!({}));
    let here = with(
        &ds,
        &[node("n1", json!({}))],
        std::slice::from_ref(&pending),
        |o| manage(o, &mut FailedPods::default()),
    );
    assert!(here.is_empty());
    let gone = with(&ds, &[], &[pending], |o| {
        manage(o, &mut FailedPods::default())
    });
    assert_eq!(names(&gone), (vec![], vec!["p"]));
}

#[test]
fn failed_pods_go_slower_and_slower() {
    let ds = ds(json!({}));
    let nodes = [node("n1", json!({}))];
    let pods = [pod("bad", "n1", "new", "Failed", false)];
    let mut failed = FailedPods::default();
    let spec = ds.spec.as_ref().unwrap();
    let mut run = |seconds| {
        let observed = Observed::new(&ds, spec, &nodes, pods.to_vec(), "new", at(seconds));
        let changes = manage(&observed, &mut failed);
        (
            changes.delete.len(),
            changes.again_after.map(|d| d.as_secs()),
        )
    };
    assert_eq!(run(0), (1, None));
    assert_eq!(run(0), (0, Some(1)));
    assert_eq!(run(1), (1, None));
    assert_eq!(run(2), (0, Some(1)));
    assert_eq!(run(3), (1, None));
    assert_eq!(run(3), (0, Some(4)));
    // What is changed may be mended.
    let mut changed = ds.clone();
    changed.status.get_or_insert_default().observed_generation = Some(2);
    let spec = changed.spec.as_ref().unwrap();
    let observed = Observed::new(&changed, spec, &nodes, pods.to_vec(), "new", at(3));
    assert_eq!(manage(&observed, &mut failed).delete.len(), 1);
}

#[test]
fn rolling_keeps_enough_available() {
    let ds =
        ds(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}));
    let nodes = ["n1", "n2", "n3"].map(|n| node(n, json!({})));
    let old = |n: &str, ready| pod(&format!("{n}-old"), n, "old", "Running", ready);
    let all = [old("n1", true), old("n2", true), old("n3", true)];
    assert_eq!(names(&with(&ds, &nodes, &all, roll)).1, ["n1-old"]);
    // One is missing already; what is of no use may go all the same.
    let some = [old("n2", true), old("n3", false)];
    assert_eq!(names(&with(&ds, &nodes, &some, roll)).1, ["n3-old"]);
    let done = ["n1", "n2", "n3"].map(|n| pod(n, n, "new", "Running", true));
    assert!(with(&ds, &nodes, &done, roll).is_empty());
}

#[test]
fn surging_makes_the_new_one_first() {
    let ds =
        ds(json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}));
    let nodes = ["n1", "n2"].map(|n| node(n, json!({})));
    let old1 = pod("old1", "n1", "old", "Running", true);
    let old2 = pod("old2", "n2", "old", "Running", true);
    let changes = with(&ds, &nodes, &[old1.clone(), old2.clone()], roll);
    assert_eq!(names(&changes), (vec!["n1"], vec![]));
    let starting = pod("new1", "n1", "new", "Running", false);
    let pods = [old1.clone(), old2.clone(), starting];
    assert!(with(&ds, &nodes, &pods, roll).is_empty());
    assert!(
        with(&ds, &nodes, &pods, |o| manage(
            o,
            &mut FailedPods::default()
        ))
        .is_empty()
    );
    let ready = [old1, old2, pod("new1", "n1", "new", "Running", true)];
    assert_eq!(
        names(&with(&ds, &nodes, &ready, roll)),
        (vec!["n2"], vec!["old1"])
    );
}
