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
            let before = (one, other);
            // Mostly the same fields follow each other in both, and only of those that differ it
            // matters what they are.
            if let (Some((number, a)), Some((its, b))) = (field(&mut one)?, field(&mut other)?)
                && number == its
            {
                if a == b {
                    continue;
                }
                match sought(message, members, number) {
                    Some(sought) if !sought.is_same(a, b)? => return Ok(false),
                    _ => continue,
                }
            }
            (one, other) = before;
            let pair = (
                next(message, members, &mut one)?,
                next(message, members, &mut other)?,
            );
            match pair {
                (Some((number, a, sought)), Some((its, b, _))) if number == its => {
                    if !sought.is_same(a, b)? {
                        return Ok(false);
                    }
                }
                (None, None) => return Ok(true),
                _ => return Ok(false),
            }
        }
    }
}

/// What a field's bytes are.
struct Sought {
    part: Part,
    /// Of which message, if they are one.
    message: Option<&'static Message>,
}

impl Sought {
    fn is_same(&self, one: &[u8], other: &[u8]) -> Result<bool> {
        match self.message {
            _ if one == other => Ok(true),
            Some(message) => self.part.is_same(message, one, other),
            None => Ok(false),
        }
    }
}

/// What the field of this number is, if it is wanted.
fn sought(message: &'static Message, members: Members, number: u32) -> Option<Sought> {
    let field = message.numbered(number)?;
    let part = match field.json {
        // Its members count as the message's own.
        "" => Part::Of(members),
        name => members.iter().find(|(wanted, _)| *wanted == name)?.1,
    };
    let message = match field.ty {
        Type::Message(message) if field.cardinality != Cardinality::Map => Some(message),
        _ => None,
    };
    Some(Sought { part, message })
}

/// The next field: its number and its bytes.
fn field<'a>(reader: &mut Reader<'a>) -> Result<Option<(u32, &'a [u8])>> {
    if reader.done() {
        return Ok(None);
    }
    let (number, wire) = reader.tag()?;
    let bytes = match wire {
        wire::LEN => reader.bytes()?,
        _ => reader.skipped(wire)?,
    };
    Ok(Some((number, bytes)))
}

/// The next field that is wanted.
fn next<'a>(
    message: &'static Message,
    members: Members,
    reader: &mut Reader<'a>,
) -> Result<Option<(u32, &'a [u8], Sought)>> {
    while let Some((number, bytes)) = field(reader)? {
        if let Some(sought) = sought(message, members, number) {
            return Ok(Some((number, bytes, sought)));
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
