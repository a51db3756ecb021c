//! Cron jobs: schedules, time zones, and the jobs that are made.

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
use super::{job, required};
use crate::cron::Schedule;

/// What may only be wrong with a cron job that is there already. Eleven characters are added
/// to make the jobs' names.
pub(super) fn created(at: &At<'_>, errors: &mut ErrorList) {
    let name = at.get("metadata").get("name");
    if name.text().len() > 52 {
        name.invalid(errors, "must be no more than 52 characters");
    }
    let spec = at.get("spec");
    zone_in_schedule(&spec, false, errors);
    time_zone(&spec.get("timeZone"), errors);
}

pub(super) fn updated(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    zone_in_schedule(&new, old.get("schedule").text().contains("TZ"), errors);
    let zone = new.get("timeZone");
    if zone.value() != old.get("timeZone").value() {
        time_zone(&zone, errors);
    }
}

/// A zone in the schedule worked once, and goes on working where it does.
fn zone_in_schedule(spec: &At<'_>, had_one: bool, errors: &mut ErrorList) {
    let schedule = spec.get("schedule");
    if !schedule.text().contains("TZ") {
        return;
    }
    if !had_one {
        schedule.invalid(
            errors,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        );
    } else if spec.get("timeZone").is_set() {
        schedule.invalid(
            errors,
            "cannot use both timeZone field and TZ or CRON_TZ in schedule",
        );
    }
}

pub(super) fn spec(spec: &At<'_>, errors: &mut ErrorList) {
    let schedule = spec.get("schedule");
    if required(&schedule, errors)
        && let Err(fault) = Schedule::parse(schedule.text())
    {
        schedule.invalid(errors, fault);
    }
    spec.get("startingDeadlineSeconds").non_negative(errors);
    let policy = spec.get("concurrencyPolicy");
    if required(&policy, errors) {
        policy.one_of(errors, &["Allow", "Forbid", "Replace"]);
    }
    for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.get(field).non_negative(errors);
    }
    let job = spec.get("jobTemplate").get("spec");
    job::spec(&job, errors);
    if job.get("selector").is_set() {
        job.get("selector")
            .invalid(errors, "`selector` will be auto-generated");
    }
    if job.get("manualSelector").is_true() {
        let path = job.get("manualSelector").path;
        errors.push(FieldError::not_supported(&path, true, &["nil", "false"]));
    }
}

fn time_zone(zone: &At<'_>, errors: &mut ErrorList) {
    if !zone.is_set() {
        return;
    }
    let name = zone.text();
    if name.is_empty() {
        zone.invalid(errors, "timeZone must be nil or non-empty string");
        return;
    }
    let is_part = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_+".contains(&b);
        (1..=14).contains(&part.len())
            && part.bytes().all(allowed)
            && !matches!(part, "." | "..")
            && !part.starts_with('-')
    };
    let unknown = format!("unknown time zone {name}");
    if !name.split('/').all(is_part) {
        zone.invalid(errors, unknown);
        return;
    }
    if name.eq_ignore_ascii_case("Local") {
        zone.invalid(
            errors,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        );
    }
    // Files, which these are, have names of one spelling.
    let known =
        name == "Local" || jiff::tz::TimeZone::get(name).is_ok_and(|z| z.iana_name() == Some(name));
    if !known {
        zone.invalid(errors, unknown);
    }
}

/// The name of a cron job, but for its length.
pub(super) fn name(name: &str) -> Vec<String> {
    format::dns1123_subdomain(name)
}
