//! What the subresources `ephemeralcontainers` and `resize` of a pod may change.

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
    for before in old.get("spec").get("ephemeralContainers").items() {
        let name = before.get("name").text();
        let now = list.items().find(|c| c.get("name").text() == name);
        let how = match now {
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

/// A resize gives containers more or less of CPU and memory, and nothing else.
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
    for list in ["initContainers", "containers"] {
        for (now, before) in new.get(list).items().zip(old.get(list).items()) {
            container(&now, &before, list == "containers", &new, errors);
        }
    }
}

fn container(now: &At<'_>, before: &At<'_>, regular: bool, spec: &At<'_>, errors: &mut ErrorList) {
    let (resources, were) = (now.get("resources"), before.get("resources"));
    for (list, detail) in [
        ("limits", "resource limits cannot be removed"),
        ("requests", "resource requests cannot be removed"),
    ] {
        let left = resources.get(list);
        let removed = |name: &str| were.get(list).raw(name).is_some() && left.raw(name).is_none();
        if removed("cpu") || removed("memory") {
            left.forbidden(errors, detail);
        }
    }
    let fixed = [now, before].map(without_cpu_and_memory);
    if !same(CONTAINER, Some(&fixed[0]), Some(&fixed[1])) {
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

fn without_cpu_and_memory(container: &At<'_>) -> Value {
    let mut container = container.value().cloned().unwrap_or_default();
    for list in ["limits", "requests"] {
        let path = format!("/resources/{list}");
        let Some(amounts) = container.pointer_mut(&path).and_then(Value::as_object_mut) else {
            continue;
        };
        amounts.remove("cpu");
        amounts.remove("memory");
        if amounts.is_empty()
            && let Some(resources) = container["resources"].as_object_mut()
        {
            resources.remove(list);
        }
    }
    container
}
