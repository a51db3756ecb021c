//! `events.k8s.io/v1` Events: an action of a controller on an object. What repeats becomes a
//! series whose count is written at its second event, every half hour, and at its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{ATTEMPTS, EventType, RETRY, event_name, event_namespace};
use crate::api::{Api, Patch, PatchOptions};
use crate::client::Client;
use crate::error::Error;

/// A series that nothing was added to for so long has ended.
const FINISH: Duration = Duration::from_secs(6 * 60);
/// How often the counts of series are written.
const REFRESH: Duration = Duration::from_secs(30 * 60);
/// Events that are on their way at once. Upstream has no bound here; a server that answers
/// slowly is to find the queue full, not ever more requests.
const WRITING: usize = 256;
/// Events that wait. One preemption makes several at once, and a thousand pods may need one:
/// what is said of each of them is worth the megabytes that it takes until it is written.
const QUEUE: usize = 16 << 10;
/// An event waits so long for others to go out with it: a packet and a wakeup for several of
/// them. People read no faster.
const GATHER: Duration = Duration::from_millis(10);

/// Records `events.k8s.io/v1` Events of one controller. Cheap to clone.
#[derive(Clone)]
pub struct SeriesRecorder {
    queue: mpsc::Sender<Arc<Event>>,
    controller: Arc<str>,
    /// Follows the controller's name in `reportingInstance`.
    host: Arc<str>,
    dropped: Arc<AtomicU64>,
}

impl SeriesRecorder {
    /// Spawns the task that writes the events until `stop`. The reporting instance is
    /// `<controller>-<hostname>`.
    pub fn start(client: &Client, controller: &str, stop: &CancellationToken) -> Self {
        let (recorder, events) = Self::to_channel(controller);
        let writer = Writer {
            api: Api::all(client),
            cache: HashMap::new(),
        };
        let stop = stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(writer.run(events)).await });
        recorder
    }

    /// For tests: the events come out of the receiver instead of being written.
    pub fn to_channel(controller: &str) -> (Self, mpsc::Receiver<Arc<Event>>) {
        let (queue, events) = mpsc::channel(QUEUE);
        let recorder = Self {
            queue,
            controller: controller.into(),
            host: crate::leader_election::hostname().into(),
            dropped: Arc::default(),
        };
        (recorder, events)
    }

    /// The same queue and writer, as another controller (each scheduler profile has a name).
    #[must_use]
    pub fn controller(&self, controller: &str) -> Self {
        Self {
            controller: controller.into(),
            ..self.clone()
        }
    }

    /// Records that `action` was taken on `regarding`, with what came of it.
    pub fn event(
        &self,
        regarding: &ObjectReference,
        related: Option<&ObjectReference>,
        ty: EventType,
        reason: &str,
        action: &str,
        note: &str,
    ) {
        let now = jiff::Timestamp::now();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(event_name(
                    regarding.name.as_deref().unwrap_or_default(),
                    now,
                )),
                namespace: Some(event_namespace(regarding)),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(self.controller.to_string()),
            reporting_instance: Some(format!("{}-{}", self.controller, self.host)),
            action: Some(action.to_owned()),
            reason: Some(reason.to_owned()),
            regarding: Some(regarding.clone()),
            related: related.cloned(),
            note: Some(note.to_owned()),
            type_: Some(ty.as_str().to_owned()),
            ..Event::default()
        };
        if self.queue.try_send(Arc::new(event)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that did not fit into the queue.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// What makes two events the same: everything but note and time.
fn key(e: &Event) -> String {
    let mut key = String::with_capacity(256);
    let mut add = |part: &Option<String>| {
        key.push_str(part.as_deref().unwrap_or_default());
        key.push('\u{1}');
    };
    add(&e.type_);
    add(&e.action);
    add(&e.reason);
    add(&e.reporting_controller);
    add(&e.reporting_instance);
    for reference in [&e.regarding, &e.related].into_iter().flatten() {
        add(&reference.api_version);
        add(&reference.kind);
        add(&reference.namespace);
        add(&reference.name);
        add(&reference.uid);
        // What is said of another version of an object is not the same.
        add(&reference.resource_version);
        add(&reference.field_path);
    }
    key
}

struct Cached {
    event: Arc<Event>,
    last: Instant,
    /// Whether the server knows the series' count.
    written: bool,
}

struct Writer {
    api: Api<Event>,
    cache: HashMap<String, Cached>,
}

impl Writer {
    async fn run(mut self, mut events: mpsc::Receiver<Arc<Event>>) {
        let mut finish = interval(FINISH);
        let mut refresh = interval(REFRESH);
        finish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut gathered = Vec::new();
        let mut due = None;
        let mut writing = FuturesUnordered::new();
        loop {
            let room = WRITING.saturating_sub(writing.len());
            let to_write = tokio::select! {
                event = events.recv(), if due.is_none() && room > 0 => {
                    let Some(event) = event else {
                        return;
                    };
                    gathered.push(event);
                    due = Some(Instant::now() + GATHER);
                    continue;
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = None;
                    while gathered.len() < room
                        && let Ok(event) = events.try_recv()
                    {
                        gathered.push(event);
                    }
                    gathered.drain(..).filter_map(|event| self.take_in(event)).collect()
                }
                Some(()) = writing.next() => continue,
                _ = finish.tick() => self.finished(),
                _ = refresh.tick() => self.unwritten(),
            };
            for event in to_write {
                writing.push(write(self.api.clone(), event));
            }
        }
    }

    /// What is to be written because of one more event.
    fn take_in(&mut self, event: Arc<Event>) -> Option<Arc<Event>> {
        let key = key(&event);
        let Some(cached) = self.cache.get_mut(&key) else {
            let new = Cached {
                event: Arc::clone(&event),
                last: Instant::now(),
                written: true,
            };
            self.cache.insert(key, new);
            return Some(event);
        };
        cached.last = Instant::now();
        let now = MicroTime(jiff::Timestamp::now());
        let event = Arc::make_mut(&mut cached.event);
        if let Some(series) = &mut event.series {
            series.count = series.count.saturating_add(1);
            series.last_observed_time = now;
            cached.written = false;
            return None;
        }
        event.series = Some(EventSeries {
            count: 2,
            last_observed_time: now,
        });
        Some(Arc::clone(&cached.event))
    }

    /// Forgets what has ended; returns counts that are still to be written.
    fn finished(&mut self) -> Vec<Arc<Event>> {
        let mut out = Vec::new();
        self.cache.retain(|_, cached| {
            let ended = cached.last.elapsed() >= FINISH;
            if ended && !cached.written {
                out.push(Arc::clone(&cached.event));
            }
            !ended
        });
        out
    }

    fn unwritten(&mut self) -> Vec<Arc<Event>> {
        let stale = self.cache.values_mut().filter(|c| !c.written);
        stale
            .map(|c| {
                c.written = true;
                Arc::clone(&c.event)
            })
            .collect()
    }
}

async fn write(api: Api<Event>, event: Arc<Event>) {
    let api = api.within(event.metadata.namespace.as_deref().unwrap_or_default());
    for attempt in 1..=ATTEMPTS {
        match send(&api, &event).await {
            Ok(()) => return,
            Err(err) if err.status().is_some() && !err.is_too_many_requests() => {
                if !err.is_already_exists() && !err.is_namespace_terminating() {
                    tracing::warn!(%err, "the server rejected an event");
                }
                return;
            }
            Err(err) => tracing::debug!(%err, attempt, "cannot write an event yet"),
        }
        tokio::time::sleep(RETRY.mul_f64(1.0 + 0.25 * rand::random::<f64>())).await;
    }
    tracing::warn!("giving up on an event: the API server cannot be reached");
}

async fn send(api: &Api<Event>, event: &Event) -> Result<(), Error> {
    if let Some(series) = &event.series {
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Strategic(json!({ "series": series }));
        match api
            .patch_unread(name, "", &patch, &PatchOptions::default())
            .await
        {
            Err(err) if err.is_not_found() => {}
            other => return other,
        }
    }
    api.create_unread(event).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> Writer {
        let client = Client::new(crate::Config::new("http://127.0.0.1:1")).unwrap();
        Writer {
            api: Api::all(&client),
            cache: HashMap::new(),
        }
    }

    async fn event(note: &str) -> Arc<Event> {
        let (recorder, mut events) = SeriesRecorder::to_channel("default-scheduler");
        let about = ObjectReference {
            name: Some("p".into()),
            ..ObjectReference::default()
        };
        recorder.event(
            &about,
            None,
            EventType::Warning,
            "FailedScheduling",
            "Scheduling",
            note,
        );
        events.recv().await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn repetitions_become_a_series() {
        let mut w = writer();
        let first = w.take_in(event("0/1 nodes").await).unwrap();
        assert_eq!(first.series, None);
        assert!(
            first
                .reporting_instance
                .as_deref()
                .unwrap()
                .starts_with("default-scheduler-")
        );
        let second = w.take_in(event("0/2 nodes").await).unwrap();
        assert_eq!(second.series.as_ref().unwrap().count, 2);
        assert_eq!(second.metadata.name, first.metadata.name);
        assert!(w.take_in(event("0/3 nodes").await).is_none());
        assert_eq!(w.unwritten()[0].series.as_ref().unwrap().count, 3);
        assert!(w.unwritten().is_empty());
        assert!(w.take_in(event("0/3 nodes").await).is_none());
        assert!(w.finished().is_empty());
        tokio::time::advance(FINISH).await;
        assert_eq!(w.finished()[0].series.as_ref().unwrap().count, 4);
        assert!(w.cache.is_empty());
        assert_eq!(w.take_in(event("again").await).unwrap().series, None);
        // Another version of the object is another matter.
        let mut other = (*event("again").await).clone();
        let regarding = other.regarding.get_or_insert_default();
        regarding.resource_version = Some("2".into());
        assert_eq!(w.take_in(Arc::new(other)).unwrap().series, None);
    }
}
