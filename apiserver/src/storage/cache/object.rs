//! One stored object: its bytes, the index entry, and encodings made of it on demand.
//!
//! Small on purpose: a cluster holds hundreds of thousands of these. Strings that are only
//! compared (labels, selectable fields) are packed into one allocation.
//!
//! What must not be here: how bytes are read (`Ingest`), where objects are kept.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::encodings::Encodings;
use super::{Definition, Ingested};
use crate::storage::Revision;

/// An object at one revision. Immutable but for the encodings that are kept with it.
pub struct Object {
    /// `<namespace>/<name>` or `<name>`.
    key: Box<str>,
    /// Where the name starts in `key`.
    name: u32,
    revision: Revision,
    bytes: Bytes,
    labels: Strings,
    fields: Strings,
    encodings: Mutex<Vec<(u32, Bytes)>>,
    budget: Weak<Encodings>,
}

impl Object {
    pub(super) fn new(
        definition: &Definition,
        key: &str,
        revision: Revision,
        found: Ingested,
        budget: Weak<Encodings>,
    ) -> Self {
        let mut labels = found.labels;
        labels.sort_unstable();
        let name = if definition.namespaced {
            key.find('/').map_or(0, |i| i + 1)
        } else {
            0
        };
        Self {
            key: key.into(),
            name: name as u32,
            revision,
            bytes: found.bytes,
            labels: labels
                .iter()
                .flat_map(|(k, v)| [k.as_str(), v.as_str()])
                .collect(),
            fields: found.fields.iter().map(String::as_str).collect(),
            encodings: Mutex::default(),
            budget,
        }
    }

    /// The same object under another revision.
    pub(super) fn restamped(&self, revision: Revision, bytes: Bytes) -> Self {
        Self {
            key: self.key.clone(),
            name: self.name,
            revision,
            bytes,
            labels: self.labels.clone(),
            fields: self.fields.clone(),
            encodings: Mutex::default(),
            budget: self.budget.clone(),
        }
    }

    /// The key below the resource's prefix: `<namespace>/<name>`, or `<name>`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Empty for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        &self.key[..(self.name as usize).saturating_sub(1)]
    }

    pub fn name(&self) -> &str {
        &self.key[self.name as usize..]
    }

    /// etcd's mod revision; for an object that a watch sends as deleted, the revision at which
    /// it went. `metadata.resourceVersion` in [`bytes`](Self::bytes) is the same number.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The stored form (protobuf envelope or JSON) with `metadata.resourceVersion` in it.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub fn labels(&self) -> Labels<'_> {
        Labels(&self.labels)
    }

    /// The value of [`Definition::fields`]`[i]`.
    pub fn field(&self, i: usize) -> &str {
        self.fields.iter().nth(i).unwrap_or_default()
    }

    /// Another form of the object (JSON, another version, a watch frame), made once and shared
    /// while the cache's byte budget lasts. `id` names the form among all that the caller makes
    /// of this resource's objects. `make` must not ask the same object for another form.
    pub fn encoding<E>(
        self: &Arc<Self>,
        id: u32,
        make: impl FnOnce(&Self) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        // Made under the lock: a second watcher that wants the same form waits for it instead
        // of making it again.
        let mut encodings = self.encodings.lock();
        if let Some((_, bytes)) = encodings.iter().find(|(i, _)| *i == id) {
            return Ok(bytes.clone());
        }
        let bytes = make(self)?;
        if let Some(budget) = self.budget.upgrade() {
            let first = encodings.is_empty();
            encodings.push((id, bytes.clone()));
            drop(encodings);
            budget.keep(self, bytes.len(), first);
        }
        Ok(bytes)
    }

    /// A form that has been made already.
    pub fn kept_encoding(&self, id: u32) -> Option<Bytes> {
        let encodings = self.encodings.lock();
        let kept = encodings.iter().find(|(i, _)| *i == id);
        kept.map(|(_, bytes)| bytes.clone())
    }

    /// Drops the encodings; says how many bytes that were.
    pub(super) fn forget_encodings(&self) -> usize {
        let gone = std::mem::take(&mut *self.encodings.lock());
        gone.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// About what the object keeps allocated, encodings aside.
    pub(super) fn cost(&self) -> usize {
        std::mem::size_of::<Self>()
            + self.key.len()
            + self.bytes.len()
            + self.labels.0.len()
            + self.fields.0.len()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let kept: usize = self.encodings.get_mut().iter().map(|(_, b)| b.len()).sum();
        if kept > 0
            && let Some(budget) = self.budget.upgrade()
        {
            budget.release(kept);
        }
    }
}

impl std::fmt::Debug for Object {
    /// Never the content: it may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.key, self.revision)
    }
}

/// An object's labels, sorted by key.
#[derive(Clone, Copy)]
pub struct Labels<'a>(&'a Strings);

impl<'a> Labels<'a> {
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut strings = self.0.iter();
        std::iter::from_fn(move || Some((strings.next()?, strings.next()?)))
    }
}

/// Strings one behind the other, each after its length as a little-endian base-128 number.
#[derive(Clone, Default)]
struct Strings(Box<[u8]>);

impl Strings {
    fn iter(&self) -> impl Iterator<Item = &str> {
        let mut rest = &self.0[..];
        std::iter::from_fn(move || {
            let mut length = 0usize;
            let mut shift = 0;
            loop {
                let (&byte, tail) = rest.split_first()?;
                rest = tail;
                length |= usize::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
                shift += 7;
            }
            let (string, tail) = rest.split_at_checked(length)?;
            rest = tail;
            std::str::from_utf8(string).ok()
        })
    }
}

impl<'a> FromIterator<&'a str> for Strings {
    fn from_iter<T: IntoIterator<Item = &'a str>>(strings: T) -> Self {
        let mut bytes = Vec::new();
        for string in strings {
            let mut length = string.len();
            while length >= 0x80 {
                bytes.push(length as u8 | 0x80);
                length >>= 7;
            }
            bytes.push(length as u8);
            bytes.extend_from_slice(string.as_bytes());
        }
        Self(bytes.into())
    }
}
