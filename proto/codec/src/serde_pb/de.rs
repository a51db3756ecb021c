//! Reading protobuf into a serde type, which sees what it would see in the JSON of the
//! same object. Strings are borrowed from the message; nothing is allocated for fields
//! that the type does not ask for.

use schema::{Cardinality, Field, Message, Omit, Special, Type};
use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use crate::error::{Error, Result};
use crate::index::{self, Each, Raw, Slot};
use crate::special::{self, Plain};
use crate::{MAX_DEPTH, decode, envelope, json, transcode};

pub fn from_slice<'de, S: DeserializeSeed<'de>>(
    msg: &'static Message,
    raw: &'de [u8],
    seed: S,
    type_meta: Option<(&'de str, &'de str)>,
    embedded: Embedded,
) -> Result<S::Value> {
    let mut slots = Slots {
        stack: Vec::with_capacity(128),
        embedded,
    };
    seed.deserialize(Root {
        msg,
        raw,
        type_meta,
        slots: &mut slots,
        depth: 0,
    })
}

/// How the JSON that messages hold as text (field sets, raw extensions) is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Embedded {
    Json,
    Text,
}

struct Slots {
    /// Slots of the messages that are being read, one on top of the other.
    stack: Vec<Slot>,
    embedded: Embedded,
}

struct Root<'x, 'de> {
    msg: &'static Message,
    raw: &'de [u8],
    type_meta: Option<(&'de str, &'de str)>,
    slots: &'x mut Slots,
    depth: usize,
}

impl<'de> Deserializer<'de> for Root<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let mut members = Members::new(self.msg, self.raw, self.slots, self.depth)?;
        members.type_meta = self.type_meta;
        visitor.visit_map(members)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// One message in a chain of inlined ones.
#[derive(Clone, Copy)]
struct Frame<'de> {
    msg: &'static Message,
    raw: &'de [u8],
    base: usize,
    next: usize,
}

/// The members of an object.
struct Members<'x, 'de> {
    slots: &'x mut Slots,
    frames: [Option<Frame<'de>>; 4],
    type_meta: Option<(&'de str, &'de str)>,
    value: Pending<'de>,
    depth: usize,
}

enum Pending<'de> {
    None,
    Text(&'de str),
    Field(&'static Field, &'static Message, &'de [u8], Slot),
}

impl<'x, 'de> Members<'x, 'de> {
    fn new(
        msg: &'static Message,
        raw: &'de [u8],
        slots: &'x mut Slots,
        depth: usize,
    ) -> Result<Self> {
        let mut members = Members {
            slots,
            frames: [None; 4],
            type_meta: None,
            value: Pending::None,
            depth,
        };
        members.enter(0, msg, raw)?;
        Ok(members)
    }

    fn enter(&mut self, level: usize, msg: &'static Message, raw: &'de [u8]) -> Result<()> {
        if self.depth > MAX_DEPTH || level >= self.frames.len() {
            return Err(Error::TooDeep);
        }
        let base = self.slots.stack.len();
        index::scan(msg, raw, &mut self.slots.stack)?;
        self.frames[level] = Some(Frame {
            msg,
            raw,
            base,
            next: 0,
        });
        Ok(())
    }

    fn next_field(&mut self) -> Result<Option<&'static Field>> {
        loop {
            let Some(level) = self.frames.iter().rposition(Option::is_some) else {
                return Ok(None);
            };
            let Some(frame) = &mut self.frames[level] else {
                return Ok(None);
            };
            let (msg, raw) = (frame.msg, frame.raw);
            let Some(field) = msg.fields.get(frame.next) else {
                self.slots.stack.truncate(frame.base);
                self.frames[level] = None;
                continue;
            };
            let slot = self.slots.stack[frame.base + frame.next];
            frame.next += 1;
            if field.number == 0 {
                continue;
            }
            if field.json.is_empty() {
                if let Type::Message(inlined) = &field.ty
                    && (slot.present() || !field.pointer)
                {
                    self.enter(level + 1, inlined, single(field, raw, slot)?.bytes())?;
                }
                continue;
            }
            if shown(field, raw, slot)? {
                self.value = Pending::Field(field, msg, raw, slot);
                return Ok(Some(field));
            }
        }
    }
}

/// A singular field's value; nothing stands for the zero value.
fn single<'de>(field: &Field, raw: &'de [u8], slot: Slot) -> Result<Raw<'de>> {
    if !slot.present() {
        return Ok(match index::wire_type(&field.ty) {
            crate::wire::VARINT => Raw::Int(0),
            crate::wire::FIXED64 => Raw::Fixed(0),
            _ => Raw::Bytes(&[]),
        });
    }
    if slot.count > 1 && matches!(field.ty, Type::Message(_)) {
        // Legal, but no Kubernetes encoder splits a message, and what is borrowed
        // from the input cannot be put together.
        return Err(Error::value(format!(
            "proto: field {} occurs more than once",
            field.json
        )));
    }
    Ok(index::last(field, raw, slot))
}

/// Whether JSON has the field, and not as `null`.
fn shown(field: &'static Field, raw: &[u8], slot: Slot) -> Result<bool> {
    if field.cardinality != Cardinality::One {
        return Ok(slot.present());
    }
    if !slot.present() {
        if field.pointer || field.omit == Omit::Zero {
            return Ok(false);
        }
        return Ok(match &field.ty {
            Type::Message(_) => true,
            Type::Bytes => false,
            Type::Special(special) => !is_null(*special, &[])?,
            _ => field.omit == Omit::Never,
        });
    }
    Ok(match &field.ty {
        Type::Message(msg) if field.omit == Omit::Zero && !field.pointer => {
            !index::is_zero(msg, single(field, raw, slot)?.bytes(), 0)?
        }
        Type::Message(_) => true,
        ty => {
            let value = index::last(field, raw, slot);
            let null = match (ty, value) {
                (Type::Special(special), Raw::Bytes(raw)) => is_null(*special, raw)?,
                _ => false,
            };
            // Empty bytes are left out of JSON, but they are not the same as none.
            !null && (matches!(field.ty, Type::Bytes) || !transcode::omitted(field, value)?)
        }
    })
}

/// Whether the value is `null` in JSON.
fn is_null(special: Special, raw: &[u8]) -> Result<bool> {
    Ok(match special {
        Special::Time | Special::MicroTime => {
            special::time::Instant::decode(raw, special == Special::MicroTime)?.is_none()
        }
        Special::RawExtension
        | Special::FieldsV1
        | Special::Json
        | Special::JsonSchemaPropsOrArray
        | Special::JsonSchemaPropsOrStringArray => {
            raw.is_empty() || matches!(special::read(special, raw)?, Plain::Null)
        }
        _ => false,
    })
}

impl<'de> MapAccess<'de> for Members<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        if let Some((api_version, kind)) = self.type_meta {
            let (name, text) = match api_version {
                "" => ("kind", kind),
                _ => ("apiVersion", api_version),
            };
            self.type_meta = match name {
                "apiVersion" if !kind.is_empty() => Some(("", kind)),
                _ => None,
            };
            if !text.is_empty() {
                self.value = Pending::Text(text);
                return seed
                    .deserialize(BorrowedStrDeserializer::new(name))
                    .map(Some);
            }
        }
        match self.next_field()? {
            Some(field) => seed
                .deserialize(BorrowedStrDeserializer::new(field.json))
                .map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        match std::mem::replace(&mut self.value, Pending::None) {
            Pending::None => Err(de::Error::custom("value asked for before its key")),
            Pending::Text(text) => seed.deserialize(BorrowedStrDeserializer::new(text)),
            Pending::Field(field, parent, raw, slot) => {
                let place = Place {
                    ty: &field.ty,
                    parent,
                    slots: self.slots,
                    depth: self.depth + 1,
                };
                match field.cardinality {
                    Cardinality::One => {
                        let raw = single(field, raw, slot)?;
                        seed.deserialize(Value { place, raw })
                    }
                    Cardinality::List => seed.deserialize(Many {
                        place,
                        values: index::each(field, raw, slot),
                        map: false,
                    }),
                    Cardinality::Map => seed.deserialize(Many {
                        place,
                        values: index::each(field, raw, slot),
                        map: true,
                    }),
                }
            }
        }
    }
}

/// What a value is, and what reading it needs.
struct Place<'x> {
    ty: &'static Type,
    parent: &'static Message,
    slots: &'x mut Slots,
    depth: usize,
}

impl Place<'_> {
    fn again(&mut self) -> Place<'_> {
        Place {
            ty: self.ty,
            parent: self.parent,
            slots: self.slots,
            depth: self.depth,
        }
    }
}

/// A list or a map.
struct Many<'x, 'de> {
    place: Place<'x>,
    values: Each<'de>,
    map: bool,
}

impl<'de> Deserializer<'de> for Many<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.map {
            visitor.visit_map(Entries {
                place: self.place,
                values: self.values,
                value: None,
            })
        } else {
            visitor.visit_seq(Items {
                place: self.place,
                values: self.values,
            })
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier
    }
}

struct Items<'x, 'de> {
    place: Place<'x>,
    values: Each<'de>,
}

impl<'de> de::SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some(raw) = self.values.next().transpose()? else {
            return Ok(None);
        };
        let place = self.place.again();
        seed.deserialize(Value { place, raw }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        self.values.len_hint()
    }
}

struct Entries<'x, 'de> {
    place: Place<'x>,
    values: Each<'de>,
    value: Option<Raw<'de>>,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some(raw) = self.values.next().transpose()? else {
            return Ok(None);
        };
        let (key, value) = index::entry(self.place.ty, raw.bytes())?;
        let zero = || match index::wire_type(self.place.ty) {
            crate::wire::VARINT => Raw::Int(0),
            crate::wire::FIXED64 => Raw::Fixed(0),
            _ => Raw::Bytes(&[]),
        };
        self.value = Some(value.unwrap_or_else(zero));
        match std::str::from_utf8(key) {
            Ok(key) => seed.deserialize(BorrowedStrDeserializer::new(key)),
            Err(_) => {
                let key = String::from_utf8_lossy(key);
                let key: StrDeserializer<Error> = (&*key).into_deserializer();
                seed.deserialize(key)
            }
        }
        .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        let raw = self
            .value
            .take()
            .ok_or_else(|| <Error as de::Error>::custom("value asked for before its key"))?;
        let place = self.place.again();
        seed.deserialize(Value { place, raw })
    }

    fn size_hint(&self) -> Option<usize> {
        self.values.len_hint()
    }
}

/// A single value.
struct Value<'x, 'de> {
    place: Place<'x>,
    raw: Raw<'de>,
}

fn visit_text<'de, V: Visitor<'de>>(bytes: &'de [u8], visitor: V) -> Result<V::Value> {
    match std::str::from_utf8(bytes) {
        Ok(text) => visitor.visit_borrowed_str(text),
        Err(_) => visitor.visit_str(&String::from_utf8_lossy(bytes)),
    }
}

impl<'x, 'de> Value<'x, 'de> {
    /// The JSON text of a value that may be any JSON.
    fn json(&self) -> Result<Option<&'de [u8]>> {
        match (self.place.ty, self.raw) {
            (Type::Special(special), Raw::Bytes(raw)) if special::is_json(*special) => {
                match special::read(*special, raw)? {
                    Plain::Json(json) => Ok(Some(json)),
                    _ => Ok(Some(b"null")),
                }
            }
            _ => Ok(None),
        }
    }

    fn special<V: Visitor<'de>>(
        self,
        special: Special,
        raw: &'de [u8],
        visitor: V,
    ) -> Result<V::Value> {
        let (parent, slots, depth) = (self.place.parent, self.place.slots, self.place.depth);
        match special::read(special, raw)? {
            Plain::Null => visitor.visit_unit(),
            Plain::Bool(v) => visitor.visit_bool(v),
            Plain::Int(v) => visitor.visit_i64(v),
            Plain::Text(std::borrow::Cow::Borrowed(v)) => visitor.visit_borrowed_str(v),
            Plain::Text(std::borrow::Cow::Owned(v)) => visitor.visit_string(v),
            Plain::Time(v) => visitor.visit_str(v.as_str()),
            Plain::Json(json)
                if slots.embedded == Embedded::Text
                    && matches!(special, Special::FieldsV1 | Special::RawExtension)
                    && !envelope::is_enveloped(json) =>
            {
                visit_text(json, visitor)
            }
            Plain::Json(json) if envelope::is_enveloped(json) => {
                let unknown = envelope::decode(json)?;
                let msg = crate::message_of(unknown.api_version, unknown.kind)?;
                let mut members = Members::new(msg, unknown.raw, slots, depth + 1)?;
                members.type_meta = Some((unknown.api_version, unknown.kind));
                visitor.visit_map(members)
            }
            // serde_json reads no deeper than this.
            Plain::Json(json) if json::nests(json, 128) => decode::untyped(json)?
                .deserialize_any(visitor)
                .map_err(de::Error::custom),
            Plain::Json(json) => serde_json::Deserializer::from_slice(json)
                .deserialize_any(visitor)
                .map_err(de::Error::custom),
            Plain::Schema(raw) => visitor.visit_map(Members::new(parent, raw, slots, depth)?),
            Plain::Schemas(raw, number) => visitor.visit_seq(Wrapped {
                place: Place {
                    ty: self.place.ty,
                    parent,
                    slots,
                    depth,
                },
                values: special::repeated(raw, number),
                schemas: true,
            }),
            Plain::Texts(raw, number) => visitor.visit_seq(Wrapped {
                place: Place {
                    ty: self.place.ty,
                    parent,
                    slots,
                    depth,
                },
                values: special::repeated(raw, number),
                schemas: false,
            }),
        }
    }
}

impl<'de> Deserializer<'de> for Value<'_, 'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match (self.place.ty, self.raw) {
            (Type::Bool, Raw::Int(v)) => visitor.visit_bool(v != 0),
            (Type::Int32, Raw::Int(v)) => visitor.visit_i64(i64::from(v as i32)),
            (_, Raw::Int(v)) => visitor.visit_i64(v as i64),
            (_, Raw::Fixed(v)) => visitor.visit_f64(f64::from_bits(v)),
            (Type::Bytes, Raw::Bytes(v)) => {
                use base64::Engine as _;
                visitor.visit_string(base64::engine::general_purpose::STANDARD.encode(v))
            }
            (Type::Message(msg), Raw::Bytes(v)) => {
                visitor.visit_map(Members::new(msg, v, self.place.slots, self.place.depth)?)
            }
            (Type::Special(special), Raw::Bytes(v)) => self.special(*special, v, visitor),
            (_, Raw::Bytes(v)) => visit_text(v, visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match (self.place.ty, self.raw) {
            (Type::Bytes | Type::String, Raw::Bytes(v)) => visitor.visit_borrowed_bytes(v),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if let Some(b"null") = self.json()? {
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        match self.json()? {
            // How serde_json asks for text that is not to be parsed.
            Some(json) if name == "$serde_json::private::RawValue" => {
                serde_json::Deserializer::from_slice(json)
                    .deserialize_newtype_struct(name, visitor)
                    .map_err(de::Error::custom)
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        match (self.place.ty, self.raw) {
            (Type::String, Raw::Bytes(v)) => {
                let text = String::from_utf8_lossy(v);
                let text: StrDeserializer<Error> = (&*text).into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string unit unit_struct seq
        tuple tuple_struct map struct identifier
    }
}

/// The items of a special type that wraps a list in a message.
struct Wrapped<'x, I> {
    place: Place<'x>,
    values: I,
    schemas: bool,
}

impl<'de, I: Iterator<Item = Result<&'de [u8]>>> de::SeqAccess<'de> for Wrapped<'_, I> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        const STRING: &Type = &Type::String;
        let Some(raw) = self.values.next().transpose()? else {
            return Ok(None);
        };
        if self.schemas {
            return seed
                .deserialize(Root {
                    msg: self.place.parent,
                    raw,
                    type_meta: None,
                    slots: self.place.slots,
                    depth: self.place.depth,
                })
                .map(Some);
        }
        let mut place = self.place.again();
        place.ty = STRING;
        let raw = Raw::Bytes(raw);
        seed.deserialize(Value { place, raw }).map(Some)
    }
}
