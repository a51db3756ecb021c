//! A pod that is being ended for the node's sake, and waiting until it has.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};

use super::pod::PodExt;
use super::worker::Phase;
use crate::event::Event;
use crate::events::{Events, Kind};
use crate::status::Eviction;

/// Follows a pod to its end.
pub struct Ending {
    pub pod: Arc<Pod>,
    grace: i64,
    phase: watch::Receiver<Phase>,
}

impl Ending {
    /// Has a pod ended within so many seconds.
    pub fn begin(
        told: &mpsc::UnboundedSender<Event>,
        pod: Arc<Pod>,
        eviction: Eviction,
        grace: i64,
    ) -> Self {
        let (ended, phase) = watch::channel(Phase::Syncing);
        // The loop is gone only when the process is about to be.
        let _ = told.send(Event::Evict {
            uid: pod.uid().into(),
            eviction,
            grace,
            ended,
        });
        Self { pod, grace, phase }
    }

    /// Waits until none of its containers runs, but not for ever.
    pub async fn stopped(&mut self, events: &Events) {
        // The time it has, half of it again, and time for the runtime.
        let seconds = self.grace.saturating_add(self.grace / 2).max(10);
        let patience = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let stopped = self.phase.wait_for(|phase| *phase >= Phase::Terminated);
        if tokio::time::timeout(patience, stopped).await.is_err() {
            let message = "Container runtime did not kill the pod within specified grace period.";
            events.pod(&self.pod, Kind::Warning, "ExceededGracePeriod", message);
        }
    }

    /// Waits until what it had is free: its volumes and its cgroup.
    pub async fn cleared(&mut self) {
        // Who tells is gone when the pod is.
        let _ = self.phase.wait_for(|phase| *phase == Phase::Finished).await;
    }
}
