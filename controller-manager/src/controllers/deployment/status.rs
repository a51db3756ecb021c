//! A Deployment's status: counts from its ReplicaSets, availability, progress.

use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};

use super::conditions::{self, AVAILABLE, PROGRESSING, REPLICA_FAILURE, reason};
use super::plan::{Set, Work, progress_deadline};
use super::scale::max_unavailable;

/// Counts and availability; other conditions stay as they are.
pub fn calculate(work: &Work) -> DeploymentStatus {
    let nonzero = |n: i32| Some(n).filter(|n| *n != 0);
    let sum = |f: fn(&Set) -> i32| work.all().map(f).sum::<i32>();
    let available = work.available();
    let mut status = DeploymentStatus {
        observed_generation: work.deployment.metadata.generation.filter(|g| *g != 0),
        replicas: nonzero(sum(|s| s.status().replicas)),
        updated_replicas: nonzero(work.new.as_ref().map_or(0, |s| s.status().replicas)),
        ready_replicas: nonzero(sum(|s| s.status().ready_replicas.unwrap_or(0))),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((work.total() - available).max(0)),
        collision_count: work.status.collision_count,
        terminating_replicas: terminating(work),
        conditions: work.status.conditions.clone(),
    };
    let condition = if available >= work.replicas() - max_unavailable(work) {
        conditions::new(
            AVAILABLE,
            "True",
            reason::MINIMUM_REPLICAS_AVAILABLE,
            "Deployment has minimum availability.",
            work.now,
        )
    } else {
        conditions::new(
            AVAILABLE,
            "False",
            reason::MINIMUM_REPLICAS_UNAVAILABLE,
            "Deployment does not have minimum availability.",
            work.now,
        )
    };
    conditions::set(&mut status, condition);
    status
}

/// Unknown as soon as one ReplicaSet does not know. One that has not been looked at yet has
/// none.
fn terminating(work: &Work) -> Option<i32> {
    let mut total = 0;
    for set in work.all() {
        let status = set.status();
        match status.terminating_replicas {
            Some(n) => total += n,
            None if status.observed_generation.unwrap_or(0) == 0 => {}
            None => return None,
        }
    }
    Some(total)
}

/// All pods are of the new template, and available.
pub fn is_complete(work: &Work, status: &DeploymentStatus) -> bool {
    let all = work.replicas();
    status.updated_replicas.unwrap_or(0) == all
        && status.replicas.unwrap_or(0) == all
        && status.available_replicas.unwrap_or(0) == all
        && status.observed_generation >= work.deployment.metadata.generation
}

/// Whether something got better between the two.
fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let n = |v: Option<i32>| v.unwrap_or(0);
    let outdated = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    n(new.updated_replicas) > n(old.updated_replicas)
        || outdated(new) < outdated(old)
        || n(new.ready_replicas) > n(old.ready_replicas)
        || n(new.available_replicas) > n(old.available_replicas)
}

/// The status of a Deployment that is rolling out, with its progress against the deadline.
pub fn roll_out(work: &mut Work, before: Option<&DeploymentStatus>) {
    let mut status = calculate(work);
    let deadline = progress_deadline(&work.deployment);
    let current = conditions::get(&work.status, PROGRESSING).cloned();
    if deadline.is_none() {
        conditions::remove(&mut status, PROGRESSING);
    }
    let was_complete = status.replicas == status.updated_replicas
        && conditions::has_reason(current.as_ref(), reason::NEW_REPLICA_SET_AVAILABLE);
    if let Some(deadline) = deadline.filter(|_| !was_complete) {
        progress(work, &mut status, current.as_ref(), deadline);
    }
    match replica_failure(work) {
        Some(condition) => conditions::set(&mut status, condition),
        None => conditions::remove(&mut status, REPLICA_FAILURE),
    }
    if before == Some(&status) {
        check_again(work, &status, deadline);
    }
    work.status = status;
}

fn progress(
    work: &Work,
    status: &mut DeploymentStatus,
    current: Option<&DeploymentCondition>,
    deadline: i32,
) {
    let new = work
        .new
        .as_ref()
        .and_then(|s| s.rs.metadata.name.as_deref());
    let subject = match new {
        Some(name) => format!("ReplicaSet {name:?}"),
        None => format!("Deployment {:?}", work.name()),
    };
    let condition =
        |status, reason, message| conditions::new(PROGRESSING, status, reason, message, work.now);
    let before = work.deployment.status.clone().unwrap_or_default();
    if is_complete(work, status) {
        let message = format!("{subject} has successfully progressed.");
        let done = condition("True", reason::NEW_REPLICA_SET_AVAILABLE, message);
        conditions::set(status, done);
    } else if is_progressing(&before, status) {
        let message = format!("{subject} is progressing.");
        let mut moving = condition("True", reason::REPLICA_SET_UPDATED, message);
        if let Some(current) = current {
            if current.status == "True" {
                moving.last_transition_time = current.last_transition_time.clone();
            }
            // The update time must move on, which `set` alone would not do.
            conditions::remove(status, PROGRESSING);
        }
        conditions::set(status, moving);
    } else if is_timed_out(work, status, deadline) {
        let message = format!("{subject} has timed out progressing.");
        let late = condition("False", reason::TIMED_OUT, message);
        conditions::set(status, late);
    }
}

fn is_timed_out(work: &Work, status: &DeploymentStatus, deadline: i32) -> bool {
    let Some(condition) = conditions::get(status, PROGRESSING) else {
        return false;
    };
    if conditions::has_reason(Some(condition), reason::NEW_REPLICA_SET_AVAILABLE) {
        return false;
    }
    if conditions::has_reason(Some(condition), reason::TIMED_OUT) {
        return true;
    }
    let since = condition.last_update_time.as_ref();
    let limit = SignedDuration::from_secs(deadline.into());
    since.is_some_and(|t| work.now.duration_since(t.0) > limit)
}

/// The new ReplicaSet's failure first, else that of any other.
fn replica_failure(work: &Work) -> Option<DeploymentCondition> {
    let sets = work.new.iter().chain(&work.old);
    sets.flat_map(|s| s.status().conditions.unwrap_or_default())
        .find(|c| c.type_ == REPLICA_FAILURE)
        .map(|c| conditions::from_replica_set(&c))
}

/// Nothing happens to a stuck Deployment that would wake us up: look again at the deadline.
fn check_again(work: &mut Work, status: &DeploymentStatus, deadline: Option<i32>) {
    let current = conditions::get(&work.status, PROGRESSING);
    let (Some(deadline), Some(current)) = (deadline, current) else {
        return;
    };
    if is_complete(work, status) || conditions::has_reason(Some(current), reason::TIMED_OUT) {
        return;
    }
    let Some(since) = &current.last_update_time else {
        return;
    };
    let left = SignedDuration::from_secs(deadline.into()) - work.now.duration_since(since.0);
    let wait = Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1);
    work.look_again_after(wait);
}
