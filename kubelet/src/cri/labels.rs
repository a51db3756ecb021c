//! Labels and annotations by which a kubelet finds its own work again in the runtime. They are
//! upstream's, so that either kubelet can take over a node from the other without a restart.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::hash;
use crate::pods::pod::PodExt;

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
const HASH: &str = "io.kubernetes.container.hash";
const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
const PORTS: &str = "io.kubernetes.container.ports";

/// Labels of a pod's sandbox: the pod's own, and who it is.
pub fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = pod.metadata.labels.clone().unwrap_or_default();
    identify(&mut labels, pod);
    labels
}

/// Labels of a container.
pub fn container_labels(container: &Container, pod: &Pod) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    identify(&mut labels, pod);
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

fn identify(labels: &mut BTreeMap<String, String>, pod: &Pod) {
    labels.insert(POD_NAME.into(), pod.name().into());
    labels.insert(POD_NAMESPACE.into(), pod.namespace().into());
    labels.insert(POD_UID.into(), pod.uid().into());
}

/// Annotations of a container: what is needed to judge and to stop it without its pod's spec.
pub fn container_annotations(
    container: &Container,
    pod: &Pod,
    restart_count: i32,
) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    annotations.insert(HASH.to_owned(), format!("{:x}", hash::container(container)));
    annotations.insert(RESTART_COUNT.to_owned(), restart_count.to_string());
    annotations.insert(
        TERMINATION_MESSAGE_PATH.to_owned(),
        container
            .termination_message_path
            .clone()
            .unwrap_or_default(),
    );
    annotations.insert(
        TERMINATION_MESSAGE_POLICY.to_owned(),
        container
            .termination_message_policy
            .clone()
            .unwrap_or_default(),
    );
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        annotations.insert(DELETION_GRACE.to_owned(), seconds.to_string());
    }
    if let Some(seconds) = pod.pod_spec().termination_grace_period_seconds {
        annotations.insert(TERMINATION_GRACE.to_owned(), seconds.to_string());
    }
    let pre_stop = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(json) = pre_stop.and_then(|handler| serde_json::to_string(handler).ok()) {
        annotations.insert(PRE_STOP.to_owned(), json);
    }
    if let Some(ports) = container.ports.as_ref().filter(|ports| !ports.is_empty())
        && let Ok(json) = serde_json::to_string(ports)
    {
        annotations.insert(PORTS.to_owned(), json);
    }
    annotations
}

/// A container's annotations read back. What is missing or malformed reads as absent.
#[derive(Debug, Default, Clone)]
pub struct ContainerAnnotations {
    pub hash: u64,
    pub restart_count: i32,
    pub termination_message_path: String,
    pub termination_message_policy: String,
}

impl ContainerAnnotations {
    pub fn read(annotations: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| annotations.get(key).cloned().unwrap_or_default();
        let number = |key: &str| annotations.get(key).and_then(|value| value.parse().ok());
        Self {
            hash: annotations
                .get(HASH)
                .and_then(|value| u64::from_str_radix(value, 16).ok())
                .unwrap_or_default(),
            restart_count: number(RESTART_COUNT)
                .and_then(|n: i64| n.try_into().ok())
                .unwrap_or_default(),
            termination_message_path: text(TERMINATION_MESSAGE_PATH),
            termination_message_policy: text(TERMINATION_MESSAGE_POLICY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_survive_the_runtime() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "deletionGracePeriodSeconds": 5},
            "spec": {"terminationGracePeriodSeconds": 30, "containers": [{
                "name": "c", "image": "i", "ports": [{"containerPort": 80}],
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "lifecycle": {"preStop": {"exec": {"command": ["true"]}}},
            }]},
        }))
        .unwrap();
        let annotations = container_annotations(&pod.containers()[0], &pod, 3);
        let read = ContainerAnnotations::read(&annotations);
        assert_eq!(read.restart_count, 3);
        assert_eq!(read.hash, hash::container(&pod.containers()[0]));
        assert_eq!(read.termination_message_path, "/dev/termination-log");
        assert_eq!(annotations[DELETION_GRACE], "5");
        assert_eq!(annotations[TERMINATION_GRACE], "30");
        assert_eq!(annotations[PORTS], r#"[{"containerPort":80}]"#);
        assert_eq!(annotations[PRE_STOP], r#"{"exec":{"command":["true"]}}"#);
    }
}
