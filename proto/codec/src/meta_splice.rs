//! An object's metadata in place: read without decoding the rest, and given another
//! resourceVersion by copying what is around it.
//!
//! Every object's message has its ObjectMeta in field 1. etcd holds objects without a
//! resourceVersion; the one they are sent with is etcd's revision.

use crate::envelope;
use crate::error::{Error, Result};
use crate::special::time::Instant;
use crate::wire::{self, LEN, Reader, VARINT, varint_len};

const METADATA: u32 = 1;
const RESOURCE_VERSION: u32 = 6;

/// Where the resourceVersion of an object is, or would be: the bytes before it, those
/// after it in the metadata, and those after the metadata.
struct Cut<'a> {
    /// Before the metadata; empty in what gogo-proto writes.
    head: &'a [u8],
    before: &'a [u8],
    after: &'a [u8],
    tail: &'a [u8],
}

/// Legal protobuf, but not what any Kubernetes encoder writes; the last one would count,
/// or both together.
fn twice(field: &'static str) -> Error {
    Error::value(format!("proto: field {field} occurs more than once"))
}

fn cut(raw: &[u8]) -> Result<Cut<'_>> {
    let mut found = None;
    let mut r = Reader::new(raw);
    while !r.done() {
        let start = r.pos();
        let (number, wire) = r.tag()?;
        if number != METADATA {
            r.skip(wire)?;
            continue;
        }
        if wire != LEN {
            let field = "metadata";
            return Err(Error::WrongWireType { wire, field });
        }
        let meta = r.bytes()?;
        let (from, to) = find_version(meta)?;
        let cut = Cut {
            head: &raw[..start],
            before: &meta[..from],
            after: &meta[to..],
            tail: &raw[r.pos()..],
        };
        if found.replace(cut).is_some() {
            return Err(twice("metadata"));
        }
    }
    Ok(found.unwrap_or(Cut {
        head: &[],
        before: &[],
        after: &[],
        tail: raw,
    }))
}

/// Where the resourceVersion's field begins and ends in the metadata; an empty range
/// where it belongs if there is none.
fn find_version(meta: &[u8]) -> Result<(usize, usize)> {
    let (mut found, mut place) = (None, None);
    let mut r = Reader::new(meta);
    while !r.done() {
        let start = r.pos();
        let (number, wire) = r.tag()?;
        r.skip(wire)?;
        if number == RESOURCE_VERSION && found.replace((start, r.pos())).is_some() {
            return Err(twice("resourceVersion"));
        }
        if number > RESOURCE_VERSION && place.is_none() {
            place = Some(start);
        }
    }
    let place = place.unwrap_or(meta.len());
    Ok(found.unwrap_or((place, place)))
}

impl Cut<'_> {
    fn meta_len(&self, version: &str) -> usize {
        let field = 1 + varint_len(version.len() as u64) + version.len();
        self.before.len() + field + self.after.len()
    }

    fn len(&self, version: &str) -> usize {
        let meta = self.meta_len(version);
        self.head.len() + 1 + varint_len(meta as u64) + meta + self.tail.len()
    }

    fn write(&self, version: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(self.head);
        wire::put_tag(out, METADATA, LEN);
        wire::put_varint(out, self.meta_len(version) as u64);
        out.extend_from_slice(self.before);
        wire::put_bytes(out, RESOURCE_VERSION, version.as_bytes());
        out.extend_from_slice(self.after);
        out.extend_from_slice(self.tail);
    }
}

/// Writes an object's message with this resourceVersion, as gogo-proto would write the
/// object. An empty one is what etcd stores.
pub fn set_resource_version(raw: &[u8], version: &str, out: &mut Vec<u8>) -> Result<()> {
    let cut = cut(raw)?;
    out.reserve(cut.len(version));
    cut.write(version, out);
    Ok(())
}

/// Writes an object's message without a resourceVersion, as etcd stores it.
pub fn strip_resource_version(raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
    set_resource_version(raw, "", out)
}

/// The same as [`set_resource_version`] for an object in its envelope.
pub fn set_enveloped_resource_version(
    stored: &[u8],
    version: &str,
    out: &mut Vec<u8>,
) -> Result<()> {
    let unknown = envelope::decode(stored)?;
    let cut = cut(unknown.raw)?;
    let len = cut.len(version);
    out.reserve(envelope::len(unknown.api_version, unknown.kind, len));
    envelope::header(unknown.api_version, unknown.kind, len, out);
    cut.write(version, out);
    envelope::footer(out);
    Ok(())
}

/// An object's metadata, borrowed from its bytes. Single values have been read, lists and
/// maps are read when they are iterated.
#[derive(Debug, Clone, Copy, Default)]
pub struct ObjectMeta<'a> {
    pub name: &'a str,
    pub generate_name: &'a str,
    /// Empty for objects of the cluster.
    pub namespace: &'a str,
    pub uid: &'a str,
    pub resource_version: &'a str,
    pub generation: i64,
    /// Seconds of the Unix epoch.
    pub creation_timestamp: Option<i64>,
    /// Seconds of the Unix epoch.
    pub deletion_timestamp: Option<i64>,
    pub deletion_grace_period_seconds: Option<i64>,
    raw: &'a [u8],
}

/// `metav1.OwnerReference`, borrowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

fn text(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| Error::value("object metadata is no UTF-8"))
}

impl<'a> ObjectMeta<'a> {
    /// Reads the metadata of an object's message; that of an object without any is empty.
    pub fn of(raw: &'a [u8]) -> Result<Self> {
        match crate::special::repeated(raw, METADATA).next() {
            Some(meta) => Self::decode(meta?),
            None => Ok(Self::default()),
        }
    }

    fn decode(raw: &'a [u8]) -> Result<Self> {
        let mut meta = ObjectMeta {
            raw,
            ..Self::default()
        };
        let time = |bytes| Ok(Instant::decode(bytes, false)?.map(|t| t.seconds));
        let mut r = Reader::new(raw);
        while !r.done() {
            match r.tag()? {
                (1, LEN) => meta.name = text(r.bytes()?)?,
                (2, LEN) => meta.generate_name = text(r.bytes()?)?,
                (3, LEN) => meta.namespace = text(r.bytes()?)?,
                (5, LEN) => meta.uid = text(r.bytes()?)?,
                (RESOURCE_VERSION, LEN) => meta.resource_version = text(r.bytes()?)?,
                (7, VARINT) => meta.generation = r.varint()? as i64,
                (8, LEN) => meta.creation_timestamp = time(r.bytes()?)?,
                (9, LEN) => meta.deletion_timestamp = time(r.bytes()?)?,
                (10, VARINT) => meta.deletion_grace_period_seconds = Some(r.varint()? as i64),
                (_, wire) => r.skip(wire)?,
            }
        }
        Ok(meta)
    }

    /// In the order of the bytes, which is sorted by key in what gogo-proto writes.
    pub fn labels(&self) -> impl Iterator<Item = Result<(&'a str, &'a str)>> + use<'a> {
        pairs(self.raw, 11)
    }

    pub fn annotations(&self) -> impl Iterator<Item = Result<(&'a str, &'a str)>> + use<'a> {
        pairs(self.raw, 12)
    }

    pub fn owner_references(&self) -> impl Iterator<Item = Result<OwnerReference<'a>>> + use<'a> {
        crate::special::repeated(self.raw, 13).map(|raw| owner_reference(raw?))
    }

    pub fn finalizers(&self) -> impl Iterator<Item = Result<&'a str>> + use<'a> {
        crate::special::repeated(self.raw, 14).map(|raw| text(raw?))
    }

    /// The value of a label, if it has one.
    pub fn label(&self, key: &str) -> Option<&'a str> {
        self.labels()
            .filter_map(Result::ok)
            .find_map(|(k, v)| (k == key).then_some(v))
    }
}

fn pairs<'a>(
    raw: &'a [u8],
    number: u32,
) -> impl Iterator<Item = Result<(&'a str, &'a str)>> + use<'a> {
    crate::special::repeated(raw, number).map(|entry| {
        let (mut key, mut value) = ("", "");
        let mut r = Reader::new(entry?);
        while !r.done() {
            match r.tag()? {
                (1, LEN) => key = text(r.bytes()?)?,
                (2, LEN) => value = text(r.bytes()?)?,
                (_, wire) => r.skip(wire)?,
            }
        }
        Ok((key, value))
    })
}

fn owner_reference(raw: &[u8]) -> Result<OwnerReference<'_>> {
    let mut owner = OwnerReference::default();
    let mut r = Reader::new(raw);
    while !r.done() {
        match r.tag()? {
            (1, LEN) => owner.kind = text(r.bytes()?)?,
            (3, LEN) => owner.name = text(r.bytes()?)?,
            (4, LEN) => owner.uid = text(r.bytes()?)?,
            (5, LEN) => owner.api_version = text(r.bytes()?)?,
            (6, VARINT) => owner.controller = r.varint()? != 0,
            (7, VARINT) => owner.block_owner_deletion = r.varint()? != 0,
            (_, wire) => r.skip(wire)?,
        }
    }
    Ok(owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(version: Option<&str>, labels: usize) -> (Value, Vec<u8>) {
        let labels: serde_json::Map<_, _> = (0..labels)
            .map(|i| (format!("label-{i}"), json!(format!("value-{i}"))))
            .collect();
        let mut tree = json!({
            "metadata": {
                "name": "a", "namespace": "default", "uid": "u", "generation": 3,
                "creationTimestamp": "2020-01-01T00:00:00Z",
                "labels": labels,
                "annotations": {"k": "v"},
                "finalizers": ["f/1", "f/2"],
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "ru",
                    "controller": true,
                }],
            },
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        });
        if let Some(version) = version {
            tree["metadata"]["resourceVersion"] = version.into();
        }
        let msg = schema::kind("", "v1", "Pod").unwrap();
        let mut raw = Vec::new();
        crate::tree::to_proto(msg, &tree, &mut raw).unwrap();
        (tree, raw)
    }

    #[test]
    fn the_result_is_what_gogo_would_write() {
        // The length of the metadata takes one, two and three bytes.
        for labels in [0, 5, 800] {
            let (_, stored) = pod(None, labels);
            let (_, sent) = pod(Some("123456"), labels);
            let mut out = Vec::new();
            set_resource_version(&stored, "123456", &mut out).unwrap();
            assert_eq!(out, sent);
            let mut out = Vec::new();
            strip_resource_version(&sent, &mut out).unwrap();
            assert_eq!(out, stored);
            let mut out = Vec::new();
            let stored = envelope::encode("v1", "Pod", &stored);
            set_enveloped_resource_version(&stored, "123456", &mut out).unwrap();
            assert_eq!(out, envelope::encode("v1", "Pod", &sent));
        }
    }

    #[test]
    fn a_missing_version_goes_where_it_belongs() {
        // {1: {1: "a", 7: 1}} and an object without metadata.
        let raw = [0x0a, 5, 0x0a, 1, b'a', 0x38, 1, 0x12, 0];
        let mut out = Vec::new();
        set_resource_version(&raw, "9", &mut out).unwrap();
        assert_eq!(
            out,
            [0x0a, 8, 0x0a, 1, b'a', 0x32, 1, b'9', 0x38, 1, 0x12, 0]
        );
        let mut out = Vec::new();
        set_resource_version(&[0x12, 0], "9", &mut out).unwrap();
        assert_eq!(out, [0x0a, 3, 0x32, 1, b'9', 0x12, 0]);
        for raw in [&[0x0a, 4, 0x32, 0, 0x32, 0][..], &[0x0a, 0, 0x0a, 0]] {
            assert!(set_resource_version(raw, "9", &mut Vec::new()).is_err());
        }
    }

    #[test]
    fn metadata_is_read_in_place() {
        let (_, raw) = pod(Some("5"), 2);
        let meta = ObjectMeta::of(&raw).unwrap();
        assert_eq!((meta.name, meta.namespace, meta.uid), ("a", "default", "u"));
        assert_eq!((meta.resource_version, meta.generation), ("5", 3));
        assert_eq!(meta.creation_timestamp, Some(1_577_836_800));
        assert_eq!(meta.deletion_timestamp, None);
        assert_eq!(meta.deletion_grace_period_seconds, None);
        assert_eq!(meta.label("label-1"), Some("value-1"));
        assert_eq!(meta.label("label-9"), None);
        let annotations: Vec<_> = meta.annotations().map(Result::unwrap).collect();
        assert_eq!(annotations, [("k", "v")]);
        let finalizers: Vec<_> = meta.finalizers().map(Result::unwrap).collect();
        assert_eq!(finalizers, ["f/1", "f/2"]);
        let owners: Vec<_> = meta.owner_references().map(Result::unwrap).collect();
        let want = OwnerReference {
            api_version: "apps/v1",
            kind: "ReplicaSet",
            name: "r",
            uid: "ru",
            controller: true,
            block_owner_deletion: false,
        };
        assert_eq!(owners, [want]);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(raw: Vec<u8>) {
            let _ = set_resource_version(&raw, "1", &mut Vec::new());
            let _ = set_enveloped_resource_version(&raw, "1", &mut Vec::new());
            if let Ok(meta) = ObjectMeta::of(&raw) {
                meta.labels().for_each(drop);
                meta.owner_references().for_each(drop);
                meta.finalizers().for_each(drop);
            }
        }
    }
}
