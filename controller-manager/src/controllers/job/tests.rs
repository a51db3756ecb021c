//! The plan against a small world that obeys it.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobStatus};
use serde_json::{Value, json};

use super::backoff::Backoff;
use super::plan::{Act, FINALIZER, INDEX, Observed, Outcome, decide, is_finished};
use super::tracking::{conclude, track};
use crate::kinds::Pod;

struct World {
    job: Job,
    pods: Vec<Pod>,
    now: Timestamp,
    backoff: Backoff,
    events: Vec<String>,
    made: usize,
}

impl World {
    fn new(spec: Value) -> Self {
        let mut value = json!({
            "metadata": {"name": "j", "namespace": "d", "uid": "j", "generation": 1},
            "spec": {"parallelism": 1, "backoffLimit": 6, "template": {"spec": {"restartPolicy": "Never", "containers": []}}},
        });
        for (k, v) in spec.as_object().unwrap() {
            value["spec"][k] = v.clone();
        }
        Self {
            job: serde_json::from_value(value).unwrap(),
            pods: Vec::new(),
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            backoff: Backoff::default(),
            events: Vec::new(),
            made: 0,
        }
    }

    fn status(&self) -> JobStatus {
        self.job.status.clone().unwrap_or_default()
    }

    fn add(&mut self, index: Option<usize>, failures: usize) {
        self.made += 1;
        let name = format!("p{}", self.made);
        let mut value = json!({
            "metadata": {"name": name, "uid": name, "finalizers": [FINALIZER], "creationTimestamp": self.now},
            "spec": {"nodeName": "n"}, "status": {"phase": "Running"},
        });
        if let Some(index) = index {
            value["metadata"]["annotations"] = json!({
                INDEX: index.to_string(), "batch.kubernetes.io/job-index-failure-count": failures.to_string()});
        }
        self.pods.push(serde_json::from_value(value).unwrap());
    }

    /// One sync; `crash` stops it after that many writes.
    fn sync(&mut self, crash: usize) {
        let pods: Vec<Arc<Pod>> = self.pods.iter().cloned().map(Arc::new).collect();
        let job = self.job.clone();
        if is_finished(&job) {
            return;
        }
        let spec = job.spec.clone().unwrap();
        let observed = Observed {
            job: &job,
            spec: &spec,
            pods: &pods,
            unfinalized: &HashSet::new(),
            may_act: true,
            backoff: self.backoff,
            now: self.now,
        };
        let decision = decide(&observed);
        self.backoff = decision.backoff;
        let mut outcome = Outcome::default();
        match &decision.act {
            Act::Nothing => {}
            Act::Create(indexes) => {
                for index in indexes {
                    let last = index.and_then(|i| decision.delayed.get(&i));
                    let failures =
                        last.map_or(0, |p| super::plan::index_failures(p).0 as usize + 1);
                    self.add(*index, failures);
                }
                outcome.created = indexes.len();
            }
            Act::Stop(list) | Act::Remove(list) => {
                let names: Vec<_> = list.iter().map(|p| p.metadata.name.clone()).collect();
                self.pods.retain(|p| !names.contains(&p.metadata.name));
                outcome.deleted = names.len();
            }
        }
        if crash == 0 {
            return;
        }
        let mut tracking = track(&observed, decision, outcome);
        self.job.status = Some(tracking.status.clone());
        self.events.extend(tracking.events.drain(..).map(|e| e.1));
        if crash == 1 {
            return;
        }
        let gone: HashSet<String> = tracking
            .unfinalize
            .iter()
            .map(|p| p.metadata.uid.to_string())
            .collect();
        for pod in &mut self.pods {
            if gone.contains(&*pod.metadata.uid) {
                pod.metadata.finalizers.clear();
            }
        }
        if crash == 2 {
            return;
        }
        let (status, events, _) = conclude(&spec, tracking, &gone);
        self.job.status = Some(status);
        self.events.extend(events.into_iter().map(|e| e.1));
    }

    fn end(&mut self, which: usize, phase: &str, code: i32) {
        let value = json!([{"name": "c", "state": {"terminated": {"exitCode": code, "finishedAt": self.now}}}]);
        self.pods[which].status.phase = phase.into();
        self.pods[which].status.container_statuses = serde_json::from_value(value).unwrap();
    }

    fn running(&self) -> usize {
        self.pods.iter().filter(|p| p.is_active()).count()
    }

    fn condition(&self, kind: &str) -> Option<String> {
        let status = self.status();
        let found = status
            .conditions
            .iter()
            .flatten()
            .find(|c| c.type_ == kind && c.status == "True");
        found.map(|c| c.reason.clone().unwrap_or_default())
    }
}

#[test]
fn runs_until_enough_have_succeeded() {
    let mut w = World::new(json!({"completions": 3, "parallelism": 2}));
    w.sync(9);
    assert_eq!(
        (w.running(), w.status().active, w.status().ready),
        (2, Some(2), Some(0))
    );
    w.end(0, "Succeeded", 0);
    w.sync(9);
    assert_eq!((w.running(), w.status().succeeded), (2, Some(1)));
    w.end(1, "Succeeded", 0);
    w.end(2, "Succeeded", 0);
    w.sync(9);
    assert_eq!(
        w.condition("Complete").as_deref(),
        Some("CompletionsReached")
    );
    assert_eq!((w.status().succeeded, w.status().active), (Some(3), None));
    assert!(w.status().completion_time.is_some());
    assert_eq!(w.events, ["Completed"]);
}

#[test]
fn a_crash_counts_no_pod_twice() {
    for crash in 0..3 {
        let mut w = World::new(json!({"completions": 2, "parallelism": 2}));
        w.sync(9);
        w.end(0, "Succeeded", 0);
        w.sync(crash);
        w.sync(9);
        assert_eq!(w.status().succeeded, Some(1), "{crash}");
        w.end(1, "Succeeded", 0);
        w.sync(crash);
        w.sync(9);
        assert_eq!((w.status().succeeded, w.made), (Some(2), 2), "{crash}");
        assert!(w.condition("Complete").is_some(), "{crash}");
    }
}

#[test]
fn failures_wait_and_are_limited() {
    let mut w = World::new(json!({"completions": 1, "backoffLimit": 1}));
    w.sync(9);
    w.end(0, "Failed", 1);
    w.sync(9);
    assert_eq!((w.running(), w.status().failed), (0, Some(1)));
    w.now += SignedDuration::from_secs(11);
    w.sync(9);
    assert_eq!(w.running(), 1);
    w.end(1, "Failed", 1);
    w.sync(9);
    assert_eq!(
        w.condition("FailureTarget").as_deref(),
        Some("BackoffLimitExceeded")
    );
    assert_eq!(
        w.condition("Failed").as_deref(),
        Some("BackoffLimitExceeded")
    );
    assert_eq!(
        (w.status().failed, w.events.as_slice()),
        (Some(2), &["BackoffLimitExceeded".to_owned()][..])
    );
}

#[test]
fn deadlines_and_suspension() {
    let mut w = World::new(json!({"completions": 1, "activeDeadlineSeconds": 30, "suspend": true}));
    w.sync(9);
    assert_eq!(
        (w.running(), w.condition("Suspended").as_deref()),
        (0, Some("JobSuspended"))
    );
    assert!(w.status().start_time.is_none());
    w.job.spec.as_mut().unwrap().suspend = Some(false);
    w.sync(9);
    assert_eq!((w.running(), w.condition("Suspended")), (1, None));
    w.now += SignedDuration::from_secs(31);
    w.sync(9);
    w.sync(9);
    assert_eq!(w.condition("Failed").as_deref(), Some("DeadlineExceeded"));
    assert_eq!(w.events, ["Suspended", "Resumed", "DeadlineExceeded"]);
}

#[test]
fn indexes_each_succeed_once() {
    let mut w =
        World::new(json!({"completions": 4, "parallelism": 4, "completionMode": "Indexed"}));
    w.sync(9);
    assert_eq!(w.running(), 4);
    w.end(0, "Succeeded", 0);
    w.end(2, "Succeeded", 0);
    w.sync(9);
    assert_eq!(w.status().completed_indexes.as_deref(), Some("0,2"));
    w.end(1, "Failed", 1);
    w.now += SignedDuration::from_secs(60);
    w.sync(9);
    assert_eq!(super::plan::index_of(w.pods.last().unwrap()), Some(1));
    let last = w.pods.len() - 1;
    w.end(last, "Succeeded", 0);
    w.end(3, "Succeeded", 0);
    w.sync(9);
    assert_eq!(w.status().completed_indexes.as_deref(), Some("0-3"));
    assert!(w.condition("Complete").is_some());
    assert_eq!(w.status().failed, Some(1));
}

#[test]
fn indexes_have_limits_of_their_own() {
    let mut w = World::new(json!({
        "completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1, "backoffLimit": 100}));
    w.sync(9);
    w.end(0, "Failed", 1);
    w.end(1, "Succeeded", 0);
    w.sync(9);
    assert_eq!(w.running(), 0);
    w.now += SignedDuration::from_secs(11);
    w.sync(9);
    assert_eq!(w.running(), 1);
    let last = w.pods.len() - 1;
    w.end(last, "Failed", 1);
    w.sync(9);
    assert_eq!(w.status().failed_indexes.as_deref(), Some("0"));
    assert_eq!(w.condition("Failed").as_deref(), Some("FailedIndexes"));
}

#[test]
fn policies_end_a_job() {
    let mut w = World::new(
        json!({"completions": 2, "parallelism": 2, "podFailurePolicy": {"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}}),
    );
    w.sync(9);
    w.end(0, "Failed", 42);
    w.sync(9);
    w.sync(9);
    assert_eq!(w.condition("Failed").as_deref(), Some("PodFailurePolicy"));
    let mut w = World::new(
        json!({"completions": 5, "parallelism": 5, "completionMode": "Indexed",
        "successPolicy": {"rules": [{"succeededIndexes": "1"}]}}),
    );
    w.sync(9);
    w.end(1, "Succeeded", 0);
    w.sync(9);
    w.sync(9);
    assert_eq!(w.condition("Complete").as_deref(), Some("SuccessPolicy"));
    assert_eq!((w.running(), w.status().succeeded), (0, Some(1)));
}

#[test]
fn too_many_pods_are_removed() {
    let mut w = World::new(json!({"completions": 5, "parallelism": 3}));
    w.sync(9);
    w.job.spec.as_mut().unwrap().parallelism = Some(1);
    w.sync(9);
    assert_eq!((w.running(), w.status().active), (1, Some(1)));
    assert_eq!(w.status().failed, None);
}
