//! The variables of containers, and the references by which they are filled.

use std::collections::HashMap;

use meta::field::{ErrorList, FieldError};
use meta::quantity::Quantity;
use meta::validation as format;

use super::at::At;
use super::mounts::no_backsteps;
use super::required;

pub(super) fn env(env: &At<'_>, errors: &mut ErrorList) {
    for variable in env.items() {
        let name = variable.get("name");
        if name.is_given() {
            name.check(errors, format::relaxed_env_var_name(name.text()));
        } else {
            name.required(errors, "");
        }
        source(&variable, errors);
    }
}

const FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn source(variable: &At<'_>, errors: &mut ErrorList) {
    let source = variable.get("valueFrom");
    if !source.is_set() {
        return;
    }
    let given: Vec<_> = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ]
    .into_iter()
    .filter(|name| source.get(name).is_set())
    .collect();
    match given.as_slice() {
        [] => source.invalid(errors, "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"),
        [_] => {
            if variable.get("value").is_given() {
                source.invalid(errors, "may not be specified when `value` is not empty");
            }
        }
        _ => source.invalid(errors, "may not have more than one field specified at a time"),
    }
    if source.get("fieldRef").is_set() {
        field_ref(&source.get("fieldRef"), FIELDS, errors);
    }
    if source.get("resourceFieldRef").is_set() {
        resource_field_ref(&source.get("resourceFieldRef"), false, errors);
    }
    if source.get("fileKeyRef").is_set() {
        file_key_ref(&source.get("fileKeyRef"), errors);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let reference = source.get(name);
        if reference.is_set() {
            key_ref(&reference, errors);
        }
    }
}

/// A key of a file in a volume (KEP-3721).
fn file_key_ref(reference: &At<'_>, errors: &mut ErrorList) {
    let (key, volume, path) = (
        reference.get("key"),
        reference.get("volumeName"),
        reference.get("path"),
    );
    for field in [&key, &volume, &path] {
        if !field.is_given() {
            field.required(errors, "");
        }
    }
    if key.is_given() {
        key.check(errors, format::relaxed_env_var_name(key.text()));
    }
    if volume.is_given() {
        volume.check(errors, format::dns1123_label(volume.text()));
    }
    no_backsteps(&path, errors);
}

/// Files that variables come from lie in volumes of the pod that are empty at first.
pub(super) fn file_volumes(pod: &At<'_>, errors: &mut ErrorList) {
    // Of several volumes of one name the last is looked at.
    let volumes = pod.get("volumes");
    let volumes: HashMap<&str, At<'_>> = (volumes.items())
        .map(|volume| (volume.get("name").text(), volume))
        .collect();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in pod.get(list).items() {
            for variable in container.get("env").items() {
                let reference = variable.get("valueFrom").get("fileKeyRef");
                if !reference.is_set() {
                    continue;
                }
                let name = reference.get("volumeName");
                match volumes.get(name.text()) {
                    None => name.not_found(errors),
                    Some(volume) if !volume.get("emptyDir").is_set() => {
                        name.invalid(errors, "referenced volume must be of type emptyDir");
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// The name of an object that variables come from: the empty one is none.
fn object_name(name: &At<'_>, errors: &mut ErrorList) {
    for message in format::dns1123_subdomain(name.text()) {
        errors.push(FieldError::invalid(&name.path, name.text(), message));
    }
}

fn key_ref(reference: &At<'_>, errors: &mut ErrorList) {
    object_name(&reference.get("name"), errors);
    let key = reference.get("key");
    if key.is_given() {
        key.check(errors, format::config_map_key(key.text()));
    } else {
        key.required(errors, "");
    }
}

/// Every field of a pod that can be asked for somewhere; `known` are those of this place.
const DOWNWARD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.host",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

/// A downward API field; labels and annotations may be subscripted.
pub(super) fn field_ref(reference: &At<'_>, known: &[&str], errors: &mut ErrorList) {
    let (version, path) = (reference.get("apiVersion"), reference.get("fieldPath"));
    let unconverted = |why: String| format!("error converting fieldPath: {why}");
    if !version.is_given() {
        version.required(errors, "");
    } else if !path.is_given() {
        path.required(errors, "");
    } else if version.text() != "v1" {
        let why = format!("unsupported pod version: {}", version.text());
        path.invalid(errors, unconverted(why));
    } else if let Some((base, key)) = subscript(path.text()) {
        let messages = match base {
            "metadata.annotations" => format::qualified_name(&key.to_lowercase()),
            "metadata.labels" => format::qualified_name(key),
            _ => {
                path.invalid(errors, "does not support subscript");
                return;
            }
        };
        for message in messages {
            errors.push(FieldError::invalid(&reference.path, key, message));
        }
    } else if !DOWNWARD_FIELDS.contains(&path.text()) {
        let why = format!("field label not supported: {}", path.text());
        path.invalid(errors, unconverted(why));
    } else {
        path.one_of(errors, known);
    }
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

const CONTAINER_RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn resource_field_ref(reference: &At<'_>, volume: bool, errors: &mut ErrorList) {
    let resource = reference.get("resource");
    if volume && !reference.get("containerName").is_given() {
        reference.get("containerName").required(errors, "");
        return;
    }
    if !resource.is_given() {
        resource.required(errors, "");
        return;
    }
    let huge = resource.text().starts_with("limits.hugepages-")
        || resource.text().starts_with("requests.hugepages-");
    if !huge {
        resource.one_of(errors, CONTAINER_RESOURCES);
    }
    divisor(resource.text(), &reference.get("divisor"), errors);
}

/// What an amount may be counted in.
fn divisor(resource: &str, divisor: &At<'_>, errors: &mut ErrorList) {
    const BYTES: &[&str] = &[
        "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
    ];
    let Ok(unit) = divisor.text().parse::<Quantity>() else {
        return;
    };
    let (_, name) = resource.split_once('.').unwrap_or_default();
    let (units, detail): (&[&str], _) = match name {
        "cpu" => (
            &["1m", "1"],
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned(),
        ),
        "memory" | "ephemeral-storage" => (BYTES, unit_list(name)),
        name if name.starts_with("hugepages-") => (BYTES, unit_list("hugepages")),
        _ => return,
    };
    let known = units
        .iter()
        .any(|u| u.parse::<Quantity>() == Ok(unit.clone()));
    if unit != Quantity::default() && !known {
        errors.push(FieldError::invalid(&divisor.path, resource, detail));
    }
}

fn unit_list(name: &str) -> String {
    format!(
        "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the {name} resource"
    )
}

pub(super) fn env_from(sources: &At<'_>, errors: &mut ErrorList) {
    for source in sources.items() {
        let prefix = source.get("prefix");
        if prefix.is_given() {
            prefix.check(errors, format::relaxed_env_var_name(prefix.text()));
        }
        let given: Vec<_> = ["configMapRef", "secretRef"]
            .into_iter()
            .map(|name| source.get(name))
            .filter(At::is_set)
            .collect();
        for reference in &given {
            let name = reference.get("name");
            if required(&name, errors) {
                object_name(&name, errors);
            }
        }
        let detail = match given.len() {
            1 => continue,
            0 => "must specify one of: `configMapRef` or `secretRef`",
            _ => "may not have more than one field specified at a time",
        };
        errors.push(FieldError::invalid(&sources.path, "", detail));
    }
}
