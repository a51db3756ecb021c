//! VolumeBinding: a pod goes where its volumes are, or can be. Which volume a claim gets
//! when the pod has its node, `Storage::plan` decides; writing it is not done here.

use std::sync::Arc;

use crate::cache::Cache;
use crate::cache::storage::{StorageEvent, claim_of};
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection};
use crate::model::PodInfo;

pub struct VolumeBinding;

/// Whether one of the pod's volumes is of a claim.
pub fn uses(pod: &PodInfo, claim: &client::ObjectKey) -> bool {
    let mut claims = pod.volumes.iter().filter_map(|v| claim_of(pod, v));
    claims.any(|(key, _)| key == *claim)
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn is_own(&self, pod: &PodInfo) -> bool {
        pod.has_volumes()
    }

    fn filter(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Filter {
        let claims = match cluster.storage.claims(pod) {
            Ok(claims) if cluster.storage.are_everywhere(&claims) => return Filter::Skip,
            Ok(claims) => claims,
            Err(why) => return Filter::Reject(Rejection::unresolvable(why)),
        };
        Filter::own(
            move |node, _, cluster| match cluster.storage.plan(&claims, node) {
                Ok(_) => Ok(()),
                Err(reasons) => Err(Rejection {
                    reasons: reasons.into_iter().map(Into::into).collect(),
                    unresolvable: true,
                    error: false,
                }),
            },
        )
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        match event {
            ClusterEvent::NodeAdded(_) => Hint::Queue,
            ClusterEvent::NodeUpdated { old, new } => {
                Hint::queue_if(old.metadata.labels != new.metadata.labels)
            }
            ClusterEvent::Storage(event) => match event {
                StorageEvent::Claim { key, .. } => Hint::queue_if(uses(pod, key)),
                StorageEvent::Class {
                    added, topologies, ..
                } => Hint::queue_if(*added || *topologies),
                StorageEvent::Volume { .. }
                | StorageEvent::CsiNode
                | StorageEvent::CsiDriver
                | StorageEvent::Capacity => Hint::Queue,
                StorageEvent::Attachment => Hint::Skip,
            },
            _ => Hint::Skip,
        }
    }
}
