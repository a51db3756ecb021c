//! DefaultPreemption: which pods would have to leave which node so that a more important
//! one fits. Only the question; what comes of the answer is done elsewhere.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;

use crate::cache::objects::Budget;
use crate::cache::{Cache, NodeInfo};
use crate::cycle::{Failure, Reasons};
use crate::evaluation::{ABSENT, Attempt, FEASIBLE};
use crate::framework::{Rejection, Shift};
use crate::model::PodInfo;

/// `DefaultPreemptionArgs`: how many nodes are tried out.
#[derive(Debug, Clone, Copy)]
pub struct DefaultPreemption {
    pub min_candidate_nodes_percentage: usize,
    pub min_candidate_nodes_absolute: usize,
}

impl Default for DefaultPreemption {
    fn default() -> Self {
        Self {
            min_candidate_nodes_percentage: 10,
            min_candidate_nodes_absolute: 100,
        }
    }
}

#[derive(Debug)]
pub enum Preemption {
    /// The pod fits this node once the victims have gone.
    Node {
        name: Box<str>,
        victims: Vec<Arc<PodInfo>>,
    },
    /// It must not preempt, or not yet.
    NotEligible(&'static str),
    /// Nobody's going away would help.
    Hopeless(String),
    /// Any of these would do: extenders have a say.
    Offers(Vec<Offer>),
    /// There is no telling.
    Failed(String),
}

/// A node that pods could leave for another one.
#[derive(Debug, Clone)]
pub struct Offer {
    pub node: Box<str>,
    /// From the most important one to the least.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them leave against their budget.
    pub violations: usize,
}

impl Preemption {
    /// The offer that does the least harm.
    pub fn best_of(offers: Vec<Offer>) -> Self {
        let harm = |offer: &Offer| harm(&offer.victims, offer.violations);
        match offers.into_iter().min_by_key(harm) {
            Some(Offer { node, victims, .. }) => Preemption::Node {
                name: node,
                victims,
            },
            None => Preemption::NotEligible("no candidate node for preemption"),
        }
    }
}

/// A node, and who would have to leave it.
#[derive(Debug)]
pub struct Candidate {
    slot: usize,
    /// From the most important one to the least.
    victims: Vec<Arc<PodInfo>>,
    /// How many of them leave against their budget.
    violations: usize,
    harm: Harm,
}

/// What tells candidates apart, most important first: budgets violated, the highest
/// priority, the sum of priorities, the number of victims, and when the oldest of those of
/// the highest priority started.
type Harm = (usize, i32, i64, usize, Reverse<Option<Timestamp>>);

/// What came of trying a node out.
pub type Trial = Result<Candidate, Rejection>;

/// Trials of one kind of pod, by the node's slot; whoever keeps them has those forgotten
/// whose node has changed.
#[derive(Debug, Default)]
pub struct Trials {
    budgets: u64,
    by_slot: Vec<Option<Arc<Trial>>>,
}

impl Trials {
    pub fn forget(&mut self, slot: usize) {
        if let Some(trial) = self.by_slot.get_mut(slot) {
            *trial = None;
        }
    }

    /// The trial that is kept, or a new one. `budgets` is their version.
    pub fn get(&mut self, slot: usize, budgets: u64, find: impl FnOnce() -> Trial) -> Arc<Trial> {
        if self.budgets != budgets {
            self.by_slot.clear();
            self.budgets = budgets;
        }
        if self.by_slot.len() <= slot {
            self.by_slot.resize(slot + 1, None);
        }
        Arc::clone(self.by_slot[slot].get_or_insert_with(|| Arc::new(find())))
    }
}

/// The reason for which the scheduler's victims are being deleted.
pub const PREEMPTED: &str = "PreemptionByScheduler";

/// A pod that has not started counts as one that starts now.
pub fn started(pod: &PodInfo) -> Timestamp {
    pod.start_time.unwrap_or(Timestamp::MAX)
}

/// Whether the pod is on its way out because something was scheduled in its place.
fn leaves_for_another(pod: &PodInfo) -> bool {
    let condition = pod
        .conditions
        .iter()
        .find(|c| c.type_ == "DisruptionTarget");
    pod.deleting
        && condition.is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some(PREEMPTED))
}

/// Parts pods (keeping their order) into those whose going violates a budget and the others.
fn by_budgets(
    pods: Vec<Arc<PodInfo>>,
    budgets: &[Arc<Budget>],
) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut allowed: Vec<i32> = budgets.iter().map(|b| b.allowed).collect();
    pods.into_iter()
        .partition(|pod| violates(pod, budgets, &mut allowed))
}

/// Whether a pod's going violates a budget, after those that have been asked about; `allowed`
/// is how many more may go, by budget.
pub fn violates(pod: &PodInfo, budgets: &[Arc<Budget>], allowed: &mut [i32]) -> bool {
    let mut violates = false;
    for (budget, allowed) in budgets.iter().zip(allowed) {
        let counts = !pod.labels.is_empty()
            && budget.namespace == pod.namespace
            && !budget.selector.is_empty()
            && budget.selector.matches_labels(Some(&pod.labels))
            && !budget.disrupted.iter().any(|name| name == pod.key.name());
        if counts {
            *allowed -= 1;
            violates |= *allowed < 0;
        }
    }
    violates
}

impl DefaultPreemption {
    /// What could be done for a pod that no node takes. `draw(n)` picks one of n.
    pub fn preempt(
        &self,
        attempt: &Attempt<'_>,
        failure: &Failure,
        draw: &mut dyn FnMut(usize) -> usize,
    ) -> Preemption {
        let candidates = match self.candidates(attempt, failure, draw) {
            Ok(candidates) => candidates,
            Err(why) => return why,
        };
        let candidates = candidates.iter().filter_map(succeeded);
        let best = candidates.min_by_key(|candidate| candidate.harm);
        let best = best.and_then(|candidate| candidate.offer(attempt.cluster));
        Preemption::best_of(best.into_iter().collect())
    }

    /// The same where it is for others to say which of the nodes it is.
    pub fn offer(
        &self,
        attempt: &Attempt<'_>,
        failure: &Failure,
        draw: &mut dyn FnMut(usize) -> usize,
    ) -> Preemption {
        match self.candidates(attempt, failure, draw) {
            Ok(candidates) => Preemption::Offers(
                (candidates.iter().filter_map(succeeded))
                    .filter_map(|candidate| candidate.offer(attempt.cluster))
                    .collect(),
            ),
            Err(why) => why,
        }
    }

    /// Nodes that would do, one at least.
    fn candidates(
        &self,
        attempt: &Attempt<'_>,
        failure: &Failure,
        draw: &mut dyn FnMut(usize) -> usize,
    ) -> Result<Vec<Arc<Trial>>, Preemption> {
        eligible(attempt, failure).map_err(Preemption::NotEligible)?;
        let cluster = attempt.cluster;
        let potential = potential(attempt, failure);
        let mut reasons = Reasons::default();
        let mut candidates: Vec<Arc<Trial>> = Vec::new();
        let mut tried = 0;
        if !potential.is_empty() {
            let version = cluster.objects.budgets.version();
            let budgets: Vec<Arc<Budget>> = cluster.objects.budgets.iter().cloned().collect();
            let offset = draw(potential.len());
            let enough = (potential.len() * self.min_candidate_nodes_percentage / 100)
                .max(self.min_candidate_nodes_absolute)
                .min(potential.len());
            let mut peaceful = false;
            for i in 0..potential.len() {
                let slot = potential[(offset + i) % potential.len()];
                let Some(node) = cluster.node(slot) else {
                    continue;
                };
                let trial = attempt.trial(slot, version, || victims_on(attempt, node, &budgets));
                match &*trial {
                    Ok(candidate) => {
                        peaceful |= candidate.violations == 0;
                        candidates.push(trial);
                    }
                    Err(rejection) => {
                        tried += 1;
                        reasons.add(rejection, 1);
                    }
                }
                if peaceful && candidates.len() >= enough {
                    break;
                }
            }
        }
        if candidates.is_empty() {
            let others = Rejection::unresolvable("Preemption is not helpful for scheduling");
            reasons.add(&others, cluster.node_count() - tried);
            let message = reasons.message(cluster.node_count());
            return Err(Preemption::Hopeless(message));
        }
        Ok(candidates)
    }
}

fn succeeded(trial: &Arc<Trial>) -> Option<&Candidate> {
    trial.as_ref().as_ref().ok()
}

impl Candidate {
    fn offer(&self, cluster: &Cache) -> Option<Offer> {
        Some(Offer {
            node: cluster.node(self.slot)?.name.clone(),
            // As they are by now: their statuses may have changed since the trial.
            victims: (self.victims.iter())
                .map(|victim| Arc::clone(cluster.pod(&victim.key).unwrap_or(victim)))
                .collect(),
            violations: self.violations,
        })
    }
}

/// Whether the pod may preempt others now (`PodEligibleToPreemptOthers`).
fn eligible(attempt: &Attempt<'_>, failure: &Failure) -> Result<(), &'static str> {
    let (pod, cluster) = (attempt.pod, attempt.cluster);
    if pod.never_preempts {
        return Err("not eligible due to preemptionPolicy=Never.");
    }
    let nominated = cluster.nomination(&pod.key);
    let Some(node) = nominated.and_then(|name| cluster.node_named(name)) else {
        return Ok(());
    };
    let hopeless = match failure.verdicts.get(node.slot).copied().unwrap_or(ABSENT) {
        ABSENT => failure.absent.as_ref().is_some_and(|r| r.unresolvable),
        FEASIBLE => false,
        n => attempt.rejections[usize::from(n) - 1].1.unresolvable,
    };
    let leaving = |p: &&Arc<PodInfo>| p.priority < pod.priority && leaves_for_another(p);
    if !hopeless && node.pods.iter().any(|p| leaving(&p)) {
        return Err("not eligible due to a terminating pod on the nominated node.");
    }
    Ok(())
}

/// Slots of nodes that pods leaving might make fit.
fn potential(attempt: &Attempt<'_>, failure: &Failure) -> Vec<usize> {
    let rejections = attempt.rejections.iter();
    let resolvable: Vec<bool> = rejections.map(|(_, r)| !r.unresolvable).collect();
    let absent = failure.absent.as_ref().is_some_and(|r| !r.unresolvable);
    let verdict = |slot: usize| failure.verdicts.get(slot).copied().unwrap_or(ABSENT);
    let slots = 0..attempt.cluster.slots();
    let potential = slots.filter(|slot| match verdict(*slot) {
        ABSENT => absent && attempt.cluster.node(*slot).is_some(),
        FEASIBLE => false,
        n => resolvable[usize::from(n) - 1],
    });
    potential.collect()
}

/// The fewest and least important pods that have to go (`SelectVictimsOnNode`).
fn victims_on(attempt: &Attempt<'_>, node: &NodeInfo, budgets: &[Arc<Budget>]) -> Trial {
    let lesser = |p: &&Arc<PodInfo>| p.priority < attempt.pod.priority;
    let mut potential: Vec<Arc<PodInfo>> = node.pods.iter().filter(lesser).cloned().collect();
    if potential.is_empty() {
        let reason = "No preemption victims found for incoming pod";
        return Err(Rejection::unresolvable(reason));
    }
    let mut node = node.clone();
    let mut gone: Vec<Shift> = Vec::with_capacity(potential.len());
    for pod in &potential {
        node.remove(&pod.key);
        gone.push(Shift {
            pod: Arc::clone(pod),
            by: -1,
        });
    }
    attempt
        .judge(&node, &gone)
        .map_err(|(_, rejection)| rejection)?;
    potential
        .sort_by(|a, b| (b.priority.cmp(&a.priority)).then_with(|| started(a).cmp(&started(b))));
    let (violating, others) = by_budgets(potential, budgets);
    let mut victims: Vec<Arc<PodInfo>> = Vec::new();
    let mut violations = 0;
    let both = !violating.is_empty() && !others.is_empty();
    let first = violating.len();
    for (i, pod) in violating.into_iter().chain(others).enumerate() {
        // One after the other is thought to stay, as long as there is room.
        node.add(&pod);
        let at = gone.iter().position(|shift| shift.pod.key == pod.key);
        let shift = at.map(|at| gone.swap_remove(at));
        if attempt.judge(&node, &gone).is_ok() {
            continue;
        }
        node.remove(&pod.key);
        gone.extend(shift);
        violations += usize::from(i < first);
        victims.push(pod);
    }
    if both {
        victims.sort_by(|a, b| {
            (b.priority.cmp(&a.priority)).then_with(|| started(a).cmp(&started(b)))
        });
    }
    if victims.is_empty() {
        // It would have fit as it is: the next attempt will show.
        let reason = "No preemption victims found for incoming pod";
        return Err(Rejection::unresolvable(reason));
    }
    Ok(Candidate {
        slot: node.slot,
        harm: harm(&victims, violations),
        violations,
        victims,
    })
}

/// How much harm preemption does on a node (`pickOneNodeForPreemption`).
fn harm(victims: &[Arc<PodInfo>], violations: usize) -> Harm {
    let highest = victims.iter().map(|p| p.priority).max().unwrap_or(i32::MIN);
    // Each victim adds something, however unimportant.
    let sum: i64 = victims
        .iter()
        .map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1)
        .sum();
    let of_highest = victims.iter().filter(|p| p.priority == highest);
    let earliest = of_highest.map(|p| started(p)).min();
    (violations, highest, sum, victims.len(), Reverse(earliest))
}

/// Less important pods that are nominated for a node that a more important one takes.
pub fn displaced(pod: &PodInfo, node: &str, cluster: &Cache) -> Vec<Arc<PodInfo>> {
    let nominated = cluster.nominated_to(node).iter();
    nominated
        .filter(|p| p.priority < pod.priority)
        .cloned()
        .collect()
}
