//! Whether the runtime and pods' network are up, asked every few seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use grpc::cri;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::facts::NodeFacts;
use super::setters;
use crate::cri::client::CriClient;
use crate::event::Event;
use crate::pleg::Pleg;

const EVERY: Duration = Duration::from_secs(5);
/// A runtime that has not said for so long that it is ready is down; as upstream.
const DOWN_AFTER: Duration = Duration::from_secs(30);

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

/// What is known of the runtime.
#[derive(Debug, Default)]
pub struct RuntimeState {
    /// When it last said that it was ready.
    well: Option<Instant>,
    /// What it said was wrong, when it last said anything.
    not_ready: Option<String>,
}

impl RuntimeState {
    /// Asks once. A runtime that does not answer may be starting again: nothing is known to be
    /// wrong with it until it has not answered for long.
    pub async fn look(&mut self, runtime: &CriClient, pleg: Option<&Pleg>, facts: &NodeFacts) {
        match runtime.status().await {
            Ok(status) => self.answered(&status, facts),
            Err(error) => warn!(%error, "the runtime does not tell how it is"),
        }
        let unfollowed = pleg.and_then(Pleg::unhealthy);
        let unfollowed = unfollowed.map(|why| format!("PLEG is not healthy: {why}"));
        let errors = self.errors(Instant::now(), unfollowed);
        facts.update(|facts| facts.runtime_errors.clone_from(&errors));
    }

    fn answered(&mut self, status: &cri::StatusResponse, facts: &NodeFacts) {
        self.not_ready = error_of(status, "RuntimeReady", "container runtime not ready");
        if self.not_ready.is_none() {
            self.well = Some(Instant::now());
        }
        let network_error = error_of(
            status,
            "NetworkReady",
            "container runtime network not ready",
        );
        let handlers = setters::handlers(status);
        let features = setters::features(status);
        let default = status
            .runtime_handlers
            .iter()
            .find(|handler| handler.name.is_empty());
        let recursive = default
            .and_then(|handler| handler.features)
            .is_some_and(|f| f.recursive_read_only_mounts);
        facts.update(|facts| {
            facts.network_error.clone_from(&network_error);
            facts.handlers.clone_from(&handlers);
            facts.features.clone_from(&features);
            facts.recursive_read_only = recursive;
        });
    }

    /// What is wrong with the runtime, in upstream's words.
    fn errors(&self, now: Instant, unfollowed: Option<String>) -> Vec<String> {
        let silent = match self.well {
            None => Some("container runtime status check may not have completed yet"),
            Some(well) if now.duration_since(well) >= DOWN_AFTER => {
                Some("container runtime is down")
            }
            Some(_) => None,
        };
        let not_ready = self.not_ready.clone();
        [silent.map(str::to_owned), unfollowed, not_ready]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Asks until `stop`, and tells of changes.
    pub async fn run(
        mut self,
        runtime: CriClient,
        pleg: Arc<Pleg>,
        facts: Arc<NodeFacts>,
        told: mpsc::UnboundedSender<Event>,
        stop: CancellationToken,
    ) {
        let mut last = None;
        loop {
            self.look(&runtime, Some(&pleg), &facts).await;
            let now = facts.get();
            let state = (now.runtime_errors.is_empty(), now.network_error.is_none());
            if last != Some(state) {
                info!(
                    runtime = state.0,
                    network = state.1,
                    error = now.runtime_errors.first().or(now.network_error.as_ref()),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_down_when_it_was_silent_for_long() {
        let start = Instant::now();
        let mut state = RuntimeState::default();
        assert_eq!(
            state.errors(start, None),
            ["container runtime status check may not have completed yet"]
        );
        state.well = Some(start);
        assert!(state.errors(start + DOWN_AFTER / 2, None).is_empty());
        state.not_ready = Some("container runtime not ready: x".into());
        assert_eq!(
            state.errors(start + DOWN_AFTER, Some("PLEG is not healthy: y".into())),
            [
                "container runtime is down",
                "PLEG is not healthy: y",
                "container runtime not ready: x",
            ]
        );
    }
}
