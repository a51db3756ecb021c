use std::sync::Arc;
use std::time::Duration;

use client::ObjectKey;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Backoff, Queue};
use crate::model::{Pod, PodInfo};
use crate::profile::Rejectors;

fn pod(name: &str, spec: Value) -> Arc<PodInfo> {
    let pod =
        json!({"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec});
    PodInfo::new(&serde_json::from_value::<Pod>(pod).unwrap())
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn put(queue: &mut Queue, pod: &Arc<PodInfo>, now: Instant) {
    queue.put(Arc::clone(pod), pod.gates.is_empty(), now, |_, _| true);
}

fn take(queue: &mut Queue, now: Instant) -> Option<String> {
    queue.take(now).map(|taken| taken.pod.key.name().to_owned())
}

/// The verdict of one plugin.
fn by(place: usize) -> Rejectors {
    let mut rejectors = Rejectors::default();
    rejectors.insert(place);
    rejectors
}

/// It is not schedulable, and that has been told.
fn reject(queue: &mut Queue, key: &ObjectKey, by: Rejectors, now: Instant) {
    queue.unschedulable(key, by, now);
    queue.told(key, false, true, now);
}

fn new() -> (Queue, Instant) {
    (Queue::new(Backoff::default()), Instant::now())
}

#[test]
fn the_important_and_then_the_old_come_first() {
    let (mut queue, now) = new();
    for (name, spec) in [
        ("a", json!({})),
        ("b", json!({})),
        ("c", json!({"priority": 10})),
        ("d", json!({})),
    ] {
        put(&mut queue, &pod(name, spec), now);
    }
    queue.remove(&pod("b", json!({})).key);
    assert_eq!(take(&mut queue, now).as_deref(), Some("c"));
    assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
    assert_eq!(take(&mut queue, now).as_deref(), Some("d"));
    assert_eq!(take(&mut queue, now), None);
}

#[test]
fn what_happens_during_an_attempt_is_not_forgotten() {
    let (mut queue, start) = new();
    let waiting = pod("a", json!({}));
    put(&mut queue, &waiting, start);
    let later = start + seconds(5);
    // Something that plugin 3 calls helpful, while it has no verdict yet.
    take(&mut queue, start).unwrap();
    queue.happened("NodeAdd", start, |_, rejectors| rejectors == by(3));
    reject(&mut queue, &waiting.key, by(2), start);
    assert_eq!(take(&mut queue, later), None, "it was plugin 2");
    queue.happened("NodeAdd", later, |_, _| true);
    take(&mut queue, later).unwrap();
    queue.happened("NodeAdd", later, |_, rejectors| rejectors == by(3));
    reject(&mut queue, &waiting.key, by(3), later);
    let later = later + seconds(10);
    assert_eq!(take(&mut queue, later).as_deref(), Some("a"));
    // The pod itself changes.
    queue.put(Arc::clone(&waiting), true, later, |_, rejectors| {
        rejectors == by(1)
    });
    reject(&mut queue, &waiting.key, by(1), later);
    let later = later + seconds(10);
    assert_eq!(take(&mut queue, later).as_deref(), Some("a"));
    reject(&mut queue, &waiting.key, by(1), later);
    assert_eq!(take(&mut queue, later + seconds(10)), None);
}

#[test]
fn a_rejected_pod_waits_for_what_helps() {
    let (mut queue, start) = new();
    let waiting = pod("a", json!({}));
    put(&mut queue, &waiting, start);
    assert_eq!(take(&mut queue, start).as_deref(), Some("a"));
    reject(&mut queue, &waiting.key, by(3), start);
    assert_eq!(queue.counts().unschedulable, 1);

    queue.happened("NodeAdd", start, |_, rejectors| rejectors.contains(2));
    assert_eq!(queue.counts().unschedulable, 1, "another plugin's matter");
    queue.happened("NodeAdd", start, |_, rejectors| rejectors.contains(3));
    assert_eq!(queue.counts().backoff, 1);

    // It is its turn when nobody else's is; and after its pause in any case.
    let other = pod("b", json!({}));
    put(&mut queue, &other, start);
    assert_eq!(take(&mut queue, start).as_deref(), Some("b"));
    queue.done(&other.key);
    assert_eq!(queue.next_deadline(), Some(start + seconds(1)));
    assert_eq!(take(&mut queue, start).as_deref(), Some("a"));

    // The second failure waits twice as long.
    reject(&mut queue, &waiting.key, by(3), start);
    queue.happened("NodeAdd", start, |_, _| true);
    assert_eq!(queue.next_deadline(), Some(start + seconds(2)));
}

#[test]
fn pods_that_nothing_tells_apart_are_asked_about_once() {
    let (mut queue, now) = new();
    let mut templates = crate::model::Templates::default();
    for name in ["a", "b", "c"] {
        let one: Pod = serde_json::from_value(
            json!({"metadata": {"name": name, "namespace": "default", "uid": name}}),
        )
        .unwrap();
        let one = templates.pod(&one);
        put(&mut queue, &one, now);
        queue.take(now).unwrap();
        reject(&mut queue, &one.key, by(0), now);
    }
    let mut asked = 0;
    queue.happened("NodeAdd", now, |_, _| {
        asked += 1;
        true
    });
    assert_eq!((asked, queue.counts().backoff), (1, 3));
}

#[test]
fn an_error_pauses() {
    let (mut queue, now) = new();
    let waiting = pod("a", json!({}));
    put(&mut queue, &waiting, now);
    let taken = queue.take(now).unwrap();
    queue.done(&waiting.key);
    queue.failed(&taken, now);
    let later = now + seconds(1);
    assert_eq!(take(&mut queue, later), None, "it is being told");
    queue.told(&waiting.key, false, true, now);
    assert_eq!(take(&mut queue, now), None);
    assert_eq!(take(&mut queue, later).as_deref(), Some("a"));
}

#[test]
fn what_comes_of_a_pod_says_nothing_of_another_of_its_name() {
    let (mut queue, now) = new();
    let before = pod("a", json!({}));
    put(&mut queue, &before, now);
    let taken = queue.take(now).unwrap();
    queue.done(&before.key);
    let again = json!({"metadata": {"name": "a", "namespace": "default", "uid": "again"},
        "spec": {"schedulingGates": [{"name": "g"}]}});
    let again = PodInfo::new(&serde_json::from_value::<Pod>(again).unwrap());
    put(&mut queue, &again, now);
    queue.failed(&taken, now);
    assert!(queue.has(&again) && !queue.has(&before));
    assert_eq!((queue.counts().gated, queue.counts().backoff), (1, 0));
}

#[test]
fn who_has_failed_comes_after_who_has_not() {
    let (mut queue, now) = new();
    let (first, second) = (pod("a", json!({})), pod("b", json!({})));
    put(&mut queue, &first, now);
    put(&mut queue, &second, now);
    assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
    reject(&mut queue, &first.key, by(0), now);
    let later = now + seconds(1);
    queue.happened("NodeAdd", later, |_, _| true);
    assert_eq!(take(&mut queue, later).as_deref(), Some("b"));
}

#[test]
fn errors_and_verdicts_pause_apart() {
    let (mut queue, now) = new();
    let waiting = pod("a", json!({}));
    put(&mut queue, &waiting, now);
    for _ in 0..3 {
        queue.take(now).unwrap();
        reject(&mut queue, &waiting.key, by(0), now);
        queue.happened("NodeAdd", now, |_, _| true);
    }
    assert_eq!(queue.next_deadline(), Some(now + seconds(4)));
    let taken = queue.take(now).unwrap();
    queue.failed(&taken, now);
    queue.told(&waiting.key, false, true, now);
    assert_eq!(
        queue.next_deadline(),
        Some(now + seconds(1)),
        "its first error"
    );
}

#[test]
fn what_has_come_of_an_attempt_is_told_before_the_next() {
    let (mut queue, now) = new();
    let waiting = pod("a", json!({}));
    put(&mut queue, &waiting, now);
    queue.take(now).unwrap();
    queue.unschedulable(&waiting.key, by(0), now);
    queue.happened("AssignedPodDelete", now, |_, _| true);
    assert_eq!(
        queue.counts().unschedulable,
        1,
        "it is being told, and victims are"
    );
    queue.told(&waiting.key, false, true, now);
    assert_eq!(queue.counts().backoff, 1, "and the event is not forgotten");
}

#[test]
fn gates_keep_a_pod_out() {
    let (mut queue, now) = new();
    let gated = pod("a", json!({"schedulingGates": [{"name": "g"}]}));
    put(&mut queue, &gated, now);
    assert_eq!(queue.counts().gated, 1);
    assert_eq!(take(&mut queue, now), None);
    put(&mut queue, &pod("a", json!({})), now);
    assert_eq!(take(&mut queue, now).as_deref(), Some("a"));
}

#[test]
fn nobody_is_forgotten() {
    let (mut queue, now) = new();
    let waiting = pod("a", json!({}));
    put(&mut queue, &waiting, now);
    queue.take(now).unwrap();
    reject(&mut queue, &waiting.key, by(0), now);
    queue.flush_left_over(now + seconds(299), seconds(300));
    assert_eq!(take(&mut queue, now + seconds(299)), None);
    queue.flush_left_over(now + seconds(300), seconds(300));
    let taken = queue.take(now + seconds(300)).unwrap();
    assert!(taken.flushed);
}

#[test]
fn a_member_of_a_group_is_tried_again_without_any_event() {
    let (mut queue, start) = new();
    let mut templates = crate::model::Templates::new(true);
    let mut member = |name: &str, spec: Value| {
        let pod = json!({"metadata": {"name": name, "namespace": "default", "uid": name},
            "spec": spec});
        templates.pod(&serde_json::from_value::<Pod>(pod).unwrap())
    };
    let group = json!({"podGroupName": "g"});
    let rejected = member("a", json!({"schedulingGroup": group}));
    let fitting = member("b", json!({"schedulingGroup": group, "priority": 1}));
    put(&mut queue, &rejected, start);
    put(&mut queue, &fitting, start);
    let attempt = |queue: &mut Queue, now| {
        assert!(take(queue, now).is_some());
        let other = [&rejected, &fitting].map(|pod| queue.take_along(&pod.key));
        assert_eq!(
            other.into_iter().flatten().count(),
            1,
            "the other comes along"
        );
        reject(queue, &rejected.key, by(1), now);
        reject(queue, &fitting.key, Rejectors::default(), now);
    };
    attempt(&mut queue, start);
    assert_eq!(take(&mut queue, start), None, "nothing has happened");
    assert_eq!(queue.next_deadline(), Some(start + seconds(1)));
    attempt(&mut queue, start + seconds(1));
    // Only those that a plugin has rejected are asked about.
    let mut asked = Vec::new();
    queue.happened("Event", start + seconds(1), |pod, _| {
        asked.push(pod.key.name().to_owned());
        true
    });
    assert_eq!(asked, ["a"]);
    attempt(&mut queue, start + seconds(1));
    assert_eq!(queue.counts().backoff, 2);
    // So does what has been decided for the others.
    queue.helped(&fitting.key, start + seconds(1));
    attempt(&mut queue, start + seconds(1));
    // Without their group they wait for it.
    queue.hold(&rejected.key);
    queue.hold(&fitting.key);
    assert_eq!(queue.counts().gated, 2);
    assert_eq!(take(&mut queue, start + seconds(60)), None);
    assert!(queue.take_along(&rejected.key).is_none());
    queue.admit(&rejected.key, "PodGroupAdd");
    assert_eq!(take(&mut queue, start).as_deref(), Some("a"));
}

#[test]
fn a_group_that_preempts_is_tried_again_even_if_nobody_goes() {
    let (mut queue, start) = new();
    let pod = json!({"metadata": {"name": "a", "namespace": "default"},
        "spec": {"schedulingGroup": {"podGroupName": "g"}}});
    let pod = serde_json::from_value::<Pod>(pod).unwrap();
    let pod = crate::model::Templates::new(true).pod(&pod);
    put(&mut queue, &pod, start);
    assert!(queue.take(start).is_some());
    queue.unschedulable(&pod.key, by(1), start);
    assert!(
        queue.take_along(&pod.key).is_none(),
        "victims are being told"
    );
    assert_eq!(take(&mut queue, start + seconds(60)), None);
    queue.told(&pod.key, false, false, start);
    assert_eq!(take(&mut queue, start), None);
    assert_eq!(take(&mut queue, start + seconds(1)).as_deref(), Some("a"));
}
