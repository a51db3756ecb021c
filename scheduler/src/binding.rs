//! The binding cycle: what a pod has been promised is made true, and then the API server is
//! told its node. Many go on at a time, beside the decisions.

use std::sync::Arc;

use client::Object as _;
use k8s_openapi::api::resource::v1::ResourceClaim;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bind::Patch;
use crate::cache::storage::{Awaited, SELECTED_NODE};
use crate::extender::ExtenderError;
use crate::framework::ClusterEvent;
use crate::model::PodInfo;
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
        let promised = (!promised.is_empty()).then(|| Kept {
            called_off: state.in_pre_bind.begin(&taken.pod.uid),
            promised,
            nominated: false,
            claims: Vec::new(),
        });
        let this = Arc::clone(self);
        self.courier
            .carry(async move { this.bind(taken, &node, promised, began).await });
    }

    /// The binding cycle.
    async fn bind(
        self: Arc<Self>,
        taken: Taken,
        node: &str,
        mut promised: Option<Kept>,
        began: Instant,
    ) {
        let pod = &taken.pod;
        let profile = &*pod.scheduler_name;
        let outcome = async {
            // What most pods do not need is no part of what they wait with.
            if let Some(kept) = &mut promised {
                Box::pin(self.pre_bind(pod, kept, node)).await?;
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
            let began = Instant::now();
            let bound = self.binder.bind(pod, node).await;
            let took = began.elapsed();
            self.metrics.ran("Bind", bound.is_ok(), profile, took);
            bound.map_err(BindError::from)
        };
        let running = self.metrics.goroutines.with_label_values(&["binding"]);
        running.inc();
        let outcome = outcome.await;
        running.dec();
        let mut nominated = false;
        if let Some(kept) = promised {
            nominated = kept.nominated;
            kept.promised.forget(&mut self.lock().cache);
            if outcome.is_err() {
                Box::pin(self.binder.unreserve(pod, &kept.claims)).await;
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                tracing::debug!("pod {} goes to node {node}", pod.key);
                self.metrics.attempted(profile, "scheduled", seconds);
                self.metrics.scheduled(&taken);
                self.binder.scheduled(pod, node);
            }
            Err(error) => {
                self.metrics.attempted(profile, "error", seconds);
                Box::pin(self.not_bound(taken, node, nominated, &error)).await;
            }
        }
    }

    /// Gives the node back, and the pod to the queue unless it is gone. `nominated`: its status
    /// says that it goes to the node.
    async fn not_bound(&self, taken: Taken, node: &str, nominated: bool, error: &BindError) {
        // Gone, on its way, or with somebody else's node by now: informers tell which. A second try
        // after an answer that was lost finds its own.
        let is_gone = matches!(error, BindError::Api(e) if e.is_not_found() || e.is_conflict());
        let Some(pod) = self.unassume(taken) else {
            return;
        };
        if is_gone {
            // There is nobody to be told.
            return self.told([&pod], false, true);
        }
        tracing::warn!("cannot bind pod {} to node {node}: {error}", pod.key);
        let message = error.to_string();
        let patch = Patch {
            reason: "SchedulerError",
            message: &message,
            nominated: (nominated || !pod.nominated.is_empty()).then_some(""),
        };
        self.binder.failed(&pod, &patch).await;
        self.told([&pod], false, true);
    }

    /// PreBind: has come true what has been promised, unless that is called off.
    async fn pre_bind(&self, pod: &PodInfo, kept: &mut Kept, node: &str) -> Result<(), BindError> {
        let Kept {
            promised,
            called_off,
            nominated,
            claims,
        } = kept;
        let volumes = async {
            match &promised.volumes {
                Some(reserved) => self.bind_volumes(reserved, node).await,
                None => Ok(()),
            }
        };
        let devices = async {
            match &promised.devices {
                Some(devices) => {
                    let bound = self.bind_devices(pod, devices, node, claims).await;
                    bound.map_err(BindError::Devices)
                }
                None => Ok(()),
            }
        };
        let both = async {
            // It may take a while: others, such as autoscalers, are told where the pod will be.
            if self.settings.expectations && &*pod.nominated != node {
                *nominated = true;
                self.binder.nominate(pod, Some(node)).await;
            }
            tokio::try_join!(volumes, devices)
        };
        let began = Instant::now();
        let outcome = called_off.run_until_cancelled(both).await;
        let passed = matches!(&outcome, Some(Ok(_)));
        let profile = &pod.scheduler_name;
        self.metrics
            .ran("PreBind", passed, profile, began.elapsed());
        let in_time = self.lock().in_pre_bind.end(&pod.uid);
        match outcome {
            Some(Ok(_)) if in_time => Ok(()),
            Some(Err(error)) => Err(error),
            _ => Err(BindError::CalledOff(match promised.volumes {
                Some(_) => "VolumeBinding",
                None => DEVICES,
            })),
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
                    let cache = &self.lock().cache;
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

    /// Gives the node back, and the pod to the queue as it is by now; `None` when it is gone, or
    /// bound after all: the answer was lost, not the binding.
    fn unassume(&self, taken: Taken) -> Option<Arc<PodInfo>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.cache.forget(&taken.pod) {
            return None;
        }
        self.happened(state, &ClusterEvent::PodGone(&taken.pod));
        let known = self.pods.store().get_key(&taken.pod.key)?;
        if known.uid() != &*taken.pod.uid || !known.spec.node_name.is_empty() {
            return None;
        }
        let pod = state.templates.version(&known, Some(&taken.pod));
        let taken = Taken {
            pod: Arc::clone(&pod),
            ..taken
        };
        state.queue.failed(&taken, Instant::now());
        drop(guard);
        self.wake.notify_one();
        Some(pod)
    }
}

/// What PreBind has come true.
struct Kept {
    promised: Promised,
    /// Others need the room, or the pod is gone.
    called_off: CancellationToken,
    /// The pod's status says where it is to go.
    nominated: bool,
    /// Claims as they are now, to be taken back where the pod is not bound.
    claims: Vec<Arc<ResourceClaim>>,
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
    /// The text is for pods that are preempted: nobody is told of one that is gone.
    #[error("running PreBind plugin \"{0}\": preempted by DefaultPreemption")]
    CalledOff(&'static str),
}
