//! Volumes, claims and their drivers.

use meta::field::Path;
use serde_json::Value;

use super::containers::whole_bytes;
use super::node_labels::{self, Values};
use super::volumes::gone;
use super::{Warnings, annotations, annotations_path, list};

const STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const USE_CLASS_NAME: &str = "deprecated since v1.8; use \"storageClassName\" attribute instead";

/// Those of the gone sources that upstream warns of in persistent volumes, in its order.
const SOURCES: [&str; 6] = [
    "cephfs",
    "photonPersistentDisk",
    "scaleIO",
    "storageos",
    "glusterfs",
    "rbd",
];

pub(super) fn volume(warnings: &mut Warnings, volume: &Value) {
    const MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
    for (key, what) in [
        (STORAGE_CLASS, USE_CLASS_NAME),
        (
            MOUNT_OPTIONS,
            "deprecated since v1.31; use \"mountOptions\" attribute instead",
        ),
    ] {
        if annotations(volume).get(key).is_some() {
            warnings.add(&annotations_path(&Path::root()).key(key), what);
        }
    }
    let (spec, path) = (&volume["spec"], Path::new("spec"));
    let policy = "persistentVolumeReclaimPolicy";
    if spec[policy] == "Recycle" {
        warnings.add(&path.child(policy), "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.");
    }
    let at = path.child("nodeAffinity").child("required");
    let required = &spec["nodeAffinity"]["required"];
    for (term, at) in list(required, &at, "nodeSelectorTerms") {
        node_labels::term(warnings, term, &at, Values::Taken);
    }
    for source in SOURCES {
        gone(warnings, spec, &path, source);
    }
}

pub(super) fn claim(warnings: &mut Warnings, claim: &Value) {
    if annotations(claim).get(STORAGE_CLASS).is_some() {
        let at = annotations_path(&Path::root()).key(STORAGE_CLASS);
        warnings.add(&at, USE_CLASS_NAME);
    }
    claim_spec(warnings, &claim["spec"], &Path::new("spec"));
}

/// A claim's spec, or that of a template for claims.
pub(super) fn claim_spec(warnings: &mut Warnings, spec: &Value, path: &Path) {
    let at = path.child("resources");
    for amounts in ["requests", "limits"] {
        let list = &spec["resources"][amounts];
        whole_bytes(warnings, list, &at.child(amounts), &["storage"]);
    }
}

/// Whether an update leaves it at the tokens that a driver asks for.
pub(super) fn same_requests(driver: &Value, old: &Value) -> bool {
    driver["spec"]["tokenRequests"] == old["spec"]["tokenRequests"]
}

/// A driver that gets tokens where it may well log them.
pub(super) fn driver(warnings: &mut Warnings, driver: &Value) {
    let spec = &driver["spec"];
    let requests = spec["tokenRequests"].as_array();
    if requests.is_some_and(|r| !r.is_empty()) && spec["serviceAccountTokenInSecrets"].is_null() {
        warnings.say("spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent possible logging of tokens in volume attributes");
    }
}
