//! What a pod asks of a node: selector, required node affinity, tolerated taints. The scheduler
//! places by it, the kubelet admits by it, and controllers foresee it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, Toleration,
};

/// The labels of an object.
type Labels = BTreeMap<String, String>;

/// The required terms: one of them must match. `None` when nothing is required.
pub fn required(affinity: &NodeAffinity) -> Option<&[NodeSelectorTerm]> {
    let selector = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    Some(&selector.node_selector_terms)
}

/// Whether a node is one of those that `nodeSelector` and node affinity require.
pub fn selects<'a>(
    selector: impl IntoIterator<Item = (&'a String, &'a String)>,
    affinity: Option<&NodeAffinity>,
    name: &str,
    labels: &Labels,
) -> bool {
    selector
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && affinity
            .and_then(required)
            .is_none_or(|terms| terms.iter().any(|t| matches(t, name, labels)))
}

/// Whether a node is what a term asks for. A term without requirements matches nothing.
pub fn matches(term: &NodeSelectorTerm, name: &str, labels: &Labels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| labels.get(key).map(String::as_str);
    let field = |key: &str| (key == "metadata.name").then_some(name);
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|r| meets(r, label(&r.key)))
        && fields.iter().all(|r| meets(r, field(&r.key)))
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|v| values.iter().any(|listed| listed == v));
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |with: fn(&i64, &i64) -> bool| match (value.and_then(number), values) {
        (Some(have), [one]) => number(one).is_some_and(|bound| with(&have, &bound)),
        _ => false,
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

/// Whether a toleration is for a taint: what it leaves out, it takes as it comes.
pub fn tolerates(toleration: &Toleration, key: &str, value: &str, effect: &str) -> bool {
    let is = |wanted: &Option<String>, found: &str| {
        let wanted = wanted.as_deref().unwrap_or_default();
        wanted.is_empty() || wanted == found
    };
    let same_value = match toleration.operator.as_deref() {
        Some("Exists") => true,
        None | Some("" | "Equal") => toleration.value.as_deref().unwrap_or_default() == value,
        Some(_) => false,
    };
    same_value && is(&toleration.effect, effect) && is(&toleration.key, key)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn labels() -> Labels {
        [("disk", "ssd"), ("cpus", "8")]
            .map(|(k, v)| (k.into(), v.into()))
            .into()
    }

    #[test]
    fn nodes_are_selected_by_labels_and_name() {
        let fits = |terms: Value| {
            let affinity: NodeAffinity = serde_json::from_value(json!({
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
            }))
            .unwrap();
            selects([], Some(&affinity), "n1", &labels())
        };
        let label = |key: &str, operator: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        let name = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        for (terms, want) in [
            (json!([label("disk", "In", json!(["hdd", "ssd"]))]), true),
            (json!([label("disk", "NotIn", json!(["ssd"]))]), false),
            (json!([label("gpu", "NotIn", json!(["ssd"]))]), true),
            (json!([label("gpu", "Exists", json!([]))]), false),
            (json!([label("gpu", "DoesNotExist", json!([]))]), true),
            (json!([label("cpus", "Gt", json!(["7"]))]), true),
            (json!([label("cpus", "Lt", json!(["8"]))]), false),
            (json!([label("disk", "Gt", json!(["7"]))]), false),
            (json!([name("n2"), name("n1")]), true),
            (json!([name("n2")]), false),
            (json!([{}]), false),
            (json!([]), false),
        ] {
            assert_eq!(fits(terms.clone()), want, "{terms}");
        }
        let selected = |key: &str, value: &str| {
            let selector = Labels::from([(key.into(), value.into())]);
            selects(&selector, None, "n1", &labels())
        };
        assert!(selected("disk", "ssd") && !selected("disk", "hdd") && !selected("gpu", ""));
        assert!(selects([], None, "n1", &labels()));
    }

    #[test]
    fn taints_are_tolerated_by_key_value_and_effect() {
        for (toleration, want) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "k", "value": "v"}), true),
            (
                json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"}),
                true,
            ),
            (json!({"key": "k"}), false),
            (json!({"key": "k", "value": "w"}), false),
            (json!({"key": "k", "operator": "Gt", "value": "v"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"operator": "Exists", "effect": "NoSchedule"}), false),
        ] {
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(
                tolerates(&parsed, "k", "v", "NoExecute"),
                want,
                "{toleration}"
            );
        }
    }
}
