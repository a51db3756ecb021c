//! Trees of a few of an object's members: what is not asked for is stepped over.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Which members of an object are wanted, by their JSON names. What is said of a list is said
/// of each of its items.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    All,
    Of(&'static [(&'static str, Part)]),
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
        let pod = json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {
                "nodeName": "n",
                "hostNetwork": true,
                "containers": [{"name": "c", "env": [{"name": "A", "value": "1"}]}, {"name": "d"}],
            },
            "status": {"phase": "Running"},
        });
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
