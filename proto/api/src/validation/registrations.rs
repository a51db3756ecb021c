//! API services, storage versions, and migrations between storage versions.

use std::collections::{HashMap, HashSet};

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
use super::conditions::conditions;
use super::metadata::immutable;
use super::{Rules, any_update, required};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "apiregistration.k8s.io",
        kind: "APIService",
        name: format::path_segment_name,
        object: api_service,
        update: any_update,
        status: |new, _, errors| {
            for condition in new.get("status").get("conditions").items() {
                let status = condition.get("status");
                status.one_of(errors, &["True", "False", "Unknown"]);
            }
        },
    },
    Rules {
        group: "internal.apiserver.k8s.io",
        kind: "StorageVersion",
        name: storage_version_name,
        object: |at, errors| storage_version(&at.get("status"), errors),
        update: any_update,
        status: |new, _, errors| storage_version(&new.get("status"), errors),
    },
    Rules {
        group: "storagemigration.k8s.io",
        kind: "StorageVersionMigration",
        name: format::dns1123_subdomain,
        object: migration,
        update: |new, old, errors| immutable(&new.get("spec"), &old.get("spec"), errors),
        status: migration_status,
    },
];

fn api_service(at: &At<'_>, errors: &mut ErrorList) {
    let (metadata, spec) = (at.get("metadata"), at.get("spec"));
    let (group, version) = (spec.get("group"), spec.get("version"));
    let wanted = format!("{}.{}", version.text(), group.text());
    for name in [metadata.get("name"), metadata.get("generateName")] {
        let other = name.is_given() && name.text() != wanted;
        if other && format::path_segment_name(name.text()).is_empty() {
            let detail = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            name.invalid(errors, detail);
        }
    }
    if group.is_given() {
        group.check(errors, format::dns1123_subdomain(group.text()));
    } else if version.text() != "v1" {
        group.required(
            errors,
            "only v1 may have an empty group and it better be legacy kube",
        );
    }
    version.check(errors, format::dns1035_label(version.text()));
    for (field, most) in [("groupPriorityMinimum", 20000), ("versionPriority", 1000)] {
        let number = spec.get(field);
        if !(1..=most).contains(&number.int().unwrap_or(0)) {
            number.invalid(errors, format!("must be positive and less than {most}"));
        }
    }
    let (service, bundle) = (spec.get("service"), spec.get("caBundle"));
    let insecure = spec.get("insecureSkipTLSVerify");
    if !service.is_set() {
        if bundle.is_given() {
            bundle.invalid(errors, "local APIServices may not have a caBundle");
        }
        if insecure.is_true() {
            insecure.invalid(
                errors,
                "local APIServices may not have insecureSkipTLSVerify",
            );
        }
        return;
    }
    required(&service.get("namespace"), errors);
    required(&service.get("name"), errors);
    let port = service.get("port");
    let messages = format::port_number(port.int().unwrap_or(0));
    if !messages.is_empty() {
        let detail = format!("port is not valid: {}", messages.join(", "));
        port.invalid(errors, detail);
    }
    if insecure.is_true() && bundle.is_given() {
        insecure.invalid(errors, "may not be true if caBundle is present");
    }
}

fn storage_version_name(name: &str) -> Vec<String> {
    let Some((group, resource)) = name.rsplit_once('.') else {
        return vec!["name must be in the form of <group>.<resource>".to_owned()];
    };
    let prefixed = |what: &str, messages: Vec<String>| -> Vec<String> {
        let with = |message| format!("the {what} segment {message}");
        messages.into_iter().map(with).collect()
    };
    let mut messages = prefixed("group", format::dns1123_subdomain(group));
    messages.extend(prefixed("resource", format::dns1035_label(resource)));
    messages
}

fn storage_version(status: &At<'_>, errors: &mut ErrorList) {
    let mut servers = HashSet::new();
    let mut encodings = HashSet::new();
    for server in status.get("storageVersions").items() {
        let id = server.get("apiServerID");
        if !servers.insert(id.text()) {
            id.duplicate(errors);
        }
        id.check(errors, format::dns1123_subdomain(id.text()));
        let encoding = server.get("encodingVersion");
        encodings.insert(encoding.text());
        api_version(&encoding, errors);
        let decodable = server.get("decodableVersions");
        for version in decodable.items() {
            api_version(&version, errors);
        }
        let can_decode = |version: &str| decodable.items().any(|d| d.text() == version);
        if !can_decode(encoding.text()) {
            let detail = format!(
                "decodableVersions must include encodingVersion {}",
                encoding.text()
            );
            decodable.invalid(errors, detail);
        }
        for version in server.get("servedVersions").items() {
            api_version(&version, errors);
            if !can_decode(version.text()) {
                let all: Vec<&str> = decodable.items().map(|d| d.text()).collect();
                version.invalid(
                    errors,
                    format!(
                        "individual served version : {} must be included in decodableVersions : [{}]",
                        version.text(),
                        all.join(" ")
                    ),
                );
            }
        }
    }
    let common = status.get("commonEncodingVersion");
    let actual = match encodings.len() {
        1 => encodings.iter().next().copied(),
        _ => None,
    };
    match actual {
        None if common.is_set() => common.invalid(errors, "should be nil if servers do not agree on the same encoding version, or if there is no server reporting the supported versions yet"),
        Some(version) if !common.is_set() => {
            common.invalid(errors, format!("the common encoding version is {version}"));
        }
        Some(version) if version != common.text() => {
            common.invalid(errors, format!("the actual common encoding version is {version}"));
        }
        _ => {}
    }
    let mut seen = HashMap::new();
    for (i, condition) in status.get("conditions").items().enumerate() {
        // Upstream leaves the list's name out of the path.
        let path = status.path.index(i);
        let kind = condition.get("type").text();
        if let Some(other) = seen.insert(kind, i) {
            let detail = format!(
                "the type of the condition is not unique, it also appears in conditions[{other}]"
            );
            errors.push(FieldError::invalid(&path.child("type"), kind, detail));
        }
        for field in ["type", "status"] {
            let text = condition.get(field).text();
            for message in format::qualified_name(text) {
                errors.push(FieldError::invalid(&path.child(field), text, message));
            }
        }
        for field in ["reason", "message"] {
            if !condition.get(field).is_given() {
                errors.push(FieldError::required(&path.child(field), ""));
            }
        }
    }
}

fn api_version(version: &At<'_>, errors: &mut ErrorList) {
    let prefixed = |what: &str, messages: Vec<String>| -> Vec<String> {
        let with = |message| format!("{what} part: {message}");
        messages.into_iter().map(with).collect()
    };
    let messages = match version.text().split('/').collect::<Vec<_>>().as_slice() {
        [number] => prefixed("version", format::dns1035_label(number)),
        [group, number] => {
            let mut messages = match *group {
                "" => vec![format!("group part: {}", format::empty_error())],
                group => prefixed("group", format::dns1123_subdomain(group)),
            };
            messages.extend(prefixed("version", format::dns1035_label(number)));
            messages
        }
        _ => vec!["an apiVersion is a version or a group/version".to_owned()],
    };
    if !messages.is_empty() {
        version.invalid(errors, messages.join(","));
    }
}

fn migration(at: &At<'_>, errors: &mut ErrorList) {
    let of = at.get("spec").get("resource");
    let (group, resource) = (of.get("group"), of.get("resource"));
    let mut check = |field: &At<'_>, messages: Vec<String>| {
        if !messages.is_empty() {
            field.invalid(errors, messages.join(","));
        }
    };
    if resource.is_given() {
        check(&resource, format::dns1035_label(resource.text()));
    }
    if group.is_given() {
        check(&group, format::dns1123_subdomain(group.text()));
    }
    if !resource.is_given() {
        resource.required(errors, "resource is required to be set");
    }
}

fn migration_status(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let is = |at: &At<'_>, kind: &str| {
        at.get("status")
            .get("conditions")
            .items()
            .any(|c| c.get("type").text() == kind && c.get("status").text() == "True")
    };
    let status = new.get("status");
    let revision = status.get("resourceVersion");
    if revision.is_given() {
        let text = revision.text();
        let formed = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
        if !formed {
            let detail = format!("resource version is not well formed: {text}");
            revision.invalid(errors, detail);
        }
    }
    let list = status.get("conditions");
    conditions(&list, errors);
    let before = old.get("status").get("resourceVersion");
    if before.is_given() && before.text() != revision.text() {
        revision.invalid(errors, "field is immutable");
    }
    if is(new, "Succeeded") && is(new, "Failed") {
        list.invalid(
            errors,
            "Both success and failed conditions cannot be true at the same time",
        );
    }
    for (kind, word) in [("Succeeded", "Success"), ("Failed", "Failed")] {
        if is(old, kind) && !is(new, kind) {
            let detail = format!("{word} condition cannot be set to false once it is true");
            list.invalid(errors, detail);
        }
    }
}
