//! A [`Storage`] in memory, for tests of what stands on one: every revision is kept, reads can be
//! held, watches can be broken, history can be compacted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{RwLock, watch};

use super::{Change, KeyValue, Page, Result, Revision, Storage, StorageError, Watch};

pub struct Fake {
    state: Arc<Mutex<State>>,
    /// What watchers wait for.
    moved: watch::Sender<Moved>,
    reads: AtomicUsize,
    gate: Arc<RwLock<()>>,
    /// Whether watches can be asked for progress.
    answers_progress: AtomicBool,
}

/// A revision was written; watches were broken; progress was asked for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Moved {
    revision: Revision,
    broken: usize,
    asked: usize,
}

#[derive(Default)]
struct State {
    revision: Revision,
    compacted: Revision,
    /// Every change, in order; a value of `None` is a deletion.
    log: Vec<(Revision, String, Option<Bytes>)>,
}

impl State {
    fn at(&self, revision: Revision) -> BTreeMap<String, KeyValue> {
        let mut keys = BTreeMap::new();
        for (mod_revision, key, value) in &self.log {
            if *mod_revision > revision {
                break;
            }
            match value {
                Some(value) => {
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        mod_revision: *mod_revision,
                    };
                    keys.insert(key.clone(), kv);
                }
                None => drop(keys.remove(key)),
            }
        }
        keys
    }

    fn check(&self, asked: Revision) -> Result<Revision> {
        if asked > self.revision {
            let current = self.revision;
            return Err(StorageError::Future { asked, current });
        }
        if asked > 0 && asked < self.compacted {
            let oldest = self.compacted;
            return Err(StorageError::Compacted { asked, oldest });
        }
        Ok(if asked == 0 { self.revision } else { asked })
    }

    fn check_watch(&self, after: Revision) -> Result<()> {
        if after + 1 < self.compacted {
            return Err(StorageError::Compacted {
                asked: after,
                oldest: self.compacted,
            });
        }
        Ok(())
    }
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Arc::new(Mutex::new(State {
                revision: 1,
                ..State::default()
            })),
            moved: watch::Sender::default(),
            reads: AtomicUsize::new(0),
            gate: Arc::default(),
            answers_progress: AtomicBool::new(true),
        })
    }

    /// How often [`Storage::current_revision`] was called.
    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// Reads of the current revision wait until the guard is dropped.
    pub(super) fn hold_reads(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        self.gate
            .clone()
            .try_write_owned()
            .expect("nobody reads yet")
    }

    /// Ends every watch with an error.
    pub(super) fn break_watches(&self) {
        self.moved.send_modify(|moved| moved.broken += 1);
    }

    /// Watches that begin from now on cannot be asked for progress.
    pub(super) fn refuse_progress(&self) {
        self.answers_progress.store(false, Ordering::SeqCst);
    }

    /// Forgets what was before a revision.
    pub(super) fn compact(&self, revision: Revision) {
        self.state.lock().compacted = revision;
    }

    /// Goes back to an older state, as etcd does when it is restored from a backup.
    pub(super) fn restore(&self, revision: Revision) {
        let mut state = self.state.lock();
        state.log.retain(|(r, ..)| *r <= revision);
        state.revision = revision;
        drop(state);
        self.break_watches();
    }

    /// Writes whatever is there, several keys in one revision.
    pub(super) fn put_all(&self, changes: &[(&str, Option<&str>)]) -> Revision {
        let mut state = self.state.lock();
        state.revision += 1;
        let revision = state.revision;
        for (key, value) in changes {
            let value = value.map(|v| Bytes::copy_from_slice(v.as_bytes()));
            state.log.push((revision, (*key).to_owned(), value));
        }
        drop(state);
        self.moved.send_modify(|moved| moved.revision = revision);
        revision
    }

    pub(super) fn put(&self, key: &str, value: &str) -> Revision {
        self.put_all(&[(key, Some(value))])
    }

    pub(super) fn remove(&self, key: &str) -> Revision {
        self.put_all(&[(key, None)])
    }

    fn write(&self, key: &str, value: Option<Bytes>, expected: Revision) -> Result<Revision> {
        let mut state = self.state.lock();
        let current = state.at(state.revision).remove(key);
        if current.as_ref().map_or(0, |kv| kv.mod_revision) != expected {
            return Err(match (current, expected) {
                (Some(_), 0) => StorageError::Exists(key.to_owned()),
                (None, _) if value.is_none() => StorageError::NotFound(key.to_owned()),
                (current, _) => StorageError::Conflict { current },
            });
        }
        state.revision += 1;
        let revision = state.revision;
        state.log.push((revision, key.to_owned(), value));
        drop(state);
        self.moved.send_modify(|moved| moved.revision = revision);
        Ok(revision)
    }
}

impl Storage for Fake {
    fn get<'a>(
        &'a self,
        key: &'a str,
        revision: Revision,
    ) -> BoxFuture<'a, Result<Option<KeyValue>>> {
        Box::pin(async move {
            let state = self.state.lock();
            let revision = state.check(revision)?;
            Ok(state.at(revision).remove(key))
        })
    }

    fn range<'a>(
        &'a self,
        start: &'a str,
        end: &'a str,
        limit: usize,
        revision: Revision,
    ) -> BoxFuture<'a, Result<Page>> {
        Box::pin(async move {
            let state = self.state.lock();
            let revision = state.check(revision)?;
            let mut items: Vec<_> = state
                .at(revision)
                .into_values()
                .filter(|kv| *kv.key >= *start && *kv.key < *end)
                .collect();
            let count = items.len() as u64;
            let more = limit > 0 && items.len() > limit;
            if more {
                items.truncate(limit);
            }
            Ok(Page { items, more, count })
        })
    }

    fn create<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        _ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<Revision>> {
        Box::pin(async move { self.write(key, Some(value), 0) })
    }

    fn update<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        expected: Revision,
        _ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<Revision>> {
        Box::pin(async move { self.write(key, Some(value), expected) })
    }

    fn delete<'a>(&'a self, key: &'a str, expected: Revision) -> BoxFuture<'a, Result<Revision>> {
        Box::pin(async move { self.write(key, None, expected) })
    }

    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<Watch>> {
        Box::pin(async move {
            let mut moved = self.moved.subscribe();
            let begun = *moved.borrow_and_update();
            self.state.lock().check_watch(after)?;
            let reader = Reader {
                state: self.state.clone(),
                prefix: prefix.to_owned(),
                seen: after,
                ready: VecDeque::new(),
                moved,
                begun,
            };
            let asking = self.moved.clone();
            Ok(Watch {
                changes: stream::unfold(Some(reader), |reader| async move {
                    let mut reader = reader?;
                    Some(match reader.next().await {
                        Ok(change) => (Ok(change), Some(reader)),
                        Err(error) => (Err(error), None),
                    })
                })
                .boxed(),
                request_progress: self.answers_progress.load(Ordering::SeqCst).then(|| {
                    Box::new(move || asking.send_modify(|moved| moved.asked += 1))
                        as Box<dyn Fn() + Send + Sync>
                }),
            })
        })
    }

    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>> {
        Box::pin(async move {
            self.reads.fetch_add(1, Ordering::SeqCst);
            let _held = self.gate.read().await;
            Ok(self.state.lock().revision)
        })
    }
}

struct Reader {
    state: Arc<Mutex<State>>,
    prefix: String,
    seen: Revision,
    ready: VecDeque<Change>,
    moved: watch::Receiver<Moved>,
    begun: Moved,
}

impl Reader {
    async fn next(&mut self) -> Result<Change> {
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Ok(change);
            }
            let moved = *self.moved.borrow_and_update();
            if moved.broken > self.begun.broken {
                return Err(StorageError::Unavailable("the watch was broken".into()));
            }
            self.read();
            if moved.asked > self.begun.asked {
                self.begun.asked = moved.asked;
                self.ready.push_back(Change::Progress(self.seen));
            }
            if self.ready.is_empty() && self.moved.changed().await.is_err() {
                return Err(StorageError::Unavailable("the store is gone".into()));
            }
        }
    }

    fn read(&mut self) {
        let state = self.state.lock();
        let mut open = 0;
        for (revision, key, value) in &state.log {
            if *revision <= self.seen || !key.starts_with(&self.prefix) {
                continue;
            }
            if open != 0 && open != *revision {
                self.ready.push_back(Change::Progress(open));
            }
            open = *revision;
            self.ready.push_back(match value {
                Some(value) => Change::Put(KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    mod_revision: *revision,
                }),
                None => Change::Delete {
                    key: key.clone(),
                    revision: *revision,
                },
            });
        }
        if open != 0 {
            self.ready.push_back(Change::Progress(open));
        }
        self.seen = self.seen.max(state.revision);
    }
}
