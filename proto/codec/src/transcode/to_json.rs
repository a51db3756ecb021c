//! Protobuf to JSON: the hot path of every JSON GET, LIST and WATCH.
//!
//! A message is scanned once for where its fields are, then its fields are written in the
//! schema's order. What is written is what Go's encoding/json writes for the struct that
//! gogo-proto decodes from the same bytes.

use std::cmp::Ordering;

use schema::{Cardinality, Field, Message, Omit, Special, Type};

use crate::error::{Error, Result};
use crate::index::{self, Raw, Slot};
use crate::json::write;
use crate::special::{self, Plain};
use crate::{MAX_DEPTH, envelope};

/// Writes a message as JSON text in upstream's field order, byte for byte what Go's
/// encoding/json writes for the same object (without the newline that ends a response).
///
/// `type_meta` is the kind and the API version, in this order, which protobuf keeps in
/// the envelope and JSON in the object; an empty one is left out.
pub fn proto_to_json(
    msg: &'static Message,
    raw: &[u8],
    type_meta: Option<(&str, &str)>,
    out: &mut Vec<u8>,
) -> Result<()> {
    // JSON is about this much longer, field names included.
    out.reserve(raw.len() * 5 / 2);
    let mut writer = Writer {
        out,
        slots: Vec::with_capacity(256),
    };
    writer.object(msg, raw, type_meta, 0)
}

struct Writer<'o> {
    out: &'o mut Vec<u8>,
    /// A stack: each message being written has its slots on it.
    slots: Vec<Slot>,
}

impl Writer<'_> {
    fn object(
        &mut self,
        msg: &'static Message,
        raw: &[u8],
        type_meta: Option<(&str, &str)>,
        depth: usize,
    ) -> Result<()> {
        self.out.push(b'{');
        let start = self.out.len();
        if let Some((kind, api_version)) = type_meta {
            for (name, text) in [("kind", kind), ("apiVersion", api_version)] {
                if !text.is_empty() {
                    self.name(name, start);
                    write::string(self.out, text.as_bytes());
                }
            }
        }
        self.fields(msg, raw, start, depth)?;
        self.out.push(b'}');
        Ok(())
    }

    /// A member's name; `start` is where the first member of the object begins.
    #[inline]
    fn name(&mut self, name: &str, start: usize) {
        self.out.reserve(name.len() + 4);
        if self.out.len() > start {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn fields(
        &mut self,
        msg: &'static Message,
        raw: &[u8],
        start: usize,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        let base = self.slots.len();
        index::scan(msg, raw, &mut self.slots)?;
        for (i, field) in msg.fields.iter().enumerate() {
            let slot = self.slots[base + i];
            self.field(field, msg, raw, slot, start, depth)?;
        }
        self.slots.truncate(base);
        Ok(())
    }

    #[inline]
    fn field(
        &mut self,
        field: &'static Field,
        parent: &'static Message,
        raw: &[u8],
        slot: Slot,
        start: usize,
        depth: usize,
    ) -> Result<()> {
        if field.number == 0 {
            // TypeMeta, which protobuf does not carry.
            return Ok(());
        }
        // Most fields of most objects: a pointer, list or map that is not there.
        let nothing = field.pointer || field.cardinality != Cardinality::One;
        if !slot.present() && nothing && field.omit != Omit::Never {
            return Ok(());
        }
        match field.cardinality {
            Cardinality::One => self.single(field, parent, raw, slot, start, depth),
            _ if !slot.present() => {
                self.name(field.json, start);
                self.out.extend_from_slice(b"null");
                Ok(())
            }
            Cardinality::List => {
                self.name(field.json, start);
                let typed = embedded(field, parent);
                self.out.push(b'[');
                let empty = self.out.len();
                for value in index::each(field, raw, slot) {
                    if self.out.len() > empty {
                        self.out.push(b',');
                    }
                    match (typed, value?) {
                        (Some((msg, type_meta)), Raw::Bytes(raw)) => {
                            self.object(msg, raw, Some(type_meta), depth + 1)?;
                        }
                        (_, value) => self.value(&field.ty, parent, value, depth)?,
                    }
                }
                self.out.push(b']');
                Ok(())
            }
            Cardinality::Map => {
                self.name(field.json, start);
                self.map(field, parent, raw, slot, depth)
            }
        }
    }

    fn single(
        &mut self,
        field: &'static Field,
        parent: &'static Message,
        raw: &[u8],
        slot: Slot,
        start: usize,
        depth: usize,
    ) -> Result<()> {
        if !slot.present() {
            return self.absent(field, parent, start, depth);
        }
        match &field.ty {
            Type::Message(msg) => {
                let merged;
                let bytes = match slot.count {
                    1 => index::last(field, raw, slot).bytes(),
                    _ => {
                        merged = index::merged(field, raw, slot)?;
                        &merged[..]
                    }
                };
                if field.json.is_empty() {
                    return self.fields(msg, bytes, start, depth + 1);
                }
                if field.omit == Omit::Zero
                    && !field.pointer
                    && index::is_zero(msg, bytes, depth + 1)?
                {
                    return Ok(());
                }
                self.name(field.json, start);
                self.object(msg, bytes, None, depth + 1)
            }
            ty => {
                let value = index::last(field, raw, slot);
                if omitted(field, value)? {
                    return Ok(());
                }
                self.name(field.json, start);
                self.value(ty, parent, value, depth)
            }
        }
    }

    /// A field that the bytes do not have: its Go zero value, unless JSON leaves it out.
    #[cold]
    fn absent(
        &mut self,
        field: &'static Field,
        parent: &'static Message,
        start: usize,
        depth: usize,
    ) -> Result<()> {
        if field.json.is_empty() {
            return match field.ty {
                Type::Message(msg) if !field.pointer => self.fields(msg, &[], start, depth + 1),
                _ => Ok(()),
            };
        }
        let is_struct = matches!(field.ty, Type::Message(_) | Type::Special(_))
            && !matches!(field.ty, Type::Special(Special::StringList));
        match field.omit {
            Omit::Zero => return Ok(()),
            Omit::Empty if field.pointer || !is_struct => return Ok(()),
            _ => {}
        }
        self.name(field.json, start);
        if field.pointer || matches!(field.ty, Type::Bytes) {
            self.out.extend_from_slice(b"null");
            return Ok(());
        }
        let zero = match index::wire_type(&field.ty) {
            crate::wire::VARINT => Raw::Int(0),
            crate::wire::FIXED64 => Raw::Fixed(0),
            _ => Raw::Bytes(&[]),
        };
        self.value(&field.ty, parent, zero, depth)
    }

    #[inline]
    fn value(
        &mut self,
        ty: &'static Type,
        parent: &'static Message,
        value: Raw,
        depth: usize,
    ) -> Result<()> {
        match (ty, value) {
            (Type::Bool, Raw::Int(v)) => write::bool(self.out, v != 0),
            (Type::Int32, Raw::Int(v)) => write::int(self.out, i64::from(v as i32)),
            (_, Raw::Int(v)) => write::int(self.out, v as i64),
            (_, Raw::Fixed(v)) => write::float(self.out, f64::from_bits(v))?,
            (Type::String, Raw::Bytes(v)) => write::string(self.out, v),
            (Type::Bytes, Raw::Bytes(v)) => write::base64(self.out, v),
            (Type::Message(msg), Raw::Bytes(v)) => self.object(msg, v, None, depth + 1)?,
            (Type::Special(special), Raw::Bytes(v)) => {
                self.special(*special, parent, v, depth)?;
            }
            // The index gives a varint or a double only to those types.
            (_, Raw::Bytes(_)) => {}
        }
        Ok(())
    }

    fn special(
        &mut self,
        special: Special,
        parent: &'static Message,
        raw: &[u8],
        depth: usize,
    ) -> Result<()> {
        match special::read(special, raw)? {
            Plain::Null => self.out.extend_from_slice(b"null"),
            Plain::Bool(v) => write::bool(self.out, v),
            Plain::Int(v) => write::int(self.out, v),
            Plain::Text(v) => write::string(self.out, v.as_bytes()),
            Plain::Time(v) => {
                self.out.push(b'"');
                self.out.extend_from_slice(v.as_str().as_bytes());
                self.out.push(b'"');
            }
            Plain::Json(json) if envelope::is_enveloped(json) => self.nested(json, depth)?,
            Plain::Json(json) => write::compact(self.out, json)?,
            Plain::Schema(schema) => self.object(parent, schema, None, depth + 1)?,
            Plain::Schemas(raw, number) => {
                self.list(raw, number, |w, v| w.object(parent, v, None, depth + 1))?;
            }
            Plain::Texts(raw, number) => self.list(raw, number, |w, v| {
                write::string(w.out, v);
                Ok(())
            })?,
        }
        Ok(())
    }

    fn list(
        &mut self,
        raw: &[u8],
        number: u32,
        mut write: impl FnMut(&mut Self, &[u8]) -> Result<()>,
    ) -> Result<()> {
        self.out.push(b'[');
        for (i, value) in special::repeated(raw, number).enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            write(self, value?)?;
        }
        self.out.push(b']');
        Ok(())
    }

    /// An object that sits in a RawExtension in its own envelope.
    fn nested(&mut self, bytes: &[u8], depth: usize) -> Result<()> {
        let unknown = envelope::decode(bytes)?;
        let msg = crate::message_of(unknown.api_version, unknown.kind)?;
        let type_meta = Some((unknown.kind, unknown.api_version));
        self.object(msg, unknown.raw, type_meta, depth + 1)
    }

    fn map(
        &mut self,
        field: &'static Field,
        parent: &'static Message,
        raw: &[u8],
        slot: Slot,
        depth: usize,
    ) -> Result<()> {
        let start = self.out.len();
        let mut previous: Option<&[u8]> = None;
        self.out.push(b'{');
        for item in index::each(field, raw, slot) {
            let (key, value) = index::entry(&field.ty, item?.bytes())?;
            match previous.map(|p| p.cmp(key)) {
                None => {}
                Some(Ordering::Less) => self.out.push(b','),
                // Not how gogo-proto writes maps, but legal.
                _ => {
                    self.out.truncate(start);
                    return self.unsorted_map(field, parent, raw, slot, depth);
                }
            }
            self.map_entry(field, parent, key, value, depth)?;
            previous = Some(key);
        }
        self.out.push(b'}');
        Ok(())
    }

    fn map_entry(
        &mut self,
        field: &'static Field,
        parent: &'static Message,
        key: &[u8],
        value: Option<Raw>,
        depth: usize,
    ) -> Result<()> {
        write::string(self.out, key);
        self.out.push(b':');
        let value = value.unwrap_or(match index::wire_type(&field.ty) {
            crate::wire::VARINT => Raw::Int(0),
            crate::wire::FIXED64 => Raw::Fixed(0),
            _ => Raw::Bytes(&[]),
        });
        self.value(&field.ty, parent, value, depth)
    }

    /// Keys in order, the last of equal ones winning, as in a Go map.
    #[cold]
    fn unsorted_map(
        &mut self,
        field: &'static Field,
        parent: &'static Message,
        raw: &[u8],
        slot: Slot,
        depth: usize,
    ) -> Result<()> {
        let mut entries = std::collections::BTreeMap::new();
        for item in index::each(field, raw, slot) {
            let (key, value) = index::entry(&field.ty, item?.bytes())?;
            entries.insert(key, value);
        }
        self.out.push(b'{');
        for (i, (key, value)) in entries.into_iter().enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            self.map_entry(field, parent, key, value, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// The type of whole objects that a part of another object lists (claim templates): they say
/// of what type they are, as the items of a list of objects do not.
fn embedded(
    field: &'static Field,
    parent: &'static Message,
) -> Option<(&'static Message, (&'static str, &'static str))> {
    let is_object = |msg: &Message| msg.fields.iter().any(|f| f.number == 0 && f.json == "kind");
    let Type::Message(msg) = field.ty else {
        return None;
    };
    if !is_object(msg) || is_object(parent) {
        return None;
    }
    let mut all = schema::resources().iter();
    let resource = all.find(|r| std::ptr::eq(r.message, msg))?;
    let version = resource.storage_version;
    Some((msg, (resource.kind, version)))
}

/// Whether JSON leaves out a field that the bytes do have.
#[inline]
pub(crate) fn omitted(field: &Field, value: Raw) -> Result<bool> {
    if field.pointer || field.omit == Omit::Never {
        return Ok(false);
    }
    Ok(match (&field.ty, value) {
        (Type::Int32, Raw::Int(v)) => v as i32 == 0,
        (_, Raw::Int(v)) => v == 0,
        (_, Raw::Fixed(v)) => f64::from_bits(v) == 0.0,
        (Type::String, Raw::Bytes(v)) => v.is_empty(),
        // An empty slice of bytes is empty, but it is not the zero value.
        (Type::Bytes, Raw::Bytes(v)) => v.is_empty() && field.omit == Omit::Empty,
        (Type::Special(Special::StringList), Raw::Bytes(v)) => v.is_empty(),
        (Type::Special(special), Raw::Bytes(v)) if field.omit == Omit::Zero => {
            match special::read(*special, v)? {
                Plain::Null => true,
                Plain::Text(v) => matches!(&*v, "" | "0" | "0s"),
                Plain::Int(v) => v == 0,
                _ => false,
            }
        }
        _ => false,
    })
}
