//! NodeName: a pod that names its node goes there or nowhere. Pods that name one are not
//! scheduled, so that this rejects none that the queue has; it is here for profiles that
//! name it.

use crate::cache::Cache;
use crate::framework::{ClusterEvent, Hint, Plugin};
use crate::model::PodInfo;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(node.metadata.name == pod.node_name),
            _ => Hint::Skip,
        }
    }
}
