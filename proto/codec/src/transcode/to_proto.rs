//! JSON to protobuf, reading the text once. What is written is what gogo-proto writes
//! for the struct that upstream decodes from the same text: unknown fields are passed
//! over, `null` is no value.

use schema::{Cardinality, Field, Message, Special, Type};

use crate::assemble::{self, Assembler, Begun, Finder, Place};
use crate::error::{Error, Result};
use crate::json::read::{Kind, Reader};
use crate::{decode, tree, wire};

/// Writes JSON text as the message's protobuf, without an envelope. The kind and the API
/// version of the top level are passed over; they belong into the envelope.
///
/// Objects in which a member occurs twice take the detour over a tree, because Go merges
/// such members.
pub fn json_to_proto(msg: &'static Message, json: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let mut writer = Writer {
        json: Reader::new(json),
        to: Assembler::new(out),
        twice: false,
    };
    let begun = writer.to.begin();
    match writer.json.peek()? {
        Kind::Object => writer.members(msg, begun)?,
        Kind::Null => writer.json.null()?,
        other => {
            let name = assemble::go_name(&Type::Message(msg));
            return Err(Error::mismatch(other.word(), &name));
        }
    }
    writer.json.end()?;
    writer.to.end(msg, begun);
    if writer.twice {
        out.truncate(start);
        let decoded = decode::json(msg, json, decode::Strictness::Ignore)?;
        return tree::to_proto(msg, &decoded.value, out);
    }
    Ok(())
}

struct Writer<'a, 'o> {
    json: Reader<'a>,
    to: Assembler<'o>,
    twice: bool,
}

impl Writer<'_, '_> {
    fn members(&mut self, msg: &'static Message, begun: Begun) -> Result<()> {
        self.json.object()?;
        let mut finder = Finder::new(msg);
        let mut first = true;
        while let Some(key) = self.json.key(&mut first)? {
            match finder.find(&key) {
                Some((field, place)) if field.number != 0 => {
                    self.twice |= self.to.has(begun, place);
                    self.field(field, msg, place)?;
                }
                Some((field, _)) => self.ignored(field)?,
                None => self.json.skip()?,
            }
        }
        Ok(())
    }

    /// A field that protobuf does not carry still has to be of its type.
    fn ignored(&mut self, field: &'static Field) -> Result<()> {
        match (&field.ty, self.json.peek()?) {
            (Type::String, Kind::String | Kind::Null) => self.json.skip(),
            (Type::String, other) => Err(Error::mismatch(other.word(), "string")),
            _ => self.json.skip(),
        }
    }

    fn field(
        &mut self,
        field: &'static Field,
        parent: &'static Message,
        place: Place,
    ) -> Result<()> {
        if self.json.peek()? == Kind::Null {
            return self.json.null();
        }
        let start = self.to.out.len();
        match field.cardinality {
            Cardinality::One => self.value(field.number, &field.ty, parent)?,
            Cardinality::List => {
                let kind = self.json.peek()?;
                if kind != Kind::Array {
                    let name = format!("[]{}", assemble::go_name(&field.ty));
                    return Err(Error::mismatch(kind.word(), &name));
                }
                self.json.array()?;
                let mut first = true;
                while self.json.element(&mut first)? {
                    self.item(field.number, &field.ty, parent)?;
                }
            }
            Cardinality::Map => {
                let kind = self.json.peek()?;
                if kind != Kind::Object {
                    let name = format!("map[string]{}", assemble::go_name(&field.ty));
                    return Err(Error::mismatch(kind.word(), &name));
                }
                self.json.object()?;
                let begun = self.to.begin_map();
                let mut first = true;
                while let Some(key) = self.json.key(&mut first)? {
                    let entry = self.to.begin_entry(field.number, &key);
                    self.item(2, &field.ty, parent)?;
                    self.to.end_entry(entry);
                }
                self.to.end_map(begun);
            }
        }
        self.to.note(place, start);
        Ok(())
    }

    /// A list's item or a map's value, where `null` is the zero value.
    fn item(&mut self, number: u32, ty: &'static Type, parent: &'static Message) -> Result<()> {
        if self.json.peek()? == Kind::Null {
            assemble::put_zero_value(number, ty, self.to.out);
            return self.json.null();
        }
        self.value(number, ty, parent)
    }

    fn value(&mut self, number: u32, ty: &'static Type, parent: &'static Message) -> Result<()> {
        if let Type::Special(special) = ty
            && crate::special::is_json(*special)
        {
            assemble::put_json(number, self.json.raw()?, self.to.out);
            return Ok(());
        }
        match (ty, self.json.peek()?) {
            (_, Kind::Null) => self.json.null(),
            (_, Kind::Bool) => {
                let v = self.json.bool()?;
                assemble::put_bool(number, ty, v, self.to.out)
            }
            (_, Kind::Number) => {
                let text = self.json.number()?;
                assemble::put_number(number, ty, text, self.to.out)
            }
            (_, Kind::String) => {
                let text = self.json.string()?;
                assemble::put_text(number, ty, &text, self.to.out)
            }
            (Type::Message(msg), Kind::Object) => {
                let begun = self.to.begin();
                self.members(msg, begun)?;
                self.to.end_field(number, msg, begun);
                Ok(())
            }
            (Type::Bytes, Kind::Array) => {
                let start = wire::open(self.to.out, number);
                self.elements(|w| {
                    let byte = w.byte()?;
                    w.to.out.push(byte);
                    Ok(())
                })?;
                wire::close(self.to.out, start);
                Ok(())
            }
            (Type::Special(special), kind @ (Kind::Object | Kind::Array)) => {
                self.special(number, *special, parent, kind)
            }
            (ty, kind) => Err(Error::mismatch(kind.word(), &assemble::go_name(ty))),
        }
    }

    /// An element of bytes that are written as an array of numbers.
    fn byte(&mut self) -> Result<u8> {
        match self.json.peek()? {
            Kind::Null => self.json.null().map(|()| 0),
            Kind::Number => {
                let text = self.json.number()?;
                let wrong = |_| Error::mismatch(&format!("number {text}"), "uint8");
                text.parse().map_err(wrong)
            }
            other => Err(Error::mismatch(other.word(), "uint8")),
        }
    }

    /// The special types that are objects or arrays in JSON.
    fn special(
        &mut self,
        number: u32,
        special: Special,
        parent: &'static Message,
        kind: Kind,
    ) -> Result<()> {
        let start = wire::open(self.to.out, number);
        match (special, kind) {
            (Special::JsonSchemaPropsOrBool, Kind::Object) => {
                wire::put_int(self.to.out, 1, 1);
                self.schema(2, parent)?;
            }
            (
                Special::JsonSchemaPropsOrArray | Special::JsonSchemaPropsOrStringArray,
                Kind::Object,
            ) => self.schema(1, parent)?,
            (Special::JsonSchemaPropsOrArray, Kind::Array) => {
                self.elements(|w| match w.json.peek()? {
                    Kind::Null => {
                        let start = wire::open(w.to.out, 2);
                        assemble::put_zero_message(parent, w.to.out);
                        wire::close(w.to.out, start);
                        w.json.null()
                    }
                    Kind::Object => w.schema(2, parent),
                    other => Err(Error::mismatch(other.word(), "v1.JSONSchemaProps")),
                })?;
            }
            (Special::JsonSchemaPropsOrStringArray, Kind::Array) => self.texts(2)?,
            (Special::StringList, Kind::Array) => self.texts(1)?,
            (special, kind) => {
                return Err(Error::mismatch(
                    kind.word(),
                    crate::special::go_name(special),
                ));
            }
        }
        wire::close(self.to.out, start);
        Ok(())
    }

    fn schema(&mut self, number: u32, msg: &'static Message) -> Result<()> {
        let begun = self.to.begin();
        self.members(msg, begun)?;
        self.to.end_field(number, msg, begun);
        Ok(())
    }

    fn elements(&mut self, mut each: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.json.array()?;
        let mut first = true;
        while self.json.element(&mut first)? {
            each(self)?;
        }
        Ok(())
    }

    fn texts(&mut self, number: u32) -> Result<()> {
        self.elements(|w| match w.json.peek()? {
            Kind::Null => {
                wire::put_bytes(w.to.out, number, b"");
                w.json.null()
            }
            Kind::String => {
                let text = w.json.string()?;
                wire::put_bytes(w.to.out, number, text.as_bytes());
                Ok(())
            }
            other => Err(Error::mismatch(other.word(), "string")),
        })
    }
}
