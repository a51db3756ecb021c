//! Whether pods can run beside those that are here, by what the loop knows.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tracing::info;

use super::SyncLoop;
use crate::pods::admission::{self, Rejection, Room, admit};
use crate::pods::pod::{PodExt, PodUid};

impl SyncLoop {
    pub(super) fn turn_away(&mut self, pod: &Arc<Pod>, rejection: &Rejection) {
        info!(pod = %pod.full_name(), rejection.reason, rejection.message, "a pod cannot run here");
        let (reason, message) = (&rejection.reason, &rejection.message);
        self.syncer.reject(pod, reason, message);
        self.turned_away.insert(pod.uid().into());
    }

    /// Whether the pod, as it is given, can run beside the others.
    pub(super) fn judge(&self, pod: &Pod) -> Result<Room, Rejection> {
        self.judge_by(pod, admit)
    }

    pub(super) fn judge_by<T>(
        &self,
        pod: &Pod,
        judge: impl FnOnce(&Pod, &admission::Input<'_>) -> Result<T, Rejection>,
    ) -> Result<T, Rejection> {
        let node = self.syncer.facts.get();
        let active: Vec<Arc<Pod>> = self
            .workers
            .values()
            // A pod that has ended may not be known to have, shortly after a restart.
            .filter(|worker| {
                let ended = matches!(worker.pod.phase(), "Succeeded" | "Failed");
                let own_uid: PodUid = worker.pod.uid().into();
                worker.may_run() && !ended && &*own_uid != pod.uid() && !self.is_victim(&own_uid)
            })
            .map(|worker| &worker.pod)
            // Room that is being made is taken.
            .chain(self.preemptors.values().map(|preemptor| &preemptor.pod))
            .map(|pod| {
                let granted = self.syncer.allocations.granted(pod);
                crate::allocation::resize::in_use(&granted).map_or(granted, Arc::new)
            })
            .collect();
        let active: Vec<&Pod> = active.iter().map(AsRef::as_ref).collect();
        let object = node.node.as_ref();
        let labels = object.and_then(|node| node.metadata.labels.clone());
        let spec = object.and_then(|node| node.spec.as_ref());
        let features = node.features.as_ref();
        let shown = object.and_then(|node| node.status.as_ref()?.allocatable.as_ref());
        let mut allocatable = admission::with_extended(&node.allocatable, shown);
        let devices = &self.syncer.runtime.topology.devices;
        devices.at_least_given(pod, &mut allocatable);
        judge(
            pod,
            &admission::Input {
                node_name: &self.settings.node_name,
                taints: spec
                    .and_then(|spec| spec.taints.as_deref())
                    .unwrap_or_default(),
                pressure: node.pressure,
                shutting_down: node.shutting_down,
                strict_groups: features.is_some_and(|f| f.supplemental_groups_policy == Some(true)),
                labels: &labels.unwrap_or_default(),
                allocatable: &allocatable,
                active: &active,
                unsafe_sysctls: &self.settings.unsafe_sysctls,
            },
        )
    }
}
