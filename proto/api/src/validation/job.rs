//! Jobs: how often a pod is run, and what its failures mean.

use std::collections::HashSet;

use meta::field::{BadValue, ErrorList, FieldError};
use meta::labels::Selector;
use meta::validation as format;
use serde_json::Value;

use super::at::{At, IMMUTABLE};
use super::metadata::{immutable, immutable_message};
use super::same::{differing, same};
use super::{pod, required};

const MAX_PARALLELISM: i64 = 100_000;
const MAX_FAILED_INDEXES: i64 = 100_000;
/// Above so many completions, counting failures per index has tighter limits.
const MANY_COMPLETIONS: i64 = 100_000;
const PARALLELISM_OF_MANY: i64 = 10_000;
const FAILED_INDEXES_OF_MANY: i64 = 10_000;
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

const FAILURE_RULES: usize = 20;
const EXIT_CODES: usize = 255;
const POD_CONDITIONS: usize = 20;
const SUCCESS_RULES: usize = 20;
/// In bytes.
const MANAGED_BY_LIMIT: usize = 63;
const INDEXES_LIMIT: usize = 64 * 1024;

/// An `Invalid` that shows no value.
pub(super) fn invalid_whole(at: &At<'_>, detail: impl Into<String>, errors: &mut ErrorList) {
    errors.push(FieldError::invalid(&at.path, BadValue::Omitted, detail));
}

/// What holds for a new job.
pub(super) fn created(at: &At<'_>, errors: &mut ErrorList) {
    whole(at, true, errors);
}

/// What a job's name, uid and labels have to do with each other. `prefixed`: its pods have the
/// labels with a domain, which those of jobs from before v1.27 have not.
fn whole(at: &At<'_>, prefixed: bool, errors: &mut ErrorList) {
    let (meta, spec) = (at.get("metadata"), at.get("spec"));
    if !spec.get("manualSelector").is_true() && spec.get("selector").is_set() {
        generated_selector(&meta, &spec, prefixed, errors);
    }
    let completions = spec.get("completions").int().unwrap_or(0);
    if spec.get("completionMode").text() == "Indexed" && completions > 0 {
        let name = meta.get("name");
        let host = format!("{}-{}", name.text(), completions - 1);
        if !format::dns1123_label(&host).is_empty() {
            name.invalid(
                errors,
                format!("will not able to create pod with invalid DNS label: {host}"),
            );
        }
    }
}

/// Unless somebody else takes care of the selector, the labels that it was made with must be
/// there, and it must select them.
fn generated_selector(meta: &At<'_>, spec: &At<'_>, prefixed: bool, errors: &mut ErrorList) {
    let (name, uid) = (meta.get("name").text(), meta.get("uid").text());
    let labels = spec.get("template").get("metadata").get("labels");
    let all = [
        ("controller-uid", uid),
        ("job-name", name),
        (CONTROLLER_UID, uid),
        (JOB_NAME, name),
    ];
    let expected = if prefixed { &all[..] } else { &all[..2] };
    for &(key, value) in expected {
        let path = labels.path.key(key);
        match labels.raw(key).and_then(Value::as_str) {
            None => errors.push(FieldError::required(&path, format!("must be '{value}'"))),
            Some(found) if found != value => {
                let detail = format!("must be '{value}'");
                errors.push(FieldError::invalid(&path, labels.bad_value(), detail));
            }
            Some(_) => {}
        }
    }
    let selector = spec.get("selector");
    let found = |key: &str| {
        let entry = expected.iter().find(|(k, _)| *k == key);
        entry.map(|(_, value)| *value)
    };
    if parsed(&selector).is_some_and(|s| !s.matches(found)) {
        selector.invalid(errors, "`selector` not auto-generated");
    }
}

fn parsed(selector: &At<'_>) -> Option<Selector> {
    let selector = serde_json::from_value(selector.value()?.clone()).ok()?;
    Selector::from_label_selector(Some(&selector)).ok()
}

/// A job that runs by itself, as opposed to one in a cron job.
pub(super) fn object(at: &At<'_>, errors: &mut ErrorList) {
    let spec = at.get("spec");
    self::spec(&spec, errors);
    let selector = spec.get("selector");
    let labels = spec.get("template").get("metadata").get("labels");
    let selects = if selector.is_set() {
        pod::label_selector(&selector, errors);
        parsed(&selector).is_none_or(|s| s.matches(|key| labels.raw(key).and_then(Value::as_str)))
    } else {
        selector.required(errors, "");
        false
    };
    if !selects {
        labels.invalid(errors, "`selector` does not match template `labels`");
    }
}

pub(super) fn spec(spec: &At<'_>, errors: &mut ErrorList) {
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
    if spec.get("maxFailedIndexes").is_set() && !spec.get("backoffLimitPerIndex").is_set() {
        spec.get("backoffLimitPerIndex")
            .required(errors, "when maxFailedIndexes is specified");
    }
    let manager = spec.get("managedBy");
    if manager.is_set() {
        domain_prefixed_path(&manager, errors);
        if manager.text().len() > MANAGED_BY_LIMIT {
            errors.push(FieldError::too_long(&manager.path, MANAGED_BY_LIMIT));
        }
    }
    completion(spec, errors);
    let policy = spec.get("podFailurePolicy");
    if policy.is_set() {
        failure_policy(spec, &policy, errors);
    }
    let success = spec.get("successPolicy");
    if success.is_set() {
        if spec.get("completionMode").text() == "Indexed" {
            success_policy(spec, &success, errors);
        } else {
            success.invalid(errors, "requires indexed completion mode");
        }
    }
    let replacement = spec.get("podReplacementPolicy");
    if replacement.is_set() {
        let known: &[&str] = if policy.is_set() {
            &["Failed"]
        } else {
            &["Failed", "TerminatingOrFailed"]
        };
        replacement.one_of(errors, known);
    }
    pod::template(&spec.get("template"), errors);
    let restart = spec.get("template").get("spec").get("restartPolicy");
    match restart.text() {
        "" | "Always" => restart.required(errors, "valid values: \"OnFailure\", \"Never\""),
        "Never" => {}
        "OnFailure" if policy.is_set() => restart.invalid(
            errors,
            "only \"Never\" is supported when podFailurePolicy is specified",
        ),
        _ => restart.one_of(errors, &["OnFailure", "Never"]),
    }
}

/// `example.com/path`.
pub(super) fn domain_prefixed_path(value: &At<'_>, errors: &mut ErrorList) {
    if !required(value, errors) {
        return;
    }
    for (part, message) in format::domain_prefixed_path(value.text()) {
        errors.push(FieldError::invalid(&value.path, part, message));
    }
}

fn completion(spec: &At<'_>, errors: &mut ErrorList) {
    let mode = spec.get("completionMode");
    if mode.is_set() {
        mode.one_of(errors, &["NonIndexed", "Indexed"]);
    }
    let (per_index, failed) = (
        spec.get("backoffLimitPerIndex"),
        spec.get("maxFailedIndexes"),
    );
    if mode.text() == "Indexed" {
        indexed(spec, errors);
    } else if !mode.is_set() || mode.text() == "NonIndexed" {
        for field in [per_index, failed] {
            if field.is_set() {
                field.invalid(errors, "requires indexed completion mode");
            }
        }
    }
}

fn indexed(spec: &At<'_>, errors: &mut ErrorList) {
    const OF_MANY: &str = "when completions are above 100000 and used with backoff limit per index";
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    let failed = spec.get("maxFailedIndexes");
    if !completions.is_set() {
        completions.required(errors, "when completion mode is Indexed");
    }
    let over = |field: &At<'_>, most: i64| field.int().is_some_and(|n| n > most);
    if over(&parallelism, MAX_PARALLELISM) {
        parallelism.invalid(
            errors,
            format!(
                "must be less than or equal to {MAX_PARALLELISM} when completion mode is Indexed"
            ),
        );
    }
    if completions.int().is_some_and(|n| over(&failed, n)) {
        failed.invalid(errors, "must be less than or equal to completions");
    }
    if over(&failed, MAX_FAILED_INDEXES) {
        failed.invalid(
            errors,
            format!("must be less than or equal to {MAX_FAILED_INDEXES}"),
        );
    }
    if !over(&completions, MANY_COMPLETIONS) || !spec.get("backoffLimitPerIndex").is_set() {
        return;
    }
    if !failed.is_set() {
        failed.required(errors, "must be specified when completions is above 100000");
    }
    if over(&parallelism, PARALLELISM_OF_MANY) {
        let detail = format!("must be less than or equal to {PARALLELISM_OF_MANY} {OF_MANY}");
        parallelism.invalid(errors, detail);
    }
    if over(&failed, FAILED_INDEXES_OF_MANY) {
        let detail = format!("must be less than or equal to {FAILED_INDEXES_OF_MANY} {OF_MANY}");
        failed.invalid(errors, detail);
    }
}

fn too_many(list: &At<'_>, most: usize, errors: &mut ErrorList) {
    if list.len() > most {
        errors.push(FieldError::too_many(&list.path, list.len(), most));
    }
}

fn failure_policy(spec: &At<'_>, policy: &At<'_>, errors: &mut ErrorList) {
    too_many(&policy.get("rules"), FAILURE_RULES, errors);
    let pod = spec.get("template").get("spec");
    let names: HashSet<&str> = ["containers", "initContainers"]
        .into_iter()
        .flat_map(|list| pod.get(list).items())
        .map(|container| container.get("name").text())
        .collect();
    for rule in policy.get("rules").items() {
        let action = rule.get("action");
        match action.text() {
            "" => action.required(
                errors,
                "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            ),
            "FailIndex" => {
                if !spec.get("backoffLimitPerIndex").is_set() {
                    action.invalid(errors, "requires the backoffLimitPerIndex to be set");
                }
            }
            _ => action.one_of(errors, &["Count", "FailIndex", "FailJob", "Ignore"]),
        }
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        if codes.is_set() {
            exit_codes(&codes, &names, errors);
        }
        pod_conditions(&conditions, errors);
        match (codes.is_set(), conditions.len() > 0) {
            (true, true) => invalid_whole(
                &rule,
                "specifying both OnExitCodes and OnPodConditions is not supported",
                errors,
            ),
            (false, false) => invalid_whole(
                &rule,
                "specifying one of OnExitCodes and OnPodConditions is required",
                errors,
            ),
            _ => {}
        }
    }
}

fn exit_codes(codes: &At<'_>, names: &HashSet<&str>, errors: &mut ErrorList) {
    let operator = codes.get("operator");
    if operator.is_given() {
        operator.one_of(errors, &["In", "NotIn"]);
    } else {
        operator.required(errors, "valid values: [\"In\" \"NotIn\"]");
    }
    let container = codes.get("containerName");
    if container.is_set() && !names.contains(container.text()) {
        container.invalid(
            errors,
            "must be one of the container or initContainer names in the pod template",
        );
    }
    let values = codes.get("values");
    if values.len() == 0 {
        values.invalid(errors, "at least one value is required");
    }
    too_many(&values, EXIT_CODES, errors);
    let mut seen = HashSet::new();
    let (mut ordered, mut last) = (true, None);
    for value in values.items() {
        let code = value.int().unwrap_or(0);
        if operator.text() == "In" && code == 0 {
            value.invalid(errors, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            value.duplicate(errors);
        }
        ordered &= last.is_none_or(|last| last <= code);
        last = Some(code);
    }
    if !ordered {
        values.invalid(errors, "must be ordered");
    }
}

fn pod_conditions(conditions: &At<'_>, errors: &mut ErrorList) {
    too_many(conditions, POD_CONDITIONS, errors);
    for pattern in conditions.items() {
        let (kind, status) = (pattern.get("type"), pattern.get("status"));
        kind.check(errors, format::qualified_name(kind.text()));
        if status.is_given() {
            status.one_of(errors, &["False", "True", "Unknown"]);
        } else {
            status.required(errors, "valid values: [\"False\" \"True\" \"Unknown\"]");
        }
    }
}

fn success_policy(spec: &At<'_>, policy: &At<'_>, errors: &mut ErrorList) {
    let rules = policy.get("rules");
    if rules.len() == 0 {
        rules.required(
            errors,
            "at least one rules must be specified when the successPolicy is specified",
        );
    }
    too_many(&rules, SUCCESS_RULES, errors);
    let completions = spec.get("completions").int().unwrap_or(0);
    for rule in rules.items() {
        let (count, indexes) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
        if !count.is_set() && !indexes.is_set() {
            rule.required(
                errors,
                "at least one of succeededCount or succeededIndexes must be specified",
            );
        }
        let mut total = 0;
        if indexes.is_set() {
            if indexes.text().len() > INDEXES_LIMIT {
                errors.push(FieldError::too_long(&indexes.path, INDEXES_LIMIT));
            }
            match count_indexes(indexes.text(), completions) {
                Ok(count) => total = count,
                Err(fault) => {
                    indexes.invalid(errors, format!("error parsing succeededIndexes: {fault}"))
                }
            }
        }
        let Some(number) = count.int() else { continue };
        count.non_negative(errors);
        if number > completions {
            let detail = format!(
                "must be less than or equal to {completions} (the number of specified completions)"
            );
            count.invalid(errors, detail);
        }
        if indexes.is_set() && number > total {
            count.invalid(errors, format!("must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"));
        }
    }
}

/// How many indexes `1,3-5` means, all below `completions` and in order.
pub(super) fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last: Option<i64> = None;
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let (low, high) = parse_interval(interval, completions)?;
        if let Some(last) = last.filter(|last| *last >= low) {
            return Err(format!(
                "non-increasing order, previous: {last}, current: {low}"
            ));
        }
        total += high - low + 1;
        last = Some(high);
    }
    Ok(total)
}

fn parse_interval(interval: &str, completions: i64) -> Result<(i64, i64), String> {
    let limits: Vec<&str> = interval.split('-').collect();
    let index = |text: &str| -> Result<i64, String> {
        let cannot = || format!("cannot convert string to integer for index: {text:?}");
        let index = text.parse().map_err(|_| cannot())?;
        if index >= completions {
            return Err(format!("too large index: {text:?}"));
        }
        Ok(index)
    };
    match limits.as_slice() {
        [one] => index(one).map(|i| (i, i)),
        [low, high] => {
            let (first, second) = (index(low)?, index(high)?);
            if first >= second {
                return Err(format!(
                    "non-increasing order, previous: {first}, current: {second}"
                ));
            }
            Ok((first, second))
        }
        _ => Err(format!(
            "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

pub(super) fn update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let was = old.get("spec").get("template").get("metadata");
    let labels = was.get("labels");
    let prefixed = [CONTROLLER_UID, JOB_NAME].map(|label| labels.raw(label).is_some());
    whole(new, prefixed == [true, true], errors);
    let idle = is_idle(old);
    let (new, old) = (new.get("spec"), old.get("spec"));
    let (now, before) = (new.get("completions"), old.get("completions"));
    if new.get("completionMode").text() != "Indexed" {
        immutable(&now, &before, errors);
    } else if now.is_set()
        && now.value() != before.value()
        && now.value() != new.get("parallelism").value()
    {
        now.invalid(
            errors,
            "can only be modified in tandem with spec.parallelism",
        );
    }
    let changed = differing("io.k8s.api.batch.v1.JobSpec", &new, &old);
    for field in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        if changed.contains(&field) {
            new.get(field).invalid(errors, IMMUTABLE);
        }
    }
    template_of(&new, &old, idle, errors);
}

const TEMPLATE: &str = "io.k8s.api.core.v1.PodTemplateSpec";
const POD: &str = "io.k8s.api.core.v1.PodSpec";

/// Whether a job is suspended and has no pods: either it has never had any, or its controller
/// says that they are gone.
fn is_idle(job: &At<'_>) -> bool {
    let status = job.get("status");
    let conditions = status.get("conditions");
    let is_suspended = |condition: At<'_>| {
        condition.get("type").text() == "Suspended" && condition.get("status").text() == "True"
    };
    job.get("spec").get("suspend").is_true()
        && status.get("active").int().unwrap_or(0) == 0
        && (!status.get("startTime").is_set() || conditions.items().any(is_suspended))
}

/// A job that is idle may still change where it runs and what its containers ask for (KEP-2926,
/// KEP-5440).
fn template_of(new: &At<'_>, old: &At<'_>, idle: bool, errors: &mut ErrorList) {
    let (template, before) = (new.get("template"), old.get("template"));
    let (Some(now), Some(then)) = (template.value(), before.value()) else {
        return;
    };
    if !idle {
        immutable_message(TEMPLATE, &template, &before, errors);
        return;
    }
    let mut then = then.clone();
    take_scheduling(&mut then, now);
    take_resources(&mut then, now);
    // Of the template's metadata nothing is fixed.
    if !same(POD, then.get("spec"), now.get("spec")) {
        // Upstream has a dot in the name of this field.
        let path = new.path.child("template").child("spec");
        errors.push(FieldError::invalid(
            &path,
            BadValue::json(&now["spec"]),
            IMMUTABLE,
        ));
    }
}

fn take(to: &mut Value, from: &Value, key: &str) {
    match from.get(key) {
        Some(value) => to[key] = value.clone(),
        None => {
            if let Some(fields) = to.as_object_mut() {
                fields.remove(key);
            }
        }
    }
}

fn take_scheduling(then: &mut Value, now: &Value) {
    if now.get("metadata").is_some() && then.get("metadata").is_none() {
        then["metadata"] = serde_json::json!({});
    }
    if then.get("metadata").is_some() {
        for key in ["labels", "annotations"] {
            take(&mut then["metadata"], &now["metadata"], key);
        }
    }
    for key in ["nodeSelector", "tolerations", "schedulingGates"] {
        take(&mut then["spec"], &now["spec"], key);
    }
    let mut affinity = then["spec"].get("affinity").cloned().unwrap_or_default();
    let asked = now["spec"].get("affinity").cloned().unwrap_or_default();
    if !affinity.is_object() {
        affinity = serde_json::json!({});
    }
    take(&mut affinity, &asked, "nodeAffinity");
    let empty = affinity.as_object().is_some_and(serde_json::Map::is_empty);
    if !empty || asked.is_object() {
        then["spec"]["affinity"] = affinity;
    } else if let Some(spec) = then["spec"].as_object_mut() {
        spec.remove("affinity");
    }
}

fn take_resources(then: &mut Value, now: &Value) {
    for list in ["containers", "initContainers"] {
        let (Some(before), Some(after)) = (
            then["spec"].get_mut(list).and_then(Value::as_array_mut),
            now["spec"].get(list).and_then(Value::as_array),
        ) else {
            continue;
        };
        for (before, after) in before.iter_mut().zip(after) {
            if before["name"] == after["name"] {
                take(before, after, "resources");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use meta::field::Path;
    use serde_json::json;

    use super::*;

    fn changes(status: Value, change: fn(&mut Value)) -> bool {
        let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        let old = json!({"spec": {"suspend": true, "template": template}, "status": status});
        let mut new = old.clone();
        change(&mut new["spec"]["template"]);
        let [new, old] = [&new, &old].map(|job| At::new(Path::new("job"), job));
        let mut errors = ErrorList::default();
        let (idle, new, old) = (is_idle(&old), new.get("spec"), old.get("spec"));
        template_of(&new, &old, idle, &mut errors);
        errors.0.is_empty()
    }

    #[test]
    fn a_job_without_pods_may_run_elsewhere() {
        let moves: fn(&mut Value) = |t| t["spec"]["nodeSelector"] = json!({"zone": "b"});
        let started = "2026-01-01T00:00:00Z";
        let suspended = json!([{"type": "Suspended", "status": "True"}]);
        assert!(changes(json!({}), moves));
        assert!(!changes(json!({"active": 1}), moves));
        assert!(!changes(json!({"startTime": started}), moves));
        let paused = json!({"startTime": started, "conditions": suspended});
        assert!(changes(paused.clone(), moves));
        assert!(changes(paused.clone(), |t| t["metadata"] = json!({"name": "n"})));
        let image: fn(&mut Value) = |t| t["spec"]["containers"][0]["image"] = json!("j");
        assert!(!changes(paused, image));
    }
}
