//! Whether a node is one that a pod wants, and tolerates: required node affinity and taints. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration,
};

use super::pod::PodExt;

/// The node's labels and name are what the pod asks for.
pub fn selects(pod: &Pod, node_name: &str, labels: &BTreeMap<String, String>) -> bool {
    let spec = pod.pod_spec();
    let selected = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity
        .and_then(|node| {
            node.required_during_scheduling_ignored_during_execution
                .as_ref()
        })
        .map(|required| &required.node_selector_terms);
    spec.node_selector.iter().flatten().all(selected)
        && required.is_none_or(|terms| terms.iter().any(|term| matches(term, node_name, labels)))
}

/// A term without requirements matches nothing.
fn matches(term: &NodeSelectorTerm, node_name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(node_name);
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|r| meets(r, label(&r.key)))
        && fields.iter().all(|r| meets(r, field(&r.key)))
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |with: fn(&i64, &i64) -> bool| match (value.and_then(number), values) {
        (Some(own), [one]) => number(one).is_some_and(|bound| with(&own, &bound)),
        _ => false,
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

/// Whether a taint that drives pods away (`NoExecute`) is not tolerated.
pub fn drives_away(pod: &Pod, taints: &[Taint]) -> bool {
    let tolerations = pod.pod_spec().tolerations.as_deref().unwrap_or_default();
    taints
        .iter()
        .filter(|taint| taint.effect == "NoExecute")
        .any(|taint| !tolerations.iter().any(|t| tolerates(t, taint)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is = |field: &Option<String>, value: &str| {
        field
            .as_deref()
            .is_none_or(|field| field.is_empty() || field == value)
    };
    let value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => {
            toleration.value.as_deref().unwrap_or_default()
                == taint.value.as_deref().unwrap_or_default()
        }
        Some(_) => false,
    };
    is(&toleration.effect, &taint.effect) && is(&toleration.key, &taint.key) && value
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
    fn affinity() {
        let labels =
            BTreeMap::from([("disk", "ssd"), ("cpus", "8")].map(|(k, v)| (k.into(), v.into())));
        let fits = |term: Value| {
            let affinity = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [term]}}}});
            selects(&pod(affinity), "n1", &labels)
        };
        let label = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        for (term, want) in [
            (label("disk", "In", json!(["hdd", "ssd"])), true),
            (label("disk", "NotIn", json!(["ssd"])), false),
            (label("gpu", "NotIn", json!(["ssd"])), true),
            (label("gpu", "Exists", json!([])), false),
            (label("cpus", "Gt", json!(["7"])), true),
            (label("cpus", "Lt", json!(["8"])), false),
            (json!({}), false),
            (
                json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}),
                true,
            ),
        ] {
            assert_eq!(fits(term.clone()), want, "{term}");
        }
        assert!(selects(&pod(json!({})), "n1", &labels));
        assert!(!selects(
            &pod(json!({"nodeSelector": {"disk": "hdd"}})),
            "n1",
            &labels
        ));
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
