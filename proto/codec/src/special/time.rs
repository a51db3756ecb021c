//! `metav1.Time` and `metav1.MicroTime`: RFC 3339 in UTC in JSON, `{1: seconds, 2: nanos}`
//! in protobuf. Go's zero time (the start of year 1) is nothing in both.

use meta::gofmt::quote;

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

    /// Reads the JSON form. A `MicroTime` must have exactly six fractional digits.
    pub fn parse(text: &str, micro: bool) -> Result<Self> {
        parse(text.as_bytes(), micro).ok_or_else(|| {
            let layout = if micro {
                "2006-01-02T15:04:05.000000Z07:00"
            } else {
                "2006-01-02T15:04:05Z07:00"
            };
            Error::value(parse_error(text, layout))
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

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Takes `width` digits off the front.
fn digits(s: &mut &[u8], width: usize) -> Option<i64> {
    let (head, tail) = s.split_at_checked(width)?;
    *s = tail;
    head.iter().try_fold(0, |v, b| {
        b.is_ascii_digit().then(|| v * 10 + i64::from(b - b'0'))
    })
}

fn expect(s: &mut &[u8], mark: u8) -> Option<()> {
    let (&head, tail) = s.split_first()?;
    *s = tail;
    (head == mark).then_some(())
}

fn parse(mut s: &[u8], micro: bool) -> Option<Instant> {
    let s = &mut s;
    let year = digits(s, 4)?;
    expect(s, b'-')?;
    let month = digits(s, 2)?;
    expect(s, b'-')?;
    let day = digits(s, 2)?;
    expect(s, b'T')?;
    let hour = digits(s, 2)?;
    expect(s, b':')?;
    let minute = digits(s, 2)?;
    expect(s, b':')?;
    let second = digits(s, 2)?;
    let in_range = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !in_range {
        return None;
    }
    let mut nanos = 0;
    if let Some(b'.' | b',') = s.first() {
        *s = &s[1..];
        let len = s.iter().take_while(|b| b.is_ascii_digit()).count();
        if len == 0 || micro && len != 6 {
            return None;
        }
        let used = len.min(9);
        nanos = digits(s, used)? as u32 * 10u32.pow(9 - used as u32);
        *s = &s[len - used..];
    } else if micro {
        return None;
    }
    let (&zone, rest) = s.split_first()?;
    *s = rest;
    let offset = match zone {
        b'Z' => 0,
        b'+' | b'-' => {
            let hours = digits(s, 2)?;
            expect(s, b':')?;
            let minutes = digits(s, 2)?;
            if hours > 24 || minutes > 60 {
                return None;
            }
            let offset = (hours * 60 + minutes) * 60;
            if zone == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    if !s.is_empty() {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(Instant { seconds, nanos })
}

/// Go's words for a text that does not fit: which part of the layout it was at, and what
/// was left of the text.
fn parse_error(text: &str, layout: &str) -> String {
    let parts = [
        ("2006", 4, "-"),
        ("01", 2, "-"),
        ("02", 2, "T"),
        ("15", 2, ":"),
        ("04", 2, ":"),
        ("05", 2, ""),
    ];
    let head = format!("parsing time {} as {}", quote(text), quote(layout));
    let mut rest = text;
    for (name, width, mark) in parts {
        let ok = rest.len() >= width && rest.as_bytes()[..width].iter().all(u8::is_ascii_digit);
        if !ok {
            return format!("{head}: cannot parse {} as {}", quote(rest), quote(name));
        }
        rest = &rest[width..];
        if !rest.starts_with(mark) {
            return format!("{head}: cannot parse {} as {}", quote(rest), quote(mark));
        }
        rest = &rest[mark.len()..];
    }
    if layout.contains(".000000") && !rest.starts_with('.') {
        return format!("{head}: cannot parse {} as \".000000\"", quote(rest));
    }
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    if zone != "Z" && parse(format!("2000-01-01T00:00:00{zone}").as_bytes(), false).is_none() {
        return format!("{head}: cannot parse {} as \"Z07:00\"", quote(zone));
    }
    format!("parsing time {}: value out of range", quote(text))
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
