//! A pod's containers: profiles by annotation, amounts, variables, ports.

use std::collections::{HashMap, HashSet};

use meta::field::Path;
use meta::gofmt::quote;
use serde_json::{Value, json};

use super::pod::{Pod, USE_SECCOMP_FIELD};
use super::{Warnings, annotations_path, list, quantity, text};

/// All containers of a pod, the initializing ones first.
fn containers<'a>(spec: &'a Value, path: &Path) -> Vec<(&'a Value, Path)> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|name| list(spec, path, name).collect::<Vec<_>>())
        .collect()
}

pub(super) fn warn(warnings: &mut Warnings, pod: &Pod<'_>) {
    for (container, at) in containers(pod.spec, &pod.spec_path) {
        profiles(warnings, pod, container);
        let resources = at.child("resources");
        for resource in BYTES {
            for amounts in ["limits", "requests"] {
                let list = &container["resources"][amounts];
                whole_bytes(warnings, list, &resources.child(amounts), &[resource]);
            }
        }
        hidden_variables(warnings, container, &at);
    }
    ports(warnings, pod);
}

/// Profiles that are asked for by annotations alone.
fn profiles(warnings: &mut Warnings, pod: &Pod<'_>, container: &Value) {
    const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io/";
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
    let name = text(container, "name");
    let context = &container["securityContext"];
    let at = annotations_path(&pod.path);
    let key = format!("{SECCOMP}{name}");
    if context["seccompProfile"].is_null() && pod.annotations.get(&key).is_some() {
        warnings.add(&at.key(key), USE_SECCOMP_FIELD);
    }
    // A pod's own annotations become fields, which is told then.
    if !pod.is_template || !context["appArmorProfile"].is_null() {
        return;
    }
    let key = format!("{APP_ARMOR}{name}");
    let of_pod = &pod.spec["securityContext"]["appArmorProfile"];
    let annotated = pod.annotations.get(&key).and_then(Value::as_str);
    if annotated.is_some_and(|text| of_pod.is_null() || app_armor(text).as_ref() != Some(of_pod)) {
        warnings.add(
            &at.key(key),
            "deprecated since v1.30; use the \"appArmorProfile\" field instead",
        );
    }
}

/// The AppArmor profile that an annotation's value stands for.
fn app_armor(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        other => {
            let name = other.strip_prefix("localhost/")?;
            let profile = json!({"type": "Localhost", "localhostProfile": name});
            (!name.is_empty()).then_some(profile)
        }
    }
}

/// Resources that are counted in bytes.
pub(super) const BYTES: [&str; 2] = ["memory", "ephemeral-storage"];

/// A part of a byte is a slip: `m` for `M`.
pub(super) fn whole_bytes(warnings: &mut Warnings, list: &Value, path: &Path, names: &[&str]) {
    for name in names {
        // Upstream counts in thousandths, which is why it finds a part in all that has too many.
        if let Some(amount) = quantity(list, name).filter(|q| q.milli_value() % 1000 != 0) {
            let said = quote(&amount.to_string());
            warnings.add(
                &path.key(*name),
                format_args!("fractional byte value {said} is invalid, must be an integer"),
            );
        }
    }
}

/// A variable may build on an earlier one of its name, but not replace it.
fn hidden_variables(warnings: &mut Warnings, container: &Value, path: &Path) {
    let mut seen = HashSet::new();
    for (variable, at) in list(container, path, "env") {
        let name = text(variable, "name");
        let (value, reference) = (text(variable, "value"), format!("$({name})"));
        let builds_on =
            variable["valueFrom"].is_null() && value != reference && value.contains(&reference);
        if !seen.insert(name) && !builds_on {
            let name = quote(name);
            warnings.add(
                &at,
                format_args!(
                    "hides previous definition of {name}, which may be dropped when using apply"
                ),
            );
        }
    }
}

struct Port<'a> {
    name: &'a str,
    number: i64,
    protocol: &'a str,
    host: (i64, &'a str),
    path: Path,
}

impl Port<'_> {
    /// How they come in each other's way.
    fn conflict(&self, other: &Port<'_>) -> Option<&'static str> {
        let ((port, ip), (other_port, other_ip)) = (self.host, other.host);
        if self.host == other.host {
            Some("duplicate")
        } else if port == 0 || other_port == 0 {
            Some("overlapping")
        } else if port == other_port && ip.is_empty() != other_ip.is_empty() {
            Some("dangerously ambiguous")
        } else {
            None
        }
    }
}

fn ports(warnings: &mut Warnings, pod: &Pod<'_>) {
    let mut seen: HashMap<(i64, &str), Vec<Port<'_>>> = HashMap::new();
    let mut names: HashMap<&str, Path> = HashMap::new();
    let mut same_names = Warnings::default();
    let number = |port: &Value, key: &str| port[key].as_i64().unwrap_or(0);
    for (container, at) in containers(pod.spec, &pod.spec_path) {
        for (port, path) in list(container, &at, "ports") {
            let port = Port {
                name: text(port, "name"),
                number: number(port, "containerPort"),
                protocol: text(port, "protocol"),
                host: (number(port, "hostPort"), text(port, "hostIP")),
                path,
            };
            if let (0, ip @ [_, ..]) = (port.host.0, port.host.1.as_bytes()) {
                let ip = String::from_utf8_lossy(ip);
                // The port as Go shows it.
                warnings.add(
                    &port.path,
                    format_args!(
                        "hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                        port.name, port.number, port.protocol
                    ),
                );
            }
            if let Some(first) = names.get(port.name) {
                let name = quote(port.name);
                same_names.add(
                    &port.path,
                    format_args!("duplicate port name {name} with {first}, services and probes that select ports by name will use {first}"),
                );
            } else if !port.name.is_empty() {
                names.insert(port.name, port.path.clone());
            }
            let others = seen.entry((port.number, port.protocol)).or_default();
            for other in others.iter() {
                if let Some(how) = port.conflict(other) {
                    warnings.add(
                        &port.path,
                        format_args!("{how} port definition with {}", other.path),
                    );
                }
            }
            others.push(port);
        }
    }
    warnings.0.append(&mut same_names.0);
}
