//! A long list's body, made piece by piece while it is sent: however many clients read however
//! long lists, each costs a piece and the pointers to the objects, which all lists share.
//!
//! What must not be here: which objects a list has.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use component::aside::{self, aside};
use flate2::write::GzEncoder;
use meta::Status;
use serde_json::Value;

use super::super::body::BoxError;
use super::super::encode::{self, ListMeta, View};
use super::super::indent::Indenter;
use super::super::negotiate::Media;
use super::meta_version;
use super::table::{self, Include};
use crate::storage::cache::Object;

/// About how many bytes of the list are made at a time.
const PIECE: usize = 64 * 1024;
/// Lists of objects that together have fewer bytes are made at once.
const LONG: usize = 4 * PIECE;

/// What stands for an object in a list.
#[derive(Debug, Clone, Copy)]
pub enum Item {
    Object,
    /// Its metadata alone, as `meta.k8s.io/v1` or as its beta.
    Partial {
        beta: bool,
    },
    /// A row of a Table.
    Row(Include),
}

impl Item {
    fn encoded(self, view: View, object: &Arc<Object>, media: Media) -> codec::Result<Bytes> {
        aside(object.bytes().len() > aside::LONG, || match (self, media) {
            (Item::Object, Media::Protobuf) => view.message(object),
            (Item::Partial { .. }, Media::Protobuf) => view.partial(object).map(Bytes::from),
            (_, Media::Yaml) => {
                let json = self.json(view, object)?;
                let yaml = aside(json.len() > media.long(), || yaml_item(&json));
                yaml.map(Bytes::from)
            }
            _ => self.json(view, object),
        })
    }

    fn json(self, view: View, object: &Arc<Object>) -> codec::Result<Bytes> {
        match self {
            Item::Object => view.bare_json(object),
            // Unlike those of other lists, these items say what they are.
            Item::Partial { beta } => partial_json(view, object, beta).map(Bytes::from),
            Item::Row(Include::Metadata { beta }) => {
                // What managers own is the larger part of most metadata, and here no tree is
                // made of it.
                let none = row_json(view, object, Include::None)?;
                let cells = none.strip_suffix(b"null}").ok_or_else(|| {
                    codec::Error::Custom("a row does not end with its object".to_owned())
                })?;
                let metadata = partial_json(view, object, beta)?;
                Ok([cells, &metadata, b"}"].concat().into())
            }
            Item::Row(include) => row_json(view, object, include).map(Bytes::from),
        }
    }
}

fn partial_json(view: View, object: &Arc<Object>, beta: bool) -> codec::Result<Vec<u8>> {
    let raw = view.partial(object)?;
    encode::message_json(meta_version(beta), "PartialObjectMetadata", &raw)
}

fn row_json(view: View, object: &Arc<Object>, include: Include) -> codec::Result<Vec<u8>> {
    let tree = view.tree(object)?;
    let row = table::row(view.served, &tree, include, jiff::Timestamp::now());
    encode::table_row(&row)
}

/// An item of a sequence in YAML, of its JSON. A list's sequence stands as far to the left as one
/// that is a document.
fn yaml_item(json: &[u8]) -> codec::Result<Vec<u8>> {
    let sequence = Value::Array(vec![codec::decode::untyped(json)?]);
    let mut out = Vec::new();
    codec::write_yaml(&sequence, &mut out);
    Ok(out)
}

/// What comes before the items of a list and after them, of the list without any.
fn around(empty: &[u8], media: Media, key: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (none, open) = match media {
        Media::Yaml => (format!("{key}: []\n"), format!("{key}:\n")),
        _ => (format!("\"{key}\":[]"), format!("\"{key}\":[")),
    };
    let at = empty
        .windows(none.len())
        .position(|w| w == none.as_bytes())?;
    let mut head = empty[..at].to_vec();
    head.extend_from_slice(open.as_bytes());
    let mut tail = Vec::new();
    if media != Media::Yaml {
        tail.push(b']');
    }
    tail.extend_from_slice(&empty[at + none.len()..]);
    Some((head, tail))
}

/// Whether a list is worth making in pieces.
pub fn is_long(objects: &[Arc<Object>]) -> bool {
    let mut bytes = 0;
    objects.iter().any(|object| {
        bytes += object.bytes().len();
        bytes > LONG
    })
}

/// The pieces of a body, in order.
pub struct Pieces {
    view: View,
    media: Media,
    item: Item,
    objects: std::vec::IntoIter<Arc<Object>>,
    /// What comes before the first item, until it has been sent.
    head: Vec<u8>,
    /// What comes after the last one.
    tail: Vec<u8>,
    is_first: bool,
    ended: bool,
    indented: Option<Indenter>,
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Pieces {
    /// # Errors
    /// An object cannot be shown.
    pub fn new(
        view: View,
        (api_version, kind): (&str, &str),
        meta: &ListMeta,
        objects: Vec<Arc<Object>>,
        item: Item,
        media: Media,
    ) -> Result<Pieces, Status> {
        let (head, tail) = if media == Media::Protobuf {
            let mut head = Vec::with_capacity(256);
            // The length of the whole comes first.
            let mut lengths = Vec::with_capacity(objects.len());
            for object in &objects {
                let item = item
                    .encoded(view, object, media)
                    .map_err(Status::internal)?;
                lengths.push(item.len());
            }
            let lengths = lengths.into_iter();
            codec::list::proto_head(api_version, kind, &meta.as_codec(), lengths, &mut head);
            let mut tail = Vec::new();
            codec::envelope::footer(&mut tail);
            (head, tail)
        } else {
            let (empty, key) = match item {
                Item::Row(_) => {
                    let table = table::table(view.served, meta, Vec::new(), true);
                    let empty = encode::tree(api_version, kind, &table, media, false);
                    (empty, "rows")
                }
                _ => (
                    encode::items(api_version, kind, meta, &[], media, false),
                    "items",
                ),
            };
            let empty = empty.map_err(Status::internal)?;
            around(&empty, media, key)
                .ok_or_else(|| Status::internal(format!("a {kind} has no {key}")))?
        };
        Ok(Pieces {
            view,
            media,
            item,
            objects: objects.into_iter(),
            head,
            tail,
            is_first: true,
            ended: false,
            indented: None,
            gzip: None,
        })
    }

    /// As people read JSON; of other forms there is but one.
    pub fn pretty(self) -> Pieces {
        let indented = (self.media == Media::Json).then(Indenter::default);
        Pieces { indented, ..self }
    }

    pub fn compressed(self) -> Pieces {
        // The fastest level, as upstream's.
        let encoder = GzEncoder::new(Vec::with_capacity(PIECE), flate2::Compression::fast());
        Pieces {
            gzip: Some(encoder),
            ..self
        }
    }

    /// The next piece; empty when compression holds back what it has not seen the end of.
    fn piece(&mut self) -> Result<Vec<u8>, BoxError> {
        let mut out = std::mem::take(&mut self.head);
        out.reserve(PIECE);
        // Rows of Tables are small, and take long to make.
        let began = Instant::now();
        while out.len() < PIECE && began.elapsed() < aside::TURN {
            let Some(object) = self.objects.next() else {
                out.append(&mut self.tail);
                self.ended = true;
                break;
            };
            let item = self.item.encoded(self.view, &object, self.media)?;
            match self.media {
                Media::Protobuf => codec::list::proto_item(item.len(), &mut out),
                Media::Json if !self.is_first => out.push(b','),
                _ => {}
            }
            self.is_first = false;
            out.extend_from_slice(&item);
        }
        if let Some(indenter) = &mut self.indented {
            let compact = std::mem::take(&mut out);
            indenter.feed(&compact, &mut out);
        }
        let Some(gzip) = &mut self.gzip else {
            return Ok(out);
        };
        gzip.write_all(&out)?;
        if self.ended {
            gzip.try_finish()?;
        }
        Ok(std::mem::take(gzip.get_mut()))
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, BoxError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let piece = self.piece().inspect_err(|error| {
            // The client sees a body that breaks off.
            tracing::error!(%error, "a list could not be sent to its end");
            self.ended = true;
        });
        Some(piece.map(Bytes::from))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn yaml(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        codec::write_yaml(value, &mut out);
        out
    }

    #[test]
    fn a_list_in_yaml_is_the_sum_of_its_items() {
        let items = [
            json!({"metadata": {"name": "a"}, "data": {"x": "one\n\n  two\n", "y": " z\nw", "e": ""}}),
            json!({"a": [], "b": {}, "c": [[1, 2], {"d": null}], "f": "- x: y", "long": "w ".repeat(200)}),
            json!({}),
            json!({"cells": ["a", 1, "tab\there"]}),
        ];
        let list = |items: &[Value]| json!({"apiVersion": "v1", "items": items, "kind": "L", "metadata": {"resourceVersion": "7"}});
        let (mut text, tail) = around(&yaml(&list(&[])), Media::Yaml, "items").unwrap();
        for item in &items {
            text.extend(yaml_item(item.to_string().as_bytes()).unwrap());
        }
        text.extend(tail);
        let whole = yaml(&list(&items));
        assert_eq!(String::from_utf8(text), String::from_utf8(whole));
    }

    #[test]
    fn a_table_is_cut_before_its_rows() {
        let (head, tail) = around(b"{\"a\":1,\"rows\":[]}\n", Media::Json, "rows").unwrap();
        assert_eq!(head, b"{\"a\":1,\"rows\":[");
        assert_eq!(tail, b"]}\n");
    }
}
