//! What a job's status may say, and how it may go on.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};

use super::at::{At, IMMUTABLE};
use super::job::{count_indexes, invalid_whole};

fn is_true(job: &At<'_>, kind: &str) -> bool {
    let conditions = job.get("status").get("conditions");
    conditions
        .items()
        .any(|c| c.get("type").text() == kind && c.get("status").text() == "True")
}

fn is_finished(job: &At<'_>) -> bool {
    is_true(job, "Complete") || is_true(job, "Failed")
}

/// An update is held only to what it could have broken: a rule about fields that it leaves
/// alone is not applied to what was wrong before.
pub(super) fn status(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (status, before) = (new.get("status"), old.get("status"));
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        status.get(field).non_negative(errors);
    }
    uncounted(&status.get("uncountedTerminatedPods"), errors);
    let changed = |field: &'static str| status.get(field).value() != before.get(field).value();
    let turned = |kind: &str| is_true(new, kind) && !is_true(old, kind);
    let newly_finished = is_finished(new) && !is_finished(old);
    let conditions = status.get("conditions");
    let mut contradiction = |holds: bool, detail: &str| {
        if holds {
            invalid_whole(&conditions, detail, errors);
        }
    };
    let complete = is_true(new, "Complete");
    let failed = is_true(new, "Failed");
    contradiction(
        complete && failed && (turned("Complete") || turned("Failed")),
        "cannot set Complete=True and Failed=true conditions",
    );
    contradiction(
        complete
            && is_true(new, "FailureTarget")
            && (turned("Complete") || turned("FailureTarget")),
        "cannot set Complete=True and FailureTarget=true conditions",
    );
    times(new, old, errors);
    let mut contradiction = |holds: bool, detail: &str| {
        if holds {
            invalid_whole(&conditions, detail, errors);
        }
    };
    let success = is_true(new, "SuccessCriteriaMet");
    contradiction(
        turned("Failed") && !is_true(new, "FailureTarget"),
        "cannot set Failed=True condition without the FailureTarget=true condition",
    );
    contradiction(
        turned("Complete") && !success,
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    );
    contradiction(
        success && failed,
        "cannot set SuccessCriteriaMet=True and Failed=true conditions",
    );
    contradiction(
        success && is_true(new, "FailureTarget"),
        "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
    );
    contradiction(
        new.get("spec").get("successPolicy").is_set() && complete && !success,
        "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
    );
    for kind in ["Failed", "Complete", "FailureTarget"] {
        contradiction(
            is_true(old, kind) && !is_true(new, kind),
            &format!("cannot disable the terminal {kind}=True condition"),
        );
    }
    contradiction(
        is_true(old, "SuccessCriteriaMet") && !success,
        "cannot disable the SuccessCriteriaMet=True condition",
    );
    contradiction(
        is_true(old, "Complete") && turned("SuccessCriteriaMet"),
        "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
    );
    let over = |field: &'static str, most: i64| status.get(field).int().is_some_and(|n| n > most);
    for (field, detail) in [
        ("active", "active>0 is invalid for finished job"),
        ("terminating", "terminating>0 is invalid for finished job"),
    ] {
        if is_finished(new) && (newly_finished || changed(field)) && over(field, 0) {
            status.get(field).invalid(errors, detail);
        }
    }
    let uncounted = status.get("uncountedTerminatedPods");
    let left = uncounted.get("succeeded").len() + uncounted.get("failed").len();
    if is_finished(new) && (newly_finished || changed("uncountedTerminatedPods")) && left > 0 {
        uncounted.invalid(errors, "must be empty for finished job");
    }
    if changed("ready") && over("ready", status.get("active").int().unwrap_or(0)) {
        status
            .get("ready")
            .invalid(errors, "cannot set more ready pods than active");
    }
    indexes(new, &changed, errors);
    for (field, detail) in [
        ("failed", "cannot decrease the failed counter"),
        ("succeeded", "cannot decrease the succeeded counter"),
    ] {
        let number = |at: &At<'_>| at.get(field).int().unwrap_or(0);
        if number(&status) < number(&before) {
            status.get(field).invalid(errors, detail);
        }
    }
}

fn uncounted(pods: &At<'_>, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for uid in ["succeeded", "failed"]
        .into_iter()
        .flat_map(|list| pods.get(list).items())
    {
        if uid.text().is_empty() {
            uid.invalid(errors, "must not be empty");
        } else if !seen.insert(uid.text()) {
            uid.duplicate(errors);
        }
    }
}

fn times(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (status, before) = (new.get("status"), old.get("status"));
    let (start, end) = (status.get("startTime"), status.get("completionTime"));
    let complete = is_true(new, "Complete");
    let end_changed = end.value() != before.get("completionTime").value();
    let newly = complete && !is_true(old, "Complete");
    if end.is_set() && !complete && end_changed {
        end.invalid(
            errors,
            "cannot set completionTime when there is no Complete=True condition",
        );
    }
    if !end.is_set() && complete && (newly || end_changed) {
        end.required(errors, "completionTime is required for Complete jobs");
    }
    // RFC 3339 in UTC sorts as text.
    if start.is_set() && end.is_set() && end.text() < start.text() {
        end.invalid(errors, "must be equal to or after `startTime`");
    }
    if is_finished(new) && !is_finished(old) && !start.is_set() {
        start.required(errors, "startTime is required for finished job");
    }
    let was = before.get("completionTime");
    if end.is_set() && was.is_set() && end_changed {
        end.invalid(errors, IMMUTABLE);
    }
    let started = before.get("startTime");
    if started.is_set()
        && started.value() != start.value()
        && !new.get("spec").get("suspend").is_true()
    {
        start.invalid(errors, "field is immutable for unsuspended job once set");
    }
}

fn indexes(job: &At<'_>, changed: &dyn Fn(&'static str) -> bool, errors: &mut ErrorList) {
    let (spec, status) = (job.get("spec"), job.get("status"));
    let completions = spec.get("completions").int();
    let (done, failed) = (status.get("completedIndexes"), status.get("failedIndexes"));
    let indexed = spec.get("completionMode").text() == "Indexed";
    let per_index = spec.get("backoffLimitPerIndex").is_set();
    if changed("completedIndexes") {
        if indexed {
            well_formed(&done, completions, "completedIndexes", errors);
        } else if done.is_given() {
            done.invalid(
                errors,
                "cannot set non-empty completedIndexes when non-indexed completion mode",
            );
        }
    }
    if changed("failedIndexes") && failed.is_set() {
        if per_index {
            well_formed(&failed, completions, "failedIndexes", errors);
        } else {
            failed.invalid(
                errors,
                "cannot set non-null failedIndexes when backoffLimitPerIndex is null",
            );
        }
    }
}

fn well_formed(indexes: &At<'_>, completions: Option<i64>, name: &str, errors: &mut ErrorList) {
    let Some(completions) = completions else {
        return;
    };
    if let Err(fault) = count_indexes(indexes.text(), completions) {
        errors.push(FieldError::invalid(
            &indexes.path,
            indexes.text(),
            format!("error parsing {name}: {fault}"),
        ));
    }
}
