//! What upstream warns of when an object is written: fields that no longer do anything, and
//! what is allowed but surely a mistake.
//!
//! What must not be here: refusals (`validation`), deprecated API versions.

use std::collections::{HashMap, HashSet};

use base64::prelude::{BASE64_STANDARD, Engine};
use meta::field::Path;
use meta::quantity::Quantity;
use serde_json::Value;

/// Volumes whose drivers are gone, and since when.
const GONE_VOLUMES: &[(&str, &str)] = &[
    (
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "gitRepo",
        "deprecated in v1.11, and disabled by default in v1.33+",
    ),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const NO_MATCH: &str = "a null labelSelector results in matching no pod";

/// The warnings about an object of a kind; `old` is what an update replaces.
pub fn of(group: &str, kind: &str, object: &Value, old: Option<&Value>) -> Vec<String> {
    let spec = Path::new("spec");
    let (template, path) = match (group, kind) {
        ("", "Pod") => (object, Path::root()),
        ("", "PodTemplate") => (&object["template"], Path::new("template")),
        ("batch", "CronJob") => (
            &object["spec"]["jobTemplate"]["spec"]["template"],
            spec.child("jobTemplate").child("spec").child("template"),
        ),
        ("apps" | "batch", _) | ("", "ReplicationController") => {
            (&object["spec"]["template"], spec.child("template"))
        }
        ("", "ResourceQuota") => return quota(&object["spec"]["hard"]),
        ("", "Secret") => return tls(object),
        ("", "PersistentVolume") => return volume(&object["spec"]),
        ("discovery.k8s.io", "EndpointSlice") if old.is_none() => return slice(object),
        ("storage.k8s.io", "CSIDriver") => return driver(&object["spec"], old),
        ("", "Service") => return service(object),
        _ => return Vec::new(),
    };
    let mut warnings = Warnings::default();
    warnings.pod(&template["spec"], &path.child("spec"));
    warnings.0
}

/// A key and a certificate that nobody could use.
fn tls(secret: &Value) -> Vec<String> {
    let part = |key: &str| {
        let text = secret["data"][key].as_str().unwrap_or_default();
        BASE64_STANDARD.decode(text).unwrap_or_default()
    };
    let has = |text: &[u8], what: &str| {
        let text = String::from_utf8_lossy(text);
        text.lines()
            .any(|l| l.starts_with("-----BEGIN ") && l.contains(what))
    };
    if secret["type"] != "kubernetes.io/tls" {
        return Vec::new();
    }
    let (certificate, key) = (part("tls.crt"), part("tls.key"));
    let fault = if !has(&certificate, "") {
        "failed to find any PEM data in certificate input"
    } else if !has(&certificate, "CERTIFICATE") {
        "failed to find \"CERTIFICATE\" PEM block in certificate input"
    } else if !has(&key, "") {
        "failed to find any PEM data in key input"
    } else if !has(&key, "PRIVATE KEY") {
        "failed to find PEM block with type ending in \"PRIVATE KEY\" in key input"
    } else {
        return Vec::new();
    };
    vec![format!("tls: {fault}")]
}

fn volume(spec: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let policy = "spec.persistentVolumeReclaimPolicy";
    if spec["persistentVolumeReclaimPolicy"] == "Recycle" {
        warnings.push(format!("{policy}: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning."));
    }
    for (source, since) in GONE_VOLUMES {
        if spec[*source].is_object() {
            warnings.push(format!("spec.{source}: {since}"));
        }
    }
    warnings
}

fn slice(slice: &Value) -> Vec<String> {
    match text(slice, "addressType") {
        "FQDN" => vec!["spec.addressType: FQDN endpoints are deprecated".to_owned()],
        _ => Vec::new(),
    }
}

fn driver(spec: &Value, old: Option<&Value>) -> Vec<String> {
    let requests = "tokenRequests";
    if old.is_some_and(|old| old["spec"][requests] == spec[requests]) {
        return Vec::new();
    }
    let asks = spec["tokenRequests"]
        .as_array()
        .is_some_and(|r| !r.is_empty());
    if asks && spec["serviceAccountTokenInSecrets"].is_null() {
        vec!["spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes".to_owned()]
    } else {
        Vec::new()
    }
}

fn service(service: &Value) -> Vec<String> {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let spec = &service["spec"];
    let is_list = |field: &str| {
        spec[field]
            .as_array()
            .is_some_and(|items| !items.is_empty())
    };
    let external_name = spec["type"] == "ExternalName";
    let headless = spec["clusterIP"] == "None";
    let mut warnings = Vec::new();
    let mut warn = |holds: bool, text: String| {
        if holds {
            warnings.push(text);
        }
    };
    let hints = service["metadata"]["annotations"].get(HINTS).is_some();
    warn(
        hints,
        format!("annotation {HINTS} is deprecated, please use {MODE} instead"),
    );
    for (field, given) in [
        ("loadBalancerIP", !text(spec, "loadBalancerIP").is_empty()),
        ("externalIPs", is_list("externalIPs")),
        ("SessionAffinity", spec["sessionAffinity"] == "ClientIP"),
    ] {
        let text = format!("spec.{field} is ignored for headless services");
        warn(headless && given, text);
    }
    warn(
        is_list("externalIPs") && !headless && !external_name,
        "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
            .to_owned(),
    );
    warn(
        external_name && is_list("externalIPs"),
        "spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned(),
    );
    warn(
        !external_name && !text(spec, "externalName").is_empty(),
        "spec.externalName is ignored when spec.type is not \"ExternalName\"".to_owned(),
    );
    warn(
        spec["trafficDistribution"] == "PreferClose",
        "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\""
            .to_owned(),
    );
    warnings
}

/// Requests that limits can never reach.
fn quota(hard: &Value) -> Vec<String> {
    let get = |name: String| {
        let quantity: Quantity = text(hard, &name).parse().ok()?;
        Some((name, quantity))
    };
    let pairs = ["cpu", "memory", "storage", "ephemeral-storage"].map(|name| {
        let bare = matches!(name, "cpu" | "memory").then(|| name.to_owned());
        let request = get(format!("requests.{name}")).or_else(|| get(bare?));
        Some((request?, get(format!("limits.{name}"))?))
    });
    let wrong = pairs.into_iter().flatten().filter(|(r, l)| r.1 > l.1);
    wrong
        .map(|((request, asked), (limit, most))| {
            format!("ResourceQuota {request} ({asked}) should be less than {limit} ({most})")
        })
        .collect()
}

fn items<'a>(list: &'a Value, path: &Path) -> impl Iterator<Item = (&'a Value, Path)> {
    let path = path.clone();
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items
        .iter()
        .enumerate()
        .map(move |(i, item)| (item, path.index(i)))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// All containers of a pod, the initializing ones first.
fn containers<'a>(spec: &'a Value, path: &Path) -> Vec<(&'a Value, Path)> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| items(&spec[list], &path.child(list)).collect::<Vec<_>>())
        .collect()
}

#[derive(Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn add(&mut self, path: &Path, what: impl std::fmt::Display) {
        self.0.push(format!("{path}: {what}"));
    }

    fn pod(&mut self, spec: &Value, path: &Path) {
        let spread = "topologySpreadConstraints";
        for (constraint, at) in items(&spec[spread], &path.child(spread)) {
            self.selector(constraint, &at);
        }
        for (volume, at) in items(&spec["volumes"], &path.child("volumes")) {
            for (source, since) in GONE_VOLUMES {
                if volume[*source].is_object() {
                    // Upstream spells this one as Go does.
                    let name = if *source == "storageos" {
                        "storageOS"
                    } else {
                        source
                    };
                    self.add(&at.child(name), since);
                }
            }
        }
        self.duplicates(&spec["hostAliases"], &path.child("hostAliases"), "ip");
        let secrets = path.child("imagePullSecrets");
        self.duplicates(&spec["imagePullSecrets"], &secrets, "name");
        for (secret, at) in items(&spec["imagePullSecrets"], &secrets) {
            if text(secret, "name").is_empty() {
                self.add(&at.child("name"), "invalid empty name \"\"");
            }
        }
        self.whole_bytes(&spec["overhead"], &path.child("overhead"));
        for (container, at) in containers(spec, path) {
            let resources = at.child("resources");
            for list in ["limits", "requests"] {
                self.whole_bytes(&container["resources"][list], &resources.child(list));
            }
            self.hidden_variables(&container["env"], &at.child("env"));
        }
        self.ports(spec, path);
        if spec["terminationGracePeriodSeconds"].as_i64() < Some(0)
            && spec["terminationGracePeriodSeconds"].is_i64()
        {
            self.add(
                &path.child("terminationGracePeriodSeconds"),
                "must be >= 0; negative values are invalid and will be treated as 1",
            );
        }
        for kind in ["podAffinity", "podAntiAffinity"] {
            let (affinity, at) = (&spec["affinity"][kind], path.child("affinity").child(kind));
            let required = "requiredDuringSchedulingIgnoredDuringExecution";
            for (term, at) in items(&affinity[required], &at.child(required)) {
                self.selector(term, &at);
            }
            let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
            for (term, at) in items(&affinity[preferred], &at.child(preferred)) {
                self.selector(&term["podAffinityTerm"], &at.child("podAffinityTerm"));
            }
        }
    }

    fn selector(&mut self, of: &Value, path: &Path) {
        if of["labelSelector"].is_null() {
            self.add(&path.child("labelSelector"), NO_MATCH);
        }
    }

    fn duplicates(&mut self, list: &Value, path: &Path, key: &'static str) {
        let mut seen = HashSet::new();
        for (item, at) in items(list, path) {
            if !seen.insert(text(item, key)) {
                let what = format!("duplicate {key} {:?}", text(item, key));
                self.add(&at.child(key), what);
            }
        }
    }

    /// A part of a byte is a slip: `m` for `M`.
    fn whole_bytes(&mut self, list: &Value, path: &Path) {
        for resource in ["memory", "ephemeral-storage"] {
            let said = text(list, resource);
            let fraction = said.parse::<Quantity>().is_ok_and(|mut q| !q.round_up(0));
            if fraction {
                let what = format!("fractional byte value {said:?} is invalid, must be an integer");
                self.add(&path.key(resource), what);
            }
        }
    }

    /// A variable may build on an earlier one of its name, but not replace it.
    fn hidden_variables(&mut self, list: &Value, path: &Path) {
        let mut seen = HashSet::new();
        for (variable, at) in items(list, path) {
            let name = text(variable, "name");
            let (value, reference) = (text(variable, "value"), format!("$({name})"));
            let builds_on =
                variable["valueFrom"].is_null() && value != reference && value.contains(&reference);
            if !seen.insert(name) && !builds_on {
                let what = format!(
                    "hides previous definition of {name:?}, which may be dropped when using apply"
                );
                self.add(&at, what);
            }
        }
    }

    fn ports(&mut self, spec: &Value, path: &Path) {
        let mut seen: HashMap<(i64, &str), Vec<(&Value, Path)>> = HashMap::new();
        let mut names: HashMap<&str, Path> = HashMap::new();
        let mut same_names = Vec::new();
        let number = |port: &Value, key: &str| port[key].as_i64().unwrap_or(0);
        for (container, at) in containers(spec, path) {
            for (port, at) in items(&container["ports"], &at.child("ports")) {
                let key = (number(port, "containerPort"), text(port, "protocol"));
                let others = seen.entry(key).or_default();
                for (other, other_at) in others.iter() {
                    let host = (number(port, "hostPort"), text(port, "hostIP"));
                    let other_host = (number(other, "hostPort"), text(other, "hostIP"));
                    let how = if host == other_host {
                        "duplicate"
                    } else if host.0 == 0 || other_host.0 == 0 {
                        "overlapping"
                    } else if host.0 == other_host.0 && host.1.is_empty() != other_host.1.is_empty()
                    {
                        "dangerously ambiguous"
                    } else {
                        continue;
                    };
                    self.add(&at, format!("{how} port definition with {other_at}"));
                }
                others.push((port, at.clone()));
                let name = text(port, "name");
                if name.is_empty() {
                    continue;
                }
                match names.get(name) {
                    None => drop(names.insert(name, at)),
                    Some(other) => same_names.push((at, name, other.clone())),
                }
            }
        }
        for (at, name, other) in same_names {
            let what = format!(
                "duplicate port name {name:?} with {other}, services and probes that select ports by name will use {other}"
            );
            self.add(&at, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_nothing_or_hides_something_is_told() {
        let spec = json!({
            "volumes": [{"name": "v", "rbd": {}}],
            "containers": [{
                "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A"}],
                "resources": {"limits": {"memory": "100m"}},
                "ports": [{"containerPort": 80, "name": "x"}, {"containerPort": 80, "name": "x"}],
            }],
            "terminationGracePeriodSeconds": -1,
            "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}},
        });
        let want = [
            "volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+",
            "containers[0].resources.limits[memory]: fractional byte value \"100m\" is invalid, must be an integer",
            "containers[0].env[2]: hides previous definition of \"A\", which may be dropped when using apply",
            "containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]",
            "containers[0].ports[1]: duplicate port name \"x\" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]",
            "terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1",
            "affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod",
        ]
        .map(|w| format!("spec.{w}"));
        assert_eq!(of("", "Pod", &json!({"spec": spec}), None), want);
        let job = of(
            "batch",
            "CronJob",
            &json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": spec}}}}}),
            None,
        );
        assert!(job[0].starts_with("spec.jobTemplate.spec.template.spec.volumes[0].rbd: "));
        assert!(of("", "ConfigMap", &json!({}), None).is_empty());
    }
}
