//! Preemption for a whole group: which pods anywhere in the cluster have to leave so that it
//! can be scheduled (KEP-5710).

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use client::ObjectKey;
use jiff::Timestamp;

use super::PodGroup;
use super::decision;
use super::trial::{Bench, Verdict};
use crate::cache::objects::Budget;
use crate::cache::{Cache, Placed};
use crate::cycle::PostFilter;
use crate::model::PodInfo;
use crate::plugins::default_preemption::{started, violates};
use crate::profile::Profile;

/// Who has to leave, and for whom.
#[derive(Debug)]
pub struct Victims {
    pub preemptor: Arc<PodGroup>,
    /// From the most important one to the least; some may be leaving already.
    pub pods: Vec<Arc<PodInfo>>,
}

/// Pods that leave together or not at all: one, or all of a group.
#[derive(Debug)]
struct Unit {
    pods: Vec<Arc<PodInfo>>,
    priority: i32,
}

impl Unit {
    /// The larger the more important: priority, members of groups before others, of those
    /// the larger group, and who started first.
    fn importance(&self) -> (i32, bool, usize, Reverse<Timestamp>) {
        let grouped = self.pods.iter().any(|pod| pod.group.is_some());
        let size = if grouped { self.pods.len() } else { 0 };
        let earliest = self.pods.iter().map(|pod| started(pod)).min();
        let earliest = earliest.unwrap_or(Timestamp::MAX);
        (self.priority, grouped, size, Reverse(earliest))
    }
}

/// Why nobody leaves.
#[derive(Debug)]
pub enum Hopeless {
    /// It would not help, or must not be.
    Refused(String),
    /// There is no verdict, for this reason.
    Failed(String),
}

fn refused<T>(why: &str) -> Result<T, Hopeless> {
    Err(Hopeless::Refused(why.to_owned()))
}

/// Who would have to leave. The cluster is as before when this returns.
pub fn preempt(
    profile: &Profile,
    bench: &mut Bench<'_>,
    group: &ObjectKey,
    pods: &[Arc<PodInfo>],
) -> Result<Victims, Hopeless> {
    if profile.preemption.is_none() {
        return refused(
            "default preemption plugin is not registered, workload aware preemption is disabled",
        );
    }
    let Some(object) = bench.cache.groups.object(group).cloned() else {
        let name = group.name();
        return Err(Hopeless::Failed(format!(
            "failed to get pod group object: podgroup.scheduling.k8s.io {name:?} not found"
        )));
    };
    if object.topology_key().is_some() {
        return refused(
            "workload aware preemption is not supported for pod groups with scheduling constraints",
        );
    }
    if pods.iter().any(|pod| pod.never_preempts) {
        return refused("not eligible due to preemptionPolicy=Never.");
    }
    let mut units = units(bench.cache, group);
    units.retain(|unit| unit.priority < object.priority());
    if units.is_empty() {
        return refused("No preemption victims found for incoming preemptor");
    }
    units.sort_by_key(|unit| Reverse(unit.importance()));
    let mut gone = Gone::default();
    units.iter().for_each(|unit| gone.take(bench.cache, unit));
    let found = find(profile, bench, group, pods, units, &mut gone);
    gone.put_all_back(bench.cache);
    let pods = found?;
    Ok(Victims {
        preemptor: object,
        pods,
    })
}

/// All units are gone: which of them may stay?
fn find(
    profile: &Profile,
    bench: &mut Bench<'_>,
    group: &ObjectKey,
    pods: &[Arc<PodInfo>],
    units: Vec<Unit>,
    gone: &mut Gone,
) -> Result<Vec<Arc<PodInfo>>, Hopeless> {
    let decision = decision::place(profile, bench, group, pods, PostFilter::Skip);
    match decision.trial.verdict {
        Verdict::Schedulable => {}
        Verdict::Failed(why) => return Err(Hopeless::Failed(why)),
        _ => return Err(Hopeless::Refused(decision.message)),
    }
    let budgets: Vec<Arc<Budget>> = bench.cache.objects.budgets.iter().cloned().collect();
    let mut allowed: Vec<i32> = budgets.iter().map(|b| b.allowed).collect();
    // Those whose going violates a budget are the first who may stay.
    let (violating, others): (Vec<Unit>, Vec<Unit>) = units.into_iter().partition(|unit| {
        let mut pods = unit.pods.iter();
        pods.any(|pod| violates(pod, &budgets, &mut allowed))
    });
    let mut victims = Vec::new();
    for unit in violating.into_iter().chain(others) {
        gone.put_back(bench.cache, &unit);
        let decision = decision::place(profile, bench, group, pods, PostFilter::Skip);
        if decision.trial.verdict != Verdict::Schedulable {
            gone.take(bench.cache, &unit);
            victims.push(unit);
        }
    }
    victims.sort_by_key(|unit| Reverse(unit.importance()));
    Ok(victims.into_iter().flat_map(|unit| unit.pods).collect())
}

/// Who could leave. A group does not make room for itself.
fn units(cache: &Cache, group: &ObjectKey) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut groups: HashMap<&ObjectKey, usize> = HashMap::new();
    for pod in cache.nodes().flat_map(|node| &node.pods) {
        if pod.group.as_ref() == Some(group) {
            continue;
        }
        let whole = pod.group.as_ref().and_then(|of| {
            let object = cache.groups.object(of)?;
            object.is_one_victim().then_some((of, object))
        });
        let priority = whole.map_or(pod.priority, |(_, object)| object.priority());
        let at = match whole {
            Some((of, _)) => *groups.entry(of).or_insert(units.len()),
            None => units.len(),
        };
        if at == units.len() {
            units.push(Unit {
                pods: Vec::new(),
                priority,
            });
        }
        units[at].pods.push(Arc::clone(pod));
    }
    units
}

/// Pods that are thought to have left.
#[derive(Default)]
struct Gone(HashMap<ObjectKey, Placed>);

impl Gone {
    fn take(&mut self, cache: &mut Cache, unit: &Unit) {
        for pod in &unit.pods {
            let placed = cache.take_pod(&pod.key);
            self.0
                .extend(placed.map(|placed| (pod.key.clone(), placed)));
        }
    }

    fn put_back(&mut self, cache: &mut Cache, unit: &Unit) {
        for pod in &unit.pods {
            if let Some(placed) = self.0.remove(&pod.key) {
                cache.put_back(&placed);
            }
        }
    }

    fn put_all_back(self, cache: &mut Cache) {
        for placed in self.0.values() {
            cache.put_back(placed);
        }
    }
}
