//! Has pods given their devices, CPUs and memory before they are judged: plugins are asked, which
//! takes its time, so that the pod waits meanwhile and the loop does not.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tracing::info;

use super::{SyncLoop, View};
use crate::event::Event;
use crate::events::Kind;
use crate::pods::admission::Rejection;
use crate::pods::pod::{PodExt, PodUid, is_terminal_phase};
use crate::pods::worker::Worker;
use crate::status::Eviction;

impl SyncLoop {
    /// Has the pod, as it is granted, given what it asks for. False where it asks for nothing that
    /// is given so.
    pub(super) fn place(&mut self, uid: &PodUid, pod: &Arc<Pod>, granted: &Arc<Pod>) -> bool {
        let topology = self.syncer.runtime.topology.clone();
        if !topology.concerns(granted) {
            topology.pass();
            return false;
        }
        self.placing.insert(uid.clone(), pod.clone());
        // Judged now: what was there before the kubelet is told of before all is known.
        let starting = !self.syncer.index.is_complete();
        let (uid, granted, told) = (uid.clone(), granted.clone(), self.told.clone());
        tokio::spawn(async move {
            let placed = topology.admit(&granted, starting).await;
            let placed = placed.map_err(Rejection::from);
            let _ = told.send(Event::Placed(uid, placed));
        });
        true
    }

    /// The pod has what it asks for, or cannot have it.
    pub(super) fn placed(&mut self, uid: PodUid, placed: Result<(), Rejection>) {
        let Some(pod) = self.placing.remove(&uid) else {
            return;
        };
        match placed {
            Ok(()) => self.admit_by(uid, pod, View::Placed),
            Err(rejection) if self.syncer.runtime.topology.devices.ran(&uid) => {
                self.end_anew(uid, pod, rejection);
            }
            Err(rejection) => self.turn_away(&pod, &rejection),
        }
    }

    /// Ends a pod that cannot have again what it had.
    fn end_anew(&mut self, uid: PodUid, pod: Arc<Pod>, rejection: Rejection) {
        let Rejection { reason, message } = rejection;
        info!(pod = %pod.full_name(), reason, message, "a pod cannot go on here");
        let events = &self.syncer.runtime.events;
        events.pod(&pod, Kind::Warning, &reason, &message);
        let eviction = Eviction::rejected(reason, &message);
        self.syncer.evictions.lock().insert(uid.clone(), eviction);
        let mut worker = Worker::new(pod);
        worker.terminate(None);
        self.syncer.index.set_may_run(&uid, worker.may_run());
        self.workers.insert(uid, worker);
    }

    /// Whether the pod waits to be given what it asks for. One that is to end waits no more.
    pub(super) fn is_being_placed(&mut self, uid: &PodUid, pod: &Arc<Pod>) -> bool {
        if is_terminal_phase(pod.phase()) || pod.is_deleting() {
            self.placing.remove(uid);
            return false;
        }
        match self.placing.get_mut(uid) {
            Some(placing) => {
                *placing = pod.clone();
                true
            }
            None => false,
        }
    }
}
