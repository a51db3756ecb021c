//! One resource: its objects, their history, who watches them, and how it is read.
//!
//! The state is written by the cache's writer only, a batch at a time, so that whoever holds
//! the lock sees whole revisions. Readers take a snapshot under it and work without it.
//!
//! What must not be here: etcd's watch, keys of other resources.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use component::aside::aside;
use component::panics;
use parking_lot::RwLock;
use tokio::time::Instant;

use super::history::{Event, History};
use super::indexes::{Candidates, Indexes};
use super::object::Object;
use super::selector::Selector;
use super::tree::{Cursor, Tree};
use super::watch::Watcher;
use super::watchers::{Channel, End, Watchers};
use super::written::Written;
use super::{
    At, Definition, Ingested, List, ListQuery, Result, Revision, Shared, Start, WatchQuery,
};
use crate::storage::metrics::ResourceMetrics;
use crate::storage::{StorageError, keys};

/// One resource of the cache.
pub struct ResourceCache {
    shared: Arc<Shared>,
    definition: Definition,
    metrics: ResourceMetrics,
    /// How many were told of the last change.
    told: AtomicUsize,
    written: Written,
    state: RwLock<State>,
}

struct State {
    objects: Tree,
    indexes: Indexes,
    history: History,
    watchers: Watchers,
    /// The revision of the last change. Ahead of the cache's revision between a batch's
    /// application and its publication.
    changed: Revision,
    /// Bytes of all objects as etcd holds them, about.
    bytes: usize,
    /// The resource has been unregistered or replaced.
    gone: bool,
}

/// One change, already read.
pub(super) enum Applied {
    Put(Arc<Object>),
    Delete { key: String, revision: Revision },
}

impl State {
    fn new(definition: &Definition, objects: Vec<Arc<Object>>, revision: Revision) -> Self {
        let indexes = Indexes::new(definition, &objects);
        Self {
            bytes: objects.iter().map(|object| object.bytes().len()).sum(),
            objects: Tree::from_sorted(objects),
            indexes,
            history: History::starting_at(revision),
            watchers: Watchers::default(),
            changed: revision,
            gone: false,
        }
    }

    /// Puts the change into the objects; `None` when it changes nothing.
    fn apply(&mut self, change: Applied, at: Instant) -> Option<Arc<Event>> {
        match change {
            Applied::Put(object) => {
                let previous = self.objects.insert(object.clone());
                self.indexes.change(previous.as_ref(), Some(&object));
                self.bytes += object.bytes().len();
                self.bytes -= previous.as_ref().map_or(0, |old| old.bytes().len());
                Some(Event::new(object.revision(), Some(object), previous, at))
            }
            Applied::Delete { key, revision } => {
                let previous = self.objects.remove(&key)?;
                self.indexes.change(Some(&previous), None);
                self.bytes -= previous.bytes().len();
                Some(Event::new(revision, None, Some(previous), at))
            }
        }
    }

    /// The objects that a selector can match, from `start` on, in key order.
    /// With a label that it would be worth while to index.
    fn candidates(
        &self,
        definition: &Definition,
        selector: &Selector,
        start: &str,
    ) -> (Cursor, Option<Box<str>>) {
        let all = self.objects.len();
        let (tree, learn) = match self.indexes.candidates(definition, selector, all) {
            Candidates::Among(tree) => (tree, None),
            Candidates::All => (self.objects.clone(), None),
            Candidates::Learn(key) => (self.objects.clone(), Some(key)),
        };
        (candidates(tree, definition, selector, start), learn)
    }
}

/// To match more objects than this with a selector takes a while.
const MANY: usize = 1000;

/// A state to list from.
struct Snapshot {
    /// Over the objects to look at.
    cursor: Cursor,
    /// All that there are, of which an index may know but some.
    all: Tree,
    revision: Revision,
}

/// The range of keys that a selector can match, from `start` on.
fn key_range(definition: &Definition, selector: &Selector, start: &str) -> (String, String) {
    if definition.namespaced && selector.namespace.is_empty() {
        return (start.to_owned(), String::new());
    }
    let mut first = String::new();
    if definition.namespaced {
        first = format!("{}/", selector.namespace);
    }
    let end = if selector.name.is_empty() {
        keys::range_end(&first)
    } else {
        // The one key and nothing behind it.
        first += &selector.name;
        format!("{first}\0").into_bytes()
    };
    let end = match first.as_str() {
        "" => String::new(),
        _ => String::from_utf8(end).unwrap_or_default(),
    };
    (first.as_str().max(start).to_owned(), end)
}

fn candidates(tree: Tree, definition: &Definition, selector: &Selector, start: &str) -> Cursor {
    let (start, end) = key_range(definition, selector, start);
    Cursor::new(tree, &start, &end)
}

impl ResourceCache {
    pub(super) fn new(
        shared: Arc<Shared>,
        definition: Definition,
        objects: Vec<Arc<Object>>,
        revision: Revision,
    ) -> Arc<Self> {
        let metrics = shared.metrics.of(
            &definition.storage_prefix,
            &definition.group,
            &definition.resource,
        );
        let state = RwLock::new(State::new(&definition, objects, revision));
        Arc::new(Self {
            told: AtomicUsize::new(0),
            written: Written::default(),
            shared,
            definition,
            metrics,
            state,
        })
    }

    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// One object by its relative key (`<namespace>/<name>` or `<name>`).
    pub async fn get(&self, key: &str, at: At) -> Result<Option<Arc<Object>>> {
        if let At::Exact(revision) = at {
            let selector = self.selector_of(key);
            let query = ListQuery {
                selector: &selector,
                at: At::Exact(revision),
                limit: 0,
                start: "",
            };
            return Ok(self.list(&query).await?.objects.pop());
        }
        match self.freshen(at).await? {
            Fresh::Cache => {
                let state = self.state.read();
                state.check()?;
                Ok(state.objects.get(key).cloned())
            }
            Fresh::Storage(_) => {
                let full = self.full_key(key);
                let found = self.shared.storage.get(&full, 0).await?;
                Ok(found.and_then(|kv| self.ingest(key, &kv.value, kv.mod_revision)))
            }
        }
    }

    fn selector_of(&self, key: &str) -> Selector {
        let (namespace, name) = if self.definition.namespaced {
            keys::split(key)
        } else {
            ("", key)
        };
        Selector {
            namespace: namespace.into(),
            name: name.into(),
            ..Selector::default()
        }
    }

    /// The state that a query asks for, or a page of it.
    pub async fn list(&self, query: &ListQuery<'_>) -> Result<List> {
        let selector = query.selector.clone().normalized();
        let query = ListQuery {
            selector: &selector,
            ..*query
        };
        match self.freshen(query.at).await? {
            Fresh::Storage(revision) => self.list_from_storage(&query, revision).await,
            Fresh::Cache => match self.snapshot(&query)? {
                Some(snapshot) => {
                    let is_plain = selector.is_plain(&self.definition);
                    let is_long = !is_plain && snapshot.cursor.left() > MANY;
                    Ok(aside(is_long, || self.page(&query, snapshot)))
                }
                None => {
                    let At::Exact(revision) = query.at else {
                        unreachable!("only an exact revision can be too old");
                    };
                    self.list_from_storage(&query, revision).await
                }
            },
        }
    }

    /// How many bytes the object of a key has, as far as the cache knows.
    pub fn size_of(&self, key: &str) -> Option<usize> {
        let state = self.state.read();
        state.objects.get(key).map(|object| object.bytes().len())
    }

    /// etcd has told how far it is, without a change.
    pub(super) fn note_bookmark(&self) {
        self.metrics.bookmarks.inc();
    }

    /// Waits until the cache can answer, or finds that etcd must.
    async fn freshen(&self, at: At) -> Result<Fresh> {
        let freshness = &self.shared.freshness;
        let patience = self.shared.options.freshness_timeout;
        let start = Instant::now();
        let fresh = match at {
            At::Any => freshness.wait(1, patience).await.map(|()| Fresh::Cache),
            At::NotOlderThan(revision) | At::Exact(revision) => {
                let waited = freshness.wait(revision, patience).await;
                waited.map(|()| Fresh::Cache)
            }
            At::Latest => {
                let latest = freshness.latest(&*self.shared.storage).await?;
                match freshness.catch_up(latest, patience).await {
                    Ok(()) => {
                        self.metrics.consistent_read(true);
                        Ok(Fresh::Cache)
                    }
                    Err(_) => {
                        self.metrics.consistent_read(false);
                        Ok(Fresh::Storage(latest))
                    }
                }
            }
        };
        self.metrics.waited(start.elapsed());
        fresh
    }

    /// What a query looks at; `None` when the revision is too old.
    fn snapshot(&self, query: &ListQuery<'_>) -> Result<Option<Snapshot>> {
        let state = self.state.read();
        state.check()?;
        let now = self.revision(&state);
        let start = query.start;
        let selector = query.selector;
        match query.at {
            // Every API server answers for an old state alike, whatever it remembers of it.
            At::Exact(revision) if revision < self.shared.compacted.load(Ordering::Relaxed) => {
                Ok(None)
            }
            At::Exact(revision) if revision < now => {
                let Some(tree) = state.history.undo(&state.objects, revision) else {
                    return Ok(None);
                };
                drop(state);
                let cursor = candidates(tree.clone(), &self.definition, selector, start);
                Ok(Some(Snapshot {
                    cursor,
                    all: tree,
                    revision,
                }))
            }
            _ => {
                let (cursor, learn) = state.candidates(&self.definition, selector, start);
                let all = state.objects.clone();
                drop(state);
                if let Some(key) = learn {
                    let state = &mut *self.state.write();
                    state.indexes.learn(key, &state.objects);
                }
                Ok(Some(Snapshot {
                    cursor,
                    all,
                    revision: now,
                }))
            }
        }
    }

    /// The revision that a state is at: everything up to it is in, and nothing later.
    fn revision(&self, state: &State) -> Revision {
        self.shared.freshness.revision().max(state.changed)
    }

    fn page(&self, query: &ListQuery<'_>, snapshot: Snapshot) -> List {
        let Snapshot {
            mut cursor,
            all,
            revision,
        } = snapshot;
        let selector = query.selector;
        let plain = selector.is_plain(&self.definition);
        let limit = if query.limit == 0 {
            usize::MAX
        } else {
            query.limit
        };
        let mut objects = Vec::new();
        if plain {
            objects.reserve(cursor.left().min(limit));
        }
        let mut fetched = 0;
        let mut more = false;
        for object in cursor.by_ref() {
            fetched += 1;
            if !plain && !selector.matches(&object) {
                continue;
            }
            if objects.len() == limit {
                more = true;
                break;
            }
            objects.push(object);
            // Upstream looks no further than this, and so does not know what it would find.
            if !plain && objects.len() == limit {
                let next = objects.last().map(|last| format!("{}\0", last.key()));
                let next = next.unwrap_or_default();
                more = candidates(all, &self.definition, selector, &next).left() > 0;
                break;
            }
        }
        self.metrics.list(fetched, objects.len());
        List {
            objects,
            revision,
            more,
            // The one that was one too many has been taken from the cursor.
            remaining: (plain && more).then(|| cursor.left() as u64 + 1),
        }
    }

    /// A list at a revision that the cache cannot answer.
    async fn list_from_storage(&self, query: &ListQuery<'_>, revision: Revision) -> Result<List> {
        self.metrics.lists_from_storage.inc();
        let selector = query.selector;
        let (start, end) = key_range(&self.definition, selector, query.start);
        let prefix = self.full_key("");
        let end = if end.is_empty() {
            keys::prefix_end(&prefix)
        } else {
            self.full_key(&end)
        };
        let mut start = self.full_key(&start);
        let mut objects = Vec::new();
        loop {
            let page_size = match query.limit {
                0 => self.shared.options.page_size,
                // One more shows whether more match.
                limit if selector.is_plain(&self.definition) => limit + 1 - objects.len(),
                limit => (limit + 1).max(self.shared.options.page_size),
            };
            let page = self.shared.storage.range(&start, &end, page_size, revision);
            let page = page.await?;
            let last = page.items.last().map(|kv| format!("{}\0", kv.key));
            let mut left = page.count;
            self.metrics.storage_fetched.inc_by(page.items.len() as u64);
            for kv in page.items {
                let Some(key) = kv.key.strip_prefix(&prefix) else {
                    continue;
                };
                if query.limit > 0 && objects.len() == query.limit {
                    return Ok(List {
                        objects,
                        revision,
                        more: true,
                        remaining: selector.is_plain(&self.definition).then_some(left),
                    });
                }
                left -= 1;
                self.metrics.storage_evaluated.inc();
                if let Some(object) = self.ingest(key, &kv.value, kv.mod_revision)
                    && selector.matches(&object)
                {
                    self.metrics.storage_returned.inc();
                    objects.push(object);
                }
            }
            match last {
                Some(last) if page.more => start = last,
                _ => {
                    return Ok(List {
                        objects,
                        revision,
                        more: false,
                        remaining: None,
                    });
                }
            }
        }
    }

    /// The stream of a watch. It ends when the watcher is too slow or the resource is gone (the
    /// client watches again from the last version it saw); an `Err` item ends it too
    /// (`Compacted` is sent to the client as an `ERROR` event with code 410).
    pub async fn watch(self: &Arc<Self>, query: WatchQuery) -> Result<Watcher> {
        let freshness = &self.shared.freshness;
        let patience = self.shared.options.freshness_timeout;
        match query.start {
            Start::After(_) => freshness.wait(1, patience).await?,
            Start::State { at, .. } if at != At::Latest => {
                self.freshen(at).await?;
            }
            Start::Now | Start::State { .. } => {
                let latest = freshness.latest(&*self.shared.storage).await?;
                freshness.wait(latest, patience).await?;
            }
        }
        let selector = query.selector.normalized();
        let mut state = self.state.write();
        state.check()?;
        let now = self.revision(&state);
        let (began, backlog): (_, VecDeque<_>) = match query.start {
            Start::Now | Start::State { .. } => (now, Default::default()),
            Start::After(revision) => match state.history.after(revision) {
                Some(events) => (revision, events.cloned().collect()),
                None => {
                    return Err(StorageError::Compacted {
                        asked: revision,
                        oldest: state.history.floor() + 1,
                    });
                }
            },
        };
        let cursor = matches!(query.start, Start::State { .. })
            .then(|| state.candidates(&self.definition, &selector, "").0);
        let initial = cursor.as_ref().map_or(backlog.len(), Cursor::left);
        self.metrics.init_events.inc_by(initial as u64);
        let channel = Arc::new(Channel::new(
            selector,
            query.bookmarks,
            began,
            self.shared.options.watcher_bytes,
        ));
        state.watchers.add(&self.definition, channel.clone());
        drop(state);
        Ok(Watcher {
            resource: self.clone(),
            channel,
            state: cursor,
            marked: matches!(query.start, Start::State { marked: true, .. }),
            began,
            backlog: backlog.into_iter(),
            ended: false,
        })
    }

    /// How many were told of the last change.
    pub(super) fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }

    /// A watch has ended.
    pub(super) fn forget(&self, channel: &Arc<Channel>) {
        let mut state = self.state.write();
        state.watchers.remove(&self.definition, channel);
    }

    fn full_key(&self, relative: &str) -> String {
        let root = self.shared.keys.root();
        format!("{root}{}/{relative}", self.definition.storage_prefix)
    }

    /// Reads a stored value; `None`, logged and counted, when it cannot be.
    pub fn ingest(&self, key: &str, value: &[u8], revision: Revision) -> Option<Arc<Object>> {
        let found = panics::contain(|| self.definition.ingest.ingest(value, revision));
        match found.unwrap_or_else(|panicked| Err(panicked.to_string())) {
            Ok(found) => Some(self.object(key, revision, found)),
            Err(error) => {
                self.metrics.decode_errors.inc();
                tracing::error!(
                    resource = %self.definition.resource,
                    key,
                    revision,
                    %error,
                    "skipping a stored object that cannot be read"
                );
                None
            }
        }
    }

    /// Reads a value that this server has just written. It is not read again when etcd tells of it,
    /// nor here if etcd already has.
    pub fn written(&self, key: &str, value: &[u8], revision: Revision) -> Option<Arc<Object>> {
        let known = self.state.read().objects.get(key).cloned();
        if let Some(known) = known.filter(|known| known.revision() == revision) {
            return Some(known);
        }
        let object = self.ingest(key, value, revision)?;
        self.written.note(object.clone());
        Some(object)
    }

    /// Reads a value that etcd tells of.
    pub(super) fn arrived(
        &self,
        key: &str,
        value: &[u8],
        revision: Revision,
    ) -> Option<Arc<Object>> {
        let known = self.written.take(key, revision);
        known.or_else(|| self.ingest(key, value, revision))
    }

    fn object(&self, key: &str, revision: Revision, found: Ingested) -> Arc<Object> {
        Arc::new(Object::new(
            &self.definition,
            key,
            revision,
            found,
            Arc::downgrade(&self.shared.encodings),
        ))
    }

    /// Applies a batch's changes of this resource, whole revisions in revision order, and
    /// tells the watchers.
    pub(super) fn apply(&self, changes: Vec<Applied>) {
        let now = Instant::now();
        let mut state = self.state.write();
        let state = &mut *state;
        let history_before = state.history.bytes();
        for change in changes {
            let revision = match &change {
                Applied::Put(object) => object.revision(),
                Applied::Delete { revision, .. } => *revision,
            };
            debug_assert!(
                revision >= state.changed,
                "etcd's watch is in revision order"
            );
            self.metrics.events_received.inc();
            let Some(event) = state.apply(change, now) else {
                continue;
            };
            state.changed = revision;
            let dispatched = state.watchers.dispatch(&event);
            self.told.store(dispatched.taken, Ordering::Relaxed);
            state.history.push(event);
            self.metrics.cache_events_received.inc();
            self.metrics
                .cache_events_dispatched
                .inc_by(dispatched.taken as u64);
            if dispatched.cut_off > 0 {
                self.metrics
                    .terminated_watchers
                    .inc_by(dispatched.cut_off as u64);
                tracing::info!(
                    resource = %self.definition.resource,
                    watchers = dispatched.cut_off,
                    "cut off watchers that do not read"
                );
            }
        }
        self.shared
            .history_changed(history_before, state.history.bytes());
        self.report(state);
    }

    /// Replaces everything by what was read anew; changes between are lost, so watches end.
    pub(super) fn replace(&self, mut objects: Vec<Arc<Object>>, revision: Revision) {
        objects.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let mut state = self.state.write();
        state.watchers.end(End::Lost { oldest: revision });
        self.shared.history_changed(state.history.bytes(), 0);
        *state = State::new(&self.definition, objects, revision);
        self.metrics.initializations.inc();
        self.report(&state);
    }

    fn report(&self, state: &State) {
        self.metrics.objects(state.objects.len());
        self.metrics.size_estimate.set(state.bytes as i64);
    }

    /// Sends every watcher that wants it a bookmark.
    pub(super) fn bookmark(&self) {
        let state = self.state.read();
        let revision = self.revision(&state);
        state.watchers.bookmark(revision);
    }

    /// Sends one watcher a bookmark.
    pub(super) fn mark(&self, channel: &Channel) {
        let state = self.state.read();
        channel.bookmark(self.revision(&state));
    }

    /// Drops what has become old: history, and indexes that nobody uses.
    pub(super) fn sweep(&self, history_before: Instant) {
        let least = self.shared.options.history_least;
        self.change_history(|history| history.drop_before(history_before, least));
        self.state.write().indexes.forget_unused();
        self.metrics.revision(self.shared.freshness.revision());
    }

    pub(super) fn shrink_history_to(&self, bytes: usize) {
        self.change_history(|history| history.shrink_to(bytes));
    }

    fn change_history(&self, change: impl FnOnce(&mut History)) {
        let mut state = self.state.write();
        let before = state.history.bytes();
        change(&mut state.history);
        self.shared.history_changed(before, state.history.bytes());
    }

    pub(super) fn history_bytes(&self) -> usize {
        self.state.read().history.bytes()
    }

    /// Ends watches and reads; the objects, for whoever takes over.
    pub(super) fn retire(&self) -> Vec<Arc<Object>> {
        let mut state = self.state.write();
        state.gone = true;
        state.watchers.end(End::Closed);
        self.shared.history_changed(state.history.bytes(), 0);
        state.history = History::default();
        let objects = std::mem::take(&mut state.objects);
        state.indexes = Indexes::default();
        objects.iter().cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn watchers(&self) -> usize {
        self.state.read().watchers.len()
    }
}

impl State {
    fn check(&self) -> Result<()> {
        if self.gone {
            return Err(StorageError::Unavailable(
                "the resource is no longer served".into(),
            ));
        }
        Ok(())
    }
}

/// Who answers a read.
enum Fresh {
    Cache,
    /// etcd, at this revision.
    Storage(Revision),
}
