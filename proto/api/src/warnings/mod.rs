//! What upstream warns of when an object is written: fields that no longer do anything, and
//! what is allowed but surely a mistake. One file per matter; here is which kinds it concerns.
//!
//! What must not be here: refusals (`validation`), deprecated API versions.

use std::fmt::Display;

use meta::field::Path;
use meta::gofmt::quote;
use meta::quantity::Quantity;
use serde_json::Value;

mod addresses;
mod containers;
mod formats;
mod network;
mod node_labels;
mod pod;
mod storage;
#[cfg(test)]
mod tests;
mod tls;
mod volumes;
mod workloads;

/// The warnings about a new object of a kind.
pub fn on_create(group: &str, kind: &str, object: &Value) -> Vec<String> {
    let mut warnings = Warnings::default();
    match (group, kind) {
        ("networking.k8s.io", "Ingress") => network::ingress(&mut warnings, object),
        ("discovery.k8s.io", "EndpointSlice") => {
            network::address_type(&mut warnings, object);
            network::endpoint_slice(&mut warnings, object);
        }
        ("", "ServiceAccount") => service_account(&mut warnings, object),
        ("", "ResourceQuota") => quota(&mut warnings, &object["spec"]["hard"]),
        ("storage.k8s.io", "CSIDriver") => storage::driver(&mut warnings, object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            formats::unknown(&mut warnings, object, None);
        }
        ("", "Pod") => workloads::new_pod(&mut warnings, object),
        _ if workloads::is_one(group, kind) => {
            workloads::create(&mut warnings, group, kind, object);
        }
        _ => always(&mut warnings, group, kind, object),
    }
    warnings.0
}

/// The warnings about a change of an object, or of the part of it that `subresource` names
/// (`""`: of all but the status).
pub fn on_update(
    group: &str,
    kind: &str,
    subresource: &str,
    object: &Value,
    old: &Value,
) -> Vec<String> {
    let mut warnings = Warnings::default();
    match (group, kind, subresource) {
        ("", "Pod", "status") => network::pod_addresses(&mut warnings, object),
        ("", "Service", "status") | ("networking.k8s.io", "Ingress", "status") => {
            network::balancer(&mut warnings, object);
        }
        (ADMISSION, "ValidatingAdmissionPolicy", "status") => {
            static_name(&mut warnings, object);
        }
        (_, _, part) if !part.is_empty() => {}
        // Controllers change pods all the time, people hardly ever do.
        ("", "Pod", _) | ("networking.k8s.io", "Ingress", _) => {}
        ("discovery.k8s.io", "EndpointSlice", _) => {
            network::endpoint_slice(&mut warnings, object);
        }
        ("", "ServiceAccount", _) if !mounts_are_enforced(old) => {
            service_account(&mut warnings, object);
        }
        ("storage.k8s.io", "CSIDriver", _) if !storage::same_requests(object, old) => {
            storage::driver(&mut warnings, object);
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition", _) => {
            formats::unknown(&mut warnings, object, Some(old));
        }
        _ if workloads::is_one(group, kind) => {
            workloads::update(&mut warnings, group, kind, object, old);
        }
        _ => always(&mut warnings, group, kind, object),
    }
    warnings.0
}

const ADMISSION: &str = "admissionregistration.k8s.io";

/// Kinds of which every write is warned alike.
fn always(warnings: &mut Warnings, group: &str, kind: &str, object: &Value) {
    match (group, kind) {
        ("", "Service") => network::service(warnings, object),
        ("", "Endpoints") => network::endpoints(warnings, object),
        ("", "Secret") => tls::secret(warnings, object),
        ("", "Node") => network::node(warnings, &object["spec"]),
        ("", "PersistentVolume") => storage::volume(warnings, object),
        ("", "PersistentVolumeClaim") => storage::claim(warnings, object),
        ("storage.k8s.io", "StorageClass") => node_labels::storage_class(warnings, object),
        ("storage.k8s.io", "CSIStorageCapacity") => node_labels::capacity(warnings, object),
        ("node.k8s.io", "RuntimeClass") => node_labels::runtime_class(warnings, object),
        ("networking.k8s.io", "NetworkPolicy") => network::policy(warnings, &object["spec"]),
        ("resource.k8s.io", "ResourceSlice") => driver_name(warnings, &object["spec"]),
        (ADMISSION, _) => static_name(warnings, object),
        _ => {}
    }
}

/// Requests that limits can never reach.
fn quota(warnings: &mut Warnings, hard: &Value) {
    for name in ["cpu", "memory", "storage", "ephemeral-storage"] {
        let bare = matches!(name, "cpu" | "memory").then(|| name.to_owned());
        let requests = format!("requests.{name}");
        let asked = quantity(hard, &requests).map(|asked| (requests, asked));
        let asked = asked.or_else(|| bare.and_then(|n| quantity(hard, &n).map(|q| (n, q))));
        let limits = format!("limits.{name}");
        let most = quantity(hard, &limits);
        if let (Some((request, asked)), Some(most)) = (asked, most)
            && asked > most
        {
            warnings.say(format!(
                "ResourceQuota {request} ({asked}) should be less than {limits} ({most})"
            ));
        }
    }
}

const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

fn mounts_are_enforced(account: &Value) -> bool {
    annotations(account).get(ENFORCE).is_some()
}

fn service_account(warnings: &mut Warnings, account: &Value) {
    if mounts_are_enforced(account) {
        warnings.add(
            &annotations_path(&Path::root()).key(ENFORCE),
            "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
        );
    }
}

fn driver_name(warnings: &mut Warnings, spec: &Value) {
    let driver = text(spec, "driver");
    if driver.chars().any(char::is_uppercase) {
        warnings.say(format!(
            "spec.driver: driver names should be lowercase; {} contains uppercase characters",
            quote(driver)
        ));
    }
}

/// Names with which admission is configured by files (KEP-5793).
fn static_name(warnings: &mut Warnings, object: &Value) {
    if text(&object["metadata"], "name").ends_with(".static.k8s.io") {
        warnings.say("metadata.name: names ending with \".static.k8s.io\" are reserved for static manifest-based configurations and cannot be managed via the API");
    }
}

/// What there is to tell, in upstream's order.
#[derive(Default)]
struct Warnings(Vec<String>);

/// An answer has room for 4 KiB of warnings, of which none is empty: more are never heard.
const MOST: usize = 4 * 1024;

impl Warnings {
    fn say(&mut self, what: impl Into<String>) {
        if !self.is_full() {
            self.0.push(what.into());
        }
    }

    fn add(&mut self, path: &Path, what: impl Display) {
        self.say(format!("{path}: {what}"));
    }

    fn is_full(&self) -> bool {
        self.0.len() > MOST
    }
}

fn items<'a>(list: &'a Value, path: &Path) -> impl Iterator<Item = (&'a Value, Path)> + use<'a> {
    let path = path.clone();
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .enumerate()
        .map(move |(i, item)| (item, path.index(i)))
}

/// The items of the list that is called `name` in `of`, whose path is `path`.
fn list<'a>(
    of: &'a Value,
    path: &Path,
    name: &'static str,
) -> impl Iterator<Item = (&'a Value, Path)> + use<'a> {
    items(&of[name], &path.child(name))
}

fn keys(map: &Value) -> impl Iterator<Item = &String> {
    map.as_object().into_iter().flat_map(|map| map.keys())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn quantity(list: &Value, name: &str) -> Option<Quantity> {
    text(list, name).parse().ok()
}

fn annotations(object: &Value) -> &Value {
    &object["metadata"]["annotations"]
}

fn annotations_path(of: &Path) -> Path {
    of.child("metadata").child("annotations")
}
