//! PodTopologySpread: pods of one sort are spread evenly over the domains of a topology.
//!
//! For one kind of pod and constraint there is a count of matching pods per domain; a
//! node's part in it is kept, so that a change of the node changes two numbers.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use meta::labels::Selector;

use super::node_affinity::matches_pod;
use super::taint_toleration::untolerated;
use crate::cache::{Cache, Key, NOWHERE, NodeInfo};
use crate::framework::{
    ClusterEvent, Filter, Hint, Judged, MAX_SCORE, Plugin, Rejection, Score, Shift, Verdict, Wide,
    change_scores,
};
use crate::model::terms::Spread;
use crate::model::{Node, PodInfo, Template};

const MISMATCH: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";

/// `PodTopologySpreadArgs`.
#[derive(Debug, Clone)]
pub struct PodTopologySpread {
    /// For pods that have no constraints of their own; their selectors come from Services
    /// and workloads.
    defaults: Vec<TopologySpreadConstraint>,
    /// The defaults are upstream's: nodes without a zone are spread over nonetheless.
    system: bool,
}

impl Default for PodTopologySpread {
    fn default() -> Self {
        let constraint = |topology_key: &str, max_skew| TopologySpreadConstraint {
            topology_key: topology_key.to_owned(),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            max_skew,
            ..TopologySpreadConstraint::default()
        };
        Self {
            defaults: vec![
                constraint(HOSTNAME, 3),
                constraint("topology.kubernetes.io/zone", 5),
            ],
            system: true,
        }
    }
}

impl PodTopologySpread {
    /// `defaultingType: List`.
    pub fn with_defaults(defaults: Vec<TopologySpreadConstraint>) -> Self {
        Self {
            defaults,
            system: false,
        }
    }

    /// The constraints of a pod, hard or soft, and whether they are defaults.
    fn constraints(&self, pod: &Template, hard: bool, siblings: &Selector) -> Vec<Spread> {
        if !pod.spread.is_empty() {
            let own = pod.spread.iter().filter(|c| c.hard == hard);
            return own.cloned().collect();
        }
        if siblings.is_empty() {
            return Vec::new();
        }
        self.defaults
            .iter()
            .filter_map(|c| Spread::new(c, &pod.labels))
            .filter(|c| c.hard == hard)
            .map(|c| Spread {
                selector: siblings.clone(),
                ..c
            })
            .collect()
    }

    fn siblings(&self, pod: &Template, cluster: &Cache) -> Selector {
        if pod.spread.is_empty() && !self.defaults.is_empty() {
            cluster.objects.siblings(pod)
        } else {
            Selector::everything()
        }
    }

    fn hard(&self, pod: &Template, cluster: &Cache) -> Vec<Spread> {
        self.constraints(pod, true, &self.siblings(pod, cluster))
    }
}

/// One constraint's counts.
struct Counts {
    spread: Spread,
    key: Key,
    hostname: bool,
    /// Of each domain: nodes that are counted, and pods on them.
    domains: Vec<(i64, i64)>,
    /// Of each node: the domain that it is counted in, and how many pods in it match,
    /// counted or not.
    nodes: Vec<(u32, i64)>,
    /// Whether the selector matches the pod itself.
    itself: i64,
    /// The two smallest counts of domains that there are, and the domain of the smallest.
    least: [(u32, i64); 2],
    present: usize,
}

/// The constraints of one kind of pod: hard for its filter, or soft for its score.
struct State {
    plugin: PodTopologySpread,
    pod: Arc<Template>,
    siblings: Selector,
    /// Nodes must have all topology keys to count.
    all_keys: bool,
    constraints: Vec<Counts>,
    /// What the siblings were worked out from.
    version: u64,
}

impl State {
    fn new(plugin: &PodTopologySpread, pod: &Arc<PodInfo>, hard: bool, cluster: &Cache) -> Self {
        let siblings = plugin.siblings(pod, cluster);
        let constraints = plugin.constraints(pod, hard, &siblings);
        Self {
            plugin: plugin.clone(),
            pod: Arc::clone(&pod.template),
            siblings,
            all_keys: hard || !pod.spread.is_empty() || !plugin.system,
            constraints: constraints
                .into_iter()
                .map(|spread| Counts {
                    key: cluster.topology_key(&spread.topology_key),
                    hostname: &*spread.topology_key == HOSTNAME,
                    domains: Vec::new(),
                    nodes: Vec::new(),
                    itself: spread.selector.matches_labels(Some(&pod.labels)).into(),
                    least: [(NOWHERE, i64::MAX); 2],
                    present: 0,
                    spread,
                })
                .collect(),
            version: cluster.objects.version(&pod.namespace),
        }
    }

    /// Whether the node has the topology keys it must have.
    fn has_keys(&self, slot: usize, cluster: &Cache) -> bool {
        let topology = cluster.topology();
        !self.all_keys
            || self
                .constraints
                .iter()
                .all(|c| topology.domain(c.key, slot) != NOWHERE)
    }
}

impl Counts {
    /// Whether a node counts, by the constraint's policies.
    fn includes(&self, pod: &Template, node: &NodeInfo) -> bool {
        (!self.spread.honor_affinity || matches_pod(pod, &node.name, &node.labels))
            && (!self.spread.honor_taints || untolerated(&node.taints, pod).is_none())
    }

    fn count(&mut self, domain: u32, nodes: i64, pods: i64) {
        let at = domain as usize;
        if self.domains.len() <= at {
            self.domains.resize(at + 1, (0, 0));
        }
        self.domains[at].0 += nodes;
        self.domains[at].1 += pods;
    }

    fn settle(&mut self) {
        self.present = 0;
        self.least = [(NOWHERE, i64::MAX); 2];
        for (domain, (nodes, pods)) in (0_u32..).zip(&self.domains) {
            if *nodes == 0 {
                continue;
            }
            self.present += 1;
            if *pods < self.least[0].1 {
                self.least[1] = self.least[0];
                self.least[0] = (domain, *pods);
            } else if *pods < self.least[1].1 {
                self.least[1] = (domain, *pods);
            }
        }
    }

    /// The smallest count of a domain if that of `domain` were `pods`.
    fn least(&self, domain: u32, pods: i64) -> i64 {
        if self.present < self.spread.min_domains {
            return 0;
        }
        let other = if self.least[0].0 == domain {
            self.least[1].1
        } else {
            self.least[0].1
        };
        let own = self
            .domains
            .get(domain as usize)
            .is_some_and(|(nodes, _)| *nodes > 0);
        if own {
            other.min(pods)
        } else {
            self.least[0].1
        }
    }
}

impl Wide for State {
    fn holds(&mut self, cluster: &Cache) -> bool {
        let version = cluster.objects.version(&self.pod.namespace);
        if version == self.version {
            return true;
        }
        self.version = version;
        self.siblings == self.plugin.siblings(&self.pod, cluster)
    }

    fn refresh(&mut self, slot: usize, cluster: &Cache) {
        if self.constraints.is_empty() {
            return;
        }
        let node = cluster.node(slot);
        let has_keys = node.is_some() && self.has_keys(slot, cluster);
        for counts in &mut self.constraints {
            if counts.nodes.len() <= slot {
                counts.nodes.resize(slot + 1, (NOWHERE, 0));
            }
            let (domain, pods) = counts.nodes[slot];
            if domain != NOWHERE {
                counts.count(domain, -1, -pods);
            }
            counts.nodes[slot] = (NOWHERE, 0);
            let Some(node) = node else {
                continue;
            };
            let groups = node.groups.iter().filter(|group| {
                group.template.namespace == self.pod.namespace
                    && counts.spread.counts(&group.template.labels)
            });
            let pods = groups.map(|g| i64::from(g.pods - g.deleting)).sum();
            let mut domain = cluster.topology().domain(counts.key, slot);
            if !has_keys || !counts.includes(&self.pod, node) {
                domain = NOWHERE;
            }
            if domain != NOWHERE {
                counts.count(domain, 1, pods);
            }
            counts.nodes[slot] = (domain, pods);
        }
    }

    fn settle(&mut self, _cluster: &Cache) {
        // Only filters ask for the least; there may be as many domains as nodes.
        let constraints = self.constraints.iter_mut();
        constraints
            .filter(|c| c.spread.hard)
            .for_each(Counts::settle);
    }

    fn is_idle(&self) -> bool {
        self.constraints.is_empty()
    }

    fn judge(&self, node: &NodeInfo, shifts: &[Shift], cluster: &Cache) -> Verdict {
        let counted = |counts: &Counts, shift: &Shift| {
            shift.pod.namespace == self.pod.namespace
                && counts
                    .spread
                    .selector
                    .matches_labels(Some(&shift.pod.labels))
        };
        let has_keys = shifts.is_empty() || self.has_keys(node.slot, cluster);
        for counts in &self.constraints {
            let domain = cluster.topology().domain(counts.key, node.slot);
            if domain == NOWHERE {
                return Err(Rejection::unresolvable(NO_LABEL));
            }
            let mut pods = counts
                .domains
                .get(domain as usize)
                .map_or(0, |(_, pods)| *pods);
            if !shifts.is_empty() && has_keys && counts.includes(&self.pod, node) {
                let of_it = shifts.iter().filter(|shift| counted(counts, shift));
                pods += of_it.map(|shift| shift.by).sum::<i64>();
            }
            let skew = pods + counts.itself - counts.least(domain, pods);
            if skew > counts.spread.max_skew {
                return Err(Rejection::resolvable(MISMATCH));
            }
        }
        Ok(())
    }

    fn judge_all(&self, slots: usize, cluster: &Cache) -> Judged {
        let mut said = vec![0; slots];
        let topology = cluster.topology();
        // The first constraint has the last word.
        for counts in self.constraints.iter().rev() {
            let domains = 0..u32::try_from(topology.domains(counts.key)).unwrap_or(NOWHERE);
            let crowded: Vec<bool> = domains
                .map(|domain| {
                    let pods = counts.domains.get(domain as usize);
                    let pods = pods.map_or(0, |(_, pods)| *pods);
                    let skew = pods + counts.itself - counts.least(domain, pods);
                    skew > counts.spread.max_skew
                })
                .collect();
            for (said, domain) in said.iter_mut().zip(topology.column(counts.key)) {
                match crowded.get(*domain as usize) {
                    None => *said = 1,
                    Some(true) => *said = 2,
                    Some(false) => {}
                }
            }
        }
        Judged {
            said,
            rejections: vec![
                Rejection::unresolvable(NO_LABEL),
                Rejection::resolvable(MISMATCH),
            ],
        }
    }

    fn ignores(&self, _kind: &Template) -> bool {
        self.constraints.is_empty()
    }

    fn score(&self, slots: &[usize], cluster: &Cache) -> Option<Vec<i64>> {
        if self.constraints.is_empty() {
            return None;
        }
        let topology = cluster.topology();
        let mut ignored = vec![false; slots.len()];
        for counts in self.constraints.iter().filter(|_| self.all_keys) {
            let column = topology.column(counts.key);
            for (ignored, slot) in ignored.iter_mut().zip(slots) {
                *ignored |= column.get(*slot).is_none_or(|domain| *domain == NOWHERE);
            }
        }
        let scored = ignored.iter().filter(|ignored| !**ignored).count();
        let mut sums = vec![0_f64; slots.len()];
        for counts in &self.constraints {
            let column = topology.column(counts.key);
            let domain_of = |slot: usize| column.get(slot).copied().unwrap_or(NOWHERE);
            // A domain of few weighs less than one of many.
            let mut seen = vec![false; topology.domains(counts.key) + 1];
            let mut size = 0_u32;
            if counts.hostname {
                size = u32::try_from(scored).unwrap_or(u32::MAX);
            } else {
                for (slot, ignored) in slots.iter().zip(&ignored) {
                    let domain = domain_of(*slot) as usize;
                    // Nodes without the label are a domain of their own here.
                    let at = domain.min(seen.len() - 1);
                    if !ignored && !std::mem::replace(&mut seen[at], true) {
                        size += 1;
                    }
                }
            }
            let weight = (f64::from(size) + 2.0).ln();
            #[allow(clippy::cast_precision_loss, reason = "numbers of pods")]
            let share = |pods: i64| pods as f64 * weight + (counts.spread.max_skew - 1) as f64;
            let nobody = share(0);
            let shares: Vec<f64> = match counts.hostname {
                true => counts.nodes.iter().map(|(_, pods)| share(*pods)).collect(),
                false => (counts.domains.iter())
                    .map(|(_, pods)| share(*pods))
                    .collect(),
            };
            for ((sum, slot), ignored) in sums.iter_mut().zip(slots).zip(&ignored) {
                let domain = domain_of(*slot);
                if *ignored || domain == NOWHERE {
                    continue;
                }
                let at = if counts.hostname {
                    *slot
                } else {
                    domain as usize
                };
                *sum += shares.get(at).copied().unwrap_or(nobody);
            }
        }
        let mut scores: Vec<i64> = sums.into_iter().map(rounded).collect();
        let (mut least, mut most) = (i64::MAX, 0);
        for (score, _) in scores
            .iter()
            .zip(&ignored)
            .filter(|(_, ignored)| !**ignored)
        {
            least = least.min(*score);
            most = most.max(*score);
        }
        if most == 0 {
            scores.fill(MAX_SCORE);
        } else {
            change_scores(&mut scores, least, most, |score| {
                MAX_SCORE * (most + least - score) / most
            });
        }
        for (score, _) in scores
            .iter_mut()
            .zip(&ignored)
            .filter(|(_, ignored)| **ignored)
        {
            *score = 0;
        }
        Some(scores)
    }
}

/// The nearest whole number of one that is not negative, as `f64::round` has it.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "numbers of pods, times a small weight"
)]
fn rounded(sum: f64) -> i64 {
    let whole = sum as i64;
    whole + i64::from(sum - whole as f64 >= 0.5)
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn filter(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Filter {
        let may = if pod.spread.is_empty() {
            self.defaults
                .iter()
                .any(|c| c.when_unsatisfiable == "DoNotSchedule")
        } else {
            pod.spread.iter().any(|c| c.hard)
        };
        if !may {
            return Filter::Skip;
        }
        Filter::Wide(Box::new(State::new(self, pod, true, cluster)))
    }

    fn score(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Score {
        let may = if pod.spread.is_empty() {
            !self.defaults.is_empty()
        } else {
            pod.spread.iter().any(|c| !c.hard)
        };
        if !may {
            return Score::Skip;
        }
        Score::Wide(Box::new(State::new(self, pod, false, cluster)))
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, cluster: &Cache) -> Hint {
        let constraints = self.hard(pod, cluster);
        let any = |labels: &BTreeMap<String, String>| {
            constraints
                .iter()
                .any(|c| c.selector.matches_labels(Some(labels)))
        };
        let differs = |old: &PodInfo, new: &PodInfo| {
            constraints.iter().any(|c| {
                c.selector.matches_labels(Some(&old.labels))
                    != c.selector.matches_labels(Some(&new.labels))
            })
        };
        let has_keys = |node: &Node| {
            constraints
                .iter()
                .all(|c| node.metadata.labels.contains_key(&*c.topology_key))
        };
        match event {
            ClusterEvent::PodAdded(other) | ClusterEvent::PodGone(other) => {
                Hint::queue_if(other.namespace == pod.namespace && any(&other.labels))
            }
            ClusterEvent::PodUpdated { old, new } => {
                Hint::queue_if(new.namespace == pod.namespace && differs(old, new))
            }
            ClusterEvent::PodChanged { old } => {
                let tolerates = old.tolerations != pod.tolerations
                    && constraints.iter().any(|c| c.honor_taints);
                Hint::queue_if(tolerates || differs(old, pod))
            }
            ClusterEvent::NodeAdded(node) | ClusterEvent::NodeGone(node) => {
                Hint::queue_if(has_keys(node))
            }
            ClusterEvent::NodeUpdated { old, new } => {
                let moved = || {
                    constraints.iter().any(|c| {
                        let key = &*c.topology_key;
                        old.metadata.labels.get(key) != new.metadata.labels.get(key)
                    })
                };
                Hint::queue_if(
                    has_keys(old) != has_keys(new)
                        || (has_keys(new) && (moved() || old.spec.taints != new.spec.taints)),
                )
            }
            ClusterEvent::Storage(_) | ClusterEvent::Devices(_) => Hint::Skip,
        }
    }
}
