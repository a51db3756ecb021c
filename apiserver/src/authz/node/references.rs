//! What pods and volumes refer to, and so make a node's business.
//!
//! What must not be here: what a node may do with it (`mod.rs`).

use codec::serde_pb::Part;
use serde_json::Value;

use super::graph::{Kind, Object};
use super::{MIRROR_ANNOTATION, items};

/// Volume plugins whose source carries a `secretRef` that the kubelet reads.
const SECRET_DRIVERS: [&str; 7] = [
    "cephfs",
    "cinder",
    "flexVolume",
    "rbd",
    "scaleIO",
    "iscsi",
    "storageos",
];
/// What of a pod leads to other objects.
pub const POD: Part = {
    const CONTAINERS: Part = Part::Of(&[
        ("env", Part::Of(&[("valueFrom", Part::All)])),
        ("envFrom", Part::All),
    ]);
    const METADATA: Part = Part::Of(&[
        ("name", Part::All),
        ("namespace", Part::All),
        ("annotations", Part::All),
    ]);
    const SPEC: Part = Part::Of(&[
        ("nodeName", Part::All),
        ("serviceAccountName", Part::All),
        ("imagePullSecrets", Part::All),
        ("containers", CONTAINERS),
        ("initContainers", CONTAINERS),
        ("ephemeralContainers", CONTAINERS),
        ("volumes", Part::All),
        ("resourceClaims", Part::All),
    ]);
    const STATUS: Part = Part::Of(&[
        ("resourceClaimStatuses", Part::All),
        ("extendedResourceClaimStatus", Part::All),
    ]);
    Part::Of(&[("metadata", METADATA), ("spec", SPEC), ("status", STATUS)])
};

/// Every object that a pod makes its node's business.
pub fn pod_uses(pod: &Value, namespace: &str) -> Vec<Object> {
    if is_mirror(pod) {
        return Vec::new();
    }
    pod_references(pod, namespace)
}

/// Whether the pod is a kubelet's image of a static pod.
pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"]
        .get(MIRROR_ANNOTATION)
        .is_some()
}

/// Whether the pod names secrets, and whether it names config maps.
pub fn references_secrets_and_config_maps(pod: &Value) -> (bool, bool) {
    let all = pod_references(pod, "");
    let any = |kind| all.iter().any(|o| o.0 == kind);
    (any(Kind::Secret), any(Kind::ConfigMap))
}

fn pod_references(pod: &Value, namespace: &str) -> Vec<Object> {
    let mut uses = Vec::new();
    let mut add = |kind: Kind, name: &Value| {
        if let Some(name) = name.as_str().filter(|n| !n.is_empty()) {
            uses.push((kind, namespace.into(), name.into()));
        }
    };
    let spec = &pod["spec"];
    add(Kind::ServiceAccount, &spec["serviceAccountName"]);
    for secret in items(&spec["imagePullSecrets"]) {
        add(Kind::Secret, &secret["name"]);
    }
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(&spec[containers]) {
            for source in items(&container["envFrom"]) {
                add(Kind::Secret, &source["secretRef"]["name"]);
                add(Kind::ConfigMap, &source["configMapRef"]["name"]);
            }
            for variable in items(&container["env"]) {
                let from = &variable["valueFrom"];
                add(Kind::Secret, &from["secretKeyRef"]["name"]);
                add(Kind::ConfigMap, &from["configMapKeyRef"]["name"]);
            }
        }
    }
    for volume in items(&spec["volumes"]) {
        add(Kind::Secret, &volume["secret"]["secretName"]);
        add(Kind::ConfigMap, &volume["configMap"]["name"]);
        add(Kind::Secret, &volume["azureFile"]["secretName"]);
        for driver in SECRET_DRIVERS {
            add(Kind::Secret, &volume[driver]["secretRef"]["name"]);
        }
        add(Kind::Secret, &volume["csi"]["nodePublishSecretRef"]["name"]);
        for source in items(&volume["projected"]["sources"]) {
            add(Kind::Secret, &source["secret"]["name"]);
            add(Kind::ConfigMap, &source["configMap"]["name"]);
        }
        add(Kind::Claim, &volume["persistentVolumeClaim"]["claimName"]);
        if volume["ephemeral"].is_object() {
            let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let volume_name = volume["name"].as_str().unwrap_or_default();
            add(
                Kind::Claim,
                &Value::from(format!("{pod_name}-{volume_name}")),
            );
        }
    }
    for claim in items(&spec["resourceClaims"]) {
        add(Kind::ResourceClaim, &claim["resourceClaimName"]);
        // A claim made from a template is named in the status.
        if claim["resourceClaimTemplateName"].is_string() {
            for status in items(&pod["status"]["resourceClaimStatuses"]) {
                if status["name"] == claim["name"] {
                    add(Kind::ResourceClaim, &status["resourceClaimName"]);
                }
            }
        }
    }
    let extended = &pod["status"]["extendedResourceClaimStatus"];
    add(Kind::ResourceClaim, &extended["resourceClaimName"]);
    uses
}

/// The secrets that a kubelet needs to mount a volume.
pub fn volume_secrets(volume: &Value, claim_namespace: &str) -> Vec<Object> {
    let spec = &volume["spec"];
    let mut secrets = Vec::new();
    let mut add = |secret: &Value, field: &str, namespace_field: &str| {
        let namespace = secret[namespace_field].as_str().filter(|n| !n.is_empty());
        if let Some(name) = secret[field].as_str().filter(|n| !n.is_empty()) {
            let namespace = namespace.unwrap_or(claim_namespace);
            secrets.push((Kind::Secret, namespace.into(), name.into()));
        }
    };
    add(&spec["azureFile"], "secretName", "secretNamespace");
    for driver in SECRET_DRIVERS {
        add(&spec[driver]["secretRef"], "name", "namespace");
    }
    for secret in [
        "nodePublishSecretRef",
        "nodeStageSecretRef",
        "nodeExpandSecretRef",
    ] {
        add(&spec["csi"][secret], "name", "namespace");
    }
    secrets
}
