//! Events: telling users what a daemon did about their objects.
//!
//! [`Recorder`] writes `v1` Events, correlated as client-go does: the same event again raises
//! a count, many similar ones become one, and an object that causes too many is silenced.
//! [`series::SeriesRecorder`] writes `events.k8s.io/v1` Events, as the scheduler does.
//!
//! Recording never waits: events go through a bounded queue, and what does not fit is counted
//! and dropped. An event is a hint to people, no state.

mod correlator;
pub mod series;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::Metadata;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Patch, PatchOptions};
use crate::client::Client;
use crate::error::Error;
use correlator::{Correlated, Correlator};

/// As client-go's: a burst of a thousand events is more than people read.
const QUEUE: usize = 1000;
/// Attempts to write one event, and the time between them, as upstream.
const ATTEMPTS: u32 = 12;
const RETRY: Duration = Duration::from_secs(10);

/// `type` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What an event is about.
pub fn reference<K>(object: &K) -> ObjectReference
where
    K: Metadata<Ty = ObjectMeta>,
{
    let meta = object.metadata();
    ObjectReference {
        api_version: Some(K::API_VERSION.to_owned()),
        kind: Some(K::KIND.to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// `<object>.<nanoseconds in hex>`: unique enough, and sorted by time.
fn event_name(object: &str, now: jiff::Timestamp) -> String {
    format!("{object}.{:x}", now.as_nanosecond())
}

/// Events about cluster-scoped objects live in `default`.
fn event_namespace(about: &ObjectReference) -> String {
    match about.namespace.as_deref() {
        None | Some("") => "default".to_owned(),
        Some(namespace) => namespace.to_owned(),
    }
}

/// Records `v1` Events of one component. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Event>,
    source: Arc<EventSource>,
    dropped: Arc<AtomicU64>,
    /// What a writer for another component needs; none where nothing is written.
    writes: Option<(Client, CancellationToken)>,
}

impl Recorder {
    /// Spawns the task that writes the events until `stop`. `component` is what events say
    /// they come from, such as `deployment-controller`; `host` may be empty.
    pub fn start(client: &Client, component: &str, host: &str, stop: &CancellationToken) -> Self {
        Self {
            queue: write(client, stop),
            writes: Some((client.clone(), stop.clone())),
            ..Self::detached(component, host)
        }
    }

    fn detached(component: &str, host: &str) -> Self {
        let source = EventSource {
            component: Some(component.to_owned()),
            host: Some(host.to_owned()).filter(|h| !h.is_empty()),
        };
        Self {
            queue: mpsc::channel(1).0,
            source: Arc::new(source),
            dropped: Arc::default(),
            writes: None,
        }
    }

    /// For tests: the events come out of the receiver instead of being written.
    pub fn to_channel(component: &str) -> (Self, mpsc::Receiver<Event>) {
        let (queue, events) = mpsc::channel(QUEUE);
        (
            Self {
                queue,
                ..Self::detached(component, "")
            },
            events,
        )
    }

    /// For another component (each controller has its own name), with a queue and a writer of
    /// its own: one whose events cannot be written for a while holds up no other's.
    #[must_use]
    pub fn component(&self, component: &str) -> Self {
        let host = self.source.host.as_deref().unwrap_or_default();
        let queue = match &self.writes {
            Some((client, stop)) => write(client, stop),
            None => self.queue.clone(),
        };
        Self {
            queue,
            writes: self.writes.clone(),
            ..Self::detached(component, host)
        }
    }

    /// Records an event. `reason` is one word in CamelCase, `message` a sentence.
    pub fn event(&self, about: &ObjectReference, ty: EventType, reason: &str, message: &str) {
        self.annotated(about, ty, reason, message, None);
    }

    /// As [`Recorder::event`], with annotations.
    pub fn annotated(
        &self,
        about: &ObjectReference,
        ty: EventType,
        reason: &str,
        message: &str,
        annotations: Option<std::collections::BTreeMap<String, String>>,
    ) {
        let now = jiff::Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name(about.name.as_deref().unwrap_or_default(), now)),
                namespace: Some(event_namespace(about)),
                annotations,
                ..ObjectMeta::default()
            },
            involved_object: about.clone(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            source: Some((*self.source).clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            type_: Some(ty.as_str().to_owned()),
            ..Event::default()
        };
        tracing::info!(
            object = about.name.as_deref().unwrap_or_default(),
            kind = about.kind.as_deref().unwrap_or_default(),
            r#type = ty.as_str(),
            reason,
            message,
            "Event occurred"
        );
        if self.queue.try_send(event).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::debug!(dropped, "the event queue is full");
        }
    }

    /// Events that did not fit into the queue.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Spawns a writer until `stop`.
fn write(client: &Client, stop: &CancellationToken) -> mpsc::Sender<Event> {
    let (queue, events) = mpsc::channel(QUEUE);
    let writer = Writer {
        api: Api::all(client),
        correlator: Correlator::default(),
    };
    let stop = stop.clone();
    tokio::spawn(async move { stop.run_until_cancelled(writer.run(events)).await });
    queue
}

struct Writer {
    api: Api<Event>,
    correlator: Correlator,
}

impl Writer {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            let Some(correlated) = self.correlator.correlate(event, jiff::Timestamp::now()) else {
                continue;
            };
            self.write(correlated).await;
        }
    }

    async fn write(&self, correlated: Correlated) {
        let Correlated { event, patch } = correlated;
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api = self.api.within(&namespace);
        for attempt in 1..=ATTEMPTS {
            match send(&api, &event, patch.as_ref()).await {
                Ok(()) => return,
                // The namespace is going away, the event is malformed, it was written before:
                // trying again does not help.
                Err(err) if err.status().is_some() && !err.is_too_many_requests() => {
                    if !err.is_already_exists() && !err.is_namespace_terminating() {
                        tracing::warn!(%err, "the server rejected an event");
                    }
                    return;
                }
                Err(err) => tracing::info!(%err, attempt, "cannot write an event yet"),
            }
            let delay = if attempt == 1 {
                RETRY.mul_f64(rand::random())
            } else {
                RETRY
            };
            tokio::time::sleep(delay).await;
        }
        tracing::warn!("giving up on an event: the API server cannot be reached");
    }
}

async fn send(
    api: &Api<Event>,
    event: &Event,
    patch: Option<&serde_json::Value>,
) -> Result<(), Error> {
    if let Some(patch) = patch {
        let name = event.metadata.name.clone().unwrap_or_default();
        let patch = Patch::Strategic(patch.clone());
        match api.patch(&name, &patch, &PatchOptions::default()).await {
            // It has expired meanwhile.
            Err(err) if err.is_not_found() => {}
            other => return other.map(drop),
        }
    }
    api.create_unread(event).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Node;

    #[tokio::test]
    async fn events_are_filled_in() {
        let (recorder, mut events) = Recorder::to_channel("demo-controller");
        let node = Node {
            metadata: ObjectMeta {
                name: Some("n1".into()),
                ..ObjectMeta::default()
            },
            ..Node::default()
        };
        recorder.event(&reference(&node), EventType::Warning, "Odd", "it is odd");
        let event = events.recv().await.unwrap();
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert!(event.metadata.name.unwrap().starts_with("n1."));
        assert_eq!(event.involved_object.kind.as_deref(), Some("Node"));
        assert_eq!(event.involved_object.api_version.as_deref(), Some("v1"));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(
            event.source.unwrap().component.as_deref(),
            Some("demo-controller")
        );
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_counts() {
        let (recorder, _events) = Recorder::to_channel("x");
        let about = ObjectReference::default();
        for _ in 0..QUEUE + 3 {
            recorder.event(&about, EventType::Normal, "R", "m");
        }
        assert_eq!(recorder.dropped(), 3);
    }
}
