use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Backoff, Queue};
use crate::framework::ClusterEvent;
use crate::model::{Pod, PodInfo};
use crate::plugins::default_profile;
use crate::plugins::testing::api_node;

fn pod(name: &str, spec: Value) -> Arc<PodInfo> {
    let pod =
        json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec});
    PodInfo::new(&serde_json::from_value::<Pod>(pod).unwrap())
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn take(queue: &mut Queue, now: Instant) -> Option<String> {
    queue.take(now).map(|taken| taken.pod.key.name().to_owned())
}

#[test]
fn the_important_and_then_the_old_come_first() {
    let (mut queue, plugins, now) = (
        Queue::new(Backoff::default()),
        default_profile(),
        Instant::now(),
    );
    queue.put(pod("a", json!({})), &plugins, now);
    queue.put(pod("b", json!({})), &plugins, now);
    queue.put(pod("c", json!({"priority": 10})), &plugins, now);
    queue.put(pod("d", json!({})), &plugins, now);
    queue.remove(&pod("b", json!({})).key);
    assert_eq!(take(&mut queue, now).as_deref(), Some("c"));
    assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
    assert_eq!(take(&mut queue, now).as_deref(), Some("d"));
    assert_eq!(take(&mut queue, now), None);
}

#[test]
fn a_rejected_pod_waits_for_what_helps_and_for_its_pause() {
    let (mut queue, plugins, start) = (
        Queue::new(Backoff::default()),
        default_profile(),
        Instant::now(),
    );
    let waiting = pod(
        "a",
        json!({"containers": [{"resources": {"requests": {"cpu": "4"}}}]}),
    );
    queue.put(Arc::clone(&waiting), &plugins, start);
    assert_eq!(take(&mut queue, start).as_deref(), Some("a"));
    queue.unschedulable(&waiting.key, BTreeSet::from(["NodeResourcesFit"]), start);
    assert_eq!(queue.counts().unschedulable, 1);

    let small = api_node("small", json!({}));
    queue.happened(&ClusterEvent::NodeAdded(&small), &plugins, start);
    assert_eq!(
        queue.counts().unschedulable,
        1,
        "a node that is too small helps nobody"
    );
    let large = api_node(
        "large",
        json!({"status": {"allocatable": {"cpu": "8", "pods": "10"}}}),
    );
    queue.happened(&ClusterEvent::NodeAdded(&large), &plugins, start);
    assert_eq!(queue.counts().backoff, 1);
    assert_eq!(take(&mut queue, start), None);
    assert_eq!(queue.next_deadline(), Some(start + seconds(1)));
    assert_eq!(take(&mut queue, start + seconds(1)).as_deref(), Some("a"));

    // The second failure waits twice as long.
    let later = start + seconds(1);
    queue.unschedulable(&waiting.key, BTreeSet::from(["NodeResourcesFit"]), later);
    queue.happened(&ClusterEvent::NodeAdded(&large), &plugins, later);
    assert_eq!(queue.next_deadline(), Some(later + seconds(2)));
}

#[test]
fn what_happens_during_an_attempt_is_not_missed() {
    let (mut queue, plugins, now) = (
        Queue::new(Backoff::default()),
        default_profile(),
        Instant::now(),
    );
    let waiting = pod("a", json!({}));
    queue.put(Arc::clone(&waiting), &plugins, now);
    queue.take(now).unwrap();
    let node = api_node("new", json!({}));
    queue.happened(&ClusterEvent::NodeAdded(&node), &plugins, now);
    queue.unschedulable(&waiting.key, BTreeSet::from(["NodeResourcesFit"]), now);
    assert_eq!(queue.counts().backoff, 1);
}

#[test]
fn gates_keep_a_pod_out() {
    let (mut queue, plugins, now) = (
        Queue::new(Backoff::default()),
        default_profile(),
        Instant::now(),
    );
    queue.put(
        pod("a", json!({"schedulingGates": [{"name": "g"}]})),
        &plugins,
        now,
    );
    assert_eq!(queue.counts().gated, 1);
    assert_eq!(take(&mut queue, now), None);
    queue.put(pod("a", json!({})), &plugins, now);
    assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
}

#[test]
fn nobody_is_forgotten() {
    let (mut queue, plugins, now) = (
        Queue::new(Backoff::default()),
        default_profile(),
        Instant::now(),
    );
    let waiting = pod("a", json!({}));
    queue.put(Arc::clone(&waiting), &plugins, now);
    queue.take(now).unwrap();
    queue.unschedulable(&waiting.key, BTreeSet::from(["NodeAffinity"]), now);
    queue.flush_left_over(now + seconds(299));
    assert_eq!(take(&mut queue, now + seconds(299)), None);
    queue.flush_left_over(now + seconds(300));
    assert_eq!(take(&mut queue, now + seconds(300)).as_deref(), Some("a"));
}
