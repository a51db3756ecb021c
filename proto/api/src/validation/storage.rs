//! Volumes, claims, classes and attachments; and the runtime classes of containers.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::quantity::Quantity;
use meta::validation as format;
use serde_json::Value;

use super::at::At;
use super::metadata::immutable;
use super::{Rules, any_update, pod, volume};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "",
        kind: "PersistentVolume",
        name: format::dns1123_subdomain,
        object: |at, errors| persistent_volume(&at.get("spec"), errors),
        update: |new, old, errors| {
            let (new, old) = (new.get("spec"), old.get("spec"));
            immutable(&new.get("volumeMode"), &old.get("volumeMode"), errors);
        },
        status: any_update,
    },
    Rules {
        group: "",
        kind: "PersistentVolumeClaim",
        name: format::dns1123_subdomain,
        object: |at, errors| claim(&at.get("spec"), errors),
        update: claim_update,
        status: any_update,
    },
    Rules {
        group: "storage.k8s.io",
        kind: "VolumeAttachment",
        name: format::dns1123_subdomain,
        object: |at, errors| attachment(&at.get("spec"), errors),
        update: |new, old, errors| immutable(&new.get("spec"), &old.get("spec"), errors),
        status: any_update,
    },
    Rules {
        group: "storage.k8s.io",
        kind: "CSINode",
        name: format::dns1123_subdomain,
        object: |at, errors| csi_node(&at.get("spec"), errors),
        update: any_update,
        status: any_update,
    },
    Rules {
        group: "node.k8s.io",
        kind: "RuntimeClass",
        name: format::dns1123_subdomain,
        object: |at, errors| {
            let handler = at.get("handler");
            for message in format::dns1123_label(handler.text()) {
                errors.push(FieldError::invalid(&handler.path, handler.text(), message));
            }
        },
        update: |new, old, errors| {
            immutable(&new.get("handler"), &old.get("handler"), errors);
        },
        status: any_update,
    },
    Rules {
        group: "storage.k8s.io",
        kind: "StorageClass",
        name: format::dns1123_subdomain,
        object: storage_class,
        update: |new, old, errors| {
            for field in [
                "parameters",
                "provisioner",
                "reclaimPolicy",
                "volumeBindingMode",
            ] {
                immutable(&new.get(field), &old.get(field), errors);
            }
        },
        status: any_update,
    },
];

/// Drivers and attachments are the storage system's own; what they must say is little.
fn attachment(spec: &At<'_>, errors: &mut ErrorList) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    volume::named(&spec.get("attacher"), errors);
    let source = spec.get("source");
    let (inline, name) = (
        source.get("inlineVolumeSpec"),
        source.get("persistentVolumeName"),
    );
    match (inline.is_set(), name.is_set()) {
        (false, false) => errors.push(FieldError::required(&source.path, ONE)),
        (true, true) => errors.push(FieldError::forbidden(&source.path, ONE)),
        _ => {}
    }
    let node = spec.get("nodeName");
    for message in format::dns1123_subdomain(node.text()) {
        errors.push(FieldError::invalid(&node.path, node.text(), message));
    }
}

fn csi_node(spec: &At<'_>, errors: &mut ErrorList) {
    let mut names = HashSet::new();
    for driver in spec.get("drivers").items() {
        volume::named(&driver.get("name"), errors);
        volume::named(&driver.get("nodeID"), errors);
        let name = driver.get("name");
        if !names.insert(name.text()) {
            name.duplicate(errors);
        }
    }
}

const ONE_POD: &str = "ReadWriteOncePod";
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", ONE_POD];

fn access_modes(modes: &At<'_>, required: &'static str, errors: &mut ErrorList) {
    if modes.len() == 0 {
        modes.required(errors, required);
    }
    for mode in modes.items() {
        if !ACCESS_MODES.contains(&mode.text()) {
            let error = FieldError::not_supported(&modes.path, mode.text(), &ACCESS_MODES);
            errors.push(error);
        }
    }
    let one_pod = modes.items().any(|m| m.text() == ONE_POD);
    let other = modes.items().any(|m| ACCESS_MODES[..3].contains(&m.text()));
    if one_pod && other {
        modes.forbidden(
            errors,
            "may not use ReadWriteOncePod with other access modes",
        );
    }
}

fn volume_mode(spec: &At<'_>, errors: &mut ErrorList) {
    if spec.get("volumeMode").is_set() {
        spec.get("volumeMode")
            .one_of(errors, &["Block", "Filesystem"]);
    }
}

fn class_name(name: &At<'_>, errors: &mut ErrorList) {
    if name.is_given() {
        name.check(errors, format::dns1123_subdomain(name.text()));
    }
}

fn size(of: &At<'_>) -> Option<Quantity> {
    of.text().parse().ok()
}

fn positive(quantity: &At<'_>, errors: &mut ErrorList) {
    if size(quantity).is_some_and(|q| q <= Quantity::default()) {
        quantity.invalid(errors, "must be greater than zero");
    }
}

/// Every source that a persistent volume may have.
const SOURCES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

fn persistent_volume(spec: &At<'_>, errors: &mut ErrorList) {
    access_modes(&spec.get("accessModes"), "", errors);
    let capacity = spec.get("capacity");
    if capacity.len() == 0 {
        capacity.required(errors, "");
    }
    if capacity.raw("storage").is_none() || capacity.len() > 1 {
        let error = FieldError::not_supported(&capacity.path, capacity.bad_value(), &["storage"]);
        errors.push(error);
    }
    for (_, quantity) in capacity.entries() {
        positive(&quantity, errors);
    }
    let policy = spec.get("persistentVolumeReclaimPolicy");
    if policy.is_given() {
        policy.one_of(errors, &["Delete", "Recycle", "Retain"]);
    }
    let mut given = 0;
    for name in SOURCES {
        let source = spec.get(name);
        if !source.is_set() {
            continue;
        }
        given += 1;
        if given > 1 {
            source.forbidden(errors, "may not specify more than 1 volume type");
            continue;
        }
        let required: &[&'static str] = match *name {
            "hostPath" => {
                volume::host_path(&source, errors);
                &[]
            }
            "nfs" => &["server", "path"],
            "csi" => &["driver", "volumeHandle"],
            "local" => &["path"],
            _ => &[],
        };
        for field in required {
            volume::named(&source.get(field), errors);
        }
        if *name == "local" && !spec.get("nodeAffinity").get("required").is_set() {
            spec.get("nodeAffinity")
                .required(errors, "Local volume requires node affinity");
        }
    }
    if given == 0 {
        spec.required(errors, "must specify a volume type");
    }
    class_name(&spec.get("storageClassName"), errors);
    volume_mode(spec, errors);
}

fn claim(spec: &At<'_>, errors: &mut ErrorList) {
    let modes = spec.get("accessModes");
    access_modes(&modes, "at least 1 access mode is required", errors);
    pod::label_selector(&spec.get("selector"), errors);
    let storage = spec.get("resources").get("requests").get("storage");
    // Upstream leaves `requests` out of this path.
    let path = spec.get("resources").path.key("storage");
    match storage.value() {
        None => errors.push(FieldError::required(&path, "")),
        Some(value) => positive(&At::new(path, value), errors),
    }
    class_name(&spec.get("storageClassName"), errors);
    volume_mode(spec, errors);
    for field in ["dataSource", "dataSourceRef"] {
        let source = spec.get(field);
        if !source.is_set() {
            continue;
        }
        volume::named(&source.get("name"), errors);
        volume::named(&source.get("kind"), errors);
        let (group, kind) = (source.get("apiGroup"), source.get("kind").text());
        if group.is_given() {
            group.check(errors, format::dns1123_subdomain(group.text()));
        } else if kind != "PersistentVolumeClaim" {
            errors.push(FieldError::invalid(
                &source.path,
                kind,
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            ));
        }
    }
    class_name(&spec.get("volumeAttributesClassName"), errors);
}

/// A claim gets its volume once; when it is bound it may still grow and change its attributes.
fn claim_update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let bound = new.get("status").get("phase").text() == "Bound";
    let (new_spec, old_spec) = (new.get("spec"), old.get("spec"));
    let mut fixed = [new_spec.value(), old_spec.value()].map(|s| s.cloned().unwrap_or_default());
    let [asked, before] = &mut fixed;
    if !old_spec.get("volumeName").is_given() {
        before["volumeName"] = asked["volumeName"].clone();
    }
    if old_spec.get("storageClassName").value().is_none() {
        before["storageClassName"] = asked["storageClassName"].clone();
    }
    if bound {
        for spec in [&mut *asked, &mut *before] {
            spec["volumeAttributesClassName"] = Value::Null;
            if let Some(requests) = spec.pointer_mut("/resources/requests/storage") {
                *requests = Value::Null;
            }
        }
    }
    let without_nulls = |spec: &Value| {
        let mut spec = spec.as_object().cloned().unwrap_or_default();
        spec.retain(|_, value| !value.is_null());
        spec
    };
    if without_nulls(asked) != without_nulls(before) {
        new_spec.forbidden(
            errors,
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        );
    }
    let storage = |spec: &At<'_>| size(&spec.get("resources").get("requests").get("storage"));
    let reached = size(&old.get("status").get("capacity").get("storage")).unwrap_or_default();
    if let (Some(now), Some(then)) = (storage(&new_spec), storage(&old_spec))
        && now < then
        && now <= reached
    {
        new_spec
            .get("resources")
            .get("requests")
            .get("storage")
            .forbidden(errors, "field can not be less than status.capacity");
    }
}

fn storage_class(class: &At<'_>, errors: &mut ErrorList) {
    /// Parameters: how many, and how many bytes in all.
    const MOST: (usize, usize) = (512, 256 * 1024);
    let provisioner = class.get("provisioner");
    if provisioner.is_given() {
        let lower = provisioner.text().to_lowercase();
        for message in format::qualified_name(&lower) {
            errors.push(FieldError::invalid(
                &provisioner.path,
                lower.as_str(),
                message,
            ));
        }
    } else {
        provisioner.required(errors, "");
    }
    let parameters = class.get("parameters");
    if parameters.len() > MOST.0 {
        errors.push(FieldError::too_long(&parameters.path, MOST.0));
    }
    let bytes: usize = parameters
        .entries()
        .map(|(key, value)| key.len() + value.text().len())
        .sum();
    if bytes > MOST.1 {
        errors.push(FieldError::too_long(&parameters.path, MOST.1));
    }
    if class.get("reclaimPolicy").is_given() {
        class
            .get("reclaimPolicy")
            .one_of(errors, &["Delete", "Retain"]);
    }
    class
        .get("volumeBindingMode")
        .one_of(errors, &["Immediate", "WaitForFirstConsumer"]);
}
