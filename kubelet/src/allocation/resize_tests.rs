//! The rules of resizes, case by case.

use grpc::cri;
use serde_json::{Value, json};

use super::*;

fn resources(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
}

fn pod(containers: &[(&str, Value)]) -> Pod {
    let containers: Vec<_> = containers
        .iter()
        .map(|(name, resources)| json!({"name": name, "resources": resources}))
        .collect();
    serde_json::from_value(
        json!({"metadata": {"uid": "u", "generation": 2}, "spec": {"containers": containers}}),
    )
    .unwrap()
}

#[test]
fn what_was_granted_replaces_what_is_asked_for() {
    let granted = pod(&[("a", resources("100m", "1Gi")), ("b", json!({}))]);
    let record = PodResources::of(&granted);
    assert!(with(&granted, &record).is_none());
    // Another way to write the same is the same.
    let same = pod(&[("a", resources("0.1", "1024Mi")), ("b", json!({}))]);
    assert!(with(&same, &record).is_none());
    let wanted = pod(&[
        ("a", resources("200m", "1Gi")),
        ("b", json!({"limits": {"cpu": "1"}})),
    ]);
    let mut back = with(&wanted, &record).unwrap();
    assert_eq!(Given::wanted(&back, &back.containers()[0]).cpu_limit, 100);
    back.metadata = granted.metadata.clone();
    assert_eq!(back, granted);
}

#[test]
fn changes_are_told_apart() {
    let old = pod(&[("a", resources("100m", "1Gi")), ("b", json!({}))]);
    assert_eq!(asked(&old, &old), None);
    let new = pod(&[
        ("a", resources("50m", "2Gi")),
        ("b", json!({"limits": {"cpu": "1"}})),
    ]);
    assert_eq!(
        asked(&old, &new).unwrap(),
        [
            ("memory", "requests", "increase"),
            ("memory", "limits", "increase"),
            ("cpu", "requests", "decrease"),
            ("cpu", "limits", "decrease"),
            ("cpu", "limits", "add"),
        ]
    );
    let mut own = old.clone();
    own.spec.as_mut().unwrap().resources =
        serde_json::from_value(json!({"limits": {"cpu": "1"}})).unwrap();
    assert_eq!(asked(&old, &own), Some(vec![]));
}

#[test]
fn who_comes_first() {
    let small = pod(&[("a", resources("100m", "1Gi"))]);
    let large = pod(&[("a", resources("200m", "1Gi"))]);
    let mut important = large.clone();
    important.spec.as_mut().unwrap().priority = Some(10);
    let burstable = pod(&[("a", json!({"requests": {"cpu": "200m"}}))]);
    let at = |second| Some(Timestamp::from_second(second).unwrap());
    fn w<'a>(wanted: &'a Pod, granted: &'a Pod, since: Option<Timestamp>) -> Waiting<'a> {
        Waiting {
            wanted,
            granted,
            since,
        }
    }
    let mut list = [
        ("never judged", w(&large, &small, None)),
        ("young", w(&large, &small, at(9))),
        ("burstable", w(&burstable, &small, at(1))),
        ("old", w(&large, &small, at(1))),
        ("important", w(&important, &small, at(9))),
        ("shrinks", w(&small, &large, None)),
    ];
    list.sort_by(|(_, a), (_, b)| order(a, b));
    assert_eq!(
        list.map(|(name, _)| name),
        [
            "shrinks",
            "important",
            "old",
            "young",
            "never judged",
            "burstable"
        ]
    );
}

fn running(name: &str, resources: Option<cri::LinuxContainerResources>) -> ContainerStatus {
    let labels = std::collections::BTreeMap::from([(
        crate::cri::labels::CONTAINER_NAME.to_owned(),
        name.to_owned(),
    )]);
    let status = cri::ContainerStatus {
        state: cri::ContainerState::ContainerRunning.into(),
        labels,
        resources: Some(cri::ContainerResources { linux: resources }),
        ..Default::default()
    };
    crate::cri::observed::container_status(status, None)
}

#[test]
fn a_resize_is_in_progress_until_all_have_it() {
    let before = pod(&[("a", resources("100m", "1Gi")), ("b", json!({}))]);
    let after = pod(&[("a", resources("200m", "1Gi")), ("b", json!({}))]);
    let mut observed = PodStatus {
        containers: vec![running("a", None), running("b", None)],
        given: PodResources::of(&before),
        ..Default::default()
    };
    assert!(!in_progress(&before, &observed));
    assert!(in_progress(&after, &observed));
    // One that does not run is made as it should be when it starts.
    observed.containers[0].state = State::Exited;
    assert!(!in_progress(&after, &observed));
    // Without a record, the runtime's word counts.
    observed.containers[0] = running(
        "a",
        Some(cri::LinuxContainerResources {
            cpu_shares: 204,
            cpu_quota: 20_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 1 << 30,
            ..Default::default()
        }),
    );
    observed.given.containers.remove("a");
    assert!(!in_progress(&after, &observed));
    assert!(in_progress(&before, &observed));
}

#[test]
fn what_is_still_in_use_is_nobody_elses() {
    let mut granted = pod(&[("a", resources("100m", "1Gi"))]);
    assert!(in_use(&granted).is_none());
    granted.status = serde_json::from_value(json!({"containerStatuses": [{
        "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
        "allocatedResources": {"cpu": "100m", "memory": "1Gi"},
        "resources": {"requests": {"cpu": "300m", "memory": "512Mi"}},
    }]}))
    .unwrap();
    let used = pod_requests(&in_use(&granted).unwrap(), true);
    assert_eq!((used["cpu"], used["memory"]), (300, 1 << 30));
}

#[test]
fn the_text_of_an_event() {
    assert_eq!(
        message(
            "Pod resize started",
            &pod(&[("a", json!({"requests": {"cpu": "1"}})), ("b", json!({}))]),
            Some(2),
            ""
        ),
        r#"Pod resize started: {"containers":[{"name":"a","resources":{"requests":{"cpu":"1"}}},{"name":"b","resources":{}}],"generation":2}"#
    );
}
