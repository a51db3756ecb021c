//! The discovery documents as trees: what each group version serves, and how it is called.
//!
//! What must not be here: paths, negotiation (`mod.rs`).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schema::{Resource, Subresource};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::served::Version;

/// `APIGroupList`, without the core group.
pub fn group_list(versions: &[Version]) -> Value {
    let groups: Vec<Value> = group_names(versions)
        .into_iter()
        .filter(|group| !group.is_empty())
        .filter_map(|group| api_group(versions, group))
        .collect();
    json!({"groups": groups})
}

/// `APIGroup`; `None` when nothing of the group is served.
pub fn api_group(versions: &[Version], group: &str) -> Option<Value> {
    let of_group: Vec<Value> = versions
        .iter()
        .filter(|v| v.group == group)
        .map(|v| json!({"groupVersion": v.api_version(), "version": v.version}))
        .collect();
    let preferred = of_group.first()?.clone();
    Some(json!({"name": group, "versions": of_group, "preferredVersion": preferred}))
}

/// `APIResourceList` of a group version.
pub fn resource_list(version: &Version) -> Value {
    let mut resources = Vec::new();
    for resource in &version.resources {
        if !resource.verbs.is_empty() {
            resources.push(api_resource(resource));
        }
        for subresource in resource.subresources {
            resources.push(api_subresource(resource, subresource));
        }
    }
    json!({"groupVersion": version.api_version(), "resources": resources})
}

fn api_resource(resource: &Resource) -> Value {
    let mut out = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        out["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        out["categories"] = json!(resource.categories);
    }
    if let Some(hash) = storage_version_hash(resource) {
        out["storageVersionHash"] = hash.into();
    }
    out
}

fn api_subresource(resource: &Resource, subresource: &Subresource) -> Value {
    let mut out = json!({
        "name": format!("{}/{}", resource.plural, subresource.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.kind,
        "verbs": subresource.verbs,
    });
    if (subresource.group, subresource.version) != (resource.group, resource.version) {
        out["group"] = subresource.group.into();
        out["version"] = subresource.version.into();
    }
    out
}

/// Names the version in which etcd holds the resource, so that a client notices when it
/// changes: base64 of the first 8 bytes of SHA-256 of `group/version/kind`.
fn storage_version_hash(resource: &Resource) -> Option<String> {
    if resource.storage_version.is_empty() {
        return None;
    }
    let stored = match resource.storage_version.split_once('/') {
        Some(_) => resource.storage_version.to_owned(),
        None => format!("/{}", resource.storage_version),
    };
    let hash = Sha256::digest(format!("{stored}/{}", resource.kind));
    Some(STANDARD.encode(&hash[..8]))
}

/// `APIGroupDiscoveryList` (KEP-3352) of the core group or of all others.
pub fn aggregated(versions: &[Version], core: bool) -> Value {
    let items: Vec<Value> = group_names(versions)
        .into_iter()
        .filter(|group| group.is_empty() == core)
        .map(|group| {
            let of_group: Vec<Value> = versions
                .iter()
                .filter(|v| v.group == group)
                .map(|v| {
                    let resources: Vec<Value> = v.resources.iter().map(|r| discovery(r)).collect();
                    json!({"version": v.version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": {"name": group}, "versions": of_group})
        })
        .collect();
    json!({"items": items})
}

fn discovery(resource: &Resource) -> Value {
    let kind = |kind: &str, group: &str, version: &str| {
        // What is of the document's own group version does not repeat it.
        if (group, version) == (resource.group, resource.version) {
            json!({"group": "", "version": "", "kind": kind})
        } else {
            json!({"group": group, "version": version, "kind": kind})
        }
    };
    let own_kind = if resource.verbs.is_empty() {
        // Only its subresources are served.
        ""
    } else {
        resource.kind
    };
    let mut out = json!({
        "resource": resource.plural,
        "responseKind": kind(own_kind, resource.group, resource.version),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": if resource.verbs.is_empty() { "" } else { resource.singular },
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        out["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        out["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let subresources = resource.subresources.iter().map(|s| {
            json!({
                "subresource": s.name,
                "responseKind": kind(s.kind, s.group, s.version),
                "verbs": s.verbs,
            })
        });
        out["subresources"] = subresources.collect();
    }
    out
}

/// In order, each once.
fn group_names(versions: &[Version]) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = versions.iter().map(|v| v.group).collect();
    names.dedup();
    names
}
