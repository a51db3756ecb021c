//! What a pod shows that the node has ended for others' sake. Pure.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use super::conditions::{DISRUPTION_TARGET, condition};
use crate::eviction;

/// Why a pod was ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// Of its status.
    pub reason: Cow<'static, str>,
    pub message: Cow<'static, str>,
    /// Message of the condition that says it was no fault of the pod's; none where it was.
    pub disruption: Option<Cow<'static, str>>,
    /// Nothing of it is kept for people to look at: there is no room for it.
    pub clears: bool,
}

impl Eviction {
    /// Room was needed for a critical pod.
    pub fn preempted() -> Self {
        Self {
            reason: "Preempting".into(),
            message: "Preempted in order to admit critical pod".into(),
            disruption: Some("Pod was preempted by Kubelet to accommodate a critical pod.".into()),
            clears: true,
        }
    }

    /// The node is short of something; `disrupted` unless it is the pod that took too much.
    pub fn evicted(message: String, disrupted: bool) -> Self {
        Self {
            reason: eviction::REASON.into(),
            disruption: disrupted.then(|| message.clone().into()),
            message: message.into(),
            clears: true,
        }
    }

    /// The machine goes down.
    pub fn shut_down() -> Self {
        let message = "Pod was terminated in response to imminent node shutdown.";
        Self {
            reason: "Terminated".into(),
            message: message.into(),
            disruption: Some(message.into()),
            clears: false,
        }
    }

    /// It cannot have again what it had before the kubelet started.
    pub fn rejected(reason: String, why: &str) -> Self {
        Self {
            reason: reason.into(),
            message: format!("Pod was rejected: {why}").into(),
            disruption: None,
            clears: true,
        }
    }

    /// The pod has failed, and is said why.
    pub fn show(&self, pod: &Pod, status: &mut PodStatus) {
        status.phase = Some("Failed".into());
        status.reason = Some(self.reason.clone().into_owned());
        status.message = Some(self.message.clone().into_owned());
        let Some(disruption) = &self.disruption else {
            return;
        };
        let conditions = status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != DISRUPTION_TARGET);
        let message = disruption.clone().into_owned();
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
        Eviction::evicted("too much".into(), false).show(&Pod::default(), &mut status);
        assert_eq!(status.reason.as_deref(), Some("Evicted"));
        assert_eq!(status.message.as_deref(), Some("too much"));
        assert_eq!(status.conditions.as_ref().unwrap()[0].status, "False");
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
