//! Trees of a few of an object's members: what is not asked for is stepped over.

use std::fmt;

use schema::{Cardinality, Message, Type};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::wire::{self, Reader};

/// Which members of an object are wanted, by their JSON names. What is said of a list is said
/// of each of its items.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    All,
    Of(&'static [(&'static str, Part)]),
}

impl Part {
    /// Whether two messages have the same bytes wherever this part reads them: reading both
    /// would make the same tree.
    ///
    /// # Errors
    /// One of them is no such message.
    pub fn is_same(self, message: &'static Message, one: &[u8], other: &[u8]) -> Result<bool> {
        let Part::Of(members) = self else {
            return Ok(one == other);
        };
        let (mut one, mut other) = (Reader::new(one), Reader::new(other));
        loop {
            let pair = (
                next(message, members, &mut one)?,
                next(message, members, &mut other)?,
            );
            let (Some(a), Some(b)) = pair else {
                return Ok(pair.0.is_none() && pair.1.is_none());
            };
            if a.number != b.number {
                return Ok(false);
            }
            let same = a.bytes == b.bytes
                || match a.message {
                    Some(inner) => a.part.is_same(inner, a.bytes, b.bytes)?,
                    None => false,
                };
            if !same {
                return Ok(false);
            }
        }
    }
}

/// A member as it is on the wire.
struct Member<'a> {
    number: u32,
    bytes: &'a [u8],
    part: Part,
    /// What the bytes are, if they are a message.
    message: Option<&'static Message>,
}

/// The next member that is wanted.
fn next<'a>(
    message: &'static Message,
    members: Members,
    reader: &mut Reader<'a>,
) -> Result<Option<Member<'a>>> {
    while !reader.done() {
        let (number, wire) = reader.tag()?;
        let wanted = message.numbered(number).and_then(|field| {
            if field.json.is_empty() {
                // Its members count as the message's own.
                return Some((field, Part::Of(members)));
            }
            let (_, part) = members.iter().find(|(name, _)| *name == field.json)?;
            Some((field, *part))
        });
        let bytes = if wire == wire::LEN {
            reader.bytes()?
        } else {
            reader.skipped(wire)?
        };
        if let Some((field, part)) = wanted {
            let message = match field.ty {
                Type::Message(message) if field.cardinality != Cardinality::Map => Some(message),
                _ => None,
            };
            return Ok(Some(Member {
                number,
                bytes,
                part,
                message,
            }));
        }
    }
    Ok(None)
}

impl<'de> DeserializeSeed<'de> for Part {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Part::All => Value::deserialize(deserializer),
            Part::Of(members) => deserializer.deserialize_any(Wanted(members)),
        }
    }
}

type Members = &'static [(&'static str, Part)];

struct Wanted(Members);

impl<'de> Visitor<'de> for Wanted {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(wanted) = map.next_key_seed(Name(self.0))? {
            match wanted {
                Some((name, part)) => {
                    members.insert(name.to_owned(), map.next_value_seed(part)?);
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Value::Object(members))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Part::Of(self.0))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

/// Finds a member's name among those that are wanted.
struct Name(Members);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<(&'static str, Part)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<(&'static str, Part)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(wanted, _)| *wanted == name).copied())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {
                "nodeName": "n",
                "hostNetwork": true,
                "containers": [{"name": "c", "env": [{"name": "A", "value": "1"}]}, {"name": "d"}],
                "volumes": [{"name": "v", "hostPath": {"path": "/a"}}],
            },
            "status": {"phase": "Running"},
        })
    }

    #[test]
    fn parts_are_the_same_while_what_they_read_is() {
        const PART: Part = Part::Of(&[
            ("metadata", Part::Of(&[("name", Part::All)])),
            (
                "spec",
                Part::Of(&[
                    ("nodeName", Part::All),
                    ("hostNetwork", Part::All),
                    ("containers", Part::Of(&[("env", Part::All)])),
                    ("volumes", Part::Of(&[("hostPath", Part::All)])),
                ]),
            ),
        ]);
        let message = schema::kind("", "v1", "Pod").unwrap();
        let pod = pod();
        let same = |pointer: &str, value: Value| {
            let mut other = pod.clone();
            *other.pointer_mut(pointer).unwrap() = value;
            let raw = |pod| crate::serde_pb::to_vec(message, pod).unwrap();
            PART.is_same(message, &raw(&pod), &raw(&other)).unwrap()
        };
        assert!(same("/metadata/uid", json!("other")));
        assert!(same("/status", json!({"phase": "Failed"})));
        assert!(same("/spec/containers/0/name", json!("d")));
        assert!(same("/spec/volumes/0/name", json!("w")));
        assert!(!same("/metadata/name", json!("q")));
        assert!(!same("/spec/nodeName", json!("m")));
        assert!(!same("/spec/hostNetwork", json!(false)));
        assert!(!same("/spec/containers/0/env", json!([])));
        assert!(!same("/spec/containers", json!([{}, {}])));
        assert!(!same("/spec/volumes/0/hostPath/path", json!("/b")));
    }

    #[test]
    fn only_what_is_asked_for_is_read() {
        const ENV: Part = Part::Of(&[("env", Part::All)]);
        const WANTED: Part = Part::Of(&[
            ("metadata", Part::Of(&[("name", Part::All)])),
            (
                "spec",
                Part::Of(&[("containers", ENV), ("nodeName", Part::All)]),
            ),
        ]);
        let message = schema::kind("", "v1", "Pod").unwrap();
        let pod = pod();
        let raw = crate::serde_pb::to_vec(message, &pod).unwrap();
        assert_eq!(
            crate::serde_pb::part_from_slice(message, &raw, WANTED).unwrap(),
            json!({
                "metadata": {"name": "p"},
                "spec": {
                    "nodeName": "n",
                    "containers": [{"env": [{"name": "A", "value": "1"}]}, {}],
                },
            })
        );
    }
}
