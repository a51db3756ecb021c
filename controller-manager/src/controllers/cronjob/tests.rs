//! When CronJobs start what.

use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::{Value, json};

use super::plan::{after_change, decide, excess, job, look_at_jobs};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Made at midnight.
fn cron(spec: Value, status: Value) -> CronJob {
    let mut value = json!({
        "metadata": {"name": "c", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"schedule": "*/10 * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}},
        "status": status,
    });
    for (k, v) in spec.as_object().unwrap() {
        value["spec"][k] = v.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn ended(name: &str, how: Option<&str>, start: &str) -> Arc<Job> {
    let conditions: Vec<_> = how
        .iter()
        .map(|h| json!({"type": h, "status": "True"}))
        .collect();
    let done = how.filter(|h| *h == "Complete").map(|_| start);
    Arc::new(
        serde_json::from_value(json!({"metadata": {"name": name, "uid": name},
            "status": {"conditions": conditions, "startTime": start, "completionTime": done}}))
        .unwrap(),
    )
}

#[test]
fn what_is_due() {
    let active = json!({"active": [{"name": "c-1", "uid": "1"}]});
    let done = json!({"lastScheduleTime": "2026-01-01T00:20:00Z"});
    let none = json!({});
    // Spec, status, now; start, wait, events.
    for (spec, status, now, start, wait, events) in [
        (json!({}), &none, "00:05:00", None, Some(300_100), vec![]),
        (
            json!({}),
            &none,
            "00:10:00",
            Some("00:10:00"),
            Some(600_100),
            vec![],
        ),
        // Of several only the last.
        (
            json!({}),
            &none,
            "00:25:00",
            Some("00:20:00"),
            Some(300_100),
            vec![],
        ),
        (json!({}), &done, "00:25:00", None, Some(300_100), vec![]),
        (
            json!({"suspend": true}),
            &none,
            "00:25:00",
            None,
            None,
            vec![],
        ),
        (
            json!({"timeZone": "No/Where"}),
            &none,
            "00:25:00",
            None,
            None,
            vec!["UnknownTimeZone"],
        ),
        (
            json!({"schedule": "x"}),
            &none,
            "00:25:00",
            None,
            None,
            vec!["UnparseableSchedule"],
        ),
        (
            json!({"schedule": "0 0 31 2 *"}),
            &none,
            "00:25:00",
            None,
            None,
            vec!["InvalidSchedule"],
        ),
        (
            json!({"startingDeadlineSeconds": 60}),
            &none,
            "00:20:30",
            Some("00:20:00"),
            Some(570_100),
            vec![],
        ),
        // Out of the window nothing is due at all.
        (
            json!({"startingDeadlineSeconds": 60}),
            &none,
            "00:25:00",
            None,
            Some(300_100),
            vec![],
        ),
        (
            json!({"concurrencyPolicy": "Forbid"}),
            &active,
            "00:25:00",
            None,
            Some(300_100),
            vec!["JobAlreadyActive"],
        ),
        (
            json!({"concurrencyPolicy": "Allow"}),
            &active,
            "00:25:00",
            Some("00:20:00"),
            Some(300_100),
            vec![],
        ),
        (
            json!({"schedule": "* * * * *"}),
            &none,
            "05:00:00",
            Some("05:00:00"),
            Some(60_100),
            vec!["TooManyMissedTimes"],
        ),
        (
            json!({"schedule": "TZ=UTC */10 * * * *"}),
            &none,
            "00:10:01",
            Some("00:10:00"),
            Some(599_100),
            vec!["UnsupportedSchedule"],
        ),
        (
            json!({"schedule": "@every 7m"}),
            &none,
            "00:22:00",
            Some("00:21:00"),
            Some(360_100),
            vec![],
        ),
    ] {
        let cron = cron(spec.clone(), status.clone());
        let decision = decide(&cron, at(&format!("2026-01-01T{now}Z")), &TimeZone::UTC);
        let told: Vec<_> = decision.events.iter().map(|e| e.1).collect();
        let start = start.map(|s| at(&format!("2026-01-01T{s}Z")));
        let waited = decision.again_after.map(|d| d.as_millis());
        assert_eq!(
            (decision.start, waited, told),
            (start, wait, events),
            "{spec} {status} {now}"
        );
    }
}

#[test]
fn running_jobs_can_be_replaced() {
    let status = json!({"active": [{"name": "c-1", "uid": "1"}]});
    let cron = cron(json!({"concurrencyPolicy": "Replace"}), status);
    let decision = decide(&cron, at("2026-01-01T00:10:00Z"), &TimeZone::UTC);
    assert_eq!(decision.replace[0].name.as_deref(), Some("c-1"));
}

#[test]
fn a_time_is_started_once() {
    let name = format!("c-{}", at("2026-01-01T00:10:00Z").as_second() / 60);
    let cron = cron(json!({}), json!({"active": [{"name": name, "uid": "1"}]}));
    let decision = decide(&cron, at("2026-01-01T00:10:05Z"), &TimeZone::UTC);
    assert_eq!(decision.start, None);
}

#[test]
fn new_schedules_begin_when_they_are_next_due() {
    let cron = cron(json!({"schedule": "*/5 * * * *"}), json!({}));
    let wait = after_change(&cron, at("2026-01-01T00:32:00Z"), &TimeZone::UTC);
    assert_eq!(wait.unwrap().unwrap().as_millis(), 180_100);
}

#[test]
fn jobs_are_named_for_their_time() {
    let cron = cron(json!({"timeZone": "Asia/Tokyo"}), json!({}));
    let job = job(&cron, at("2026-01-01T00:10:00Z"), &TimeZone::UTC);
    let metadata = job.metadata;
    assert_eq!(metadata.name.as_deref(), Some("c-29453770"));
    assert_eq!(
        metadata.annotations.unwrap()["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2026-01-01T09:10:00+09:00"
    );
    assert_eq!(metadata.labels.unwrap()["a"], "b");
    assert_eq!(metadata.owner_references.unwrap()[0].uid, "u");
}

#[test]
fn jobs_come_and_go() {
    let mut status = serde_json::from_value(
        json!({"active": [{"name": "a", "uid": "a"}, {"name": "b", "uid": "b"}, {"name": "x", "uid": "x"}]}),
    )
    .unwrap();
    let jobs = [
        ended("a", Some("Complete"), "2026-01-01T00:10:00Z"),
        ended("b", None, "2026-01-01T00:20:00Z"),
        ended("c", None, "2026-01-01T00:30:00Z"),
        ended("d", Some("Complete"), "2026-01-01T00:05:00Z"),
    ];
    let looked = look_at_jobs(&mut status, &jobs);
    let told: Vec<_> = looked.events.iter().map(|e| e.2.as_str()).collect();
    assert_eq!(
        told,
        [
            "Saw completed job: a, condition: Complete",
            "Saw a job that the controller did not create or forgot: c"
        ]
    );
    assert_eq!(looked.missing[0].name.as_deref(), Some("x"));
    assert_eq!(status.active.unwrap().len(), 2);
    assert_eq!(
        status.last_successful_time.unwrap().0,
        at("2026-01-01T00:10:00Z")
    );
}

#[test]
fn history_is_limited() {
    let spec = cron(
        json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0}),
        json!({}),
    );
    let hour = |h: i64| (at("2026-01-01T00:00:00Z") + SignedDuration::from_hours(h)).to_string();
    let jobs = [
        ended("new", Some("Complete"), &hour(3)),
        ended("old", Some("Complete"), &hour(1)),
        ended("bad", Some("Failed"), &hour(2)),
        ended("runs", None, &hour(0)),
    ];
    let names: Vec<_> = excess(&spec.spec, &jobs)
        .iter()
        .map(|j| j.metadata.name.clone().unwrap())
        .collect();
    assert_eq!(names, ["old", "bad"]);
}
