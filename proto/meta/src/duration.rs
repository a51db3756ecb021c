//! Durations as Go writes them (`time.ParseDuration`): `1h15m30.5s`, `100ms`, `-1.5h`, `0`.

use std::fmt;

/// Nanoseconds in each unit.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Of what sign ever, no duration has more nanoseconds.
const MOST: u64 = 1 << 63;

/// What is wrong with a text that is no duration, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Malformed, or beyond 2⁶³ nanoseconds.
    #[error("time: invalid duration {}", Escaped(.0))]
    Invalid(String),
    #[error("time: missing unit in duration {}", Escaped(.0))]
    MissingUnit(String),
    #[error("time: unknown unit {} in duration {}", Escaped(.unit), Escaped(.text))]
    UnknownUnit { unit: String, text: String },
}

/// In quotes, as Go's `time` has them: all but printable ASCII by its bytes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for byte in self.0.bytes() {
            match byte {
                b'"' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                b' '..=b'~' | 0x7f => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        f.write_str("\"")
    }
}

/// Reads a duration, in nanoseconds.
pub fn parse(text: &str) -> Result<i64, DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let split = |text: &str, part: fn(char) -> bool| text.find(part).unwrap_or(text.len());
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (whole, tail) = rest.split_at(split(rest, |c| !c.is_ascii_digit()));
        let after_point = tail.strip_prefix('.').unwrap_or("");
        let fraction = &after_point[..split(after_point, |c| !c.is_ascii_digit())];
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let tail = if tail.starts_with('.') {
            &after_point[fraction.len()..]
        } else {
            tail
        };
        let (unit, tail) = tail.split_at(split(tail, |c| c == '.' || c.is_ascii_digit()));
        let whole = if whole.is_empty() { "0" } else { whole };
        let whole: u64 = whole.parse().map_err(|_| invalid())?;
        if whole > MOST {
            return Err(invalid());
        }
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(text.to_owned()));
        }
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, scale) = known.ok_or_else(|| DurationError::UnknownUnit {
            unit: unit.to_owned(),
            text: text.to_owned(),
        })?;
        let part = whole
            .checked_mul(*scale)
            .and_then(|nanoseconds| nanoseconds.checked_add(part_of(fraction, *scale)));
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= MOST)
            .ok_or_else(invalid)?;
        rest = tail;
    }
    let nanoseconds = match negative {
        true => 0i64.checked_sub_unsigned(total),
        false => i64::try_from(total).ok(),
    };
    nanoseconds.ok_or_else(invalid)
}

/// `0.<fraction>` of a unit, what is less than a nanosecond cut off.
fn part_of(fraction: &str, scale: u64) -> u64 {
    // Eighteen digits are finer than a nanosecond of any unit.
    let digits = &fraction[..fraction.len().min(18)];
    let value: u128 = digits.parse().unwrap_or(0);
    let part = value * u128::from(scale) / 10u128.pow(digits.len() as u32);
    u64::try_from(part).unwrap_or(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_to_the_nanosecond() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("-0", 0),
            ("1h15m30.5s", 4_530_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("-1.5µs", -1500),
            ("1h1h", 7_200_000_000_000),
            ("2562047h47m16.854775807s", i64::MAX),
            ("-2562047h47m16.854775808s", i64::MIN),
            ("-9223372036854775808ns", i64::MIN),
            ("0.0000000000000000000001h", 0),
        ] {
            assert_eq!(parse(text), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_told_of_in_gos_words() {
        for (text, error) in [
            ("", r#"time: invalid duration """#),
            ("-", r#"time: invalid duration "-""#),
            (".s", r#"time: invalid duration ".s""#),
            ("1h-2m", r#"time: unknown unit "h-" in duration "1h-2m""#),
            ("5", r#"time: missing unit in duration "5""#),
            ("1d", r#"time: unknown unit "d" in duration "1d""#),
            (
                "1é\"",
                r#"time: unknown unit "\xc3\xa9\"" in duration "1\xc3\xa9\"""#,
            ),
            (
                "2562047h47m16.854775808s",
                r#"time: invalid duration "2562047h47m16.854775808s""#,
            ),
            ("9223372036h", r#"time: invalid duration "9223372036h""#),
            (
                "99999999999999999999ns",
                r#"time: invalid duration "99999999999999999999ns""#,
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), error);
        }
    }
}
