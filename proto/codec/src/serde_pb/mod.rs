//! Kubernetes protobuf as a serde format, driven by the schema's tables: any type that
//! reads and writes an object's JSON reads and writes its protobuf too.
//!
//! A type sees what it would see in the object's JSON, members that JSON leaves out
//! included. A struct that declares only the fields it needs costs no more than those;
//! the others are stepped over.

mod de;
mod part;
mod ser;

use std::marker::PhantomData;

use schema::Message;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;

pub(crate) use de::Embedded;
pub use part::Part;

/// Reads a message.
///
/// # Errors
/// The bytes are no such message, or the type refuses what they hold.
pub fn from_slice<'de, T: Deserialize<'de>>(msg: &'static Message, raw: &'de [u8]) -> Result<T> {
    de::from_slice(msg, raw, PhantomData, None, Embedded::Json)
}

/// Reads some of a message's members into a tree.
///
/// # Errors
/// The bytes are no such message.
pub fn part_from_slice(msg: &'static Message, raw: &[u8], part: Part) -> Result<Value> {
    de::from_slice(msg, raw, part, None, Embedded::Text)
}

/// Reads a message as an object that states its API version and kind, which protobuf
/// keeps in the envelope (see [`crate::envelope::Unknown`]).
pub fn from_slice_with_type_meta<'de, T: Deserialize<'de>>(
    msg: &'static Message,
    raw: &'de [u8],
    api_version: &'de str,
    kind: &'de str,
) -> Result<T> {
    let type_meta = Some((api_version, kind));
    de::from_slice(msg, raw, PhantomData, type_meta, Embedded::Json)
}

/// Reads a message into a tree, where embedded JSON is text.
pub(crate) fn tree_from_slice(
    msg: &'static Message,
    raw: &[u8],
    type_meta: Option<(&str, &str)>,
) -> Result<Value> {
    de::from_slice(msg, raw, PhantomData, type_meta, Embedded::Text)
}

/// Writes a message as gogo-proto writes it. Fields that the schema does not know are
/// left out, `apiVersion` and `kind` among them.
///
/// # Errors
/// The value has a field of another type than the schema's.
pub fn to_vec<T: Serialize + ?Sized>(msg: &'static Message, value: &T) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(512);
    ser::to_writer(msg, value, Embedded::Json, &mut out)?;
    Ok(out)
}

pub(crate) use ser::to_writer;
