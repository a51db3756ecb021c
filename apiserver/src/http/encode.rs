//! Objects and lists in the form that was negotiated. Stored bytes are passed on where
//! they already are the answer; other forms are made once per object and kept with it.
//!
//! What must not be here: negotiation, which objects are answered with.

use std::sync::Arc;

use bytes::Bytes;
use codec::Result;
use component::aside::aside;
use meta::Status;
use schema::{Message, Resource};
use serde_json::{Value, json};

use super::indent::Indenter;
use super::negotiate::Media;
use crate::registry::as_read;
use crate::registry::convert::{self, api_version, convert};
use crate::registry::store;
use crate::storage::cache::Object;

/// The forms of an object that are kept with it, numbered for [`Object::encoding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Form {
    /// JSON without kind and API version, as items of lists are.
    Json = 0,
    /// The protobuf message of a version that is not the stored one.
    Proto = 1,
    /// Watch events.
    Added = 2,
    Modified = 3,
    Deleted = 4,
    AddedProto = 5,
    ModifiedProto = 6,
    DeletedProto = 7,
}

impl Form {
    /// Distinguishes the same form of different versions.
    fn id(self, served: &'static Resource) -> u32 {
        let first = schema::resources().as_ptr() as usize;
        let index = (std::ptr::from_ref(served) as usize - first) / std::mem::size_of::<Resource>();
        (self as u32) << 16 | index as u32
    }
}

/// A watch event's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

impl EventType {
    pub fn name(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
            EventType::Bookmark => "BOOKMARK",
            EventType::Error => "ERROR",
        }
    }
}

/// A kind by its API version.
fn kind_of(api_version: &str, kind: &str) -> Result<&'static Message> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    schema::kind(group, version, kind)
        .ok_or_else(|| codec::Error::Custom(format!("no kind {kind:?} in version {api_version:?}")))
}

/// A tree in any form.
pub fn tree(
    api_version: &str,
    kind: &str,
    value: &Value,
    media: Media,
    pretty: bool,
) -> Result<Bytes> {
    let message = kind_of(api_version, kind)?;
    if media == Media::Protobuf {
        let mut raw = Vec::new();
        codec::tree::to_proto(message, value, &mut raw)?;
        return Ok(codec::envelope::encode(api_version, kind, &raw).into());
    }
    let mut out = Vec::new();
    if value["kind"] == kind && value["apiVersion"] == api_version {
        codec::tree::to_json(message, value, &mut out)?;
    } else {
        let mut value = value.clone();
        if let Some(members) = value.as_object_mut() {
            members.insert("kind".into(), json!(kind));
            members.insert("apiVersion".into(), json!(api_version));
        }
        codec::tree::to_json(message, &value, &mut out)?;
    }
    text(out, media, pretty)
}

/// A row of a Table in JSON.
pub fn table_row(row: &Value) -> Result<Vec<u8>> {
    let table = kind_of("meta.k8s.io/v1", "Table")?;
    let rows = table.fields.iter().find(|field| field.json == "rows");
    let Some(schema::Type::Message(message)) = rows.map(|rows| &rows.ty) else {
        return Err(codec::Error::Custom("a Table has no rows".to_owned()));
    };
    let mut out = Vec::new();
    codec::tree::to_json(message, row, &mut out)?;
    Ok(out)
}

/// A message as JSON that says what it is, without an end of line.
pub fn message_json(api_version: &str, kind: &str, raw: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let type_meta = Some((kind, api_version));
    codec::transcode::proto_to_json(kind_of(api_version, kind)?, raw, type_meta, &mut out)?;
    Ok(out)
}

/// A message in any form.
pub fn message(
    api_version: &str,
    kind: &str,
    raw: &[u8],
    media: Media,
    pretty: bool,
) -> Result<Bytes> {
    if media == Media::Protobuf {
        return Ok(codec::envelope::encode(api_version, kind, raw).into());
    }
    text(message_json(api_version, kind, raw)?, media, pretty)
}

/// A list of items that are encoded already: messages, or JSON.
pub fn items(
    api_version: &str,
    kind: &str,
    meta: &ListMeta,
    items: &[Vec<u8>],
    media: Media,
    pretty: bool,
) -> Result<Bytes> {
    if media == Media::Protobuf {
        return Ok(proto_list(api_version, kind, meta, items));
    }
    text(json_list(api_version, kind, meta, items), media, pretty)
}

/// Ends JSON text as upstream does, or turns it into YAML.
fn text(mut json: Vec<u8>, media: Media, pretty: bool) -> Result<Bytes> {
    match media {
        Media::Yaml => aside(json.len() > media.long(), || {
            let value = codec::decode::untyped(&json)?;
            let mut yaml = Vec::new();
            codec::write_yaml(&value, &mut yaml);
            Ok(yaml.into())
        }),
        _ => {
            if pretty {
                let mut indented = Vec::with_capacity(json.len() * 2);
                Indenter::default().feed(&json, &mut indented);
                return Ok(indented.into());
            }
            json.push(b'\n');
            Ok(json.into())
        }
    }
}

/// How objects of one resource are read and shown: as which version, stored as which.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub stored: &'static Resource,
    pub served: &'static Resource,
}

impl View {
    fn same(self) -> bool {
        std::ptr::eq(self.stored, self.served)
    }

    pub fn api_version(self) -> String {
        api_version(self.served)
    }

    /// The object as a tree of the served version.
    pub fn tree(self, object: &Object) -> Result<Value> {
        let mut tree = store::decode(self.stored, object.bytes())?;
        if as_read::says_more(self.stored) {
            as_read::say_more(&mut tree);
        }
        Ok(convert(tree, self.stored, self.served))
    }

    /// The object's message in the served version, without an envelope.
    pub(super) fn message(self, object: &Arc<Object>) -> Result<Bytes> {
        if self.same() && codec::envelope::is_enveloped(object.bytes()) {
            let unknown = codec::envelope::decode(object.bytes())?;
            return Ok(object.bytes().slice_ref(unknown.raw));
        }
        object.encoding(Form::Proto.id(self.served), |object| {
            let mut raw = Vec::new();
            codec::tree::to_proto(self.served.message, &self.tree(object)?, &mut raw)?;
            Ok(raw.into())
        })
    }

    /// JSON without kind and API version.
    pub(super) fn bare_json(self, object: &Arc<Object>) -> Result<Bytes> {
        object.encoding(Form::Json.id(self.served), |object| {
            let mut out = Vec::new();
            let plain = self.same() && !as_read::says_more(self.stored);
            if plain && codec::envelope::is_enveloped(object.bytes()) {
                let unknown = codec::envelope::decode(object.bytes())?;
                codec::transcode::proto_to_json(self.served.message, unknown.raw, None, &mut out)?;
            } else {
                let mut tree = self.tree(object)?;
                if let Some(members) = tree.as_object_mut() {
                    members.remove("kind");
                    members.remove("apiVersion");
                }
                codec::tree::to_json(self.served.message, &tree, &mut out)?;
            }
            Ok(out.into())
        })
    }

    /// JSON with kind and API version, without an end of line.
    fn json(self, object: &Arc<Object>) -> Result<Vec<u8>> {
        let bare = self.bare_json(object)?;
        let mut out = Vec::with_capacity(bare.len() + 64);
        self.put_json(&bare, &mut out);
        Ok(out)
    }

    fn put_json(self, bare: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"kind\":\"");
        out.extend_from_slice(self.served.kind.as_bytes());
        out.extend_from_slice(b"\",\"apiVersion\":\"");
        out.extend_from_slice(self.api_version().as_bytes());
        out.push(b'"');
        if bare != b"{}" {
            out.push(b',');
        }
        out.extend_from_slice(&bare[1..]);
    }

    /// An object as the body of an answer.
    pub fn object(self, object: &Arc<Object>, media: Media, pretty: bool) -> Result<Bytes> {
        match media {
            Media::Protobuf if self.same() && codec::envelope::is_enveloped(object.bytes()) => {
                Ok(object.bytes().clone())
            }
            Media::Protobuf => {
                let raw = self.message(object)?;
                let kind = self.served.kind;
                Ok(codec::envelope::encode(&self.api_version(), kind, &raw).into())
            }
            Media::Json | Media::Yaml => text(self.json(object)?, media, pretty),
        }
    }

    /// A list as the body of an answer.
    pub fn list(
        self,
        objects: &[Arc<Object>],
        meta: &ListMeta,
        media: Media,
        pretty: bool,
    ) -> Result<Bytes> {
        let kind = format!("{}List", self.served.kind);
        if media == Media::Protobuf {
            let mut items = Vec::with_capacity(objects.len());
            for object in objects {
                items.push(self.message(object)?);
            }
            return Ok(proto_list(&self.api_version(), &kind, meta, &items));
        }
        let mut items = Vec::with_capacity(objects.len());
        for object in objects {
            items.push(self.bare_json(object)?);
        }
        text(
            json_list(&self.api_version(), &kind, meta, &items),
            media,
            pretty,
        )
    }

    /// One event of a watch, framed.
    pub fn event(self, ty: EventType, object: &Arc<Object>, media: Media) -> Result<Bytes> {
        let form = match (ty, media) {
            (EventType::Added, Media::Protobuf) => Form::AddedProto,
            (EventType::Modified, Media::Protobuf) => Form::ModifiedProto,
            (_, Media::Protobuf) => Form::DeletedProto,
            (EventType::Added, _) => Form::Added,
            (EventType::Modified, _) => Form::Modified,
            _ => Form::Deleted,
        };
        let id = form.id(self.served);
        if let Some(kept) = object.kept_encoding(id) {
            return Ok(kept);
        }
        // Made of another kept form, so not under the same lock.
        let body = match media {
            Media::Protobuf => self.object(object, media, false)?,
            _ => self.bare_json(object)?,
        };
        object.encoding(id, |_| {
            if media == Media::Protobuf {
                return event(ty, &body, media);
            }
            let mut json = Vec::with_capacity(body.len() + 64);
            self.put_json(&body, &mut json);
            event(ty, &json, media)
        })
    }

    /// The object's metadata alone, as a `PartialObjectMetadata` message.
    pub fn partial(self, object: &Arc<Object>) -> Result<Vec<u8>> {
        let raw = self.message(object)?;
        // Metadata is field 1 of both and comes first.
        let metadata = first_field(&raw).unwrap_or_default();
        if !convert::adds_annotations(self.served) {
            return Ok(metadata.to_vec());
        }
        let message = kind_of("meta.k8s.io/v1", "PartialObjectMetadata")?;
        let whole = codec::tree::from_proto(message, metadata)?;
        let partial = json!({"metadata": convert::bare_metadata(self.served, &whole)});
        let mut raw = Vec::new();
        codec::tree::to_proto(message, &partial, &mut raw)?;
        Ok(raw)
    }
}

/// What a list says about itself.
#[derive(Debug, Clone, Default)]
pub struct ListMeta {
    pub resource_version: String,
    pub continue_token: String,
    pub remaining: Option<u64>,
}

impl ListMeta {
    pub fn to_value(&self) -> Value {
        let mut value = json!({});
        if !self.resource_version.is_empty() {
            value["resourceVersion"] = json!(self.resource_version);
        }
        if !self.continue_token.is_empty() {
            value["continue"] = json!(self.continue_token);
        }
        if let Some(remaining) = self.remaining {
            value["remainingItemCount"] = json!(remaining);
        }
        value
    }

    pub(super) fn as_codec(&self) -> codec::list::ListMeta<'_> {
        codec::list::ListMeta {
            resource_version: &self.resource_version,
            continue_token: &self.continue_token,
            remaining_item_count: self.remaining.map(|n| n as i64),
        }
    }
}

/// A list of items in JSON, without an end of line.
pub fn json_list<B: AsRef<[u8]>>(
    api_version: &str,
    kind: &str,
    meta: &ListMeta,
    items: &[B],
) -> Vec<u8> {
    let size: usize = items.iter().map(|i| i.as_ref().len() + 1).sum();
    let mut out = Vec::with_capacity(size + 256);
    codec::list::json_head(api_version, kind, &meta.as_codec(), &mut out);
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(item.as_ref());
    }
    out.extend_from_slice(codec::list::JSON_TAIL.trim_ascii_end());
    out
}

/// A list of messages in protobuf.
pub fn proto_list<B: AsRef<[u8]>>(
    api_version: &str,
    kind: &str,
    meta: &ListMeta,
    items: &[B],
) -> Bytes {
    let mut out = Vec::new();
    let items = items.iter().map(AsRef::as_ref);
    codec::list::proto(api_version, kind, &meta.as_codec(), items, &mut out);
    out.into()
}

/// A `WatchEvent` around an object's body.
pub fn event(ty: EventType, object: &[u8], media: Media) -> Result<Bytes> {
    let mut out = Vec::with_capacity(object.len() + 64);
    match media {
        Media::Protobuf => codec::watch_event::proto(ty.name(), object, &mut out)?,
        _ => codec::watch_event::json(ty.name(), object.trim_ascii_end(), &mut out),
    }
    Ok(out.into())
}

/// A tree as an event.
pub fn tree_event(
    ty: EventType,
    api_version: &str,
    kind: &str,
    value: &Value,
    media: Media,
) -> Result<Bytes> {
    let body = tree(api_version, kind, value, media, false)?;
    event(ty, &body, media)
}

/// A `Status` as an `ERROR` event.
pub fn error_event(status: &Status, media: Media) -> Result<Bytes> {
    let value = serde_json::to_value(status).map_err(|e| codec::Error::Custom(e.to_string()))?;
    tree_event(EventType::Error, "v1", "Status", &value, media)
}

/// Field 1 with its tag and length, when it comes first, as gogo-proto writes metadata.
fn first_field(raw: &[u8]) -> Option<&[u8]> {
    let rest = raw.strip_prefix(&[0x0a])?;
    let (mut length, mut shift) = (0usize, 0);
    for (i, byte) in rest.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return raw.get(..i + 2 + length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_concatenated() {
        let meta = ListMeta {
            resource_version: "7".into(),
            continue_token: "t".into(),
            remaining: Some(3),
        };
        let json = json_list("v1", "PodList", &meta, &[b"{}", b"{}"]);
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"t","remainingItemCount":3},"items":[{},{}]}"#
        );
    }

    #[test]
    fn the_first_field_is_found() {
        let mut raw = vec![0x0a, 0xac, 2];
        raw.resize(303, 7);
        let first = raw.clone();
        raw.extend_from_slice(&[0x12, 1, 0]);
        assert_eq!(first_field(&raw), Some(&first[..]));
        assert_eq!(first_field(&[0x12, 0]), None);
        assert_eq!(first_field(&[0x0a, 5, 1]), None);
    }
}
