//! When pods are granted the other resources that they ask for while they run: as soon as they
//! ask, if there is room, and else whenever there may be some.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tracing::{debug, info};

use super::SyncLoop;
use crate::allocation::resize::{self, Given, Waiting};
use crate::allocation::{DEFERRED, INFEASIBLE};
use crate::events::Kind;
use crate::pods::pod::{PodExt, PodUid, is_terminal_phase};
use crate::resources::qos::{QosClass, qos_class};
use crate::resources::requests::pod_requests;

/// Between two attempts for no particular reason.
pub(super) const RETRY_EVERY: Duration = Duration::from_secs(180);

/// Why it is tried again; as the metric names it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trigger {
    PodResized,
    PodUpdated,
    PodsAdded,
    PodsRemoved,
    PodTerminated,
    Periodic,
}

impl Trigger {
    fn as_str(self) -> &'static str {
        match self {
            Self::PodResized => "pod_resized",
            Self::PodUpdated => "pod_updated",
            Self::PodsAdded => "pods_added",
            Self::PodsRemoved => "pods_removed",
            Self::PodTerminated => "pod_terminated",
            Self::Periodic => "periodic_retry",
        }
    }
}

/// A resize that is not granted: reason, message, and what the metric counts it as.
struct Refusal {
    reason: String,
    message: String,
    detail: Option<&'static str>,
}

/// A pod that waits, by its two versions.
struct Queued {
    uid: PodUid,
    wanted: Arc<Pod>,
    granted: Arc<Pod>,
    since: Option<Timestamp>,
}

impl Queued {
    fn waiting(&self) -> Waiting<'_> {
        Waiting {
            wanted: &self.wanted,
            granted: &self.granted,
            since: self.since,
        }
    }
}

impl SyncLoop {
    /// A pod that runs here has a new version.
    pub(super) fn note_resize(&mut self, uid: &PodUid, old: &Pod, new: &Arc<Pod>) {
        if let Some(changes) = resize::asked(old, new) {
            let requested = &self.syncer.runtime.metrics.resizes.requested;
            for (resource, requirement, operation) in changes {
                let labels = [resource, requirement, operation];
                requested.with_label_values(&labels).inc();
            }
            if !self.queue_resize(uid, new) {
                // It asks for what it has, after all.
                self.resizes.retain(|waiting| waiting != uid);
                self.syncer.allocations.conditions.clear_pending(uid);
            }
            self.retry_resizes(Trigger::PodUpdated);
            return;
        }
        if self.resizes.is_empty() {
            return;
        }
        let allocations = &self.syncer.allocations;
        let used = |pod: &Pod| {
            let granted = allocations.granted(&Arc::new(pod.clone()));
            let used = resize::in_use(&granted);
            pod_requests(used.as_ref().unwrap_or(&granted), true)
        };
        if is_terminal_phase(new.phase()) && !is_terminal_phase(old.phase()) {
            self.retry_resizes(Trigger::PodTerminated);
        } else if resize::less(&used(new), &used(old)) {
            self.retry_resizes(Trigger::PodResized);
        }
    }

    /// Notes that a pod asks for something else than it was granted. False where it does not.
    pub(super) fn queue_resize(&mut self, uid: &PodUid, pod: &Pod) -> bool {
        if !self.syncer.allocations.asks_for_other(pod) {
            return false;
        }
        if !self.resizes.contains(uid) {
            self.resizes.push(uid.clone());
        }
        true
    }

    /// Judges all that wait, in their order.
    pub(super) fn retry_resizes(&mut self, trigger: Trigger) {
        if self.resizes.is_empty() || !self.sources_ready() {
            return;
        }
        let allocations = self.syncer.allocations.clone();
        let mut queue: Vec<Queued> = std::mem::take(&mut self.resizes)
            .into_iter()
            .filter_map(|uid| {
                let worker = self.workers.get(&uid).filter(|worker| worker.may_run())?;
                let wanted = worker.pod.clone();
                Some(Queued {
                    granted: allocations.granted(&wanted),
                    since: allocations.conditions.pending(&uid).map(|(_, since)| since),
                    wanted,
                    uid,
                })
            })
            .collect();
        queue.sort_by(|a, b| resize::order(&a.waiting(), &b.waiting()));
        for queued in queue {
            self.try_resize(queued.uid, &queued.wanted, &queued.granted, trigger);
        }
    }

    fn try_resize(&mut self, uid: PodUid, wanted: &Arc<Pod>, granted: &Pod, trigger: Trigger) {
        let allocations = self.syncer.allocations.clone();
        let conditions = &allocations.conditions;
        let metrics = self.syncer.runtime.metrics.clone();
        let before = conditions.pending(&uid).map(|(reason, _)| reason);
        let generation = wanted.metadata.generation;
        let now = Timestamp::now();
        let changed = match self.refusal(wanted, granted) {
            None => {
                info!(pod = %wanted.full_name(), "a resize is granted");
                allocations.grant(wanted);
                conditions.clear_pending(&uid);
                conditions.clear_in_progress(&uid);
                conditions.set_in_progress(&uid, "", "", generation, now);
                let message = resize::message("Pod resize started", wanted, generation, "");
                let events = &self.syncer.runtime.events;
                events.pod(wanted, Kind::Normal, "ResizeStarted", &message);
                if before.as_deref() == Some(DEFERRED) {
                    let accepted = &metrics.resizes.deferred_accepted;
                    accepted.with_label_values(&[trigger.as_str()]).inc();
                }
                true
            }
            Some(refusal) => {
                debug!(pod = %wanted.full_name(), refusal.reason, refusal.message, "a resize is not granted");
                if let Some(detail) = refusal.detail {
                    let infeasible = &metrics.resizes.infeasible;
                    infeasible.with_label_values(&[detail]).inc();
                }
                let (reason, message) = (refusal.reason.as_str(), refusal.message.as_str());
                let news = conditions.set_pending(&uid, reason, message, generation, now);
                let (shown, event) = if reason == INFEASIBLE {
                    (INFEASIBLE, "ResizeInfeasible")
                } else {
                    self.resizes.push(uid.clone());
                    (reason, "ResizeDeferred")
                };
                if news {
                    let what = format!("Pod resize {shown}");
                    let text = resize::message(&what, wanted, generation, message);
                    let events = &self.syncer.runtime.events;
                    events.pod(wanted, Kind::Warning, event, &text);
                }
                news
            }
        };
        if changed && let Some(worker) = self.workers.get_mut(&uid) {
            worker.poke();
        }
    }

    /// Why a pod cannot have now what it asks for.
    fn refusal(&self, wanted: &Pod, granted: &Pod) -> Option<Refusal> {
        let infeasible = |message: String, detail| {
            Some(Refusal {
                reason: INFEASIBLE.into(),
                message,
                detail: Some(detail),
            })
        };
        if qos_class(wanted) == QosClass::Guaranteed {
            let requests = |pod: &Pod| -> Vec<(i64, i64)> {
                let containers = pod.containers().iter().chain(pod.init_containers());
                containers
                    .map(|c| Given::of(None, c.resources.as_ref()))
                    .map(|given| (given.cpu_request, given.memory_request))
                    .collect()
            };
            let (new, old) = (requests(wanted), requests(granted));
            let differ = |of: fn(&(i64, i64)) -> i64| !new.iter().map(of).eq(old.iter().map(of));
            let message = |what: &str, policy: &str| {
                format!(
                    "Resize is infeasible for Guaranteed Pods alongside {what} Manager policy {policy:?}"
                )
            };
            if self.settings.static_cpus && differ(|(cpu, _)| *cpu) {
                let detail = "guaranteed_pod_cpu_manager_static_policy";
                return infeasible(message("CPU", "static"), detail);
            }
            if self.settings.static_memory && differ(|(_, memory)| *memory) {
                let detail = "guaranteed_pod_memory_manager_static_policy";
                return infeasible(message("Memory", "Static"), detail);
            }
        }
        self.judge(wanted).err().map(|rejection| Refusal {
            reason: rejection.reason,
            message: rejection.message,
            detail: None,
        })
    }
}
