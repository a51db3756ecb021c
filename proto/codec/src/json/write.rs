//! Writing JSON text exactly as Go's encoding/json does with its default of escaping
//! for HTML, which the API server never turns off.

use std::io::Write as _;

use base64::Engine as _;

use super::read;
use crate::error::{Error, Result};

/// The first byte at or after `from` that cannot be copied into a JSON string as it is:
/// a control character, `"`, `\`, `<`, `>`, `&` or the start of a non-ASCII character.
#[inline]
pub fn find_special(s: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // A byte of the result has its high bit set when that byte of `v` equals `b`; a
    // borrow can only raise false alarms above a true one, and the first one counts.
    #[inline(always)]
    fn eq(v: u64, b: u8) -> u64 {
        let x = v ^ (ONES * b as u64);
        x.wrapping_sub(ONES) & !x
    }
    let mut i = from;
    while let Some(chunk) = s.get(i..i + 8) {
        let v = u64::from_le_bytes(chunk.try_into().expect("8 bytes"));
        let control = v.wrapping_sub(ONES * 0x20) & !v;
        // '<' and '>' differ in one bit.
        let angle = eq(v & !(ONES * 2), b'<');
        let hit = (control | eq(v, b'"') | eq(v, b'\\') | angle | eq(v, b'&') | v) & HIGH;
        if hit != 0 {
            return i + (hit.trailing_zeros() / 8) as usize;
        }
        i += 8;
    }
    while i < s.len() && !special(s[i]) {
        i += 1;
    }
    i
}

#[inline]
fn special(b: u8) -> bool {
    !(0x20..0x80).contains(&b) || matches!(b, b'"' | b'\\' | b'<' | b'>' | b'&')
}

/// A quoted string. Bytes that are no UTF-8 come out as `\ufffd`.
#[inline]
pub fn string(out: &mut Vec<u8>, s: &[u8]) {
    let special = find_special(s, 0);
    if special < s.len() {
        return escaped(out, s, special);
    }
    out.reserve(s.len() + 2);
    out.push(b'"');
    out.extend_from_slice(s);
    out.push(b'"');
}

/// A string that has a byte at `i` that needs attention, and none before it.
fn escaped(out: &mut Vec<u8>, s: &[u8], mut i: usize) {
    out.push(b'"');
    let mut copied = 0;
    while i < s.len() {
        let next = match s[i] {
            b if b < 0x80 => {
                out.extend_from_slice(&s[copied..i]);
                escape(out, b);
                copied = i + 1;
                i + 1
            }
            _ => match decode(&s[i..]) {
                Some((c, len)) if c != '\u{2028}' && c != '\u{2029}' => i + len,
                found => {
                    out.extend_from_slice(&s[copied..i]);
                    let (text, len): (&[u8], usize) = match found {
                        Some(('\u{2028}', len)) => (b"\\u2028", len),
                        Some((_, len)) => (b"\\u2029", len),
                        None => (b"\\ufffd", 1),
                    };
                    out.extend_from_slice(text);
                    copied = i + len;
                    copied
                }
            },
        };
        i = find_special(s, next);
    }
    out.extend_from_slice(&s[copied..]);
    out.push(b'"');
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn escape(out: &mut Vec<u8>, b: u8) {
    match b {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', b]),
        0x08 => out.extend_from_slice(b"\\b"),
        0x0c => out.extend_from_slice(b"\\f"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        b => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[(b >> 4) as usize], HEX[(b & 15) as usize]]);
        }
    }
}

/// The character at the front of `s`, if it is well-formed UTF-8.
fn decode(s: &[u8]) -> Option<(char, usize)> {
    let len = match s[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let text = std::str::from_utf8(s.get(..len)?).ok()?;
    Some((text.chars().next()?, len))
}

pub fn int(out: &mut Vec<u8>, v: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(v).as_bytes());
}

pub fn bool(out: &mut Vec<u8>, v: bool) {
    out.extend_from_slice(if v { b"true" } else { b"false" });
}

/// A number in Go's choice of notation; infinities and NaN are no JSON.
pub fn float(out: &mut Vec<u8>, v: f64) -> Result<()> {
    if !v.is_finite() {
        let text = if v.is_nan() {
            "NaN"
        } else if v > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        };
        return Err(Error::value(format!("json: unsupported value: {text}")));
    }
    let abs = v.abs();
    if abs != 0.0 && !(1e-6..1e21).contains(&abs) {
        let start = out.len();
        let _ = write!(out, "{v:e}");
        // Rust writes 1e21, Go 1e+21.
        if let Some(e) = out[start..].iter().position(|&b| b == b'e') {
            let e = start + e + 1;
            if out[e] != b'-' {
                out.insert(e, b'+');
            }
        }
    } else {
        let _ = write!(out, "{v}");
    }
    Ok(())
}

/// A number of a tree.
pub fn number(out: &mut Vec<u8>, v: &serde_json::Number) {
    match v.as_f64() {
        Some(float) if v.is_f64() && self::float(out, float).is_ok() => {}
        _ => {
            let _ = write!(out, "{v}");
        }
    }
}

/// A tree that no schema describes, members in the tree's order.
pub fn value(out: &mut Vec<u8>, v: &serde_json::Value) {
    use serde_json::Value;
    match v {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(v) => bool(out, *v),
        Value::Number(v) => number(out, v),
        Value::String(v) => string(out, v.as_bytes()),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                value(out, item);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (i, (key, item)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                string(out, key.as_bytes());
                out.push(b':');
                value(out, item);
            }
            out.push(b'}');
        }
    }
}

/// Standard base64 with padding, quoted.
pub fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let engine = base64::engine::general_purpose::STANDARD;
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let n = engine
        .encode_slice(bytes, &mut out[start..])
        .expect("base64 needs four bytes for three");
    out.truncate(start + n);
    out.push(b'"');
}

/// JSON that came from elsewhere, as Go embeds it: checked, without insignificant
/// space, and escaped for HTML. What is no UTF-8 is replaced: Go would pass it on, and only Go
/// could read it.
pub fn compact(out: &mut Vec<u8>, raw: &[u8]) -> Result<()> {
    if std::str::from_utf8(raw).is_err() {
        return compact(out, String::from_utf8_lossy(raw).as_bytes());
    }
    if read::check(raw)?.canonical {
        out.extend_from_slice(raw);
        return Ok(());
    }
    let mut quoted = false;
    let mut i = 0;
    while i < raw.len() {
        let b = raw[i];
        let mut len = 1;
        match b {
            b' ' | b'\t' | b'\r' | b'\n' if !quoted => {}
            b'"' => {
                quoted = !quoted;
                out.push(b);
            }
            b'\\' => {
                // The escaped byte is copied along, so that `\"` does not end the string.
                len = 2.min(raw.len() - i);
                out.extend_from_slice(&raw[i..i + len]);
            }
            b'<' | b'>' | b'&' => escape(out, b),
            0xe2 if raw[i..].starts_with(&[0xe2, 0x80, 0xa8]) => {
                out.extend_from_slice(b"\\u2028");
                len = 3;
            }
            0xe2 if raw[i..].starts_with(&[0xe2, 0x80, 0xa9]) => {
                out.extend_from_slice(b"\\u2029");
                len = 3;
            }
            b => out.push(b),
        }
        i += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_embedded_is_valid_afterwards() {
        let written = |raw: &[u8]| text(|out| compact(out, raw).unwrap());
        assert_eq!(written(b"{ \"a\": \"<\" }"), r#"{"a":"\u003c"}"#);
        assert_eq!(written(b"\"\x92\""), "\"\u{fffd}\"");
    }

    fn text(f: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let go = [
            (&b"plain"[..], r#""plain""#),
            (b"a\"b\\c/d", r#""a\"b\\c/d""#),
            (b"<b>&amp;", "\"\\u003cb\\u003e\\u0026amp;\""),
            (
                b"\x00\x08\x0c\n\r\t\x1f\x7f",
                "\"\\u0000\\b\\f\\n\\r\\t\\u001f\x7f\"",
            ),
            ("\u{2028}é\u{2029}𝄞".as_bytes(), "\"\\u2028é\\u2029𝄞\""),
            (b"a\xffb\xe2\x80", r#""a\ufffdb\ufffd\ufffd""#),
            (b"\xed\xa0\x80", r#""\ufffd\ufffd\ufffd""#),
        ];
        for (bytes, want) in go {
            assert_eq!(text(|o| string(o, bytes)), want);
        }
    }

    #[test]
    fn floats_are_written_as_go_does() {
        for (v, want) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (100.0, "100"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (-2.5e-9, "-2.5e-9"),
        ] {
            assert_eq!(text(|o| float(o, v).unwrap()), want);
        }
        assert!(float(&mut Vec::new(), f64::NAN).is_err());
    }

    #[test]
    fn embedded_json_is_compacted() {
        for (raw, want) in [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (" { \"a\" : [ 1 , \" \\\" x\" ] } ", r#"{"a":[1," \" x"]}"#),
            (r#"{"a":"<\u003c"}"#, "{\"a\":\"\\u003c\\u003c\"}"),
            ("\"\u{2028}é\"", "\"\\u2028é\""),
        ] {
            assert_eq!(text(|o| compact(o, raw.as_bytes()).unwrap()), want);
        }
        assert!(compact(&mut Vec::new(), b"{").is_err());
        assert!(compact(&mut Vec::new(), b"{} x").is_err());
    }

    #[test]
    fn bytes_become_base64() {
        assert_eq!(text(|o| base64(o, b"")), r#""""#);
        assert_eq!(text(|o| base64(o, b"ab")), r#""YWI=""#);
    }

    proptest! {
        #[test]
        fn the_fast_scan_agrees_with_the_plain_one(s: Vec<u8>, from in 0usize..40) {
            let from = from.min(s.len());
            let want = s[from..].iter().position(|&b| special(b)).map_or(s.len(), |i| from + i);
            prop_assert_eq!(find_special(&s, from), want);
        }

        #[test]
        fn any_string_is_json(s: String) {
            let json = text(|o| string(o, s.as_bytes()));
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), s);
        }

        #[test]
        fn any_float_returns(v: f64) {
            prop_assume!(v.is_finite());
            let json = text(|o| float(o, v).unwrap());
            prop_assert_eq!(json.parse::<f64>().unwrap(), v);
        }
    }
}
