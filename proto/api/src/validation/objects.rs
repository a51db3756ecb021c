//! The small kinds of the core group: namespaces, secrets, config maps, service
//! accounts; and priority classes.

use base64::prelude::{BASE64_STANDARD, Engine};
use meta::field::{ErrorList, FieldError, Path};
use meta::validation as format;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::at::At;
use super::metadata::immutable;
use super::{Rules, any_update, anything, required};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "",
        kind: "Namespace",
        name: format::dns1123_label,
        object: anything,
        // The old ones, which is what an update leaves there.
        update: |new, _, errors| namespace_finalizers(new, errors),
        status: namespace_status,
    },
    Rules {
        group: "",
        kind: "Secret",
        name: format::dns1123_subdomain,
        object: secret,
        update: |new, old, errors| {
            immutable(&new.get("type"), &old.get("type"), errors);
            frozen(new, old, &["data"], errors);
        },
        status: any_update,
    },
    Rules {
        group: "",
        kind: "ConfigMap",
        name: format::dns1123_subdomain,
        object: config_map,
        update: |new, old, errors| frozen(new, old, &["data", "binaryData"], errors),
        status: any_update,
    },
    Rules {
        group: "",
        kind: "ServiceAccount",
        name: format::dns1123_subdomain,
        object: anything,
        update: any_update,
        status: any_update,
    },
    Rules {
        group: "scheduling.k8s.io",
        kind: "PriorityClass",
        name: format::dns1123_subdomain,
        object: anything,
        update: |new, old, errors| {
            let value = new.get("value");
            if value.value() != old.get("value").value() {
                value.forbidden(errors, "may not be changed in an update.");
            }
            immutable(
                &new.get("preemptionPolicy"),
                &old.get("preemptionPolicy"),
                errors,
            );
        },
        status: any_update,
    },
];

/// All values of a secret or config map together, in bytes.
const DATA_LIMIT: usize = 1024 * 1024;

/// The phase says what the deletion timestamp says.
fn namespace_status(new: &At<'_>, _: &At<'_>, errors: &mut ErrorList) {
    let (phase, detail) = if new.get("metadata").get("deletionTimestamp").is_set() {
        (
            "Terminating",
            "may only be 'Terminating' if `deletionTimestamp` is not empty",
        )
    } else {
        (
            "Active",
            "may only be 'Active' if `deletionTimestamp` is empty",
        )
    };
    let said = new.get("status").get("phase");
    if said.text() != phase {
        // Upstream names the Go field here.
        let path = new.get("status").path.child("Phase");
        errors.push(FieldError::invalid(&path, said.text(), detail));
    }
}

fn keys(data: &At<'_>, errors: &mut ErrorList) {
    for (key, value) in data.entries() {
        for message in format::config_map_key(key) {
            errors.push(FieldError::invalid(&value.path, key, message));
        }
    }
}

fn secret(secret: &At<'_>, errors: &mut ErrorList) {
    let data = secret.get("data");
    keys(&data, errors);
    // Four characters of base64 carry three bytes.
    let size: usize = data
        .entries()
        .map(|(_, v)| {
            v.text().len() / 4 * 3 - v.text().bytes().rev().take_while(|b| *b == b'=').count()
        })
        .sum();
    if size > DATA_LIMIT {
        errors.push(FieldError::too_long(&data.path, DATA_LIMIT));
    }
    // `null` is an empty value, and there.
    let has = |key: &str| data.object().is_some_and(|data| data.contains_key(key));
    let required: &[&str] = match secret.get("type").text() {
        "kubernetes.io/service-account-token" => {
            let annotations = secret.get("metadata").get("annotations");
            let name = annotations.raw("kubernetes.io/service-account.name");
            if name.and_then(Value::as_str).is_none_or(str::is_empty) {
                errors.push(FieldError::required(
                    &annotations.path.key("kubernetes.io/service-account.name"),
                    "",
                ));
            }
            &[]
        }
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/basic-auth" => {
            if !has("username") && !has("password") {
                errors.push(FieldError::required(&data.path.key("username"), ""));
                errors.push(FieldError::required(&data.path.key("password"), ""));
            }
            &[]
        }
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    };
    for key in required {
        let value = data.raw(key).and_then(Value::as_str);
        match value.or(has(key).then_some("")) {
            None => errors.push(FieldError::required(&data.path.key(*key), "")),
            Some("") if *key == "ssh-privatekey" => {
                errors.push(FieldError::required(&data.path.key(*key), ""));
            }
            Some(config) if key.starts_with(".docker") => {
                let config = BASE64_STANDARD.decode(config).unwrap_or_default();
                if let Some(why) = no_json_object(&config) {
                    let path = data.path.key(*key);
                    errors.push(FieldError::invalid(
                        &path,
                        "<secret contents redacted>",
                        why,
                    ));
                }
            }
            Some(_) => {}
        }
    }
}

/// Why these bytes are no JSON object; `null` passes for one.
fn no_json_object(bytes: &[u8]) -> Option<String> {
    if let Err(e) = serde_json::from_slice::<IgnoredAny>(bytes) {
        let cut_short = "unexpected end of JSON input";
        return Some(if e.is_eof() {
            cut_short.to_owned()
        } else {
            e.to_string()
        });
    }
    let found = match bytes.iter().find(|b| !b.is_ascii_whitespace())? {
        b'{' | b'n' => return None,
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "bool",
        _ => "number",
    };
    Some(format!(
        "json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
    ))
}

fn config_map(map: &At<'_>, errors: &mut ErrorList) {
    let (data, binary) = (map.get("data"), map.get("binaryData"));
    keys(&data, errors);
    keys(&binary, errors);
    for (key, value) in data.entries() {
        if binary.raw(key).is_some() {
            errors.push(FieldError::invalid(
                &value.path,
                key,
                "duplicate of key present in binaryData",
            ));
        }
    }
    let size: usize = data.entries().map(|(_, v)| v.text().len()).sum::<usize>()
        + binary
            .entries()
            .map(|(_, v)| v.text().len() / 4 * 3)
            .sum::<usize>();
    if size > DATA_LIMIT {
        errors.push(FieldError::too_long(
            // A path of one empty name, which upstream prints as `[]`.
            &Path::root().key(""),
            DATA_LIMIT,
        ));
    }
}

/// An immutable secret or config map stays as it is, and stays immutable.
fn frozen(new: &At<'_>, old: &At<'_>, data: &[&'static str], errors: &mut ErrorList) {
    if !old.get("immutable").is_true() {
        return;
    }
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !new.get("immutable").is_true() {
        new.get("immutable").forbidden(errors, DETAIL);
    }
    for field in data {
        let (now, before) = (new.get(field), old.get(field));
        if (now.is_given() || before.is_given()) && now.value() != before.value() {
            now.forbidden(errors, DETAIL);
        }
    }
}

/// The finalizers of a namespace's content.
pub(super) fn namespace_finalizers(namespace: &At<'_>, errors: &mut ErrorList) {
    let finalizers = namespace.get("spec").get("finalizers");
    for name in finalizers.items().map(|finalizer| finalizer.text()) {
        for message in format::qualified_name(name) {
            errors.push(FieldError::invalid(&finalizers.path, name, message));
        }
        if !name.contains('/') && name != "kubernetes" {
            errors.push(FieldError::invalid(
                &finalizers.path,
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
}

/// The value and the policy cannot change any more.
pub(super) fn priority_class_created(class: &At<'_>, errors: &mut ErrorList) {
    /// User-defined classes stay below the system's.
    const HIGHEST_USER: i64 = 1_000_000_000;
    let value = class.get("value").int().unwrap_or(0);
    let name = class.get("metadata").get("name").text();
    let system = matches!(name, "system-cluster-critical" | "system-node-critical");
    if name.starts_with("system-") && !system {
        class.get("metadata").get("name").forbidden(
            errors,
            format!("priority class names with 'system-' prefix are reserved for system use only. error: {name} is not a known system priority class"),
        );
    } else if !system && value > HIGHEST_USER {
        class.get("value").forbidden(
            errors,
            format!("maximum allowed value of a user defined priority is {HIGHEST_USER}"),
        );
    }
    let policy = class.get("preemptionPolicy");
    if policy.is_set() && required(&policy, errors) {
        policy.one_of(errors, &["PreemptLowerPriority", "Never"]);
    }
}
