//! What ReplicaSets and ReplicationControllers have in common, in ReplicaSets' terms: one
//! controller serves both.
//!
//! What must not be here: decisions about pods.

use client::Kind;
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition,
    ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::labels::Selector;
use serde::Serialize;

/// An object that asks for a number of pods.
pub trait Replicator: Kind + Metadata<Ty = ObjectMeta> + Serialize + Clone {
    fn replicas(&self) -> i32;
    fn min_ready_seconds(&self) -> i32;
    /// `None`: it is invalid.
    fn selector(&self) -> Option<Selector>;
    fn template(&self) -> Option<&PodTemplateSpec>;
    fn status(&self) -> ReplicaSetStatus;
    fn with_status(&self, status: &ReplicaSetStatus) -> Self;
}

impl Replicator for ReplicaSet {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0)
    }

    fn min_ready_seconds(&self) -> i32 {
        let spec = self.spec.as_ref();
        spec.and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> Option<Selector> {
        let spec = self.spec.as_ref()?;
        Selector::from_label_selector(Some(&spec.selector)).ok()
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone().unwrap_or_default()
    }

    fn with_status(&self, status: &ReplicaSetStatus) -> Self {
        Self {
            status: Some(status.clone()),
            ..self.clone()
        }
    }
}

impl Replicator for ReplicationController {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0)
    }

    fn min_ready_seconds(&self) -> i32 {
        let spec = self.spec.as_ref();
        spec.and_then(|s| s.min_ready_seconds).unwrap_or(0)
    }

    fn selector(&self) -> Option<Selector> {
        let labels = self.spec.as_ref()?.selector.as_ref();
        let pairs = labels.into_iter().flatten();
        Some(Selector::from_set(pairs))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = self.status.clone().unwrap_or_default();
        let condition = |c: ReplicationControllerCondition| ReplicaSetCondition {
            type_: c.type_,
            status: c.status,
            reason: c.reason,
            message: c.message,
            last_transition_time: c.last_transition_time,
        };
        ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: status.fully_labeled_replicas,
            ready_replicas: status.ready_replicas,
            available_replicas: status.available_replicas,
            terminating_replicas: None,
            observed_generation: status.observed_generation,
            conditions: status
                .conditions
                .map(|c| c.into_iter().map(condition).collect()),
        }
    }

    fn with_status(&self, status: &ReplicaSetStatus) -> Self {
        let condition = |c: &ReplicaSetCondition| ReplicationControllerCondition {
            type_: c.type_.clone(),
            status: c.status.clone(),
            reason: c.reason.clone(),
            message: c.message.clone(),
            last_transition_time: c.last_transition_time.clone(),
        };
        Self {
            status: Some(ReplicationControllerStatus {
                replicas: status.replicas,
                fully_labeled_replicas: status.fully_labeled_replicas,
                ready_replicas: status.ready_replicas,
                available_replicas: status.available_replicas,
                observed_generation: status.observed_generation,
                conditions: status
                    .conditions
                    .as_ref()
                    .map(|c| c.iter().map(condition).collect()),
            }),
            ..self.clone()
        }
    }
}
