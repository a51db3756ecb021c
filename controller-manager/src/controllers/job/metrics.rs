//! What job-controller counts, under upstream's names.

use std::time::Instant;

use k8s_openapi::api::batch::v1::{JobSpec, JobStatus};
use prometheus::{HistogramVec, IntCounterVec, exponential_buckets};

use super::indexes::Indexes;
use super::plan::{Act, is_indexed};
use crate::kinds::Pod;
use crate::metrics::Meter;

pub struct Metrics {
    /// By completion mode, result and what the sync did.
    sync_duration: HistogramVec,
    syncs: IntCounterVec,
    /// By completion mode, result and reason.
    finished: IntCounterVec,
    /// By the name of the controller.
    others: IntCounterVec,
    /// By completion mode and result.
    pods_finished: IntCounterVec,
    /// By action.
    policy: IntCounterVec,
    /// By `add` and `delete`.
    tracked: IntCounterVec,
    /// By status and whose backoff limit counts.
    indexes: IntCounterVec,
    /// By reason and status.
    created: IntCounterVec,
}

fn mode(spec: &JobSpec) -> &'static str {
    if is_indexed(spec) {
        "Indexed"
    } else {
        "NonIndexed"
    }
}

fn count(n: i32) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

impl Metrics {
    pub fn new(meter: &Meter) -> prometheus::Result<Self> {
        let sync = ["completion_mode", "result", "action"];
        let counters = |name: &str, help: &str, labels: &[&str]| {
            meter.counters(&format!("job_controller_{name}"), help, labels)
        };
        Ok(Self {
            sync_duration: meter.histograms(
                "job_controller_job_sync_duration_seconds",
                "How long it took to look at a Job.",
                exponential_buckets(0.004, 2.0, 15)?,
                &sync,
            )?,
            syncs: counters("job_syncs_total", "How often Jobs were looked at.", &sync)?,
            finished: counters(
                "jobs_finished_total",
                "Jobs that have ended.",
                &["completion_mode", "result", "reason"],
            )?,
            others: counters(
                "jobs_by_external_controller_total",
                "Jobs that are left to another controller.",
                &["controller_name"],
            )?,
            pods_finished: counters(
                "job_pods_finished_total",
                "Pods whose end was counted.",
                &["completion_mode", "result"],
            )?,
            policy: counters(
                "pod_failures_handled_by_failure_policy_total",
                "Failed pods that a failure policy had a rule for.",
                &["action"],
            )?,
            tracked: counters(
                "terminated_pods_tracking_finalizer_total",
                "Ended pods whose end is yet to be counted, come and gone.",
                &["event"],
            )?,
            indexes: counters(
                "job_finished_indexes_total",
                "Indexes that have ended.",
                &["status", "backoffLimit"],
            )?,
            created: counters(
                "job_pods_creation_total",
                "Pods that were created, and why.",
                &["reason", "status"],
            )?,
        })
    }

    pub fn synced(&self, spec: &JobSpec, act: Option<&Act>, ok: bool, began: Instant) {
        let action = match act {
            None => "reconciling",
            Some(Act::Nothing | Act::Stop(_)) => "tracking",
            Some(Act::Remove(_)) => "pods_deleted",
            Some(Act::Create(_)) => "pods_created",
        };
        let labels = [mode(spec), if ok { "success" } else { "error" }, action];
        self.syncs.with_label_values(&labels).inc();
        let duration = self.sync_duration.with_label_values(&labels);
        duration.observe(began.elapsed().as_secs_f64());
    }

    pub fn left_to(&self, controller: &str) {
        self.others.with_label_values(&[controller]).inc();
    }

    /// A Job has ended with this status.
    pub fn ended(&self, spec: &JobSpec, status: &JobStatus) {
        let mut conditions = status
            .conditions
            .iter()
            .flatten()
            .filter(|c| c.status == "True");
        let Some(last) = conditions.find(|c| matches!(&*c.type_, "Complete" | "Failed")) else {
            return;
        };
        let result = match &*last.type_ {
            "Complete" => "succeeded",
            _ => "failed",
        };
        let reason = last.reason.as_deref().unwrap_or_default();
        let finished = &self.finished;
        finished
            .with_label_values(&[mode(spec), result, reason])
            .inc();
    }

    /// A status was stored in place of another.
    pub fn stored(&self, spec: &JobSpec, old: &JobStatus, new: &JobStatus) {
        let total = |indexes: &Option<String>| {
            let completions = usize::try_from(spec.completions.unwrap_or(0)).unwrap_or(0);
            let indexes = Indexes::parse(indexes.as_deref().unwrap_or_default(), completions);
            i32::try_from(indexes.total()).unwrap_or(i32::MAX)
        };
        let failed = new.failed.unwrap_or(0) - old.failed.unwrap_or(0);
        let mut succeeded = new.succeeded.unwrap_or(0) - old.succeeded.unwrap_or(0);
        if is_indexed(spec) {
            succeeded = total(&new.completed_indexes) - total(&old.completed_indexes);
            let limit = match spec.backoff_limit_per_index {
                Some(_) => "perIndex",
                None => "global",
            };
            let indexes = |status, n| {
                let indexes = self.indexes.with_label_values(&[status, limit]);
                indexes.inc_by(count(n));
            };
            indexes("succeeded", succeeded);
            if spec.backoff_limit_per_index.is_some() {
                indexes(
                    "failed",
                    total(&new.failed_indexes) - total(&old.failed_indexes),
                );
            }
        }
        for (result, n) in [("succeeded", succeeded), ("failed", failed)] {
            let finished = self.pods_finished.with_label_values(&[mode(spec), result]);
            finished.inc_by(count(n));
        }
    }

    /// Pods were made, or could not be. `failed` and `terminating` are how many pods of the
    /// Job were so before.
    pub fn created(
        &self,
        spec: &JobSpec,
        (failed, terminating): (i32, i32),
        made: usize,
        not: usize,
    ) {
        let late = spec.pod_replacement_policy.as_deref() == Some("Failed");
        let reason = match (late, failed > 0, terminating > 0) {
            (true, true, _) => "recreate_failed",
            (_, true, _) | (_, _, true) => "recreate_terminating_or_failed",
            _ => "new",
        };
        for (status, n) in [("succeeded", made), ("failed", not)] {
            if n > 0 {
                let created = self.created.with_label_values(&[reason, status]);
                created.inc_by(n as u64);
            }
        }
    }

    /// A failed pod was counted by a rule of the failure policy.
    pub fn by_policy(&self, action: &str) {
        self.policy.with_label_values(&[action]).inc();
    }

    /// A pod has come, changed or gone.
    pub fn pod_changed(&self, old: Option<&Pod>, new: Option<&Pod>) {
        let waits = |pod: Option<&Pod>| {
            pod.is_some_and(|pod| pod.is_terminal() && pod.has_finalizer(super::FINALIZER))
        };
        let event = match (waits(old), waits(new)) {
            (false, true) => "add",
            (true, false) => "delete",
            _ => return,
        };
        self.tracked.with_label_values(&[event]).inc();
    }
}
