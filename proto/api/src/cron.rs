//! Cron schedules, as CronJobs have them: five fields, names for common ones, `@every`.
//!
//! What must not be here: what a missed time means; the CronJob controller knows.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

/// When something is due, again and again.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// At wall clock times.
    Clock(Box<Clock>),
    /// So long after the time before.
    Every(SignedDuration),
}

/// The five fields. Each set of values is a bit mask.
#[derive(Debug, Clone, PartialEq)]
pub struct Clock {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// The schedule names a zone itself; that is no official syntax, but there are such.
    zone: Option<TimeZone>,
}

/// Set in a mask that a `*` was part of. Where both days and weekdays say something, a day
/// needs only one of them.
const STAR: u64 = 1 << 63;
/// Years to look ahead: what is not due in them is never due, such as a 30th of February.
const HORIZON: i16 = 5;

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

/// The fields of schedules that have names.
const NAMED: &[(&str, &str)] = &[
    ("yearly", "0 0 1 1 *"),
    ("annually", "0 0 1 1 *"),
    ("monthly", "0 0 1 * *"),
    ("weekly", "0 0 * * 0"),
    ("daily", "0 0 * * *"),
    ("midnight", "0 0 * * *"),
    ("hourly", "0 * * * *"),
];

impl Schedule {
    /// Reads a schedule; what is wrong with it is said in the words of the parser that upstream
    /// uses.
    pub fn parse(schedule: &str) -> Result<Self, String> {
        let mut text = schedule;
        let mut zone = None;
        if text.starts_with("TZ=") || text.starts_with("CRON_TZ=") {
            let (prefix, rest) = text.split_once(' ').ok_or("a schedule is missing")?;
            let name = prefix.split_once('=').map_or("", |(_, name)| name);
            zone = Some(time_zone(name).map_err(|e| format!("provided bad location {name}: {e}"))?);
            text = rest.trim();
        }
        if let Some(word) = text.strip_prefix('@') {
            if let Some(span) = word.strip_prefix("every ") {
                let span = meta::duration::parse(span)
                    .map_err(|error| format!("failed to parse duration {text}: {error}"))?;
                return Ok(Self::Every(whole_seconds(SignedDuration::from_nanos(span))));
            }
            let named = NAMED.iter().find(|(name, _)| *name == word);
            let (_, fields) = named.ok_or_else(|| format!("unrecognized descriptor: {text}"))?;
            text = fields;
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
        let mut masks = [0; FIELDS.len()];
        for ((mask, part), field) in masks.iter_mut().zip(&parts).zip(&FIELDS) {
            for range in part.split(',').filter(|range| !range.is_empty()) {
                *mask |= parse_range(range, field)?;
            }
        }
        let [minutes, hours, days, months, weekdays] = masks;
        Ok(Self::Clock(Box::new(Clock {
            minutes,
            hours,
            days,
            months,
            weekdays,
            zone,
        })))
    }

    /// The first time after `after`; `None` if there is none for years. The zone is for
    /// schedules that name none.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(span) => floor(after).checked_add(*span).ok(),
            Self::Clock(clock) => clock.next(after, clock.zone.as_ref().unwrap_or(zone)),
        }
    }
}

/// A time zone by its name in the time zone database; no name is UTC.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "" | "UTC" => Ok(TimeZone::UTC),
        "Local" => Ok(TimeZone::system()),
        // Files, which these are, have names of one spelling.
        _ => TimeZone::get(name)
            .ok()
            .filter(|z| z.iana_name() == Some(name))
            .ok_or_else(|| format!("unknown time zone {name}")),
    }
}

/// To the second.
fn floor(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn has(mask: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|v| mask & (1 << v) != 0)
}

impl Clock {
    fn has_day(&self, at: &Zoned) -> bool {
        let day = has(self.days, at.day());
        let weekday = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        if (self.days | self.weekdays) & STAR != 0 {
            day && weekday
        } else {
            day || weekday
        }
    }

    /// Walks from the larger fields to the smaller. Days and months begin where the clock says
    /// so, which may be at one o'clock; hours and minutes simply pass, so that what is due in an
    /// hour that a clock change skips is not due that day.
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.hours & !STAR == 0 || self.minutes & !STAR == 0 {
            // A list of nothing (`,`) is a field too: years would pass minute by minute.
            return None;
        }
        let second = SignedDuration::from_secs(1);
        let mut at = floor(after)
            .checked_add(second)
            .ok()?
            .to_zoned(zone.clone());
        let end = at.year().checked_add(HORIZON)?;
        while at.year() <= end {
            at = if !has(self.months, at.month()) {
                let next = at
                    .date()
                    .first_of_month()
                    .checked_add(jiff::Span::new().months(1));
                next.ok()?.to_zoned(zone.clone()).ok()?
            } else if !self.has_day(&at) {
                at.date().tomorrow().ok()?.to_zoned(zone.clone()).ok()?
            } else if !has(self.hours, at.hour()) {
                let left = 3600 - i64::from(at.minute()) * 60 - i64::from(at.second());
                at.checked_add(SignedDuration::from_secs(left)).ok()?
            } else if !has(self.minutes, at.minute()) || at.time() != on_the_minute(at.time()) {
                let left = 60 - i64::from(at.second());
                at.checked_add(SignedDuration::from_secs(left)).ok()?
            } else {
                return Some(at.timestamp());
            };
        }
        None
    }
}

fn on_the_minute(time: Time) -> Time {
    Time::constant(time.hour(), time.minute(), 0, 0)
}

/// `@every` counts whole seconds, and at least one.
fn whole_seconds(span: SignedDuration) -> SignedDuration {
    SignedDuration::from_secs(span.as_secs().max(1))
}

/// The values of a range, as a mask.
fn parse_range(range: &str, field: &Field) -> Result<u64, String> {
    let parts: Vec<&str> = range.split('/').collect();
    let ends: Vec<&str> = parts[0].split('-').collect();
    let mut star = 0;
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?", ..] => {
            star = STAR;
            (field.lowest, field.highest)
        }
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
            let step = number(step)?;
            if step > 1 {
                star = 0;
            }
            step
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
    let values = (start..=end).step_by(step as usize);
    Ok(values.fold(star, |mask, value| mask | 1 << value))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_of_nothing_is_never_met() {
        for never in [", * * * *", "* ,, * * *"] {
            let schedule = Schedule::parse(never).unwrap();
            let now = "2026-01-01T00:00:00Z".parse().unwrap();
            assert_eq!(schedule.next(now, &TimeZone::UTC), None, "{never}");
        }
    }

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
            assert!(Schedule::parse(good).is_ok(), "{good}");
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
            (
                "@every 9223372036h",
                "failed to parse duration @every 9223372036h: time: invalid duration \"9223372036h\"",
            ),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            (
                "TZ=No/Where * * * * *",
                "provided bad location No/Where: unknown time zone No/Where",
            ),
        ] {
            assert_eq!(Schedule::parse(bad), Err(why.to_owned()), "{bad}");
        }
    }

    #[test]
    fn times() {
        for (schedule, zone, after, next) in [
            (
                "*/15 * * * *",
                "",
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:15:00Z",
            ),
            (
                "*/15 * * * *",
                "",
                "2026-01-01T00:14:59.5Z",
                "2026-01-01T00:15:00Z",
            ),
            (
                "0 0 31 * *",
                "",
                "2026-01-31T00:00:00Z",
                "2026-03-31T00:00:00Z",
            ),
            (
                "0 0 29 feb *",
                "",
                "2026-01-01T00:00:00Z",
                "2028-02-29T00:00:00Z",
            ),
            // Both days of the month and of the week: either.
            (
                "0 0 13 * fri",
                "",
                "2026-01-01T00:00:00Z",
                "2026-01-02T00:00:00Z",
            ),
            (
                "0 0 */1 * fri",
                "",
                "2026-01-03T00:00:00Z",
                "2026-01-09T00:00:00Z",
            ),
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-03-28T12:00:00Z",
                "2026-03-30T00:30:00Z",
            ),
            // The hour that comes twice.
            (
                "30 2 * * *",
                "Europe/Berlin",
                "2026-10-25T00:30:00Z",
                "2026-10-25T01:30:00Z",
            ),
            (
                "0 12 * * *",
                "Asia/Kathmandu",
                "2026-01-01T00:00:00Z",
                "2026-01-01T06:15:00Z",
            ),
            // A day that has no midnight.
            (
                "0 1 9 9 *",
                "America/Santiago",
                "2026-01-01T00:00:00Z",
                "2026-09-09T04:00:00Z",
            ),
            (
                "@every 90s",
                "",
                "2026-01-01T00:00:00.7Z",
                "2026-01-01T00:01:30Z",
            ),
            (
                "@every 10ms",
                "",
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:00:01Z",
            ),
            (
                "@weekly",
                "",
                "2026-01-01T00:00:00Z",
                "2026-01-04T00:00:00Z",
            ),
            (
                "TZ=Asia/Tokyo 0 0 * * *",
                "",
                "2026-01-01T00:00:00Z",
                "2026-01-01T15:00:00Z",
            ),
        ] {
            let zone = time_zone(zone).unwrap();
            let parsed = Schedule::parse(schedule).unwrap();
            let due = parsed.next(after.parse().unwrap(), &zone);
            assert_eq!(due, Some(next.parse().unwrap()), "{schedule} after {after}");
        }
        let never = Schedule::parse("0 0 31 2 *").unwrap();
        assert_eq!(never.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }
}
