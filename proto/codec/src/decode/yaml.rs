//! YAML into a tree. As upstream does it, the text is made into JSON first, so that the
//! errors are those of the JSON; only duplicate keys are YAML's own.

use std::borrow::Cow;

use schema::Message;
use serde_json::{Map, Value};

use super::{DecodeError, Decoded, Strictness, json};
use crate::error::{Error, Result};
use crate::json::read::{Kind, Reader};
use crate::json::write;
use crate::yaml;

/// Reads a YAML body; only its first document counts.
///
/// # Errors
/// The body is no YAML, or a value does not fit its type.
pub fn yaml(
    msg: &'static Message,
    body: &[u8],
    strictness: Strictness,
) -> Result<Decoded, DecodeError> {
    let (text, duplicates) = to_json(body)?;
    let mut decoded = json(msg, &text, strictness)?;
    if strictness != Strictness::Ignore && !duplicates.is_empty() {
        let error = format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "));
        decoded.strict_errors.insert(0, error);
    }
    Ok(decoded)
}

/// YAML's first document as JSON text, with the keys that occur twice.
///
/// # Errors
/// The body is no YAML, or it holds what JSON does not have.
pub fn to_json(body: &[u8]) -> Result<(Vec<u8>, Vec<String>), DecodeError> {
    let text = text(body)?;
    let parsed = yaml::parse(&text)?;
    let mut json = Vec::with_capacity(text.len());
    write::value(&mut json, &parsed.value);
    Ok((json, parsed.duplicates))
}

/// YAML is UTF-8, or UTF-16 if it begins with a byte order mark that says so.
fn text(body: &[u8]) -> Result<Cow<'_, str>> {
    let unit = match body {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => {
            let text = std::str::from_utf8(body);
            let text = text.map_err(|_| syntax("invalid leading UTF-8 octet"))?;
            return Ok(text.into());
        }
    };
    let (pairs, rest) = body[2..].as_chunks();
    if !rest.is_empty() {
        return Err(syntax("incomplete UTF-16 character"));
    }
    let characters = char::decode_utf16(pairs.iter().map(|pair| unit(*pair)));
    let text: Result<String, _> = characters.collect();
    text.map(Cow::Owned)
        .map_err(|_| syntax("unexpected low surrogate area"))
}

fn syntax(problem: &str) -> Error {
    Error::Syntax(format!("yaml: {problem}"))
}

/// JSON is YAML, and is what most clients send as YAML. `None` where a YAML reader might see
/// something else in it: control characters, escapes by number or of slashes, long keys, keys
/// that occur twice, numbers that are not whole, or no JSON at all.
pub fn plain_json(body: &[u8]) -> Option<Value> {
    let printed = |b: &u8| matches!(b, b'\n' | b' '..=b'~');
    if body.first() != Some(&b'{') || !body.iter().all(printed) {
        return None;
    }
    if body.windows(2).any(|w| w == b"\\u" || w == b"\\/") {
        return None;
    }
    let mut json = Reader::new(body);
    let tree = plain(&mut json).ok()??;
    json.end().ok()?;
    Some(tree)
}

/// The next value, or nothing where it is not plain.
fn plain(json: &mut Reader<'_>) -> Result<Option<Value>> {
    /// A key in YAML's flow style must be over after 1024 characters.
    const LONGEST_KEY: usize = 1000;
    let mut first = true;
    Ok(match json.peek()? {
        Kind::Object => {
            json.object()?;
            let mut members = Map::new();
            while let Some(key) = json.key(&mut first)? {
                let Some(value) = plain(json)? else {
                    return Ok(None);
                };
                let strange = key.len() > LONGEST_KEY || key == "<<";
                if strange || members.insert(key.into_owned(), value).is_some() {
                    return Ok(None);
                }
            }
            Some(Value::Object(members))
        }
        Kind::Array => {
            json.array()?;
            let mut items = Vec::new();
            while json.element(&mut first)? {
                let Some(item) = plain(json)? else {
                    return Ok(None);
                };
                items.push(item);
            }
            Some(Value::Array(items))
        }
        Kind::Number => json.number()?.parse::<i64>().ok().map(Value::from),
        _ => Some(json.tree()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_json_is_what_yaml_reads() {
        let yaml = |body: &str| {
            let (text, duplicates) = to_json(body.as_bytes()).unwrap();
            assert!(duplicates.is_empty());
            serde_json::from_slice::<Value>(&text).unwrap()
        };
        for body in [
            r#"{}"#,
            r#"{"a":[1,-2,0,true,false,null,"x",{}],"b":{"c":"\"\\\n\t\b\f\r"}}"#,
            r#"{"y":"yes","on":"1","0":"~","null":"0x1", "a: b" : " # no comment", "<": "- x"}"#,
            "{\n  \"a\": {\n    \"b\": [\n      1\n    ]\n  }\n}\n",
        ] {
            assert_eq!(plain_json(body.as_bytes()).unwrap(), yaml(body), "{body}");
        }
        for body in [
            "a: 1",
            r#"{"a":1,"a":2}"#,
            r#"{"a":1.5}"#,
            r#"{"a":1e3}"#,
            r#"{"a":9223372036854775808}"#,
            r#"{"a":"\u0041"}"#,
            r#"{"a":"\/"}"#,
            "{\t\"a\":1}",
            r#"{"a":"ä"}"#,
            r#"{"a":1} x"#,
            r#"{"a":1,}"#,
            "",
        ] {
            assert_eq!(plain_json(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn a_byte_order_mark_says_how_characters_are_written() {
        let utf16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            "\u{feff}a: ä".encode_utf16().flat_map(bytes).collect()
        };
        for body in [utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
            assert_eq!(to_json(&body).unwrap().0, "{\"a\":\"ä\"}".as_bytes());
            assert!(to_json(&body[..body.len() - 1]).is_err());
        }
        assert_eq!(to_json("\u{feff}a: 1".as_bytes()).unwrap().0, b"{\"a\":1}");
    }
}
