//! DefaultPreemption: which pods would have to leave which node so that a more important
//! one fits. Only the question; what comes of the answer is done elsewhere.

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
}

struct Candidate {
    slot: usize,
    /// From the most important one to the least.
    victims: Vec<Arc<PodInfo>>,
    /// How many of them leave against their budget.
    violations: usize,
}

/// The reason for which the scheduler's victims are being deleted.
pub const PREEMPTED: &str = "PreemptionByScheduler";

/// A pod that has not started counts as one that starts now.
fn started(pod: &PodInfo) -> Timestamp {
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
    pods.into_iter().partition(|pod| {
        let mut violates = false;
        for (budget, allowed) in budgets.iter().zip(&mut allowed) {
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
    })
}

impl DefaultPreemption {
    /// What could be done for a pod that no node takes. `draw(n)` picks one of n.
    pub fn preempt(
        &self,
        attempt: &Attempt<'_>,
        failure: &Failure,
        draw: &mut dyn FnMut(usize) -> usize,
    ) -> Preemption {
        if let Err(why) = eligible(attempt, failure) {
            return Preemption::NotEligible(why);
        }
        let cluster = attempt.cluster;
        let potential = potential(attempt, failure);
        let mut reasons = Reasons::default();
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut tried = 0;
        if !potential.is_empty() {
            let budgets: Vec<Arc<Budget>> = cluster.objects.budgets.values().cloned().collect();
            let offset = draw(potential.len());
            let enough = (potential.len() * self.min_candidate_nodes_percentage / 100)
                .max(self.min_candidate_nodes_absolute)
                .min(potential.len());
            for i in 0..potential.len() {
                let slot = potential[(offset + i) % potential.len()];
                let Some(node) = cluster.node(slot) else {
                    continue;
                };
                match victims_on(attempt, node, &budgets) {
                    Ok(candidate) => candidates.push(candidate),
                    Err(rejection) => {
                        tried += 1;
                        reasons.add(&rejection, 1);
                    }
                }
                let peaceful = candidates.iter().any(|c| c.violations == 0);
                if peaceful && candidates.len() >= enough {
                    break;
                }
            }
        }
        let Some(best) = best(candidates) else {
            let others = Rejection::unresolvable("Preemption is not helpful for scheduling");
            reasons.add(&others, cluster.node_count() - tried);
            return Preemption::Hopeless(reasons.message(cluster.node_count()));
        };
        match cluster.node(best.slot) {
            Some(node) => Preemption::Node {
                name: node.name.clone(),
                victims: best.victims,
            },
            None => unreachable!("candidates are nodes"),
        }
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
    let resolvable = |slot: usize| match failure.verdicts.get(slot).copied().unwrap_or(ABSENT) {
        ABSENT => failure.absent.as_ref().is_some_and(|r| !r.unresolvable),
        FEASIBLE => false,
        n => !attempt.rejections[usize::from(n) - 1].1.unresolvable,
    };
    let slots = attempt.cluster.nodes().map(|node| node.slot);
    slots.filter(|slot| resolvable(*slot)).collect()
}

/// The fewest and least important pods that have to go (`SelectVictimsOnNode`).
fn victims_on(
    attempt: &Attempt<'_>,
    node: &NodeInfo,
    budgets: &[Arc<Budget>],
) -> Result<Candidate, Rejection> {
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
    let mut candidate = Candidate {
        slot: node.slot,
        victims: Vec::new(),
        violations: 0,
    };
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
        candidate.violations += usize::from(i < first);
        candidate.victims.push(pod);
    }
    if both {
        candidate.victims.sort_by(|a, b| {
            (b.priority.cmp(&a.priority)).then_with(|| started(a).cmp(&started(b)))
        });
    }
    if candidate.victims.is_empty() {
        // It would have fit as it is: the next attempt will show.
        let reason = "No preemption victims found for incoming pod";
        return Err(Rejection::unresolvable(reason));
    }
    Ok(candidate)
}

/// The node where preemption harms least (`pickOneNodeForPreemption`).
fn best(candidates: Vec<Candidate>) -> Option<Candidate> {
    candidates.into_iter().min_by_key(|candidate| {
        let victims = &candidate.victims;
        let highest = victims.iter().map(|p| p.priority).max().unwrap_or(i32::MIN);
        // Each victim adds something, however unimportant.
        let sum: i64 = victims
            .iter()
            .map(|p| i64::from(p.priority) + i64::from(i32::MAX) + 1)
            .sum();
        let of_highest = victims.iter().filter(|p| p.priority == highest);
        let earliest = of_highest.map(|p| started(p)).min();
        (
            candidate.violations,
            highest,
            sum,
            victims.len(),
            std::cmp::Reverse(earliest),
        )
    })
}

/// Less important pods that are nominated for a node that a more important one takes.
pub fn displaced(pod: &PodInfo, node: &str, cluster: &Cache) -> Vec<Arc<PodInfo>> {
    let nominated = cluster.nominated_to(node).iter();
    nominated
        .filter(|p| p.priority < pod.priority)
        .cloned()
        .collect()
}
