//! The plugins, one file each, in upstream's order of the default profile.

mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced;
mod node_resources_fit;
mod node_unschedulable;
mod scheduling_gates;
mod taint_toleration;

use crate::framework::Enabled;

/// The default profile (`default-scheduler`), with upstream's weights.
pub fn default_profile() -> Vec<Enabled> {
    vec![
        Enabled {
            plugin: Box::new(scheduling_gates::SchedulingGates),
            weight: 0,
        },
        Enabled {
            plugin: Box::new(node_unschedulable::NodeUnschedulable),
            weight: 0,
        },
        Enabled {
            plugin: Box::new(node_name::NodeName),
            weight: 0,
        },
        Enabled {
            plugin: Box::new(taint_toleration::TaintToleration),
            weight: 3,
        },
        Enabled {
            plugin: Box::new(node_affinity::NodeAffinity),
            weight: 2,
        },
        Enabled {
            plugin: Box::new(node_ports::NodePorts),
            weight: 0,
        },
        Enabled {
            plugin: Box::new(node_resources_fit::Fit),
            weight: 1,
        },
        Enabled {
            plugin: Box::new(node_resources_balanced::BalancedAllocation),
            weight: 1,
        },
    ]
}

#[cfg(test)]
pub mod testing {
    //! Pods and nodes from JSON, for the plugins' tests.

    use std::sync::Arc;

    use serde_json::{Value, json};

    use crate::cache::NodeInfo;
    use crate::model::{Node, Pod, PodInfo};

    pub fn pod(spec: Value) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
        PodInfo::new(&serde_json::from_value::<Pod>(pod).unwrap())
    }

    pub fn api_node(name: &str, rest: Value) -> Node {
        let mut node = json!({
            "metadata": {"name": name},
            "status": {"allocatable": {"cpu": "2", "memory": "2Gi", "pods": "10"}},
        });
        for (key, value) in rest.as_object().unwrap() {
            match node.get_mut(key).and_then(Value::as_object_mut) {
                Some(part) => part.extend(value.as_object().unwrap().clone()),
                None => node[key] = value.clone(),
            }
        }
        serde_json::from_value(node).unwrap()
    }

    pub fn node(name: &str, rest: Value) -> NodeInfo {
        NodeInfo::new(&api_node(name, rest))
    }

    /// What a plugin's filter says of one node.
    pub fn filter(
        plugin: &dyn crate::framework::Plugin,
        pod: &PodInfo,
        node: &NodeInfo,
    ) -> Result<(), crate::framework::Rejection> {
        use crate::framework::Filter;
        let snapshot = crate::cache::Snapshot {
            nodes: Arc::new(vec![Arc::new(node.clone())]),
        };
        match plugin.filter(pod, &snapshot) {
            Filter::Skip => Ok(()),
            Filter::Node(judge) | Filter::Only(_, judge) => judge(node),
        }
    }
}
