//! CSI drivers, storage capacities and volume attributes classes.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::{At, IMMUTABLE};
use super::metadata::immutable;
use super::{Rules, any_update, container, pod, required};

const GROUP: &str = "storage.k8s.io";

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: GROUP,
        kind: "CSIDriver",
        name: format::dns1123_subdomain,
        object: |at, errors| driver(&at.get("spec"), errors),
        update: |new, old, errors| {
            let (new, old) = (new.get("spec"), old.get("spec"));
            // Upstream calls the field by a name of its own.
            immutable(
                &new.get("attachRequired").renamed("attachedRequired"),
                &old.get("attachRequired"),
                errors,
            );
            let modes = "volumeLifecycleModes";
            immutable(&new.get(modes), &old.get(modes), errors);
        },
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "CSIStorageCapacity",
        name: format::dns1123_subdomain,
        object: capacity,
        update: |new, old, errors| {
            for field in ["nodeTopology", "storageClassName"] {
                if new.get(field).value() != old.get(field).value() {
                    new.get(field).invalid(errors, IMMUTABLE);
                }
            }
        },
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "VolumeAttributesClass",
        name: format::dns1123_subdomain,
        object: |at, errors| {
            provisioner(&at.get("driverName"), errors);
            parameters(&at.get("parameters"), errors);
            if at.get("parameters").len() == 0 {
                at.get("parameters")
                    .required(errors, "must contain at least one key/value pair");
            }
        },
        update: |new, old, errors| {
            for (field, detail) in [
                ("driverName", "updates to driverName are forbidden."),
                ("parameters", "updates to parameters are forbidden."),
            ] {
                if new.get(field).value() != old.get(field).value() {
                    new.get(field).forbidden(errors, detail);
                }
            }
        },
        status: any_update,
    },
];

/// The name of what makes volumes: a qualified name in any case.
pub(super) fn provisioner(name: &At<'_>, errors: &mut ErrorList) {
    if required(name, errors) {
        let lower = name.text().to_lowercase();
        for message in format::qualified_name(&lower) {
            errors.push(FieldError::invalid(&name.path, lower.as_str(), message));
        }
    }
}

/// What a provisioner is told.
pub(super) fn parameters(parameters: &At<'_>, errors: &mut ErrorList) {
    /// How many, and how many bytes in all.
    const MOST: (usize, usize) = (512, 256 * 1024);
    if parameters.len() > MOST.0 {
        errors.push(FieldError::too_long(&parameters.path, MOST.0));
        return;
    }
    let mut bytes = 0;
    for (key, value) in parameters.entries() {
        if key.is_empty() {
            errors.push(FieldError::invalid(
                &parameters.path,
                key,
                "field can not be empty.",
            ));
        }
        bytes += key.len() + value.text().len();
    }
    if bytes > MOST.1 {
        errors.push(FieldError::too_long(&parameters.path, MOST.1));
    }
}

/// Defaults set these for new drivers.
pub(super) fn driver_created(at: &At<'_>, errors: &mut ErrorList) {
    let spec = at.get("spec");
    for field in ["podInfoOnMount", "storageCapacity", "seLinuxMount"] {
        if !spec.get(field).is_set() {
            spec.get(field).required(errors, "");
        }
    }
    if !spec.get("attachRequired").is_set() {
        let named = spec.get("attachRequired").renamed("attachedRequired");
        named.required(errors, "");
    }
}

fn driver(spec: &At<'_>, errors: &mut ErrorList) {
    let policy = spec.get("fsGroupPolicy");
    if policy.is_set() {
        policy.one_of(errors, &["File", "None", "ReadWriteOnceWithFSType"]);
    }
    let mut audiences = HashSet::new();
    for request in spec.get("tokenRequests").items() {
        let audience = request.get("audience");
        if !audiences.insert(audience.text()) {
            audience.duplicate(errors);
            continue;
        }
        let seconds = request.get("expirationSeconds");
        match seconds.int() {
            Some(s) if s < 600 => {
                seconds.invalid(errors, "may not specify a duration less than 10 minutes")
            }
            Some(s) if s > 1 << 32 => seconds.invalid(
                errors,
                "may not specify a duration larger than 2^32 seconds",
            ),
            _ => {}
        }
    }
    let modes = spec.get("volumeLifecycleModes");
    for mode in modes.items() {
        const MODES: [&str; 2] = ["Persistent", "Ephemeral"];
        if !MODES.contains(&mode.text()) {
            errors.push(FieldError::not_supported(&modes.path, mode.text(), &MODES));
        }
    }
    let period = spec.get("nodeAllocatableUpdatePeriodSeconds");
    if period.int().is_some_and(|p| p < 10) {
        period.invalid(errors, "must be greater than or equal to 10 seconds");
    }
    let in_secrets = spec.get("serviceAccountTokenInSecrets");
    if in_secrets.is_set() && spec.get("tokenRequests").len() == 0 {
        in_secrets.invalid(
            errors,
            "serviceAccountTokenInSecrets is set but no tokenRequests are specified",
        );
    }
}

fn capacity(at: &At<'_>, errors: &mut ErrorList) {
    pod::label_selector(&at.get("nodeTopology"), errors);
    let class = at.get("storageClassName");
    for message in format::dns1123_subdomain(class.text()) {
        errors.push(FieldError::invalid(&class.path, class.text(), message));
    }
    container::quantity_value("", &at.get("capacity"), errors);
}
