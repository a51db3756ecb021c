//! Which bytes go over the wire: the only place that knows JSON from protobuf.

use bytes::Bytes;
use meta::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::ContentType;
use crate::error::Error;
use crate::object::ResourceInfo;

pub(crate) const JSON: &str = "application/json";

/// What to ask for when an object of this kind is read.
pub(crate) fn accept(_content_type: ContentType, _resource: &ResourceInfo) -> &'static str {
    JSON
}

/// The content type and the bytes of an object to send.
pub(crate) fn encode<T: Serialize>(
    _content_type: ContentType,
    resource: &ResourceInfo,
    value: &T,
) -> Result<(&'static str, Bytes), Error> {
    let bytes = serde_json::to_vec(value).map_err(|e| Error::Encode {
        what: resource.kind.to_string(),
        message: e.to_string(),
    })?;
    Ok((JSON, bytes.into()))
}

/// An object out of an answer.
pub(crate) fn decode<T: DeserializeOwned>(
    resource: &ResourceInfo,
    _content_type: &str,
    bytes: &[u8],
) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::Decode {
        what: resource.kind.to_string(),
        message: e.to_string(),
    })
}

/// The failure that an answer carries, if it is in the API's format.
pub(crate) fn decode_status(_content_type: &str, bytes: &[u8]) -> Option<Status> {
    #[derive(serde::Deserialize)]
    struct TypeMeta {
        kind: String,
    }
    let ty: TypeMeta = serde_json::from_slice(bytes).ok()?;
    if ty.kind != "Status" {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

/// A list before its items are decoded, so that a bad one does not take the others with it.
pub(crate) struct RawList<T> {
    pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta,
    pub items: Vec<T>,
    pub undecodable: usize,
}

pub(crate) fn decode_list<T: DeserializeOwned>(
    resource: &ResourceInfo,
    _content_type: &str,
    bytes: &[u8],
) -> Result<RawList<T>, Error> {
    #[derive(serde::Deserialize)]
    struct Wire<'a> {
        #[serde(default)]
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta,
        #[serde(borrow, default)]
        items: Option<Vec<&'a serde_json::value::RawValue>>,
    }
    let list: Wire<'_> = serde_json::from_slice(bytes).map_err(|e| Error::Decode {
        what: format!("{} list", resource.kind),
        message: e.to_string(),
    })?;
    let raw = list.items.unwrap_or_default();
    let mut items = Vec::with_capacity(raw.len());
    let mut undecodable = 0;
    for item in raw {
        match serde_json::from_str(item.get()) {
            Ok(item) => items.push(item),
            Err(err) => {
                undecodable += 1;
                tracing::error!(%err, kind = %resource.kind, "skipping an undecodable object in a list");
            }
        }
    }
    Ok(RawList {
        metadata: list.metadata,
        items,
        undecodable,
    })
}

/// What a watch says, in either wire form.
pub(crate) enum RawEvent<T> {
    Added(T),
    Modified(T),
    Deleted(T),
    Bookmark {
        resource_version: String,
        initial_events_end: bool,
    },
    Error(Status),
}

/// Cuts a watch's bytes into events.
pub(crate) struct Frames {
    buffer: bytes::BytesMut,
    /// Bytes of `buffer` that are known to hold no end of a frame.
    scanned: usize,
}

impl Frames {
    pub fn new(_content_type: &str) -> Self {
        Self {
            buffer: bytes::BytesMut::new(),
            scanned: 0,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete frame.
    pub fn next(&mut self) -> Option<Bytes> {
        loop {
            let at = self.buffer[self.scanned..].iter().position(|b| *b == b'\n');
            let Some(at) = at else {
                self.scanned = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.scanned + at + 1).freeze();
            self.scanned = 0;
            if line.iter().any(|b| !b.is_ascii_whitespace()) {
                return Some(line);
            }
        }
    }
}

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(crate) fn decode_event<T: DeserializeOwned>(
    resource: &ResourceInfo,
    frame: &[u8],
) -> Result<RawEvent<T>, Error> {
    #[derive(serde::Deserialize)]
    struct Wire<'a> {
        r#type: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        object: &'a serde_json::value::RawValue,
    }
    #[derive(serde::Deserialize)]
    struct Bookmark {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    }
    let error = |e: serde_json::Error| Error::Decode {
        what: format!("{} event", resource.kind),
        message: e.to_string(),
    };
    let event: Wire<'_> = serde_json::from_slice(frame).map_err(error)?;
    let object = event.object.get();
    Ok(match event.r#type.as_ref() {
        "ADDED" => RawEvent::Added(serde_json::from_str(object).map_err(error)?),
        "MODIFIED" => RawEvent::Modified(serde_json::from_str(object).map_err(error)?),
        "DELETED" => RawEvent::Deleted(serde_json::from_str(object).map_err(error)?),
        "BOOKMARK" => {
            let Bookmark { metadata } = serde_json::from_str(object).map_err(error)?;
            RawEvent::Bookmark {
                resource_version: metadata.resource_version.unwrap_or_default(),
                initial_events_end: metadata
                    .annotations
                    .is_some_and(|a| a.get(INITIAL_EVENTS_END).is_some_and(|v| v == "true")),
            }
        }
        "ERROR" => RawEvent::Error(serde_json::from_str(object).map_err(error)?),
        other => {
            return Err(Error::Decode {
                what: format!("{} event", resource.kind),
                message: format!("unknown type {other:?}"),
            });
        }
    })
}
