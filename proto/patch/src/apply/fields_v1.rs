//! `FieldsV1`: a field set as JSON (structured-merge-diff's v1 format).
//!
//! A member is a key with an object as its value; `"."` inside an object says that the field
//! above is a member as well as what is listed beside it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::set::{Element, Node, Set};

/// A set that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// A set that was read.
pub struct Read {
    pub set: Set,
    /// The text is what [`write`] makes of the set.
    pub canonical: bool,
}

/// How serde_json begins to say that a text nests too deep for it.
const TOO_DEEP: &str = "recursion limit exceeded";

/// Reads the text of a set. Elements of unknown types are dropped: a later version may know
/// them.
pub fn read(text: &str) -> Result<Read, Malformed> {
    let malformed = |e: &dyn fmt::Display| Malformed(e.to_string());
    let level: Option<Level> = match serde_json::from_str(text) {
        Ok(level) => level,
        // What nests deeper than serde_json likes is read by way of a tree, which does not tell
        // how the text was written.
        Err(e) if e.to_string().starts_with(TOO_DEEP) => {
            let tree = codec::decode::untyped(text.as_bytes()).map_err(|e| malformed(&e))?;
            let level = Option::<Level>::deserialize(tree).map_err(|e| malformed(&e))?;
            level.map(|level| Level {
                canonical: false,
                ..level
            })
        }
        Err(e) => return Err(malformed(&e)),
    };
    Ok(match level {
        None => Read {
            set: Set::default(),
            canonical: false,
        },
        Some(Level {
            set,
            own,
            canonical,
        }) => Read {
            // Nothing is above the first level.
            canonical: canonical && (!own || set.is_empty()) && is_compact(text),
            set,
        },
    })
}

/// One level of the text, with all below.
struct Level {
    set: Set,
    /// The field above is a member as well.
    own: bool,
    /// See [`Read`].
    canonical: bool,
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Level, D::Error> {
        deserializer.deserialize_any(LevelVisitor)
    }
}

struct LevelVisitor;

impl<'de> Visitor<'de> for LevelVisitor {
    type Value = Level;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field set")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Level, A::Error> {
        let mut nodes: Vec<Node> = Vec::new();
        let mut own = None;
        let mut canonical = true;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let below: Level = map.next_value()?;
            if key == "." {
                canonical &= own.is_none();
                own = Some(true);
                continue;
            }
            own = own.or(Some(false));
            let Some((element, plain)) = element(&key).map_err(de::Error::custom)? else {
                canonical = false;
                continue;
            };
            canonical &= plain && below.canonical;
            nodes.push(Node {
                element,
                member: below.own || below.set.is_empty(),
                children: below.set,
            });
        }
        if !nodes.is_sorted_by(|a, b| a.element < b.element) {
            canonical = false;
            // Of members of one name the last one counts, as anywhere in JSON.
            nodes.reverse();
            nodes.sort_by(|a, b| a.element.cmp(&b.element));
            nodes.dedup_by(|a, b| a.element == b.element);
        }
        Ok(Level {
            canonical: canonical && !(own == Some(true) && nodes.is_empty()),
            own: own.unwrap_or(true) || nodes.is_empty(),
            set: Set::new(nodes),
        })
    }

    /// `null` is taken for an object without members.
    fn visit_unit<E>(self) -> Result<Level, E> {
        Ok(Level {
            set: Set::default(),
            own: true,
            canonical: false,
        })
    }
}

/// The element that a member stands for, and whether it is written like that.
fn element(key: &str) -> Result<Option<(Element, bool)>, Malformed> {
    let Some((kind, text)) = key.split_once(':') else {
        return Err(Malformed(format!("missing colon: {key}")));
    };
    let json = |text: &str| -> Result<Value, Malformed> {
        // Not serde_json, which reads long numbers inexactly.
        codec::decode::untyped(text.as_bytes())
            .map_err(|e| Malformed(format!("parsing {key}: {e}")))
    };
    let element = match kind {
        "f" => Element::Field(Cow::Owned(text.to_owned())),
        "v" => Element::Value(json(text)?),
        "k" => match json(text)? {
            // Sorted by name, as the map is.
            Value::Object(fields) => {
                Element::Key(fields.into_iter().map(|(k, v)| (k.into(), v)).collect())
            }
            _ => return Err(Malformed(format!("no key fields: {key}"))),
        },
        "i" => Element::Index(
            text.parse()
                .map_err(|e| Malformed(format!("parsing {key}: {e}")))?,
        ),
        _ => return Ok(None),
    };
    let plain = match &element {
        Element::Field(_) => true,
        _ => plain_name(&element) == key,
    };
    Ok(Some((element, plain)))
}

/// Writes a set.
pub fn write(set: &Set) -> String {
    let mut text = String::new();
    object(set, false, &mut text);
    text
}

fn object(set: &Set, own: bool, text: &mut String) {
    text.push('{');
    let dot = own && !set.is_empty();
    if dot {
        text.push_str("\".\":{}");
    }
    for (i, node) in set.nodes().iter().enumerate() {
        if dot || i > 0 {
            text.push(',');
        }
        name(&node.element, text);
        text.push(':');
        object(&node.children, node.member, text);
    }
    text.push('}');
}

/// The member that stands for an element, as JSON.
fn name(element: &Element, text: &mut String) {
    let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    match element {
        // Nearly all names need no escapes.
        Element::Field(name) if name.chars().all(plain) => {
            text.push_str("\"f:");
            text.push_str(name);
            text.push('"');
        }
        Element::Index(_) => {
            text.push('"');
            text.push_str(&plain_name(element));
            text.push('"');
        }
        _ => text.push_str(&Value::from(plain_name(element)).to_string()),
    }
}

/// The name of the member that stands for an element.
fn plain_name(element: &Element) -> String {
    match element {
        Element::Field(name) => format!("f:{name}"),
        Element::Value(value) => format!("v:{value}"),
        Element::Index(i) => format!("i:{i}"),
        Element::Key(fields) => {
            let mut key = "k:{".to_owned();
            for (i, (name, value)) in fields.iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                key.push_str(&format!("{comma}{}:{value}", Value::from(name.as_ref())));
            }
            key.push('}');
            key
        }
    }
}

/// Whether a text has neither spaces nor escapes that are not needed everywhere. Names that
/// have spaces are no harm: their set is written anew.
fn is_compact(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut escaped = false;
    bytes.iter().all(|&byte| match byte {
        _ if escaped => {
            escaped = false;
            matches!(byte, b'"' | b'\\')
        }
        b'\\' => {
            escaped = true;
            true
        }
        _ => !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_set_is_read_and_written() {
        let fields = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:finalizers": {".": {}, "v:\"kubernetes\"": {}},
                "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
            },
        });
        let set_of = |text: &str| read(text).map(|read| read.set);
        let Read { set, canonical } = read(&fields.to_string()).unwrap();
        assert!(canonical);
        assert_eq!(
            set.paths(),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.finalizers",
                ".spec.ports",
                ".spec.finalizers[=\"kubernetes\"]",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
            ]
        );
        assert_eq!(write(&set), fields.to_string());
        assert_eq!(set_of("{}").unwrap(), Set::default());
        assert_eq!(set_of("null").unwrap(), Set::default());
        assert_eq!(set_of(r#"{"x:new": {}}"#).unwrap(), Set::default());
        assert!(read(r#"{"k:[1]": {}}"#).is_err());
        assert!(read(r#"{"nothing": {}}"#).is_err());
        assert!(read("[]").is_err());
        assert!(read("{").is_err());
        let twice = set_of(r#"{"f:a": {"f:b": {}}, "f:a": {"f:c": {}}}"#).unwrap();
        assert_eq!(twice.paths(), [".a.c"]);
    }

    #[test]
    fn what_would_be_written_otherwise_is_told() {
        for (text, canonical) in [
            ("{}", true),
            (r#"{"f:a":{".":{},"f:b":{}}}"#, true),
            (
                r#"{"f:p":{"k:{\"port\":80}":{},"k:{\"port\":443}":{}}}"#,
                true,
            ),
            (
                r#"{"f:p":{"k:{\"port\":443}":{},"k:{\"port\":80}":{}}}"#,
                false,
            ),
            (r#"{"f:p":{"k:{\"b\":1,\"a\":2}":{}}}"#, false),
            (r#"{".":{},"f:a":{}}"#, false),
            (r#"{"f:a":{".":{}}}"#, false),
            (r#"{"f:a":{"x:new":{}}}"#, false),
            (r#"{"f:a":{"f:b":{},".":{}}}"#, false),
            (r#"{"f:a":null}"#, false),
            (r#"{"f:a": {}}"#, false),
            (r#"{"f:\u0061":{}}"#, false),
            (r#"{"f:\"\\":{}}"#, true),
            (r#"{"f:a":{"v:1e1":{}}}"#, false),
            (r#"{"f:a":{"v:4.440000000000104e+22":{}}}"#, true),
            (r#"{"f:a":{"v:\"\\u0061\"":{}}}"#, false),
            (r#"{"f:a":{"i:01":{}}}"#, false),
        ] {
            let read = read(text).unwrap();
            assert_eq!(read.canonical, canonical, "{text}");
            assert_eq!(write(&read.set) == text, canonical, "{text}");
        }
        // Deeper than serde_json reads.
        let deep = format!(
            "{}{{}}{}",
            r#"{"f:b":{},"f:a":"#.repeat(200),
            "}".repeat(200)
        );
        let Read { set, canonical } = read(&deep).unwrap();
        assert!(!canonical);
        assert!(read(&write(&set)).is_ok_and(|again| again.set == set));
        // That a member of the name comes later does not mend what is in this one.
        assert!(read(r#"{"f:a":{"b":{}},"f:a":{}}"#).is_err());
        for text in [r#"{"f:a":5}"#, r#"{"f:a":[]}"#, r#"{"f:a":"x"}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
