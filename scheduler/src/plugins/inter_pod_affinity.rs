//! InterPodAffinity: pods that must or would rather be in one domain with others, or apart
//! from them; and what pods that are there already ask of a new one.
//!
//! For one kind of pod there is a column of counters per topology key and purpose, by
//! domain. A node's part in them is kept, so that a change of the node is a subtraction and
//! an addition.

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::{Cache, Key, NOWHERE, NodeInfo};
use crate::framework::{
    ClusterEvent, Filter, Hint, Judged, MAX_SCORE, Plugin, Rejection, Score, Shift, Verdict, Wide,
    change_scores,
};
use crate::model::terms::Term;
use crate::model::{PodInfo, Template};

const AFFINITY: &str = "node(s) didn't match pod affinity rules";
const ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
const EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// `InterPodAffinityArgs`.
#[derive(Debug, Clone, Copy)]
pub struct InterPodAffinity {
    /// What a required affinity of a pod that is there is worth to the pod it is for.
    pub hard_pod_affinity_weight: i64,
    pub ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for InterPodAffinity {
    fn default() -> Self {
        Self {
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
        }
    }
}

/// What a column counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Pods that match all of the pod's required terms.
    Affinity,
    /// Pods that match a term that the pod must not be with.
    Anti,
    /// Pods that must not be with the pod.
    Existing,
    /// Weights of what the pod and the others prefer.
    Preference,
}

#[derive(Debug)]
struct Column {
    purpose: Purpose,
    key: Key,
    by_domain: Vec<i64>,
}

/// What one pod adds to a column.
type Part = (usize, i64);

/// Counters for one kind of pod: for its filter, or for its score.
struct Counters {
    pod: Arc<Template>,
    plugin: InterPodAffinity,
    scoring: bool,
    columns: Vec<Column>,
    /// What a pod of each kind adds; nothing for most.
    parts: HashMap<u32, Vec<Part>>,
    /// What each node has added: column, domain, amount.
    added: Vec<Vec<(usize, u32, i64)>>,
    /// Keys of the pod's required terms.
    affinity: Vec<Key>,
    /// Whether the pod itself is one that it wants to be with.
    matches_itself: bool,
    /// The sum over the columns of [`Purpose::Affinity`].
    friends: i64,
    /// Neither this kind of pod nor anybody there has terms: there is nothing to count.
    blind: bool,
}

fn matches(term: &Term, pod: &Template, cluster: &Cache) -> bool {
    let namespace = cluster.objects.namespace(&pod.namespace);
    term.matches(&pod.namespace, namespace, &pod.labels)
}

fn matches_all(terms: &[Term], pod: &Template, cluster: &Cache) -> bool {
    !terms.is_empty() && terms.iter().all(|term| matches(term, pod, cluster))
}

impl Counters {
    fn new(pod: &Arc<PodInfo>, plugin: InterPodAffinity, scoring: bool, cluster: &Cache) -> Self {
        let keys = |terms: &[Term]| {
            terms
                .iter()
                .map(|t| cluster.topology_key(&t.topology_key))
                .collect()
        };
        Self {
            pod: Arc::clone(&pod.template),
            plugin,
            scoring,
            columns: Vec::new(),
            parts: HashMap::new(),
            added: Vec::new(),
            affinity: if scoring {
                Vec::new()
            } else {
                keys(&pod.terms.affinity)
            },
            matches_itself: matches_all(&pod.terms.affinity, pod, cluster),
            friends: 0,
            blind: pod.terms.is_empty() && !cluster.has_terms(),
        }
    }

    /// Whether it can make a difference that pods of this kind are somewhere.
    fn concerns(&self, other: &Template) -> bool {
        let (mine, theirs) = (&self.pod.terms, &other.terms);
        if self.scoring {
            !mine.preferred.is_empty()
                || !mine.avoided.is_empty()
                || !(theirs.is_empty() || self.plugin.ignore_preferred_terms_of_existing_pods)
        } else {
            !mine.affinity.is_empty()
                || !mine.anti_affinity.is_empty()
                || !theirs.anti_affinity.is_empty()
        }
    }

    /// What one pod of another kind adds to which columns.
    fn parts_of(&self, other: &Template, cluster: &Cache) -> Vec<(Purpose, Key, i64)> {
        let mut parts = Vec::new();
        let mut add = |purpose, term: &Term, amount: i64| {
            parts.push((purpose, cluster.topology_key(&term.topology_key), amount));
        };
        let (mine, theirs) = (&self.pod.terms, &other.terms);
        if !self.scoring {
            if matches_all(&mine.affinity, other, cluster) {
                for term in &mine.affinity {
                    add(Purpose::Affinity, term, 1);
                }
            }
            for term in &mine.anti_affinity {
                if matches(term, other, cluster) {
                    add(Purpose::Anti, term, 1);
                }
            }
            for term in &theirs.anti_affinity {
                if matches(term, &self.pod, cluster) {
                    add(Purpose::Existing, term, 1);
                }
            }
            return parts;
        }
        for (weight, term) in mine.preferred.iter().chain(&mine.avoided) {
            if matches(term, other, cluster) {
                add(Purpose::Preference, term, *weight);
            }
        }
        if self.plugin.hard_pod_affinity_weight > 0 {
            for term in &theirs.affinity {
                if matches(term, &self.pod, cluster) {
                    add(
                        Purpose::Preference,
                        term,
                        self.plugin.hard_pod_affinity_weight,
                    );
                }
            }
        }
        for (weight, term) in theirs.preferred.iter().chain(&theirs.avoided) {
            if matches(term, &self.pod, cluster) {
                add(Purpose::Preference, term, *weight);
            }
        }
        parts
    }

    fn column(&mut self, purpose: Purpose, key: Key) -> usize {
        let known = self
            .columns
            .iter()
            .position(|c| c.purpose == purpose && c.key == key);
        known.unwrap_or_else(|| {
            self.columns.push(Column {
                purpose,
                key,
                by_domain: Vec::new(),
            });
            self.columns.len() - 1
        })
    }

    fn count(&mut self, column: usize, domain: u32, amount: i64) {
        let column = &mut self.columns[column];
        let domain = domain as usize;
        if column.by_domain.len() <= domain {
            column.by_domain.resize(domain + 1, 0);
        }
        column.by_domain[domain] += amount;
        if column.purpose == Purpose::Affinity {
            self.friends += amount;
        }
    }

    /// The sum of a purpose's counters of a key for a node, with what `shifts` changes.
    fn at(&self, purpose: Purpose, key: Key, node: &NodeInfo, cluster: &Cache) -> i64 {
        let domain = cluster.topology().domain(key, node.slot);
        let column = self
            .columns
            .iter()
            .find(|c| c.purpose == purpose && c.key == key);
        column
            .and_then(|c| c.by_domain.get(domain as usize))
            .copied()
            .unwrap_or(0)
    }
}

impl Wide for Counters {
    fn is_idle(&self) -> bool {
        self.affinity.is_empty() && self.columns.is_empty()
    }

    fn holds(&mut self, cluster: &Cache) -> bool {
        !(self.blind && cluster.has_terms())
    }

    fn is_blind(&self) -> bool {
        self.blind
    }

    fn refresh(&mut self, slot: usize, cluster: &Cache) {
        if self.blind {
            return;
        }
        if self.added.len() <= slot {
            self.added.resize_with(slot + 1, Vec::new);
        }
        for (column, domain, amount) in std::mem::take(&mut self.added[slot]) {
            self.count(column, domain, -amount);
        }
        let Some(node) = cluster.node(slot) else {
            return;
        };
        let mut added: Vec<(usize, u32, i64)> = Vec::new();
        for group in &node.groups {
            if !self.concerns(&group.template) {
                continue;
            }
            let id = group.template.id;
            if !self.parts.contains_key(&id) {
                let parts = self.parts_of(&group.template, cluster);
                let parts = parts
                    .into_iter()
                    .map(|(purpose, key, amount)| (self.column(purpose, key), amount))
                    .collect();
                self.parts.insert(id, parts);
            }
            let topology = cluster.topology();
            for (column, amount) in &self.parts[&id] {
                let domain = topology.domain(self.columns[*column].key, slot);
                if domain != NOWHERE {
                    added.push((*column, domain, amount * i64::from(group.pods)));
                }
            }
        }
        for (column, domain, amount) in &added {
            self.count(*column, *domain, *amount);
        }
        self.added[slot] = added;
    }

    fn judge(&self, node: &NodeInfo, shifts: &[Shift], cluster: &Cache) -> Verdict {
        let mut shifted: Vec<(Purpose, Key, i64)> = Vec::new();
        for shift in shifts.iter().filter(|s| self.concerns(&s.pod)) {
            let parts = self.parts_of(&shift.pod, cluster);
            shifted.extend(parts.into_iter().map(|(p, k, n)| (p, k, n * shift.by)));
        }
        let shift = |purpose: Purpose, key: Key| -> i64 {
            let of_it = shifted
                .iter()
                .filter(|(p, k, _)| (*p, *k) == (purpose, key));
            of_it.map(|(_, _, n)| n).sum()
        };
        let lives = |key: Key| -> bool { cluster.topology().domain(key, node.slot) != NOWHERE };

        let mut together = true;
        for key in &self.affinity {
            if !lives(*key) {
                return Err(Rejection::unresolvable(AFFINITY));
            }
            let count = self.at(Purpose::Affinity, *key, node, cluster);
            together &= count + shift(Purpose::Affinity, *key) > 0;
        }
        if !together {
            // The first of pods that want to be together has nobody to be with yet.
            let shifted: i64 = shifted
                .iter()
                .filter(|(p, k, _)| *p == Purpose::Affinity && lives(*k))
                .map(|(_, _, n)| n)
                .sum();
            if self.friends + shifted != 0 || !self.matches_itself {
                return Err(Rejection::unresolvable(AFFINITY));
            }
        }
        for (purpose, reason) in [
            (Purpose::Anti, ANTI_AFFINITY),
            (Purpose::Existing, EXISTING),
        ] {
            let columns = self.columns.iter().filter(|c| c.purpose == purpose);
            let keys = columns.map(|c| c.key);
            let news = shifted.iter().filter(|(p, ..)| *p == purpose);
            for key in keys.chain(news.map(|(_, k, _)| *k)) {
                if lives(key) && self.at(purpose, key, node, cluster) + shift(purpose, key) > 0 {
                    return Err(Rejection::resolvable(reason));
                }
            }
        }
        Ok(())
    }

    fn judge_all(&self, slots: usize, cluster: &Cache) -> Judged {
        let mut said = vec![0; slots];
        let topology = cluster.topology();
        // What is asked first has the last word.
        for (purpose, reason) in [(Purpose::Existing, 3), (Purpose::Anti, 2)] {
            for column in self.columns.iter().filter(|c| c.purpose == purpose) {
                for (said, domain) in said.iter_mut().zip(topology.column(column.key)) {
                    let pods = column.by_domain.get(*domain as usize).copied();
                    if pods.unwrap_or(0) > 0 {
                        *said = reason;
                    }
                }
            }
        }
        // The first of pods that want to be together may go anywhere.
        let first = self.friends == 0 && self.matches_itself;
        for key in &self.affinity {
            let mut columns = self.columns.iter();
            let column = columns.find(|c| (c.purpose, c.key) == (Purpose::Affinity, *key));
            let by_domain = column.map_or(&[][..], |column| &column.by_domain);
            for (said, domain) in said.iter_mut().zip(topology.column(*key)) {
                let friends = by_domain.get(*domain as usize).copied().unwrap_or(0);
                if *domain == NOWHERE || !(first || friends > 0) {
                    *said = 1;
                }
            }
        }
        Judged {
            said,
            rejections: vec![
                Rejection::unresolvable(AFFINITY),
                Rejection::resolvable(ANTI_AFFINITY),
                Rejection::resolvable(EXISTING),
            ],
        }
    }

    fn ignores(&self, kind: &Template) -> bool {
        self.is_idle() && !self.concerns(kind)
    }

    fn score(&self, slots: &[usize], cluster: &Cache) -> Option<Vec<i64>> {
        if self.columns.is_empty() {
            return None;
        }
        let mut scores = vec![0_i64; slots.len()];
        let topology = cluster.topology();
        for column in &self.columns {
            let domains = topology.column(column.key);
            for (score, slot) in scores.iter_mut().zip(slots) {
                let domain = domains.get(*slot).map_or(usize::MAX, |d| *d as usize);
                *score += column.by_domain.get(domain).copied().unwrap_or(0);
            }
        }
        let (mut least, mut most) = (i64::MAX, i64::MIN);
        for score in &scores {
            least = least.min(*score);
            most = most.max(*score);
        }
        if least >= most {
            return None;
        }
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "0 to 100, rounded as upstream does"
        )]
        change_scores(&mut scores, least, most, |score| {
            (MAX_SCORE as f64 * ((score - least) as f64 / (most - least) as f64)) as i64
        });
        Some(scores)
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn filter(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Filter {
        Filter::Wide(Box::new(Counters::new(pod, *self, false, cluster)))
    }

    fn score(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Score {
        let prefers = !pod.terms.preferred.is_empty() || !pod.terms.avoided.is_empty();
        if self.ignore_preferred_terms_of_existing_pods && !prefers {
            return Score::Skip;
        }
        Score::Wide(Box::new(Counters::new(pod, *self, true, cluster)))
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, cluster: &Cache) -> Hint {
        let all = |terms: &[Term], other: &PodInfo| matches_all(terms, other, cluster);
        let terms = &pod.terms;
        match event {
            ClusterEvent::PodAdded(other) => Hint::queue_if(all(&terms.affinity, other)),
            ClusterEvent::PodUpdated { old, new } => Hint::queue_if(
                (!all(&terms.affinity, old) && all(&terms.affinity, new))
                    || (all(&terms.anti_affinity, old) && !all(&terms.anti_affinity, new)),
            ),
            ClusterEvent::PodGone(other) => Hint::queue_if(
                all(&terms.anti_affinity, other) || all(&other.terms.anti_affinity, pod),
            ),
            ClusterEvent::PodChanged { old } => Hint::queue_if(old.labels != pod.labels),
            ClusterEvent::NodeAdded(node) => Hint::queue_if(
                // Others may not want to be with it: a new node has none of them.
                terms.affinity.is_empty()
                    || !terms.anti_affinity.is_empty()
                    || terms
                        .affinity
                        .iter()
                        .any(|t| node.metadata.labels.contains_key(&*t.topology_key)),
            ),
            ClusterEvent::NodeUpdated { old, new } => {
                let values = |term: &Term| {
                    let of = |labels: &std::collections::BTreeMap<String, String>| {
                        labels.get(&*term.topology_key).cloned()
                    };
                    (of(&old.metadata.labels), of(&new.metadata.labels))
                };
                let comes = terms.affinity.iter().map(values);
                let goes = terms.anti_affinity.iter().map(values);
                Hint::queue_if(
                    comes
                        .into_iter()
                        .any(|(old, new)| new.is_some() && old != new)
                        || goes
                            .into_iter()
                            .any(|(old, new)| old.is_some() && old != new),
                )
            }
            ClusterEvent::NodeGone(_) | ClusterEvent::Storage(_) | ClusterEvent::Devices(_) => {
                Hint::Skip
            }
        }
    }
}
