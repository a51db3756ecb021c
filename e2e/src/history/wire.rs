//! What clients send and read, in JSON or in protobuf.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use serde_json::{Value, json};

use super::objects::{
    Object, entries, from_json, from_proto, kind, revision, text, to_json, to_proto,
};
use super::record::{Kind, Revision, Shown, Sort, State, Told};
use crate::bench::proto::{Message, envelope};
use crate::bench::scan::proto::{self, field, fields, unwrap};
use crate::stand::http::{JSON, PROTOBUF};

/// The annotation of the bookmark after the initial events.
const END: &str = "k8s.io/initial-events-end";

/// Which form a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Json,
    Protobuf,
}

/// What comes of a watch.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Told(Told),
    /// The watch cannot go on, by this status.
    Error(u16, String),
}

impl Wire {
    /// Every other client speaks protobuf.
    pub fn of(client: u64) -> Self {
        if client.is_multiple_of(2) {
            Self::Json
        } else {
            Self::Protobuf
        }
    }

    /// The form's name.
    pub fn media(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Protobuf => PROTOBUF,
        }
    }

    /// The form of a watch.
    pub fn stream(self) -> &'static str {
        match self {
            Self::Json => JSON,
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }

    /// An object to be written.
    pub fn object(self, sort: Sort, name: &str, state: &State, at: Option<Revision>) -> Bytes {
        match self {
            Self::Json => to_json(sort, name, state, at).to_string().into(),
            Self::Protobuf => {
                let (api_version, kind) = kind(sort);
                envelope(api_version, kind, to_proto(sort, name, state, at)).into()
            }
        }
    }

    /// The options of a delete of what an object is at a revision.
    pub fn only_at(self, revision: Revision) -> Bytes {
        const PRECONDITIONS: u64 = 2;
        const RESOURCE_VERSION: u64 = 2;
        let revision = revision.to_string();
        match self {
            Self::Json => json!({"preconditions": {"resourceVersion": revision}})
                .to_string()
                .into(),
            Self::Protobuf => {
                let only = Message::default().text(RESOURCE_VERSION, &revision);
                let options = Message::default().message(PRECONDITIONS, only);
                envelope("v1", "DeleteOptions", options).into()
            }
        }
    }

    /// An object that was answered.
    ///
    /// # Errors
    ///
    /// When the body is none.
    pub fn read(self, sort: Sort, body: &[u8]) -> Result<Object> {
        match self {
            Self::Json => from_json(sort, &serde_json::from_slice(body)?),
            Self::Protobuf => from_proto(sort, unwrap(body)?),
        }
    }

    /// A list that was answered.
    ///
    /// # Errors
    ///
    /// When the body is none.
    pub fn list(self, sort: Sort, body: &[u8]) -> Result<Shown> {
        const METADATA: u64 = 1;
        const RESOURCE_VERSION: u64 = 2;
        const ITEMS: u64 = 2;
        let mut items = BTreeMap::new();
        let mut put = |object: Object| items.insert(object.key, (object.revision, object.state));
        let at = match self {
            Self::Json => {
                let list: Value = serde_json::from_slice(body)?;
                for item in list["items"].as_array().context("no items")? {
                    put(from_json(sort, item)?);
                }
                revision(&list)?
            }
            Self::Protobuf => {
                let list = unwrap(body)?;
                for item in fields(list, ITEMS)? {
                    put(from_proto(sort, item)?);
                }
                let metadata = field(list, METADATA)?.context("no metadata")?;
                let revision = text(metadata, RESOURCE_VERSION)?;
                revision.context("no resourceVersion")?.parse()?
            }
        };
        Ok(Shown::List(at, items))
    }

    /// The word of a `Status` (`Success`, `Failure`), and its message.
    ///
    /// # Errors
    ///
    /// When the body is none.
    pub fn status(self, body: &[u8]) -> Result<(String, String)> {
        const STATUS: u64 = 2;
        const MESSAGE: u64 = 3;
        Ok(match self {
            Self::Json => {
                let status: Value = serde_json::from_slice(body)?;
                ensure!(status["kind"] == "Status", "no Status: {status}");
                let word = status["status"].as_str().context("no status")?;
                let message = status["message"].as_str().unwrap_or_default();
                (word.to_owned(), message.to_owned())
            }
            Self::Protobuf => {
                let status = unwrap(body)?;
                let word = text(status, STATUS)?.context("no status")?;
                (word, text(status, MESSAGE)?.unwrap_or_default())
            }
        })
    }

    /// The size of the first frame of a watch, when it is whole.
    pub fn frame(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Json => bytes
                .iter()
                .position(|byte| *byte == b'\n')
                .map(|at| at + 1),
            Self::Protobuf => proto::frame(bytes),
        }
    }

    /// A frame's event.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn event(self, sort: Sort, frame: &[u8]) -> Result<Event> {
        match self {
            Self::Json => json_event(sort, &serde_json::from_slice(frame)?),
            Self::Protobuf => proto_event(sort, frame),
        }
    }
}

fn word(kind: &str) -> Result<Kind> {
    Ok(match kind {
        "ADDED" => Kind::Added,
        "MODIFIED" => Kind::Modified,
        "DELETED" => Kind::Deleted,
        other => bail!("an event {other}"),
    })
}

fn told(kind: &str, object: Object) -> Result<Event> {
    let told = Told::Event(word(kind)?, object.key, object.revision, object.state);
    Ok(Event::Told(told))
}

fn json_event(sort: Sort, event: &Value) -> Result<Event> {
    let object = &event["object"];
    match event["type"].as_str().unwrap_or_default() {
        "ERROR" => {
            let code = object["code"].as_u64().context("an error without code")?;
            Ok(Event::Error(u16::try_from(code)?, object.to_string()))
        }
        "BOOKMARK" => {
            let end = object["metadata"]["annotations"][END] == "true";
            Ok(Event::Told(Told::Bookmark(revision(object)?, end)))
        }
        kind => told(kind, from_json(sort, object)?),
    }
}

fn proto_event(sort: Sort, frame: &[u8]) -> Result<Event> {
    const ANNOTATIONS: u64 = 12;
    let (kind, object) = proto::event(frame)?;
    let object = unwrap(object)?;
    match kind {
        "ERROR" => {
            const MESSAGE: u64 = 3;
            const REASON: u64 = 4;
            let part = |number| -> Result<String> { Ok(text(object, number)?.unwrap_or_default()) };
            // The code is a number, which the reader of fields has no use for.
            let code = match part(REASON)?.as_str() {
                "Expired" | "Gone" => 410,
                "InternalError" => 500,
                "ServiceUnavailable" => 503,
                "Timeout" | "ServerTimeout" => 504,
                "TooManyRequests" => 429,
                _ => 0,
            };
            let why = format!("{}: {}", part(REASON)?, part(MESSAGE)?);
            Ok(Event::Error(code, why))
        }
        "BOOKMARK" => {
            let (metadata, revision) = proto::metadata(object)?;
            let end = entries(metadata, ANNOTATIONS)?
                .get(END)
                .is_some_and(|end| end == "true");
            Ok(Event::Told(Told::Bookmark(revision, end)))
        }
        kind => told(kind, from_proto(sort, object)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        [("value".to_owned(), "v1".to_owned())].into()
    }

    #[test]
    fn events_are_read_in_both_forms() {
        let (sort, name) = (Sort::Leases, "k");
        let expected = Told::Event(Kind::Added, sort.key(name), 7, state());
        let object = to_json(sort, name, &state(), Some(7));
        let mut line = json!({"type": "ADDED", "object": object}).to_string();
        line.push('\n');
        assert_eq!(Wire::Json.frame(line.as_bytes()), Some(line.len()));
        let read = Wire::Json.event(sort, line.as_bytes()).unwrap();
        assert_eq!(read, Event::Told(expected.clone()));

        let object = Wire::Protobuf.object(sort, name, &state(), Some(7));
        let event = Message::default()
            .text(1, "ADDED")
            .message(2, Message::default().bytes(1, &object))
            .into_bytes();
        let mut frame = (event.len() as u32).to_be_bytes().to_vec();
        frame.extend(event);
        assert_eq!(Wire::Protobuf.frame(&frame[..frame.len() - 1]), None);
        assert_eq!(Wire::Protobuf.frame(&frame), Some(frame.len()));
        let read = Wire::Protobuf.event(sort, &frame).unwrap();
        assert_eq!(read, Event::Told(expected));
        assert!(Wire::Protobuf.event(sort, &frame[..20]).is_err());
    }

    #[test]
    fn what_is_no_list_is_told() {
        assert!(Wire::Json.list(Sort::Leases, b"{}").is_err());
        assert!(Wire::Json.list(Sort::Leases, b"garbled").is_err());
        assert!(Wire::Protobuf.list(Sort::Leases, b"{}").is_err());
        assert!(Wire::Json.status(br#"{"kind":"Lease"}"#).is_err());
    }
}
