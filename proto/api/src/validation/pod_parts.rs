//! What the subresources `ephemeralcontainers` and `resize` of a pod may change.

use std::collections::HashMap;

use meta::field::{ErrorList, FieldError, Path};
use serde_json::Value;

use super::at::At;
use super::same::same;

const CONTAINER: &str = "io.k8s.api.core.v1.Container";
const EPHEMERAL: &str = "io.k8s.api.core.v1.EphemeralContainer";

const MIRROR: &str = "kubernetes.io/config.mirror";

/// Pods of files, which only their node may change; complains of one.
fn is_static(pod: &At<'_>, detail: &'static str, errors: &mut ErrorList) -> bool {
    let annotations = pod.get("metadata").get("annotations");
    let found = annotations.raw(MIRROR).is_some();
    if found {
        *errors = ErrorList::from(FieldError::forbidden(&Path::new(""), detail));
    }
    found
}

/// Containers to debug with may be added; those that are there stay as they are.
pub(super) fn ephemeral_containers(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    if is_static(
        old,
        "static pods do not support ephemeral containers",
        errors,
    ) {
        return;
    }
    let list = new.get("spec").get("ephemeralContainers");
    let by_name: HashMap<&str, At<'_>> = list
        .items()
        .map(|container| (container.get("name").text(), container))
        .collect();
    for before in old.get("spec").get("ephemeralContainers").items() {
        let name = before.get("name").text();
        let how = match by_name.get(name) {
            None => "removed",
            Some(now) if !same(EPHEMERAL, now.value(), before.value()) => "changed",
            Some(_) => continue,
        };
        list.forbidden(
            errors,
            format!("existing ephemeral containers {name:?} may not be {how}\n"),
        );
    }
}

/// A resize gives a pod and its containers more or less of CPU and memory, and nothing else.
pub(super) fn resize(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    if is_static(old, "static pods cannot be resized", errors) {
        return;
    }
    let (new, old) = (new.get("spec"), old.get("spec"));
    if old.get("os").get("name").text() == "windows" {
        let detail = "windows pods cannot be resized";
        *errors = ErrorList::from(FieldError::forbidden(&Path::new(""), detail));
        return;
    }
    pod_resources(&new, &old, errors);
    let before = errors.0.len();
    for list in ["containers", "initContainers"] {
        order(&new.get(list), &old.get(list), list, errors);
    }
    if errors.0.len() > before {
        return;
    }
    for list in ["initContainers", "containers"] {
        for (now, before) in new.get(list).items().zip(old.get(list).items()) {
            container(&now, &before, list == "containers", &new, errors);
        }
    }
}

fn order(now: &At<'_>, before: &At<'_>, list: &str, errors: &mut ErrorList) {
    if now.len() != before.len() {
        now.forbidden(
            errors,
            format!("{list} may not be added or removed on resize"),
        );
        return;
    }
    for (now, before) in now.items().zip(before.items()) {
        let name = now.get("name");
        if name.text() != before.get("name").text() {
            name.forbidden(
                errors,
                format!("{list} may not be renamed or reordered on resize"),
            );
        }
    }
}

/// The resources of the pod as a whole (KEP-5419).
fn pod_resources(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (now, before) = (new.get("resources"), old.get("resources"));
    let amounts = |of: &At<'_>| of.get("requests").len() + of.get("limits").len();
    if amounts(&now) + amounts(&before) == 0 {
        return;
    }
    if before.is_set() && !now.is_set() {
        now.forbidden(errors, "pod-level resources cannot be removed");
        return;
    }
    if before.is_set() {
        not_removed(&now, &before, "pod-level resource", errors);
    }
    let fixed = [&now, &before].map(fixed_resources);
    if now.get("claims").is_set() || fixed[0] != fixed[1] {
        new.forbidden(
            errors,
            "only cpu and memory resources are mutable at pod-level",
        );
    }
}

/// What is asked for and limited stays so, if not to the same amount.
fn not_removed(now: &At<'_>, before: &At<'_>, whose: &str, errors: &mut ErrorList) {
    for list in ["requests", "limits"] {
        let left = now.get(list);
        let removed = |(name, _): (&str, _)| left.raw(name).is_none();
        if before.get(list).entries().any(removed) {
            left.forbidden(errors, format!("{whose} {list} cannot be removed"));
        }
    }
}

/// Amounts of what a resize does not change, of requests and of limits.
fn fixed_resources(resources: &At<'_>) -> Vec<(&'static str, String, Value)> {
    let lists = ["requests", "limits"].into_iter();
    let amounts = lists.flat_map(|list| {
        let amounts = resources.get(list);
        let fixed = amounts
            .entries()
            .filter(|(name, _)| !matches!(*name, "cpu" | "memory"));
        let fixed = fixed
            .filter_map(|(name, amount)| Some((list, name.to_owned(), amount.value()?.clone())));
        fixed.collect::<Vec<_>>()
    });
    amounts.collect()
}

fn container(now: &At<'_>, before: &At<'_>, regular: bool, spec: &At<'_>, errors: &mut ErrorList) {
    let (resources, were) = (now.get("resources"), before.get("resources"));
    not_removed(&resources, &were, "resource", errors);
    let rest = [now, before].map(|container| {
        let mut rest = container.value().cloned().unwrap_or_default();
        if let Some(fields) = rest.as_object_mut() {
            fields.remove("resources");
        }
        rest
    });
    if fixed_resources(&resources) != fixed_resources(&were)
        || were.get("claims").is_set()
        || !same(CONTAINER, Some(&rest[0]), Some(&rest[1]))
    {
        if regular {
            spec.forbidden(errors, "only cpu and memory resources are mutable");
        } else {
            now.forbidden(
                errors,
                "only cpu and memory resources for init or sidecar containers are mutable",
            );
        }
    }
    let runs_once = !regular && before.get("restartPolicy").text() != "Always";
    if runs_once && !same(CONTAINER, now.value(), before.value()) {
        // What would be restarted has run already.
        let policies = now.get("resizePolicy");
        let restarting = policies
            .items()
            .filter(|p| p.get("restartPolicy").text() == "RestartContainer");
        for _ in restarting {
            now.forbidden(
                errors,
                "non-sidecar init containers with a resize policy of RestartContainer cannot be resized",
            );
        }
    }
}
