//! Makes room for critical pods: ends others, and has the critical one wait until they have ended.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tracing::info;

use super::SyncLoop;
use crate::events::Kind;
use crate::pods::admission::Room;
use crate::pods::pod::{PodExt, PodUid, is_terminal_phase};
use crate::status::Eviction;

/// A critical pod, and those that are being ended for it.
pub struct Preemptor {
    pub pod: Arc<Pod>,
    victims: HashSet<PodUid>,
}

impl SyncLoop {
    /// Ends pods so that `pod` can run.
    pub(super) fn preempt(&mut self, uid: PodUid, pod: Arc<Pod>, room: Room) {
        let eviction = Eviction::preempted();
        let mut victims = HashSet::new();
        for victim in room.victims {
            let Some(worker) = self.workers.get_mut(&victim) else {
                // It waits itself for room, and has not begun.
                if let Some(waiting) = self.preemptors.remove(&victim) {
                    let (reason, message) = (&eviction.reason, &eviction.message);
                    self.syncer.reject(&waiting.pod, reason, message);
                }
                continue;
            };
            info!(pod = %worker.pod.full_name(), critical = %pod.full_name(), "ending a pod to make room for a critical one");
            let events = &self.syncer.runtime.events;
            events.pod(
                &worker.pod,
                Kind::Warning,
                &eviction.reason,
                &eviction.message,
            );
            let mut evictions = self.syncer.evictions.lock();
            evictions.insert(victim.clone(), eviction.clone());
            drop(evictions);
            victims.insert(victim);
            worker.terminate(None);
            let preemptions = &self.syncer.runtime.metrics.preemptions;
            preemptions.with_label_values(&[&room.signal]).inc();
        }
        if victims.is_empty() {
            return self.admit(uid, pod);
        }
        self.preemptors.insert(uid, Preemptor { pod, victims });
    }

    /// Whether the pod waits for others to end. One that is to end itself waits no more.
    pub(super) fn still_waits(&mut self, uid: &PodUid, pod: &Arc<Pod>) -> bool {
        if is_terminal_phase(pod.phase()) || pod.is_deleting() {
            self.preemptors.remove(uid);
            return false;
        }
        match self.preemptors.get_mut(uid) {
            Some(preemptor) => {
                preemptor.pod = pod.clone();
                true
            }
            None => false,
        }
    }

    /// No container of this pod runs any more.
    pub(super) fn victim_ended(&mut self, uid: &PodUid) {
        for preemptor in self.preemptors.values_mut() {
            preemptor.victims.remove(uid);
        }
        let ready = |preemptor: &Preemptor| preemptor.victims.is_empty();
        let ready: Vec<PodUid> = self
            .preemptors
            .iter()
            .filter(|(_, preemptor)| ready(preemptor))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in ready {
            if let Some(preemptor) = self.preemptors.remove(&uid) {
                self.admit(uid, preemptor.pod);
            }
        }
    }

    /// Whether the pod is being ended to make room.
    pub(super) fn is_victim(&self, uid: &PodUid) -> bool {
        self.preemptors
            .values()
            .any(|preemptor| preemptor.victims.contains(uid))
    }
}
