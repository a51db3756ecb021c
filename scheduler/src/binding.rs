//! The binding cycle: what a pod has been promised is made true, and then the API server is
//! told its node. Many go on at a time, beside the decisions.

use std::sync::Arc;

use client::{Object as _, ObjectKey};
use tokio::time::Instant;

use crate::bind::Patch;
use crate::cache::storage::{Awaited, SELECTED_NODE};
use crate::extender::ExtenderError;
use crate::framework::ClusterEvent;
use crate::plugins::dynamic_resources::NAME as DEVICES;
use crate::queue::Taken;
use crate::reserve::{Promised, Reserved};
use crate::scheduler::{Scheduler, State};

impl Scheduler {
    /// Lets a pod go to the node that it counts on.
    pub(crate) fn send(
        self: &Arc<Self>,
        state: &mut State,
        taken: Taken,
        node: Box<str>,
        promised: Promised,
        began: Instant,
    ) {
        state.queue.done(&taken.pod.key);
        let this = Arc::clone(self);
        self.courier
            .carry(async move { this.bind(taken, &node, promised, began).await });
    }

    /// The binding cycle.
    async fn bind(self: Arc<Self>, taken: Taken, node: &str, promised: Promised, began: Instant) {
        let pod = &taken.pod;
        let profile = &*pod.scheduler_name;
        let mut claims = Vec::new();
        let outcome = async {
            // What most pods do not need is no part of what they wait with.
            if let Some(reserved) = &promised.volumes {
                Box::pin(self.bind_volumes(reserved, node)).await?;
            }
            if let Some(devices) = &promised.devices {
                let written = self.bind_devices(pod, devices, node, &mut claims);
                Box::pin(written).await.map_err(BindError::Devices)?;
            }
            let binder = self
                .extenders
                .iter()
                .find(|e| e.binds() && e.is_interested(pod));
            if let Some(extender) = binder {
                match Box::pin(extender.bind(pod, node)).await {
                    Err(error) if extender.is_ignorable() => tracing::info!("ignored: {error}"),
                    outcome => return outcome.map_err(BindError::from),
                }
            }
            self.binder.bind(pod, node).await.map_err(BindError::from)
        };
        let running = self.metrics.goroutines.with_label_values(&["binding"]);
        running.inc();
        let outcome = outcome.await;
        running.dec();
        if !promised.is_empty() {
            promised.forget(&mut self.state.lock().cache);
        }
        if promised.devices.is_some() && outcome.is_err() {
            Box::pin(self.binder.unreserve(pod, &claims)).await;
        }
        match outcome {
            Ok(()) => {
                tracing::debug!("pod {} goes to node {node}", pod.key);
                self.metrics
                    .attempted(profile, "scheduled", began.elapsed().as_secs_f64());
                self.metrics.scheduled(&taken);
                self.binder.scheduled(pod, node);
            }
            Err(error) => {
                self.metrics
                    .attempted(profile, "error", began.elapsed().as_secs_f64());
                // A pod that is gone needs no second try.
                let retry = !matches!(&error, BindError::Api(e) if e.is_not_found());
                self.unassume(&pod.key, retry.then_some(&taken));
                if retry {
                    tracing::warn!("cannot bind pod {} to node {node}: {error}", pod.key);
                    let message = error.to_string();
                    let patch = Patch {
                        reason: "SchedulerError",
                        message: &message,
                        nominated: (!pod.nominated.is_empty()).then_some(""),
                    };
                    Box::pin(self.binder.failed(pod, &patch)).await;
                }
            }
        }
    }

    /// PreBind: has volumes bound or made, and waits until they are.
    async fn bind_volumes(&self, reserved: &Reserved, node: &str) -> Result<(), BindError> {
        let failed = |error: client::Error| BindError::Volumes(error.to_string());
        let mut awaited = Awaited::default();
        for (volume, claim) in &reserved.bindings {
            let written = self.binder.bind_volume(volume, claim).await;
            let version = written.map_err(failed)?.metadata.resource_version;
            awaited.bindings.push((volume.key(), version, claim.key()));
        }
        for claim in &reserved.provisions {
            let selected = claim.metadata.annotations.get(SELECTED_NODE);
            let version = match selected.is_some_and(|selected| selected == node) {
                true => claim.metadata.resource_version.clone(),
                false => {
                    let written = self.binder.select_node(claim, node).await;
                    written.map_err(failed)?.metadata.resource_version
                }
            };
            awaited.provisions.push((claim.key(), version));
        }
        let waiting = async {
            loop {
                let changed = self.awaited_changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                let progress = {
                    let cache = &self.state.lock().cache;
                    let known = cache.node_named(node);
                    cache.storage.progress(&awaited, node, known)
                };
                match progress {
                    Ok(true) => return Ok(()),
                    Ok(false) => changed.await,
                    Err(why) => return Err(why),
                }
            }
        };
        let outcome = tokio::time::timeout(reserved.timeout, waiting).await;
        outcome
            .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
            .map_err(|why| BindError::Volumes(format!("binding volumes: {why}")))
    }

    /// Gives the node back, and the pod to the queue.
    fn unassume(&self, key: &ObjectKey, retry: Option<&Taken>) {
        let mut state = self.state.lock();
        if !state.cache.forget(key) {
            // It is bound after all: the answer was lost, not the binding.
            return;
        }
        let Some(taken) = retry else {
            return;
        };
        self.happened(&mut state, &ClusterEvent::PodGone(&taken.pod));
        state.queue.failed(taken, Instant::now());
        drop(state);
        self.wake.notify_one();
    }
}

#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error("running Bind plugin \"DefaultBinder\": {0}")]
    Api(#[from] client::Error),
    #[error(transparent)]
    Extender(#[from] ExtenderError),
    #[error("running PreBind plugin \"VolumeBinding\": {0}")]
    Volumes(String),
    #[error("running PreBind plugin \"{DEVICES}\": {0}")]
    Devices(crate::claims::ClaimError),
}
