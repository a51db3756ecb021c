//! A pod as far as it matters here: its volumes, and the labels that its containers want them to
//! have. The cache that other controllers share knows nothing of labels, and few clusters need
//! it to.

use std::collections::{BTreeMap, BTreeSet};

use client::Object as _;
use serde::Deserialize;

use super::label::{Label, Options};
use crate::kinds::pod::Volume;

#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    name: Box<str>,
    namespace: Box<str>,
    uid: Box<str>,
    resource_version: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "Wire")]
pub struct Pod {
    pub metadata: Meta,
    /// Its containers run no more: kubelets have its volumes unmounted.
    pub ended: bool,
    /// Those that are mounted and that several pods may have, and those that containers disagree
    /// about.
    pub volumes: Vec<Mounted>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Mounted {
    pub volume: Volume,
    pub label: Wanted,
}

/// The label that a pod wants a volume to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Of every file of it by itself, or none.
    Recursive,
    /// As a mount option.
    Mounted(Label),
    /// Each container wants another.
    Several,
}

client::slim_kind!(Pod, "", "v1", "Pod", "pods", namespaced);

impl Pod {
    /// The claims of its volumes, and whether each is one that is made for this pod.
    pub fn claims(&self) -> impl Iterator<Item = (String, bool)> {
        let volumes = self.volumes.iter();
        volumes.filter_map(|mounted| mounted.volume.claim(self.name()))
    }

    /// It is the same pod and uses the same volumes alike: most changes are of other things.
    pub fn uses_as(&self, other: &Self) -> bool {
        let same = self.metadata.uid == other.metadata.uid && self.ended == other.ended;
        same && self.volumes == other.volumes
    }
}

/// A pod as it comes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    security_context: PodSecurity,
    #[serde(deserialize_with = "crate::kinds::pod::volumes")]
    volumes: Vec<Volume>,
    init_containers: Vec<Container>,
    containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSecurity {
    se_linux_options: Option<Options>,
    se_linux_change_policy: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    security_context: Security,
    volume_mounts: Vec<Mount>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Security {
    se_linux_options: Option<Options>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Mount {
    name: Box<str>,
}

impl From<Wire> for Pod {
    fn from(wire: Wire) -> Self {
        let Wire {
            metadata,
            spec,
            status,
        } = wire;
        let recursive = &*spec.security_context.se_linux_change_policy == "Recursive";
        let of_pod = spec.security_context.se_linux_options;
        let containers = spec.init_containers.iter().chain(&spec.containers);
        // Containers without options of their own or of the pod's take whatever there is.
        let mut wanted: BTreeMap<&str, BTreeSet<Option<Label>>> = BTreeMap::new();
        for container in containers.chain(&spec.ephemeral_containers) {
            let options = &container.security_context.se_linux_options;
            let label = options.as_ref().or(of_pod.as_ref()).map(Label::of);
            for mount in &container.volume_mounts {
                wanted.entry(&mount.name).or_default().extend(label.clone());
            }
        }
        let mut volumes = Vec::new();
        for volume in spec.volumes {
            if let Some(labels) = wanted.remove(&*volume.name) {
                let label = Wanted::of(labels, recursive);
                volumes.push(Mounted { volume, label });
            }
        }
        for (name, labels) in wanted {
            let volume = Volume {
                name: name.into(),
                ..Volume::default()
            };
            let label = Wanted::of(labels, recursive);
            volumes.extend((label == Wanted::Several).then_some(Mounted { volume, label }));
        }
        volumes.shrink_to_fit();
        Self {
            metadata,
            ended: matches!(&*status.phase, "Succeeded" | "Failed"),
            volumes,
        }
    }
}

impl Wanted {
    fn of(labels: BTreeSet<Option<Label>>, recursive: bool) -> Self {
        if labels.len() > 1 {
            return Self::Several;
        }
        let label = labels.into_iter().next().flatten();
        match label.filter(|_| !recursive) {
            Some(label) => Self::Mounted(label),
            None => Self::Recursive,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The volumes and what is wanted of them, in words.
    fn wanted(spec: Value) -> Vec<String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let volumes = pod.volumes.iter().map(|mounted| {
            let label = match &mounted.label {
                Wanted::Recursive => "recursive".to_owned(),
                Wanted::Mounted(label) => label.to_string(),
                Wanted::Several => "several".to_owned(),
            };
            format!("{} {label}", mounted.volume.name)
        });
        volumes.collect()
    }

    fn container(level: &str, mounts: &[&str]) -> Value {
        let mounts = mounts.iter().map(|name| json!({"name": name}));
        let mut container = json!({"name": "c", "volumeMounts": mounts.collect::<Vec<_>>()});
        match level {
            "" => {}
            "none" => container["securityContext"] = json!({"seLinuxOptions": {}}),
            level => container["securityContext"] = json!({"seLinuxOptions": {"level": level}}),
        }
        container
    }

    #[test]
    fn labels_of_volumes() {
        let volumes = json!([
            {"name": "a", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "unused", "persistentVolumeClaim": {"claimName": "c"}},
            {"name": "tmp", "emptyDir": {}},
        ]);
        let of_pod = |policy: Option<&str>| json!({"seLinuxOptions": {"level": "s1"}, "seLinuxChangePolicy": policy});
        let (none, pod) = (json!({}), of_pod(Some("MountOption")));
        let recursive = of_pod(Some("Recursive"));
        let cases: [(&Value, Value, &[&str]); 9] = [
            (&none, json!([container("", &["a"])]), &["a recursive"]),
            (&none, json!([container("s0", &["a"])]), &["a :::s0"]),
            (&pod, json!([container("", &["a", "tmp"])]), &["a :::s1"]),
            (&pod, json!([container("s0", &["a"])]), &["a :::s0"]),
            (
                &recursive,
                json!([container("s0", &["a"])]),
                &["a recursive"],
            ),
            (
                &none,
                json!([container("s0", &["a"]), container("", &["a"])]),
                &["a :::s0"],
            ),
            (
                &recursive,
                json!([container("s0", &["a", "tmp"]), container("", &["a"])]),
                &["a several"],
            ),
            (
                &none,
                json!([container("s0", &["a", "tmp"]), container("s1", &["tmp"])]),
                &["a :::s0", "tmp several"],
            ),
            (
                &none,
                json!([container("s0", &["a"]), container("none", &["a"])]),
                &["a several"],
            ),
        ];
        for (security, containers, expected) in cases {
            let spec = |field: &str| json!({"securityContext": security, "volumes": volumes, field: containers});
            for field in ["containers", "initContainers", "ephemeralContainers"] {
                assert_eq!(wanted(spec(field)), expected, "{security} {containers}");
            }
        }
    }

    #[test]
    fn an_ended_pod_has_let_go() {
        for (phase, ended) in [("Running", false), ("Failed", true), ("Succeeded", true)] {
            let pod = json!({"metadata": {"name": "p"}, "status": {"phase": phase}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            assert_eq!(pod.ended, ended);
        }
    }
}
