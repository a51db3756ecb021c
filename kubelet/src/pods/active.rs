//! The pods that may use the node's resources: those that run or are to, and those that are being
//! judged.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::index::PodIndex;
use super::pod::{PodExt, is_terminal_phase};
use crate::status::StatusManager;

#[derive(Clone)]
pub struct ActivePods {
    pub index: Arc<PodIndex>,
    pub status: Arc<StatusManager>,
}

impl ActivePods {
    pub fn is_active(&self, pod: &Pod) -> bool {
        let known = self.status.get(pod.uid());
        let phase = known.as_ref().and_then(|status| status.phase.as_deref());
        self.index.may_run(pod.uid()) || !is_terminal_phase(phase.unwrap_or(pod.phase()))
    }

    pub fn all(&self) -> Vec<Arc<Pod>> {
        let mut pods = self.index.all();
        pods.retain(|pod| self.is_active(pod));
        pods
    }

    /// With those that end though nobody knows them any more. `None` until every source has told
    /// all that it has: a pod that is not known may come yet.
    pub fn uids(&self) -> Option<HashSet<String>> {
        self.index.is_complete().then(|| {
            let running = self.index.running();
            let active = self.all();
            let active = active.iter().map(|pod| pod.uid().to_owned());
            active
                .chain(running.iter().map(|uid| uid.to_string()))
                .collect()
        })
    }
}
