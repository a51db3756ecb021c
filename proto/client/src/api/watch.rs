//! A watch's answer as a stream of events.

use http::Response;
use http_body_util::BodyExt as _;
use meta::Status;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::object::{Object, ResourceInfo};
use crate::transport::Body;
use crate::wire::{Frames, RawEvent};

/// What a watch says.
#[derive(Debug)]
pub enum WatchEvent<K> {
    Added(K),
    Modified(K),
    /// The object in its last state; it carries the revision of its deletion.
    Deleted(K),
    /// Nothing changed up to this revision. With `initial_events_end`, everything that
    /// existed when the watch began has been sent.
    Bookmark {
        resource_version: String,
        initial_events_end: bool,
    },
    /// The watch has failed and ends; 410 asks to list anew.
    Error(Status),
}

/// Events of one watch request, in order. Drop it to end the watch.
pub struct WatchStream<K> {
    client: Client,
    resource: ResourceInfo,
    body: Body,
    frames: Frames,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K: Object> WatchStream<K> {
    pub(super) fn new(client: Client, resource: ResourceInfo, response: Response<Body>) -> Self {
        let content_type = response.headers().get(http::header::CONTENT_TYPE);
        let content_type = content_type
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        Self {
            client,
            frames: Frames::new(content_type, resource.clone()),
            resource,
            body: response.into_body(),
            kind: std::marker::PhantomData,
        }
    }

    /// The next event; `None` when the server has ended the watch. An object that cannot be
    /// decoded is logged and skipped. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<WatchEvent<K>>> {
        loop {
            while let Some(frame) = self.next_frame()? {
                match self.frames.decode(&frame) {
                    Ok(event) => return Ok(Some(event.into())),
                    Err(err) => {
                        tracing::error!(%err, kind = %self.resource.kind, "skipping an undecodable watch event");
                    }
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.frames.push(data);
                    }
                }
                Some(Err(e)) => return Err(self.client.transport_error(e)),
            }
        }
    }
}

impl<K> WatchStream<K> {
    fn next_frame(&mut self) -> Result<Option<bytes::Bytes>> {
        self.frames.next().map_err(|message| {
            let what = format!("{} watch", self.resource.plural);
            Error::Decode { what, message }
        })
    }
}

impl<K> From<RawEvent<K>> for WatchEvent<K> {
    fn from(raw: RawEvent<K>) -> Self {
        match raw {
            RawEvent::Added(k) => Self::Added(k),
            RawEvent::Modified(k) => Self::Modified(k),
            RawEvent::Deleted(k) => Self::Deleted(k),
            RawEvent::Bookmark {
                resource_version,
                initial_events_end,
            } => Self::Bookmark {
                resource_version,
                initial_events_end,
            },
            RawEvent::Error(status) => Self::Error(status),
        }
    }
}
