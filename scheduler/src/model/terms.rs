//! Terms of inter-pod affinity and constraints of topology spread, parsed once per kind of
//! pod.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Affinity, PodAffinityTerm, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use meta::labels::{Operator, Requirement, Selector};

type Labels = BTreeMap<String, String>;

/// A group of pods, and the topology in which to be together with them or apart.
#[derive(Debug, Clone)]
pub struct Term {
    namespaces: BTreeSet<String>,
    namespace_selector: Selector,
    selector: Selector,
    pub topology_key: Box<str>,
}

impl Term {
    /// `None` for a selector that the API should not have let in: it selects nobody.
    fn new(term: &PodAffinityTerm, namespace: &str) -> Option<Self> {
        let selector = Selector::from_label_selector(term.label_selector.as_ref()).ok()?;
        let namespace_selector =
            Selector::from_label_selector(term.namespace_selector.as_ref()).ok()?;
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        Some(Self {
            namespaces,
            namespace_selector,
            selector,
            topology_key: term.topology_key.as_str().into(),
        })
    }

    /// Whether a pod with these labels in this namespace (which has its own labels) is of
    /// the group.
    pub fn matches(&self, namespace: &str, of_namespace: &Labels, labels: &Labels) -> bool {
        (self.namespaces.contains(namespace)
            || self.namespace_selector.matches_labels(Some(of_namespace)))
            && self.selector.matches_labels(Some(labels))
    }
}

/// What a pod wants of other pods.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    pub affinity: Vec<Term>,
    pub anti_affinity: Vec<Term>,
    pub preferred: Vec<(i64, Term)>,
    /// With negative weights.
    pub avoided: Vec<(i64, Term)>,
}

impl Terms {
    pub fn new(affinity: Option<&Affinity>, namespace: &str) -> Self {
        let required = |terms: Option<&Vec<PodAffinityTerm>>| -> Vec<Term> {
            let terms = terms.into_iter().flatten();
            terms.filter_map(|t| Term::new(t, namespace)).collect()
        };
        let weighted = |terms: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| {
            let terms = terms.into_iter().flatten();
            terms
                .filter_map(|t| {
                    let weight = sign * i64::from(t.weight);
                    Some((weight, Term::new(&t.pod_affinity_term, namespace)?))
                })
                .collect::<Vec<(i64, Term)>>()
        };
        let together = affinity.and_then(|a| a.pod_affinity.as_ref());
        let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        Self {
            affinity: required(together.and_then(|t| {
                t.required_during_scheduling_ignored_during_execution
                    .as_ref()
            })),
            anti_affinity: required(apart.and_then(|t| {
                t.required_during_scheduling_ignored_during_execution
                    .as_ref()
            })),
            preferred: weighted(
                together.and_then(|t| {
                    t.preferred_during_scheduling_ignored_during_execution
                        .as_ref()
                }),
                1,
            ),
            avoided: weighted(
                apart.and_then(|t| {
                    t.preferred_during_scheduling_ignored_during_execution
                        .as_ref()
                }),
                -1,
            ),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.affinity.is_empty()
            && self.anti_affinity.is_empty()
            && self.preferred.is_empty()
            && self.avoided.is_empty()
    }
}

/// How pods are to be spread over the domains of a topology.
#[derive(Debug, Clone)]
pub struct Spread {
    pub max_skew: i64,
    pub topology_key: Box<str>,
    /// `DoNotSchedule`, rather than `ScheduleAnyway`.
    pub hard: bool,
    pub selector: Selector,
    pub min_domains: usize,
    /// Only nodes that the pod's node affinity matches are counted.
    pub honor_affinity: bool,
    /// Only nodes whose taints the pod tolerates are counted.
    pub honor_taints: bool,
}

impl Spread {
    /// `None` for a selector that the API should not have let in.
    pub fn new(constraint: &TopologySpreadConstraint, labels: &Labels) -> Option<Self> {
        let mut selector =
            Selector::from_label_selector(constraint.label_selector.as_ref()).ok()?;
        for key in constraint.match_label_keys.iter().flatten() {
            // A pod without the label is not told apart by it.
            if let Some(value) = labels.get(key)
                && let Ok(r) = Requirement::new(key, Operator::Equals, vec![value.clone()])
                && !selector.is_nothing()
            {
                selector = selector.and(r);
            }
        }
        let honors = |policy: Option<&String>, otherwise: bool| {
            policy.map_or(otherwise, |policy| policy == "Honor")
        };
        Some(Self {
            max_skew: constraint.max_skew.into(),
            topology_key: constraint.topology_key.as_str().into(),
            hard: constraint.when_unsatisfiable == "DoNotSchedule",
            selector,
            min_domains: constraint
                .min_domains
                .and_then(|n| n.try_into().ok())
                .unwrap_or(1),
            honor_affinity: honors(constraint.node_affinity_policy.as_ref(), true),
            honor_taints: honors(constraint.node_taints_policy.as_ref(), false),
        })
    }

    /// A selector that selects everything counts nobody, as upstream has it; it still is
    /// said to match the pod itself.
    pub fn counts(&self, labels: &Labels) -> bool {
        !self.selector.is_empty() && self.selector.matches_labels(Some(labels))
    }
}
