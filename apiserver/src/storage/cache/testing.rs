//! What the cache's tests share: a resource of lines of text.
//!
//! A value is `label=value` lines; the field `spec.nodeName` is the line `node=…`, and the
//! resource version is the first line once the object has been ingested.

use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::object::Object;
use super::{Definition, Ingest, Ingested, SelectableField};
use crate::storage::Revision;

pub(in crate::storage) struct Lines;

impl Ingest for Lines {
    fn ingest(&self, value: &[u8], revision: Revision) -> Result<Ingested, String> {
        let text = std::str::from_utf8(value).map_err(|_| "no text")?;
        let mut found = Ingested {
            bytes: self.restamp(value, revision)?,
            fields: vec![String::new()],
            ..Ingested::default()
        };
        for line in text.lines().filter(|line| !line.starts_with("rv=")) {
            match line.split_once('=').ok_or("a line without =")? {
                ("node", node) => found.fields[0] = node.into(),
                (label, value) => found.labels.push((label.into(), value.into())),
            }
        }
        Ok(found)
    }

    fn restamp(&self, bytes: &[u8], revision: Revision) -> Result<Bytes, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "no text")?;
        let rest = match text.strip_prefix("rv=") {
            Some(rest) => rest.split_once('\n').map_or("", |(_, rest)| rest),
            None => text,
        };
        Ok(format!("rv={revision}\n{rest}").into())
    }
}

pub(in crate::storage) fn definition(resource: &str, namespaced: bool) -> Definition {
    Definition {
        group: String::new(),
        resource: resource.into(),
        storage_prefix: resource.into(),
        namespaced,
        fields: vec![SelectableField {
            name: "spec.nodeName".into(),
            indexed: true,
        }],
        ingest: Arc::new(Lines),
    }
}

/// An object without labels, as if it had been ingested.
pub(super) fn object(key: &str, revision: Revision) -> Arc<Object> {
    object_of(key, revision, "")
}

pub(super) fn object_of(key: &str, revision: Revision, value: &str) -> Arc<Object> {
    let found = Lines.ingest(value.as_bytes(), revision).unwrap();
    let definition = definition("pods", key.contains('/'));
    Arc::new(Object::new(&definition, key, revision, found, Weak::new()))
}
