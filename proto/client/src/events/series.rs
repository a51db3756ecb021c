//! `events.k8s.io/v1` Events: an action of a controller on an object. What repeats becomes a
//! series whose count is written at its second event, every half hour, and at its end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{ATTEMPTS, EventType, QUEUE, RETRY, event_name, event_namespace};
use crate::api::{Api, Patch, PatchOptions};
use crate::client::Client;
use crate::error::Error;

/// A series that nothing was added to for so long has ended.
const FINISH: Duration = Duration::from_secs(6 * 60);
/// How often the counts of series are written.
const REFRESH: Duration = Duration::from_secs(30 * 60);

/// Records `events.k8s.io/v1` Events of one controller. Cheap to clone.
#[derive(Clone)]
pub struct SeriesRecorder {
    queue: mpsc::Sender<Event>,
    controller: Arc<str>,
    instance: Arc<str>,
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
    pub fn to_channel(controller: &str) -> (Self, mpsc::Receiver<Event>) {
        let (queue, events) = mpsc::channel(QUEUE);
        let host = crate::leader_election::hostname();
        let recorder = Self {
            queue,
            controller: controller.into(),
            instance: format!("{controller}-{host}").into(),
            dropped: Arc::default(),
        };
        (recorder, events)
    }

    /// The same queue and writer, as another controller (each scheduler profile has a name).
    #[must_use]
    pub fn controller(&self, controller: &str) -> Self {
        let host = crate::leader_election::hostname();
        Self {
            controller: controller.into(),
            instance: format!("{controller}-{host}").into(),
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
            reporting_instance: Some(self.instance.to_string()),
            action: Some(action.to_owned()),
            reason: Some(reason.to_owned()),
            regarding: Some(regarding.clone()),
            related: related.cloned(),
            note: Some(note.to_owned()),
            type_: Some(ty.as_str().to_owned()),
            ..Event::default()
        };
        if self.queue.try_send(event).is_err() {
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
    let reference = |r: Option<&ObjectReference>| {
        r.map_or(String::new(), |r| {
            [&r.kind, &r.namespace, &r.name, &r.uid, &r.field_path]
                .map(|p| p.clone().unwrap_or_default())
                .join("\u{1}")
        })
    };
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    [
        text(&e.type_),
        text(&e.action),
        text(&e.reason),
        text(&e.reporting_controller),
        text(&e.reporting_instance),
        reference(e.regarding.as_ref()),
        reference(e.related.as_ref()),
    ]
    .join("\u{2}")
}

struct Cached {
    event: Event,
    last: Instant,
    /// Whether the server knows the series' count.
    written: bool,
}

struct Writer {
    api: Api<Event>,
    cache: HashMap<String, Cached>,
}

impl Writer {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut finish = interval(FINISH);
        let mut refresh = interval(REFRESH);
        finish.set_missed_tick_behavior(MissedTickBehavior::Delay);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let to_write = tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.take_in(event).into_iter().collect(),
                    None => return,
                },
                _ = finish.tick() => self.finished(),
                _ = refresh.tick() => self.unwritten(),
            };
            for event in to_write {
                self.write(event).await;
            }
        }
    }

    /// What is to be written because of one more event.
    fn take_in(&mut self, event: Event) -> Option<Event> {
        let key = key(&event);
        let Some(cached) = self.cache.get_mut(&key) else {
            let new = Cached {
                event: event.clone(),
                last: Instant::now(),
                written: true,
            };
            self.cache.insert(key, new);
            return Some(event);
        };
        cached.last = Instant::now();
        let now = MicroTime(jiff::Timestamp::now());
        if let Some(series) = &mut cached.event.series {
            series.count = series.count.saturating_add(1);
            series.last_observed_time = now;
            cached.written = false;
            return None;
        }
        cached.event.series = Some(EventSeries {
            count: 2,
            last_observed_time: now,
        });
        Some(cached.event.clone())
    }

    /// Forgets what has ended; returns counts that are still to be written.
    fn finished(&mut self) -> Vec<Event> {
        let mut out = Vec::new();
        self.cache.retain(|_, cached| {
            let ended = cached.last.elapsed() >= FINISH;
            if ended && !cached.written {
                out.push(cached.event.clone());
            }
            !ended
        });
        out
    }

    fn unwritten(&mut self) -> Vec<Event> {
        let stale = self.cache.values_mut().filter(|c| !c.written);
        stale
            .map(|c| {
                c.written = true;
                c.event.clone()
            })
            .collect()
    }

    async fn write(&self, event: Event) {
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let api = self.api.within(&namespace);
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
}

async fn send(api: &Api<Event>, event: &Event) -> Result<(), Error> {
    if let Some(series) = &event.series {
        let name = event.metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Strategic(json!({ "series": series }));
        match api.patch(name, &patch, &PatchOptions::default()).await {
            Err(err) if err.is_not_found() => {}
            other => return other.map(drop),
        }
    }
    api.create(event).await.map(drop)
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

    async fn event(note: &str) -> Event {
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
                .unwrap()
                .starts_with("default-scheduler-")
        );
        let second = w.take_in(event("0/2 nodes").await).unwrap();
        assert_eq!(second.series.unwrap().count, 2);
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
    }
}
