//! A long list's body, made piece by piece while it is sent: however many clients read however
//! long lists, each costs a piece and the pointers to the objects, which all lists share.
//!
//! What must not be here: which objects a list has.

use std::io::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::write::GzEncoder;
use meta::Status;

use super::body::BoxError;
use super::encode::{self, ListMeta, View};
use super::negotiate::Media;
use crate::storage::cache::Object;

/// About how many bytes of the list are made at a time.
const PIECE: usize = 64 * 1024;
/// Lists of objects that together have fewer bytes are made at once.
const LONG: usize = 4 * PIECE;

/// What stands for an object in a list.
pub type Item = fn(View, &Arc<Object>) -> codec::Result<Bytes>;

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
    is_first: bool,
    ended: bool,
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
        let mut head = Vec::with_capacity(256);
        let meta = meta.as_codec();
        if media == Media::Protobuf {
            // The length of the whole comes first.
            let mut lengths = Vec::with_capacity(objects.len());
            for object in &objects {
                lengths.push(item(view, object).map_err(Status::internal)?.len());
            }
            codec::list::proto_head(api_version, kind, &meta, lengths.into_iter(), &mut head);
        } else {
            codec::list::json_head(api_version, kind, &meta, &mut head);
        }
        Ok(Pieces {
            view,
            media,
            item,
            objects: objects.into_iter(),
            head,
            is_first: true,
            ended: false,
            gzip: None,
        })
    }

    pub fn compressed(self) -> Pieces {
        // The fastest level, as upstream's.
        let encoder = GzEncoder::new(Vec::with_capacity(PIECE), flate2::Compression::fast());
        Pieces {
            gzip: Some(encoder),
            ..self
        }
    }

    fn piece(&mut self) -> Result<Vec<u8>, BoxError> {
        let mut out = std::mem::take(&mut self.head);
        out.reserve(PIECE);
        while out.len() < PIECE {
            let Some(object) = self.objects.next() else {
                match self.media {
                    Media::Protobuf => codec::envelope::footer(&mut out),
                    _ => out.extend_from_slice(codec::list::JSON_TAIL),
                }
                self.ended = true;
                break;
            };
            let item = (self.item)(self.view, &object)?;
            match self.media {
                Media::Protobuf => codec::list::proto_item(item.len(), &mut out),
                _ if !self.is_first => out.push(b','),
                _ => {}
            }
            self.is_first = false;
            out.extend_from_slice(&item);
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
        while !self.ended {
            match self.piece() {
                // Compression holds back what it has not seen the end of.
                Ok(piece) if piece.is_empty() && !self.ended => {}
                Ok(piece) => return Some(Ok(piece.into())),
                Err(error) => {
                    // The client sees a body that breaks off.
                    tracing::error!(%error, "a list could not be sent to its end");
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

/// Objects as they are.
pub fn message(view: View, object: &Arc<Object>) -> codec::Result<Bytes> {
    view.message(object)
}

pub fn json(view: View, object: &Arc<Object>) -> codec::Result<Bytes> {
    view.bare_json(object)
}

/// Their metadata alone.
pub fn partial_message(view: View, object: &Arc<Object>) -> codec::Result<Bytes> {
    view.partial(object).map(Bytes::from)
}

/// Unlike those of other lists, these items say what they are.
pub fn partial_json(view: View, object: &Arc<Object>) -> codec::Result<Bytes> {
    partial_json_of("meta.k8s.io/v1", view, object)
}

pub fn beta_partial_json(view: View, object: &Arc<Object>) -> codec::Result<Bytes> {
    partial_json_of("meta.k8s.io/v1beta1", view, object)
}

fn partial_json_of(version: &str, view: View, object: &Arc<Object>) -> codec::Result<Bytes> {
    let raw = view.partial(object)?;
    encode::message_json(version, "PartialObjectMetadata", &raw).map(Bytes::from)
}
