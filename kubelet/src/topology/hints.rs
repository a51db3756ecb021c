//! Hints: on which NUMA nodes a resource could be had, and how the hints of several resources
//! become one (KEP-693). Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::sys::numa::NumaNode;

/// A set of NUMA nodes, numbered below 64. Smaller numbers come first: the order of masks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mask(u64);

impl Mask {
    /// Nodes with other numbers are left out: there is no such machine.
    pub fn of(nodes: impl IntoIterator<Item = u32>) -> Self {
        let bits = nodes.into_iter().filter(|node| *node < 64);
        Self(bits.fold(0, |mask, node| mask | 1 << node))
    }

    pub fn contains(self, node: u32) -> bool {
        node < 64 && self.0 & (1 << node) != 0
    }

    pub fn count(self) -> usize {
        self.0.count_ones() as usize
    }

    /// In ascending order.
    pub fn nodes(self) -> impl Iterator<Item = u32> {
        (0..64).filter(move |node| self.contains(*node))
    }

    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Fewer nodes, or as many with smaller numbers.
    pub fn is_narrower(self, other: Self) -> bool {
        (self.count(), self) < (other.count(), other)
    }

    /// Every set of some of these nodes, the smaller ones first.
    pub fn subsets(nodes: &[u32]) -> Vec<Self> {
        let mut all: Vec<Self> = vec![Self::default()];
        for node in nodes {
            let with = all.iter().map(|mask| Self(mask.0 | Self::of([*node]).0));
            let with: Vec<Self> = with.collect();
            all.extend(with);
        }
        all.retain(|mask| mask.count() > 0);
        all.sort_by_key(|mask| (mask.count(), *mask));
        all
    }
}

/// One way of having something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hint {
    /// `None`: anywhere.
    pub affinity: Option<Mask>,
    /// Nothing better can be had on this machine, even if it were idle.
    pub preferred: bool,
}

/// What one provider has for each of its resources. A resource with `None` may be had anywhere, one
/// with an empty list nowhere.
pub type Hints = BTreeMap<String, Option<Vec<Hint>>>;

/// The machine's nodes, as far as merging goes.
#[derive(Debug, Clone, Default)]
pub struct Numa {
    nodes: Vec<u32>,
    /// From each node, to every node.
    distances: BTreeMap<u32, Vec<u64>>,
}

impl Numa {
    pub fn new(nodes: &[NumaNode]) -> Self {
        Self {
            nodes: nodes.iter().map(|node| node.id).collect(),
            distances: nodes
                .iter()
                .map(|node| (node.id, node.distances.clone()))
                .collect(),
        }
    }

    fn all(&self) -> Mask {
        Mask::of(self.nodes.iter().copied())
    }

    /// How far the nodes are from each other on average, each from itself too.
    fn distance(&self, mask: Mask) -> f64 {
        let between = |from: u32, to: u32| {
            let known = self.distances.get(&from);
            let known = known.and_then(|known| known.get(to as usize));
            known.copied().unwrap_or_default() as f64
        };
        let pairs = mask
            .nodes()
            .flat_map(|from| mask.nodes().map(move |to| (from, to)));
        let sum: f64 = pairs.map(|(from, to)| between(from, to)).sum();
        sum / (mask.count() * mask.count()).max(1) as f64
    }
}

/// `topologyManagerPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    None,
    BestEffort,
    Restricted,
    SingleNumaNode,
}

impl Policy {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "best-effort" => Self::BestEffort,
            "restricted" => Self::Restricted,
            "single-numa-node" => Self::SingleNumaNode,
            _ => return None,
        })
    }

    /// Makes one hint of those of all providers, and says whether it will do.
    pub fn merge(self, providers: &[Hints], numa: &Numa, closest: bool) -> (Hint, bool) {
        if self == Self::None {
            return (Hint::default(), true);
        }
        let mut lists = lists(providers);
        if self == Self::SingleNumaNode {
            let single = |hint: &Hint| hint.affinity.is_none_or(|mask| mask.count() == 1);
            for list in &mut lists {
                list.retain(|hint| hint.preferred && single(hint));
            }
        }
        let merger = Merger {
            numa,
            closest: closest && self != Self::SingleNumaNode,
            widest_need: widest_need(&lists),
        };
        let mut best = merger.merge(&lists);
        if self == Self::SingleNumaNode && best.affinity == Some(numa.all()) {
            best.affinity = None;
        }
        (best, self == Self::BestEffort || best.preferred)
    }
}

/// A list of hints for every resource that anybody has something to say about.
fn lists(providers: &[Hints]) -> Vec<Vec<Hint>> {
    let anywhere = |preferred| {
        vec![Hint {
            affinity: None,
            preferred,
        }]
    };
    let mut lists = Vec::new();
    for provider in providers {
        if provider.is_empty() {
            lists.push(anywhere(true));
        }
        for hints in provider.values() {
            lists.push(match hints {
                None => anywhere(true),
                Some(hints) if hints.is_empty() => anywhere(false),
                Some(hints) => hints.clone(),
            });
        }
    }
    lists
}

/// How many nodes the resource takes that takes most, each at its best.
fn widest_need(lists: &[Vec<Hint>]) -> usize {
    let least = |list: &Vec<Hint>| {
        let masks = list.iter().filter_map(|hint| hint.affinity);
        masks.map(Mask::count).min().unwrap_or_default()
    };
    lists.iter().map(least).max().unwrap_or_default()
}

struct Merger<'a> {
    numa: &'a Numa,
    closest: bool,
    widest_need: usize,
}

/// What the hints of some resources have come to: the nodes that they share; whether all are
/// preferred and the same; whether any of them says where.
type Merged = (Mask, bool, bool);

impl Merger<'_> {
    /// The best of what any choice of one hint from each list comes to: the nodes that the chosen
    /// ones share, preferred if all are preferred and name the same nodes.
    ///
    /// Choices that come to the same are not told apart on the way, so that this grows with the
    /// number of sets of nodes and not with the number of choices.
    fn merge(&self, lists: &[Vec<Hint>]) -> Hint {
        let all = self.numa.all();
        let mut merged: BTreeSet<Merged> = BTreeSet::from([(all, true, false)]);
        for list in lists {
            let mut next = BTreeSet::new();
            for (mask, preferred, somewhere) in &merged {
                for hint in list {
                    next.insert(match hint.affinity {
                        None => (*mask, *preferred && hint.preferred, *somewhere),
                        Some(own) => {
                            let same = !*somewhere || own == *mask;
                            let preferred = *preferred && hint.preferred && same;
                            // Where preferred, the mask is what all of them name.
                            let shared = if *somewhere { mask.and(own) } else { own };
                            (shared, preferred, true)
                        }
                    });
                }
            }
            merged = next;
        }
        let mut best: Option<Hint> = None;
        for (mask, preferred, _) in merged {
            let mask = mask.and(all);
            if mask.count() == 0 {
                continue;
            }
            let candidate = Hint {
                affinity: Some(mask),
                preferred,
            };
            if best.is_none_or(|best| self.is_better(candidate, best)) {
                best = Some(candidate);
            }
        }
        best.unwrap_or(Hint {
            affinity: Some(all),
            preferred: false,
        })
    }

    /// Preferred ones win. Of two others that wins which has the nodes that the neediest resource
    /// takes: as many, or fewer but as near as can be, or else more.
    fn is_better(&self, a: Hint, b: Hint) -> bool {
        if a.preferred != b.preferred {
            return a.preferred;
        }
        let (a_mask, b_mask) = (
            a.affinity.unwrap_or_default(),
            b.affinity.unwrap_or_default(),
        );
        if !a.preferred {
            let need = self.widest_need;
            let rank = |mask: Mask| match mask.count() {
                count if count <= need => need - count,
                count => need + count,
            };
            if rank(a_mask) != rank(b_mask) {
                return rank(a_mask) < rank(b_mask);
            }
        }
        if self.closest && a_mask.count() == b_mask.count() {
            let (a, b) = (self.numa.distance(a_mask), self.numa.distance(b_mask));
            return a < b || a == b && a_mask < b_mask;
        }
        a_mask.is_narrower(b_mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numa(nodes: u32) -> Numa {
        let node = |id| NumaNode {
            id,
            // In a ring.
            distances: (0..nodes)
                .map(|to: u32| {
                    let apart = to.abs_diff(id);
                    10 + 10 * u64::from(apart.min(nodes - apart))
                })
                .collect(),
            ..NumaNode::default()
        };
        Numa::new(&(0..nodes).map(node).collect::<Vec<_>>())
    }

    fn hint(nodes: &[u32], preferred: bool) -> Hint {
        Hint {
            affinity: (!nodes.is_empty()).then(|| Mask::of(nodes.iter().copied())),
            preferred,
        }
    }

    /// Nodes, and whether they are preferred.
    type Shown<'a> = &'a [(&'a [u32], bool)];

    fn provider(resources: &[(&str, Option<Shown<'_>>)]) -> Hints {
        let of = |hints: Shown<'_>| -> Vec<Hint> {
            let hints = hints.iter();
            hints
                .map(|(nodes, preferred)| hint(nodes, *preferred))
                .collect()
        };
        let resources = resources.iter();
        resources
            .map(|(name, hints)| ((*name).to_owned(), hints.map(of)))
            .collect()
    }

    #[test]
    fn subsets_go_from_narrow_to_wide() {
        let all: Vec<Vec<u32>> = Mask::subsets(&[0, 1, 3])
            .into_iter()
            .map(|mask| mask.nodes().collect())
            .collect();
        let want: [&[u32]; 7] = [&[0], &[1], &[3], &[0, 1], &[0, 3], &[1, 3], &[0, 1, 3]];
        assert_eq!(all, want);
    }

    /// Providers, what best-effort makes of them, and whether restricted and single-numa-node admit.
    #[test]
    fn hints_become_one() {
        type Case<'a> = (&'a str, Vec<Hints>, Hint, bool, Option<Hint>);
        let one: &[(&[u32], bool)] = &[(&[0], true), (&[1], true), (&[0, 1], false)];
        let cases: Vec<Case<'_>> = vec![
            (
                "nobody cares",
                vec![provider(&[]), provider(&[])],
                hint(&[0, 1], true),
                true,
                Some(hint(&[], true)),
            ),
            (
                "a resource may be anywhere",
                vec![provider(&[("r", None)])],
                hint(&[0, 1], true),
                true,
                Some(hint(&[], true)),
            ),
            (
                "a resource cannot be had",
                vec![provider(&[("r", Some(&[]))])],
                hint(&[0, 1], false),
                false,
                None,
            ),
            (
                "two that fit",
                vec![
                    provider(&[("a", Some(one))]),
                    provider(&[("b", Some(&[(&[1], true), (&[0, 1], false)]))]),
                ],
                hint(&[1], true),
                true,
                Some(hint(&[1], true)),
            ),
            (
                "two that do not",
                vec![
                    provider(&[("a", Some(&[(&[0], true)]))]),
                    provider(&[("b", Some(&[(&[1], true)]))]),
                ],
                hint(&[0, 1], false),
                false,
                None,
            ),
            (
                "one needs both",
                vec![
                    provider(&[("a", Some(&[(&[0, 1], true)]))]),
                    provider(&[("b", Some(one))]),
                ],
                // As wide as what the neediest takes.
                hint(&[0, 1], false),
                false,
                None,
            ),
            (
                "only both, for all",
                vec![provider(&[("a", Some(&[(&[0, 1], true)]))])],
                hint(&[0, 1], true),
                true,
                None,
            ),
        ];
        for (what, providers, best, restricted, single) in cases {
            let numa = numa(2);
            let merged = Policy::BestEffort.merge(&providers, &numa, false);
            assert_eq!(merged, (best, true), "{what}");
            let admitted = Policy::Restricted.merge(&providers, &numa, false).1;
            assert_eq!(admitted, restricted, "{what}");
            let merged = Policy::SingleNumaNode.merge(&providers, &numa, false);
            let merged = Some(merged.0).filter(|_| merged.1);
            assert_eq!(merged, single, "{what}");
        }
        let merged = Policy::None.merge(&[provider(&[("r", Some(&[]))])], &numa(2), false);
        assert_eq!(merged, (Hint::default(), true));
    }

    #[test]
    fn the_closest_of_equals() {
        let pairs: &[(&[u32], bool)] = &[(&[0, 2], true), (&[1, 2], true)];
        let hints = [provider(&[("r", Some(pairs))])];
        let merge = |closest| Policy::BestEffort.merge(&hints, &numa(4), closest).0;
        assert_eq!(merge(false), hint(&[0, 2], true));
        assert_eq!(merge(true), hint(&[1, 2], true));
    }

    /// The same as going through every choice, as it is specified.
    #[test]
    fn shortcuts_change_nothing() {
        let numa = numa(3);
        let masks = Mask::subsets(&[0, 1, 2]);
        // Lists out of a small generator: every seed another one.
        let list = |seed: usize| -> Vec<Hint> {
            let hints = masks.iter().enumerate();
            hints
                .filter(|(i, _)| (seed >> i) & 1 == 1)
                .map(|(i, mask)| Hint {
                    affinity: Some(*mask),
                    preferred: (seed * 7 + i).is_multiple_of(3),
                })
                .collect()
        };
        for seed in 1..128 {
            let lists = [
                list(seed),
                list((seed * 37) % 127 + 1),
                list((seed * 11) % 127 + 1),
            ];
            let merger = Merger {
                numa: &numa,
                closest: false,
                widest_need: widest_need(&lists),
            };
            let mut best: Option<Hint> = None;
            for a in &lists[0] {
                for b in &lists[1] {
                    for c in &lists[2] {
                        let [a, b, c] = [a, b, c].map(|h| (h.affinity.unwrap(), h.preferred));
                        let candidate = Hint {
                            affinity: Some(a.0.and(b.0).and(c.0)),
                            preferred: a.1 && b.1 && c.1 && a.0 == b.0 && b.0 == c.0,
                        };
                        if candidate.affinity.unwrap().count() > 0
                            && best.is_none_or(|best| merger.is_better(candidate, best))
                        {
                            best = Some(candidate);
                        }
                    }
                }
            }
            let none = hint(&[0, 1, 2], false);
            assert_eq!(merger.merge(&lists), best.unwrap_or(none), "{seed}");
        }
    }
}
