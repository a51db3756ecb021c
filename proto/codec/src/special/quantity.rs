//! The canonical text of a `resource.Quantity`, which is all that the wire needs to know
//! about it: apimachinery's `api/resource` keeps some texts as they came and rewrites
//! the rest, and stored bytes depend on which.

use std::borrow::Cow;

use crate::error::{Error, Result};

#[derive(Clone, Copy, PartialEq)]
enum Format {
    DecimalSi,
    DecimalExponent,
    BinarySi,
}

const FORMAT_WRONG: &str = "quantities must match the regular expression \
     '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const NUMERIC: &str = "unable to parse numeric part of quantity";
const SUFFIX: &str = "unable to parse quantity's suffix";

/// The text that upstream writes for the quantity that it reads as `text`.
pub fn canonical(text: &str) -> Result<Cow<'_, str>> {
    if plain(text.as_bytes()) {
        return Ok(Cow::Borrowed(text));
    }
    rewrite(text)
}

/// A quick yes for the common texts that are canonical already: a short whole number
/// without leading zeros whose suffix could not be larger.
fn plain(s: &[u8]) -> bool {
    let digits = s.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > 9 {
        return false;
    }
    if s[0] == b'0' {
        return s.len() == 1;
    }
    match &s[digits..] {
        b"" | b"m" | b"k" | b"M" | b"G" => !s[..digits].ends_with(b"000"),
        // A multiple of 1024 ends in an even digit, and short ones are below it.
        b"Ki" | b"Mi" => digits <= 3 || s[digits - 1] % 2 == 1,
        b"Gi" => digits <= 3,
        _ => false,
    }
}

/// `[sign][zeros]num[.denom]suffix`.
struct Parts<'a> {
    negative: bool,
    num: &'a str,
    denom: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let rest = rest.trim_start_matches('0');
    let end = |s: &str| s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len());
    let (num, rest) = rest.split_at(end(rest));
    let (denom, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(end(rest)),
        None => ("", rest),
    };
    let exponent = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Error::value(FORMAT_WRONG));
    }
    Ok(Parts {
        negative,
        num: if num.is_empty() { "0" } else { num },
        denom,
        suffix,
    })
}

/// The exponent that a suffix stands for, to the base of its format.
fn suffix(s: &str) -> Option<(i32, Format)> {
    use Format::*;
    Some(match s {
        "n" => (-9, DecimalSi),
        "u" => (-6, DecimalSi),
        "m" => (-3, DecimalSi),
        "" => (0, DecimalSi),
        "k" => (3, DecimalSi),
        "M" => (6, DecimalSi),
        "G" => (9, DecimalSi),
        "T" => (12, DecimalSi),
        "P" => (15, DecimalSi),
        "E" => (18, DecimalSi),
        "Ki" => (10, BinarySi),
        "Mi" => (20, BinarySi),
        "Gi" => (30, BinarySi),
        "Ti" => (40, BinarySi),
        "Pi" => (50, BinarySi),
        "Ei" => (60, BinarySi),
        _ => {
            let digits = s.strip_prefix(['e', 'E']).filter(|s| !s.is_empty())?;
            (digits.parse().ok()?, DecimalExponent)
        }
    })
}

fn rewrite(text: &str) -> Result<Cow<'_, str>> {
    if text.is_empty() {
        return Err(Error::value(FORMAT_WRONG));
    }
    if text == "0" {
        return Ok(Cow::Borrowed(text));
    }
    let parts = split(text)?;
    let (exponent, mut format) = suffix(parts.suffix).ok_or(Error::value(SUFFIX))?;
    if as_it_came(&parts, exponent, format) {
        return Ok(Cow::Borrowed(text));
    }

    // The amount is `unscaled` times ten to the `scale`.
    let digits = [parts.num, parts.denom].concat();
    let mut unscaled: i128 = match digits.trim_start_matches('0') {
        "" => return Ok("0".into()),
        // Far beyond what any amount of anything needs; upstream would go on in big numbers.
        long if long.len() > 36 => return Err(Error::value(NUMERIC)),
        digits => digits.parse().map_err(|_| Error::value(NUMERIC))?,
    };
    let mut scale = -(parts.denom.len() as i32);
    match format {
        Format::BinarySi => {
            unscaled = unscaled.checked_mul(1i128 << exponent).unwrap_or(i128::MAX);
        }
        _ => scale = scale.saturating_add(exponent),
    }

    // Nothing is smaller than a nano: round away from zero.
    while scale < -9 {
        unscaled = unscaled / 10 + i128::from(unscaled % 10 != 0);
        scale += 1;
        if unscaled == 1 {
            scale = -9;
        }
    }
    while scale < 0 && unscaled % 10 == 0 {
        unscaled /= 10;
        scale += 1;
    }
    if format == Format::BinarySi {
        let whole = scale >= 0;
        let max = i128::from(i64::MAX);
        let over = if whole {
            unscaled > max
        } else {
            unscaled / 10i128.pow(-scale as u32) >= max
        };
        if over {
            (unscaled, scale) = (max, 0);
        } else if !whole || unscaled < 1024 {
            // Rounding or a number below the first suffix: decimal says it better.
            format = Format::DecimalSi;
        }
    }

    let mut out = String::with_capacity(24);
    if parts.negative {
        out.push('-');
    }
    let mut steps = 0;
    if format == Format::BinarySi {
        while unscaled % 1024 == 0 {
            unscaled /= 1024;
            steps += 1;
        }
        out.push_str(&unscaled.to_string());
        out.push_str(
            ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
                .get(steps)
                .unwrap_or(&""),
        );
        return Ok(out.into());
    }
    while unscaled % 10 == 0 {
        unscaled /= 10;
        scale = scale.saturating_add(1);
    }
    while scale % 3 != 0 {
        unscaled = unscaled.saturating_mul(10);
        scale -= 1;
    }
    out.push_str(&unscaled.to_string());
    match format {
        Format::DecimalExponent if scale != 0 => {
            out.push('e');
            out.push_str(&scale.to_string());
        }
        Format::DecimalExponent => {}
        _ => {
            let at = usize::try_from(scale / 3 + 3).ok();
            let names = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
            out.push_str(at.and_then(|i| names.get(i)).unwrap_or(&""));
        }
    }
    Ok(out.into())
}

/// Whether upstream keeps the text, which it does for numbers that fit its fast path and
/// look canonical. They need not be: `+5` and `1.500` stay what they are.
fn as_it_came(parts: &Parts, exponent: i32, format: Format) -> bool {
    let len = (parts.num.len() + parts.denom.len()) as i32;
    let fits = match format {
        Format::BinarySi => {
            let precision = 15 - parts.num.len() as i32 - (exponent as f32 * 0.3) as i32 - 1;
            parts.denom.is_empty() && precision >= 0
        }
        _ => len <= 18,
    };
    let scale = if format == Format::BinarySi {
        0
    } else {
        exponent
    } - parts.denom.len() as i32;
    // A number without a numerator was all zeros; it is rewritten.
    if !fits || scale < -9 {
        return false;
    }
    let shifted = [parts.num, parts.denom].concat();
    match format {
        Format::BinarySi => shifted.parse::<i64>().is_ok_and(|v| v & 7 != 0),
        _ => scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_texts_are_upstream_s() {
        for (text, want) in [
            ("0", "0"),
            ("00", "0"),
            ("0Mi", "0"),
            ("-0", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1."),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("0.1Mi", "104857600m"),
            ("1024Mi", "1Gi"),
            ("1024Ki", "1Mi"),
            ("64Mi", "64Mi"),
            ("2048", "2048"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("1000e3", "1e6"),
            ("1E", "1E"),
            ("12e6", "12e6"),
            ("1000000000", "1G"),
            ("0.0000000001", "1n"),
            ("1.0000000001", "1000000001n"),
            ("-1.5", "-1500m"),
            ("-1024Ki", "-1Mi"),
            ("+5", "+5"),
            ("1.500", "1.500"),
            ("0001Mi", "0001Mi"),
            ("9223372036854775807", "9223372036854775807"),
            ("8Ei", "9223372036854775807"),
            ("100Ei", "9223372036854775807"),
            ("16Gi", "16Gi"),
            ("0.5Ki", "512"),
            ("12345678901234567890", "12345678901234567890"),
            ("1Ki", "1Ki"),
            ("110", "110"),
        ] {
            assert_eq!(canonical(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for (text, want) in [
            ("", FORMAT_WRONG),
            ("1 ", FORMAT_WRONG),
            ("1.1.1", FORMAT_WRONG),
            ("x", FORMAT_WRONG),
            ("1i", SUFFIX),
            ("1mi", SUFFIX),
            ("1e", SUFFIX),
            ("1e99999999999", SUFFIX),
        ] {
            assert_eq!(canonical(text).unwrap_err().to_string(), want, "{text:?}");
        }
    }

    #[test]
    fn the_quick_yes_is_right() {
        for number in [
            1u32, 7, 10, 100, 999, 1000, 1001, 1024, 1025, 2048, 4096, 5000, 12000,
        ] {
            for suffix in ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"] {
                let text = format!("{number}{suffix}");
                if plain(text.as_bytes()) {
                    assert_eq!(rewrite(&text).unwrap(), text);
                }
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn canonical_is_a_fixed_point(text in "[+-]?[0-9.]{1,12}([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?") {
            if let Ok(once) = canonical(&text) {
                let twice = canonical(&once).map(Cow::into_owned);
                proptest::prop_assert!(twice.is_ok());
            }
        }

        #[test]
        fn never_panics(text: String) {
            let _ = canonical(&text);
        }
    }
}
