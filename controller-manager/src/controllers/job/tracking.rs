//! A sync's second and third part: pods that have ended are noted in the Job's status, and
//! counted once nothing keeps them any more. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::Object as _;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::indexes::Indexes;
use super::plan::{
    Act, Decision, Observed, Outcome, condition, find, index_of, is_indexed, is_suspended, is_true,
};
use super::policy::Failure;
use crate::kinds::Pod;

/// Uncounted pods that a status may hold.
const MAX_UNCOUNTED: usize = 500;

/// An event about the Job: whether a warning, reason, message.
pub type Event = (bool, String, String);

/// A sync after its second part.
#[derive(Debug)]
pub struct Tracking {
    pub status: JobStatus,
    /// After the status is stored.
    pub unfinalize: Vec<Arc<Pod>>,
    pub events: Vec<Event>,
    with_finalizer: HashSet<String>,
    finished: Option<JobCondition>,
    terminating: i32,
    more: bool,
}

/// The second part.
pub fn track(observed: &Observed, decision: Decision, outcome: Outcome) -> Tracking {
    let Observed { spec, now, .. } = *observed;
    let Decision {
        mut status,
        mut finished,
        ..
    } = decision;
    let mut events = Vec::new();
    let n = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let active = decision.active + n(outcome.created) - n(outcome.deleted);
    let terminating = decision.terminating + n(outcome.deleted);
    let all_stopped = matches!(&decision.act, Act::Stop(pods) if pods.len() == outcome.deleted);
    if decision.stopping {
        if !all_stopped || !observed.may_act {
            finished = None;
        }
    } else {
        let complete = active == 0
            && match spec.completions {
                None => decision.succeeded > 0,
                Some(completions) => decision.succeeded >= completions,
            };
        if complete {
            let message = "Reached expected number of succeeded pods";
            finished = Some(condition(
                "SuccessCriteriaMet",
                "CompletionsReached",
                message,
                now,
            ));
        } else if decision.managed {
            note_suspension(spec, &mut status, now, &mut events);
        }
    }
    let nonzero = |n: i32| Some(n).filter(|n| *n != 0);
    status.active = nonzero(active);
    status.ready = Some(decision.ready - n(outcome.deleted_ready));
    status.terminating = Some(terminating);

    let tracked = observed.pods.iter().filter(|p| observed.is_tracked(p));
    let with_finalizer: HashSet<String> = tracked.map(|p| p.uid().to_owned()).collect();
    count_unfinalized(&mut status, &with_finalizer);
    let mut tracking = Tracking {
        unfinalize: Vec::new(),
        events,
        with_finalizer,
        finished,
        terminating,
        more: false,
        status,
    };
    let new_indexes = note_ended(observed, &decision.before, &decision.delayed, &mut tracking);
    if is_indexed(spec) {
        let indexes = decision.indexes.with(new_indexes);
        tracking.status.succeeded = nonzero(n(indexes.total()));
        tracking.status.completed_indexes = Some(indexes.to_string()).filter(|s| !s.is_empty());
        tracking.status.failed_indexes = decision.failed_indexes.map(|f| f.to_string());
    }
    announce(&mut tracking, now);
    tracking
}

fn note_suspension(
    spec: &JobSpec,
    status: &mut JobStatus,
    now: Timestamp,
    events: &mut Vec<Event>,
) {
    let suspended = is_suspended(spec);
    let known = find(status, "Suspended").map(|c| c.status == "True");
    if known == Some(suspended) || (known.is_none() && !suspended) {
        return;
    }
    let (value, reason, message, event) = if suspended {
        ("True", "JobSuspended", "Job suspended", "Suspended")
    } else {
        ("False", "JobResumed", "Job resumed", "Resumed")
    };
    status.start_time = (!suspended).then_some(Time(now));
    let new = JobCondition {
        status: value.to_owned(),
        ..condition("Suspended", reason, message, now)
    };
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == "Suspended") {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
    events.push((false, event.to_owned(), message.to_owned()));
}

/// Notes ended pods as uncounted. Returns the indexes that have newly succeeded.
fn note_ended(
    observed: &Observed,
    before: &Indexes,
    delayed: &HashMap<usize, Arc<Pod>>,
    tracking: &mut Tracking,
) -> Vec<usize> {
    let indexed = is_indexed(observed.spec);
    let deleting = observed.job.metadata.deletion_timestamp.is_some();
    let succeeding = tracking
        .finished
        .as_ref()
        .is_some_and(|c| c.type_ == "SuccessCriteriaMet");
    let over = tracking.finished.is_some();
    let mut pods: Vec<&Arc<Pod>> = observed
        .pods
        .iter()
        .filter(|p| observed.is_tracked(p))
        .collect();
    if indexed {
        pods.sort_by_key(|p| index_of(p));
    }
    let uncounted: &mut UncountedTerminatedPods = tracking
        .status
        .uncounted_terminated_pods
        .get_or_insert_default();
    let mut ok = uncounted.succeeded.take().unwrap_or_default();
    let mut bad = uncounted.failed.take().unwrap_or_default();
    let mut indexes = Vec::new();
    for pod in pods {
        let succeeded = &*pod.status.phase == "Succeeded";
        let failed = observed.is_failed(pod);
        let waits = || {
            let index = index_of(pod).filter(|_| observed.spec.backoff_limit_per_index.is_some());
            index
                .and_then(|i| delayed.get(&i))
                .is_some_and(|p| p.uid() == pod.uid())
        };
        if !(deleting || over || succeeded || (failed && !waits())) {
            continue;
        }
        tracking.unfinalize.push(Arc::clone(pod));
        let uid = pod.uid();
        let has = |list: &[String]| list.iter().any(|u| u == uid);
        let index = observed.valid_index(pod);
        if succeeded && !has(&bad) {
            if indexed {
                indexes.extend(index.filter(|i| !before.has(*i)));
            } else if !has(&ok) {
                ok.push(uid.to_owned());
            }
        } else if (failed || (over && !succeeding))
            && !has(&bad)
            && (!indexed || index.is_some())
            && observed.failure(pod) != Failure::Ignored
        {
            bad.push(uid.to_owned());
        }
        if indexes.len() + ok.len() + bad.len() >= MAX_UNCOUNTED {
            tracking.more = true;
            break;
        }
    }
    uncounted.succeeded = Some(ok).filter(|l| !l.is_empty());
    uncounted.failed = Some(bad).filter(|l| !l.is_empty());
    indexes
}

/// Says in the status that the Job is about to end; the final condition comes last.
fn announce(tracking: &mut Tracking, now: Timestamp) {
    let Some(finished) = tracking.finished.take() else {
        return;
    };
    let text = |s: &Option<String>| s.clone().unwrap_or_default();
    let (reason, message) = (text(&finished.reason), text(&finished.message));
    let last = match finished.type_.as_str() {
        "FailureTarget" => "Failed",
        "SuccessCriteriaMet" => "Complete",
        _ => {
            tracking.finished = Some(finished);
            return;
        }
    };
    if !is_true(&tracking.status, &finished.type_) {
        tracking
            .status
            .conditions
            .get_or_insert_default()
            .push(finished);
    }
    tracking.finished = Some(condition(last, &reason, message, now));
}

/// Counts noted pods whose finalizer is gone.
fn count_unfinalized(status: &mut JobStatus, with_finalizer: &HashSet<String>) {
    let uncounted = status.uncounted_terminated_pods.get_or_insert_default();
    let settle = |list: &mut Option<Vec<String>>| {
        let all = list.take().unwrap_or_default();
        let before = all.len();
        let left: Vec<String> = all
            .into_iter()
            .filter(|u| with_finalizer.contains(u))
            .collect();
        let counted = before - left.len();
        *list = Some(left).filter(|l| !l.is_empty());
        counted as i32
    };
    let (ok, bad) = (
        settle(&mut uncounted.succeeded),
        settle(&mut uncounted.failed),
    );
    let add = |count: &mut Option<i32>, n: i32| {
        if n > 0 {
            *count = Some(count.unwrap_or(0) + n);
        }
    };
    add(&mut status.succeeded, ok);
    add(&mut status.failed, bad);
}

/// The third part: the status once the finalizers of these pods are gone, and the events to
/// tell once it is stored.
pub fn conclude(
    spec: &JobSpec,
    tracking: Tracking,
    unfinalized: &HashSet<String>,
) -> (JobStatus, Vec<Event>, bool) {
    let Tracking {
        mut status,
        mut with_finalizer,
        finished,
        ..
    } = tracking;
    with_finalizer.retain(|uid| !unfinalized.contains(uid));
    count_unfinalized(&mut status, &with_finalizer);
    let pending = status
        .uncounted_terminated_pods
        .as_ref()
        .is_some_and(|u| *u != UncountedTerminatedPods::default());
    let Some(finished) =
        finished.filter(|_| !pending && !tracking.more && tracking.terminating == 0)
    else {
        return (status, Vec::new(), false);
    };
    let mut events = Vec::new();
    if finished.type_ == "Complete" {
        status.completion_time = finished.last_transition_time.clone();
        if spec
            .completions
            .is_some_and(|c| status.succeeded.unwrap_or(0) > c)
        {
            let message = "Too many succeeded pods running after completion count reached";
            events.push((true, "TooManySucceededPods".to_owned(), message.to_owned()));
        }
        events.push((false, "Completed".to_owned(), "Job completed".to_owned()));
    } else {
        let text = |s: &Option<String>| s.clone().unwrap_or_default();
        events.push((true, text(&finished.reason), text(&finished.message)));
    }
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == finished.type_) {
        Some(old) => *old = finished,
        None => conditions.push(finished),
    }
    (status, events, true)
}
