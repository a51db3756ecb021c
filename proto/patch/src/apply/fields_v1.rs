//! `FieldsV1`: a field set as JSON (structured-merge-diff's v1 format).
//!
//! A member is a key with an object as its value; `"."` inside an object says that the field
//! above is a member as well as what is listed beside it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::set::{Element, Node, Set};

/// A set that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// Reads the text of a set. Elements of unknown types are dropped: a later version may know
/// them.
pub fn read(text: &str) -> Result<Set, Malformed> {
    // What nests deeper than serde_json likes is read by way of a tree.
    let level: Option<Level> = serde_json::from_str(text)
        .or_else(|_| {
            let tree = codec::decode::untyped(text.as_bytes()).map_err(de::Error::custom)?;
            Option::deserialize(tree)
        })
        .map_err(|e: serde_json::Error| Malformed(e.to_string()))?;
    match level {
        None => Ok(Set::default()),
        Some(Level::Object { set, .. }) => Ok(set),
        Some(Level::Leaf) => Err(Malformed(format!("expected an object, got {text}"))),
    }
}

/// One level of the text, with all below.
enum Level {
    Object {
        set: Set,
        /// The field above is a member as well.
        own: bool,
    },
    /// Anything but an object.
    Leaf,
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
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let below: Level = map.next_value()?;
            if key == "." {
                own = Some(true);
                continue;
            }
            own = own.or(Some(false));
            let Some(element) = element(&key).map_err(de::Error::custom)? else {
                continue;
            };
            let (children, member) = match below {
                Level::Object { set, own } => (set, own),
                Level::Leaf => (Set::default(), true),
            };
            nodes.push(Node {
                element,
                member: member || children.is_empty(),
                children,
            });
        }
        // Of members of one name the last one counts, as anywhere in JSON.
        nodes.reverse();
        nodes.sort_by(|a, b| a.element.cmp(&b.element));
        nodes.dedup_by(|a, b| a.element == b.element);
        Ok(Level::Object {
            own: own.unwrap_or(true) || nodes.is_empty(),
            set: Set::new(nodes),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Level, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Level::Leaf)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Level, E> {
        Ok(Level::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Level, E> {
        Ok(Level::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Level, E> {
        Ok(Level::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Level, E> {
        Ok(Level::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Level, E> {
        Ok(Level::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Level, E> {
        Ok(Level::Leaf)
    }
}

fn element(key: &str) -> Result<Option<Element>, Malformed> {
    let Some((kind, text)) = key.split_once(':') else {
        return Err(Malformed(format!("missing colon: {key}")));
    };
    let json = |text: &str| -> Result<Value, Malformed> {
        serde_json::from_str(text).map_err(|e| Malformed(format!("parsing {key}: {e}")))
    };
    Ok(Some(match kind {
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
    }))
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
        Element::Field(name) => text.push_str(&Value::from(format!("f:{name}")).to_string()),
        Element::Value(value) => text.push_str(&Value::from(format!("v:{value}")).to_string()),
        Element::Index(i) => text.push_str(&format!("\"i:{i}\"")),
        Element::Key(fields) => {
            let mut key = "k:{".to_owned();
            for (i, (name, value)) in fields.iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                key.push_str(&format!("{comma}{}:{value}", Value::from(name.as_ref())));
            }
            key.push('}');
            text.push_str(&Value::from(key).to_string());
        }
    }
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
        let set = read(&fields.to_string()).unwrap();
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
        assert_eq!(read("{}").unwrap(), Set::default());
        assert_eq!(read("null").unwrap(), Set::default());
        assert_eq!(read(r#"{"x:new": {}}"#).unwrap(), Set::default());
        assert!(read(r#"{"k:[1]": {}}"#).is_err());
        assert!(read(r#"{"nothing": {}}"#).is_err());
        assert!(read("[]").is_err());
        assert!(read("{").is_err());
        let twice = read(r#"{"f:a": {"f:b": {}}, "f:a": {"f:c": {}}}"#).unwrap();
        assert_eq!(twice.paths(), [".a.c"]);
    }
}
