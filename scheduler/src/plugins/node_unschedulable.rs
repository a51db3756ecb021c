//! NodeUnschedulable: keeps pods off cordoned nodes, unless they tolerate it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use super::taint_toleration::tolerates;
use crate::cache::Cache;
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection};
use crate::model::{PodInfo, Template};

pub struct NodeUnschedulable;

fn tolerates_unschedulable(pod: &Template) -> bool {
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    tolerates(&pod.tolerations, &taint)
}

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &Arc<PodInfo>, _cluster: &Cache) -> Filter {
        if tolerates_unschedulable(pod) {
            return Filter::Skip;
        }
        Filter::Local(Box::new(|node| {
            if node.unschedulable {
                return Err(Rejection::unresolvable("node(s) were unschedulable"));
            }
            Ok(())
        }))
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(!node.spec.unschedulable),
            ClusterEvent::NodeUpdated { old, new } => {
                Hint::queue_if(old.spec.unschedulable && !new.spec.unschedulable)
            }
            ClusterEvent::PodChanged { .. } => Hint::queue_if(tolerates_unschedulable(pod)),
            _ => Hint::Skip,
        }
    }
}
