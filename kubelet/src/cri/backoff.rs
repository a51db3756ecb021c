//! Exponential back-off per key, as upstream's `flowcontrol.Backoff` counts it. Time is passed in.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: Duration,
    updated: Timestamp,
}

/// Delays that double with every step, and are forgotten after a while without one.
#[derive(Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    forget: Duration,
    entries: HashMap<String, Entry>,
}

impl Backoff {
    /// Forgets after twice the longest delay.
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self::forgetting(initial, max, max * 2)
    }

    pub fn forgetting(initial: Duration, max: Duration, forget: Duration) -> Self {
        Self {
            initial,
            max,
            forget,
            entries: HashMap::new(),
        }
    }

    /// The current delay of `key`.
    pub fn get(&self, key: &str) -> Duration {
        self.entries
            .get(key)
            .map_or(Duration::ZERO, |entry| entry.delay)
    }

    /// Whether less than the delay has passed between `event` and `now`.
    pub fn in_backoff_since(&self, key: &str, event: Timestamp, now: Timestamp) -> bool {
        self.entries
            .get(key)
            .is_some_and(|entry| !self.expired(entry, event) && elapsed(event, now) < entry.delay)
    }

    /// Whether less than the delay has passed between the last step and `now`.
    pub fn in_backoff_since_update(&self, key: &str, now: Timestamp) -> bool {
        self.entries.get(key).is_some_and(|entry| {
            !self.expired(entry, now) && elapsed(entry.updated, now) < entry.delay
        })
    }

    /// One step: the first delay, or twice the last. `event` is what made the step necessary.
    pub fn next(&mut self, key: &str, event: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if !self.expired(entry, event) => (entry.delay * 2).min(self.max),
            _ => self.initial.min(self.max),
        };
        self.entries.insert(
            key.to_owned(),
            Entry {
                delay,
                updated: now,
            },
        );
    }

    /// Forgets keys that have been quiet for long.
    pub fn collect(&mut self, now: Timestamp) {
        let horizon = self.forget;
        self.entries
            .retain(|_, entry| elapsed(entry.updated, now) <= horizon);
    }

    fn expired(&self, entry: &Entry, event: Timestamp) -> bool {
        elapsed(entry.updated, event) > self.forget
    }
}

/// Zero where `to` is before `from`.
fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_maximum_and_forgets() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));
        assert!(!backoff.in_backoff_since("k", at(0), at(0)));
        let mut delays = Vec::new();
        for i in 0..7 {
            backoff.next("k", at(i), at(i));
            delays.push(backoff.get("k").as_secs());
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert!(backoff.in_backoff_since("k", at(100), at(399)));
        assert!(!backoff.in_backoff_since("k", at(100), at(400)));
        // Quiet for more than ten minutes: starts anew.
        assert!(!backoff.in_backoff_since("k", at(607), at(608)));
        backoff.next("k", at(607), at(607));
        assert_eq!(backoff.get("k").as_secs(), 10);
        backoff.collect(at(607 + 601));
        assert_eq!(backoff.get("k").as_secs(), 0);
    }
}
