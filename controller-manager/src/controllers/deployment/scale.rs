//! Scaling a Deployment that is not (only) rolling out: one ReplicaSet, or all in proportion.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::{Set, Which, Work, is_recreate};
use super::revisions::{DESIRED_REPLICAS, MAX_REPLICAS, size};
use crate::workload::int_or_percent::{Round, scaled};

/// Surge and unavailability in pods. Both zero would never get anywhere: then one pod may be
/// unavailable.
fn fenceposts(work: &Work) -> (i32, i32) {
    if is_recreate(&work.deployment) {
        return (0, 0);
    }
    let spec = work.deployment.spec.as_ref();
    let rolling = spec.and_then(|s| s.strategy.as_ref()?.rolling_update.clone());
    let rolling = rolling.unwrap_or_default();
    let value = |v: &Option<IntOrString>, round| {
        v.as_ref()
            .map_or(Some(0), |v| scaled(v, work.replicas(), round))
    };
    let surge = value(&rolling.max_surge, Round::Up);
    let unavailable = value(&rolling.max_unavailable, Round::Down);
    match (surge, unavailable) {
        (Some(0), Some(0)) => (0, 1),
        (Some(surge), Some(unavailable)) => (surge, unavailable),
        _ => (0, 0),
    }
}

/// How many pods there may be in all, while the Deployment rolls.
pub fn most(work: &Work) -> i32 {
    work.replicas().saturating_add(fenceposts(work).0)
}

/// How many pods may be missing.
pub fn max_unavailable(work: &Work) -> i32 {
    fenceposts(work).1.min(work.replicas())
}

/// Whether the Deployment's size has changed since its ReplicaSets were scaled.
pub fn is_scaling_event(work: &Work) -> bool {
    let mut active = work.all().filter(|s| s.replicas() > 0);
    active.any(|s| size(&s.rs, DESIRED_REPLICAS).is_some_and(|d| d != work.replicas()))
}

/// Scales: the only active ReplicaSet to the Deployment's size; old ones to zero if the new
/// one is complete; otherwise, amid a rolling update, all in proportion to their sizes.
pub fn scale(work: &mut Work) {
    let replicas = work.replicas();
    match active_or_latest(work) {
        ActiveOrLatest::None => return,
        ActiveOrLatest::One(which) => {
            work.scale_set(which, replicas, false);
            return;
        }
        ActiveOrLatest::Several => {}
    }
    if work
        .new
        .as_ref()
        .is_some_and(|new| is_saturated(new, replicas))
    {
        for i in 0..work.old.len() {
            work.scale_set(Which::Old(i), 0, false);
        }
        return;
    }
    if !is_recreate(&work.deployment) {
        proportionally(work);
    }
}

enum ActiveOrLatest {
    /// There is no ReplicaSet at all.
    None,
    One(Which),
    Several,
}

/// The only active ReplicaSet; if none is active the new one, else the youngest.
fn active_or_latest(work: &Work) -> ActiveOrLatest {
    let active: Vec<Which> = active(work);
    match active[..] {
        [one] => ActiveOrLatest::One(one),
        [] if work.new.is_some() => ActiveOrLatest::One(Which::New),
        [] => match work.old.len().checked_sub(1) {
            Some(last) => ActiveOrLatest::One(Which::Old(last)),
            None => ActiveOrLatest::None,
        },
        _ => ActiveOrLatest::Several,
    }
}

fn active(work: &Work) -> Vec<Which> {
    let old = work
        .old
        .iter()
        .enumerate()
        .filter(|(_, s)| s.replicas() > 0);
    let new = work.new.iter().filter(|s| s.replicas() > 0);
    old.map(|(i, _)| Which::Old(i))
        .chain(new.map(|_| Which::New))
        .collect()
}

/// Complete, and meant to be.
fn is_saturated(new: &Set, replicas: i32) -> bool {
    new.replicas() == replicas
        && size(&new.rs, DESIRED_REPLICAS) == Some(replicas)
        && new.available() == replicas
}

fn proportionally(work: &mut Work) {
    let replicas = work.replicas();
    let allowed = if replicas > 0 { most(work) } else { 0 };
    let mut sets: Vec<(Which, Set)> = active(work)
        .into_iter()
        .filter_map(|which| Some((which, get(work, which)?.clone())))
        .collect();
    let to_add = allowed - sets.iter().map(|(_, s)| s.replicas()).sum::<i32>();
    // The largest come first: they take what is left over. Among equals the new one gains
    // first and the old one loses first.
    sets.sort_by(|(_, a), (_, b)| {
        let by_size = b.replicas().cmp(&a.replicas());
        by_size.then_with(|| if to_add > 0 { b.by_age(a) } else { a.by_age(b) })
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for (_, set) in &sets {
        let share = proportion(work, set, allowed, to_add, added);
        sizes.push(set.replicas() + share);
        added += share;
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for ((which, _), size) in sets.iter().zip(sizes) {
        work.scale_set(*which, size, true);
    }
}

fn get(work: &Work, which: Which) -> Option<&Set> {
    match which {
        Which::New => work.new.as_ref(),
        Which::Old(i) => work.old.get(i),
    }
}

/// How much of the pods to add (or, negative, to remove) one ReplicaSet gets.
fn proportion(work: &Work, set: &Set, allowed: i32, to_add: i32, added: i32) -> i32 {
    if set.replicas() == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let fraction = fraction(work, set, allowed);
    if to_add > 0 {
        fraction.min(to_add - added)
    } else {
        fraction.max(to_add - added)
    }
}

fn fraction(work: &Work, set: &Set, allowed: i32) -> i32 {
    let own = set.replicas();
    if work.replicas() == 0 {
        return -own;
    }
    let before = match size(&set.rs, MAX_REPLICAS) {
        Some(n) if n != 0 => n,
        _ => work.status.replicas.unwrap_or(0),
    };
    if before == 0 {
        return 0;
    }
    let share = f64::from(own) * f64::from(allowed) / f64::from(before);
    share.round() as i32 - own
}
