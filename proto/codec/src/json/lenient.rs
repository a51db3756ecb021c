//! Reading text into a type as Go's encoding/json does where no schema says how: the case of names
//! does not matter, nulls and unknown members say nothing, a list is no struct.

use std::collections::BTreeMap;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// What the text says, or the default where that is nothing.
pub fn from_text<T: DeserializeOwned + Default>(text: &str) -> Result<T, Error> {
    match serde_json::from_str(text)? {
        Value::Null => Ok(T::default()),
        value => T::deserialize(Lenient(value)),
    }
}

struct Lenient(Value);

impl Lenient {
    fn refused(&self, wanted: &str) -> Error {
        de::Error::custom(format_args!("{} is no {wanted}", self.0))
    }
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let members = match self.0 {
            Value::Object(members) => members,
            Value::Null => Default::default(),
            _ => return Err(self.refused("object")),
        };
        let mut known = BTreeMap::new();
        for (key, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
            if let Some(field) = fields.iter().find(|field| field.eq_ignore_ascii_case(&key)) {
                known.insert(*field, Lenient(value));
            }
        }
        visitor.visit_map(MapDeserializer::new(known.into_iter()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Object(members) = self.0 else {
            return Err(self.refused("object"));
        };
        let members = members
            .into_iter()
            .map(|(key, value)| (key, Lenient(value)));
        visitor.visit_map(MapDeserializer::new(members))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Value::Array(items) = self.0 else {
            return Err(self.refused("list"));
        };
        visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Lenient)))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.0.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Shelf {
        book_count: i32,
        label: Option<String>,
        boards: Vec<Shelf>,
        notes: BTreeMap<String, String>,
    }

    #[test]
    fn what_go_reads() {
        let shelf: Shelf = from_text(
            r#"{"BOOKCOUNT": 2, "label": null, "unknown": [1], "notes": {"A": "a"},
                "boards": [{"Label": "x"}, null]}"#,
        )
        .unwrap();
        assert_eq!(shelf.book_count, 2);
        assert_eq!(shelf.boards[0].label.as_deref(), Some("x"));
        assert_eq!(shelf.boards[1], Shelf::default());
        assert_eq!(shelf.notes["A"], "a");
        assert_eq!(from_text::<Shelf>("null").unwrap(), Shelf::default());
    }

    #[test]
    fn what_go_does_not_read() {
        for text in [
            "",
            "{",
            "{} {}",
            "[]",
            r#"{"bookCount": "2"}"#,
            r#"{"bookCount": 2.5}"#,
            r#"{"boards": {}}"#,
            r#"{"boards": [[1]]}"#,
            r#"{"notes": {"a": 1}}"#,
        ] {
            assert!(from_text::<Shelf>(text).is_err(), "{text}");
        }
    }
}
