//! How numbers are spelled (`1.50`, `1e3`), which a tree does not know, and which a patch of
//! embedded JSON leaves as it was where it changes something else.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::write;
use crate::decode;

/// Writes JSON whose numbers are spelled as in an old text where they are what they were.
pub fn spelled_as(value: &Value, old: Option<&RawValue>, out: &mut Vec<u8>) {
    match value {
        Value::Object(members) => {
            let old: HashMap<Cow<'_, str>, &RawValue> = old.and_then(parsed).unwrap_or_default();
            let mut separator = b'{';
            for (name, value) in members {
                out.push(std::mem::replace(&mut separator, b','));
                write::value(out, &Value::String(name.clone()));
                out.push(b':');
                spelled_as(value, old.get(name.as_str()).copied(), out);
            }
            if separator == b'{' {
                out.push(separator);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            let old: Vec<&RawValue> = old.and_then(parsed).unwrap_or_default();
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                spelled_as(item, old.get(i).copied(), out);
            }
            out.push(b']');
        }
        Value::Number(_) => match old.map(RawValue::get) {
            Some(old) if decode::untyped(old.as_bytes()).is_ok_and(|old| old == *value) => {
                out.extend_from_slice(old.as_bytes());
            }
            _ => write::value(out, value),
        },
        _ => write::value(out, value),
    }
}

fn parsed<'a, T: serde::Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(new: &str, old: &str) -> String {
        let new = decode::untyped(new.as_bytes()).unwrap();
        let mut out = Vec::new();
        spelled_as(&new, serde_json::from_str(old).ok(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_that_stay_keep_their_spelling() {
        let old = r#"{"a": 1.50, "b": [1e3, {"c": -0.0}], "d": 12345678901234567890, "e": {}}"#;
        let new = r#"{"a":1.5,"b":[1000.0,{"c":-0.0,"x":2.50}],"d":12345678901234567890,"e":{}}"#;
        let kept = r#"{"a":1.50,"b":[1e3,{"c":-0.0,"x":2.5}],"d":12345678901234567890,"e":{}}"#;
        assert_eq!(spelled(new, old), kept);
        assert_eq!(spelled(r#"{"a":1.6}"#, old), r#"{"a":1.6}"#);
        assert_eq!(spelled("[1.5]", r#"{"0": 1.50}"#), "[1.5]");
    }
}
