//! Whether the runtime and pods' network are up, asked every few seconds.

use std::sync::Arc;
use std::time::Duration;

use grpc::cri;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::facts::NodeFacts;
use super::setters;
use crate::cri::client::CriClient;
use crate::event::Event;

const EVERY: Duration = Duration::from_secs(5);

/// What is wrong with a condition of the runtime, if anything.
fn error_of(status: &cri::StatusResponse, kind: &str, what: &str) -> Option<String> {
    let conditions = status
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    match conditions.iter().find(|condition| condition.r#type == kind) {
        Some(condition) if condition.status => None,
        Some(condition) => Some(format!(
            "{what}: {kind}={} reason:{} message:{}",
            condition.status, condition.reason, condition.message
        )),
        None => Some(format!("{what}: the runtime does not tell")),
    }
}

/// Looks once.
pub async fn look(runtime: &CriClient, facts: &NodeFacts) {
    match runtime.status().await {
        Ok(status) => {
            let runtime_error = error_of(&status, "RuntimeReady", "container runtime not ready");
            let network_error = error_of(
                &status,
                "NetworkReady",
                "container runtime network not ready",
            );
            let handlers = setters::handlers(&status);
            let features = setters::features(&status);
            let default = status
                .runtime_handlers
                .iter()
                .find(|handler| handler.name.is_empty());
            let recursive = default
                .and_then(|handler| handler.features)
                .is_some_and(|f| f.recursive_read_only_mounts);
            facts.update(|facts| {
                facts.runtime_error.clone_from(&runtime_error);
                facts.network_error.clone_from(&network_error);
                facts.handlers.clone_from(&handlers);
                facts.features.clone_from(&features);
                facts.recursive_read_only = recursive;
            });
        }
        Err(error) => {
            let down = format!("container runtime is down: {error}");
            facts.update(|facts| facts.runtime_error = Some(down.clone()));
        }
    }
}

/// Looks until `stop`, and tells of changes.
pub async fn run(
    runtime: CriClient,
    facts: Arc<NodeFacts>,
    told: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
) {
    let mut last = None;
    loop {
        look(&runtime, &facts).await;
        let now = facts.get();
        let state = (now.runtime_error.is_none(), now.network_error.is_none());
        if last != Some(state) {
            info!(
                runtime = state.0,
                network = state.1,
                error = now.runtime_error.as_ref().or(now.network_error.as_ref()),
                "the runtime's readiness"
            );
            let _ = told.send(Event::Ready {
                runtime: state.0,
                network: state.1,
            });
            last = Some(state);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}
