//! When a CronJob is due, and what becomes of the Jobs that it has made: pure.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use api::cron::{Schedule, time_zone};
use client::Object as _;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::GroupVersionKind;
use meta::owner::new_controller_ref;

/// When a Job was due, on the Job (KEP-4026).
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Added to what there is to wait, so that clocks that are set do not wake us just too early.
const LATER: SignedDuration = SignedDuration::from_millis(100);
/// As many missed times are worth a warning.
const MANY: i64 = 100;

/// An event about the CronJob: whether a warning, reason, message.
pub type Event = (bool, &'static str, String);

/// Its Jobs, newest decisions first made on what the server shows of them.
#[derive(Debug, Default, PartialEq)]
pub struct Looked {
    pub events: Vec<Event>,
    /// Of the list of active Jobs, those that the cache does not know.
    pub missing: Vec<ObjectReference>,
}

/// What to do now.
#[derive(Debug, PartialEq)]
pub struct Decision {
    pub events: Vec<Event>,
    /// When to look again; `None`: only when something changes.
    pub again_after: Option<Duration>,
    /// When the Job that is to be made was due.
    pub start: Option<Timestamp>,
    /// Jobs that make room for it.
    pub replace: Vec<ObjectReference>,
}

/// The last time that was due, and how many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Missed {
    since: Timestamp,
    last: Option<Timestamp>,
    count: i64,
}

/// A schedule that is due twice at one time: it names days that do not exist.
#[derive(Debug, PartialEq, Eq)]
struct Never;

/// Why a Job has ended, if it has.
fn finished(job: &Job) -> Option<&str> {
    let mut conditions = job.status.as_ref()?.conditions.iter().flatten();
    let ended = conditions
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    Some(&ended.type_)
}

pub fn is_active(status: &CronJobStatus, uid: &str) -> bool {
    let mut active = status.active.iter().flatten();
    active.any(|r| r.uid.as_deref() == Some(uid))
}

pub fn drop_active(status: &mut CronJobStatus, uid: &str) {
    let left = status.active.take().unwrap_or_default();
    let left = left.into_iter().filter(|r| r.uid.as_deref() != Some(uid));
    status.active = Some(left.collect()).filter(|l: &Vec<_>| !l.is_empty());
}

/// Jobs that still run and are not in the list of active ones.
pub fn unknown<'a>(status: &CronJobStatus, jobs: &'a [Arc<Job>]) -> Vec<&'a Arc<Job>> {
    let unknown = |j: &&Arc<Job>| finished(j).is_none() && !is_active(status, j.uid());
    jobs.iter().filter(unknown).collect()
}

/// Ended Jobs beyond what the history may hold, oldest first.
pub fn excess(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<Arc<Job>> {
    let limits = [
        ("Complete", spec.successful_jobs_history_limit),
        ("Failed", spec.failed_jobs_history_limit),
    ];
    let mut excess = Vec::new();
    for (how, limit) in limits {
        let Some(limit) = limit else { continue };
        let mut ended: Vec<_> = jobs.iter().filter(|j| finished(j) == Some(how)).collect();
        let count = ended
            .len()
            .saturating_sub(usize::try_from(limit).unwrap_or(0));
        ended.sort_by_key(|j| {
            let start = j.status.as_ref().and_then(|s| s.start_time.as_ref());
            (start.is_none(), start.map(|t| t.0), j.name().to_owned())
        });
        excess.extend(ended.into_iter().take(count).cloned());
    }
    excess
}

/// Notes in the status what has become of the Jobs.
pub fn look_at_jobs(status: &mut CronJobStatus, jobs: &[Arc<Job>]) -> Looked {
    let mut looked = Looked::default();
    for job in jobs {
        let known = is_active(status, job.uid());
        let Some(how) = finished(job) else {
            if !known {
                let message = format!(
                    "Saw a job that the controller did not create or forgot: {}",
                    job.name()
                );
                looked.events.push((true, "UnexpectedJob", message));
            }
            continue;
        };
        if known {
            drop_active(status, job.uid());
            let message = format!("Saw completed job: {}, condition: {how}", job.name());
            looked.events.push((false, "SawCompletedJob", message));
        }
        let ended = job.status.as_ref().and_then(|s| s.completion_time.clone());
        let last = status.last_successful_time.as_ref().map(|t| t.0);
        if how == "Complete" && ended.as_ref().map(|t| t.0) > last {
            status.last_successful_time = ended;
        }
    }
    let present: HashSet<&str> = jobs.iter().map(|j| j.uid()).collect();
    let gone = |r: &&ObjectReference| !present.contains(r.uid.as_deref().unwrap_or_default());
    looked.missing = status
        .active
        .iter()
        .flatten()
        .filter(gone)
        .cloned()
        .collect();
    looked
}

fn seconds(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

fn later(at: Timestamp, span: SignedDuration) -> Timestamp {
    at.saturating_add(span).unwrap_or(Timestamp::MAX)
}

/// What was due since the last Job, or since the CronJob was made. Goes through few of the
/// times only, since after a long stop there may be very many.
fn missed(
    cron: &CronJob,
    spec: &CronJobSpec,
    now: Timestamp,
    due: &Due,
    with_deadline: bool,
) -> Result<Missed, Never> {
    let last = cron
        .status
        .as_ref()
        .and_then(|s| s.last_schedule_time.as_ref());
    let made = cron.metadata.creation_timestamp.as_ref();
    let mut since = last.or(made).map_or(now, |t| t.0);
    if with_deadline && let Some(deadline) = spec.starting_deadline_seconds {
        since = since.max(later(now, -seconds(deadline)));
    }
    let some = |last, count| Missed { since, last, count };
    let first = due.after(since);
    let Some(first) = first.filter(|t| *t <= now) else {
        // A schedule that is never due is no good, but only once it should have been.
        return if first.is_none() {
            Err(Never)
        } else {
            Ok(some(None, 0))
        };
    };
    let Some(second) = due.after(first).filter(|t| *t <= now) else {
        return Ok(some(Some(first), 0));
    };
    let interval = second.duration_since(first).as_secs().max(1);
    let count = now.duration_since(first).as_secs() / interval + 1;
    // Times need not be even: from one interval early on, by the schedule itself.
    let mut at = later(first, seconds((count - 2) * interval));
    let mut last = None;
    while let Some(next) = due.after(at).filter(|t| *t <= now) {
        last = Some(next);
        at = next;
    }
    Ok(some(last, count))
}

/// A schedule in its zone.
struct Due<'a> {
    schedule: &'a Schedule,
    zone: &'a TimeZone,
}

impl Due<'_> {
    fn after(&self, at: Timestamp) -> Option<Timestamp> {
        self.schedule.next(at, self.zone)
    }
}

/// How long until the next time, after what was due.
fn until_next(cron: &CronJob, spec: &CronJobSpec, now: Timestamp, due: &Due) -> Option<Duration> {
    let from = match missed(cron, spec, now, due, false) {
        Ok(Missed {
            last: Some(last), ..
        }) => last,
        Ok(Missed {
            since, count: 0, ..
        }) => since,
        Ok(_) | Err(Never) => now,
    };
    let next = later(due.after(from)?, LATER);
    Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
}

/// The zone of a CronJob, and what is wrong with it.
fn zone(spec: &CronJobSpec, local: &TimeZone) -> Result<TimeZone, Event> {
    let Some(name) = &spec.time_zone else {
        return Ok(local.clone());
    };
    time_zone(name).map_err(|e| {
        (
            true,
            "UnknownTimeZone",
            format!("invalid timeZone: {name:?}: {e}"),
        )
    })
}

/// After a change of schedule: how long until the next time, by the new one.
pub fn after_change(
    cron: &CronJob,
    now: Timestamp,
    local: &TimeZone,
) -> Result<Option<Duration>, Event> {
    let spec = &cron.spec;
    let schedule = Schedule::parse(&spec.schedule).map_err(|_| {
        let message = format!("unparseable schedule for cronjob: {}", spec.schedule);
        (true, "UnParseableCronJobSchedule", message)
    })?;
    let zone = zone(spec, local).unwrap_or_else(|_| local.clone());
    let due = Due {
        schedule: &schedule,
        zone: &zone,
    };
    Ok(until_next(cron, spec, now, &due))
}

/// The name of the Job of a time: two that are made for one time have the same, so that the
/// server refuses the second.
pub fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron.name(), at.as_second() / 60)
}

/// What to do. The CronJob's status is that after [`look_at_jobs`].
pub fn decide(cron: &CronJob, now: Timestamp, local: &TimeZone) -> Decision {
    let mut decision = Decision {
        events: Vec::new(),
        again_after: None,
        start: None,
        replace: Vec::new(),
    };
    if cron.metadata.deletion_timestamp.is_some() {
        return decision;
    }
    let spec = &cron.spec;
    let zone = match zone(spec, local) {
        Ok(zone) => zone,
        Err(event) => {
            decision.events.push(event);
            return decision;
        }
    };
    if spec.suspend == Some(true) {
        return decision;
    }
    if spec.schedule.contains("TZ") {
        let message = format!(
            "CRON_TZ or TZ used in schedule {:?} is not officially supported, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
            spec.schedule
        );
        decision.events.push((true, "UnsupportedSchedule", message));
    }
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(e) => {
            let message = format!("unparseable schedule: {:?} : {e}", spec.schedule);
            decision.events.push((true, "UnparseableSchedule", message));
            return decision;
        }
    };
    let due = Due {
        schedule: &schedule,
        zone: &zone,
    };
    let missed = match missed(cron, spec, now, &due, true) {
        Ok(missed) => missed,
        Err(Never) => {
            let message = format!(
                "invalid schedule: {} : time difference between two schedules is less than 1 second",
                spec.schedule
            );
            decision.events.push((true, "InvalidSchedule", message));
            return decision;
        }
    };
    decision.again_after = until_next(cron, spec, now, &due);
    let Some(at) = missed.last else {
        return decision;
    };
    if missed.count > MANY {
        let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
        decision
            .events
            .push((true, "TooManyMissedTimes", message.to_owned()));
    }
    if let Some(deadline) = spec.starting_deadline_seconds
        && later(at, seconds(deadline)) < now
    {
        let message = format!(
            "Missed scheduled time to start a job: {}",
            at.strftime("%a, %d %b %Y %H:%M:%S +0000")
        );
        decision.events.push((true, "MissSchedule", message));
        return decision;
    }
    let status = cron.status.clone().unwrap_or_default();
    let active = status.active.unwrap_or_default();
    let name = job_name(cron, at);
    let done = status.last_schedule_time.is_some_and(|t| t.0 == at);
    if done || active.iter().any(|r| r.name.as_deref() == Some(&name)) {
        return decision;
    }
    match spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            decision
                .events
                .push((false, "JobAlreadyActive", message.to_owned()));
            return decision;
        }
        Some("Replace") => decision.replace = active,
        _ => {}
    }
    decision.start = Some(at);
    // What comes after the Job that is about to be made.
    let wait =
        |next| Duration::try_from(later(next, LATER).duration_since(now)).unwrap_or_default();
    decision.again_after = due.after(at).map(wait);
    decision
}

/// The Job of a time.
pub fn job(cron: &CronJob, at: Timestamp, local: &TimeZone) -> Job {
    let spec = cron.spec.clone();
    // Upstream writes the time in UTC where no zone is named.
    let zone = match &spec.time_zone {
        Some(_) => zone(&spec, local).unwrap_or(TimeZone::UTC),
        None => TimeZone::UTC,
    };
    let template = spec.job_template.metadata.unwrap_or_default();
    let mut annotations = template.annotations.unwrap_or_default();
    annotations.insert(SCHEDULED_AT.to_owned(), rfc3339(at, &zone));
    let owner = new_controller_ref(
        &cron.metadata,
        &GroupVersionKind::new("batch", "v1", "CronJob"),
    );
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron, at)),
            namespace: cron.metadata.namespace.clone(),
            labels: template.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec,
        status: None,
    }
}

fn rfc3339(at: Timestamp, zone: &TimeZone) -> String {
    let at = at.to_zoned(zone.clone());
    let text = at.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    match text.strip_suffix("+00:00") {
        Some(utc) => format!("{utc}Z"),
        None => text,
    }
}
