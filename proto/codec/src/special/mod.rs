//! The types whose two wire forms differ by more than the schema says: how each is read
//! from protobuf as JSON sees it, and how it is written to protobuf from what JSON holds.

pub mod duration;
pub mod fields_v1;
pub mod quantity;
pub mod time;

use std::borrow::Cow;

use schema::Special;

use crate::error::{Error, Result};
use crate::wire::{self, LEN, Reader, VARINT};

/// A special value of the protobuf form, as JSON sees it.
pub enum Plain<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Text(Cow<'a, str>),
    Time(time::Text),
    /// JSON text, which may be nonsense.
    Json(&'a [u8]),
    /// A message of the schema that holds the field.
    Schema(&'a [u8]),
    /// The same, for every field of this number.
    Schemas(&'a [u8], u32),
    /// Strings: every field of this number.
    Texts(&'a [u8], u32),
}

/// The last length-delimited field of a number, and the last varint of a number.
struct Fields<'a> {
    text: [Option<&'a [u8]>; 4],
    int: [u64; 4],
}

fn fields(raw: &[u8]) -> Result<Fields<'_>> {
    let mut found = Fields {
        text: [None; 4],
        int: [0; 4],
    };
    let mut r = Reader::new(raw);
    while !r.done() {
        match r.tag()? {
            (n @ 1..=3, LEN) => found.text[n as usize] = Some(r.bytes()?),
            (n @ 1..=3, VARINT) => found.int[n as usize] = r.varint()?,
            (_, wire) => r.skip(wire)?,
        }
    }
    Ok(found)
}

/// Reads a special type's message.
pub fn read(special: Special, raw: &[u8]) -> Result<Plain<'_>> {
    Ok(match special {
        Special::Quantity => match fields(raw)?.text[1] {
            Some(text) => {
                let text = std::str::from_utf8(text)
                    .map_err(|_| Error::value("quantities must match the regular expression"))?;
                Plain::Text(quantity::canonical(text)?)
            }
            None => Plain::Text("0".into()),
        },
        Special::IntOrString => {
            let f = fields(raw)?;
            match f.int[1] {
                0 => Plain::Int(i64::from(f.int[2] as i32)),
                1 => Plain::Text(String::from_utf8_lossy(f.text[3].unwrap_or_default())),
                _ => return Err(Error::value("impossible IntOrString.Type")),
            }
        }
        Special::Time | Special::MicroTime => {
            let micro = special == Special::MicroTime;
            match time::Instant::decode(raw, micro)? {
                Some(instant) => Plain::Time(instant.text(micro)),
                None => Plain::Null,
            }
        }
        Special::Duration => Plain::Text(duration::text(fields(raw)?.int[1] as i64).into()),
        Special::RawExtension | Special::FieldsV1 | Special::Json => {
            match fields(raw)?.text[1].unwrap_or_default() {
                b"" => Plain::Null,
                json => Plain::Json(json),
            }
        }
        Special::JsonSchemaPropsOrBool => {
            let f = fields(raw)?;
            match f.text[2] {
                Some(schema) => Plain::Schema(schema),
                None => Plain::Bool(f.int[1] != 0),
            }
        }
        Special::JsonSchemaPropsOrArray | Special::JsonSchemaPropsOrStringArray => {
            let f = fields(raw)?;
            match (f.text[2], f.text[1]) {
                (Some(_), _) if special == Special::JsonSchemaPropsOrArray => {
                    Plain::Schemas(raw, 2)
                }
                (Some(_), _) => Plain::Texts(raw, 2),
                (None, Some(schema)) => Plain::Schema(schema),
                (None, None) => Plain::Null,
            }
        }
        // Never nil, because it only occurs as a value of maps.
        Special::StringList => Plain::Texts(raw, 1),
    })
}

/// The fields of one number in a message, in order.
pub fn repeated(raw: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8]>> {
    let mut r = Reader::new(raw);
    std::iter::from_fn(move || {
        while !r.done() {
            let found = r.tag().and_then(|(n, wire)| {
                if n == number && wire == LEN {
                    return r.bytes().map(Some);
                }
                r.skip(wire).map(|()| None)
            });
            match found {
                Ok(None) => {}
                other => return other.transpose(),
            }
        }
        None
    })
}

/// Go's name of the type, for errors.
pub fn go_name(special: Special) -> &'static str {
    match special {
        Special::Quantity => "resource.Quantity",
        Special::IntOrString => "intstr.IntOrString",
        Special::Time => "v1.Time",
        Special::MicroTime => "v1.MicroTime",
        Special::Duration => "v1.Duration",
        Special::RawExtension => "runtime.RawExtension",
        Special::FieldsV1 => "v1.FieldsV1",
        Special::Json => "v1.JSON",
        Special::JsonSchemaPropsOrBool => "v1.JSONSchemaPropsOrBool",
        Special::JsonSchemaPropsOrArray => "v1.JSONSchemaPropsOrArray",
        Special::JsonSchemaPropsOrStringArray => "v1.JSONSchemaPropsOrStringArray",
        Special::StringList => "[]string",
    }
}

/// Whether the JSON form is any JSON at all.
pub fn is_json(special: Special) -> bool {
    matches!(
        special,
        Special::RawExtension | Special::FieldsV1 | Special::Json
    )
}

/// Writes the message of a special type whose JSON form is the string `text`, without
/// tag and length.
pub fn put_text(special: Special, text: &str, out: &mut Vec<u8>) -> Result<()> {
    match special {
        Special::Quantity => {
            wire::put_bytes(out, 1, quantity::canonical(text.trim())?.as_bytes());
        }
        Special::IntOrString => {
            wire::put_int(out, 1, 1);
            wire::put_int(out, 2, 0);
            wire::put_bytes(out, 3, text.as_bytes());
        }
        Special::Time => time::Instant::parse(text, false)?.encode(false, out),
        Special::MicroTime => time::Instant::parse(text, true)?.encode(true, out),
        Special::Duration => wire::put_int(out, 1, duration::parse(text)? as u64),
        other => return Err(Error::mismatch("string", go_name(other))),
    }
    Ok(())
}

/// The same for a number; `literal` is its text.
pub fn put_number(special: Special, literal: &str, out: &mut Vec<u8>) -> Result<()> {
    match special {
        Special::Quantity => put_text(special, literal, out),
        Special::IntOrString => {
            let v: i32 = literal
                .parse()
                .map_err(|_| Error::mismatch(&format!("number {literal}"), "int32"))?;
            wire::put_int(out, 1, 0);
            wire::put_int(out, 2, i64::from(v) as u64);
            wire::put_bytes(out, 3, b"");
            Ok(())
        }
        other => Err(Error::mismatch("number", go_name(other))),
    }
}

/// Writes what Go writes for a value that is no pointer and was never set.
pub fn put_zero(special: Special, out: &mut Vec<u8>) {
    match special {
        Special::Quantity => wire::put_bytes(out, 1, b"0"),
        Special::IntOrString => {
            wire::put_int(out, 1, 0);
            wire::put_int(out, 2, 0);
            wire::put_bytes(out, 3, b"");
        }
        Special::Duration | Special::JsonSchemaPropsOrBool => wire::put_int(out, 1, 0),
        _ => {}
    }
}

/// The canonical JSON text of a special type whose JSON form is a string.
pub fn normal_text(special: Special, text: &str) -> Result<Cow<'_, str>> {
    Ok(match special {
        Special::Quantity => quantity::canonical(text.trim())?,
        Special::Time | Special::MicroTime => {
            let micro = special == Special::MicroTime;
            let instant = time::Instant::parse(text, micro)?;
            match instant.text(micro).as_str() {
                same if same == text => Cow::Borrowed(text),
                other => Cow::Owned(other.to_owned()),
            }
        }
        Special::Duration => match duration::text(duration::parse(text)?) {
            same if same == text => Cow::Borrowed(text),
            other => Cow::Owned(other),
        },
        _ => Cow::Borrowed(text),
    })
}
