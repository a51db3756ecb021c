//! Objects that this server has written, until etcd's watch tells of them: they have been read
//! for the answer, and with them what was made of them for it, such as their JSON.
//!
//! What must not be here: what is not known to be in etcd.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Revision;
use super::object::Object;

/// While the watch is interrupted nobody takes them, and they are read again when it goes on.
const MOST: usize = 1024;

/// Those of one resource, which etcd tells of in the order of their revisions.
#[derive(Default)]
pub(super) struct Written(Mutex<BTreeMap<Revision, Arc<Object>>>);

impl Written {
    pub(super) fn note(&self, object: Arc<Object>) {
        let mut waiting = self.0.lock();
        if waiting.len() < MOST {
            waiting.insert(object.revision(), object);
        }
    }

    /// What has been written to a key at a revision, if it is known here. Who comes too late to be
    /// asked for is forgotten.
    pub(super) fn take(&self, key: &str, revision: Revision) -> Option<Arc<Object>> {
        let mut waiting = self.0.lock();
        while let Some(first) = waiting.first_entry()
            && *first.key() <= revision
        {
            let object = first.remove();
            if object.revision() == revision && object.key() == key {
                return Some(object);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::object;
    use super::*;

    #[test]
    fn what_has_been_written_is_taken_once() {
        let written = Written::default();
        for (key, revision) in [("a/a", 3), ("a/b", 4), ("a/c", 6)] {
            written.note(object(key, revision));
        }
        assert_eq!(written.take("a/b", 4).unwrap().key(), "a/b");
        assert!(written.take("a/b", 4).is_none());
        assert!(written.take("a/d", 5).is_none());
        assert!(written.take("a/other", 6).is_none());
        assert!(written.0.lock().is_empty());
    }

    #[test]
    fn not_more_wait_than_may() {
        let written = Written::default();
        for revision in 0..2 * MOST as u64 {
            written.note(object("a/a", revision));
        }
        assert_eq!(written.0.lock().len(), MOST);
    }
}
