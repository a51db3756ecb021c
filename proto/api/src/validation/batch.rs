//! Jobs and cron jobs.

use meta::field::ErrorList;
use meta::validation as format;

use super::at::At;
use super::metadata::immutable;
use super::{Rules, any_update, pod};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "batch",
        kind: "Job",
        name: format::dns1123_subdomain,
        object: |at, errors| job(&at.get("spec"), errors),
        update: job_update,
        status: any_update,
    },
    Rules {
        group: "batch",
        kind: "CronJob",
        name: cron_job_name,
        object: |at, errors| cron_job(&at.get("spec"), errors),
        update: any_update,
        status: any_update,
    },
];

/// Eleven characters are added to make the jobs' names.
fn cron_job_name(name: &str) -> Vec<String> {
    let mut messages = format::dns1123_subdomain(name);
    if name.len() > 52 {
        messages.push("must be no more than 52 characters".to_owned());
    }
    messages
}

fn job(spec: &At<'_>, errors: &mut ErrorList) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        spec.get(field).non_negative(errors);
    }
    let mode = spec.get("completionMode");
    if mode.is_set() {
        mode.one_of(errors, &["Indexed", "NonIndexed"]);
        if mode.text() == "Indexed" && !spec.get("completions").is_set() {
            spec.get("completions")
                .required(errors, "when completion mode is Indexed");
        }
    }
    pod::template(&spec.get("template"), errors);
    let restart = spec.get("template").get("spec").get("restartPolicy");
    if !matches!(restart.text(), "OnFailure" | "Never") {
        if restart.text() == "Always" || !restart.is_given() {
            restart.required(errors, "valid values: \"OnFailure\", \"Never\"");
        } else {
            restart.one_of(errors, &["OnFailure", "Never"]);
        }
    }
    if spec.get("selector").is_set() {
        pod::label_selector(&spec.get("selector"), errors);
    }
}

fn job_update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    if new.get("completionMode").text() != "Indexed" {
        immutable(&new.get("completions"), &old.get("completions"), errors);
    }
    for field in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        immutable(&new.get(field), &old.get(field), errors);
    }
    // A job that has not started yet may still change where and how it runs.
    if !old.get("suspend").is_true() {
        immutable(&new.get("template"), &old.get("template"), errors);
    }
}

fn cron_job(spec: &At<'_>, errors: &mut ErrorList) {
    let schedule = spec.get("schedule");
    if !schedule.is_given() {
        schedule.required(errors, "");
    } else if !schedule.text().starts_with('@') && schedule.text().split_whitespace().count() != 5 {
        schedule.invalid(
            errors,
            format!(
                "expected exactly 5 fields, found {}: [{}]",
                schedule.text().split_whitespace().count(),
                schedule.text()
            ),
        );
    }
    spec.get("startingDeadlineSeconds").non_negative(errors);
    spec.get("concurrencyPolicy")
        .one_of(errors, &["Allow", "Forbid", "Replace"]);
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.get(field).non_negative(errors);
    }
    job(&spec.get("jobTemplate").get("spec"), errors);
}
