//! What a plain scalar means: go-yaml v2's reading of YAML 1.1.

use serde_json::{Number, Value};

use crate::special::time::days_in;

/// Resolves a plain scalar. Numbers that JSON does not have are `Err` with Go's name.
pub fn resolve(text: &str) -> Result<Value, &'static str> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Value::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Value::Bool(false)
        }
        ".nan" | ".NaN" | ".NAN" => return Err("NaN"),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Err("+Inf"),
        "-.inf" | "-.Inf" | "-.INF" => return Err("-Inf"),
        _ => number(text).map_or_else(|| Value::String(text.into()), Value::Number),
    })
}

/// Whether a string has to be quoted so that it stays one.
pub fn is_string(text: &str) -> bool {
    matches!(resolve(text), Ok(Value::String(_))) && !timestamp(text)
}

fn number(text: &str) -> Option<Number> {
    // What is too large for a double stays text: from_f64 takes no infinity.
    let float = |text: &str| Number::from_f64(text.parse().ok()?);
    match text.as_bytes()[0] {
        b'.' if looks_like_float(text) => float(text),
        b'0'..=b'9' | b'+' | b'-' => {
            let plain = text.replace('_', "");
            integer(&plain).or_else(|| looks_like_float(&plain).then(|| float(&plain))?)
        }
        _ => None,
    }
}

/// Go's `strconv.ParseInt` and `ParseUint` with base 0: prefixes `0x`, `0o`, `0b`, and a
/// leading zero for octal.
fn integer(text: &str) -> Option<Number> {
    let (negative, signed, digits) = match text.as_bytes().first()? {
        b'-' => (true, true, &text[1..]),
        b'+' => (false, true, &text[1..]),
        _ => (false, false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match () {
        () if lower.starts_with("0x") => (16, &lower[2..]),
        () if lower.starts_with("0o") => (8, &lower[2..]),
        () if lower.starts_with("0b") => (2, &lower[2..]),
        () if lower.starts_with('0') && lower.len() > 1 => (8, &lower[1..]),
        () => (10, &lower[..]),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let v = u64::from_str_radix(digits, base).ok()?;
    match negative {
        true => i64::try_from(-i128::from(v)).ok().map(Number::from),
        // Only ParseInt takes a sign.
        false if signed => i64::try_from(v).ok().map(Number::from),
        false => Some(v.into()),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn looks_like_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    mantissa_fits
        && exponent.is_none_or(|e| {
            let e = e.strip_prefix(['-', '+']).unwrap_or(e);
            !e.is_empty() && digits(e)
        })
}

/// Whether go-yaml takes the text for a timestamp. It reads it as a string all the same,
/// but quotes it when it writes it.
fn timestamp(text: &str) -> bool {
    read_timestamp(text).is_some()
}

fn read_timestamp(text: &str) -> Option<()> {
    let (year, mut rest) = number_of(text, 4)?;
    if text.len() - rest.len() != 4 {
        return None;
    }
    // A mark, then one or two digits up to a limit.
    let mut part = |mark: &[char], limit: i64| {
        let (v, after) = number_of(rest.strip_prefix(mark)?, 2)?;
        rest = after;
        (v <= limit).then_some(v)
    };
    let (month, day) = (part(&['-'], 12)?, part(&['-'], 31)?);
    if month < 1 || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if rest.is_empty() {
        return Some(());
    }
    let zoned = !rest.starts_with(' ');
    let mut part = |mark: &[char], limit: i64| {
        let (v, after) = number_of(rest.strip_prefix(mark)?, 2)?;
        rest = after;
        (v <= limit).then_some(v)
    };
    part(&['T', 't', ' '], 23)?;
    part(&[':'], 59)?;
    part(&[':'], 59)?;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        (_, rest) = number_of(fraction, usize::MAX)?;
    }
    let offset = |s: &str| {
        let hours = s.strip_prefix(['+', '-'])?;
        let minutes = hours.get(2..)?.strip_prefix(':')?;
        let two = |s: &str| s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
        (two(hours.get(..2)?) && two(minutes)).then_some(())
    };
    match rest {
        "" if !zoned => Some(()),
        "Z" if zoned => Some(()),
        rest if zoned => offset(rest),
        _ => None,
    }
}

/// Takes up to `most` digits off the front.
fn number_of(s: &str, most: usize) -> Option<(i64, &str)> {
    let n = s.bytes().take(most).take_while(u8::is_ascii_digit).count();
    let (digits, rest) = s.split_at(n);
    let tail = &digits[n.saturating_sub(9)..];
    Some((tail.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scalars_are_go_yaml_s() {
        for (text, want) in [
            ("", json!(null)),
            ("yes", json!(true)),
            ("off", json!(false)),
            ("yEs", json!("yEs")),
            ("0644", json!(420)),
            ("0o644", json!(420)),
            ("0x1F", json!(31)),
            ("0b11", json!(3)),
            ("08", json!(8.0)),
            ("1_000", json!(1000)),
            ("-5", json!(-5)),
            ("+5", json!(5)),
            ("18446744073709551615", json!(18_446_744_073_709_551_615u64)),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("1e", json!("1e")),
            (".", json!(".")),
            ("-", json!("-")),
            ("1.2.3", json!("1.2.3")),
            ("100m", json!("100m")),
            ("2008-01-01T01:01:01Z", json!("2008-01-01T01:01:01Z")),
            ("a b", json!("a b")),
        ] {
            assert_eq!(resolve(text), Ok(want), "{text}");
        }
        assert_eq!(resolve(".inf"), Err("+Inf"));
        assert_eq!(resolve("1e999"), Ok(json!("1e999")));
    }

    #[test]
    fn what_looks_like_something_else_is_no_string() {
        for text in [
            "1",
            "yes",
            "null",
            "",
            "~",
            "2008-01-01T01:01:01Z",
            "2008-1-1",
            "0x1",
            "2001-12-14 21:59:43.10",
            "2001-12-14t21:59:43.10-05:00",
            ".5",
        ] {
            assert!(!is_string(text), "{text}");
        }
        for text in [
            "a",
            "1a",
            "2008-13-01",
            "2008-01-01T",
            "1.2.3.4",
            "=",
            "!",
            "2008-01-01T01:01:01",
        ] {
            assert!(is_string(text), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text: String, near in "[-+.0-9xobeE_:TZ ]{0,24}") {
            is_string(&text);
            is_string(&near);
        }
    }
}
