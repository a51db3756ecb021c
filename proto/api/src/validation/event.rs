//! Events: what both groups ask, and what `events.k8s.io` asks besides.

use meta::field::{ErrorList, FieldError, Path};
use meta::validation as format;

use super::at::At;
use super::metadata::immutable;
use super::{Rules, any_update, required};

/// Trees of both are of the core group's version; which group a client speaks decides how
/// much is asked of it.
pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "",
        kind: "Event",
        name: format::path_segment_name,
        object: |at, errors| common(at, "reportingComponent", errors),
        update: any_update,
        status: any_update,
    },
    Rules {
        group: "events.k8s.io",
        kind: "Event",
        name: format::dns1123_subdomain,
        object: |at, errors| common(at, "reportingController", errors),
        update: strict_update,
        status: any_update,
    },
];

/// The longest texts, in bytes.
const INSTANCE_LIMIT: usize = 128;
const ACTION_LIMIT: usize = 128;
const REASON_LIMIT: usize = 128;
const NOTE_LIMIT: usize = 1024;

fn is_new_style(event: &At<'_>) -> bool {
    event.get("eventTime").is_set()
}

fn common(event: &At<'_>, controller: &'static str, errors: &mut ErrorList) {
    let involved = event.get("involvedObject").get("namespace");
    let namespace = event.get("metadata").get("namespace").text();
    let mismatch = if involved.is_given() {
        !is_new_style(event) && namespace != involved.text()
    } else {
        // Events about objects of no namespace live in `default` or, new ones, `kube-system`.
        namespace != "default" && !(is_new_style(event) && namespace == "kube-system")
    };
    if mismatch {
        involved.invalid(errors, "does not match event.namespace");
    }
    if !is_new_style(event) {
        return;
    }
    let component = event.get("reportingComponent").renamed(controller);
    required(&component, errors);
    for message in format::qualified_name(component.text()) {
        errors.push(FieldError::invalid(
            &component.path,
            component.text(),
            message,
        ));
    }
    for (field, most) in [
        ("reportingInstance", INSTANCE_LIMIT),
        ("action", ACTION_LIMIT),
        ("reason", REASON_LIMIT),
    ] {
        let text = event.get(field);
        required(&text, errors);
        limited(&text, most, errors);
    }
    limited(&event.get("message"), NOTE_LIMIT, errors);
}

fn limited(text: &At<'_>, most: usize, errors: &mut ErrorList) {
    if text.text().len() > most {
        errors.push(FieldError::invalid(
            &text.path,
            "",
            format!("can have at most {most} characters"),
        ));
    }
}

/// What `events.k8s.io` asks of a new event.
pub(super) fn created(event: &At<'_>, errors: &mut ErrorList) {
    series(event, errors);
    required(&event.get("eventTime"), errors);
    let kind = event.get("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        let detail = format!("has invalid value: {}", kind.text());
        errors.push(FieldError::invalid(&kind.path, "", detail));
    }
    let source = event.get("source");
    let old = ["firstTimestamp", "lastTimestamp", "count"].map(|field| event.get(field));
    for field in old {
        if field.is_given() {
            errors.push(FieldError::invalid(&field.path, "", "needs to be unset"));
        }
    }
    if source.get("component").is_given() || source.get("host").is_given() {
        errors.push(FieldError::invalid(&source.path, "", "needs to be unset"));
    }
}

fn series(event: &At<'_>, errors: &mut ErrorList) {
    let series = event.get("series");
    if !series.is_set() {
        return;
    }
    if series.get("count").int().unwrap_or(0) < 2 {
        let path = Path::new("series").child("count");
        errors.push(FieldError::invalid(&path, "", "should be at least 2"));
    }
    required(&series.get("lastObservedTime"), errors);
}

fn strict_update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    if new.get("series").value() != old.get("series").value() {
        series(new, errors);
    }
    for field in [
        "involvedObject",
        "reason",
        "message",
        "source",
        "firstTimestamp",
        "lastTimestamp",
        "count",
        "type",
        "eventTime",
        "action",
        "related",
        "reportingInstance",
    ] {
        immutable(&new.get(field), &old.get(field), errors);
    }
    let component = "reportingComponent";
    immutable(
        &new.get(component).renamed("reportingController"),
        &old.get(component),
        errors,
    );
}
