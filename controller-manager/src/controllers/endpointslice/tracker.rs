//! What a Service's sync must remember: which generations of its slices it wrote, so that it
//! waits for the cache, and when the changes happened that it has answered.

use std::collections::HashMap;

use client::ObjectKey;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::kinds::Pod;

/// The last written generation of each slice of each Service.
#[derive(Debug, Default)]
pub struct SliceTracker {
    by_service: HashMap<ObjectKey, HashMap<String, Expected>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Generation(i64),
    Deletion,
}

fn generation(slice: &EndpointSlice) -> i64 {
    slice.metadata.generation.unwrap_or(0)
}

fn uid(slice: &EndpointSlice) -> &str {
    slice.metadata.uid.as_deref().unwrap_or_default()
}

impl SliceTracker {
    /// Whether the slice has changed by another hand than ours.
    pub fn should_sync(&self, service: &ObjectKey, slice: &EndpointSlice) -> bool {
        let expected = self.by_service.get(service).and_then(|m| m.get(uid(slice)));
        match expected {
            None => true,
            Some(Expected::Generation(g)) => generation(slice) > *g,
            Some(Expected::Deletion) => generation(slice) > -1,
        }
    }

    /// Whether the cache has not seen our last writes yet.
    pub fn is_stale<'a>(
        &self,
        service: &ObjectKey,
        cached: impl Iterator<Item = &'a EndpointSlice> + Clone,
    ) -> bool {
        let Some(expected) = self.by_service.get(service) else {
            return false;
        };
        let behind = cached.clone().any(|s| match expected.get(uid(s)) {
            None => false,
            Some(Expected::Deletion) => true,
            Some(Expected::Generation(g)) => *g > generation(s),
        });
        let missing = || {
            let mut written = expected.iter().filter(|(_, e)| **e != Expected::Deletion);
            written.any(|(known, _)| !cached.clone().any(|s| uid(s) == known))
        };
        behind || missing()
    }

    pub fn written(&mut self, service: &ObjectKey, slice: &EndpointSlice) {
        self.expect(service, slice, Expected::Generation(generation(slice)));
    }

    pub fn expect_deletion(&mut self, service: &ObjectKey, slice: &EndpointSlice) {
        self.expect(service, slice, Expected::Deletion);
    }

    fn expect(&mut self, service: &ObjectKey, slice: &EndpointSlice, expected: Expected) {
        let slices = self.by_service.entry(service.clone()).or_default();
        slices.insert(uid(slice).to_owned(), expected);
    }

    /// Forgets a slice that is gone. Returns whether somebody else deleted one that we want.
    pub fn deleted(&mut self, service: &ObjectKey, slice: &EndpointSlice) -> bool {
        let slices = self.by_service.get_mut(service);
        let expected = slices.and_then(|m| m.remove(uid(slice)));
        matches!(expected, Some(Expected::Generation(_)))
    }

    pub fn forget_service(&mut self, service: &ObjectKey) {
        self.by_service.remove(service);
    }
}

/// When the changes happened that each Service's last sync answered.
#[derive(Debug, Default)]
pub struct TriggerTimes {
    services: HashMap<ObjectKey, Answered>,
}

#[derive(Debug, Default)]
struct Answered {
    service: Option<Timestamp>,
    pods: HashMap<Box<str>, Timestamp>,
}

impl TriggerTimes {
    /// The time of the oldest change since the last call, if it is known: a pod became ready or
    /// not, or the Service was created.
    pub fn trigger<'a>(
        &mut self,
        key: &ObjectKey,
        service: &Service,
        pods: impl Iterator<Item = &'a Pod>,
    ) -> Option<Timestamp> {
        let created = service.metadata.creation_timestamp.as_ref().map(|t| t.0);
        let known = self.services.contains_key(key);
        let answered = self.services.entry(key.clone()).or_default();
        let mut oldest: Option<Timestamp> = None;
        let mut consider = |time: Timestamp, before: Option<Timestamp>| {
            if before.is_none_or(|before| time > before) {
                oldest = Some(oldest.map_or(time, |o| o.min(time)));
            }
        };
        let mut times = HashMap::new();
        for pod in pods {
            let ready = pod
                .condition("Ready")
                .and_then(|c| c.last_transition_time.as_ref());
            if let Some(time) = ready.map(|t| t.0) {
                consider(time, answered.pods.get(&pod.metadata.name).copied());
                times.insert(pod.metadata.name.clone(), time);
            }
        }
        if let Some(created) = created {
            consider(created, answered.service);
        }
        answered.pods = times;
        answered.service = created;
        if known { oldest } else { created }
    }

    pub fn forget_service(&mut self, key: &ObjectKey) {
        self.services.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(uid: &str, generation: i64) -> EndpointSlice {
        let metadata = json!({"name": uid, "uid": uid, "generation": generation});
        serde_json::from_value(
            json!({"metadata": metadata, "addressType": "IPv4", "endpoints": []}),
        )
        .unwrap()
    }

    #[test]
    fn waits_for_what_was_written() {
        let key = ObjectKey::new("d", "s");
        let mut tracker = SliceTracker::default();
        assert!(!tracker.is_stale(&key, [slice("a", 1)].iter()));
        tracker.written(&key, &slice("a", 2));
        assert!(tracker.is_stale(&key, [slice("a", 1)].iter()));
        assert!(tracker.is_stale(&key, [].iter()));
        assert!(!tracker.is_stale(&key, [slice("a", 2)].iter()));
        assert!(!tracker.should_sync(&key, &slice("a", 2)));
        assert!(tracker.should_sync(&key, &slice("a", 3)));
        tracker.expect_deletion(&key, &slice("a", 2));
        assert!(tracker.is_stale(&key, [slice("a", 2)].iter()));
        assert!(!tracker.deleted(&key, &slice("a", 2)));
        assert!(!tracker.is_stale(&key, [].iter()));
        tracker.written(&key, &slice("b", 1));
        assert!(tracker.deleted(&key, &slice("b", 1)));
    }

    fn pod(name: &str, time: &str) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": name}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": time}]}}),
        )
        .unwrap()
    }

    #[test]
    fn the_oldest_change_triggers() {
        let key = ObjectKey::new("d", "s");
        let service: Service = serde_json::from_value(
            json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}}),
        )
        .unwrap();
        let at = |s: &str| Some(s.parse().unwrap());
        let mut times = TriggerTimes::default();
        let early = pod("p1", "2024-01-01T00:00:02Z");
        assert_eq!(
            times.trigger(&key, &service, [].iter()),
            at("2024-01-01T00:00:00Z")
        );
        let pods = [early.clone(), pod("p2", "2024-01-01T00:00:01Z")];
        assert_eq!(
            times.trigger(&key, &service, pods.iter()),
            at("2024-01-01T00:00:01Z")
        );
        assert_eq!(times.trigger(&key, &service, pods.iter()), None);
        let pods = [early, pod("p2", "2024-01-01T00:00:09Z")];
        assert_eq!(
            times.trigger(&key, &service, pods.iter()),
            at("2024-01-01T00:00:09Z")
        );
    }
}
