//! What an update of a pod may change: images, the deadline, the grace period of a
//! negative one, more tolerations, fewer scheduling gates; and of a gated one, on which nodes
//! it may run.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError, Path};
use serde_json::{Map, Value, json};

use super::at::At;
use super::same::{differing, same};

const SPEC: &str = "io.k8s.api.core.v1.PodSpec";
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
    if !deadline(
        &new.get("activeDeadlineSeconds"),
        &old.get("activeDeadlineSeconds"),
        errors,
    ) {
        return;
    }
    added_tolerations(&new.get("tolerations"), &old.get("tolerations"), errors);
    removed_gates(
        &new.get("schedulingGates"),
        &old.get("schedulingGates"),
        errors,
    );

    let (Some(spec), Some(before)) = (new.value(), old.value()) else {
        return;
    };
    if same(SPEC, Some(spec), Some(before)) {
        return;
    }
    let gated = old.get("schedulingGates").len() > 0;
    if gated {
        narrowed_selector(&new.get("nodeSelector"), &old.get("nodeSelector"), errors);
        narrowed_affinity(&new.get("affinity"), &old.get("affinity"), errors);
    }
    let munged = with_updatable_of(spec, before, gated);
    let changed: Vec<String> = differing(SPEC, &At::root(&munged), &old)
        .into_iter()
        .map(|name| format!("spec.{name}"))
        .collect();
    if !changed.is_empty() {
        let changed = changed.join(", ");
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
        take.push("nodeSelector");
        take_node_affinity(fields, old);
    }
    for field in take {
        match old.get(field) {
            Some(value) => fields.insert(field.to_owned(), value.clone()),
            None => fields.remove(field),
        };
    }
    munged
}

/// A pod that had no affinity at all may get one to nodes, and lose it again.
fn take_node_affinity(fields: &mut Map<String, Value>, old: &Value) {
    const NODE: &str = "nodeAffinity";
    let set = |of: &Map<String, Value>, key: &str| of.get(key).is_some_and(|v| !v.is_null());
    let had = old.get("affinity").and_then(Value::as_object);
    let before = had.and_then(|had| had.get(NODE)).filter(|v| !v.is_null());
    let Some(affinity) = fields.get_mut("affinity").and_then(Value::as_object_mut) else {
        if let Some(before) = before {
            fields.insert("affinity".to_owned(), json!({NODE: before}));
        }
        return;
    };
    let now = affinity.get(NODE).filter(|v| !v.is_null());
    let unchanged =
        now.is_some() == before.is_some() && same("io.k8s.api.core.v1.NodeAffinity", now, before);
    let pods = set(affinity, "podAffinity") || set(affinity, "podAntiAffinity");
    if unchanged {
    } else if had.is_none() && !pods {
        fields.remove("affinity");
    } else {
        affinity.insert(NODE.to_owned(), before.cloned().unwrap_or_default());
    }
}

/// Where a gated pod may run can only become less.
fn narrowed_selector(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    if old
        .entries()
        .any(|(key, value)| new.raw(key) != value.value())
    {
        new.invalid(
            errors,
            "only additions to spec.nodeSelector are allowed (no mutations or deletions)",
        );
    }
}

/// The same for the terms that its node must match: they are alternatives, so none may be added,
/// and each may only ask for more.
fn narrowed_affinity(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (now, before) = (terms(new), terms(old));
    if before.len() == 0 {
        return;
    }
    if now.len() != before.len() {
        now.invalid(
            errors,
            "no additions/deletions to non-empty NodeSelectorTerms list are allowed",
        );
        return;
    }
    for (now, before) in now.items().zip(before.items()) {
        if !asks_for_more(&now, &before) {
            now.invalid(
                errors,
                "only additions are allowed (no mutations or deletions)",
            );
        }
    }
}

fn terms<'a>(affinity: &At<'a>) -> At<'a> {
    let required = affinity
        .get("nodeAffinity")
        .get("requiredDuringSchedulingIgnoredDuringExecution");
    required.get("nodeSelectorTerms")
}

fn asks_for_more(now: &At<'_>, before: &At<'_>) -> bool {
    const REQUIREMENT: &str = "io.k8s.api.core.v1.NodeSelectorRequirement";
    let lists = ["matchExpressions", "matchFields"].map(|list| (now.get(list), before.get(list)));
    // A term that asks for nothing matches no node.
    if lists.iter().all(|(_, before)| before.len() == 0) {
        return lists.iter().all(|(now, _)| now.len() == 0);
    }
    lists.iter().all(|(now, before)| {
        now.len() >= before.len()
            && now
                .items()
                .zip(before.items())
                .all(|(now, before)| same(REQUIREMENT, now.value(), before.value()))
    })
}

/// Whether the rest of the update is worth a look.
fn deadline(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) -> bool {
    match (new.int(), old.int()) {
        (Some(n), _) if !(0..=i64::from(i32::MAX)).contains(&n) => {
            new.invalid(errors, "must be between 0 and 2147483647, inclusive");
            false
        }
        (Some(n), Some(o)) if o < n => {
            new.invalid(errors, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            new.invalid(
                errors,
                "must not update from a positive integer to nil value",
            );
            true
        }
        _ => true,
    }
}

fn added_tolerations(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    // `tolerationSeconds` of one that stays may change.
    let key = |toleration: At<'_>| {
        ["key", "operator", "value", "effect"].map(|field| {
            let text = toleration.raw(field).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        })
    };
    let now: HashSet<[String; 4]> = new.items().map(key).collect();
    if !old.items().map(key).all(|before| now.contains(&before)) {
        new.forbidden(
            errors,
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
}

fn removed_gates(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let before: HashSet<&str> = old.items().map(|gate| gate.get("name").text()).collect();
    for gate in new.items() {
        let name = gate.get("name").text();
        if !before.contains(name) {
            gate.get("name").forbidden(
                errors,
                format!("only deletion is allowed, but found new scheduling gate '{name}'"),
            );
        }
    }
}
