//! Whether a pod of a template could run on a node, as far as selectors, required node affinity
//! and taints say. What the scheduler looks at beyond that may change any time.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Toleration};

use crate::kinds::{Node, Taint};

/// The node's labels and name are what the pod wants.
pub fn selects(spec: &PodSpec, node: &Node) -> bool {
    let labels = &node.metadata.labels;
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(k, v)| labels.get(k) == Some(v));
    let affinity = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| {
        a.required_during_scheduling_ignored_during_execution
            .as_ref()
    });
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|t| term_matches(t, node)))
}

/// A term without requirements matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| node.metadata.labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(&*node.metadata.name);
    (!expressions.is_empty() || !fields.is_empty())
        && expressions
            .iter()
            .all(|r| requirement_matches(r, label(&r.key)))
        && fields.iter().all(|r| requirement_matches(r, field(&r.key)))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|v| values.iter().any(|x| x == v));
    let compared = |ok: fn(i64, i64) -> bool| {
        let bound: Option<i64> = values.first().and_then(|v| v.parse().ok());
        let own: Option<i64> = value.and_then(|v| v.parse().ok());
        matches!((own, bound), (Some(own), Some(bound)) if ok(own, bound))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(|own, bound| own > bound),
        "Lt" => compared(|own, bound| own < bound),
        _ => false,
    }
}

/// Whether one of the tolerations is for the taint.
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|t| {
        let any =
            |wanted: Option<&str>, have: &str| wanted.is_none_or(|w| w.is_empty() || w == have);
        let value = match t.operator.as_deref() {
            None | Some("" | "Equal") => t.value.as_deref().unwrap_or_default() == &*taint.value,
            Some("Exists") => true,
            Some(_) => false,
        };
        any(t.effect.as_deref(), &taint.effect) && any(t.key.as_deref(), &taint.key) && value
    })
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
    fn selectors_and_affinity() {
        assert!(fits(json!({})));
        assert!(fits(json!({"nodeSelector": {"disk": "ssd"}})));
        assert!(!fits(json!({"nodeSelector": {"disk": "hdd"}})));
        let expr = |key: &str, op: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": op, "values": values}]});
        assert!(fits(affinity(json!([expr(
            "disk",
            "In",
            json!(["hdd", "ssd"])
        )]))));
        assert!(!fits(affinity(json!([expr(
            "disk",
            "NotIn",
            json!(["ssd"])
        )]))));
        assert!(fits(affinity(json!([
            expr("cpus", "Gt", json!(["4"])),
            expr("x", "Exists", json!([]))
        ]))));
        assert!(!fits(affinity(json!([{}]))));
        assert!(!fits(affinity(json!([]))));
        let name = |n: &str| json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [n]}]}]);
        assert!(fits(affinity(name("n1"))) && !fits(affinity(name("n2"))));
    }
}
