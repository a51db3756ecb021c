//! How much of each zone is down, and how fast nodes may be tainted there: pure.
//!
//! When most of a zone goes silent it is more likely that we are cut off than that the nodes
//! died; evicting their pods would make it worse. With everything down nothing is evicted.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::kinds::Node;

/// A zone's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZoneState {
    Initial,
    Normal,
    FullDisruption,
    PartialDisruption,
}

/// Eviction rates, in nodes per second.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub normal: f32,
    /// In large zones that are partly down; small ones evict nothing then.
    pub secondary: f32,
    pub large_cluster: usize,
    /// The fraction of nodes not ready that makes a zone partly down.
    pub unhealthy_threshold: f32,
}

/// Two labels make a zone; the beta ones win, as upstream.
pub fn zone_key(node: &Node) -> String {
    let either = |beta: &str, stable: &str| {
        let labels = &node.metadata.labels;
        labels
            .get(beta)
            .or_else(|| labels.get(stable))
            .cloned()
            .unwrap_or_default()
    };
    let zone = either(
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    );
    let region = either(
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    );
    if zone.is_empty() && region.is_empty() {
        return String::new();
    }
    format!("{region}:\0:{zone}")
}

/// A zone's state by its nodes' readiness.
fn state_of(ready: usize, not_ready: usize, threshold: f32) -> ZoneState {
    let share = not_ready as f32 / (ready + not_ready).max(1) as f32;
    if ready == 0 && not_ready > 0 {
        ZoneState::FullDisruption
    } else if not_ready > 2 && share >= threshold {
        ZoneState::PartialDisruption
    } else {
        ZoneState::Normal
    }
}

/// What a look at all zones calls for besides the new rates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disruption {
    None,
    /// Everything is down: take all taints back.
    Entered,
    /// Something is up again: give all nodes a new grace period.
    Left,
}

/// The zones of the cluster, each with its queue of nodes to taint.
#[derive(Debug, Default)]
pub struct Zones {
    states: BTreeMap<String, ZoneState>,
    queues: HashMap<String, TaintQueue>,
}

impl Zones {
    /// Makes sure that the zone has a queue.
    pub fn ensure(&mut self, zone: &str, rates: &Rates, now: Timestamp) {
        if !self.states.contains_key(zone) {
            self.states.insert(zone.to_owned(), ZoneState::Initial);
            self.queues
                .insert(zone.to_owned(), TaintQueue::new(rates.normal, now));
        }
    }

    pub fn queue(&mut self, zone: &str) -> Option<&mut TaintQueue> {
        self.queues.get_mut(zone)
    }

    pub fn queues(&mut self) -> impl Iterator<Item = (&String, &mut TaintQueue)> {
        self.queues.iter_mut()
    }

    /// Takes in how many nodes are ready and not ready in each zone.
    pub fn update(
        &mut self,
        counts: &BTreeMap<String, (usize, usize)>,
        rates: &Rates,
        now: Timestamp,
    ) -> Disruption {
        for zone in counts.keys() {
            self.ensure(zone, rates, now);
        }
        self.states.retain(|zone, _| counts.contains_key(zone));
        let states: BTreeMap<&String, ZoneState> = counts
            .iter()
            .map(|(zone, (ready, not))| (zone, state_of(*ready, *not, rates.unhealthy_threshold)))
            .collect();
        let all_down = states.values().all(|s| *s == ZoneState::FullDisruption);
        let all_were_down = self
            .states
            .values()
            .all(|s| *s == ZoneState::FullDisruption);
        if all_down && all_were_down {
            return Disruption::None;
        }
        if all_down {
            for (zone, state) in &mut self.states {
                *state = ZoneState::FullDisruption;
                if let Some(queue) = self.queues.get_mut(zone) {
                    queue.set_rate(0.0, now);
                }
            }
            return Disruption::Entered;
        }
        for (zone, new) in states {
            let (ready, not_ready) = counts[zone];
            let Some(state) = self.states.get_mut(zone) else {
                continue;
            };
            if *state == new && !all_were_down {
                continue;
            }
            tracing::info!(zone, ?new, "zone is now in a new state");
            *state = new;
            let rate = match new {
                ZoneState::PartialDisruption if ready + not_ready > rates.large_cluster => {
                    rates.secondary
                }
                ZoneState::PartialDisruption => 0.0,
                _ => rates.normal,
            };
            if let Some(queue) = self.queues.get_mut(zone) {
                queue.set_rate(rate, now);
            }
        }
        if all_were_down {
            Disruption::Left
        } else {
            Disruption::None
        }
    }
}

/// Nodes that are to be tainted, at a limited rate. A node that has been handed out is
/// remembered until it is removed, so that it is not tainted over and over.
#[derive(Debug)]
pub struct TaintQueue {
    nodes: HashMap<String, bool>,
    waiting: std::collections::VecDeque<String>,
    rate: f32,
    /// At most one node is saved up.
    tokens: f32,
    filled: Timestamp,
}

impl TaintQueue {
    fn new(rate: f32, now: Timestamp) -> Self {
        Self {
            nodes: HashMap::new(),
            waiting: Default::default(),
            rate,
            tokens: 1.0,
            filled: now,
        }
    }

    fn set_rate(&mut self, rate: f32, now: Timestamp) {
        self.fill(now);
        if self.rate == 0.0 && rate > 0.0 {
            self.tokens = 1.0;
        }
        self.rate = rate;
    }

    fn fill(&mut self, now: Timestamp) {
        let seconds = now.duration_since(self.filled).as_secs_f32();
        self.tokens = (self.tokens + seconds.max(0.0) * self.rate).min(1.0);
        self.filled = now;
    }

    /// Asks for a node to be tainted; `false` if it is known already.
    pub fn add(&mut self, node: &str) -> bool {
        if self.nodes.contains_key(node) {
            return false;
        }
        self.nodes.insert(node.to_owned(), true);
        self.waiting.push_back(node.to_owned());
        true
    }

    /// Forgets a node; `false` if it was not known.
    pub fn remove(&mut self, node: &str) -> bool {
        self.waiting.retain(|n| n != node);
        self.nodes.remove(node).is_some()
    }

    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() && self.rate > 0.0
    }

    /// The next node to taint, if the rate allows one.
    pub fn next(&mut self, now: Timestamp) -> Option<String> {
        self.fill(now);
        if self.rate <= 0.0 || self.tokens < 1.0 {
            return None;
        }
        let node = self.waiting.pop_front()?;
        self.tokens -= 1.0;
        Some(node)
    }

    /// Puts a node back that could not be tainted.
    pub fn again(&mut self, node: String) {
        if self.nodes.contains_key(&node) && !self.waiting.contains(&node) {
            self.waiting.push_back(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates {
        normal: 0.1,
        secondary: 0.01,
        large_cluster: 5,
        unhealthy_threshold: 0.55,
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn counts(list: &[(&str, usize, usize)]) -> BTreeMap<String, (usize, usize)> {
        list.iter()
            .map(|(z, r, n)| ((*z).to_owned(), (*r, *n)))
            .collect()
    }

    #[test]
    fn states() {
        assert_eq!(state_of(0, 1, 0.55), ZoneState::FullDisruption);
        assert_eq!(state_of(2, 2, 0.55), ZoneState::Normal);
        assert_eq!(state_of(2, 3, 0.55), ZoneState::PartialDisruption);
        assert_eq!(state_of(0, 0, 0.55), ZoneState::Normal);
    }

    #[test]
    fn nodes_are_tainted_at_the_rate() {
        let mut zones = Zones::default();
        zones.update(&counts(&[("z", 5, 0)]), &RATES, at(0));
        let queue = zones.queue("z").unwrap();
        assert!(queue.add("a") && queue.add("b") && !queue.add("a"));
        assert_eq!(queue.next(at(1)).as_deref(), Some("a"));
        assert_eq!(queue.next(at(5)), None);
        assert_eq!(queue.next(at(12)).as_deref(), Some("b"));
        assert!(!queue.add("a") && queue.remove("a") && queue.add("a"));
    }

    #[test]
    fn partial_disruption_stops_small_zones_and_slows_large_ones() {
        let mut zones = Zones::default();
        let down = counts(&[("large", 2, 4), ("small", 1, 3)]);
        zones.update(&down, &RATES, at(0));
        zones.queue("small").unwrap().add("a");
        assert_eq!(zones.queue("small").unwrap().next(at(1)), None);
        let large = zones.queue("large").unwrap();
        large.add("b");
        large.add("c");
        assert_eq!(large.next(at(1)).as_deref(), Some("b"));
        assert_eq!(large.next(at(50)), None);
        assert_eq!(large.next(at(102)).as_deref(), Some("c"));
    }

    #[test]
    fn all_down_is_our_problem() {
        let mut zones = Zones::default();
        assert_eq!(
            zones.update(&counts(&[("z", 0, 2)]), &RATES, at(0)),
            Disruption::Entered
        );
        assert_eq!(
            zones.update(&counts(&[("z", 0, 2)]), &RATES, at(5)),
            Disruption::None
        );
        zones.queue("z").unwrap().add("a");
        assert_eq!(zones.queue("z").unwrap().next(at(6)), None);
        assert_eq!(
            zones.update(&counts(&[("z", 1, 1)]), &RATES, at(10)),
            Disruption::Left
        );
        assert_eq!(zones.queue("z").unwrap().next(at(11)).as_deref(), Some("a"));
        assert_eq!(
            zones.update(&counts(&[("z", 1, 1)]), &RATES, at(15)),
            Disruption::None
        );
    }
}
