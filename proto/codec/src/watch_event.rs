//! The events of a WATCH around objects that are already encoded.
//!
//! In JSON an event is an object and ends with a newline. In protobuf it is a
//! `metav1.WatchEvent` without an envelope, whose RawExtension holds the object in its
//! envelope; a big-endian length of four bytes goes before it.

use crate::error::{Error, Result};
use crate::json::read::{Kind, Reader as JsonReader};
use crate::json::write;
use crate::wire::{self, LEN, Reader, varint_len};

/// Writes what precedes the object in a JSON event; [`JSON_TAIL`] follows it.
pub fn json_head(kind: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"type\":");
    write::string(out, kind.as_bytes());
    out.extend_from_slice(b",\"object\":");
}

/// What ends a JSON event.
pub const JSON_TAIL: &[u8] = b"}\n";

/// Writes a JSON event. `kind` is `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`;
/// `object` is the object's JSON on one line.
pub fn json(kind: &str, object: &[u8], out: &mut Vec<u8>) {
    out.reserve(object.len() + 40);
    json_head(kind, out);
    out.extend_from_slice(object.trim_ascii_end());
    out.extend_from_slice(JSON_TAIL);
}

/// How many bytes of a protobuf event are its framing; they come first.
pub const FRAMING: usize = 4;

/// Writes what precedes an enveloped object of `len` bytes in a protobuf event, framing
/// included; nothing follows it.
pub fn proto_head(kind: &str, len: usize, out: &mut Vec<u8>) -> Result<()> {
    let field = |len: usize| 1 + varint_len(len as u64) + len;
    let extension = field(len);
    let event = field(kind.len()) + field(extension);
    let frame = u32::try_from(event).map_err(|_| Error::Overflow)?;
    out.extend_from_slice(&frame.to_be_bytes());
    wire::put_bytes(out, 1, kind.as_bytes());
    wire::put_tag(out, 2, LEN);
    wire::put_varint(out, extension as u64);
    wire::put_tag(out, 1, LEN);
    wire::put_varint(out, len as u64);
    Ok(())
}

/// Writes a protobuf event in its frame; `object` is the object in its envelope.
pub fn proto(kind: &str, object: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.reserve(object.len() + 32);
    proto_head(kind, object.len(), out)?;
    out.extend_from_slice(object);
    Ok(())
}

/// An event that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event<'a> {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`.
    pub kind: &'a str,
    /// The object: JSON text, or protobuf in its envelope.
    pub object: &'a [u8],
}

/// Splits the first complete frame off what has been received of a protobuf stream: the
/// event's bytes, and how many bytes it took with its length. `None` means that more has
/// to be received.
///
/// # Errors
/// The frame claims to be longer than `limit` bytes.
pub fn frame(received: &[u8], limit: usize) -> Result<Option<(&[u8], usize)>> {
    let Some((head, rest)) = received.split_at_checked(4) else {
        return Ok(None);
    };
    let len = u32::from_be_bytes(head.try_into().expect("4 bytes")) as usize;
    if len > limit {
        return Err(Error::value(format!(
            "a watch event of {len} bytes is over the limit of {limit}"
        )));
    }
    Ok(rest.get(..len).map(|event| (event, 4 + len)))
}

/// Reads a protobuf event out of its frame.
pub fn decode_proto(event: &[u8]) -> Result<Event<'_>> {
    let (mut kind, mut object) = ("", &event[..0]);
    let mut r = Reader::new(event);
    while !r.done() {
        match r.tag()? {
            (1, LEN) => {
                kind = std::str::from_utf8(r.bytes()?)
                    .map_err(|_| Error::value("the type of a watch event is no UTF-8"))?;
            }
            (2, LEN) => {
                let extension = r.bytes()?;
                let mut raw = crate::special::repeated(extension, 1);
                object = raw.next().transpose()?.unwrap_or_default();
            }
            (_, wire) => r.skip(wire)?,
        }
    }
    Ok(Event { kind, object })
}

/// Reads a JSON event, which is one line of the stream.
pub fn decode_json(line: &[u8]) -> Result<Event<'_>> {
    let (mut kind, mut object) = ("", &line[..0]);
    let mut json = JsonReader::new(line);
    if json.peek()? != Kind::Object {
        return Err(Error::mismatch(json.peek()?.word(), "v1.WatchEvent"));
    }
    json.object()?;
    let mut first = true;
    while let Some(key) = json.key(&mut first)? {
        match (&*key, json.peek()?) {
            ("type", Kind::String) => match json.string()? {
                std::borrow::Cow::Borrowed(text) => kind = text,
                std::borrow::Cow::Owned(_) => {
                    return Err(Error::value("the type of a watch event is not known"));
                }
            },
            ("object", _) => object = json.raw()?,
            _ => json.skip()?,
        }
    }
    json.end()?;
    Ok(Event { kind, object })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn json_events_are_upstream_s() {
        let mut out = Vec::new();
        json("ADDED", b"{\"kind\":\"Pod\"}\n", &mut out);
        assert_eq!(out, b"{\"type\":\"ADDED\",\"object\":{\"kind\":\"Pod\"}}\n");
        let event = decode_json(&out).unwrap();
        assert_eq!(
            (event.kind, event.object),
            ("ADDED", &b"{\"kind\":\"Pod\"}"[..])
        );
    }

    #[test]
    fn protobuf_events_are_upstream_s() {
        let mut out = Vec::new();
        proto("ADDED", b"k8s\0x", &mut out).unwrap();
        assert_eq!(out, b"\0\0\0\x10\x0a\x05ADDED\x12\x07\x0a\x05k8s\0x");
        assert_eq!(frame(&out[..19], 100).unwrap(), None);
        assert_eq!(frame(&out[..3], 100).unwrap(), None);
        assert!(frame(&out, 15).is_err());
        let (event, taken) = frame(&out, 100).unwrap().unwrap();
        assert_eq!(taken, out.len());
        let event = decode_proto(event).unwrap();
        assert_eq!((event.kind, event.object), ("ADDED", &b"k8s\0x"[..]));
    }

    proptest! {
        #[test]
        fn frames_return(object: Vec<u8>) {
            let mut out = Vec::new();
            proto("MODIFIED", &object, &mut out).unwrap();
            let (event, _) = frame(&out, usize::MAX).unwrap().unwrap();
            prop_assert_eq!(decode_proto(event).unwrap().object, &object[..]);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = frame(&bytes, 1 << 20);
            let _ = decode_proto(&bytes);
            let _ = decode_json(&bytes);
        }
    }
}
