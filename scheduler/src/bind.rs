//! The effects of decisions: bindings, conditions, events. The only I/O of a cycle.

use client::events::EventType;
use client::events::series::SeriesRecorder;
use client::{Api, Client, Patch, PatchOptions};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use crate::model::PodInfo;

/// Writes what was decided. Cheap to clone.
#[derive(Clone)]
pub struct Binder {
    pods: Api<Pod>,
    recorder: SeriesRecorder,
}

impl Binder {
    pub fn new(client: &Client, recorder: SeriesRecorder) -> Self {
        Self {
            pods: Api::all(client),
            recorder,
        }
    }

    /// Tells the API server where the pod goes (the DefaultBinder plugin).
    pub async fn bind(&self, pod: &PodInfo, node: &str) -> client::Result<()> {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.key.name().to_owned()),
                namespace: Some(pod.key.namespace().to_owned()),
                // Another pod of this name must not get our node.
                uid: Some(pod.uid.to_string()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let pods = self.pods.within(pod.key.namespace());
        pods.post_subresource(pod.key.name(), "binding", &binding)
            .await
    }

    pub fn scheduled(&self, pod: &PodInfo, node: &str) {
        let note = format!("Successfully assigned {} to {node}", pod.key);
        self.event(pod, EventType::Normal, "Scheduled", "Binding", &note);
    }

    /// Tells the pod's owner why it waits: an event each time, and the condition
    /// `PodScheduled` when it says something new.
    pub async fn failed(&self, pod: &PodInfo, reason: &str, message: &str) {
        self.event(
            pod,
            EventType::Warning,
            "FailedScheduling",
            "Scheduling",
            message,
        );
        let told = pod.conditions.iter().any(|c| {
            c.type_ == "PodScheduled"
                && c.status == "False"
                && c.reason.as_deref() == Some(reason)
                && c.message.as_deref() == Some(message)
        });
        if told {
            return;
        }
        let since = pod
            .conditions
            .iter()
            .find(|c| c.type_ == "PodScheduled" && c.status == "False")
            .and_then(|c| c.last_transition_time.as_ref())
            .map_or_else(Timestamp::now, |t| t.0);
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        });
        let patch = json!({
            "metadata": {"uid": pod.uid},
            "status": {"conditions": [condition]},
        });
        let pods = self.pods.within(pod.key.namespace());
        let options = PatchOptions::default();
        if let Err(error) = pods
            .patch_status(pod.key.name(), &Patch::Strategic(patch), &options)
            .await
            && !error.is_not_found()
        {
            tracing::warn!("cannot write the condition of pod {}: {error}", pod.key);
        }
    }

    fn event(&self, pod: &PodInfo, ty: EventType, reason: &str, action: &str, note: &str) {
        let about = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.key.name().to_owned()),
            namespace: Some(pod.key.namespace().to_owned()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        };
        self.recorder.event(&about, None, ty, reason, action, note);
    }
}
