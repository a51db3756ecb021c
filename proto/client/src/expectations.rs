//! [`Expectations`]: what a controller has done and its informer does not show yet.
//!
//! A controller that has just created pods must not count the pods in its cache until the
//! cache shows them, or it would create them again. It notes how many creations and
//! deletions it expects to see, and does not act on a key before it has seen them, or before
//! they are overdue.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// After this the cache is believed anyway: an event may have been missed, as upstream.
pub const TIMEOUT: Duration = Duration::from_secs(5 * 60);

#[derive(Debug)]
struct Expected {
    /// Whose they are: another object of the same key has done nothing yet.
    of: String,
    creations: i64,
    /// UIDs of what is expected to go; a deletion may be seen twice, and counts once.
    deletions: HashSet<String>,
    since: Instant,
}

/// Expectations of all keys of one controller.
#[derive(Debug)]
pub struct Expectations<K> {
    expected: Mutex<HashMap<K, Expected>>,
}

impl<K: Hash + Eq + Clone> Default for Expectations<K> {
    fn default() -> Self {
        Self {
            expected: Mutex::default(),
        }
    }
}

impl<K: Hash + Eq + Clone> Expectations<K> {
    pub fn new() -> Self {
        Self::default()
    }

    fn expect(&self, key: &K, of: &str, change: impl FnOnce(&mut Expected)) {
        let nothing = || Expected {
            of: of.to_owned(),
            creations: 0,
            deletions: HashSet::new(),
            since: Instant::now(),
        };
        let mut expected = self.expected.lock();
        let entry = expected.entry(key.clone()).or_insert_with(nothing);
        if entry.of != of {
            *entry = nothing();
        }
        entry.since = Instant::now();
        change(entry);
    }

    /// The key's object, whose UID is `of`, is about to create `count` others. Call it before
    /// creating the first one.
    pub fn expect_creations(&self, key: &K, of: &str, count: usize) {
        self.expect(key, of, |e| e.creations = e.creations.max(0) + count as i64);
    }

    /// The key's object, whose UID is `of`, is about to delete those of these UIDs. Call it
    /// before deleting the first one.
    pub fn expect_deletions(&self, key: &K, of: &str, uids: impl IntoIterator<Item = String>) {
        self.expect(key, of, |e| e.deletions.extend(uids));
    }

    /// The informer shows a creation, or one of those expected has failed.
    pub fn creation_observed(&self, key: &K) {
        self.creations_observed(key, 1);
    }

    /// As [`Expectations::creation_observed`], for several: those not tried after a failure.
    pub fn creations_observed(&self, key: &K, count: usize) {
        if let Some(e) = self.expected.lock().get_mut(key) {
            e.creations -= count as i64;
        }
    }

    /// The informer shows a deletion (or that it has begun), or one expected has failed.
    pub fn deletion_observed(&self, key: &K, uid: &str) {
        if let Some(e) = self.expected.lock().get_mut(key) {
            e.deletions.remove(uid);
        }
    }

    /// Whether the cache shows all that the key's object, whose UID is `of`, has done, so that
    /// it can be acted on.
    pub fn satisfied(&self, key: &K, of: &str) -> bool {
        match self.expected.lock().get(key) {
            None => true,
            Some(e) if e.of != of => true,
            Some(e) if e.creations <= 0 && e.deletions.is_empty() => true,
            Some(e) => e.since.elapsed() > TIMEOUT,
        }
    }

    /// The key's object is gone.
    pub fn forget(&self, key: &K) {
        self.expected.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_waits_for_the_cache() {
        let e = Expectations::new();
        assert!(e.satisfied(&"a", "1"));
        e.expect_creations(&"a", "1", 2);
        e.expect_deletions(&"a", "1", ["u1".to_owned()]);
        e.creation_observed(&"a");
        e.deletion_observed(&"a", "u1");
        e.deletion_observed(&"a", "u1");
        assert!(!e.satisfied(&"a", "1") && e.satisfied(&"b", "1"));
        e.creation_observed(&"a");
        assert!(e.satisfied(&"a", "1"));
        // One more than expected does not count against the next time.
        e.creation_observed(&"a");
        e.expect_creations(&"a", "1", 1);
        assert!(!e.satisfied(&"a", "1"));
    }

    #[tokio::test(start_paused = true)]
    async fn overdue_expectations_are_given_up() {
        let e = Expectations::new();
        e.expect_creations(&"a", "1", 1);
        tokio::time::advance(TIMEOUT).await;
        assert!(!e.satisfied(&"a", "1"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(e.satisfied(&"a", "1"));
        e.expect_creations(&"b", "1", 1);
        e.forget(&"b");
        assert!(e.satisfied(&"b", "1"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_made_anew_owes_nothing() {
        let e = Expectations::new();
        e.expect_creations(&"a", "1", 3);
        assert!(!e.satisfied(&"a", "1") && e.satisfied(&"a", "2"));
        e.expect_creations(&"a", "2", 1);
        e.creation_observed(&"a");
        assert!(e.satisfied(&"a", "2"));
    }
}
