//! NodeName: a pod that names its node goes there or nowhere.

use crate::cache::Snapshot;
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection};
use crate::model::PodInfo;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
        if pod.node_name.is_empty() {
            return Filter::Skip;
        }
        Filter::Node(Box::new(|node| {
            if node.name == pod.node_name {
                return Ok(());
            }
            Err(Rejection::unresolvable(
                "node(s) didn't match the requested node name",
            ))
        }))
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(node.metadata.name == pod.node_name),
            _ => Hint::Skip,
        }
    }
}
