//! Rolling out: a new ReplicaSet grows while old ones shrink, or (`Recreate`) after they are gone.

use super::plan::{Set, Which, Work, is_recreate};
use super::scale::{max_unavailable, most};
use super::status;

/// The size that the new ReplicaSet may have now.
pub fn new_set_size(work: &Work, current: i32) -> i32 {
    if is_recreate(&work.deployment) {
        return work.replicas();
    }
    // Zero surge and zero unavailability count as one unavailable, not as surge.
    let room = most(work).saturating_sub(work.total());
    if room <= 0 {
        return current;
    }
    current + room.min(work.replicas() - current)
}

/// One step of a rolling update: either up or down, never both, since what can be done next
/// depends on what becomes available.
pub fn rolling_update(work: &mut Work) {
    work.sync_revision(true);
    if grow_new(work) || shrink_old(work) {
        return;
    }
    if status::is_complete(work, &work.status) {
        work.clean_up();
    }
}

fn grow_new(work: &mut Work) -> bool {
    let current = work.new.as_ref().map_or(0, Set::replicas);
    let target = if current > work.replicas() {
        work.replicas()
    } else {
        new_set_size(work, current)
    };
    work.scale_set(Which::New, target, false)
}

fn shrink_old(work: &mut Work) -> bool {
    if work.old.iter().all(|s| s.replicas() == 0) {
        return false;
    }
    let min_available = work.replicas() - max_unavailable(work);
    let new_unavailable = work
        .new
        .as_ref()
        .map_or(0, |s| s.replicas() - s.available());
    let budget = work.total() - min_available - new_unavailable;
    if budget <= 0 {
        return false;
    }
    let cleaned = shrink_unhealthy(work, budget);
    let scaled = shrink_healthy(work, min_available);
    cleaned + scaled > 0
}

/// Takes pods away first that are not available: that costs nothing, and an old ReplicaSet
/// that cannot start must not block the update.
fn shrink_unhealthy(work: &mut Work, budget: i32) -> i32 {
    let mut done = 0;
    for i in 0..work.old.len() {
        let (replicas, available) = (work.old[i].replicas(), work.old[i].available());
        let count = (budget - done).min(replicas - available);
        if done >= budget || replicas == 0 || count <= 0 {
            continue;
        }
        work.scale_set(Which::Old(i), replicas - count, false);
        done += count;
    }
    done
}

fn shrink_healthy(work: &mut Work, min_available: i32) -> i32 {
    let budget = work.available() - min_available;
    let mut done = 0;
    for i in 0..work.old.len() {
        let replicas = work.old[i].replicas();
        let count = replicas.min(budget - done);
        if replicas == 0 || count <= 0 {
            continue;
        }
        work.scale_set(Which::Old(i), replicas - count, false);
        done += count;
    }
    done
}

/// Stops everything old, waits until no pod of it runs, then starts the new one in full.
pub fn recreate(work: &mut Work, running_pods: &[(String, usize)]) {
    let mut scaled = false;
    for i in 0..work.old.len() {
        scaled |= work.scale_set(Which::Old(i), 0, false);
    }
    if scaled || old_pods_running(work, running_pods) {
        return;
    }
    work.sync_revision(true);
    work.scale_set(Which::New, work.replicas(), false);
    if status::is_complete(work, &work.status) {
        work.clean_up();
    }
}

fn old_pods_running(work: &Work, running_pods: &[(String, usize)]) -> bool {
    if work.old.iter().any(|s| s.status().replicas > 0) {
        return true;
    }
    let new = work.new.as_ref().and_then(|s| s.rs.metadata.uid.as_deref());
    running_pods
        .iter()
        .any(|(uid, n)| *n > 0 && Some(uid.as_str()) != new)
}
