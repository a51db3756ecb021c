//! What an update of a pod may change: images, the deadline, the grace period of a
//! negative one, more tolerations, fewer scheduling gates.

use meta::field::{ErrorList, FieldError, Path};
use serde_json::Value;

use super::at::At;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    for list in ["containers", "initContainers"] {
        if new.get(list).len() != old.get(list).len() {
            new.get(list)
                .forbidden(errors, "pod updates may not add or remove containers");
            return;
        }
        for container in new.get(list).items() {
            if !container.get("image").is_given() {
                container.get("image").required(errors, "");
            }
        }
    }
    deadline(
        &new.get("activeDeadlineSeconds"),
        &old.get("activeDeadlineSeconds"),
        errors,
    );
    added_tolerations(&new.get("tolerations"), &old.get("tolerations"), errors);
    removed_gates(
        &new.get("schedulingGates"),
        &old.get("schedulingGates"),
        errors,
    );

    let (Some(spec), Some(before)) = (new.value(), old.value()) else {
        return;
    };
    if spec == before {
        return;
    }
    let gated = old.get("schedulingGates").len() > 0;
    let munged = with_updatable_of(spec, before, gated);
    if gated {
        for (key, value) in old.get("nodeSelector").entries() {
            if new.get("nodeSelector").raw(key) != value.value() {
                new.get("nodeSelector").invalid(
                    errors,
                    "only additions are allowed (no mutations or deletions)",
                );
            }
        }
    }
    if !equal(&munged, before) {
        let changed = changed_fields(&munged, before).join(", ");
        errors.push(FieldError::forbidden(
            &Path::new("spec"),
            format!("pod updates may not change fields other than {UPDATABLE}\nchanged: {changed}"),
        ));
    }
}

/// The new spec with what may change taken from the old one.
fn with_updatable_of(new: &Value, old: &Value, gated: bool) -> Value {
    let mut munged = new.clone();
    let Some(fields) = munged.as_object_mut() else {
        return munged;
    };
    for list in ["containers", "initContainers"] {
        let (Some(containers), Some(before)) = (
            fields.get_mut(list).and_then(Value::as_array_mut),
            old.get(list).and_then(Value::as_array),
        ) else {
            continue;
        };
        for (container, before) in containers.iter_mut().zip(before) {
            container["image"] = before["image"].clone();
        }
    }
    let grace = "terminationGracePeriodSeconds";
    let was_negative = old
        .get(grace)
        .and_then(Value::as_i64)
        .is_some_and(|g| g < 0);
    let mut take = vec!["activeDeadlineSeconds", "schedulingGates", "tolerations"];
    if was_negative && fields.get(grace).and_then(Value::as_i64) == Some(1) {
        take.push(grace);
    }
    if gated {
        take.extend(["nodeSelector", "affinity"]);
    }
    for field in take {
        match old.get(field) {
            Some(value) => fields.insert(field.to_owned(), value.clone()),
            None => fields.remove(field),
        };
    }
    munged
}

/// Equal but for the difference between absent and empty.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let same = |x: &serde_json::Map<String, Value>, y: &serde_json::Map<String, Value>| {
                x.iter().all(|(key, value)| match y.get(key) {
                    Some(other) => equal(value, other),
                    None => is_empty(value),
                })
            };
            same(a, b) && same(b, a)
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        _ => a == b || (is_empty(a) && is_empty(b)),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn changed_fields(new: &Value, old: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let new = new.as_object().unwrap_or(&empty);
    let old = old.as_object().unwrap_or(&empty);
    let names = new
        .keys()
        .chain(old.keys().filter(|k| !new.contains_key(*k)));
    names
        .filter(|name| {
            !equal(
                new.get(*name).unwrap_or(&Value::Null),
                old.get(*name).unwrap_or(&Value::Null),
            )
        })
        .map(|name| format!("spec.{name}"))
        .collect()
}

fn deadline(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    match (new.int(), old.int()) {
        (Some(n), _) if !(0..=i64::from(i32::MAX)).contains(&n) => {
            new.invalid(errors, "must be between 0 and 2147483647, inclusive");
        }
        (Some(n), Some(o)) if o < n => {
            new.invalid(errors, "must be less than or equal to previous value");
        }
        (None, Some(_)) => {
            new.invalid(
                errors,
                "must not update from a positive integer to nil value",
            );
        }
        _ => {}
    }
}

fn added_tolerations(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    // `tolerationSeconds` of one that stays may change.
    let key = |t: &At<'_>| {
        ["key", "operator", "value", "effect"].map(|f| t.raw(f).cloned().unwrap_or_default())
    };
    for before in old.items() {
        if !new.items().any(|t| key(&t) == key(&before)) {
            new.forbidden(
                errors,
                "existing toleration can not be modified except its tolerationSeconds",
            );
            return;
        }
    }
}

fn removed_gates(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    for gate in new.items() {
        let name = gate.get("name").text();
        if !old.items().any(|g| g.get("name").text() == name) {
            gate.get("name").forbidden(
                errors,
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            );
        }
    }
}

/// What the system itself says of a pod.
const SYSTEM_CONDITIONS: [&str; 4] = ["PodScheduled", "Ready", "Initialized", "ContainersReady"];

/// One address of each family; what was there before may stay as it is.
fn addresses(list: &At<'_>, before: &At<'_>, errors: &mut ErrorList) {
    let known = |ip: &str| before.items().any(|item| item.get("ip").text() == ip);
    let mut families = [0, 0];
    let mut unreadable = None;
    for (i, item) in list.items().enumerate() {
        let ip = item.get("ip").moved(item.path.clone());
        if !known(ip.text()) {
            ip.ip(errors);
        }
        match meta::validation::ip::parse_ip_sloppy(ip.text()) {
            Some(address) => families[usize::from(address.is_ipv6())] += 1,
            None => unreadable = unreadable.or(Some((i, ip.text().to_owned()))),
        }
    }
    if list.len() < 2 {
        return;
    }
    if let Some((i, ip)) = &unreadable {
        let why = format!("failed to check for dual stack with error:invalid IP[{i}]: {ip}");
        errors.push(FieldError::internal(&list.path, why));
    }
    if unreadable.is_some() || families.contains(&0) || list.len() > 2 {
        list.invalid(errors, "may specify no more than one IP for each IP family");
    }
}

/// Whether the end of one of these containers can make all of the pod's begin anew (KEP-5532).
fn restarts_all(containers: &At<'_>) -> bool {
    let mut rules = containers
        .items()
        .flat_map(|container| container.get("restartPolicyRules").items());
    rules.any(|rule| rule.get("action").text() == "RestartAllContainers")
}

/// Whether a container that ended with this exit code may run again: by its own rules, its own
/// policy, or its pod's (KEP-5307).
fn may_restart(container: &At<'_>, spec: &At<'_>, exit_code: i64) -> bool {
    let by_policy = |policy: &str| match policy {
        "OnFailure" => exit_code != 0,
        "Never" => false,
        _ => true,
    };
    let own = container.get("restartPolicy").text();
    if own.is_empty() {
        return by_policy(spec.get("restartPolicy").text());
    }
    let matches = |rule: &At<'_>| {
        let codes = rule.get("exitCodes");
        let listed = codes
            .get("values")
            .items()
            .any(|value| value.int() == Some(exit_code));
        match codes.get("operator").text() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    let mut rules = container.get("restartPolicyRules").items();
    let rule = rules.find(matches);
    rule.is_some_and(|rule| rule.get("action").text() == "Restart") || by_policy(own)
}

/// An update of a pod's status: what has ended stays ended.
pub(super) fn status(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let nominated = new.get("status").get("nominatedNodeName");
    if nominated.is_given() {
        nominated.check(
            errors,
            meta::validation::dns1123_subdomain(nominated.text()),
        );
    }
    let said = new.get("status");
    if nominated.is_given()
        && old.get("spec").get("nodeName").is_given()
        && nominated.text() != old.get("status").get("nominatedNodeName").text()
    {
        nominated.forbidden(
            errors,
            "may not be set on pods that are already bound to a node",
        );
    }
    for condition in said.get("conditions").items() {
        // Upstream names the Go field here.
        let kind = condition.get("type").renamed("Type");
        if !SYSTEM_CONDITIONS.contains(&kind.text()) {
            kind.check(errors, meta::validation::qualified_name(kind.text()));
        }
    }
    let generation = said.get("observedGeneration");
    if generation.int().is_some_and(|g| g < 0) {
        generation.invalid(errors, "must be a non-negative integer");
    }
    for list in ["podIPs", "hostIPs"] {
        let before = old.get("status").get(list);
        addresses(&said.get(list), &before, errors);
    }
    let first = said.get("hostIPs").items().next();
    if let Some(first) = first
        && first.get("ip").text() != said.get("hostIP").text()
    {
        first.get("ip").invalid(errors, "must be equal to `hostIP`");
    }
    let spec = old.get("spec");
    let kinds = ["containers", "initContainers"];
    if kinds.iter().any(|kind| restarts_all(&spec.get(kind))) {
        return;
    }
    let (new, old) = (new.get("status"), old.get("status"));
    for (list, kind) in [
        ("containerStatuses", kinds[0]),
        ("initContainerStatuses", kinds[1]),
    ] {
        for before in old.get(list).items() {
            let Some(ended) = before.get("state").raw("terminated") else {
                continue;
            };
            let code = ended.get("exitCode").and_then(Value::as_i64).unwrap_or(0);
            let name = before.get("name").text();
            let mut containers = spec.get(kind).items();
            let container = containers.find(|c| c.get("name").text() == name);
            if container.is_some_and(|c| may_restart(&c, &spec, code)) {
                continue;
            }
            for after in new
                .get(list)
                .items()
                .filter(|c| c.get("name").text() == name)
            {
                if after.get("state").raw("terminated").is_none() {
                    after
                        .get("state")
                        .forbidden(errors, "may not be transitioned to non-terminated state");
                }
            }
        }
    }
}
