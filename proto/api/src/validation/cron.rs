//! Cron jobs: schedules, time zones, and the jobs that are made.

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
use super::{job, required};

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
        && let Err(fault) = parse(schedule.text())
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

/// One of the five fields: its lowest and highest value, and names for values.
struct Field {
    lowest: u32,
    highest: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &[
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

const fn field(lowest: u32, highest: u32, names: &'static [&'static str]) -> Field {
    Field {
        lowest,
        highest,
        names,
    }
}

/// Minutes, hours, days of the month, months and days of the week.
const FIELDS: [Field; 5] = [
    field(0, 59, &[]),
    field(0, 23, &[]),
    field(1, 31, &[]),
    field(1, 12, MONTHS),
    field(0, 6, DAYS),
];

/// What is wrong with a schedule, in the words of the parser that upstream uses.
fn parse(schedule: &str) -> Result<(), String> {
    let mut text = schedule;
    if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
        let (_, rest) = text.split_once(' ').ok_or("a schedule is missing")?;
        text = rest.trim();
    }
    if let Some(word) = text.strip_prefix('@') {
        return match word {
            "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly" => {
                Ok(())
            }
            _ if word.strip_prefix("every ").is_some_and(is_duration) => Ok(()),
            _ if word.starts_with("every ") => Err(format!("failed to parse duration {text}")),
            _ => Err(format!("unrecognized descriptor: {text}")),
        };
    }
    let parts: Vec<&str> = text.split_whitespace().collect();
    if parts.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly {} fields, found {}: [{}]",
            FIELDS.len(),
            parts.len(),
            parts.join(" ")
        ));
    }
    for (part, field) in parts.iter().zip(&FIELDS) {
        for range in part.split(',').filter(|range| !range.is_empty()) {
            parse_range(range, field)?;
        }
    }
    Ok(())
}

fn parse_range(range: &str, field: &Field) -> Result<(), String> {
    let parts: Vec<&str> = range.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?", ..] => (field.lowest, field.highest),
        [one] => {
            let value = number_or_name(one, field)?;
            (value, value)
        }
        [low, high] => (number_or_name(low, field)?, number_or_name(high, field)?),
        _ => return Err(format!("too many hyphens: {range}")),
    };
    let step = match parts.as_slice() {
        [_] => 1,
        [_, step] => {
            if ends.len() == 1 {
                end = field.highest;
            }
            number(step)?
        }
        _ => return Err(format!("too many slashes: {range}")),
    };
    if start < field.lowest {
        let lowest = field.lowest;
        return Err(format!(
            "beginning of range ({start}) below minimum ({lowest}): {range}"
        ));
    }
    if end > field.highest {
        let highest = field.highest;
        return Err(format!(
            "end of range ({end}) above maximum ({highest}): {range}"
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {range}"
        ));
    }
    if step == 0 {
        return Err(format!(
            "step of range should be a positive number: {range}"
        ));
    }
    Ok(())
}

fn number_or_name(text: &str, field: &Field) -> Result<u32, String> {
    let lower = text.to_lowercase();
    match (field.lowest..)
        .zip(field.names)
        .find(|(_, n)| **n == lower)
    {
        Some((value, _)) => Ok(value),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Err(format!("negative number ({n}) not allowed: {text}")),
        Ok(n) => u32::try_from(n).map_err(|e| format!("failed to parse int from {text}: {e}")),
        Err(_) => Err(format!(
            "failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"
        )),
    }
}

/// `1h30m`, `-1.5s`: a duration as Go writes them.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let unit = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (value, tail) = rest.split_at(unit);
        if value.parse::<f64>().is_err() {
            return false;
        }
        let Some(unit) = ["ns", "us", "µs", "ms", "s", "m", "h"]
            .into_iter()
            .filter(|unit| tail.starts_with(unit))
            .max_by_key(|unit| unit.len())
        else {
            return false;
        };
        rest = &tail[unit.len()..];
    }
    true
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in [
            "* * * * *",
            "*/5 0-23 1,15 JAN-mar mon",
            "? ? ? ? ?",
            "5/10 * * * *",
            "@hourly",
            "@every 1h30m",
            "TZ=UTC 0 0 * * *",
        ] {
            assert_eq!(parse(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("61 * * * *", "end of range (61) above maximum (59): 61"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-1 * * * *",
                "beginning of range (5) beyond end of range (1): 5-1",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
        ] {
            assert_eq!(parse(bad), Err(why.to_owned()), "{bad}");
        }
    }

    #[test]
    fn durations() {
        for good in ["0", "1h", "1h30m", "1.5s", "10ms"] {
            assert!(is_duration(good), "{good}");
        }
        for bad in ["", "1", "h", "1x", "1h30"] {
            assert!(!is_duration(bad), "{bad}");
        }
    }
}
