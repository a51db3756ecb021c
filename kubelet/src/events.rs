//! Events as people see them with `kubectl describe`: whom they are about, and how they are sent.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use crate::pods::pod::PodExt;

/// Upstream's two types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Normal,
    Warning,
}

/// What an event carries beside its message.
pub type Annotations = BTreeMap<String, String>;

/// Where events go: about what, of which type, reason, message. Must be quick.
pub type Sink = Box<dyn Fn(&ObjectReference, Kind, &str, &str, Option<Annotations>) + Send + Sync>;

/// Records events about this node and its pods. Without a sink they are only logged.
pub struct Events {
    sink: Option<Sink>,
    node: ObjectReference,
}

impl Events {
    pub fn new(sink: Option<Sink>, node_name: &str) -> Self {
        // The node's events carry its name as uid, as upstream's do: `kubectl describe` looks for it.
        let node = ObjectReference {
            kind: Some("Node".into()),
            api_version: Some("v1".into()),
            name: Some(node_name.into()),
            uid: Some(node_name.into()),
            ..Default::default()
        };
        Self { sink, node }
    }

    pub fn pod(&self, pod: &Pod, kind: Kind, reason: &str, message: &str) {
        self.record(reference(pod, None), kind, reason, message, None);
    }

    /// As [`Events::pod`], with annotations for programs to read.
    pub fn annotated(
        &self,
        pod: &Pod,
        kind: Kind,
        reason: &str,
        message: &str,
        annotations: Annotations,
    ) {
        let annotations = Some(annotations).filter(|all| !all.is_empty());
        self.record(reference(pod, None), kind, reason, message, annotations);
    }

    /// About one container of a pod.
    pub fn container(&self, pod: &Pod, container: &str, kind: Kind, reason: &str, message: &str) {
        let list = if pod.init_containers().iter().any(|c| c.name == container) {
            "initContainers"
        } else if pod
            .ephemeral_containers()
            .iter()
            .any(|c| c.name == container)
        {
            "ephemeralContainers"
        } else {
            "containers"
        };
        self.record(
            reference(pod, Some(format!("spec.{list}{{{container}}}"))),
            kind,
            reason,
            message,
            None,
        );
    }

    pub fn node(&self, kind: Kind, reason: &str, message: &str) {
        self.record(self.node.clone(), kind, reason, message, None);
    }

    fn record(
        &self,
        about: ObjectReference,
        kind: Kind,
        reason: &str,
        message: &str,
        annotations: Option<Annotations>,
    ) {
        match &self.sink {
            // It logs what it records.
            Some(sink) => sink(&about, kind, reason, message, annotations),
            None => {
                let name = about.name.as_deref().unwrap_or_default();
                tracing::info!(name, reason, message, "event");
            }
        }
    }
}

fn reference(pod: &Pod, field_path: Option<String>) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        api_version: Some("v1".into()),
        namespace: Some(pod.namespace().into()),
        name: Some(pod.name().into()),
        uid: Some(pod.uid().into()),
        resource_version: pod.metadata.resource_version.clone(),
        field_path,
    }
}
