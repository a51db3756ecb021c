//! Deployments, replica sets, daemon sets, stateful sets, controller revisions and
//! replication controllers.

use std::collections::BTreeSet;

use meta::field::{ErrorList, FieldError};
use meta::labels::Selector;
use meta::validation as format;
use serde_json::Value;

use super::at::At;
use super::metadata::immutable;
use super::raw::{Raw, raw};
use super::same::differing;
use super::{Rules, any_update, pod, ratchet, required, storage};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "apps",
        kind: "Deployment",
        name: format::dns1123_subdomain,
        object: |at, errors| deployment(&at.get("spec"), errors),
        update: same_selector,
        status: deployment_status,
    },
    Rules {
        group: "apps",
        kind: "ReplicaSet",
        name: format::dns1123_subdomain,
        object: |at, errors| replica_set(&at.get("spec"), errors),
        update: same_selector,
        status: counts,
    },
    Rules {
        group: "apps",
        kind: "DaemonSet",
        name: format::dns1123_subdomain,
        object: |at, errors| daemon_set(&at.get("spec"), errors),
        update: same_selector,
        status: daemon_set_status,
    },
    Rules {
        group: "apps",
        kind: "StatefulSet",
        // The name becomes part of the pods' host names.
        name: format::dns1123_label,
        // The template is, too, unless it was wrong before.
        object: |at, errors| {
            stateful_set(&at.get("spec"), errors);
        },
        update: stateful_set_update,
        status: stateful_set_status,
    },
    Rules {
        group: "apps",
        kind: "ControllerRevision",
        name: format::dns1123_subdomain,
        object: |at, errors| at.get("revision").non_negative(errors),
        update: |new, old, errors| immutable(&new.get("data"), &old.get("data"), errors),
        status: any_update,
    },
    Rules {
        group: "",
        kind: "ReplicationController",
        name: format::dns1123_subdomain,
        object: |at, errors| replication_controller(&at.get("spec"), errors),
        update: any_update,
        status: counts,
    },
];

/// Its data cannot change later.
pub(super) fn controller_revision_created(at: &At<'_>, errors: &mut ErrorList) {
    let data = at.get("data");
    match raw(&data) {
        Raw::Object => {}
        Raw::Nothing => data.required(errors, "data is mandatory"),
        Raw::Other => data.required(errors, "data must be a valid JSON object"),
        Raw::Malformed(error) => {
            let why = format!("error parsing data: {error}");
            errors.push(FieldError::invalid(&data.path, "<value omitted>", why));
        }
    }
}

/// The selector says something, is well formed, and selects the template's pods.
/// `kind` is what messages call it.
/// Says whether it can be one.
pub(super) fn selector(spec: &At<'_>, kind: &str, errors: &mut ErrorList) -> bool {
    let selector = spec.get("selector");
    if !selector.is_set() {
        selector.required(errors, "");
        // What selects nothing does not select the template's pods either.
        let labels = spec.get("template").get("metadata").get("labels");
        labels.invalid(errors, "`selector` does not match template `labels`");
        return true;
    }
    pod::label_selector(&selector, errors);
    if selector.get("matchLabels").len() + selector.get("matchExpressions").len() == 0 {
        let detail = format!("empty selector is invalid for {kind}");
        selector.invalid(errors, detail);
        return true;
    }
    let parsed = selector
        .value()
        .and_then(|s| serde_json::from_value(s.clone()).ok())
        .and_then(|s| Selector::from_label_selector(Some(&s)).ok());
    let labels = spec.get("template").get("metadata").get("labels");
    let is_selector = parsed.is_some();
    match (parsed, kind) {
        (Some(parsed), _) => {
            if !parsed.matches(|key| labels.raw(key).and_then(Value::as_str)) {
                labels.invalid(errors, "`selector` does not match template `labels`");
            }
        }
        // What is wrong with it has been said; most kinds say that it is wrong as a whole, too.
        (None, "daemonset") => {}
        (None, "statefulset") => selector.invalid(errors, ""),
        (None, _) => selector.invalid(errors, "invalid label selector"),
    }
    is_selector
}

fn template(spec: &At<'_>, errors: &mut ErrorList) {
    let template = spec.get("template");
    pod::template(&template, errors);
    let pod = template.get("spec");
    if pod.get("restartPolicy").text() != "Always" {
        pod.get("restartPolicy").one_of(errors, &["Always"]);
    }
    if pod.get("activeDeadlineSeconds").is_set() {
        pod.get("activeDeadlineSeconds").forbidden(
            errors,
            "activeDeadlineSeconds in this workload is not Supported",
        );
    }
}

fn non_negative(spec: &At<'_>, fields: &[&'static str], errors: &mut ErrorList) {
    for field in fields {
        spec.get(field).non_negative(errors);
    }
}

fn deployment(spec: &At<'_>, errors: &mut ErrorList) {
    non_negative(
        spec,
        &["replicas", "minReadySeconds", "revisionHistoryLimit"],
        errors,
    );
    // What it is to select is not looked at when nobody knows what it selects.
    if selector(spec, "deployment", errors) {
        template(spec, errors);
    }
    let strategy = spec.get("strategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" if rolling.is_set() => {
            rolling.forbidden(
                errors,
                "may not be specified when strategy `type` is 'Recreate'",
            );
        }
        "Recreate" => {}
        "RollingUpdate" => {
            int_or_percent(&rolling.get("maxUnavailable"), errors);
            int_or_percent(&rolling.get("maxSurge"), errors);
            not_over_100(&rolling.get("maxUnavailable"), errors);
            if is_zero(&rolling.get("maxUnavailable")) && is_zero(&rolling.get("maxSurge")) {
                rolling
                    .get("maxUnavailable")
                    .invalid(errors, "may not be 0 when `maxSurge` is 0");
            }
        }
        _ => strategy.one_of(errors, &["Recreate", "RollingUpdate"]),
    }
    let deadline = spec.get("progressDeadlineSeconds");
    deadline.non_negative(errors);
    let ready = spec.get("minReadySeconds").int().unwrap_or(0);
    if deadline.int().is_some_and(|seconds| seconds <= ready) {
        deadline.invalid(errors, "must be greater than minReadySeconds");
    }
}

/// A number that is not negative, or a percentage.
pub(super) fn int_or_percent(value: &At<'_>, errors: &mut ErrorList) {
    match value.value() {
        Some(Value::String(text)) => {
            let digits = text.strip_suffix('%').filter(|d| !d.is_empty());
            if !digits.is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit())) {
                value.invalid(
                    errors,
                    "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                );
            }
        }
        _ => value.non_negative(errors),
    }
}

/// What is more than a number can be is the largest, as Go reads it.
fn percent(value: &At<'_>) -> Option<u64> {
    let digits = value.text().strip_suffix('%')?;
    let good = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    good.then(|| digits.parse().unwrap_or(u64::MAX))
}

pub(super) fn not_over_100(value: &At<'_>, errors: &mut ErrorList) {
    if percent(value).is_some_and(|p| p > 100) {
        value.invalid(errors, "must not be greater than 100%");
    }
}

/// A text that is no percentage counts for its number, or for none.
fn is_zero(value: &At<'_>) -> bool {
    let number = || {
        value
            .int()
            .or_else(|| value.text().parse().ok())
            .unwrap_or(0)
    };
    value.is_set() && percent(value).map_or_else(|| number() == 0, |p| p == 0)
}

fn replica_set(spec: &At<'_>, errors: &mut ErrorList) {
    non_negative(spec, &["replicas", "minReadySeconds"], errors);
    // What it is to select is not looked at when nobody knows what it selects.
    if selector(spec, "deployment", errors) {
        template(spec, errors);
    }
}

fn daemon_set(spec: &At<'_>, errors: &mut ErrorList) {
    non_negative(spec, &["minReadySeconds", "revisionHistoryLimit"], errors);
    if spec.get("selector").is_set() {
        selector(spec, "daemonset", errors);
    } else {
        // Upstream does not ask for a selector here; none selects nothing.
        let labels = spec.get("template").get("metadata").get("labels");
        labels.invalid(errors, "`selector` does not match template `labels`");
    }
    template(spec, errors);
    let strategy = spec.get("updateStrategy");
    let rolling = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" => {
            for field in ["maxUnavailable", "maxSurge"] {
                int_or_percent(&rolling.get(field), errors);
                not_over_100(&rolling.get(field), errors);
            }
            let (unavailable, surge) = (rolling.get("maxUnavailable"), rolling.get("maxSurge"));
            match (is_zero(&unavailable), is_zero(&surge)) {
                (true, true) => unavailable.required(errors, "cannot be 0 when maxSurge is 0"),
                (false, false) => {
                    surge.invalid(errors, "may not be set when maxUnavailable is non-zero")
                }
                _ => {}
            }
        }
        _ => strategy.one_of(errors, &["RollingUpdate", "OnDelete"]),
    }
}

/// Without the template. Whether there is a selector that can be read: the template of a set that
/// selects nobody knows what is not looked at.
fn stateful_set(spec: &At<'_>, errors: &mut ErrorList) -> bool {
    non_negative(spec, &["replicas", "minReadySeconds"], errors);
    spec.get("ordinals").get("start").non_negative(errors);
    let policy = spec.get("podManagementPolicy");
    if required(&policy, errors) && !matches!(policy.text(), "OrderedReady" | "Parallel") {
        policy.invalid(errors, "must be 'OrderedReady' or 'Parallel'");
    }
    let strategy = spec.get("updateStrategy");
    match strategy.get("type").text() {
        "OnDelete" if strategy.get("rollingUpdate").is_set() => strategy
            .get("rollingUpdate")
            .invalid(errors, "only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "RollingUpdate" => {
            let rolling = strategy.get("rollingUpdate");
            rolling.get("partition").non_negative(errors);
            let unavailable = rolling.get("maxUnavailable");
            int_or_percent(&unavailable, errors);
            not_over_100(&unavailable, errors);
            if unavailable.is_set() && is_zero(&unavailable) {
                unavailable.invalid(errors, "cannot be 0");
            }
        }
        _ => strategy.invalid(errors, "must be 'RollingUpdate' or 'OnDelete'"),
    }
    let retention = spec.get("persistentVolumeClaimRetentionPolicy");
    for field in ["whenDeleted", "whenScaled"] {
        retention.get(field).one_of(errors, &["Delete", "Retain"]);
    }
    let selects = selector(spec, "statefulset", errors);
    let pod = spec.get("template").get("spec");
    let restart = pod.get("restartPolicy");
    if restart.text() != "Always" {
        restart.one_of(errors, &["Always"]);
    }
    if pod.get("activeDeadlineSeconds").is_set() {
        pod.get("activeDeadlineSeconds").forbidden(
            errors,
            "activeDeadlineSeconds in StatefulSet is not Supported",
        );
    }
    selects
}

/// Claim templates are volumes, too: mounts of them are no fault, so the template is
/// checked with a volume for each. They come before the others, which counts in paths.
fn stateful_template(spec: &At<'_>, errors: &mut ErrorList) {
    let Some(template) = spec.get("template").value() else {
        template(spec, errors);
        return;
    };
    let mut with_claims = template.clone();
    let volumes = with_claims
        .get_mut("spec")
        .and_then(Value::as_object_mut)
        .map(|s| {
            s.entry("volumes")
                .or_insert_with(|| Value::Array(Vec::new()))
        });
    if let Some(Value::Array(volumes)) = volumes {
        let claims = spec.get("volumeClaimTemplates");
        let names: BTreeSet<&str> = claims
            .items()
            .map(|claim| claim.get("metadata").get("name").text())
            .collect();
        volumes.retain(|v| v["name"].as_str().is_none_or(|name| !names.contains(name)));
        let claim = |name: &str| {
            serde_json::json!({
                "name": name,
                "persistentVolumeClaim": {"claimName": name},
            })
        };
        volumes.splice(..0, names.into_iter().map(claim));
    }
    // The controller gives each pod its own.
    if let Some(pod) = with_claims.get_mut("spec").and_then(Value::as_object_mut) {
        pod.remove("hostname");
        pod.remove("subdomain");
    }
    pod::template(&At::new(spec.get("template").path, &with_claims), errors);
}

/// The claims and the service's name cannot change, so they may only be wrong in a set that is
/// there already.
pub(super) fn stateful_set_created(at: &At<'_>, errors: &mut ErrorList) {
    if selector(&at.get("spec"), "statefulset", &mut ErrorList::new()) {
        stateful_template(&at.get("spec"), errors);
    }
    for claim in at.get("spec").get("volumeClaimTemplates").items() {
        storage::claim(&claim.get("spec"), errors);
        storage::claim_created(&claim.get("spec"), errors);
    }
    let name = at.get("spec").get("serviceName");
    if name.is_given() {
        name.check(errors, format::dns1123_label(name.text()));
    }
}

fn stateful_set_update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    const MAY_CHANGE: &[&str] = &[
        "minReadySeconds",
        "ordinals",
        "persistentVolumeClaimRetentionPolicy",
        "replicas",
        "revisionHistoryLimit",
        "template",
        "updateStrategy",
    ];
    let of = ("apps", "StatefulSet");
    let (whole, was) = (new, old);
    let (new, old) = (new.get("spec"), old.get("spec"));
    let mut before = ErrorList::new();
    if stateful_set(&old, &mut before) {
        stateful_template(&old, &mut before);
    }
    // What may stay as it is does not count.
    let mut wrong = before.clone();
    ratchet::tolerate(of, was, was, &mut wrong, || before.clone());
    if selector(&new, "statefulset", &mut ErrorList::new()) {
        if wrong.is_empty() {
            let mut told = ErrorList::new();
            stateful_template(&new, &mut told);
            ratchet::tolerate(of, whole, was, &mut told, || before);
            errors.extend(told.0);
        } else {
            pod::template_metadata(&new.get("template"), errors);
        }
    }
    let changed = differing("io.k8s.api.apps.v1.StatefulSetSpec", &new, &old);
    if changed.iter().any(|field| !MAY_CHANGE.contains(field)) {
        new.forbidden(errors, "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
    }
}

fn replication_controller(spec: &At<'_>, errors: &mut ErrorList) {
    non_negative(spec, &["replicas", "minReadySeconds"], errors);
    let selector = spec.get("selector");
    if selector.len() == 0 {
        selector.required(errors, "");
    }
    if !spec.get("template").is_set() {
        spec.get("template").required(errors, "");
        return;
    }
    let labels = spec.get("template").get("metadata").get("labels");
    if selector
        .entries()
        .any(|(key, value)| labels.raw(key) != value.value())
    {
        labels.invalid(errors, "`selector` does not match template `labels`");
    }
    template(spec, errors);
}

fn same_selector(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (new, old) = (
        new.get("spec").get("selector"),
        old.get("spec").get("selector"),
    );
    immutable(&new, &old, errors);
}

/// The status of replica sets and replication controllers.
fn counts(new: &At<'_>, _: &At<'_>, errors: &mut ErrorList) {
    let status = new.get("status");
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    non_negative(
        &status,
        &["replicas", "observedGeneration", "terminatingReplicas"],
        errors,
    );
    non_negative(&status, &parts, errors);
    not_over_total(
        &status,
        &parts,
        "cannot be greater than readyReplicas",
        errors,
    );
}

/// Parts are not more than the whole, and what is available is ready.
fn not_over_total(
    status: &At<'_>,
    parts: &[&'static str],
    available_detail: &'static str,
    errors: &mut ErrorList,
) {
    let number = |field: &'static str| status.get(field).int().unwrap_or(0);
    for part in parts {
        if number(part) > number("replicas") {
            status
                .get(part)
                .invalid(errors, "cannot be greater than status.replicas");
        }
    }
    if number("availableReplicas") > number("readyReplicas") {
        status
            .get("availableReplicas")
            .invalid(errors, available_detail);
    }
}

fn collisions(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let [now, before] = [new, old].map(|at| at.get("status").get("collisionCount"));
    now.non_negative(errors);
    if let Some(before) = before.int()
        && now.int().unwrap_or(0) < before
    {
        let detail = if now.is_set() {
            "cannot be decremented"
        } else {
            "cannot be unset"
        };
        now.invalid(errors, detail);
    }
}

fn deployment_status(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let status = new.get("status");
    let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    non_negative(
        &status,
        &[
            "observedGeneration",
            "replicas",
            "unavailableReplicas",
            "terminatingReplicas",
        ],
        errors,
    );
    non_negative(&status, &parts, errors);
    not_over_total(
        &status,
        &parts,
        "cannot be greater than readyReplicas",
        errors,
    );
    collisions(new, old, errors);
}

fn stateful_set_status(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let status = new.get("status");
    let parts = [
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
    ];
    non_negative(&status, &["replicas", "observedGeneration"], errors);
    non_negative(&status, &parts, errors);
    let detail = "cannot be greater than status.readyReplicas";
    not_over_total(&status, &parts, detail, errors);
    collisions(new, old, errors);
}

fn daemon_set_status(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    const COUNTS: &[&str] = &[
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
        "observedGeneration",
        "updatedNumberScheduled",
        "numberAvailable",
        "numberUnavailable",
    ];
    non_negative(&new.get("status"), COUNTS, errors);
    collisions(new, old, errors);
}
