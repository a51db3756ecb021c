//! NodeAffinity: `nodeSelector` and node affinity, required and preferred.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::placement::{self, matches};
use k8s_openapi::api::core::v1::{
    NodeAffinity as Affinity, NodeSelectorTerm, PreferredSchedulingTerm,
};

use crate::cache::{Cache, NodeInfo};
use crate::framework::{ClusterEvent, Filter, Hint, Normalize, Plugin, Rejection, Score};
use crate::model::{Node, PodInfo, Template};

/// `NodeAffinityArgs`.
#[derive(Debug, Clone, Default)]
pub struct NodeAffinity {
    /// What every pod of the profile asks for beside its own affinity.
    pub added: Option<Affinity>,
}

const ENFORCED: &str = "node(s) didn't match scheduler-enforced node affinity";
const CONFLICT: &str = "pod affinity terms conflict";
const NO_MATCH: &str = "node(s) didn't match Pod's node affinity/selector";

fn affinity(pod: &Template) -> Option<&Affinity> {
    pod.affinity.as_ref()?.node_affinity.as_ref()
}

/// The required terms: one of them must match. `None` when nothing is required.
fn required(pod: &Template) -> Option<&[NodeSelectorTerm]> {
    placement::required(affinity(pod)?)
}

/// Whether a node is one of those that the pod requires.
pub fn matches_pod(pod: &Template, name: &str, labels: &BTreeMap<String, String>) -> bool {
    placement::selects(&pod.node_selector, affinity(pod), name, labels)
}

/// Names that every required term asks for by `metadata.name`: no other node can match.
fn named(terms: &[NodeSelectorTerm]) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for term in terms {
        let fields = term.match_fields.iter().flatten();
        let mut of_term: Option<Vec<String>> = None;
        for field in fields.filter(|r| r.key == "metadata.name" && r.operator == "In") {
            let values = field.values.as_deref().unwrap_or_default();
            of_term = Some(match of_term {
                None => values.to_vec(),
                Some(before) => before.into_iter().filter(|n| values.contains(n)).collect(),
            });
        }
        names.extend(of_term?);
    }
    names.sort_unstable();
    names.dedup();
    (!terms.is_empty()).then_some(names)
}

fn preferred_of(affinity: Option<&Affinity>) -> Vec<PreferredSchedulingTerm> {
    affinity
        .and_then(|a| {
            a.preferred_during_scheduling_ignored_during_execution
                .clone()
        })
        .unwrap_or_default()
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &Arc<PodInfo>, _cluster: &Cache) -> Filter {
        let added = self
            .added
            .as_ref()
            .and_then(placement::required)
            .map(<[_]>::to_vec);
        if pod.node_selector.is_empty() && required(pod).is_none() && added.is_none() {
            return Filter::Skip;
        }
        let names = required(pod).and_then(named);
        if names.as_ref().is_some_and(Vec::is_empty) {
            return Filter::Reject(Rejection::unresolvable(CONFLICT));
        }
        let pod = Arc::clone(&pod.template);
        let judge = Box::new(move |node: &NodeInfo| {
            let enforced = added
                .as_ref()
                .is_none_or(|terms| terms.iter().any(|t| matches(t, &node.name, &node.labels)));
            if !enforced {
                return Err(Rejection::unresolvable(ENFORCED));
            }
            if matches_pod(&pod, &node.name, &node.labels) {
                return Ok(());
            }
            Err(Rejection::unresolvable(NO_MATCH))
        });
        match names {
            Some(names) => Filter::Only(names, judge),
            None => Filter::Local(judge),
        }
    }

    fn score(&self, pod: &Arc<PodInfo>, _cluster: &Cache) -> Score {
        let mut preferred = preferred_of(affinity(pod));
        preferred.extend(preferred_of(self.added.as_ref()));
        if preferred.is_empty() {
            return Score::Skip;
        }
        let weight = Box::new(move |node: &NodeInfo, _: &Cache| {
            let met = preferred
                .iter()
                .filter(|p| matches(&p.preference, &node.name, &node.labels));
            met.map(|p| i64::from(p.weight)).sum()
        });
        Score::Local(weight, Normalize::Highest)
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        let takes = |node: &Node| {
            let (name, labels) = (&node.metadata.name, &node.metadata.labels);
            let added = self.added.as_ref().and_then(placement::required);
            added.is_none_or(|terms| terms.iter().any(|t| matches(t, name, labels)))
                && matches_pod(pod, name, labels)
        };
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(takes(node)),
            ClusterEvent::NodeUpdated { old, new } => Hint::queue_if(takes(new) && !takes(old)),
            _ => Hint::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::testing::{api_node, filter, node, pod};

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
            let verdict = filter(&NodeAffinity::default(), &requiring(term), &node);
            assert_eq!(verdict.is_ok(), expected, "{key} {operator}");
        }
        assert!(filter(&NodeAffinity::default(), &requiring(json!({})), &node).is_err());
    }

    #[test]
    fn only_nodes_help() {
        let selects = pod(json!({"nodeSelector": {"zone": "x"}}));
        let hint = |event: &ClusterEvent<'_>| {
            let plugin = NodeAffinity::default();
            plugin.hint(&selects, event, &Cache::default())
        };
        // Such as the condition that the scheduler itself has written.
        let changed = ClusterEvent::PodChanged { old: &selects };
        assert_eq!(hint(&changed), Hint::Skip);
        let node = |zone: &str| api_node("a", json!({"metadata": {"labels": {"zone": zone}}}));
        let (old, new) = (node("y"), node("x"));
        assert_eq!(hint(&ClusterEvent::NodeAdded(&old)), Hint::Skip);
        let (old, new) = (&old, &new);
        assert_eq!(hint(&ClusterEvent::NodeUpdated { old, new }), Hint::Queue);
    }

    #[test]
    fn a_name_narrows_the_nodes_down() {
        let pod = requiring(json!({
            "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}],
        }));
        match NodeAffinity::default().filter(&pod, &Cache::default()) {
            Filter::Only(names, _) => assert_eq!(names, ["b"]),
            _ => panic!("only one node comes into question"),
        }
    }

    #[test]
    fn names_that_contradict_each_other_leave_none() {
        let is = |name: &str| json!({"key": "metadata.name", "operator": "In", "values": [name]});
        let pod = requiring(json!({"matchFields": [is("a"), is("b")]}));
        match NodeAffinity::default().filter(&pod, &Cache::default()) {
            Filter::Reject(rejection) => assert_eq!(rejection.reasons, [CONFLICT]),
            _ => panic!("no node has two names"),
        }
    }
}
