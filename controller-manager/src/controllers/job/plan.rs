//! What a Job needs next: pure.
//!
//! A sync has three parts, since each builds on what the server answered to the one before:
//! [`decide`] says which pods to make or delete; [`track`](super::tracking::track) notes ended
//! pods in the status, as "uncounted"; once that is stored, their finalizers can go, and
//! [`conclude`](super::tracking::conclude) counts them. A crash between any two writes counts no
//! pod twice and loses none.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::Object as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::backoff::{self, Backoff};
use super::indexes::Indexes;
use super::policy::{self, Failure};
use crate::kinds::Pod;

/// Keeps a pod until its end has been counted.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Pods that are created or deleted in one sync.
const MAX_PODS: usize = 500;

/// What is known of a Job.
pub struct Observed<'a> {
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    /// Those that it owns.
    pub pods: &'a [Arc<Pod>],
    /// Pods whose finalizer we have taken away, though the cache still shows it.
    pub unfinalized: &'a HashSet<String>,
    /// The cache shows all pods that we have made and deleted.
    pub may_act: bool,
    pub backoff: Backoff,
    pub now: Timestamp,
}

/// What to do about pods.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    Nothing,
    /// The Job is over: delete what still runs. Their ends are counted.
    Stop(Vec<Arc<Pod>>),
    /// Too many run: delete these. Nothing is counted, so the finalizer goes first.
    Remove(Vec<Arc<Pod>>),
    /// One pod for each, with its index if the Job has such.
    Create(Vec<Option<usize>>),
}

/// A sync after its first part.
#[derive(Debug)]
pub struct Decision {
    pub act: Act,
    pub again_after: Option<Duration>,
    /// To be remembered once the status is stored.
    pub backoff: Backoff,
    pub(super) status: JobStatus,
    pub(super) active: i32,
    pub(super) ready: i32,
    pub(super) terminating: i32,
    pub(super) failed: i32,
    pub(super) succeeded: i32,
    pub(super) stopping: bool,
    pub(super) managed: bool,
    pub(super) finished: Option<JobCondition>,
    pub(super) before: Indexes,
    pub(super) indexes: Indexes,
    pub(super) failed_indexes: Option<Indexes>,
    /// The last failed pod of indexes that wait to be tried again.
    pub delayed: HashMap<usize, Arc<Pod>>,
}

/// What became of the first part.
#[derive(Debug, Default, Clone, Copy)]
pub struct Outcome {
    pub created: usize,
    pub deleted: usize,
    /// Of those deleted.
    pub deleted_ready: usize,
}

pub(super) fn condition(
    kind: &str,
    reason: &str,
    message: impl Into<String>,
    now: Timestamp,
) -> JobCondition {
    JobCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
        message: Some(message.into()).filter(|m| !m.is_empty()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

pub(super) fn find<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == kind)
}

pub(super) fn is_true(status: &JobStatus, kind: &str) -> bool {
    find(status, kind).is_some_and(|c| c.status == "True")
}

/// Whether the Job has ended, for good or bad.
pub fn is_finished(job: &Job) -> bool {
    job.status
        .as_ref()
        .is_some_and(|s| is_true(s, "Complete") || is_true(s, "Failed"))
}

pub fn is_indexed(spec: &JobSpec) -> bool {
    spec.completion_mode.as_deref() == Some("Indexed")
}

pub(super) fn is_suspended(spec: &JobSpec) -> bool {
    spec.suspend == Some(true)
}

/// A pod is replaced only when it has ended, not already when it is being deleted.
fn replaces_failed_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed") || spec.pod_failure_policy.is_some()
}

/// The pod's completion index.
pub fn index_of(pod: &Pod) -> Option<usize> {
    pod.metadata.annotations.get(INDEX)?.parse().ok()
}

fn annotation(pod: &Pod, key: &str) -> u32 {
    pod.metadata
        .annotations
        .get(key)
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

/// Failures of the pod's index before it, counted and ignored.
pub fn index_failures(pod: &Pod) -> (u32, u32) {
    (
        annotation(pod, INDEX_FAILURES),
        annotation(pod, INDEX_IGNORED_FAILURES),
    )
}

impl Observed<'_> {
    fn completions(&self) -> Option<usize> {
        self.spec.completions.and_then(|c| usize::try_from(c).ok())
    }

    pub(super) fn is_failed(&self, pod: &Pod) -> bool {
        let replaced_early = !replaces_failed_only(self.spec);
        &*pod.status.phase == "Failed"
            || (replaced_early && pod.is_deleting() && &*pod.status.phase != "Succeeded")
    }

    pub(super) fn failure(&self, pod: &Pod) -> Failure {
        policy::failure(self.spec.pod_failure_policy.as_ref(), pod)
    }

    /// Its end is still to be counted.
    pub(super) fn is_tracked(&self, pod: &Pod) -> bool {
        pod.has_finalizer(FINALIZER) && !self.unfinalized.contains(pod.uid())
    }

    /// The pod's index, if the Job has indexes and this is one of them.
    pub(super) fn valid_index(&self, pod: &Pod) -> Option<usize> {
        let end = self.completions().unwrap_or(0);
        index_of(pod).filter(|i| *i < end)
    }

    /// Pods that have ended and are neither counted nor noted.
    fn new_finished(&self, uncounted: &[String], ended: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        let new = |p: &&Arc<Pod>| {
            self.is_tracked(p)
                && !uncounted.iter().any(|u| u == p.uid())
                && (!is_indexed(self.spec) || self.valid_index(p).is_some())
                && ended(p)
        };
        self.pods.iter().filter(new).cloned().collect()
    }
}

/// The first part.
pub fn decide(observed: &Observed) -> Decision {
    let Observed { spec, now, .. } = *observed;
    let mut status = observed.job.status.clone().unwrap_or_default();
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let noted_ok = uncounted.succeeded.clone().unwrap_or_default();
    let noted_bad = uncounted.failed.clone().unwrap_or_default();
    let suspended = is_suspended(spec);
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(Time(now));
    }

    let active: Vec<Arc<Pod>> = observed
        .pods
        .iter()
        .filter(|p| p.is_active())
        .cloned()
        .collect();
    let count = |pods: &[Arc<Pod>]| pods.len() as i32;
    let new_ok = observed.new_finished(&noted_ok, |p| &*p.status.phase == "Succeeded");
    let new_bad = observed.new_finished(&noted_bad, |p| observed.is_failed(p));
    let counted = new_bad
        .iter()
        .filter(|p| observed.failure(p) != Failure::Ignored)
        .count() as i32;
    let failed = status.failed.unwrap_or(0) + counted + noted_bad.len() as i32;
    let mut decision = Decision {
        act: Act::Nothing,
        again_after: None,
        backoff: observed.backoff.after(&new_ok, &new_bad),
        active: count(&active),
        ready: active.iter().filter(|p| p.is_ready()).count() as i32,
        terminating: observed.pods.iter().filter(|p| p.is_terminating()).count() as i32,
        failed,
        succeeded: status.succeeded.unwrap_or(0) + count(&new_ok) + noted_ok.len() as i32,
        stopping: false,
        managed: false,
        finished: None,
        before: Indexes::default(),
        indexes: Indexes::default(),
        failed_indexes: None,
        delayed: HashMap::new(),
        status,
    };
    decision.finished = already_decided(observed, &decision.status)
        .or_else(|| over_limits(observed, &mut decision, failed));
    if is_indexed(spec) {
        look_at_indexes(observed, &mut decision, &active);
    }
    if decision.finished.is_some() {
        decision.stopping = true;
        decision.act = Act::Stop(active);
    } else if observed.may_act && observed.job.metadata.deletion_timestamp.is_none() {
        decision.managed = true;
        manage(observed, &mut decision, active);
    }
    decision
}

/// What an earlier sync has decided, or a pod has by its way of failing.
fn already_decided(observed: &Observed, status: &JobStatus) -> Option<JobCondition> {
    if is_true(status, "SuccessCriteriaMet") {
        return find(status, "SuccessCriteriaMet").cloned();
    }
    if let Some(target) = find(status, "FailureTarget").filter(|c| c.status == "True") {
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        return Some(condition(
            "Failed",
            &text(&target.reason),
            text(&target.message),
            observed.now,
        ));
    }
    let mut failed = observed.pods.iter().filter(|p| observed.is_failed(p));
    failed.find_map(|p| match observed.failure(p) {
        Failure::FailsJob(message) => Some(condition(
            "FailureTarget",
            "PodFailurePolicy",
            message,
            observed.now,
        )),
        _ => None,
    })
}

fn over_limits(observed: &Observed, decision: &mut Decision, failed: i32) -> Option<JobCondition> {
    let Observed { spec, now, .. } = *observed;
    let fail = |reason, message: &str| Some(condition("FailureTarget", reason, message, now));
    let limit = spec.backoff_limit.unwrap_or(6);
    if failed > limit || too_many_restarts(observed, limit) {
        return fail(
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        );
    }
    let (Some(deadline), Some(start)) = (spec.active_deadline_seconds, &decision.status.start_time)
    else {
        return None;
    };
    if is_suspended(spec) {
        return None;
    }
    let left = SignedDuration::from_secs(deadline).saturating_sub(now.duration_since(start.0));
    if !left.is_positive() {
        return fail(
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        );
    }
    decision.again_after = Duration::try_from(left).ok();
    None
}

/// With `restartPolicy: OnFailure` it is restarts that count.
fn too_many_restarts(observed: &Observed, limit: i32) -> bool {
    let pod_spec = observed.spec.template.spec.as_ref();
    if pod_spec.and_then(|s| s.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let alive = observed
        .pods
        .iter()
        .filter(|p| matches!(&*p.status.phase, "Running" | "Pending"));
    let statuses = alive.flat_map(|p| {
        p.status
            .container_statuses
            .iter()
            .chain(&p.status.init_container_statuses)
    });
    let restarts: i32 = statuses.map(|s| s.restart_count).sum();
    if limit == 0 {
        restarts > 0
    } else {
        restarts >= limit
    }
}

fn look_at_indexes(observed: &Observed, decision: &mut Decision, active: &[Arc<Pod>]) {
    let Observed {
        spec, pods, now, ..
    } = *observed;
    let completions = observed.completions().unwrap_or(0);
    let known = decision
        .status
        .completed_indexes
        .as_deref()
        .unwrap_or_default();
    decision.before = Indexes::parse(known, completions);
    let with_finalizer = |p: &&Arc<Pod>| p.has_finalizer(FINALIZER);
    let ok = pods
        .iter()
        .filter(|p| &*p.status.phase == "Succeeded")
        .filter(with_finalizer);
    decision.indexes = decision
        .before
        .with(ok.filter_map(|p| observed.valid_index(p)));
    decision.succeeded = decision.indexes.total() as i32;
    if let Some(limit) = spec.backoff_limit_per_index {
        let known = decision
            .status
            .failed_indexes
            .as_deref()
            .unwrap_or_default();
        let exhausted = |p: &&Arc<Pod>| {
            observed.is_failed(p)
                && match observed.failure(p) {
                    Failure::FailsIndex => true,
                    Failure::Ignored => false,
                    _ => i64::from(index_failures(p).0) >= i64::from(limit),
                }
        };
        let bad = pods.iter().filter(with_finalizer).filter(exhausted);
        let failed =
            Indexes::parse(known, completions).with(bad.filter_map(|p| observed.valid_index(p)));
        let fail = |reason, message: &str| Some(condition("FailureTarget", reason, message, now));
        if decision.finished.is_none() {
            let max = spec
                .max_failed_indexes
                .and_then(|m| usize::try_from(m).ok());
            if max.is_some_and(|m| failed.total() > m) {
                decision.finished = fail(
                    "MaxFailedIndexesExceeded",
                    "Job has exceeded the specified maximal number of failed indexes",
                );
            } else if failed.total() > 0 && failed.total() + decision.indexes.total() >= completions
            {
                decision.finished = fail("FailedIndexes", "Job has failed indexes");
            }
        }
        decision.delayed = delayed(observed, &decision.indexes, &failed, active);
        decision.failed_indexes = Some(failed);
    }
    if decision.finished.is_none()
        && let Some(message) =
            policy::success(spec.success_policy.as_ref(), completions, &decision.indexes)
    {
        decision.finished = Some(condition(
            "SuccessCriteriaMet",
            "SuccessPolicy",
            message,
            now,
        ));
    }
}

/// The last failed pod of each index that is to be tried again: it stays until its successor
/// is there, to tell it how often the index has failed.
fn delayed(
    observed: &Observed,
    ok: &Indexes,
    bad: &Indexes,
    active: &[Arc<Pod>],
) -> HashMap<usize, Arc<Pod>> {
    let running: HashSet<usize> = active.iter().filter_map(|p| index_of(p)).collect();
    let mut last: HashMap<usize, Arc<Pod>> = HashMap::new();
    for pod in observed
        .pods
        .iter()
        .filter(|p| observed.is_tracked(p) && observed.is_failed(p))
    {
        let Some(index) = observed.valid_index(pod) else {
            continue;
        };
        if ok.has(index) || bad.has(index) || running.contains(&index) {
            continue;
        }
        let age = |p: &Pod| {
            let (counted, ignored) = index_failures(p);
            (counted + ignored, p.finished_at())
        };
        let slot = last.entry(index).or_insert_with(|| Arc::clone(pod));
        if age(pod) >= age(slot) {
            *slot = Arc::clone(pod);
        }
    }
    last
}

fn manage(observed: &Observed, decision: &mut Decision, active: Vec<Arc<Pod>>) {
    let Observed { spec, now, .. } = *observed;
    if is_suspended(spec) {
        decision.act = Act::Remove(active);
        return;
    }
    let have = decision.active;
    let parallelism = spec.parallelism.unwrap_or(1);
    let want = match spec.completions {
        // Once one has succeeded no more are started.
        None if decision.succeeded > 0 => have,
        None => parallelism,
        Some(completions) => (completions - decision.succeeded).clamp(0, parallelism.max(0)),
    };
    let excess = usize::try_from(have - want).unwrap_or(0);
    let mut removed = for_removal(observed, active.clone(), excess);
    removed.truncate(MAX_PODS);
    if !removed.is_empty() {
        decision.act = Act::Remove(removed);
        return;
    }
    let terminating = if replaces_failed_only(spec) {
        decision.terminating
    } else {
        0
    };
    let missing = usize::try_from(want - terminating - have)
        .unwrap_or(0)
        .min(MAX_PODS);
    if missing == 0 {
        return;
    }
    let per_index = spec.backoff_limit_per_index.is_some();
    let wait = if per_index {
        Duration::ZERO
    } else {
        decision.backoff.remaining(now)
    };
    if !wait.is_zero() {
        decision.wait(wait);
        return;
    }
    if !is_indexed(spec) {
        decision.act = Act::Create(vec![None; missing]);
        return;
    }
    let indexes = |pods: &[Arc<Pod>]| pods.iter().filter_map(|p| index_of(p)).collect::<Vec<_>>();
    let mut taken = decision.indexes.with(indexes(&active));
    if replaces_failed_only(spec) {
        let going: Vec<_> = observed
            .pods
            .iter()
            .filter(|p| p.is_terminating())
            .cloned()
            .collect();
        taken = taken.with(indexes(&going));
    }
    if let Some(failed) = &decision.failed_indexes {
        taken = taken.union(failed);
    }
    let next = taken.missing(missing, observed.completions().unwrap_or(0));
    let waits = |index: &usize| {
        let last = decision.delayed.get(index).filter(|_| per_index);
        last.map_or(Duration::ZERO, |pod| {
            let (counted, ignored) = index_failures(pod);
            pod.finished_at().map_or(Duration::ZERO, |at| {
                backoff::remaining(counted + ignored + 1, at, now)
            })
        })
    };
    let (ready, waiting): (Vec<usize>, Vec<usize>) =
        next.into_iter().partition(|i| waits(i).is_zero());
    if ready.is_empty() {
        if let Some(wait) = waiting.iter().map(waits).min() {
            decision.wait(wait);
        }
        return;
    }
    decision.act = Act::Create(ready.into_iter().map(Some).collect());
}

impl Decision {
    fn wait(&mut self, wait: Duration) {
        self.again_after = Some(self.again_after.map_or(wait, |w| w.min(wait)));
    }
}

/// At least `excess` pods that are least worth keeping: of indexes that are too many or twice
/// there first.
fn for_removal(observed: &Observed, mut pods: Vec<Arc<Pod>>, excess: usize) -> Vec<Arc<Pod>> {
    pods.sort_by_key(|p| worth(p));
    let mut removed = Vec::new();
    if is_indexed(observed.spec) {
        // The most worth of each index stays.
        let mut seen = HashSet::new();
        let mut left = Vec::new();
        for pod in pods.into_iter().rev() {
            match observed.valid_index(&pod) {
                Some(index) if seen.insert(index) => left.push(pod),
                _ => removed.push(pod),
            }
        }
        left.reverse();
        pods = left;
    }
    let more = excess.saturating_sub(removed.len());
    removed.extend(pods.into_iter().take(more));
    removed
}

/// What sorts pods by their worth: assigned, running, ready, ready for long, few restarts, old.
type Worth = (
    bool,
    u8,
    bool,
    Reverse<Option<Timestamp>>,
    Reverse<(i32, i32)>,
    Reverse<Option<Timestamp>>,
);

fn worth(pod: &Pod) -> Worth {
    let phase = match &*pod.status.phase {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let created = pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    (
        !pod.spec.node_name.is_empty(),
        phase,
        pod.is_ready(),
        Reverse(pod.ready_since()),
        Reverse(pod.max_restarts()),
        Reverse(created),
    )
}
