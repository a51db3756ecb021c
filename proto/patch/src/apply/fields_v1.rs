//! `FieldsV1`: a field set as JSON (structured-merge-diff's v1 format).
//!
//! A member is a key with an object as its value; `"."` inside an object says that the field
//! above is a member as well as what is listed beside it.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::set::{Element, Node, Set};

/// A set that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

/// Reads a set. Elements of unknown types are dropped: a later version may know them.
pub fn read(fields: &Value) -> Result<Set, Malformed> {
    match fields {
        Value::Null => Ok(Set::default()),
        Value::Object(members) => Ok(level(members)?.0),
        other => Err(Malformed(format!("expected an object, got {other}"))),
    }
}

/// A level's set, and whether the field above is a member.
fn level(members: &Map<String, Value>) -> Result<(Set, bool), Malformed> {
    let mut nodes = Vec::with_capacity(members.len());
    let mut own = members.is_empty();
    for (key, value) in members {
        if key == "." {
            own = true;
            continue;
        }
        let Some(element) = element(key)? else {
            continue;
        };
        let (children, member) = match value {
            Value::Object(below) => level(below)?,
            _ => (Set::default(), true),
        };
        nodes.push(Node {
            element,
            member: member || children.is_empty(),
            children,
        });
    }
    let own = own || nodes.is_empty();
    Ok((Set::new(nodes), own))
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
pub fn write(set: &Set) -> Value {
    Value::Object(object(set, false))
}

fn object(set: &Set, own: bool) -> Map<String, Value> {
    let mut members = Map::new();
    if own && !set.is_empty() {
        members.insert(".".to_owned(), Value::Object(Map::new()));
    }
    for node in set.nodes() {
        let below = object(&node.children, node.member);
        members.insert(key(&node.element), Value::Object(below));
    }
    members
}

fn key(element: &Element) -> String {
    match element {
        Element::Field(name) => format!("f:{name}"),
        Element::Value(value) => format!("v:{value}"),
        Element::Index(i) => format!("i:{i}"),
        Element::Key(fields) => {
            let mut text = "k:{".to_owned();
            for (i, (name, value)) in fields.iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                text.push_str(&format!("{comma}{}:{value}", Value::from(name.as_ref())));
            }
            text.push('}');
            text
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
        let set = read(&fields).unwrap();
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
        assert_eq!(write(&set), fields);
        assert_eq!(read(&json!({})).unwrap(), Set::default());
        assert_eq!(read(&json!({"x:new": {}})).unwrap(), Set::default());
        assert!(read(&json!({"k:[1]": {}})).is_err());
        assert!(read(&json!({"nothing": {}})).is_err());
    }
}
