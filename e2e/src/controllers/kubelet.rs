//! What the played scheduler and kubelets say of pods and nodes.

use jiff::Timestamp;
use serde_json::{Value, json};

/// The time, as the API writes it.
pub fn now() -> String {
    Timestamp::from_second(Timestamp::now().as_second())
        .unwrap_or_default()
        .to_string()
}

/// How a pod ends.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Of every container.
    pub exit: i32,
    /// Conditions that come with it, all of them true.
    pub conditions: &'a [&'a str],
}

fn condition(ty: &str, status: bool) -> Value {
    let status = if status { "True" } else { "False" };
    json!({"type": ty, "status": status, "lastTransitionTime": now()})
}

fn containers(pod: &Value, list: &str, restarts: i32, ready: bool, state: &Value) -> Value {
    let all = pod["spec"][list].as_array().into_iter().flatten();
    all.map(|container| {
        json!({
            "name": container["name"], "image": container["image"], "imageID": "",
            "ready": ready, "started": ready, "restartCount": restarts, "state": state,
        })
    })
    .collect()
}

/// The status of a pod that runs.
pub fn running(pod: &Value, ip: &str, ready: bool, restarts: i32) -> Value {
    let state = json!({"running": {"startedAt": now()}});
    json!({
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "192.0.2.10",
        "startTime": now(),
        "conditions": [
            condition("Initialized", true),
            condition("ContainersReady", ready),
            condition("Ready", ready),
        ],
        "containerStatuses": containers(pod, "containers", restarts, ready, &state),
    })
}

/// The status of a pod that has ended.
pub fn ended(pod: &Value, end: End) -> Value {
    let state = json!({"terminated": {"exitCode": end.exit, "finishedAt": now()}});
    let mut conditions = vec![
        condition("ContainersReady", false),
        condition("Ready", false),
    ];
    conditions.extend(end.conditions.iter().map(|ty| condition(ty, true)));
    json!({
        "phase": if end.exit == 0 { "Succeeded" } else { "Failed" },
        "startTime": now(),
        "conditions": conditions,
        "containerStatuses": containers(pod, "containers", 0, false, &state),
    })
}

/// The node that a pod must go to, or else `other`.
pub fn node_of<'a>(pod: &'a Value, other: &'a str) -> &'a str {
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
    pod.pointer(terms).and_then(Value::as_str).unwrap_or(other)
}

/// A node as its kubelet would register it.
pub fn node(name: &str, labels: &Value, taints: &Value) -> Value {
    let resources =
        json!({"cpu": "32", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "110"});
    let mut all = json!({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"});
    for (key, value) in labels.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name, "labels": all,
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": {"taints": taints},
        "status": {
            "capacity": resources, "allocatable": resources,
            "addresses": [{"type": "InternalIP", "address": "192.0.2.10"}],
            "conditions": [
                node_condition("MemoryPressure", false),
                node_condition("DiskPressure", false),
                node_condition("PIDPressure", false),
                node_condition("Ready", true),
            ],
        },
    })
}

/// A condition as a kubelet tells it.
pub fn node_condition(ty: &str, status: bool) -> Value {
    json!({
        "type": ty, "status": if status { "True" } else { "False" },
        "reason": format!("Played{status}"), "message": "played",
        "lastHeartbeatTime": now(), "lastTransitionTime": now(),
    })
}

/// A lease that a kubelet has just renewed.
pub fn lease(node: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": node},
        "spec": {
            "holderIdentity": node, "leaseDurationSeconds": 40,
            "renewTime": format!("{:.6}", Timestamp::now()),
        },
    })
}
