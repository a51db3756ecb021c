//! A configuration out of a tree: what upstream's decoder does with it. Fields that do not exist
//! are told and passed over; a value of the wrong type is an error that names its field and the
//! type, in the words of Go's `encoding/json`.

use std::cell::RefCell;
use std::fmt;

use meta::gofmt::Quoted;
use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

/// Why a tree is no configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct DecodeError(String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The value, and what strict decoding has against it: `unknown field "a.b"`. A null is as if it
/// were not written.
///
/// # Errors
/// For a value of the wrong type.
pub fn decode<T: DeserializeOwned>(tree: &Value) -> Result<(T, Vec<String>), DecodeError> {
    let unknown = RefCell::default();
    let root = Node {
        value: tree,
        path: String::new(),
        unknown: &unknown,
    };
    let decoded = T::deserialize(root)?;
    Ok((decoded, unknown.into_inner()))
}

/// A value, and where it stands.
struct Node<'a> {
    value: &'a Value,
    path: String,
    unknown: &'a RefCell<Vec<String>>,
}

impl<'a> Node<'a> {
    fn below(&self, name: &str, value: &'a Value) -> Self {
        let separator = if self.path.is_empty() { "" } else { "." };
        Self {
            value,
            path: format!("{}{separator}{name}", self.path),
            unknown: self.unknown,
        }
    }

    fn at(&self, index: usize, value: &'a Value) -> Self {
        Self {
            value,
            path: format!("{}[{index}]", self.path),
            unknown: self.unknown,
        }
    }

    fn mismatch(&self, go_type: &str) -> DecodeError {
        let found = match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(_) if matches!(go_type, "string" | "bool") => "number".to_owned(),
            Value::Number(number) => format!("number {number}"),
            Value::String(_) => "string".to_owned(),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        DecodeError(format!(
            "json: cannot unmarshal {found} into Go struct field KubeletConfiguration.{} of type {go_type}",
            self.path
        ))
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $read:ident $type:ty, $go:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let number = self.value.$read().and_then(|n| <$type>::try_from(n).ok());
            visitor.$visit(number.ok_or_else(|| self.mismatch($go))?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = DecodeError;

    numbers! {
        deserialize_i32 visit_i32 as_i64 i32, "int32";
        deserialize_i64 visit_i64 as_i64 i64, "int64";
        deserialize_u32 visit_u32 as_u64 u32, "uint32";
        deserialize_f64 visit_f64 as_f64 f64, "float64";
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let value = self.value.as_bool();
        visitor.visit_bool(value.ok_or_else(|| self.mismatch("bool"))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let value = self.value.as_str();
        visitor.visit_borrowed_str(value.ok_or_else(|| self.mismatch("string"))?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value {
            // A plain number is a quantity.
            Value::Number(number) if name == "Quantity" => {
                visitor.visit_newtype_struct(StringDeserializer::new(number.to_string()))
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let items = self.value.as_array();
        let items = items.ok_or_else(|| self.mismatch("slice"))?.iter();
        visitor.visit_seq(Items {
            list: &self,
            items: items.enumerate(),
        })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let object = self.value.as_object();
        let object = object.ok_or_else(|| self.mismatch("map[string]string"))?;
        visitor.visit_map(Fields::new(&self, object))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let object = self.value.as_object();
        let object = object.ok_or_else(|| self.mismatch("struct"))?;
        for name in object
            .keys()
            .filter(|name| !fields.contains(&name.as_str()))
        {
            let path = self.below(name, self.value).path;
            let message = format!("unknown field {}", Quoted(&path));
            self.unknown.borrow_mut().push(message);
        }
        visitor.visit_map(Fields::new(&self, object))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let value = self.value;
        value
            .deserialize_any(visitor)
            .map_err(|error| DecodeError(format!("{}: {error}", self.path)))
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u64 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct
        enum identifier ignored_any
    }
}

struct Items<'a, 'de> {
    list: &'a Node<'de>,
    items: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let next = self.items.next();
        next.map(|(index, value)| seed.deserialize(self.list.at(index, value)))
            .transpose()
    }
}

struct Fields<'a, 'de> {
    object: &'a Node<'de>,
    fields: serde_json::map::Iter<'de>,
    value: Option<Node<'de>>,
}

impl<'a, 'de> Fields<'a, 'de> {
    fn new(object: &'a Node<'de>, fields: &'de Map<String, Value>) -> Self {
        Self {
            object,
            fields: fields.iter(),
            value: None,
        }
    }
}

impl<'de> MapAccess<'de> for Fields<'_, 'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        let next = self.fields.by_ref().find(|(_, value)| !value.is_null());
        let Some((name, value)) = next else {
            return Ok(None);
        };
        self.value = Some(self.object.below(name, value));
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        match self.value.take() {
            Some(value) => seed.deserialize(value),
            None => Err(DecodeError("a value was asked for before its key".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::KubeletConfiguration;
    use super::*;

    #[test]
    fn what_does_not_exist_is_told() {
        let tree = json!({
            "noSuchField": 1,
            "maxPods": 7,
            "evictionHard": null,
            "systemReserved": {"anything": "1"},
            "authentication": {"x509": {"caFile": "x"}},
            "registerWithTaints": [{"key": "a", "effect": "NoSchedule", "colour": 1}],
            "reservedMemory": [{"numaNode": 0, "limits": {"memory": 1024}}],
            "logging": {"verbosity": 3, "flushFrequency": 5_000_000_000_u64},
        });
        let (config, mut unknown) = decode::<KubeletConfiguration>(&tree).unwrap();
        unknown.sort();
        let expected = [
            r#"unknown field "authentication.x509.caFile""#,
            r#"unknown field "noSuchField""#,
            r#"unknown field "registerWithTaints[0].colour""#,
        ];
        assert_eq!(unknown, expected);
        assert_eq!((config.max_pods, config.logging.verbosity), (7, 3));
        assert_eq!(config.logging.flush_frequency.to_string(), "5s");
        assert_eq!(config.reserved_memory[0].limits["memory"].0, "1024");
        assert!(config.eviction_hard.is_none());
    }

    #[test]
    fn wrong_types_are_named() {
        for (tree, message) in [
            (
                json!({"maxPods": "5"}),
                "cannot unmarshal string into Go struct field KubeletConfiguration.maxPods of type int32",
            ),
            (
                json!({"port": 1.5}),
                "cannot unmarshal number 1.5 into Go struct field KubeletConfiguration.port of type int32",
            ),
            (
                json!({"systemReserved": {"cpu": 1}}),
                "cannot unmarshal number into Go struct field KubeletConfiguration.systemReserved.cpu of type string",
            ),
            (
                json!({"failSwapOn": "maybe"}),
                "cannot unmarshal string into Go struct field KubeletConfiguration.failSwapOn of type bool",
            ),
            (
                json!({"evictionHard": "foo"}),
                "cannot unmarshal string into Go struct field KubeletConfiguration.evictionHard of type map[string]string",
            ),
            (json!({"syncFrequency": "x"}), "invalid duration"),
        ] {
            let error = decode::<KubeletConfiguration>(&tree).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
