//! Whether a node is one that a pod wants, and tolerates: required node affinity and taints. Pure.

use std::collections::BTreeMap;

use api::placement;
use k8s_openapi::api::core::v1::{Pod, Taint, Toleration};

use super::pod::PodExt;

/// The node's labels and name are what the pod asks for.
pub fn selects(pod: &Pod, node_name: &str, labels: &BTreeMap<String, String>) -> bool {
    let spec = pod.pod_spec();
    let affinity = spec.affinity.as_ref();
    placement::selects(
        spec.node_selector.iter().flatten(),
        affinity.and_then(|affinity| affinity.node_affinity.as_ref()),
        node_name,
        labels,
    )
}

/// Whether a taint that drives pods away (`NoExecute`) is not tolerated.
pub fn drives_away(pod: &Pod, taints: &[Taint]) -> bool {
    let tolerations = pod.pod_spec().tolerations.as_deref().unwrap_or_default();
    taints
        .iter()
        .filter(|taint| taint.effect == "NoExecute")
        .any(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

/// Whether the pod does not mind memory being short.
pub fn tolerates_memory_pressure(pod: &Pod) -> bool {
    let mut tolerations = pod.pod_spec().tolerations.iter().flatten();
    let key = "node.kubernetes.io/memory-pressure";
    tolerations.any(|own| placement::tolerates(own, key, "", "NoSchedule"))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let value = taint.value.as_deref().unwrap_or_default();
    placement::tolerates(toleration, &taint.key, value, &taint.effect)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(mut spec: Value) -> Pod {
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn selectors_and_affinity_count() {
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        let fits = |spec: Value| selects(&pod(spec), "n1", &labels);
        let named = |name: &str| {
            let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [term]}}}})
        };
        assert!(fits(json!({})) && fits(named("n1")) && !fits(named("n2")));
        assert!(!fits(json!({"nodeSelector": {"disk": "hdd"}})));
    }

    #[test]
    fn taints() {
        let taint = |effect: &str| -> Taint {
            serde_json::from_value(json!({"key": "k", "value": "v", "effect": effect})).unwrap()
        };
        let away = |tolerations: Value, effect: &str| {
            drives_away(&pod(json!({"tolerations": tolerations})), &[taint(effect)])
        };
        assert!(away(json!([]), "NoExecute"));
        assert!(!away(json!([]), "NoSchedule"));
        assert!(!away(json!([{"operator": "Exists"}]), "NoExecute"));
        assert!(!away(json!([{"key": "k", "value": "v"}]), "NoExecute"));
        assert!(away(json!([{"key": "k", "value": "w"}]), "NoExecute"));
    }
}
