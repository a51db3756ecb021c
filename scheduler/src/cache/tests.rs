use std::sync::Arc;

use serde_json::json;

use super::{Cache, NOWHERE};
use crate::model::{Node, Pod, PodInfo, Templates};

fn node(name: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"zone": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"}},
    }))
    .unwrap()
}

fn pod(name: &str, node: &str) -> Arc<PodInfo> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "500m"}}}]},
    }))
    .unwrap();
    PodInfo::new(&pod)
}

fn cpu(cache: &Cache, node: &str) -> i64 {
    cache.node_named(node).unwrap().requested.milli_cpu
}

#[test]
fn an_assumed_pod_counts_until_it_is_forgotten_or_confirmed() {
    let mut cache = Cache::default();
    cache.put_node(&node("a"));
    let waiting = pod("p", "");
    cache.assume(Arc::clone(&waiting), "a");
    assert_eq!(cpu(&cache, "a"), 500);
    assert!(cache.forget(&waiting));
    assert_eq!(cpu(&cache, "a"), 0);

    // Nor does what comes of another pod of its name say anything of it.
    let before: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "before"},
    }))
    .unwrap();
    cache.assume(Arc::clone(&waiting), "a");
    assert!(!cache.forget(&PodInfo::new(&before)));
    assert_eq!(cpu(&cache, "a"), 500);
    cache.put_pod(pod("p", "a"));
    assert!(!cache.forget(&waiting));
    assert_eq!(cpu(&cache, "a"), 500);
    assert_eq!(cache.node_named("a").unwrap().pod_count(), 1);
}

#[test]
fn changes_are_told_from_a_moment_on() {
    let mut cache = Cache::default();
    cache.put_node(&node("a"));
    cache.put_node(&node("b"));
    let then = cache.now();
    assert_eq!(cache.changes_since(then).unwrap().count(), 0);
    cache.put_pod(pod("p", "b"));
    let changed: Vec<usize> = cache.changes_since(then).unwrap().collect();
    assert_eq!(changed, [cache.node_named("b").unwrap().slot]);

    for _ in 0..100 {
        cache.put_node(&node("a"));
    }
    assert!(cache.changes_since(then).is_none(), "all of two is less");
}

#[test]
fn what_is_alike_changes_nothing() {
    let mut cache = Cache::default();
    cache.put_node(&node("a"));
    let mut templates = Templates::default();
    let mut version = |revision: &str, node: &str| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default", "resourceVersion": revision},
            "spec": {"nodeName": node},
        }))
        .unwrap();
        templates.pod(&pod)
    };
    cache.assume(version("1", ""), "a");
    let then = cache.now();
    cache.put_pod(version("2", "a"));
    assert_eq!(cache.now(), then, "confirmed, and nothing else");
    assert!(!cache.is_assumed(&version("2", "a").key));
}

#[test]
fn pods_of_a_node_that_comes_late_are_counted() {
    let mut cache = Cache::default();
    cache.put_pod(pod("p", "late"));
    cache.put_node(&node("late"));
    assert_eq!(cache.node_named("late").unwrap().pod_count(), 1);
    cache.put_node(&node("other"));
    cache.remove_node("late");
    assert!(cache.node_named("late").is_none());
    cache.put_node(&node("late"));
    assert_eq!(cache.node_named("late").unwrap().pod_count(), 1);
    cache.remove_pod(&pod("p", "").key);
    assert_eq!(cache.node_named("late").unwrap().pod_count(), 0);
}

#[test]
fn a_node_is_in_the_domain_that_its_label_says() {
    let mut cache = Cache::default();
    cache.put_node(&node("a"));
    let zone = cache.topology_key("zone");
    cache.put_node(&node("b"));
    let of = |cache: &Cache, name: &str| {
        let slot = cache.node_named(name).unwrap().slot;
        cache.topology().domain(zone, slot)
    };
    assert_ne!(of(&cache, "a"), of(&cache, "b"));
    let mut moved = node("b");
    moved.metadata.labels.insert("zone".into(), "a".into());
    cache.put_node(&moved);
    assert_eq!(of(&cache, "a"), of(&cache, "b"));
    moved.metadata.labels.clear();
    cache.put_node(&moved);
    assert_eq!(of(&cache, "b"), NOWHERE);
}

#[test]
fn pods_of_one_kind_share_a_template() {
    let mut templates = Templates::default();
    let mut named = |name: &str, label: &str| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "labels": {"l": label}},
        }))
        .unwrap();
        templates.pod(&pod)
    };
    let (a, b, other) = (named("a", "x"), named("b", "x"), named("c", "y"));
    assert!(Arc::ptr_eq(&a.template, &b.template));
    assert_ne!(a.template.id, other.template.id);
}

#[test]
fn a_pod_that_is_resized_counts_for_the_larger() {
    let pod = |wanted: &str, has: &str, pending: &str| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"containers": [
                {"name": "c", "resources": {"requests": {"cpu": wanted}}},
            ]},
            "status": {
                "conditions": [
                    {"type": "PodResizePending", "status": "True", "reason": pending},
                ],
                "containerStatuses": [
                    {"name": "c", "resources": {"requests": {"cpu": has}}},
                ],
            },
        }))
        .unwrap();
        PodInfo::new(&pod).requests.milli_cpu
    };
    assert_eq!(pod("2", "1", "Deferred"), 2000);
    assert_eq!(pod("1", "2", "Deferred"), 2000);
    assert_eq!(pod("3", "1", "Infeasible"), 1000);
}

#[test]
fn a_pod_that_is_resized_as_a_whole_counts_for_the_larger() {
    let pod = |wanted: &str, has: &str| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "default"},
            "spec": {"resources": {"requests": {"cpu": wanted}},
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]},
            "status": {"resources": {"requests": {"cpu": has, "memory": "1Gi"}},
                "allocatedResources": {"cpu": "1500m"}},
        }))
        .unwrap();
        let requests = PodInfo::new(&pod).requests.clone();
        (requests.milli_cpu, requests.memory)
    };
    assert_eq!(pod("1", "2"), (2000, 0));
    assert_eq!(pod("1", "1"), (1500, 0));
    assert_eq!(pod("3", "2"), (3000, 0));
}

#[test]
fn sidecars_and_init_containers_are_counted_as_they_run() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [{"resources": {"requests": {"cpu": "1"}}}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "250m"}}},
                {"resources": {"requests": {"cpu": "2"}}},
            ],
        },
    }))
    .unwrap();
    assert_eq!(PodInfo::new(&pod).requests.milli_cpu, 2250);
}
