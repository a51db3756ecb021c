use std::sync::Arc;

use serde_json::json;

use super::Cache;
use crate::model::{Node, Pod, PodInfo};

fn node(name: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "10"}},
    }))
    .unwrap()
}

fn pod(name: &str, node: &str) -> Arc<PodInfo> {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "500m"}}}]},
    }))
    .unwrap();
    PodInfo::new(&pod)
}

#[test]
fn an_assumed_pod_counts_until_it_is_forgotten_or_confirmed() {
    let mut cache = Cache::default();
    cache.put_node(&node("a"));
    let waiting = pod("p", "");
    cache.assume(Arc::clone(&waiting), "a");
    assert_eq!(cache.snapshot().nodes[0].requested.milli_cpu, 500);
    assert!(cache.forget(&waiting.key));
    assert_eq!(cache.snapshot().nodes[0].requested.milli_cpu, 0);

    cache.assume(Arc::clone(&waiting), "a");
    cache.put_pod(pod("p", "a"));
    assert!(!cache.forget(&waiting.key));
    assert_eq!(cache.snapshot().nodes[0].requested.milli_cpu, 500);
    assert_eq!(cache.snapshot().nodes[0].pod_count, 1);
}

#[test]
fn a_snapshot_does_not_change_and_is_shared_while_nothing_does() {
    let mut cache = Cache::default();
    cache.put_node(&node("a"));
    let before = cache.snapshot();
    assert!(Arc::ptr_eq(&before.nodes, &cache.snapshot().nodes));
    cache.put_pod(pod("p", "a"));
    assert_eq!(before.nodes[0].pod_count, 0);
    assert_eq!(cache.snapshot().nodes[0].pod_count, 1);
}

#[test]
fn pods_of_a_node_that_comes_late_are_counted() {
    let mut cache = Cache::default();
    cache.put_pod(pod("p", "late"));
    cache.put_node(&node("late"));
    assert_eq!(cache.snapshot().nodes[0].pod_count, 1);
    cache.put_node(&node("other"));
    cache.remove_node("late");
    assert_eq!(&*cache.snapshot().nodes[0].name, "other");
    cache.remove_pod(&pod("p", "").key);
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
