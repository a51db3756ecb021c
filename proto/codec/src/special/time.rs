//! `metav1.Time` and `metav1.MicroTime`: RFC 3339 in UTC in JSON, `{1: seconds, 2: nanos}`
//! in protobuf. Go's zero time (the start of year 1) is nothing in both.

use crate::error::{Error, Result};
use crate::wire::{self, Reader, VARINT};

/// Go's `time.Time{}` in seconds of the Unix epoch.
const ZERO: i64 = -62_135_596_800;

/// An instant; `nanos` counts forward from `seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant {
    pub seconds: i64,
    pub nanos: u32,
}

/// A formatted time, on the stack.
#[derive(Clone, Copy)]
pub struct Text {
    buf: [u8; 40],
    len: usize,
}

impl Text {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.buf[..self.len]).expect("times are ASCII")
    }

    fn push(&mut self, bytes: &[u8]) {
        self.buf[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn padded(&mut self, mut v: u64, width: usize) {
        for i in (self.len..self.len + width).rev() {
            self.buf[i] = b'0' + (v % 10) as u8;
            v /= 10;
        }
        self.len += width;
    }
}

impl Instant {
    /// Reads the protobuf form; `None` is the zero time. `Time` knows whole seconds only,
    /// `MicroTime` whole microseconds.
    pub fn decode(raw: &[u8], micro: bool) -> Result<Option<Self>> {
        if raw.is_empty() {
            return Ok(None);
        }
        let (mut seconds, mut nanos) = (0i64, 0i32);
        let mut r = Reader::new(raw);
        while !r.done() {
            match r.tag()? {
                (1, VARINT) => seconds = r.varint()? as i64,
                (2, VARINT) => nanos = r.varint()? as i32,
                (_, wire) => r.skip(wire)?,
            }
        }
        let nanos = if micro { nanos / 1000 * 1000 } else { 0 };
        let seconds = seconds.saturating_add(i64::from(nanos.div_euclid(1_000_000_000)));
        let nanos = nanos.rem_euclid(1_000_000_000) as u32;
        let instant = Instant { seconds, nanos };
        Ok((!instant.is_zero()).then_some(instant))
    }

    fn is_zero(&self) -> bool {
        self.seconds == ZERO && self.nanos == 0
    }

    /// Writes the protobuf form without its tag and length.
    pub fn encode(&self, micro: bool, out: &mut Vec<u8>) {
        let nanos = if micro { self.nanos / 1000 * 1000 } else { 0 };
        let zero = self.seconds == ZERO && self.nanos == 0;
        if !zero {
            wire::put_int(out, 1, self.seconds as u64);
            wire::put_int(out, 2, u64::from(nanos));
        }
    }

    pub fn text(&self, micro: bool) -> Text {
        let days = self.seconds.div_euclid(86_400);
        let second = self.seconds.rem_euclid(86_400) as u64;
        let (year, month, day) = civil(days);
        let mut t = Text {
            buf: [0; 40],
            len: 0,
        };
        if year < 0 {
            t.push(b"-");
        }
        match year.unsigned_abs() {
            year @ 0..=9999 => t.padded(year, 4),
            year => t.push(itoa::Buffer::new().format(year).as_bytes()),
        }
        for (mark, v) in [
            (b"-", month),
            (b"-", day),
            (b"T", second / 3600),
            (b":", second / 60 % 60),
            (b":", second % 60),
        ] {
            t.push(mark);
            t.padded(v, 2);
        }
        if micro {
            t.push(b".");
            t.padded(u64::from(self.nanos / 1000), 6);
        }
        t.push(b"Z");
        t
    }

    /// Reads the JSON form, with Go's errors. A `MicroTime` must have exactly six
    /// fractional digits.
    pub fn parse(text: &str, micro: bool) -> Result<Self> {
        parse(text.as_bytes(), micro).map_err(|problem| {
            let layout = if micro {
                "2006-01-02T15:04:05.000000Z07:00"
            } else {
                "2006-01-02T15:04:05Z07:00"
            };
            let head = format!("parsing time {}", quote(text.as_bytes()));
            Error::value(match problem {
                Problem::At(rest, element) => format!(
                    "{head} as \"{layout}\": cannot parse {} as \"{element}\"",
                    quote(rest)
                ),
                Problem::Range(what) => format!("{head}: {what} out of range"),
                Problem::Extra(rest) => format!("{head}: extra text: {}", quote(rest)),
            })
        })
    }
}

/// The date of a day counted from 1970-01-01, in the proleptic Gregorian calendar.
fn civil(days: i64) -> (i64, u64, u64) {
    // Years are counted from March, so that the leap day comes last; 400 of them are an era.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month as u64, day as u64)
}

fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// How many days a month has.
pub fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Why a text is no time.
enum Problem<'a> {
    /// What was left of the text, and the element of the layout that it does not fit.
    At(&'a [u8], &'static str),
    Range(&'static str),
    Extra(&'a [u8]),
}

/// Go's quotes in errors about times: bytes that are not printable ASCII in hexadecimal.
fn quote(s: &[u8]) -> String {
    let mut out = String::from("\"");
    for &b in s {
        match b {
            b'"' | b'\\' => out.extend(['\\', b as char]),
            b' '..0x7f => out.push(b as char),
            b => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out.push('"');
    out
}

/// Takes a number of up to `width` digits off the front; all of them if `fixed`.
fn number<'a>(
    s: &mut &'a [u8],
    width: usize,
    fixed: bool,
    element: &'static str,
) -> Result<i64, Problem<'a>> {
    let n = s
        .iter()
        .take(width)
        .take_while(|b| b.is_ascii_digit())
        .count();
    if n == 0 || fixed && n < width {
        return Err(Problem::At(s, element));
    }
    let (digits, rest) = s.split_at(n);
    *s = rest;
    Ok(digits.iter().fold(0, |v, b| v * 10 + i64::from(b - b'0')))
}

fn mark<'a>(s: &mut &'a [u8], element: &'static str) -> Result<(), Problem<'a>> {
    *s = s
        .strip_prefix(element.as_bytes())
        .ok_or(Problem::At(s, element))?;
    Ok(())
}

fn within<'a>(
    v: i64,
    range: std::ops::RangeInclusive<i64>,
    what: &'static str,
) -> Result<i64, Problem<'a>> {
    if range.contains(&v) {
        return Ok(v);
    }
    Err(Problem::Range(what))
}

/// Go's `time.Parse` for the two layouts, element by element.
fn parse(mut s: &[u8], micro: bool) -> Result<Instant, Problem<'_>> {
    let s = &mut s;
    let year = number(s, 4, true, "2006")?;
    mark(s, "-")?;
    let month = within(number(s, 2, true, "01")?, 1..=12, "month")?;
    mark(s, "-")?;
    let day = number(s, 2, true, "02")?;
    mark(s, "T")?;
    let hour = within(number(s, 2, false, "15")?, 0..=23, "hour")?;
    mark(s, ":")?;
    let minute = within(number(s, 2, true, "04")?, 0..=59, "minute")?;
    mark(s, ":")?;
    let second = within(number(s, 2, true, "05")?, 0..=59, "second")?;
    let nanos = match **s {
        [b'.' | b',', b'0'..=b'9', ..] if !micro => {
            *s = &s[1..];
            let len = s.iter().take_while(|b| b.is_ascii_digit()).count();
            let used = len.min(9);
            let nanos = number(s, used, true, "")? * 10i64.pow(9 - used as u32);
            *s = &s[len - used..];
            nanos
        }
        [b'.' | b',', ..] if micro => {
            let mut digits = &s[1..];
            let micros = number(&mut digits, 6, true, "").map_err(|_| Problem::At(s, ".000000"))?;
            *s = digits;
            micros * 1000
        }
        _ if micro => return Err(Problem::At(s, ".000000")),
        _ => 0,
    };
    let offset = zone(s)?;
    if !s.is_empty() {
        return Err(Problem::Extra(s));
    }
    within(day, 1..=days_in(year, month), "day")?;
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Ok(Instant {
        seconds,
        nanos: nanos as u32,
    })
}

/// `Z` or `±hh:mm`, in seconds east of UTC.
fn zone<'a>(s: &mut &'a [u8]) -> Result<i64, Problem<'a>> {
    const ELEMENT: &str = "Z07:00";
    if let Some(rest) = s.strip_prefix(b"Z") {
        *s = rest;
        return Ok(0);
    }
    let hold = *s;
    let wrong = |_| Problem::At(hold, ELEMENT);
    if hold.len() < 6 || hold[3] != b':' {
        return Err(Problem::At(hold, ELEMENT));
    }
    let hours = number(&mut &hold[1..3], 2, true, ELEMENT).map_err(wrong)?;
    let minutes = number(&mut &hold[4..6], 2, true, ELEMENT).map_err(wrong)?;
    let hours = within(hours, 0..=24, "time zone offset hour")?;
    let minutes = within(minutes, 0..=60, "time zone offset minute")?;
    *s = &hold[6..];
    match hold[0] {
        b'+' => Ok((hours * 60 + minutes) * 60),
        b'-' => Ok((hours * 60 + minutes) * -60),
        _ => Err(Problem::At(hold, ELEMENT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_upstream_s() {
        for (text, want) in [
            ("2008-01-01T01:01:01Z", "2008-01-01T01:01:01Z"),
            ("2008-01-01T01:01:01.999Z", "2008-01-01T01:01:01Z"),
            ("2024-02-29T23:30:00+02:30", "2024-02-29T21:00:00Z"),
            ("1969-12-31T23:59:59-00:30", "1970-01-01T00:29:59Z"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
            ("2020-01-02T3:04:05,5Z", "2020-01-02T03:04:05Z"),
        ] {
            assert_eq!(
                Instant::parse(text, false).unwrap().text(false).as_str(),
                want
            );
        }
        let micro = Instant::parse("2001-01-01T01:01:01.000071Z", true).unwrap();
        assert_eq!(micro.text(true).as_str(), "2001-01-01T01:01:01.000071Z");
    }

    #[test]
    fn errors_are_go_s() {
        for (text, want) in [
            (
                "",
                "parsing time \"\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"2006\"",
            ),
            (
                "2020-01-02",
                "parsing time \"2020-01-02\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"T\"",
            ),
            (
                "2020-01-02T01:02:03",
                "parsing time \"2020-01-02T01:02:03\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"\" as \"Z07:00\"",
            ),
            (
                "2020-02-30T01:02:03Z",
                "parsing time \"2020-02-30T01:02:03Z\": day out of range",
            ),
            (
                "2020-01-02T01:02:03Zé",
                "parsing time \"2020-01-02T01:02:03Z\\xc3\\xa9\": extra text: \"\\xc3\\xa9\"",
            ),
        ] {
            assert_eq!(Instant::parse(text, false).unwrap_err().to_string(), want);
        }
        for text in [
            "2023-02-29T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01t00:00:00Z",
        ] {
            assert!(Instant::parse(text, false).is_err(), "{text}");
        }
        assert!(Instant::parse("2023-01-01T00:00:00Z", true).is_err());
        assert!(Instant::parse("2023-01-01T00:00:00.123Z", true).is_err());
    }

    #[test]
    fn the_zero_time_is_nothing() {
        assert_eq!(Instant::decode(&[], false), Ok(None));
        let zero = Instant::parse("0001-01-01T00:00:00Z", false).unwrap();
        let mut out = Vec::new();
        zero.encode(false, &mut out);
        assert!(out.is_empty());
    }

    proptest! {
        #[test]
        fn instants_return(seconds in -62_167_219_200i64..253_402_300_800, micros in 0u32..1_000_000) {
            let instant = Instant { seconds, nanos: micros * 1000 };
            prop_assert_eq!(Instant::parse(instant.text(true).as_str(), true).unwrap(), instant);
            let mut out = Vec::new();
            instant.encode(true, &mut out);
            prop_assert_eq!(Instant::decode(&out, true).unwrap(), (!instant.is_zero()).then_some(instant));
        }

        #[test]
        fn agrees_with_jiff(seconds in -62_135_596_800i64..253_402_207_200) {
            let text = Instant { seconds, nanos: 0 }.text(false);
            prop_assert_eq!(text.as_str(), jiff::Timestamp::from_second(seconds).unwrap().to_string());
        }

        #[test]
        fn never_panics(text: String, raw: Vec<u8>, seconds: i64) {
            let _ = Instant::parse(&text, false);
            let _ = Instant::parse(&text, true);
            let _ = Instant::decode(&raw, true);
            Instant { seconds, nanos: 1 }.text(true);
        }
    }
}
