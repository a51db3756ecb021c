//! Which bytes go over the wire: the only place that knows JSON from protobuf.
//!
//! Built-in kinds are asked for, and sent, as Kubernetes protobuf; what the schema does not
//! know (custom resources, metadata-only requests) as JSON. Answers are read by what they say
//! they are. Slim structs are decoded straight from either form.

use std::borrow::Cow;

use bytes::{Buf as _, Bytes, BytesMut};
use codec::{envelope, list, serde_pb, watch_event};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use meta::Status;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::ContentType;
use crate::error::Error;
use crate::object::ResourceInfo;

pub(crate) const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const EITHER: &str = "application/vnd.kubernetes.protobuf,application/json";

/// A single event may not be larger: etcd's objects are 1.5 MiB at most, JSON of binary data
/// is a third larger.
const MAX_EVENT: usize = 16 << 20;
/// Annotation of the bookmark that ends a streamed list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

fn message(resource: &ResourceInfo) -> Option<&'static schema::Message> {
    schema::kind(&resource.group, &resource.version, &resource.kind)
}

/// The message of a kind that an answer in protobuf is of.
fn known_message(resource: &ResourceInfo) -> Result<&'static schema::Message, Error> {
    message(resource)
        .ok_or_else(|| decode_error(resource, "", "the server answered in protobuf, unasked"))
}

fn decode_error(resource: &ResourceInfo, what: &str, e: impl std::fmt::Display) -> Error {
    let kind = if resource.kind.is_empty() {
        &resource.plural
    } else {
        &resource.kind
    };
    Error::Decode {
        what: format!("{kind}{what}"),
        message: e.to_string(),
    }
}

fn is_protobuf(content_type: &str) -> bool {
    content_type.starts_with(PROTOBUF)
}

/// What to ask for when an object of this kind is read.
pub(crate) fn accept(content_type: ContentType, resource: &ResourceInfo) -> &'static str {
    match content_type {
        ContentType::Protobuf if message(resource).is_some() => EITHER,
        _ => JSON,
    }
}

/// The content type and the bytes of an object to send.
pub(crate) fn encode<T: Serialize>(
    content_type: ContentType,
    resource: &ResourceInfo,
    value: &T,
) -> Result<(&'static str, Bytes), Error> {
    let error = |e: &dyn std::fmt::Display| Error::Encode {
        what: resource.kind.to_string(),
        message: e.to_string(),
    };
    if let (ContentType::Protobuf, Some(message)) = (content_type, message(resource)) {
        let raw = serde_pb::to_vec(message, value).map_err(|e| error(&e))?;
        let bytes = envelope::encode(&resource.api_version(), &resource.kind, &raw);
        return Ok((PROTOBUF, bytes.into()));
    }
    let bytes = serde_json::to_vec(value).map_err(|e| error(&e))?;
    Ok((JSON, bytes.into()))
}

/// An object out of an answer.
pub(crate) fn decode<T: DeserializeOwned>(
    resource: &ResourceInfo,
    content_type: &str,
    bytes: &[u8],
) -> Result<T, Error> {
    if is_protobuf(content_type) {
        return decode_enveloped(known_message(resource)?, bytes)
            .map_err(|e| decode_error(resource, "", e));
    }
    serde_json::from_slice(bytes).map_err(|e| decode_error(resource, "", e))
}

fn decode_enveloped<T: DeserializeOwned>(
    message: &'static schema::Message,
    bytes: &[u8],
) -> codec::Result<T> {
    let unknown = envelope::decode(bytes)?;
    serde_pb::from_slice_with_type_meta(message, unknown.raw, unknown.api_version, unknown.kind)
}

/// The failure that an answer carries, if it is in the API's format.
pub(crate) fn decode_status(content_type: &str, bytes: &[u8]) -> Option<Status> {
    if is_protobuf(content_type) {
        return status_of_envelope(bytes).ok().flatten();
    }
    #[derive(Deserialize)]
    struct TypeMeta {
        kind: String,
    }
    let ty: TypeMeta = serde_json::from_slice(bytes).ok()?;
    if ty.kind != "Status" {
        return None;
    }
    serde_json::from_slice(bytes).ok()
}

fn status_of_envelope(bytes: &[u8]) -> codec::Result<Option<Status>> {
    let unknown = envelope::decode(bytes)?;
    match schema::kind("", "v1", "Status") {
        Some(message) if unknown.kind == "Status" => {
            serde_pb::from_slice(message, unknown.raw).map(Some)
        }
        _ => Ok(None),
    }
}

/// A list whose bad items have been left out, so that they do not take the others with them.
pub(crate) struct RawList<T> {
    pub metadata: ListMeta,
    pub items: Vec<T>,
    pub undecodable: usize,
}

impl<T> RawList<T> {
    fn of(
        resource: &ResourceInfo,
        metadata: ListMeta,
        results: impl Iterator<Item = Result<T, Error>>,
    ) -> Self {
        let mut list = Self {
            metadata,
            items: Vec::with_capacity(results.size_hint().0),
            undecodable: 0,
        };
        for result in results {
            match result {
                Ok(item) => list.items.push(item),
                Err(err) => {
                    list.undecodable += 1;
                    tracing::error!(%err, resource = %resource.plural, "skipping an undecodable object in a list");
                }
            }
        }
        list
    }
}

pub(crate) fn decode_list<T: DeserializeOwned>(
    resource: &ResourceInfo,
    content_type: &str,
    bytes: &[u8],
) -> Result<RawList<T>, Error> {
    if is_protobuf(content_type) {
        let message = known_message(resource)?;
        let error = |e| decode_error(resource, " list", e);
        let raw = envelope::decode(bytes).map_err(error)?.raw;
        let list = list::List::decode(raw).map_err(error)?;
        let text = |s: &str| Some(s.to_owned()).filter(|s| !s.is_empty());
        let metadata = ListMeta {
            resource_version: text(list.meta.resource_version),
            continue_: text(list.meta.continue_token),
            remaining_item_count: list.meta.remaining_item_count,
            ..ListMeta::default()
        };
        let items = list.items().map(|item| {
            item.and_then(|raw| serde_pb::from_slice(message, raw))
                .map_err(|e| decode_error(resource, "", e))
        });
        return Ok(RawList::of(resource, metadata, items));
    }
    #[derive(Deserialize)]
    struct Wire<'a> {
        #[serde(default)]
        metadata: ListMeta,
        #[serde(borrow, default)]
        items: Option<Vec<&'a RawValue>>,
    }
    let list: Wire<'_> =
        serde_json::from_slice(bytes).map_err(|e| decode_error(resource, " list", e))?;
    let items = list.items.unwrap_or_default();
    let items = items
        .into_iter()
        .map(|item| serde_json::from_str(item.get()).map_err(|e| decode_error(resource, "", e)));
    Ok(RawList::of(resource, list.metadata, items))
}

/// What a watch says, in either wire form.
#[derive(Debug)]
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
    protobuf: bool,
    resource: ResourceInfo,
    message: Option<&'static schema::Message>,
    buffer: BytesMut,
    /// Bytes of `buffer` that are known to hold no end of a line.
    scanned: usize,
}

impl Frames {
    pub fn new(content_type: &str, resource: ResourceInfo) -> Self {
        Self {
            protobuf: is_protobuf(content_type),
            message: message(&resource),
            resource,
            buffer: BytesMut::new(),
            scanned: 0,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event's bytes, if they are all there.
    pub fn next(&mut self) -> Result<Option<Bytes>, String> {
        let frame = if self.protobuf {
            self.next_message()?
        } else {
            self.next_line()
        };
        if frame.is_none() && self.buffer.len() > MAX_EVENT {
            return Err(format!("an event is larger than {MAX_EVENT} bytes"));
        }
        Ok(frame)
    }

    fn next_message(&mut self) -> Result<Option<Bytes>, String> {
        let frame = watch_event::frame(&self.buffer, MAX_EVENT).map_err(|e| e.to_string())?;
        let Some(taken) = frame.map(|(_, taken)| taken) else {
            return Ok(None);
        };
        let mut frame = self.buffer.split_to(taken).freeze();
        // The length goes before it.
        frame.advance(4);
        Ok(Some(frame))
    }

    fn next_line(&mut self) -> Option<Bytes> {
        loop {
            let Some(at) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') else {
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

    pub fn decode<T: DeserializeOwned>(&self, frame: &[u8]) -> Result<RawEvent<T>, Error> {
        let error = |e: &dyn std::fmt::Display| decode_error(&self.resource, " event", e);
        if self.protobuf {
            let event = watch_event::decode_proto(frame).map_err(|e| error(&e))?;
            let message = match self.message {
                Some(message) => message,
                None => known_message(&self.resource)?,
            };
            return decode_event(
                event.kind,
                || decode_enveloped(message, event.object).map_err(|e| error(&e)),
                || decode_enveloped(message, event.object).map_err(|e| error(&e)),
                || {
                    let status = status_of_envelope(event.object).map_err(|e| error(&e))?;
                    status.ok_or_else(|| error(&"an error that is no Status"))
                },
                |kind| error(&format!("unknown type {kind:?}")),
            );
        }
        #[derive(Deserialize)]
        struct Wire<'a> {
            #[serde(borrow)]
            r#type: Cow<'a, str>,
            #[serde(borrow)]
            object: &'a RawValue,
        }
        let event: Wire<'_> = serde_json::from_slice(frame).map_err(|e| error(&e))?;
        let object = event.object.get();
        decode_event(
            &event.r#type,
            || serde_json::from_str(object).map_err(|e| error(&e)),
            || serde_json::from_str(object).map_err(|e| error(&e)),
            || serde_json::from_str(object).map_err(|e| error(&e)),
            |kind| error(&format!("unknown type {kind:?}")),
        )
    }
}

/// Of a bookmark's object only this is there.
#[derive(Deserialize)]
struct Bookmark {
    metadata: ObjectMeta,
}

fn decode_event<T>(
    kind: &str,
    object: impl FnOnce() -> Result<T, Error>,
    bookmark: impl FnOnce() -> Result<Bookmark, Error>,
    status: impl FnOnce() -> Result<Status, Error>,
    unknown: impl FnOnce(&str) -> Error,
) -> Result<RawEvent<T>, Error> {
    Ok(match kind {
        "ADDED" => RawEvent::Added(object()?),
        "MODIFIED" => RawEvent::Modified(object()?),
        "DELETED" => RawEvent::Deleted(object()?),
        "BOOKMARK" => {
            let Bookmark { metadata } = bookmark()?;
            let annotations = metadata.annotations.unwrap_or_default();
            RawEvent::Bookmark {
                resource_version: metadata.resource_version.unwrap_or_default(),
                initial_events_end: annotations
                    .get(INITIAL_EVENTS_END)
                    .is_some_and(|v| v == "true"),
            }
        }
        "ERROR" => RawEvent::Error(status()?),
        other => return Err(unknown(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Kind as _, Object as _, SlimMeta};
    use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

    #[derive(Deserialize)]
    struct SlimPod {
        metadata: SlimMeta,
        spec: SlimSpec,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct SlimSpec {
        #[serde(default)]
        node_name: String,
    }
    crate::slim_kind!(SlimPod, "", "v1", "Pod", "pods", namespaced);

    fn pod() -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some("p".into()),
                namespace: Some("ns".into()),
                resource_version: Some("7".into()),
                labels: Some([("a".to_owned(), "b".to_owned())].into()),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                node_name: Some("n1".into()),
                containers: vec![Container {
                    name: "c".into(),
                    ..Container::default()
                }],
                ..PodSpec::default()
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn objects_travel_in_both_forms() {
        for form in [ContentType::Json, ContentType::Protobuf] {
            let (ty, bytes) = encode(form, &Pod::RESOURCE, &pod()).unwrap();
            assert_eq!(ty == PROTOBUF, form == ContentType::Protobuf);
            let back: Pod = decode(&Pod::RESOURCE, ty, &bytes).unwrap();
            assert_eq!(back.metadata, pod().metadata);
            assert_eq!(back.spec.unwrap().containers[0].name, "c");
            let slim: SlimPod = decode(&SlimPod::RESOURCE, ty, &bytes).unwrap();
            assert_eq!((slim.name(), slim.spec.node_name.as_str()), ("p", "n1"));
            assert_eq!(slim.metadata.labels["a"], "b");
        }
        let crd = ResourceInfo::of("example.com", "v1", "Foo", "foos", true);
        assert_eq!(accept(ContentType::Protobuf, &crd), JSON);
        assert_eq!(accept(ContentType::Protobuf, &Pod::RESOURCE), EITHER);
    }

    #[test]
    fn lists_survive_a_bad_item() {
        let json = br#"{"kind":"PodList","metadata":{"resourceVersion":"9","continue":"c"},
            "items":[{"metadata":{"name":"a"}},{"metadata":5},{"metadata":{"name":"b"}}]}"#;
        let list: RawList<Pod> = decode_list(&Pod::RESOURCE, JSON, json).unwrap();
        assert_eq!((list.items.len(), list.undecodable), (2, 1));
        assert_eq!(list.metadata.resource_version.as_deref(), Some("9"));

        let message = message(&Pod::RESOURCE).unwrap();
        let good = serde_pb::to_vec(message, &pod()).unwrap();
        let items: [&[u8]; 3] = [&good, b"\x0a\xff", &good];
        let meta = list::ListMeta {
            resource_version: "9",
            ..Default::default()
        };
        let mut bytes = Vec::new();
        list::proto("v1", "PodList", &meta, items.iter().copied(), &mut bytes);
        let list: RawList<Pod> = decode_list(&Pod::RESOURCE, PROTOBUF, &bytes).unwrap();
        assert_eq!((list.items.len(), list.undecodable), (2, 1));
        assert_eq!(list.metadata.resource_version.as_deref(), Some("9"));
        assert_eq!(list.metadata.continue_, None);
    }

    #[test]
    fn json_events_are_cut_at_lines() {
        let mut frames = Frames::new("application/json", Pod::RESOURCE);
        let text = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#,
            "\n\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"5","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
            "\n",
            r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#,
            "\n",
        );
        let mut events = Vec::new();
        for chunk in text.as_bytes().chunks(7) {
            frames.push(chunk);
            while let Some(frame) = frames.next().unwrap() {
                events.push(frames.decode::<Pod>(&frame).unwrap());
            }
        }
        assert!(matches!(&events[0], RawEvent::Added(p) if p.name() == "a"));
        assert!(matches!(
            &events[1],
            RawEvent::Bookmark { resource_version, initial_events_end: true } if resource_version == "5"
        ));
        assert!(matches!(&events[2], RawEvent::Error(s) if s.is_expired()));
    }

    #[test]
    fn protobuf_events_are_cut_at_lengths() {
        let mut bytes = Vec::new();
        let (_, object) = encode(ContentType::Protobuf, &Pod::RESOURCE, &pod()).unwrap();
        watch_event::proto("MODIFIED", &object, &mut bytes).unwrap();
        let status = schema::kind("", "v1", "Status").unwrap();
        let raw = serde_pb::to_vec(status, &Status::expired("old")).unwrap();
        let status = envelope::encode("v1", "Status", &raw);
        watch_event::proto("ERROR", &status, &mut bytes).unwrap();
        watch_event::proto("BOOKMARK", &object, &mut bytes).unwrap();

        let mut frames = Frames::new(
            "application/vnd.kubernetes.protobuf;stream=watch",
            Pod::RESOURCE,
        );
        let mut events = Vec::new();
        for chunk in bytes.chunks(11) {
            frames.push(chunk);
            while let Some(frame) = frames.next().unwrap() {
                events.push(frames.decode::<Pod>(&frame).unwrap());
            }
        }
        assert!(matches!(&events[0], RawEvent::Modified(p) if p.key().as_str() == "ns/p"));
        assert!(matches!(&events[1], RawEvent::Error(s) if s.is_expired() && s.message == "old"));
        assert!(matches!(
            &events[2],
            RawEvent::Bookmark { resource_version, initial_events_end: false } if resource_version == "7"
        ));
        assert_eq!(decode_status(PROTOBUF, &status).unwrap().code, 410);
        assert!(decode_status(PROTOBUF, &object).is_none());
    }
}
