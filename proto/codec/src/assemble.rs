//! Putting messages together as gogo-proto writes them, from fields that arrive in any
//! order: ascending numbers, values that are no pointers written even when they are
//! zero, maps sorted by key.
//!
//! Every field is appended to the output as it arrives and noted down as a segment; when
//! its message ends, the segments are put in order.

use schema::{Cardinality, Field, Message, Type};

use crate::error::{Error, Result};
use crate::serde_pb::Embedded;
use crate::special;
use crate::wire::{self, FIXED64};

/// How deep messages may be inlined in one another.
const INLINE: usize = 4;

/// Where a field belongs: the numbers of the inlined messages around it, then its own.
pub type Place = [u32; INLINE];

/// Finds the fields of one object's members. Members mostly come in the schema's order or
/// in that of their names, so the next one is guessed before it is searched for.
#[derive(Clone, Copy)]
pub struct Finder {
    msg: &'static Message,
    /// The guess by the schema's order, an index into the message's fields.
    field: usize,
    /// The guess by name, an index into the message's names.
    name: usize,
}

impl Finder {
    pub fn new(msg: &'static Message) -> Self {
        Finder {
            msg,
            field: 0,
            name: 0,
        }
    }

    /// The field of a JSON name, looking through inlined messages.
    #[inline]
    pub fn find(&mut self, json: &str) -> Option<(&'static Field, Place)> {
        if let Some(field) = self.direct(json) {
            return Some((field, [field.number, 0, 0, 0]));
        }
        let mut place = [0; INLINE];
        let field = inlined(self.msg, json, &mut place, 0)?;
        Some((field, place))
    }

    /// The field of a JSON name that is the message's own.
    #[inline]
    pub fn direct(&mut self, json: &str) -> Option<&'static Field> {
        let (fields, names) = (self.msg.fields, self.msg.by_json);
        let guesses = fields.iter().enumerate().skip(self.field).take(3);
        for (i, field) in guesses {
            if field.json == json && !json.is_empty() {
                self.field = i + 1;
                return Some(field);
            }
        }
        let guesses = names.iter().enumerate().skip(self.name).take(3);
        for (i, &index) in guesses {
            let field = &fields[index as usize];
            if field.json == json && !json.is_empty() {
                self.name = i + 1;
                return Some(field);
            }
        }
        let name = by_name(self.msg, json)?;
        let index = names[name] as usize;
        (self.field, self.name) = (index + 1, name + 1);
        Some(&fields[index])
    }
}

/// Where a name is among a message's own.
fn by_name(msg: &'static Message, json: &str) -> Option<usize> {
    let cmp = |i: &u16| msg.fields[*i as usize].json.cmp(json);
    // The name of an inlined message is empty, and is no name.
    msg.by_json
        .binary_search_by(cmp)
        .ok()
        .filter(|_| !json.is_empty())
}

/// Finds a field in the messages that are inlined in one.
fn inlined(
    msg: &'static Message,
    json: &str,
    place: &mut Place,
    level: usize,
) -> Option<&'static Field> {
    if level + 1 == INLINE {
        return None;
    }
    for field in msg.fields.iter().filter(|f| f.json.is_empty()) {
        let Type::Message(inner) = field.ty else {
            continue;
        };
        let found = match by_name(inner, json) {
            Some(name) => {
                let found = &inner.fields[inner.by_json[name] as usize];
                place[level + 1] = found.number;
                Some(found)
            }
            None => inlined(inner, json, place, level + 1),
        };
        if found.is_some() {
            place[level] = field.number;
            return found;
        }
    }
    None
}

#[derive(Clone, Copy)]
struct Segment {
    place: Place,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    key: (usize, usize),
    start: usize,
    end: usize,
}

pub struct Assembler<'o> {
    pub out: &'o mut Vec<u8>,
    /// How what is written holds embedded JSON.
    pub embedded: Embedded,
    segments: Vec<Segment>,
    entries: Vec<Entry>,
    scratch: Vec<u8>,
}

/// A message or map that has begun.
#[derive(Clone, Copy)]
#[must_use]
pub struct Begun {
    start: usize,
    noted: usize,
}

/// A map entry that has begun.
#[derive(Clone, Copy)]
#[must_use]
pub struct BegunEntry {
    start: usize,
    body: usize,
    key: (usize, usize),
}

impl<'o> Assembler<'o> {
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Assembler {
            out,
            embedded: Embedded::Json,
            segments: Vec::with_capacity(64),
            entries: Vec::new(),
            scratch: Vec::new(),
        }
    }

    pub fn begin(&mut self) -> Begun {
        Begun {
            start: self.out.len(),
            noted: self.segments.len(),
        }
    }

    /// Notes that everything appended since `start` is the field at `place`.
    pub fn note(&mut self, place: Place, start: usize) {
        let end = self.out.len();
        self.segments.push(Segment { place, start, end });
    }

    /// Whether the message that began has a field at `place` already.
    pub fn has(&self, begun: Begun, place: Place) -> bool {
        self.segments[begun.noted..]
            .iter()
            .any(|s| s.place == place)
    }

    /// Ends a message: its fields now follow one another as gogo-proto orders them.
    pub fn end(&mut self, msg: &'static Message, begun: Begun) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        self.arrange(msg, begun, &mut scratch);
        self.out.truncate(begun.start);
        self.out.extend_from_slice(&scratch);
        self.scratch = scratch;
    }

    /// The same, as a field of its own with tag and length.
    pub fn end_field(&mut self, number: u32, msg: &'static Message, begun: Begun) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        self.arrange(msg, begun, &mut scratch);
        self.out.truncate(begun.start);
        wire::put_bytes(self.out, number, &scratch);
        self.scratch = scratch;
    }

    fn arrange(&mut self, msg: &'static Message, begun: Begun, to: &mut Vec<u8>) {
        let segments = &mut self.segments[begun.noted..];
        segments.sort_by_key(|s| s.place);
        arrange(msg, self.out, segments, 0, to);
        self.segments.truncate(begun.noted);
    }

    pub fn begin_map(&mut self) -> Begun {
        Begun {
            start: self.out.len(),
            noted: self.entries.len(),
        }
    }

    /// Begins an entry of a map field; its value goes into field 2.
    pub fn begin_entry(&mut self, number: u32, key: &str) -> BegunEntry {
        let start = self.out.len();
        let body = wire::open(self.out, number);
        wire::put_bytes(self.out, 1, key.as_bytes());
        let end = self.out.len();
        BegunEntry {
            start,
            body,
            key: (end - key.len(), end),
        }
    }

    pub fn end_entry(&mut self, begun: BegunEntry) {
        let before = self.out.len();
        wire::close(self.out, begun.body);
        let moved = self.out.len() - before;
        self.entries.push(Entry {
            key: (begun.key.0 + moved, begun.key.1 + moved),
            start: begun.start,
            end: self.out.len(),
        });
    }

    /// Ends a map: entries sorted by key, the last of equal keys winning.
    pub fn end_map(&mut self, begun: Begun) {
        let entries = &mut self.entries[begun.noted..];
        let key = |e: &Entry| e.key.0..e.key.1;
        let sorted = entries
            .windows(2)
            .all(|w| self.out[key(&w[0])] < self.out[key(&w[1])]);
        if !sorted {
            entries.sort_by(|a, b| self.out[key(a)].cmp(&self.out[key(b)]));
            self.scratch.clear();
            for (i, entry) in entries.iter().enumerate() {
                let replaced = entries
                    .get(i + 1)
                    .is_some_and(|next| self.out[key(next)] == self.out[key(entry)]);
                if !replaced {
                    self.scratch
                        .extend_from_slice(&self.out[entry.start..entry.end]);
                }
            }
            self.out.truncate(begun.start);
            self.out.extend_from_slice(&self.scratch);
        }
        self.entries.truncate(begun.noted);
    }
}

/// Copies sorted segments, which are those of one message at the given level of inlining.
fn arrange(
    msg: &'static Message,
    from: &[u8],
    mut segments: &[Segment],
    level: usize,
    to: &mut Vec<u8>,
) {
    for &i in msg.by_number {
        let field = &msg.fields[i as usize];
        if field.number == 0 {
            continue;
        }
        let skip = segments
            .iter()
            .take_while(|s| s.place[level] < field.number)
            .count();
        segments = &segments[skip..];
        let count = segments
            .iter()
            .take_while(|s| s.place[level] == field.number)
            .count();
        let (own, rest) = segments.split_at(count);
        segments = rest;
        match (own.last(), &field.ty) {
            (None, _) => put_zero(field, to),
            (_, Type::Message(inlined)) if field.json.is_empty() && level + 1 < INLINE => {
                let start = wire::open(to, field.number);
                arrange(inlined, from, own, level + 1, to);
                wire::close(to, start);
            }
            (Some(last), _) => to.extend_from_slice(&from[last.start..last.end]),
        }
    }
}

/// Writes a field that was never set, as Go does: pointers, lists, maps and bytes not at
/// all, everything else as its zero value.
pub fn put_zero(field: &'static Field, out: &mut Vec<u8>) {
    if field.pointer || field.cardinality != Cardinality::One {
        return;
    }
    match &field.ty {
        Type::Bool | Type::Int32 | Type::Int64 => wire::put_int(out, field.number, 0),
        Type::Float64 => {
            wire::put_tag(out, field.number, FIXED64);
            out.extend_from_slice(&[0; 8]);
        }
        Type::String => wire::put_bytes(out, field.number, b""),
        Type::Bytes | Type::Special(schema::Special::StringList) => {}
        Type::Message(msg) => {
            let start = wire::open(out, field.number);
            put_zero_message(msg, out);
            wire::close(out, start);
        }
        Type::Special(special) => {
            let start = wire::open(out, field.number);
            special::put_zero(*special, out);
            wire::close(out, start);
        }
    }
}

/// The zero value of a message. Values that are no pointers cannot contain themselves,
/// so this ends.
pub fn put_zero_message(msg: &'static Message, out: &mut Vec<u8>) {
    for &i in msg.by_number {
        let field = &msg.fields[i as usize];
        if field.number != 0 {
            put_zero(field, out);
        }
    }
}

/// The zero value of a list's item or a map's value, as a field.
pub fn put_zero_value(number: u32, ty: &'static Type, out: &mut Vec<u8>) {
    match ty {
        Type::Bool | Type::Int32 | Type::Int64 => wire::put_int(out, number, 0),
        Type::Float64 => put_float(number, 0.0, out),
        // A nil slice in a list or a map is not written.
        Type::Bytes => {}
        Type::String => wire::put_bytes(out, number, b""),
        Type::Message(msg) => {
            let start = wire::open(out, number);
            put_zero_message(msg, out);
            wire::close(out, start);
        }
        Type::Special(special) => {
            let start = wire::open(out, number);
            special::put_zero(*special, out);
            wire::close(out, start);
        }
    }
}

fn put_float(number: u32, v: f64, out: &mut Vec<u8>) {
    wire::put_tag(out, number, FIXED64);
    out.extend_from_slice(&v.to_bits().to_le_bytes());
}

/// A boolean as a field.
pub fn put_bool(number: u32, ty: &'static Type, v: bool, out: &mut Vec<u8>) -> Result<()> {
    match ty {
        Type::Bool => wire::put_int(out, number, u64::from(v)),
        Type::Special(schema::Special::JsonSchemaPropsOrBool) => {
            let start = wire::open(out, number);
            wire::put_int(out, 1, u64::from(v));
            wire::close(out, start);
        }
        Type::Special(special) if special::is_json(*special) => {
            put_json(number, if v { b"true" } else { b"false" }, out);
        }
        ty => return Err(Error::mismatch("bool", &go_name(ty))),
    }
    Ok(())
}

/// A number as a field, from its JSON text.
pub fn put_number(number: u32, ty: &'static Type, text: &str, out: &mut Vec<u8>) -> Result<()> {
    let wrong = || Error::mismatch(&format!("number {text}"), &go_name(ty));
    match ty {
        Type::Int32 => {
            let v: i32 = text.parse().map_err(|_| wrong())?;
            wire::put_int(out, number, i64::from(v) as u64);
        }
        Type::Int64 => {
            let v: i64 = text.parse().map_err(|_| wrong())?;
            wire::put_int(out, number, v as u64);
        }
        Type::Float64 => {
            let v: f64 = text.parse().map_err(|_| wrong())?;
            if !v.is_finite() {
                return Err(wrong());
            }
            put_float(number, v, out);
        }
        Type::Special(special) if special::is_json(*special) => {
            put_json(number, text.as_bytes(), out);
        }
        Type::Special(special) => {
            let start = wire::open(out, number);
            special::put_number(*special, text, out)?;
            wire::close(out, start);
        }
        ty => return Err(Error::mismatch("number", &go_name(ty))),
    }
    Ok(())
}

/// An integer as a field.
pub fn put_int(number: u32, ty: &'static Type, v: i64, out: &mut Vec<u8>) -> Result<()> {
    match ty {
        Type::Int64 => wire::put_int(out, number, v as u64),
        Type::Int32 if i32::try_from(v).is_ok() => wire::put_int(out, number, v as u64),
        ty => return put_number(number, ty, itoa::Buffer::new().format(v), out),
    }
    Ok(())
}

/// A string as a field. JSON types are not for this: see [`put_json`].
pub fn put_text(number: u32, ty: &'static Type, text: &str, out: &mut Vec<u8>) -> Result<()> {
    match ty {
        Type::String => wire::put_bytes(out, number, text.as_bytes()),
        Type::Bytes => {
            let bytes = decode_base64(text)?;
            wire::put_bytes(out, number, &bytes);
        }
        Type::Special(special) => {
            let start = wire::open(out, number);
            special::put_text(*special, text, out)?;
            wire::close(out, start);
        }
        ty => return Err(Error::mismatch("string", &go_name(ty))),
    }
    Ok(())
}

/// JSON text as a field of a type that holds any JSON.
pub fn put_json(number: u32, json: &[u8], out: &mut Vec<u8>) {
    let start = wire::open(out, number);
    wire::put_bytes(out, 1, json);
    wire::close(out, start);
}

/// Go's reading of base64: standard and padded, line breaks ignored, bits after the last
/// byte ignored.
pub fn decode_base64(text: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
    const LAX: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let decoded = match text.contains(['\n', '\r']) {
        true => LAX.decode(text.replace(['\n', '\r'], "")),
        false => LAX.decode(text),
    };
    decoded.map_err(|e| {
        let at = match e {
            base64::DecodeError::InvalidByte(at, _) => at,
            // What is missing is missing from the last group of four.
            _ => text.find('=').unwrap_or(text.len() / 4 * 4),
        };
        Error::value(format!("illegal base64 data at input byte {at}"))
    })
}

/// Go's name of a type, for errors: `int32`, `v1.PodSpec`.
pub fn go_name(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".into(),
        Type::Int32 => "int32".into(),
        Type::Int64 => "int64".into(),
        Type::Float64 => "float64".into(),
        Type::String => "string".into(),
        Type::Bytes => "[]uint8".into(),
        Type::Message(msg) => {
            let mut parts = msg.name.rsplit('.');
            let name = parts.next().unwrap_or_default();
            match parts.next() {
                Some(package) => format!("{package}.{name}"),
                None => name.into(),
            }
        }
        Type::Special(special) => special::go_name(*special).into(),
    }
}
