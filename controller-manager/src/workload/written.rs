//! What a controller wrote last, so that it does not act on a cache that is older than that.
//!
//! Acting on it would do no harm, since every write names the revision it is based on; it
//! would be refused and tried again. Waiting for the watch is cheaper.

use std::collections::HashMap;

use client::{Object, ObjectKey};
use parking_lot::Mutex;

/// Revisions of last writes, by key.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<ObjectKey, u64>>);

/// Revisions can be compared since v1.35 (KEP-5504); any server of ours or of upstream makes
/// them of numbers.
fn revision(object: &impl Object) -> Option<u64> {
    object.resource_version().parse().ok()
}

impl Written {
    /// Notes what the server has answered to a write.
    pub fn note(&self, object: &impl Object) {
        if let Some(revision) = revision(object) {
            self.0.lock().insert(object.key(), revision);
        }
    }

    /// Whether the cached object is older than our last write. Its watch event will come, and
    /// with it another sync.
    pub fn is_ahead_of(&self, cached: &impl Object) -> bool {
        let mut written = self.0.lock();
        let key = cached.key();
        let Some(last) = written.get(&key) else {
            return false;
        };
        let stale = revision(cached).is_some_and(|r| r < *last);
        if !stale {
            written.remove(&key);
        }
        stale
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Pod;

    #[test]
    fn waits_for_the_watch() {
        let pod = |rv: &str| -> Pod {
            serde_json::from_value(
                serde_json::json!({"metadata": {"name": "p", "resourceVersion": rv}}),
            )
            .unwrap()
        };
        let written = Written::default();
        assert!(!written.is_ahead_of(&pod("5")));
        written.note(&pod("9"));
        assert!(written.is_ahead_of(&pod("5")));
        assert!(!written.is_ahead_of(&pod("10")));
        written.note(&pod("12"));
        written.forget(&pod("12").key());
        assert!(!written.is_ahead_of(&pod("5")));
    }
}
