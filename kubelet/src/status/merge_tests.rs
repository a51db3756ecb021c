//! What is kept, what is sent, what is never sent.

use serde_json::json;

use super::*;

fn status(value: Value) -> PodStatus {
    serde_json::from_value(value).unwrap()
}

fn pod(policy: &str) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"},
        "spec": {"restartPolicy": policy, "containers": [{"name": "c"}]}}))
    .unwrap()
}

fn container(state: Value) -> Value {
    json!([{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn transition_times_change_with_the_status_only() {
    let condition = |status: &str| json!({"conditions": [{"type": "Ready", "status": status}]});
    let mut first = status(condition("False"));
    carry_over(&pod("Always"), &PodStatus::default(), &mut first, at(10));
    assert_eq!(first.start_time, Some(Time(at(10))));
    let mut same_again = status(condition("False"));
    carry_over(&pod("Always"), &first, &mut same_again, at(20));
    assert_eq!(same_again, first);
    let mut flipped = status(condition("True"));
    carry_over(&pod("Always"), &first, &mut flipped, at(30));
    assert_eq!(
        flipped.conditions.as_ref().unwrap()[0].last_transition_time,
        Some(Time(at(30)))
    );
    assert_eq!(flipped.start_time, Some(Time(at(10))));
    assert!(!same(&first, &flipped));
}

#[test]
fn others_conditions_do_not_make_a_difference() {
    let a =
        status(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}));
    let b = status(
        json!({"phase": "Running", "conditions": [{"type": "x", "status": "True"}, {"type": "Ready", "status": "True"}]}),
    );
    assert!(same(&a, &b));
}

#[test]
fn the_dead_do_not_rise() {
    let ended =
        status(json!({"containerStatuses": container(json!({"terminated": {"exitCode": 0}}))}));
    let waiting = status(json!({"containerStatuses": container(json!({"waiting": {}}))}));
    assert_eq!(
        illegal_transition(&pod("Never"), &ended, &waiting),
        Some("c".into())
    );
    assert_eq!(
        illegal_transition(&pod("OnFailure"), &ended, &waiting),
        Some("c".into())
    );
    assert_eq!(illegal_transition(&pod("Always"), &ended, &waiting), None);
}

#[test]
fn a_finished_pod_has_ended() {
    let last = finish(
        &pod("Always"),
        &status(
            json!({"phase": "Running", "containerStatuses": container(json!({"running": {}}))}),
        ),
    );
    assert_eq!(last.phase.as_deref(), Some("Failed"));
    assert_eq!(
        terminated(&last.container_statuses.unwrap()[0])
            .unwrap()
            .exit_code,
        137
    );
}

#[test]
fn a_phase_is_final_only_once_nothing_runs() {
    let api =
        status(json!({"phase": "Running", "conditions": [{"type": "theirs", "status": "True"}]}));
    let ours = status(
        json!({"phase": "Failed", "reason": "Evicted", "conditions": [{"type": "Ready", "status": "True"}]}),
    );
    let held = for_api(&pod("Always"), &api, &ours, true, at(0));
    assert_eq!(
        (held.phase.as_deref(), held.reason),
        (Some("Running"), None)
    );
    let sent = for_api(&pod("Always"), &api, &ours, false, at(0));
    assert_eq!(sent.phase.as_deref(), Some("Failed"));
    let list: Vec<_> = sent
        .conditions
        .iter()
        .flatten()
        .map(|c| format!("{}={}", c.type_, c.status))
        .collect();
    assert_eq!(list, ["theirs=True", "Ready=False"]);
}

#[test]
fn a_patch_says_what_changed() {
    let old = status(
        json!({"phase": "Pending", "message": "m", "podIPs": [{"ip": "1"}], "resources": {"requests": {"cpu": "1"}},
        "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "False", "message": "m"}, {"type": "C", "status": "True"}]}),
    );
    let new = status(
        json!({"phase": "Running", "podIPs": [{"ip": "2"}], "resources": {"requests": {"memory": "1"}},
        "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]}),
    );
    assert_eq!(
        patch("u", &old, &new).unwrap().unwrap(),
        json!({"metadata": {"uid": "u"}, "status": {
            "phase": "Running",
            "message": null,
            "podIPs": [{"ip": "2"}, {"$patch": "delete", "ip": "1"}],
            "$setElementOrder/podIPs": [{"ip": "2"}],
            "resources": {"requests": {"memory": "1", "cpu": null}},
            "conditions": [{"type": "B", "status": "True", "message": null}, {"$patch": "delete", "type": "C"}],
            "$setElementOrder/conditions": [{"type": "A"}, {"type": "B"}],
        }})
    );
    assert_eq!(patch("u", &new, &new).unwrap(), None);
}
