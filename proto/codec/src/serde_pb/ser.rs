//! Writing protobuf from a serde type: see [`crate::assemble`] for how fields that come
//! in the type's order end up in gogo-proto's.

use schema::{Cardinality, Message, Special, Type};
use serde::ser::{self, Impossible, Serialize};

use crate::assemble::{self, Assembler, Begun, Finder};
use crate::error::{Error, Result};
use crate::serde_pb::Embedded;
use crate::{MAX_DEPTH, special, wire};

pub fn to_writer<T: Serialize + ?Sized>(
    msg: &'static Message,
    value: &T,
    embedded: Embedded,
    out: &mut Vec<u8>,
) -> Result<()> {
    let start = out.len();
    let mut to = Assembler::new(out);
    to.embedded = embedded;
    let begun = to.begin();
    let object = Object {
        to: &mut to,
        msg,
        finder: Finder::new(msg),
        begun,
        end: End::Root,
        depth: 0,
        key: String::new(),
    };
    let written = value.serialize(Root(object));
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Where a value goes.
struct Place<'x, 'o> {
    to: &'x mut Assembler<'o>,
    number: u32,
    ty: &'static Type,
    /// The message that the field belongs to.
    parent: &'static Message,
    cardinality: Cardinality,
    /// A list's item or a map's value, which is written even when it is nothing.
    item: bool,
    depth: usize,
}

impl Place<'_, '_> {
    fn put<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        if self.depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        match self.ty {
            // A tree holds the text; a type that holds something else has it written.
            Type::Special(Special::FieldsV1) if self.cardinality == Cardinality::One => {
                let mut text = String::new();
                if value.serialize(Key(&mut text)).is_err() {
                    let fields = serde_json::to_value(value).map_err(ser::Error::custom)?;
                    text = special::fields_v1::text(&fields);
                }
                if !text.is_empty() && text != "null" {
                    assemble::put_json(self.number, text.as_bytes(), self.to.out);
                }
                Ok(())
            }
            Type::Special(Special::RawExtension) if self.to.embedded == Embedded::Text => {
                let mut text = String::new();
                if value.serialize(Key(&mut text)).is_err() {
                    // An object that came in its own envelope.
                    text = json_text(value)?;
                }
                if !text.is_empty() {
                    assemble::put_json(self.number, text.as_bytes(), self.to.out);
                }
                Ok(())
            }
            // Any JSON is kept as JSON text.
            Type::Special(s) if special::is_json(*s) && self.cardinality == Cardinality::One => {
                let text = json_text(value)?;
                if text != "null" {
                    assemble::put_json(self.number, text.as_bytes(), self.to.out);
                } else if self.item {
                    assemble::put_zero_value(self.number, self.ty, self.to.out);
                }
                Ok(())
            }
            _ => value.serialize(self),
        }
    }

    fn scalar(&self, found: &str) -> Result<()> {
        if self.cardinality == Cardinality::One {
            return Ok(());
        }
        let prefix = match self.cardinality {
            Cardinality::Map => "map[string]",
            _ => "[]",
        };
        let name = format!("{prefix}{}", assemble::go_name(self.ty));
        Err(Error::mismatch(found, &name))
    }

    fn nothing(self) -> Result<()> {
        if self.item {
            assemble::put_zero_value(self.number, self.ty, self.to.out);
        }
        Ok(())
    }

    fn wrong<T>(&self, found: &str) -> Result<T> {
        self.scalar(found)?;
        Err(Error::mismatch(found, &assemble::go_name(self.ty)))
    }
}

/// As Go's encoding/json writes what it has read into an `any`.
fn json_text<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    let tree = serde_json::to_value(value).map_err(ser::Error::custom)?;
    Ok(crate::json::text(&tree))
}

/// Methods that a serializer has to have and that Kubernetes types never call.
macro_rules! unsupported {
    () => {
        fn serialize_tuple_struct(
            self,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleStruct> {
            Err(ser::Error::custom("tuple structs have no protobuf form"))
        }

        fn serialize_tuple_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleVariant> {
            Err(ser::Error::custom("enums with data have no protobuf form"))
        }

        fn serialize_struct_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeStructVariant> {
            Err(ser::Error::custom("enums with data have no protobuf form"))
        }

        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<()> {
            Err(ser::Error::custom("enums with data have no protobuf form"))
        }
    };
}

macro_rules! ints {
    ($($method:ident: $ty:ty),*) => {$(
        fn $method(self, v: $ty) -> Result<()> {
            self.serialize_i64(i64::from(v))
        }
    )*};
}

impl<'x, 'o> ser::Serializer for Place<'x, 'o> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Sequence<'x, 'o>;
    type SerializeTuple = Sequence<'x, 'o>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Members<'x, 'o>;
    type SerializeStruct = Members<'x, 'o>;
    type SerializeStructVariant = Impossible<(), Error>;

    unsupported!();
    ints!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32);
    ints!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32);

    fn serialize_bool(self, v: bool) -> Result<()> {
        self.scalar("bool")?;
        assemble::put_bool(self.number, self.ty, v, self.to.out)
    }

    fn serialize_i64(self, v: i64) -> Result<()> {
        self.scalar("number")?;
        assemble::put_int(self.number, self.ty, v, self.to.out)
    }

    fn serialize_u64(self, v: u64) -> Result<()> {
        match i64::try_from(v) {
            Ok(v) => self.serialize_i64(v),
            Err(_) => {
                self.scalar("number")?;
                assemble::put_number(self.number, self.ty, &v.to_string(), self.to.out)
            }
        }
    }

    fn serialize_f32(self, v: f32) -> Result<()> {
        self.serialize_f64(f64::from(v))
    }

    fn serialize_f64(self, v: f64) -> Result<()> {
        self.scalar("number")?;
        assemble::put_number(self.number, self.ty, &v.to_string(), self.to.out)
    }

    fn serialize_char(self, v: char) -> Result<()> {
        self.serialize_str(v.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, v: &str) -> Result<()> {
        self.scalar("string")?;
        assemble::put_text(self.number, self.ty, v, self.to.out)
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<()> {
        match (self.ty, self.cardinality) {
            (Type::Bytes | Type::String, Cardinality::One) => {
                wire::put_bytes(self.to.out, self.number, v);
                Ok(())
            }
            _ => self.wrong("string"),
        }
    }

    fn serialize_none(self) -> Result<()> {
        self.nothing()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<()> {
        self.nothing()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        self.nothing()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<()> {
        self.serialize_str(name)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Sequence<'x, 'o>> {
        const STRING: &Type = &Type::String;
        let wrapped = |number, ty: Option<&'static Type>| Some((number, ty));
        let inner = match (self.cardinality, self.ty) {
            (Cardinality::List, _) => None,
            (Cardinality::One, Type::Special(Special::StringList)) => wrapped(1, Some(STRING)),
            (Cardinality::One, Type::Special(Special::JsonSchemaPropsOrStringArray)) => {
                wrapped(2, Some(STRING))
            }
            (Cardinality::One, Type::Special(Special::JsonSchemaPropsOrArray)) => wrapped(2, None),
            // serde's form of bytes for types that do not ask for better.
            (Cardinality::One, Type::Bytes) => return Err(Error::mismatch("array", "[]uint8")),
            _ => return self.wrong("array"),
        };
        let open = inner.map(|_| wire::open(self.to.out, self.number));
        let (number, ty) = inner.unwrap_or((self.number, Some(self.ty)));
        Ok(Sequence {
            to: self.to,
            number,
            ty,
            parent: self.parent,
            open,
            depth: self.depth,
        })
    }

    fn serialize_tuple(self, len: usize) -> Result<Sequence<'x, 'o>> {
        self.serialize_seq(Some(len))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'x, 'o>> {
        let (number, depth) = (self.number, self.depth + 1);
        let schema_in = |number, lead: bool| (self.parent, Some((number, lead)));
        let (msg, inner) = match (self.cardinality, self.ty) {
            (Cardinality::Map, ty) => {
                let begun = self.to.begin_map();
                return Ok(Members::Map(Map {
                    to: self.to,
                    number,
                    ty,
                    parent: self.parent,
                    begun,
                    depth,
                    key: String::new(),
                }));
            }
            (Cardinality::One, Type::Message(msg)) => (*msg, None),
            (Cardinality::One, Type::Special(special)) => match special {
                Special::JsonSchemaPropsOrBool => schema_in(2, true),
                Special::JsonSchemaPropsOrArray | Special::JsonSchemaPropsOrStringArray => {
                    schema_in(1, false)
                }
                _ => return self.wrong("object"),
            },
            _ => return self.wrong("object"),
        };
        let end = match inner {
            None => End::Field(number),
            Some((inner, allows)) => {
                let open = wire::open(self.to.out, number);
                if allows {
                    wire::put_int(self.to.out, 1, 1);
                }
                End::Wrapped { inner, open }
            }
        };
        let begun = self.to.begin();
        Ok(Members::Object(Object {
            to: self.to,
            msg,
            finder: Finder::new(msg),
            begun,
            end,
            depth,
            key: String::new(),
        }))
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Members<'x, 'o>> {
        self.serialize_map(Some(len))
    }
}

pub struct Sequence<'x, 'o> {
    to: &'x mut Assembler<'o>,
    number: u32,
    /// `None` for items that are the schema's own message (`JSONSchemaProps`).
    ty: Option<&'static Type>,
    parent: &'static Message,
    /// The wrapping message, if there is one.
    open: Option<usize>,
    depth: usize,
}

impl ser::SerializeSeq for Sequence<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        let Some(ty) = self.ty else {
            let begun = self.to.begin();
            return value.serialize(Root(Object {
                to: self.to,
                msg: self.parent,
                finder: Finder::new(self.parent),
                begun,
                end: End::Field(self.number),
                depth: self.depth + 1,
                key: String::new(),
            }));
        };
        Place {
            to: self.to,
            number: self.number,
            ty,
            parent: self.parent,
            cardinality: Cardinality::One,
            item: true,
            depth: self.depth,
        }
        .put(value)
    }

    fn end(self) -> Result<()> {
        if let Some(open) = self.open {
            wire::close(self.to.out, open);
        }
        Ok(())
    }
}

impl ser::SerializeTuple for Sequence<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        ser::SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<()> {
        ser::SerializeSeq::end(self)
    }
}

/// What happens to a message when its members are complete.
enum End {
    Root,
    Field(u32),
    /// A field of a wrapping message that is still open.
    Wrapped {
        inner: u32,
        open: usize,
    },
}

/// A message that is being written.
pub struct Object<'x, 'o> {
    to: &'x mut Assembler<'o>,
    msg: &'static Message,
    finder: Finder,
    begun: Begun,
    end: End,
    depth: usize,
    key: String,
}

impl Object<'_, '_> {
    fn member<T: Serialize + ?Sized>(&mut self, json: &str, value: &T) -> Result<()> {
        let Some((field, place)) = self.finder.find(json) else {
            return Ok(());
        };
        if field.number == 0 {
            return Ok(());
        }
        let start = self.to.out.len();
        Place {
            to: self.to,
            number: field.number,
            ty: &field.ty,
            parent: self.msg,
            cardinality: field.cardinality,
            item: false,
            depth: self.depth,
        }
        .put(value)?;
        if self.to.out.len() > start {
            self.to.note(place, start);
        }
        Ok(())
    }

    fn finish(self) {
        match self.end {
            End::Root => self.to.end(self.msg, self.begun),
            End::Field(number) => self.to.end_field(number, self.msg, self.begun),
            End::Wrapped { inner, open } => {
                self.to.end_field(inner, self.msg, self.begun);
                wire::close(self.to.out, open);
            }
        }
    }
}

/// A map that is being written.
pub struct Map<'x, 'o> {
    to: &'x mut Assembler<'o>,
    number: u32,
    ty: &'static Type,
    parent: &'static Message,
    begun: Begun,
    depth: usize,
    key: String,
}

impl Map<'_, '_> {
    fn entry<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<()> {
        let entry = self.to.begin_entry(self.number, key);
        Place {
            to: self.to,
            number: 2,
            ty: self.ty,
            parent: self.parent,
            cardinality: Cardinality::One,
            item: true,
            depth: self.depth,
        }
        .put(value)?;
        self.to.end_entry(entry);
        Ok(())
    }
}

pub enum Members<'x, 'o> {
    Object(Object<'x, 'o>),
    Map(Map<'x, 'o>),
}

impl ser::SerializeMap for Members<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        let buffer = match self {
            Members::Object(object) => &mut object.key,
            Members::Map(map) => &mut map.key,
        };
        buffer.clear();
        key.serialize(Key(buffer))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        match self {
            Members::Object(object) => {
                let key = std::mem::take(&mut object.key);
                let done = object.member(&key, value);
                object.key = key;
                done
            }
            Members::Map(map) => {
                let key = std::mem::take(&mut map.key);
                let done = map.entry(&key, value);
                map.key = key;
                done
            }
        }
    }

    fn end(self) -> Result<()> {
        match self {
            Members::Object(object) => object.finish(),
            Members::Map(map) => map.to.end_map(map.begun),
        }
        Ok(())
    }
}

impl ser::SerializeStruct for Members<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<()> {
        match self {
            Members::Object(object) => object.member(key, value),
            Members::Map(map) => map.entry(key, value),
        }
    }

    fn end(self) -> Result<()> {
        ser::SerializeMap::end(self)
    }
}

/// Accepts nothing but an object.
struct Root<'x, 'o>(Object<'x, 'o>);

macro_rules! no_object {
    ($($method:ident($($ty:ty),*) $word:literal;)*) => {$(
        fn $method(self, $(_: $ty),*) -> Result<()> {
            let name = assemble::go_name(&Type::Message(self.0.msg));
            Err(Error::mismatch($word, &name))
        }
    )*};
}

impl<'x, 'o> ser::Serializer for Root<'x, 'o> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Impossible<(), Error>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Members<'x, 'o>;
    type SerializeStruct = Members<'x, 'o>;
    type SerializeStructVariant = Impossible<(), Error>;

    unsupported!();
    no_object! {
        serialize_bool(bool) "bool";
        serialize_i8(i8) "number";
        serialize_i16(i16) "number";
        serialize_i32(i32) "number";
        serialize_i64(i64) "number";
        serialize_u8(u8) "number";
        serialize_u16(u16) "number";
        serialize_u32(u32) "number";
        serialize_u64(u64) "number";
        serialize_f32(f32) "number";
        serialize_f64(f64) "number";
        serialize_char(char) "string";
        serialize_str(&str) "string";
        serialize_bytes(&[u8]) "string";
        serialize_unit_variant(&'static str, u32, &'static str) "string";
    }

    fn serialize_none(self) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_unit(self) -> Result<()> {
        self.0.finish();
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq> {
        let name = assemble::go_name(&Type::Message(self.0.msg));
        Err(Error::mismatch("array", &name))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple> {
        self.serialize_seq(Some(len))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'x, 'o>> {
        if self.0.depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        Ok(Members::Object(self.0))
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Members<'x, 'o>> {
        self.serialize_map(Some(len))
    }
}

/// Writes a map's key into a buffer.
struct Key<'k>(&'k mut String);

macro_rules! shown_keys {
    ($($method:ident: $ty:ty),*) => {$(
        fn $method(self, v: $ty) -> Result<()> {
            use std::fmt::Write as _;
            let _ = write!(self.0, "{v}");
            Ok(())
        }
    )*};
}

macro_rules! no_keys {
    ($($method:ident($($ty:ty),*) -> $ret:ty;)*) => {$(
        fn $method(self, $(_: $ty),*) -> Result<$ret> {
            Err(ser::Error::custom("map keys are strings"))
        }
    )*};
}

impl ser::Serializer for Key<'_> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Impossible<(), Error>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    shown_keys!(serialize_bool: bool, serialize_char: char);
    shown_keys!(serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64);
    shown_keys!(serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);
    no_keys! {
        serialize_f32(f32) -> ();
        serialize_f64(f64) -> ();
        serialize_bytes(&[u8]) -> ();
        serialize_none() -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, name: &'static str) -> Result<()> {
        self.serialize_str(name)
    }

    fn serialize_str(self, v: &str) -> Result<()> {
        self.0.push_str(v);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<()> {
        Err(ser::Error::custom("map keys are strings"))
    }
}
