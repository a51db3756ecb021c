//! The envelope of Kubernetes protobuf: four magic bytes, then a `runtime.Unknown` that
//! names the kind and holds the object's bytes (apimachinery's
//! `runtime/serializer/protobuf`). This is what etcd stores and what
//! `application/vnd.kubernetes.protobuf` bodies are.

use crate::error::{Error, Result};
use crate::wire::{self, LEN, Reader, varint_len};

/// `k8s` and the number of the encoding.
pub const MAGIC: [u8; 4] = *b"k8s\0";

/// What an envelope holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unknown<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    /// The object's message.
    pub raw: &'a [u8],
    pub content_encoding: &'a str,
    /// Empty means protobuf.
    pub content_type: &'a str,
}

/// Whether the bytes claim to be enveloped protobuf.
pub fn is_enveloped(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

/// Opens an envelope without copying.
pub fn decode(bytes: &[u8]) -> Result<Unknown<'_>> {
    if bytes.is_empty() {
        return Err(Error::Empty);
    }
    let body = bytes.strip_prefix(&MAGIC).ok_or(Error::NotEnveloped)?;
    if body.is_empty() {
        return Err(Error::value("empty body"));
    }
    let mut unknown = Unknown::default();
    let mut r = Reader::new(body);
    while !r.done() {
        match r.tag()? {
            (1, LEN) => type_meta(r.bytes()?, &mut unknown)?,
            (2, LEN) => unknown.raw = r.bytes()?,
            (3, LEN) => unknown.content_encoding = text(r.bytes()?)?,
            (4, LEN) => unknown.content_type = text(r.bytes()?)?,
            (1..=4, wire) => {
                let field = "Unknown";
                return Err(Error::WrongWireType { wire, field });
            }
            (_, wire) => r.skip(wire)?,
        }
    }
    Ok(unknown)
}

fn type_meta<'a>(bytes: &'a [u8], unknown: &mut Unknown<'a>) -> Result<()> {
    let mut r = Reader::new(bytes);
    while !r.done() {
        match r.tag()? {
            (1, LEN) => unknown.api_version = text(r.bytes()?)?,
            (2, LEN) => unknown.kind = text(r.bytes()?)?,
            (_, wire) => r.skip(wire)?,
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::value("type metadata is no UTF-8"))
}

/// An object's message in its envelope.
pub fn encode(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(len(api_version, kind, raw.len()));
    header(api_version, kind, raw.len(), &mut out);
    out.extend_from_slice(raw);
    footer(&mut out);
    out
}

/// The size of an envelope around a message of `raw_len` bytes.
pub fn len(api_version: &str, kind: &str, raw_len: usize) -> usize {
    let type_meta = type_meta_len(api_version, kind);
    MAGIC.len()
        + 1
        + varint_len(type_meta as u64)
        + type_meta
        + 1
        + varint_len(raw_len as u64)
        + raw_len
        + 4
}

fn type_meta_len(api_version: &str, kind: &str) -> usize {
    let field = |s: &str| 1 + varint_len(s.len() as u64) + s.len();
    field(api_version) + field(kind)
}

/// What precedes a message of `raw_len` bytes, for writers that stream it.
pub fn header(api_version: &str, kind: &str, raw_len: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&MAGIC);
    wire::put_tag(out, 1, LEN);
    wire::put_varint(out, type_meta_len(api_version, kind) as u64);
    wire::put_bytes(out, 1, api_version.as_bytes());
    wire::put_bytes(out, 2, kind.as_bytes());
    wire::put_tag(out, 2, LEN);
    wire::put_varint(out, raw_len as u64);
}

/// What follows the message: the content encoding and type, both empty.
pub fn footer(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x1a, 0, 0x22, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_bytes_are_upstream_s() {
        let got = encode("v1", "Pod", &[0x0a, 0]);
        assert_eq!(
            got,
            b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x02\x0a\x00\x1a\x00\x22\x00"
        );
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        assert_eq!(decode(b""), Err(Error::Empty));
        assert_eq!(decode(b"{}"), Err(Error::NotEnveloped));
        assert!(decode(b"k8s\0").is_err());
        assert!(decode(b"k8s\0\x12\x05a").is_err());
        assert!(decode(b"k8s\0\x08\x01").is_err());
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        let mut bytes = encode("v1", "Pod", b"x");
        bytes.extend_from_slice(&[0x2a, 1, 0, 0x30, 5]);
        assert_eq!(decode(&bytes).unwrap().raw, b"x");
    }

    proptest! {
        #[test]
        fn envelopes_return(api_version: String, kind: String, raw: Vec<u8>) {
            let bytes = encode(&api_version, &kind, &raw);
            prop_assert_eq!(bytes.len(), len(&api_version, &kind, raw.len()));
            let want = Unknown { api_version: &api_version, kind: &kind, raw: &raw, ..Default::default() };
            prop_assert_eq!(decode(&bytes).unwrap(), want);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = decode(&bytes);
            let _ = decode(&[&MAGIC[..], &bytes].concat());
        }
    }
}
