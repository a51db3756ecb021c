//! A watch in either form: frames are put together, and of each the type and the
//! object's revision are read.

use anyhow::{Context as _, Result, bail, ensure};

use super::{find, json_string, proto};

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An object that is new to the watcher.
    Added,
    /// One that it knows.
    Modified,
    /// One that has gone.
    Deleted,
    /// How far the watch is; `true` when the initial events end with it.
    Bookmark(bool),
}

/// What is read of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Its type.
    pub kind: Kind,
    /// The object's.
    pub revision: u64,
    /// The object's bytes, as they came.
    pub object: &'a [u8],
}

/// What marks the bookmark after the initial events.
const END: &[u8] = b"k8s.io/initial-events-end";

/// The scan.
#[derive(Debug)]
pub struct WatchScan {
    proto: bool,
    pending: Vec<u8>,
}

impl WatchScan {
    /// A scan at the watch's first byte.
    pub fn new(accept: &str) -> Self {
        Self {
            proto: accept.starts_with(crate::stand::http::PROTOBUF),
            pending: Vec::new(),
        }
    }

    /// Hands every event that is whole with these bytes on.
    ///
    /// # Errors
    ///
    /// When they are not events, when one is an error, or `each` fails.
    pub fn feed(
        &mut self,
        chunk: &[u8],
        mut each: impl FnMut(Event<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        let joined = if pending.is_empty() {
            chunk
        } else {
            pending.extend_from_slice(chunk);
            &pending
        };
        let mut rest = joined;
        while let Some(length) = self.frame(rest)? {
            let event = if self.proto {
                proto_event(&rest[..length])?
            } else {
                json(&rest[..length])?
            };
            each(event)?;
            rest = &rest[length..];
        }
        self.pending = rest.to_vec();
        Ok(())
    }

    /// The size of the first frame, when it is whole.
    fn frame(&self, bytes: &[u8]) -> Result<Option<usize>> {
        if !self.proto {
            return Ok(bytes
                .iter()
                .position(|byte| *byte == b'\n')
                .map(|at| at + 1));
        }
        let frame = proto::frame(bytes);
        ensure!(
            frame.is_some() || bytes.len() < 64 << 20,
            "a frame without an end"
        );
        Ok(frame)
    }
}

fn kind(text: &[u8], object: &[u8]) -> Result<Kind> {
    Ok(match text {
        b"ADDED" => Kind::Added,
        b"MODIFIED" => Kind::Modified,
        b"DELETED" => Kind::Deleted,
        b"BOOKMARK" => Kind::Bookmark(find(object, END).is_some()),
        _ => bail!(
            "{} {}",
            String::from_utf8_lossy(text),
            String::from_utf8_lossy(&object[..object.len().min(300)])
        ),
    })
}

fn json(line: &[u8]) -> Result<Event<'_>> {
    // {"type":"ADDED","object":{...}}
    let rest = line.strip_prefix(br#"{"type":""#).context("no event")?;
    let end = find(&rest[..rest.len().min(16)], b"\"").context("no type")?;
    let object = &rest[end..];
    let kind = kind(&rest[..end], object)?;
    let revision = json_string(object, "resourceVersion").context("no resourceVersion")?;
    Ok(Event {
        kind,
        revision: revision.parse()?,
        object,
    })
}

fn proto_event(frame: &[u8]) -> Result<Event<'_>> {
    let (text, object) = proto::event(frame)?;
    let kind = kind(text.as_bytes(), object)?;
    let (_, revision) = proto::metadata(proto::unwrap(object)?)?;
    Ok(Event {
        kind,
        revision,
        object,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::proto::{Message, envelope};
    use crate::stand::http::{JSON, PROTOBUF};

    fn all(accept: &str, bytes: &[u8], size: usize) -> Result<Vec<(Kind, u64)>> {
        let mut scan = WatchScan::new(accept);
        let mut seen = Vec::new();
        for chunk in bytes.chunks(size) {
            scan.feed(chunk, |event| {
                seen.push((event.kind, event.revision));
                Ok(())
            })?;
        }
        Ok(seen)
    }

    #[test]
    fn json_lines() {
        let lines = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"4"}}}"#,
            "\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
            "\n"
        );
        for size in [1, 10, 1000] {
            assert_eq!(
                all(JSON, lines.as_bytes(), size).unwrap(),
                [(Kind::Added, 4), (Kind::Bookmark(true), 9)]
            );
        }
        let error = r#"{"type":"ERROR","object":{"code":410}}"#.to_owned() + "\n";
        let error = all(JSON, error.as_bytes(), 9).unwrap_err();
        assert!(error.to_string().contains("410"), "{error}");
    }

    #[test]
    fn protobuf_frames() {
        let frame = |kind: &str, revision: &str| {
            let metadata = Message::default().text(1, "a").text(6, revision);
            let object = envelope("v1", "Pod", Message::default().message(1, metadata));
            let raw = Message::default().bytes(1, &object);
            let event = Message::default()
                .text(1, kind)
                .message(2, raw)
                .into_bytes();
            let mut frame = (event.len() as u32).to_be_bytes().to_vec();
            frame.extend(event);
            frame
        };
        let bytes = [frame("MODIFIED", "12"), frame("DELETED", "13")].concat();
        for size in [1, 3, 1000] {
            assert_eq!(
                all(PROTOBUF, &bytes, size).unwrap(),
                [(Kind::Modified, 12), (Kind::Deleted, 13)]
            );
        }
    }
}
