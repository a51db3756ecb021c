//! Marks pods not ready whose node does not answer, so that nothing is sent to them.

use std::sync::Arc;

use client::{Api, Error, Object as _, Patch, PatchOptions};
use serde_json::json;

use crate::context::now;
use crate::events::{Recorder, reference};
use crate::kinds::Pod;

/// Marks those that are ready. All are tried; the last failure is returned.
pub async fn mark_not_ready(
    api: &Api<Pod>,
    events: &Recorder,
    pods: &[Arc<Pod>],
) -> Result<(), Error> {
    let mut failure = None;
    for pod in pods.iter().filter(|p| p.is_ready()) {
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": pod.uid()},
            "status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now()}]},
        }));
        let result = api
            .within(pod.namespace())
            .patch_status(pod.name(), &patch, &PatchOptions::default())
            .await;
        match result {
            Err(e) if e.is_not_found() => continue,
            Err(e) => failure = Some(e),
            Ok(_) => {}
        }
        events.event(
            &reference(&**pod),
            true,
            "NodeNotReady",
            "Node is not ready",
        );
    }
    failure.map_or(Ok(()), Err)
}
