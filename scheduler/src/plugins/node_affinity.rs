//! NodeAffinity: `nodeSelector` and node affinity, required and preferred.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeAffinity as Affinity, NodeSelectorRequirement, NodeSelectorTerm,
};

use crate::cache::{NodeInfo, Snapshot};
use crate::framework::{ClusterEvent, Filter, Hint, Normalize, Plugin, Rejection, Score};
use crate::model::PodInfo;

pub struct NodeAffinity;

const NO_MATCH: &str = "node(s) didn't match Pod's node affinity/selector";

fn affinity(pod: &PodInfo) -> Option<&Affinity> {
    pod.affinity.as_ref()?.node_affinity.as_ref()
}

/// The required terms: one of them must match. `None` when nothing is required.
fn required(pod: &PodInfo) -> Option<&[NodeSelectorTerm]> {
    let selector = affinity(pod)?
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    Some(&selector.node_selector_terms)
}

fn matches_pod(pod: &PodInfo, name: &str, labels: &BTreeMap<String, String>) -> bool {
    pod.node_selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && required(pod).is_none_or(|terms| terms.iter().any(|t| matches(t, name, labels)))
}

/// A term with no requirement matches nothing.
fn matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    !(expressions.is_empty() && fields.is_empty())
        && expressions
            .iter()
            .all(|r| meets(r, labels.get(&r.key).map(String::as_str)))
        && fields
            .iter()
            .all(|r| meets(r, (r.key == "metadata.name").then_some(name)))
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

/// Names that every required term asks for by `metadata.name`: no other node can match.
fn named(terms: &[NodeSelectorTerm]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for term in terms {
        let field = term
            .match_fields
            .iter()
            .flatten()
            .find(|r| r.key == "metadata.name" && r.operator == "In")?;
        names.extend(field.values.iter().flatten().cloned());
    }
    Some(names)
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter<'a>(&'a self, pod: &'a PodInfo, _snapshot: &'a Snapshot) -> Filter<'a> {
        if pod.node_selector.is_empty() && required(pod).is_none() {
            return Filter::Skip;
        }
        let judge = Box::new(|node: &NodeInfo| {
            if matches_pod(pod, &node.name, &node.labels) {
                return Ok(());
            }
            Err(Rejection::unresolvable(NO_MATCH))
        });
        match required(pod).and_then(named) {
            Some(names) => Filter::Only(names, judge),
            None => Filter::Node(judge),
        }
    }

    fn score<'a>(&'a self, pod: &'a PodInfo, _nodes: &[&NodeInfo]) -> Score<'a> {
        let preferred = affinity(pod)
            .and_then(|a| {
                a.preferred_during_scheduling_ignored_during_execution
                    .as_deref()
            })
            .unwrap_or_default();
        if preferred.is_empty() {
            return Score::Skip;
        }
        let weight = |node: &NodeInfo| {
            let met = preferred
                .iter()
                .filter(|p| matches(&p.preference, &node.name, &node.labels));
            met.map(|p| i64::from(p.weight)).sum()
        };
        Score::Node(Box::new(weight), Normalize::Highest)
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>) -> Hint {
        match event {
            ClusterEvent::NodeAdded(node) => {
                Hint::queue_if(matches_pod(pod, &node.metadata.name, &node.metadata.labels))
            }
            ClusterEvent::NodeUpdated { old, new } => Hint::queue_if(
                matches_pod(pod, &new.metadata.name, &new.metadata.labels)
                    && !matches_pod(pod, &old.metadata.name, &old.metadata.labels),
            ),
            ClusterEvent::PodChanged => Hint::Queue,
            ClusterEvent::PodGone { .. } => Hint::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{filter, node, pod};

    fn requiring(term: Value) -> std::sync::Arc<PodInfo> {
        pod(json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
        }}}))
    }

    #[test]
    fn operators_mean_what_the_api_says() {
        let node = node(
            "a",
            json!({"metadata": {"labels": {"zone": "x", "cores": "8"}}}),
        );
        for (key, operator, values, expected) in [
            ("zone", "In", json!(["x", "y"]), true),
            ("zone", "NotIn", json!(["x"]), false),
            ("disk", "NotIn", json!(["ssd"]), true),
            ("zone", "Exists", json!([]), true),
            ("disk", "DoesNotExist", json!([]), true),
            ("cores", "Gt", json!(["4"]), true),
            ("cores", "Lt", json!(["8"]), false),
            ("zone", "Gt", json!(["1"]), false),
        ] {
            let term =
                json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
            let verdict = filter(&NodeAffinity, &requiring(term), &node);
            assert_eq!(verdict.is_ok(), expected, "{key} {operator}");
        }
        assert!(filter(&NodeAffinity, &requiring(json!({})), &node).is_err());
    }

    #[test]
    fn a_name_narrows_the_nodes_down() {
        let pod = requiring(json!({
            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}],
        }));
        match NodeAffinity.filter(&pod, &Snapshot::default()) {
            Filter::Only(names, _) => assert_eq!(names, ["b"]),
            _ => panic!("only one node comes into question"),
        }
    }
}
