//! What has changed lately: the ring that watches resume from.
//!
//! A change keeps the state before it, which is what an object that leaves a selector is sent
//! as, and what an older list is put together from. The ring is bounded in bytes and age by
//! the cache, over all resources; a quiet resource's changes are never pushed out by a busy one's.
//!
//! What must not be here: watchers.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::object::Object;
use super::tree::Tree;
use super::{Ingest, Revision};

/// One change of one object; at least one of the states is there.
pub(super) struct Event {
    pub(super) revision: Revision,
    pub(super) object: Option<Arc<Object>>,
    pub(super) previous: Option<Arc<Object>>,
    /// `previous` at `revision`, made for the first watcher that sees the object go.
    gone: OnceLock<Arc<Object>>,
    at: Instant,
}

impl Event {
    pub(super) fn new(
        revision: Revision,
        object: Option<Arc<Object>>,
        previous: Option<Arc<Object>>,
        at: Instant,
    ) -> Arc<Self> {
        debug_assert!(object.is_some() || previous.is_some());
        Arc::new(Self {
            revision,
            object,
            previous,
            gone: OnceLock::new(),
            at,
        })
    }

    /// The newest state there is.
    pub(super) fn subject(&self) -> Option<&Arc<Object>> {
        self.object.as_ref().or(self.previous.as_ref())
    }

    /// The state before, at the revision of the change: what `Deleted` carries.
    pub(super) fn gone(&self, ingest: &dyn Ingest) -> Option<&Arc<Object>> {
        let previous = self.previous.as_ref()?;
        Some(self.gone.get_or_init(|| {
            match ingest.restamp(previous.bytes(), self.revision) {
                Ok(bytes) => Arc::new(previous.restamped(self.revision, bytes)),
                Err(error) => {
                    // It was written to once already, so this does not happen; and a deletion
                    // under an old version is better than none.
                    tracing::error!(key = previous.key(), %error, "cannot set a resource version");
                    previous.clone()
                }
            }
        }))
    }

    /// About what only the ring keeps alive.
    fn cost(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |object| object.cost());
        let copies = if self.object.is_none() { 2 } else { 1 };
        copies * previous + 160
    }
}

/// One resource's changes in revision order.
#[derive(Default)]
pub(super) struct History {
    events: VecDeque<Arc<Event>>,
    /// All changes after this revision are here.
    floor: Revision,
    bytes: usize,
}

impl History {
    pub(super) fn starting_at(floor: Revision) -> Self {
        Self {
            floor,
            ..Self::default()
        }
    }

    /// The oldest revision that a watch can resume after.
    pub(super) fn floor(&self) -> Revision {
        self.floor
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        debug_assert!(
            self.events
                .back()
                .is_none_or(|e| e.revision <= event.revision)
        );
        self.bytes += event.cost();
        self.events.push_back(event);
    }

    /// The changes after a revision, oldest first; `None` when some are gone.
    pub(super) fn after(
        &self,
        revision: Revision,
    ) -> Option<impl DoubleEndedIterator<Item = &Arc<Event>>> {
        if revision < self.floor {
            return None;
        }
        let first = self.events.partition_point(|e| e.revision <= revision);
        Some(self.events.range(first..))
    }

    /// The state at a revision, of the state now; `None` when it is too old.
    pub(super) fn undo(&self, now: &Tree, revision: Revision) -> Option<Tree> {
        let mut tree = now.clone();
        for event in self.after(revision)?.rev() {
            match (&event.previous, &event.object) {
                (Some(previous), _) => drop(tree.insert(previous.clone())),
                (None, Some(object)) => drop(tree.remove(object.key())),
                (None, None) => {}
            }
        }
        Some(tree)
    }

    /// Drops the changes that were made before an instant, but for the `least` last ones.
    pub(super) fn drop_before(&mut self, instant: Instant, least: usize) {
        while self.events.len() > least && self.events.front().is_some_and(|e| e.at < instant) {
            self.drop_oldest();
        }
    }

    /// Drops the oldest changes until the ring is no larger than `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        while self.bytes > bytes && !self.events.is_empty() {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(event) = self.events.pop_front() else {
            return;
        };
        self.bytes -= event.cost();
        self.floor = event.revision;
        // A revision can have changed several objects; half of it is of no use.
        while let Some(next) = self.events.front()
            && next.revision == event.revision
        {
            self.bytes -= next.cost();
            self.events.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::storage::cache::testing::object;

    fn changes(history: &History, after: Revision) -> Option<Vec<Revision>> {
        Some(history.after(after)?.map(|e| e.revision).collect())
    }

    fn put(history: &mut History, tree: &mut Tree, key: &str, revision: Revision, at: Instant) {
        let object = object(key, revision);
        let previous = tree.insert(object.clone());
        history.push(Event::new(revision, Some(object), previous, at));
    }

    #[tokio::test(start_paused = true)]
    async fn old_changes_go_whole_revisions_at_a_time() {
        let start = Instant::now();
        let mut history = History::starting_at(4);
        let mut tree = Tree::default();
        for (key, revision) in [("a", 5), ("b", 6), ("c", 6), ("a", 9)] {
            let at = start + Duration::from_secs(revision);
            put(&mut history, &mut tree, key, revision, at);
        }
        assert_eq!(changes(&history, 3), None);
        assert_eq!(changes(&history, 4), Some(vec![5, 6, 6, 9]));
        assert_eq!(changes(&history, 7), Some(vec![9]));
        assert_eq!(changes(&history, 99), Some(vec![]));
        history.drop_before(start + Duration::from_secs(6), 4);
        assert_eq!(changes(&history, 4), Some(vec![5, 6, 6, 9]));
        history.drop_before(start + Duration::from_secs(6), 0);
        assert_eq!(changes(&history, 4), None);
        assert_eq!(changes(&history, 5), Some(vec![6, 6, 9]));
        history.shrink_to(history.bytes() - 1);
        assert_eq!(history.floor(), 6);
        assert_eq!(changes(&history, 6), Some(vec![9]));
        history.shrink_to(0);
        assert_eq!((history.floor(), history.bytes()), (9, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_state_is_put_together_again() {
        let now = Instant::now();
        let mut history = History::starting_at(1);
        let mut tree = Tree::default();
        put(&mut history, &mut tree, "a", 2, now);
        put(&mut history, &mut tree, "b", 3, now);
        put(&mut history, &mut tree, "a", 4, now);
        let gone = tree.remove("b");
        history.push(Event::new(5, None, gone, now));
        let at = |revision| -> Option<Vec<(String, u64)>> {
            let tree = history.undo(&tree, revision)?;
            let state = tree.iter().map(|o| (o.key().to_owned(), o.revision()));
            Some(state.collect())
        };
        let a = |r| ("a".to_owned(), r);
        let b = ("b".to_owned(), 3);
        assert_eq!(at(0), None);
        assert_eq!(at(1), Some(vec![]));
        assert_eq!(at(2), Some(vec![a(2)]));
        assert_eq!(at(3), Some(vec![a(2), b.clone()]));
        assert_eq!(at(4), Some(vec![a(4), b]));
        assert_eq!(at(5), Some(vec![a(4)]));
    }
}
