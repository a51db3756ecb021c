//! WATCH: an event per line (JSON) or per frame (protobuf) for as long as the client and
//! the server want.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use component::aside::{LONG, TURN, aside, give_way};
use futures::{FutureExt, Stream, StreamExt};
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use meta::Status;
use serde_json::{Value, json};
use streaming::Message;

use super::super::batches::Batches;
use super::super::body::{self, Body, BoxError, GivesWay};
use super::super::chain::Chain;
use super::super::context::RequestContext;
use super::super::encode::{self, EventType, ListMeta, View};
use super::super::metrics::WatchMetrics;
use super::super::negotiate::{self, Media, Offer};
use super::super::pace::{Paced, Phases};
use super::super::websocket;
use super::read::{self, Shape, meta_version};
use super::table;
use crate::registry::options::ListOptions;
use crate::registry::store::Store;
use crate::registry::store::errors::{During, status};
use crate::storage;
use crate::storage::cache::{Object, WatchItem, Watcher};

/// A watcher gives way to others after so many events.
const MOST_AT_ONCE: usize = 64;
/// So long before its time is over a watch says how far it has come, so that the next one can
/// begin there.
const LAST_BOOKMARK: Duration = Duration::from_secs(2);

pub(super) async fn watch(
    chain: &Chain,
    store: &Arc<Store>,
    view: View,
    request: &mut RequestContext,
) -> Result<Response<Body>, Status> {
    let accepted = negotiate::output_stream(&request.headers, Offer::Collection)?;
    let options = ListOptions::from_query(&request.query, request.info.verb_in_path)?;
    let selection = store.select(
        view.served,
        read::namespace(view, request),
        &request.info.name,
        &options,
    )?;
    let timeout = options.timeout.filter(|t| !t.is_zero()).unwrap_or_else(|| {
        // Spread, so that clients that came together do not come back together.
        let spread = (chain.random)() as f64 / u64::MAX as f64;
        chain.min_watch.mul_f64(1.0 + spread)
    });
    let initial = request.query.flag("sendInitialEvents");
    let watcher = match store.watch(selection, &options).await {
        Ok(watcher) => watcher,
        // The state to begin with has begun to be sent when it turns out not to come.
        Err(status) if status.code == 410 || (status.code == 504 && initial) => {
            return refused(&status, accepted.media, request);
        }
        Err(status) => return Err(status),
    };
    // A list of metadata is streamed as its items.
    let as_list =
        (accepted.convert.as_ref()).is_some_and(|c| c.kind == "PartialObjectMetadataList");
    let shape = read::shape(&accepted, request, as_list)?;
    let scope = request.info.scope();
    let writer = Writer {
        metrics: chain.metrics.watch(view.served, scope, initial),
        store: store.clone(),
        view,
        shape,
        media: accepted.media,
        headers_sent: false,
    };
    let stop = chain.stop.clone();
    let marker = options.allow_bookmarks.then(|| watcher.marker());
    let over = async move {
        // The server stops, or the watch has lasted long enough.
        let mut stops = pin!(stop.begun());
        let mut left = timeout;
        if let (Some(marker), Some(before)) = (marker, timeout.checked_sub(LAST_BOOKMARK)) {
            if tokio::time::timeout(before, &mut stops).await.is_ok() {
                return;
            }
            marker.mark();
            left = LAST_BOOKMARK;
        }
        let _ = tokio::time::timeout(left, stops).await;
    };
    if websocket::is_asked_for(&request.headers) {
        let events = messages(watcher, writer).take_until(over);
        return Ok(websocket::watch(request, events));
    }
    let events = frames(watcher, writer, chain.fan_out.clone(), over);
    Ok(streamed(events, accepted.media))
}

/// What the watches of one server share.
#[derive(Default)]
pub struct FanOut {
    phases: Phases,
    batches: Batches,
}

fn streamed(
    events: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
    media: Media,
) -> Response<Body> {
    let mut response = Response::new(body::stream(events));
    *response.status_mut() = StatusCode::OK;
    let content_type = media.stream_name().unwrap_or_default();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A watch that cannot resume is not refused: it begins, and ends with an error.
fn refused(
    status: &Status,
    media: Media,
    request: &mut RequestContext,
) -> Result<Response<Body>, Status> {
    let frame = encode::error_event(status, media).map_err(Status::internal)?;
    if websocket::is_asked_for(&request.headers) {
        let only = futures::stream::iter([message(frame, media)]);
        return Ok(websocket::watch(request, only));
    }
    Ok(streamed(futures::stream::iter([Ok(frame)]), media))
}

/// A frame as the message of a WebSocket.
fn message(frame: Bytes, media: Media) -> Message {
    match media {
        // Messages know how long they are.
        Media::Protobuf => Message::Binary(frame.slice(codec::watch_event::FRAMING..)),
        _ => Message::Text(frame.try_into().expect("JSON is UTF-8")),
    }
}

/// The watch as chunks of a body, until it ends or its time is over.
struct Frames<F> {
    events: Paced<Watcher>,
    writer: Writer,
    fan_out: Arc<FanOut>,
    /// What is ready to go out together. Here for its memory: it is empty between polls.
    ready: Vec<Bytes>,
    /// What goes out next.
    chunks: VecDeque<Bytes>,
    over: F,
    ended: bool,
}

fn frames(
    watcher: Watcher,
    writer: Writer,
    fan_out: Arc<FanOut>,
    over: impl Future<Output = ()> + Send,
) -> impl Stream<Item = Result<Bytes, BoxError>> + Send {
    Frames {
        events: Paced::new(watcher, &fan_out.phases),
        writer,
        fan_out,
        ready: Vec::new(),
        chunks: VecDeque::new(),
        over: Box::pin(over),
        ended: false,
    }
}

impl<F: Future<Output = ()> + Unpin> Stream for Frames<F> {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(chunk) = this.chunks.pop_front() {
            return Poll::Ready(Some(Ok(chunk)));
        }
        this.ended = this.ended || this.over.poll_unpin(cx).is_ready();
        if !this.ended {
            let writer = &mut this.writer;
            let frame = |item| writer.frame_or_error(item);
            this.ended = ready!(gather(&mut this.events, &mut this.ready, frame, TURN, cx));
        }
        let shared = this.writer.is_shared();
        this.chunks = this.fan_out.batches.joined(&this.ready, shared);
        this.ready.clear();
        match this.chunks.pop_front() {
            None if this.ended => Poll::Ready(None),
            // All that there was could not be shown.
            None => give_way(cx),
            chunk => Poll::Ready(chunk.map(Ok)),
        }
    }
}

/// Adds the frames of the events that have come: of one at least, and of no more once the turn
/// is over. Returns whether the events have ended; waits only if there is nothing to send.
fn gather<S: Stream + Unpin>(
    events: &mut S,
    ready: &mut Vec<Bytes>,
    mut frame: impl FnMut(S::Item) -> Option<Bytes>,
    turn: Duration,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    let mut began = None;
    loop {
        match events.poll_next_unpin(cx) {
            Poll::Ready(Some(item)) => ready.extend(frame(item)),
            Poll::Ready(None) => return Poll::Ready(true),
            Poll::Pending if ready.is_empty() => return Poll::Pending,
            Poll::Pending => return Poll::Ready(false),
        }
        // Mostly nothing comes but the first.
        let now = Instant::now();
        let began = *began.get_or_insert(now);
        if ready.len() >= MOST_AT_ONCE || now - began >= turn {
            return Poll::Ready(false);
        }
    }
}

/// The watch as messages of a WebSocket, one for each event.
fn messages(watcher: Watcher, mut writer: Writer) -> impl Stream<Item = Message> + Send {
    let media = writer.media;
    let messages = watcher.map(move |item| {
        let frame = writer.frame_or_error(item);
        frame.map(|frame| message(frame, media))
    });
    let messages = GivesWay::new(messages, Option::is_none);
    messages.filter_map(std::future::ready)
}

/// Whether making a frame of an item takes long.
fn is_long(item: &WatchItem) -> bool {
    match item {
        WatchItem::Added(object) | WatchItem::Modified(object) | WatchItem::Deleted(object) => {
            object.bytes().len() > LONG
        }
        WatchItem::Bookmark { .. } => false,
    }
}

/// Makes frames of a watch's items.
struct Writer {
    metrics: WatchMetrics,
    store: Arc<Store>,
    view: View,
    shape: Shape,
    media: Media,
    /// A table's columns are stated once.
    headers_sent: bool,
}

impl Writer {
    /// Whether others get the same frames, as far as the form decides it.
    fn is_shared(&self) -> bool {
        matches!(self.shape, Shape::Objects)
    }

    /// What stands for the item. An object that cannot be shown does not end the watch for the
    /// others.
    fn frame_or_error(&mut self, item: storage::Result<WatchItem>) -> Option<Bytes> {
        let frame = match item {
            Ok(item) => aside(is_long(&item), || self.frame(item)),
            Err(e) => {
                let status = status(e, &self.store.group_resource(), "", During::Watch);
                encode::error_event(&status, self.media)
            }
        };
        frame
            .inspect_err(|e| tracing::error!(error = %e, "Failed to encode watch event"))
            .ok()
    }

    fn frame(&mut self, item: WatchItem) -> codec::Result<Bytes> {
        let last_initial = matches!(
            item,
            WatchItem::Bookmark {
                initial_events_end: true,
                ..
            }
        );
        let frame = self.encoded(item)?;
        self.metrics.sent(frame.len());
        if last_initial {
            self.metrics.initial_events_end();
        }
        Ok(frame)
    }

    fn encoded(&mut self, item: WatchItem) -> codec::Result<Bytes> {
        let (ty, object) = match item {
            WatchItem::Added(object) => (EventType::Added, object),
            WatchItem::Modified(object) => (EventType::Modified, object),
            WatchItem::Deleted(object) => (EventType::Deleted, object),
            WatchItem::Bookmark {
                revision,
                initial_events_end,
            } => return self.bookmark(revision, initial_events_end),
        };
        match self.shape {
            Shape::Objects => self.view.event(ty, &object, self.media),
            Shape::Partial { beta } => {
                let raw = self.view.partial(&object)?;
                let kind = "PartialObjectMetadata";
                let body = encode::message(meta_version(beta), kind, &raw, self.media, false)?;
                encode::event(ty, &body, self.media)
            }
            Shape::Table { .. } => self.table(ty, &object),
        }
    }

    fn table(&mut self, ty: EventType, object: &Arc<Object>) -> codec::Result<Bytes> {
        let tree = self.view.tree(object)?;
        self.table_of(ty, &tree, object.revision())
    }

    fn table_of(&mut self, ty: EventType, tree: &Value, revision: u64) -> codec::Result<Bytes> {
        let Shape::Table { beta, include } = self.shape else {
            unreachable!("asked for tables only")
        };
        let row = table::row(self.view.served, tree, include, jiff::Timestamp::now());
        let meta = ListMeta {
            resource_version: revision.to_string(),
            ..ListMeta::default()
        };
        let headers = !std::mem::replace(&mut self.headers_sent, true);
        let table = table::table(self.view.served, &meta, vec![row], headers);
        encode::tree_event(ty, meta_version(beta), "Table", &table, self.media)
    }

    fn bookmark(&mut self, revision: u64, initial_events_end: bool) -> codec::Result<Bytes> {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let tree = json!({"metadata": metadata});
        let (version, kind) = match self.shape {
            Shape::Table { .. } => return self.table_of(EventType::Bookmark, &tree, revision),
            Shape::Partial { beta } => (meta_version(beta).to_owned(), "PartialObjectMetadata"),
            Shape::Objects => (self.view.api_version(), self.view.served.kind),
        };
        encode::tree_event(EventType::Bookmark, &version, kind, &tree, self.media)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    /// What one turn of so long brings of these events, of which every second can be shown.
    fn turn(events: impl Stream<Item = u8> + Unpin, turn: Duration) -> (Poll<bool>, usize) {
        let mut events = events;
        let mut ready = Vec::new();
        let frame = |item| (item % 2 == 0).then(|| Bytes::from(vec![item]));
        let cx = &mut Context::from_waker(futures::task::noop_waker_ref());
        let ended = gather(&mut events, &mut ready, frame, turn, cx);
        (ended, ready.len())
    }

    #[test]
    fn a_turn_without_time_brings_one_event_and_is_not_the_end() {
        let live = |n: u8| stream::iter(0..n).chain(stream::pending());
        assert_eq!(turn(live(3), Duration::ZERO), (Poll::Ready(false), 1));
        let long = Duration::from_secs(3600);
        assert_eq!(turn(live(3), long), (Poll::Ready(false), 2));
        assert_eq!(turn(live(200), long), (Poll::Ready(false), MOST_AT_ONCE));
        assert_eq!(turn(live(0), long), (Poll::Pending, 0));
        assert_eq!(turn(stream::iter(0..3), long), (Poll::Ready(true), 2));
        // What came cannot be shown: the turn is over all the same, the watch is not.
        let unshown = stream::iter([1, 2]).chain(stream::pending());
        assert_eq!(turn(unshown, Duration::ZERO), (Poll::Ready(false), 0));
    }
}
