//! NodeDeclaredFeatures: a pod that uses a feature of kubelets goes to nodes that declare
//! it (KEP-5328).

use std::sync::Arc;

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection};
use crate::model::PodInfo;

pub struct NodeDeclaredFeatures;

impl Plugin for NodeDeclaredFeatures {
    fn name(&self) -> &'static str {
        "NodeDeclaredFeatures"
    }

    fn filter(&self, pod: &Arc<PodInfo>, _cluster: &Cache) -> Filter {
        if pod.features.is_empty() {
            return Filter::Skip;
        }
        let pod = Arc::clone(&pod.template);
        Filter::Local(Box::new(move |node| {
            let declared = |feature: &&str| node.features.iter().any(|f| f == feature);
            if pod.features.iter().all(declared) {
                return Ok(());
            }
            Err(Rejection::unresolvable(
                "node(s) didn't match Pod's required features",
            ))
        }))
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        match event {
            ClusterEvent::NodeAdded(_) => Hint::Queue,
            ClusterEvent::NodeUpdated { old, new } => {
                Hint::queue_if(old.status.declared_features != new.status.declared_features)
            }
            ClusterEvent::PodChanged { old } => Hint::queue_if(old.features != pod.features),
            _ => Hint::Skip,
        }
    }
}
