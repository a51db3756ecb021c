//! What metrics make of targets, and how fast.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use serde_json::{Value, json};

use super::behavior::{Memory, Wish};
use super::metrics::{PodMetric, PodMetrics};
use super::replicas::{Given, TargetPod, Tolerance};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// `a`: ready since long; `b?`: not ready, started just now; `c%`: pending; `d!`: being deleted.
fn pod(text: &str) -> TargetPod {
    let is = |mark| text.ends_with(mark);
    let (started, ready) = match is('?') {
        true => ("2025-12-31T23:59:00Z", "False"),
        false => ("2025-12-31T20:00:00Z", "True"),
    };
    let phase = if is('%') { "Pending" } else { "Running" };
    let deleted = is('!').then_some("2026-01-01T00:00:00Z");
    serde_json::from_value(json!({
        "metadata": {"name": text.trim_end_matches(['?', '%', '!']), "deletionTimestamp": deleted},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"phase": phase, "startTime": started, "conditions": [
            {"type": "Ready", "status": ready, "lastTransitionTime": started}]},
    }))
    .unwrap()
}

fn pods(text: &str) -> Vec<TargetPod> {
    text.split_whitespace().map(pod).collect()
}

/// `a=300` in thousandths.
fn metrics(text: &str) -> PodMetrics {
    let metric = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap();
        let metric = PodMetric {
            at: now(),
            window: SignedDuration::from_secs(30),
            value: value.parse().unwrap(),
        };
        (name.to_owned(), metric)
    };
    text.split_whitespace().map(metric).collect()
}

fn given(pods: &[TargetPod], replicas: i32) -> Given<'_> {
    Given {
        pods,
        replicas,
        tolerance: Tolerance { down: 0.1, up: 0.1 },
        cpu_initialization: SignedDuration::from_mins(5),
        initial_readiness: SignedDuration::from_secs(30),
        now: now(),
    }
}

#[test]
fn utilization() {
    // Pods, their use, and the number of pods at 50 percent, with the use in percent.
    for (text, used, want) in [
        ("a b", "a=500 b=500", Ok((2, 50))),
        ("a b", "a=1000 b=1000", Ok((4, 100))),
        ("a b", "a=520 b=520", Ok((2, 52))),
        ("a b", "a=100 b=100", Ok((1, 10))),
        // Not known: at nothing when growing, at all when shrinking.
        ("a b", "a=1000", Ok((2, 100))),
        ("a b c", "a=1000 b=1000", Ok((4, 100))),
        ("a b", "a=100", Ok((2, 10))),
        // Just started, or not yet.
        ("a b?", "a=1000 b=1000", Ok((2, 100))),
        ("a b? c%", "a=2000 b=9", Ok((4, 200))),
        ("a b!", "a=1000 b=1000", Ok((2, 100))),
        ("a", "x=1", Err("no metrics returned matched known pods")),
        (
            "a%",
            "a=1",
            Err("did not receive metrics for targeted pods (pods might be unready)"),
        ),
        (
            "",
            "a=1",
            Err("no pods returned by selector while calculating replica count"),
        ),
    ] {
        let pods = pods(text);
        let replicas = i32::try_from(pods.len()).unwrap();
        let got = given(&pods, replicas).by_utilization(metrics(used), "cpu", "", 50);
        let got = got.map(|(n, percent, _)| (n, percent));
        assert_eq!(
            got.as_ref().map_err(String::as_str).copied(),
            want,
            "{text} {used}"
        );
    }
    let two = pods("a b");
    let wrong = given(&two, 2).by_utilization(metrics("a=1 b=1"), "memory", "", 50);
    assert_eq!(
        wrong,
        Err("missing request for memory in container c of Pod a".to_owned())
    );
    let wrong = given(&two, 2).by_utilization(metrics("a=1 b=1"), "cpu", "x", 50);
    assert_eq!(wrong, Err("container x not found in Pod a".to_owned()));
}

#[test]
fn values() {
    let three = pods("a b c");
    let given = given(&three, 3);
    assert_eq!(
        given.by_mean(metrics("a=10 b=20 c=30"), false, 10),
        Ok((6, 20))
    );
    assert_eq!(
        given.by_mean(metrics("a=10 b=20 c=30"), false, 20),
        Ok((3, 20))
    );
    assert_eq!(given.by_value(50, 10), Ok(15));
    assert_eq!(given.by_value(105, 100), Ok(3));
    assert_eq!(given.by_share(100, 10, 3), (10, 34));
    assert_eq!(given.by_share(31, 10, 3), (3, 11));
    let none = super::replicas::Given {
        replicas: 0,
        ..given
    };
    assert_eq!(none.by_value(50, 10), Ok(5));
}

fn wish(current: i32, desired: i32, seconds: i64) -> Wish {
    Wish {
        current,
        desired,
        min: 2,
        max: 20,
        now: now() + SignedDuration::from_secs(seconds),
    }
}

#[test]
fn without_rules() {
    let window = SignedDuration::from_mins(5);
    for (current, desired, want, why) in [
        (3, 5, 5, "DesiredWithinRange"),
        (3, 9, 6, "ScaleUpLimit"),
        (1, 9, 4, "ScaleUpLimit"),
        (15, 30, 20, "TooManyReplicas"),
        (3, 1, 2, "TooFewReplicas"),
    ] {
        let got = Memory::default().limit(wish(current, desired, 0), window);
        assert_eq!((got.replicas, got.limited.1), (want, why));
    }
    let mut memory = Memory::default();
    memory.begin(10, now());
    let got = memory.limit(wish(10, 4, 60), window);
    assert_eq!((got.replicas, got.able.1), (10, "ScaleDownStabilized"));
    let got = memory.limit(wish(10, 5, 301), window);
    assert_eq!((got.replicas, got.able.1), (5, "ReadyForNewScale"));
}

fn rules(value: Value) -> HorizontalPodAutoscalerBehavior {
    serde_json::from_value(value).unwrap()
}

#[test]
fn with_rules() {
    let rules = rules(json!({
        "scaleUp": {"stabilizationWindowSeconds": 30, "selectPolicy": "Max", "policies": [
            {"type": "Pods", "value": 2, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]},
        "scaleDown": {"selectPolicy": "Min", "policies": [
            {"type": "Pods", "value": 3, "periodSeconds": 60}, {"type": "Percent", "value": 10, "periodSeconds": 60}]},
    }));
    let mut memory = Memory::default();
    let got = memory.limit_by(&rules, wish(10, 20, 0), 0);
    assert_eq!((got.replicas, got.limited.1), (15, "ScaleUpLimit"));
    memory.changed(Some(&rules), 10, 15, now());
    // The policies' period counts from ten pods on.
    let got = memory.limit_by(&rules, wish(15, 20, 40), 0);
    assert_eq!((got.replicas, got.limited.1), (15, "ScaleUpLimit"));
    let got = memory.limit_by(&rules, wish(15, 20, 61), 0);
    assert_eq!((got.replicas, got.limited.1), (20, "DesiredWithinRange"));
    // Growth waits for the lowest recommendation of its window.
    let mut memory = Memory::default();
    memory.begin(10, now());
    let got = memory.limit_by(&rules, wish(10, 12, 10), 0);
    assert_eq!((got.replicas, got.able.1), (10, "ScaleUpStabilized"));
    // The smaller of the changes: one pod of ten.
    let got = Memory::default().limit_by(&rules, wish(10, 2, 0), 0);
    assert_eq!((got.replicas, got.limited.1), (9, "ScaleDownLimit"));
    let mut memory = Memory::default();
    memory.begin(10, now());
    let got = memory.limit_by(&rules, wish(10, 2, 60), 300);
    assert_eq!((got.replicas, got.able.1), (10, "ScaleDownStabilized"));
}

#[test]
fn a_direction_can_be_disabled() {
    let rules = rules(json!({"scaleUp": {"selectPolicy": "Disabled", "policies": []}}));
    let got = Memory::default().limit_by(&rules, wish(5, 9, 0), 0);
    assert_eq!((got.replicas, got.limited.1), (5, "ScaleUpLimit"));
}
