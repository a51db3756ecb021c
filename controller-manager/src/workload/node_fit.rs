//! Whether a pod of a template could run on a node, as far as selectors, required node affinity
//! and taints say. What the scheduler looks at beyond that may change any time.

use api::placement;
use k8s_openapi::api::core::v1::{PodSpec, Toleration};

use crate::kinds::{Node, Taint};

/// The node's labels and name are what the pod wants.
pub fn selects(spec: &PodSpec, node: &Node) -> bool {
    let affinity = spec.affinity.as_ref();
    placement::selects(
        spec.node_selector.iter().flatten(),
        affinity.and_then(|a| a.node_affinity.as_ref()),
        &node.metadata.name,
        &node.metadata.labels,
    )
}

/// Whether one of the tolerations is for the taint.
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations
        .iter()
        .any(|t| placement::tolerates(t, &taint.key, &taint.value, &taint.effect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node() -> Node {
        serde_json::from_value(
            json!({"metadata": {"name": "n1", "labels": {"disk": "ssd", "cpus": "8"}}}),
        )
        .unwrap()
    }

    fn fits(spec: Value) -> bool {
        let mut spec = spec;
        spec["containers"] = json!([]);
        selects(&serde_json::from_value(spec).unwrap(), &node())
    }

    fn affinity(terms: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": terms}}}})
    }

    #[test]
    fn selectors_and_affinity_count() {
        assert!(fits(json!({})));
        assert!(fits(json!({"nodeSelector": {"disk": "ssd"}})));
        assert!(!fits(json!({"nodeSelector": {"disk": "hdd"}})));
        let name = |n: &str| json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [n]}]}]);
        assert!(fits(affinity(name("n1"))) && !fits(affinity(name("n2"))));
    }
}
