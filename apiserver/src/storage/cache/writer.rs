//! The cache's one writer: fills it, follows etcd's watch, begins again.
//!
//! A lost connection resumes where the cache is; only when etcd has compacted that away is
//! everything read anew, and then every watch ends with 410, since what happened between cannot
//! be told. Values that cannot be read are skipped; nothing that etcd holds stops the writer.
//!
//! What must not be here: how reads are answered.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::RwLock;
use tokio::time::{Instant, MissedTickBehavior};

use super::encodings::Encodings;
use super::freshness::Freshness;
use super::object::Object;
use super::resource::{Applied, ResourceCache};
use super::{Definition, Options, Result, Revision, Shared};
use crate::storage::keys::{self, Keys};
use crate::storage::metrics::Metrics;
use crate::storage::{Change, KeyValue, Storage, StorageError, Watch};

/// How many ranges are read at the same time when the cache fills.
const PARALLEL: usize = 4;
/// Between attempts to fill or to follow.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(5);
/// How often the writer looks whether history has become too old.
const SWEEP: Duration = Duration::from_secs(5);
/// Between progress requests while somebody waits (upstream's interval).
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Over the budget, the largest history is cut to this fraction at a time.
const SHRINK: (usize, usize) = (7, 8);

/// Every object under the prefix. See the module's documentation.
pub struct Cache {
    shared: Arc<Shared>,
    resources: RwLock<Resources>,
}

#[derive(Default)]
struct Resources {
    /// By storage prefix: one path segment or two.
    claimed: HashMap<String, Arc<ResourceCache>>,
    /// Values under prefixes that nobody has registered yet, by key below the root.
    unclaimed: BTreeMap<String, KeyValue>,
}

impl Resources {
    /// The resource that a key below the root belongs to, and the rest of the key.
    fn owner<'k>(&self, key: &'k str) -> Option<(&Arc<ResourceCache>, &'k str)> {
        let mut slashes = key.match_indices('/').map(|(i, _)| i);
        for slash in [slashes.next()?, slashes.next().unwrap_or(usize::MAX)] {
            if let Some(prefix) = key.get(..slash)
                && let Some(resource) = self.claimed.get(prefix)
            {
                return Some((resource, &key[slash + 1..]));
            }
        }
        None
    }

    /// Takes the unclaimed values under a storage prefix.
    fn take_unclaimed(&mut self, prefix: &str) -> Vec<(String, KeyValue)> {
        let first = format!("{prefix}/");
        let mut taken = self.unclaimed.split_off(&first);
        let mut behind = taken.split_off(&keys::prefix_end(&first));
        self.unclaimed.append(&mut behind);
        taken
            .into_iter()
            .map(|(key, kv)| (key[first.len()..].to_owned(), kv))
            .collect()
    }
}

impl Cache {
    /// An empty cache; [`run`](Self::run) fills it.
    pub fn new(storage: Arc<dyn Storage>, options: Options, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared {
                storage,
                keys: Keys::new(&options.prefix),
                metrics,
                encodings: Encodings::new(options.encoding_bytes),
                freshness: Freshness::new(),
                history_bytes: Default::default(),
                compacted: Default::default(),
                options,
            }),
            resources: RwLock::default(),
        })
    }

    /// States before `revision` are gone from etcd: no list shows them any more, though the
    /// history that watches resume from may still hold them.
    pub fn compacted(&self, revision: Revision) {
        let known = &self.shared.compacted;
        known.fetch_max(revision, std::sync::atomic::Ordering::Relaxed);
    }

    /// Makes a resource readable: at start before [`run`](Self::run), later when a
    /// CustomResourceDefinition is established. Registering a storage prefix again replaces its
    /// definition (other selectable fields) and ends its watches.
    pub fn register(&self, definition: Definition) -> Arc<ResourceCache> {
        let prefix = definition.storage_prefix.clone();
        // The writer holds this lock for whole batches, so the values are those of one revision.
        let mut resources = self.resources.write();
        let mut values = resources.take_unclaimed(&prefix);
        if let Some(before) = resources.claimed.remove(&prefix) {
            let objects = before.retire();
            values.extend(objects.iter().map(|o| (o.key().to_owned(), raw(o))));
        }
        let revision = self.revision();
        let resource = ResourceCache::new(self.shared.clone(), definition, Vec::new(), revision);
        let objects = values
            .iter()
            .filter_map(|(key, kv)| resource.ingest(key, &kv.value, kv.mod_revision))
            .collect();
        resource.replace(objects, revision);
        resources.claimed.insert(prefix, resource.clone());
        resource
    }

    /// Waits until the cache has been filled once. Reads before that wait a little, then fail
    /// as `Unavailable`.
    pub async fn synced(&self) {
        self.shared.freshness.filled().await;
    }

    /// Up to where the cache has followed etcd; 0 before it is filled.
    pub fn revision(&self) -> Revision {
        self.shared.freshness.revision()
    }

    /// Waits until the cache has seen a revision.
    #[cfg(test)]
    pub async fn wait_for(&self, revision: Revision) -> Result<()> {
        let patience = self.shared.options.freshness_timeout;
        self.shared.freshness.wait(revision, patience).await
    }

    /// Reads everything, then follows etcd until the future is dropped. Never gives up.
    pub async fn run(self: Arc<Self>) {
        let mut wait = RETRY_FIRST;
        let mut follow_from = 0;
        loop {
            if follow_from == 0 {
                match self.fill().await {
                    Ok(revision) => {
                        follow_from = revision;
                        wait = RETRY_FIRST;
                    }
                    Err(error) => tracing::warn!(%error, "cannot read etcd; trying again"),
                }
            }
            if follow_from > 0 {
                let error = self.follow(follow_from).await;
                if self.revision() > follow_from {
                    wait = RETRY_FIRST;
                }
                follow_from = self.revision();
                if let StorageError::Compacted { .. } = error {
                    tracing::warn!(
                        revision = follow_from,
                        "etcd no longer has the changes after this; reading everything anew"
                    );
                    follow_from = 0;
                    continue;
                }
                tracing::warn!(%error, "lost etcd's watch; trying again");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MOST);
        }
    }

    /// Reads every key at one revision, in parallel ranges, and replaces what is there.
    async fn fill(self: &Arc<Self>) -> Result<Revision> {
        let revision = self.shared.storage.current_revision().await?;
        let parts: Vec<Part> = stream::iter(self.ranges())
            .map(|(start, end)| {
                let cache = self.clone();
                // A task of its own: reading values is work that several cores can share.
                let part = tokio::spawn(async move { cache.read(start, end, revision).await });
                async move {
                    part.await
                        .unwrap_or_else(|e| Err(StorageError::Internal(e.to_string())))
                }
            })
            .buffer_unordered(PARALLEL)
            .try_collect()
            .await?;

        let mut resources = self.resources.write();
        let mut objects: HashMap<String, Vec<Arc<Object>>> = HashMap::new();
        resources.unclaimed.clear();
        for part in parts {
            for (resource, object) in part.objects {
                let prefix = &resource.definition().storage_prefix;
                match resources.claimed.get(prefix) {
                    Some(now) if Arc::ptr_eq(now, &resource) => {
                        objects.entry(prefix.clone()).or_default().push(object);
                    }
                    // Replaced or unregistered meanwhile.
                    _ => {
                        let key = format!("{prefix}/{}", object.key());
                        resources.unclaimed.insert(key, raw(&object));
                    }
                }
            }
            resources.unclaimed.extend(part.unclaimed);
        }
        let prefixes: Vec<_> = resources.claimed.keys().cloned().collect();
        for prefix in prefixes {
            // Some for what was registered meanwhile.
            let values = resources.take_unclaimed(&prefix);
            let resource = &resources.claimed[&prefix];
            let mut all = objects.remove(&prefix).unwrap_or_default();
            all.extend(
                values
                    .iter()
                    .filter_map(|(key, kv)| resource.ingest(key, &kv.value, kv.mod_revision)),
            );
            resource.replace(all, revision);
        }
        self.shared.freshness.reset(revision);
        Ok(revision)
    }

    /// Ranges that cover everything under the root: one per registered resource, with what
    /// lies between it and the next.
    fn ranges(&self) -> Vec<(String, String)> {
        let root = self.shared.keys.root();
        let resources = self.resources.read();
        let mut starts: Vec<_> = resources
            .claimed
            .keys()
            .map(|prefix| self.shared.keys.resource(prefix))
            .collect();
        starts.push(root.to_owned());
        starts.sort_unstable();
        let ends = starts
            .iter()
            .skip(1)
            .cloned()
            .chain([keys::prefix_end(root)]);
        starts.iter().cloned().zip(ends).collect()
    }

    async fn read(&self, start: String, end: String, revision: Revision) -> Result<Part> {
        let mut part = Part::default();
        let mut next = start;
        loop {
            let limit = self.shared.options.page_size;
            let page = self
                .shared
                .storage
                .range(&next, &end, limit, revision)
                .await?;
            let Some(last) = page.items.last() else {
                return Ok(part);
            };
            next = format!("{}\0", last.key);
            let resources = self.resources.read();
            for kv in page.items {
                let Some(key) = kv.key.strip_prefix(self.shared.keys.root()) else {
                    continue;
                };
                match resources.owner(key) {
                    Some((resource, relative)) => {
                        let object = resource.ingest(relative, &kv.value, kv.mod_revision);
                        part.objects.extend(object.map(|o| (resource.clone(), o)));
                    }
                    None => part.unclaimed.push((key.to_owned(), detached(kv))),
                }
            }
            if !page.more {
                return Ok(part);
            }
        }
    }

    async fn resume(&self, after: Revision) -> Result<Watch> {
        let storage = &self.shared.storage;
        let current = storage.current_revision().await?;
        if current < after {
            // Restored from a backup: what the cache has seen is not what etcd has.
            return Err(StorageError::Compacted {
                asked: after,
                oldest: current,
            });
        }
        storage.watch(self.shared.keys.root(), after).await
    }

    /// Follows etcd from a revision until that fails.
    async fn follow(&self, after: Revision) -> StorageError {
        let mut watch = match self.resume(after).await {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        let freshness = &self.shared.freshness;
        freshness.set_can_ask(watch.request_progress.is_some());
        let ask = || {
            if let Some(ask) = &watch.request_progress
                && freshness.is_behind()
            {
                ask();
            }
        };
        let mut sweep = interval(SWEEP);
        let mut bookmarks = interval(self.shared.options.bookmark_interval);
        let mut ask_again = interval(ASK_AGAIN);
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                change = watch.changes.next() => match change {
                    Some(Ok(Change::Progress(revision))) => {
                        self.apply(std::mem::take(&mut batch), revision);
                    }
                    Some(Ok(change)) => batch.push(change),
                    Some(Err(error)) => return error,
                    None => return StorageError::Unavailable("etcd's watch ended".into()),
                },
                () = freshness.behind.notified() => ask(),
                _ = ask_again.tick(), if freshness.is_behind() => ask(),
                _ = sweep.tick() => self.sweep(),
                _ = bookmarks.tick() => self.bookmark(),
            }
        }
    }

    /// Applies whole revisions, up to `revision`.
    fn apply(&self, batch: Vec<Change>, revision: Revision) {
        if batch.is_empty() {
            let resources = self.resources.read();
            for resource in resources.claimed.values() {
                resource.note_bookmark();
            }
        } else {
            self.apply_changes(batch);
            self.shrink();
        }
        self.shared.freshness.reached(revision);
    }

    fn apply_changes(&self, batch: Vec<Change>) {
        let root = self.shared.keys.root();
        let resources = self.resources.read();
        // A batch seldom concerns more than a few resources.
        let mut claimed: Vec<(Arc<ResourceCache>, Vec<Applied>)> = Vec::new();
        let mut unclaimed = Vec::new();
        for change in batch {
            let (Change::Put(KeyValue { key, .. }) | Change::Delete { key, .. }) = &change else {
                continue;
            };
            let Some(key) = key.strip_prefix(root) else {
                continue;
            };
            let Some((resource, relative)) = resources.owner(key) else {
                unclaimed.push((key.to_owned(), change));
                continue;
            };
            let applied = match &change {
                Change::Put(kv) => match resource.arrived(relative, &kv.value, kv.mod_revision) {
                    Some(object) => Applied::Put(object),
                    None => continue,
                },
                Change::Delete { revision, .. } => Applied::Delete {
                    key: relative.to_owned(),
                    revision: *revision,
                },
                Change::Progress(_) => continue,
            };
            match claimed.iter_mut().find(|(r, _)| Arc::ptr_eq(r, resource)) {
                Some((_, changes)) => changes.push(applied),
                None => claimed.push((resource.clone(), vec![applied])),
            }
        }
        for (resource, changes) in claimed {
            resource.apply(changes);
        }
        drop(resources);
        if unclaimed.is_empty() {
            return;
        }
        let mut resources = self.resources.write();
        for (key, change) in unclaimed {
            match change {
                Change::Put(kv) => drop(resources.unclaimed.insert(key, detached(kv))),
                Change::Delete { .. } => drop(resources.unclaimed.remove(&key)),
                Change::Progress(_) => {}
            }
        }
    }

    fn all(&self) -> Vec<Arc<ResourceCache>> {
        self.resources.read().claimed.values().cloned().collect()
    }

    /// Drops history that is too old.
    fn sweep(&self) {
        if let Some(instant) = Instant::now().checked_sub(self.shared.options.history_age) {
            for resource in self.all() {
                resource.sweep(instant);
            }
        }
    }

    /// Drops history that is too much, from the resource that has the most.
    fn shrink(&self) {
        let budget = self.shared.options.history_bytes;
        let used = || {
            self.shared
                .history_bytes
                .load(std::sync::atomic::Ordering::Relaxed)
        };
        if used() <= budget {
            return;
        }
        let all = self.all();
        while used() > budget {
            let Some(largest) = all.iter().max_by_key(|r| r.history_bytes()) else {
                return;
            };
            let bytes = largest.history_bytes();
            if bytes == 0 {
                return;
            }
            largest.shrink_history_to(bytes * SHRINK.0 / SHRINK.1);
        }
    }

    fn bookmark(&self) {
        for resource in self.all() {
            resource.bookmark();
        }
    }
}

/// What one range of a fill holds.
#[derive(Default)]
struct Part {
    objects: Vec<(Arc<ResourceCache>, Arc<Object>)>,
    unclaimed: Vec<(String, KeyValue)>,
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// A value of its own, which does not keep the message that it came in.
fn detached(kv: KeyValue) -> KeyValue {
    KeyValue {
        value: Bytes::copy_from_slice(&kv.value),
        ..kv
    }
}

/// An object as if it came from etcd; its resource version is written over on the way back.
fn raw(object: &Object) -> KeyValue {
    KeyValue {
        key: String::new(),
        value: object.bytes().clone(),
        mod_revision: object.revision(),
    }
}
