//! Which pods of a StatefulSet are made, deleted and put right, and in what order: pure.
//!
//! An ordered set does one thing at a time: it goes through its pods by their ordinals, and
//! stops at the first that is not there, not ready or on its way out. A parallel one does not
//! wait. Either is scaled before it is updated.

use std::sync::Arc;
use std::time::Duration;

use client::Object as _;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};

use super::claims::{self, Claims};
use super::identity::{self, Member, ordinals, revision, slot};
use crate::kinds::Pod;
use crate::workload::int_or_percent::{Round, scaled};

/// What is known of a set.
pub struct Observed<'a> {
    pub set: &'a StatefulSet,
    /// Those that it owns.
    pub pods: &'a [Arc<Pod>],
    pub claims: &'a Claims,
    /// Names of the revisions before and after the update.
    pub current: &'a str,
    pub update: &'a str,
    pub collisions: i32,
    /// The gate `MaxUnavailableStatefulSet` (KEP-961).
    pub max_unavailable: bool,
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Make the pod, and before it its claims.
    Create {
        member: Member,
        /// Of the new template, not of the one before.
        updated: bool,
    },
    Delete(Arc<Pod>),
    /// Give the pod back its labels and volumes, and its claims their owners.
    Repair(Member),
    /// Make claims that are missing, and give all their owners.
    Claims(Member),
    /// Give claims their owners.
    Owners(Member),
}

/// What to do, in stages. A failure ends the stage it is in, and none follows.
#[derive(Debug)]
pub struct Plan {
    /// Steps of one pod are done in order; pods of a stage in order, or all at once.
    pub stages: Vec<Vec<Vec<Step>>>,
    pub at_once: bool,
    /// Pods that make room for their successors, one after the other, when all else is done.
    pub replace: Vec<Arc<Pod>>,
    /// Before the replacements.
    pub status: StatefulSetStatus,
}

/// Made, or found to be gone, by the server; not only planned.
fn is_created(pod: &Pod) -> bool {
    !pod.status.phase.is_empty()
}

fn is_running_and_ready(pod: &Pod) -> bool {
    &*pod.status.phase == "Running" && pod.is_ready()
}

pub fn min_ready(set: &StatefulSet) -> i32 {
    let spec = set.spec.as_ref();
    spec.and_then(|s| s.min_ready_seconds).unwrap_or(0)
}

pub fn is_parallel(set: &StatefulSet) -> bool {
    let spec = set.spec.as_ref();
    spec.and_then(|s| s.pod_management_policy.as_deref()) == Some("Parallel")
}

/// The pods by what the set wants of them.
struct Sorted {
    /// By ordinal; `None`: there is none.
    wanted: Vec<Option<Arc<Pod>>>,
    /// The highest ordinal first.
    condemned: Vec<(i64, Arc<Pod>)>,
}

impl Observed<'_> {
    fn member(&self, pod: &Pod, ordinal: i64) -> Member {
        Member {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            ordinal,
            stays: slot(self.set, ordinal).is_some(),
        }
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod.is_available(min_ready(self.set), self.now)
    }

    fn is_unavailable(&self, pod: Option<&Arc<Pod>>) -> bool {
        pod.is_none_or(|p| !self.is_available(p) || p.is_deleting())
    }

    fn sort(&self) -> Sorted {
        let (_, count) = ordinals(self.set);
        let mut sorted = Sorted {
            wanted: vec![None; count],
            condemned: Vec::new(),
        };
        for pod in self.pods {
            let Some(ordinal) = identity::ordinal(self.set.name(), pod.name()) else {
                continue;
            };
            match slot(self.set, ordinal) {
                Some(slot) => sorted.wanted[slot] = Some(Arc::clone(pod)),
                None => sorted.condemned.push((ordinal, Arc::clone(pod))),
            }
        }
        sorted.condemned.sort_by_key(|(ordinal, _)| -ordinal);
        sorted
    }

    fn status(&self) -> StatefulSetStatus {
        let count = |f: &dyn Fn(&Pod) -> bool| {
            let pods = self.pods.iter().filter(|p| f(p));
            i32::try_from(pods.count()).unwrap_or(i32::MAX)
        };
        let some = |n: i32| Some(n).filter(|n| *n != 0);
        let of = |name: &str| {
            count(&|p| is_created(p) && !p.is_deleting() && identity::revision(p) == name)
        };
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: count(&is_created),
            ready_replicas: some(count(&is_running_and_ready)),
            available_replicas: Some(count(&|p| is_running_and_ready(p) && self.is_available(p))),
            current_replicas: some(of(self.current)),
            updated_replicas: some(of(self.update)),
            current_revision: Some(self.current.to_owned()),
            update_revision: Some(self.update.to_owned()),
            collision_count: Some(self.collisions),
            ..StatefulSetStatus::default()
        };
        complete(self.set, &mut status);
        status
    }
}

/// The update is complete once all pods are new and ready.
pub fn complete(set: &StatefulSet, status: &mut StatefulSetStatus) {
    let (_, wanted) = ordinals(set);
    let all = |n: i32| usize::try_from(n) == Ok(wanted);
    if rolls(set)
        && all(status.updated_replicas.unwrap_or(0))
        && all(status.ready_replicas.unwrap_or(0))
        && all(status.replicas)
    {
        status.current_replicas = status.updated_replicas;
        status.current_revision.clone_from(&status.update_revision);
    }
}

fn strategy(set: &StatefulSet) -> Option<&str> {
    set.spec
        .as_ref()?
        .update_strategy
        .as_ref()?
        .type_
        .as_deref()
}

fn rolls(set: &StatefulSet) -> bool {
    strategy(set).is_none_or(|s| s == "RollingUpdate")
}

/// Pods of ordinals below, counted from the first, keep the revision before.
fn partition(set: &StatefulSet) -> Option<usize> {
    let strategy = set.spec.as_ref()?.update_strategy.as_ref()?;
    let rolling = strategy.rolling_update.as_ref()?;
    Some(usize::try_from(rolling.partition.unwrap_or(0)).unwrap_or(0))
}

/// Whether a new pod gets the new template.
fn is_updated(set: &StatefulSet, slot: usize) -> bool {
    match partition(set) {
        Some(partition) => slot >= partition,
        None if rolls(set) => {
            let current = set.status.as_ref().and_then(|s| s.current_replicas);
            slot >= usize::try_from(current.unwrap_or(0)).unwrap_or(0)
        }
        None => true,
    }
}

/// The plan.
pub fn plan(observed: &Observed) -> Plan {
    let mut plan = Plan {
        stages: Vec::new(),
        at_once: is_parallel(observed.set),
        replace: Vec::new(),
        status: observed.status(),
    };
    if observed.set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let sorted = observed.sort();
    if keep(observed, &sorted, &mut plan) && condemn(observed, &sorted, &mut plan) {
        plan.replace = update(observed, &sorted, &plan);
    }
    plan
}

/// Sees to the pods that the set wants. Whether to go on.
fn keep(observed: &Observed, sorted: &Sorted, plan: &mut Plan) -> bool {
    let ordered = !plan.at_once;
    let (start, _) = ordinals(observed.set);
    let mut stage = Vec::new();
    let mut go_on = true;
    for (ordinal, (slot, pod)) in (start..).zip(sorted.wanted.iter().enumerate()) {
        let (steps, blocked) = keep_one(observed, ordinal, slot, pod.as_ref());
        if !steps.is_empty() {
            stage.push(steps);
        }
        if blocked && ordered {
            go_on = false;
            break;
        }
    }
    plan.stages.push(stage);
    go_on
}

/// What to do about one pod that the set wants, and whether an ordered set waits for it.
fn keep_one(
    observed: &Observed,
    ordinal: i64,
    slot: usize,
    pod: Option<&Arc<Pod>>,
) -> (Vec<Step>, bool) {
    let set = observed.set;
    let Some(pod) = pod else {
        let member = Member {
            name: identity::name(set, ordinal),
            uid: String::new(),
            ordinal,
            stays: true,
        };
        if claims::awaited(set, &member, observed.claims) {
            return (Vec::new(), true);
        }
        let updated = is_updated(set, slot);
        return (vec![Step::Create { member, updated }], true);
    };
    // However it has ended: a node that restarts ends pods that way, too.
    if pod.is_terminal() {
        let delete = (!pod.is_deleting()).then(|| Step::Delete(Arc::clone(pod)));
        return (delete.into_iter().collect(), true);
    }
    let member = observed.member(pod, ordinal);
    let mut steps = Vec::new();
    if &*pod.status.phase == "Pending" {
        steps.push(Step::Claims(member.clone()));
    }
    let blocks = pod.is_deleting() || !is_running_and_ready(pod) || !observed.is_available(pod);
    if blocks && !is_parallel(set) {
        return (steps, true);
    }
    let owned = claims::are_owned(set, &member, observed.claims);
    if !identity::is_whole(set, pod, ordinal) || !owned {
        steps.push(Step::Repair(member));
    }
    (steps, blocks)
}

/// Sees to the pods that are too many. Whether to go on.
fn condemn(observed: &Observed, sorted: &Sorted, plan: &mut Plan) -> bool {
    let ordered = !plan.at_once;
    let members = sorted.condemned.iter();
    let members = members.map(|(ordinal, pod)| observed.member(pod, *ordinal));
    let disowned = members.filter(|m| !claims::are_owned(observed.set, m, observed.claims));
    plan.stages
        .push(disowned.map(|m| vec![Step::Owners(m)]).collect());

    // An ordered set that has come so far has all pods that it wants, and they are well.
    let mut lowest_first = sorted.condemned.iter().rev().map(|(_, pod)| pod);
    let unwell = lowest_first.find(|p| observed.is_unavailable(Some(*p)));
    let unwell = unwell.map(|p| p.name());
    let mut stage = Vec::new();
    let mut go_on = true;
    for (_, pod) in &sorted.condemned {
        if ordered {
            let well = is_running_and_ready(pod) && observed.is_available(pod);
            go_on = false;
            if !pod.is_deleting() && (well || unwell == Some(pod.name())) {
                stage.push(vec![Step::Delete(Arc::clone(pod))]);
            }
            break;
        }
        if !pod.is_deleting() {
            stage.push(vec![Step::Delete(Arc::clone(pod))]);
        }
    }
    plan.stages.push(stage);
    go_on
}

/// Pods of the revision before that go now, so that new ones can come.
fn update(observed: &Observed, sorted: &Sorted, plan: &Plan) -> Vec<Arc<Pod>> {
    let set = observed.set;
    if strategy(set) == Some("OnDelete") {
        return Vec::new();
    }
    let going = |pod: &Arc<Pod>| {
        let steps = plan.stages.iter().flatten().flatten();
        let mut steps = steps.filter_map(|s| match s {
            Step::Delete(p) => Some(p.uid()),
            _ => None,
        });
        steps.any(|uid| uid == pod.uid())
    };
    let old = |pod: &&Arc<Pod>| revision(pod) != observed.update && !pod.is_deleting();
    let newest_first = || {
        let slots = sorted.wanted.iter().enumerate().rev();
        slots.take_while(|(slot, _)| *slot >= partition(set).unwrap_or(0))
    };
    if observed.max_unavailable {
        let down = sorted.wanted.iter();
        let down = down.filter(|p| observed.is_unavailable(p.as_ref())).count();
        let room = max_unavailable(set).saturating_sub(down);
        let old = newest_first()
            .filter_map(|(_, pod)| pod.as_ref())
            .filter(old);
        return old.filter(|p| !going(p)).take(room).cloned().collect();
    }
    for (_, pod) in newest_first() {
        if let Some(pod) = pod.as_ref().filter(old) {
            return Some(Arc::clone(pod))
                .filter(|p| !going(p))
                .into_iter()
                .collect();
        }
        if observed.is_unavailable(pod.as_ref()) {
            break;
        }
    }
    Vec::new()
}

/// How many pods may be missing during an update: at least one.
fn max_unavailable(set: &StatefulSet) -> usize {
    let strategy = set.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let (_, count) = ordinals(set);
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    let value = rolling.and_then(|r| r.max_unavailable.as_ref());
    let value = value.and_then(|v| scaled(v, count, Round::Down));
    usize::try_from(value.unwrap_or(1)).unwrap_or(1).max(1)
}

/// Whether the status is worth writing.
pub fn differs(old: Option<&StatefulSetStatus>, new: &StatefulSetStatus) -> bool {
    let Some(old) = old else { return true };
    let counts = |s: &StatefulSetStatus| {
        [
            Some(s.replicas),
            s.ready_replicas,
            s.available_replicas,
            s.current_replicas,
            s.updated_replicas,
        ]
        .map(|n| n.unwrap_or(0))
    };
    new.observed_generation > old.observed_generation
        || counts(new) != counts(old)
        || new.current_revision != old.current_revision
        || new.update_revision != old.update_revision
}

/// When the next pod becomes available by waiting alone.
pub fn again_after(observed: &Observed, status: &StatefulSetStatus) -> Option<Duration> {
    let min_ready = min_ready(observed.set);
    let (ready, available) = (status.ready_replicas, status.available_replicas);
    if min_ready <= 0 || ready.unwrap_or(0) == available.unwrap_or(0) {
        return None;
    }
    let next = observed
        .pods
        .iter()
        .filter_map(|p| p.available_in(min_ready, observed.now));
    let longest = Duration::from_secs(min_ready.unsigned_abs().into());
    let next = next.min().and_then(|d| Duration::try_from(d).ok());
    Some(next.unwrap_or(longest))
}
