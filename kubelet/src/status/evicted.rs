//! What a pod shows that the node has ended for others' sake. Pure.

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::conditions::{DISRUPTION_TARGET, condition};

/// Why a pod was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// Of its status.
    pub reason: &'static str,
    pub message: &'static str,
    /// Message of the condition that says it was no fault of the pod's.
    pub disruption: &'static str,
}

impl Eviction {
    /// Room was needed for a critical pod.
    pub fn preempted() -> Self {
        Self {
            reason: "Preempting",
            message: "Preempted in order to admit critical pod",
            disruption: "Pod was preempted by Kubelet to accommodate a critical pod.",
        }
    }

    /// The pod has failed, and is said why.
    pub fn show(&self, pod: &Pod, status: &mut PodStatus) {
        status.phase = Some("Failed".into());
        status.reason = Some(self.reason.into());
        status.message = Some(self.message.into());
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != DISRUPTION_TARGET);
        let message = self.disruption.to_owned();
        conditions.push(condition(
            pod,
            DISRUPTION_TARGET,
            true,
            "TerminationByKubelet",
            message,
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_said_why() {
        let mut status: PodStatus = serde_json::from_value(json!({"phase": "Running",
            "conditions": [{"type": "DisruptionTarget", "status": "False"}]}))
        .unwrap();
        Eviction::preempted().show(&Pod::default(), &mut status);
        let conditions = status.conditions.unwrap();
        assert_eq!(
            (status.phase.as_deref(), conditions.len()),
            (Some("Failed"), 1)
        );
        assert_eq!(
            conditions[0].reason.as_deref(),
            Some("TerminationByKubelet")
        );
    }
}
