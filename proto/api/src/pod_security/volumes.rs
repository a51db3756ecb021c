//! What is mounted: types of volumes, and how much of `/proc` shows.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Forbidden, Pod, containers, items, name, plural, quoted, text};

fn volumes(names: &[&str]) -> String {
    let word = plural("volume", "volumes", names.len());
    format!("{word} {}", quoted(names))
}

pub(super) fn host_path(pod: &Pod<'_>) -> Option<Forbidden> {
    let bad: Vec<&str> = items(&pod.spec["volumes"])
        .filter(|volume| volume["hostPath"].is_object())
        .map(name)
        .collect();
    if bad.is_empty() {
        return None;
    }
    Forbidden::new("hostPath volumes", volumes(&bad))
}

const ALLOWED: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// In the order in which they are looked for.
const OTHERS: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "portworxVolume",
    "photonPersistentDisk",
    "scaleIO",
    "storageos",
];

pub(super) fn types(pod: &Pod<'_>) -> Option<Forbidden> {
    let is = |volume: &Value, source: &str| volume[source].is_object();
    let bad: Vec<&Value> = items(&pod.spec["volumes"])
        .filter(|volume| !ALLOWED.iter().any(|source| is(volume, source)))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let kind = |volume: &&Value| {
        let mut others = OTHERS.into_iter();
        others
            .find(|source| is(volume, source))
            .unwrap_or("unknown")
    };
    let kinds: BTreeSet<&str> = bad.iter().map(kind).collect();
    let names: Vec<&str> = bad.into_iter().map(name).collect();
    let detail = format!(
        "{} {} {} {}",
        volumes(&names),
        plural("uses", "use", names.len()),
        plural(
            "restricted volume type",
            "restricted volume types",
            kinds.len()
        ),
        quoted(kinds),
    );
    Forbidden::new("restricted volume types", detail)
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<Forbidden> {
    let mut kinds = BTreeSet::new();
    let bad = pod.bad_containers(|container| {
        let mount = &container["securityContext"]["procMount"];
        let is_bad = mount.is_string() && mount != "Default";
        if is_bad {
            kinds.insert(text(mount));
        }
        is_bad
    });
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not set securityContext.procMount to {}",
        containers(&bad),
        quoted(kinds),
    );
    Forbidden::new("procMount", detail)
}

/// In a user namespace all of `/proc` may show.
pub(super) fn proc_mount_of_host_users(pod: &Pod<'_>) -> Option<Forbidden> {
    if pod.has_user_namespace() {
        return None;
    }
    proc_mount(pod)
}
