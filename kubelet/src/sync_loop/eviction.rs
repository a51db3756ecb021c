//! Ends pods that the node cannot keep, and tells whoever had them ended how far they are; clears
//! away what has ended when there is no room for it.

use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::SyncLoop;
use crate::cri::gc;
use crate::pods::pod::{PodExt, PodUid};
use crate::pods::worker::Phase;
use crate::status::Eviction;

impl SyncLoop {
    pub(super) fn evict(
        &mut self,
        uid: PodUid,
        eviction: Eviction,
        grace: i64,
        ended: watch::Sender<Phase>,
    ) {
        let Some(worker) = self.workers.get_mut(&uid).filter(|w| w.may_run()) else {
            // It has ended by itself: who waits for it hears that nobody is left to tell.
            return;
        };
        info!(pod = %worker.pod.full_name(), grace, "ending a pod for the node's sake");
        let mut evictions = self.syncer.evictions.lock();
        evictions.insert(uid.clone(), eviction);
        drop(evictions);
        worker.terminate(Some(grace));
        ended.send_replace(worker.phase());
        self.evicted.insert(uid, ended);
    }

    /// A pod is further in its life.
    pub(super) fn tell_evictor(&mut self, uid: &PodUid, phase: Phase) {
        if let Some(ended) = self.evicted.get(uid) {
            ended.send_replace(phase);
        }
        if phase == Phase::Finished {
            self.evicted.remove(uid);
        }
    }

    /// Nothing that has ended is kept for people to look at, but for its logs.
    pub(super) fn collect_dead(&self, done: oneshot::Sender<usize>) {
        if !self.sources_ready() {
            return;
        }
        let (syncer, known) = (self.syncer.clone(), self.known());
        let (policy, logs) = (self.settings.gc, self.settings.logs_root.clone());
        tokio::spawn(async move {
            let need = |uid: &str| match known.need(uid) {
                gc::Need::All if !known.index.may_run(uid) => gc::Need::Logs,
                need => need,
            };
            match syncer.runtime.collect_dead(&logs, need, policy).await {
                // Whoever asked may be gone.
                Ok(removed) => drop(done.send(removed)),
                Err(error) => warn!(%error, "cannot clear dead containers away"),
            }
        });
    }
}
