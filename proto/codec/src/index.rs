//! Where a message's fields are. Protobuf may order fields as it likes and repeat them;
//! one pass notes them down so that they can be visited in the schema's order.

use schema::{Cardinality, Field, Message, Type};

use crate::error::{Error, Result};
use crate::wire::{FIXED64, LEN, Reader, VARINT};

/// Where one field of a message is in the message's bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slot {
    /// The first occurrence's tag.
    first: u32,
    /// How many occurrences there are.
    pub count: u32,
    /// The last occurrence's value: the number itself, or where the bytes begin (in the
    /// upper half) and end.
    last: u64,
}

impl Slot {
    pub fn present(&self) -> bool {
        self.count > 0
    }
}

/// A field's value as the wire has it.
#[derive(Debug, Clone, Copy)]
pub enum Raw<'a> {
    Int(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

impl<'a> Raw<'a> {
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Raw::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// The wire type of a single value.
#[inline]
pub fn wire_type(ty: &Type) -> u8 {
    match ty {
        Type::Bool | Type::Int32 | Type::Int64 => VARINT,
        Type::Float64 => FIXED64,
        _ => LEN,
    }
}

/// Appends a slot for every field of the message, in the schema's order.
pub fn scan(msg: &'static Message, raw: &[u8], slots: &mut Vec<Slot>) -> Result<()> {
    if u32::try_from(raw.len()).is_err() {
        return Err(Error::Overflow);
    }
    let base = slots.len();
    slots.resize(base + msg.fields.len(), Slot::default());
    let mut r = Reader::new(raw);
    // Fields mostly come in ascending order, so the next one is a step away.
    let mut at = 0;
    while !r.done() {
        let tag = r.pos() as u32;
        let (number, wire) = r.tag()?;
        let Some(i) = find(msg, number, &mut at) else {
            r.skip(wire)?;
            continue;
        };
        let field = &msg.fields[i];
        let packed = wire == LEN && field.cardinality == Cardinality::List;
        if wire != expected(field) && !packed {
            let field = field.json;
            return Err(Error::WrongWireType { wire, field });
        }
        let slot = &mut slots[base + i];
        if slot.count == 0 {
            slot.first = tag;
        }
        slot.count += 1;
        slot.last = match wire {
            VARINT => r.varint()?,
            FIXED64 => r.fixed64()?,
            _ => {
                let len = r.bytes()?.len();
                let end = r.pos();
                ((end - len) as u64) << 32 | end as u64
            }
        };
    }
    Ok(())
}

#[inline]
fn expected(field: &Field) -> u8 {
    match field.cardinality {
        Cardinality::Map => LEN,
        _ => wire_type(&field.ty),
    }
}

#[inline]
fn find(msg: &'static Message, number: u32, at: &mut usize) -> Option<usize> {
    let number_at = |i: usize| msg.by_number.get(i).map(|&f| msg.fields[f as usize].number);
    if number_at(*at).is_none_or(|n| n > number) {
        *at = 0;
    }
    while let Some(n) = number_at(*at) {
        if n >= number {
            return (n == number).then(|| msg.by_number[*at] as usize);
        }
        *at += 1;
    }
    None
}

#[inline]
fn value<'a>(r: &mut Reader<'a>, wire: u8) -> Result<Raw<'a>> {
    Ok(match wire {
        VARINT => Raw::Int(r.varint()?),
        FIXED64 => Raw::Fixed(r.fixed64()?),
        _ => Raw::Bytes(r.bytes()?),
    })
}

/// The last occurrence of a field that is there; the earlier ones do not count, except
/// for messages (see [`merged`]).
#[inline]
pub fn last<'a>(field: &Field, raw: &'a [u8], slot: Slot) -> Raw<'a> {
    match expected(field) {
        VARINT => Raw::Int(slot.last),
        FIXED64 => Raw::Fixed(slot.last),
        _ => {
            let range = (slot.last >> 32) as usize..slot.last as u32 as usize;
            Raw::Bytes(raw.get(range).unwrap_or_default())
        }
    }
}

/// A singular message that occurs more than once is the concatenation of its parts.
pub fn merged(field: &Field, raw: &[u8], slot: Slot) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for part in each(field, raw, slot) {
        all.extend_from_slice(part?.bytes());
    }
    Ok(all)
}

/// Every value of a repeated field, packed ones one by one.
pub fn each<'a>(field: &Field, raw: &'a [u8], slot: Slot) -> Each<'a> {
    Each {
        r: Reader::at(raw, slot.first as usize),
        packed: Reader::new(&[]),
        left: slot.count,
        number: field.number,
        wire: expected(field),
    }
}

#[derive(Clone)]
pub struct Each<'a> {
    r: Reader<'a>,
    packed: Reader<'a>,
    left: u32,
    number: u32,
    wire: u8,
}

impl<'a> Each<'a> {
    /// How many values are left, unless they are packed.
    pub fn len_hint(&self) -> Option<usize> {
        (self.wire == LEN).then_some(self.left as usize)
    }

    fn step(&mut self) -> Result<Option<Raw<'a>>> {
        loop {
            if !self.packed.done() {
                return value(&mut self.packed, self.wire).map(Some);
            }
            if self.left == 0 {
                return Ok(None);
            }
            let (number, wire) = self.r.tag()?;
            if number != self.number {
                self.r.skip(wire)?;
                continue;
            }
            self.left -= 1;
            if wire == LEN && self.wire != LEN {
                self.packed = Reader::new(self.r.bytes()?);
                continue;
            }
            return value(&mut self.r, wire).map(Some);
        }
    }
}

impl<'a> Iterator for Each<'a> {
    type Item = Result<Raw<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.left = 0;
            self.packed = Reader::new(&[]);
        }
        step.transpose()
    }
}

/// A map's entry: its key and, if there, its value.
pub fn entry<'a>(ty: &Type, raw: &'a [u8]) -> Result<(&'a [u8], Option<Raw<'a>>)> {
    let (mut key, mut val) = (&raw[..0], None);
    let mut r = Reader::new(raw);
    while !r.done() {
        match r.tag()? {
            (1, LEN) => key = r.bytes()?,
            (2, wire) if wire == wire_type(ty) => val = Some(value(&mut r, wire)?),
            (2, wire) => {
                let field = "value";
                return Err(Error::WrongWireType { wire, field });
            }
            (_, wire) => r.skip(wire)?,
        }
    }
    Ok((key, val))
}

/// Whether a message is what its Go zero value would be written as.
pub fn is_zero(msg: &'static Message, raw: &[u8], depth: usize) -> Result<bool> {
    if depth > crate::MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    let mut slots = Vec::new();
    scan(msg, raw, &mut slots)?;
    for (field, slot) in msg.fields.iter().zip(slots) {
        if slot.present() && !zero_field(field, raw, slot, depth)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a field that is there holds its Go zero value.
pub fn zero_field(field: &Field, raw: &[u8], slot: Slot, depth: usize) -> Result<bool> {
    if field.pointer || field.cardinality != Cardinality::One {
        return Ok(false);
    }
    Ok(match (&field.ty, last(field, raw, slot)) {
        (Type::Message(msg), Raw::Bytes(bytes)) => is_zero(msg, bytes, depth + 1)?,
        (Type::Special(special), Raw::Bytes(bytes)) => {
            let mut zero = Vec::new();
            crate::special::put_zero(*special, &mut zero);
            bytes.is_empty() || bytes == zero
        }
        (Type::Int32, Raw::Int(v)) => v as i32 == 0,
        (_, Raw::Int(v)) => v == 0,
        (_, Raw::Fixed(v)) => f64::from_bits(v) == 0.0,
        (_, Raw::Bytes(bytes)) => bytes.is_empty(),
    })
}
