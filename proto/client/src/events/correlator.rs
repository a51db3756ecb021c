//! What becomes of an event that is like others before it. Pure: the time is passed in.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

/// Entries of each table; the older half goes when there are more.
const ENTRIES: usize = 4096;
/// Events that differ in their message only, within [`SIMILAR_SECONDS`], before they become one.
const SIMILAR: usize = 10;
const SIMILAR_SECONDS: i64 = 600;
/// Events of one source about one object: at once, and seconds until another one is allowed.
const SPAM_BURST: f64 = 25.0;
const SPAM_SECONDS: f64 = 300.0;

/// An event as it is to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Correlated {
    pub event: Event,
    /// Against the event that was stored before, if there is one.
    pub patch: Option<Value>,
}

#[derive(Default)]
pub(super) struct Correlator {
    similar: Table<(HashSet<String>, Timestamp)>,
    seen: Table<Seen>,
    spam: Table<(f64, Timestamp)>,
}

#[derive(Clone)]
struct Seen {
    count: i32,
    first: Option<Time>,
    name: String,
}

impl Correlator {
    /// `None` for an event that is one too many.
    pub fn correlate(&mut self, event: Event, now: Timestamp) -> Option<Correlated> {
        let (event, key) = self.aggregate(event, now);
        let (event, patch) = self.count(event, &key);
        if self.is_spam(&event, now) {
            return None;
        }
        Some(Correlated { event, patch })
    }

    /// Remembers an event that is about to be written.
    fn remember(&mut self, key: &str, event: &Event) {
        self.seen.put(
            key,
            Seen {
                count: event.count.unwrap_or(1),
                first: event.first_timestamp.clone(),
                name: event.metadata.name.clone().unwrap_or_default(),
            },
        );
    }

    fn aggregate(&mut self, mut event: Event, now: Timestamp) -> (Event, String) {
        let key = key(&event, true);
        let group = key_of_group(&event);
        let message = event.message.clone().unwrap_or_default();
        let entry = self.similar.entry(&group, || (HashSet::new(), now));
        if now.duration_since(entry.1).as_secs() > SIMILAR_SECONDS {
            entry.0.clear();
        }
        entry.1 = now;
        if entry.0.len() < SIMILAR || entry.0.contains(&message) {
            entry.0.insert(message.clone());
        }
        if entry.0.len() < SIMILAR {
            return (event, key);
        }
        // One place stays free, so that the next message is told apart from these.
        if let Some(one) = entry.0.iter().find(|m| **m != message).cloned() {
            entry.0.remove(&one);
        }
        let object = event.involved_object.name.clone().unwrap_or_default();
        event.metadata.name = Some(super::event_name(&object, now));
        event.message = Some(format!("(combined from similar events): {message}"));
        event.first_timestamp = Some(Time(now));
        event.last_timestamp = Some(Time(now));
        event.count = Some(1);
        (event, group)
    }

    fn count(&mut self, mut event: Event, key: &str) -> (Event, Option<Value>) {
        let Some(seen) = self.seen.get(key).cloned() else {
            self.remember(key, &event);
            return (event, None);
        };
        event.count = Some(seen.count.saturating_add(1));
        event.first_timestamp = seen.first;
        event.metadata.name = Some(seen.name);
        let patch = json!({
            "count": event.count,
            "message": event.message,
            "lastTimestamp": event.last_timestamp,
        });
        self.remember(key, &event);
        (event, Some(patch))
    }

    fn is_spam(&mut self, event: &Event, now: Timestamp) -> bool {
        let (tokens, at) = self.spam.entry(&key(event, false), || (SPAM_BURST, now));
        let passed = now.duration_since(*at).as_secs_f64().max(0.0);
        *tokens = (*tokens + passed / SPAM_SECONDS).min(SPAM_BURST);
        *at = now;
        if *tokens < 1.0 {
            return true;
        }
        *tokens -= 1.0;
        false
    }
}

/// Source and object; with `whole` also type, reason and message.
fn key(event: &Event, whole: bool) -> String {
    let source = event.source.as_ref();
    let o = &event.involved_object;
    let mut parts = vec![
        source.and_then(|s| s.component.as_deref()),
        source.and_then(|s| s.host.as_deref()),
        o.kind.as_deref(),
        o.namespace.as_deref(),
        o.name.as_deref(),
        o.uid.as_deref(),
        o.api_version.as_deref(),
        event.type_.as_deref(),
    ];
    if whole {
        parts.extend([
            o.field_path.as_deref(),
            event.reason.as_deref(),
            event.message.as_deref(),
        ]);
    }
    join(&parts)
}

/// Everything but the message.
fn key_of_group(event: &Event) -> String {
    let rest = [
        event.type_.as_deref(),
        event.reason.as_deref(),
        event.reporting_component.as_deref(),
        event.reporting_instance.as_deref(),
    ];
    key(event, false) + "\u{1}" + &join(&rest)
}

fn join(parts: &[Option<&str>]) -> String {
    let parts: Vec<&str> = parts.iter().map(|p| p.unwrap_or_default()).collect();
    parts.join("\u{1}")
}

/// A map that forgets what was not used for long.
struct Table<V> {
    map: HashMap<String, (V, u64)>,
    clock: u64,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self {
            map: HashMap::new(),
            clock: 0,
        }
    }
}

impl<V> Table<V> {
    fn get(&mut self, key: &str) -> Option<&V> {
        self.clock += 1;
        let (value, used) = self.map.get_mut(key)?;
        *used = self.clock;
        Some(value)
    }

    fn put(&mut self, key: &str, value: V) {
        self.clock += 1;
        self.map.insert(key.to_owned(), (value, self.clock));
        self.shrink();
    }

    fn entry(&mut self, key: &str, new: impl FnOnce() -> V) -> &mut V {
        self.clock += 1;
        let clock = self.clock;
        if !self.map.contains_key(key) {
            self.shrink();
        }
        let entry = self
            .map
            .entry(key.to_owned())
            .or_insert_with(|| (new(), clock));
        entry.1 = clock;
        &mut entry.0
    }

    fn shrink(&mut self) {
        if self.map.len() <= ENTRIES {
            return;
        }
        let mut used: Vec<u64> = self.map.values().map(|(_, used)| *used).collect();
        let (_, median, _) = used.select_nth_unstable(ENTRIES / 2);
        let median = *median;
        self.map.retain(|_, (_, used)| *used > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;

    fn event(object: &str, message: &str, at: i64) -> (Event, Timestamp) {
        let now = Timestamp::from_second(1_700_000_000 + at).unwrap();
        let event = Event {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(super::super::event_name(object, now)),
                ..Default::default()
            },
            involved_object: ObjectReference {
                name: Some(object.into()),
                ..Default::default()
            },
            message: Some(message.into()),
            reason: Some("R".into()),
            type_: Some("Normal".into()),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..Event::default()
        };
        (event, now)
    }

    fn feed(c: &mut Correlator, object: &str, message: &str, at: i64) -> Option<Correlated> {
        let (event, now) = event(object, message, at);
        c.correlate(event, now)
    }

    #[test]
    fn the_same_event_raises_the_count() {
        let mut c = Correlator::default();
        let first = feed(&mut c, "a", "m", 0).unwrap();
        assert_eq!(first.patch, None);
        let second = feed(&mut c, "a", "m", 5).unwrap();
        assert_eq!(second.event.metadata.name, first.event.metadata.name);
        assert_eq!(second.event.count, Some(2));
        assert_eq!(second.event.first_timestamp, first.event.first_timestamp);
        let patch = second.patch.unwrap();
        assert_eq!(patch["count"], 2);
        assert_eq!(patch["lastTimestamp"], "2023-11-14T22:13:25Z");
        assert!(feed(&mut c, "b", "m", 6).unwrap().patch.is_none());
    }

    #[test]
    fn many_similar_events_become_one() {
        let mut c = Correlator::default();
        for i in 0..9 {
            assert!(
                feed(&mut c, "a", &format!("m{i}"), i)
                    .unwrap()
                    .patch
                    .is_none()
            );
        }
        let tenth = feed(&mut c, "a", "m9", 9).unwrap();
        assert_eq!(
            tenth.event.message.as_deref(),
            Some("(combined from similar events): m9")
        );
        assert_eq!(tenth.patch, None);
        let next = feed(&mut c, "a", "m10", 10).unwrap();
        assert_eq!(
            next.patch.unwrap()["message"],
            "(combined from similar events): m10"
        );
        assert_eq!(next.event.count, Some(2));
        // Long after, they are news again.
        let later = feed(&mut c, "a", "m11", 10_000).unwrap();
        assert_eq!(later.event.message.as_deref(), Some("m11"));
    }

    #[test]
    fn an_object_that_causes_too_many_is_silenced() {
        let mut c = Correlator::default();
        let passed = (0..60)
            .filter(|i| feed(&mut c, "a", "m", i % 2).is_some())
            .count();
        assert_eq!(passed, 25);
        assert!(feed(&mut c, "b", "m", 1).is_some());
        assert!(feed(&mut c, "a", "m", 305).is_some());
        assert!(feed(&mut c, "a", "m", 306).is_none());
    }

    #[test]
    fn tables_are_bounded() {
        let mut table = Table::default();
        for i in 0..3 * ENTRIES {
            table.put(&i.to_string(), i);
            table.get("0");
        }
        assert!(table.map.len() <= ENTRIES);
        assert!(table.get(&(3 * ENTRIES - 1).to_string()).is_some());
    }
}
