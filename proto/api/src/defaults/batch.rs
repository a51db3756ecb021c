//! Defaults of the batch group.

use super::{Defaulter, Fields, is_set, object, set_empty, set_unset};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    ("io.k8s.api.batch.v1.CronJobSpec", cron_job),
    ("io.k8s.api.batch.v1.Job", job),
    (
        "io.k8s.api.batch.v1.PodFailurePolicyOnPodConditionsPattern",
        condition_pattern,
    ),
];

fn job(job: &mut Fields) {
    let spec = object(job, "spec");
    // A job that says neither runs one pod once.
    if !is_set(spec, "completions") && !is_set(spec, "parallelism") {
        set_unset(spec, "completions", 1);
    }
    set_unset(spec, "parallelism", 1);
    let per_index = is_set(spec, "backoffLimitPerIndex");
    set_unset(spec, "backoffLimit", if per_index { i32::MAX } else { 6 });
    set_unset(spec, "completionMode", "NonIndexed");
    set_unset(spec, "suspend", false);
    let policy = is_set(spec, "podFailurePolicy");
    let replacement = if policy {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    set_unset(spec, "podReplacementPolicy", replacement);
    set_unset(spec, "manualSelector", false);
}

fn cron_job(spec: &mut Fields) {
    set_empty(spec, "concurrencyPolicy", "Allow");
    set_unset(spec, "suspend", false);
    set_unset(spec, "successfulJobsHistoryLimit", 3);
    set_unset(spec, "failedJobsHistoryLimit", 1);
}

fn condition_pattern(pattern: &mut Fields) {
    set_empty(pattern, "status", "True");
}
