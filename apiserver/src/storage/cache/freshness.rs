//! How far the cache has come, and waiting for it to come further.
//!
//! A consistent read asks etcd for its revision (one quorum read serves all who asked before it
//! began) and waits until the cache has seen that revision. Usually it has; when the newest
//! revision is of a key outside the prefix, the writer asks etcd's watch for its progress.
//!
//! What must not be here: what is read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, Notify, watch};

use super::{Result, Revision};
use crate::storage::{Storage, StorageError};

pub(super) struct Freshness {
    revision: watch::Sender<Revision>,
    /// The highest revision that anybody waits for.
    wanted: AtomicU64,
    /// Rung when `wanted` is ahead of `revision`.
    pub(super) behind: Notify,
    /// The watch can be asked how far it has come. Hoped for until the first watch is there:
    /// a read that went to etcd meanwhile would be followed by older ones from the cache.
    can_ask: AtomicBool,
    started: AtomicU64,
    last_read: Mutex<LastRead>,
}

#[derive(Default)]
struct LastRead {
    number: u64,
    outcome: Option<Result<Revision, String>>,
}

/// Without progress requests, how long a consistent read hopes before it goes to etcd itself.
const HOPE: Duration = Duration::from_millis(100);

impl Freshness {
    pub(super) fn new() -> Self {
        Self {
            revision: watch::Sender::new(0),
            wanted: AtomicU64::new(0),
            behind: Notify::new(),
            can_ask: AtomicBool::new(true),
            started: AtomicU64::new(0),
            last_read: Mutex::default(),
        }
    }

    pub(super) fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// The writer has applied everything up to `revision`.
    pub(super) fn reached(&self, revision: Revision) {
        self.revision.send_if_modified(|now| {
            let further = revision > *now;
            *now = revision.max(*now);
            further
        });
    }

    /// The writer has filled the cache anew, at a revision that may even be lower: etcd was
    /// restored from a backup.
    pub(super) fn reset(&self, revision: Revision) {
        self.wanted.store(0, Ordering::Relaxed);
        self.revision.send_replace(revision);
    }

    pub(super) fn set_can_ask(&self, can: bool) {
        self.can_ask.store(can, Ordering::Relaxed);
    }

    /// Somebody waits for what the cache has not seen.
    pub(super) fn is_behind(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > self.revision()
    }

    /// Waits until the cache is filled.
    pub(super) async fn filled(&self) {
        // The sender lives as long as `self`.
        let _ = self.revision.subscribe().wait_for(|now| *now > 0).await;
    }

    /// Waits for a revision; `Future` when it does not come in time.
    pub(super) async fn wait(&self, wanted: Revision, patience: Duration) -> Result<()> {
        let mut revision = self.revision.subscribe();
        if *revision.borrow() >= wanted.max(1) {
            return Ok(());
        }
        self.wanted.fetch_max(wanted, Ordering::Relaxed);
        self.behind.notify_one();
        let reached =
            tokio::time::timeout(patience, revision.wait_for(|now| *now >= wanted.max(1)));
        if reached.await.is_ok() {
            return Ok(());
        }
        match self.revision() {
            0 => Err(StorageError::Unavailable(
                "the watch cache is not filled yet".into(),
            )),
            current => {
                // Do not go on asking for what may never come.
                let _ = self.wanted.compare_exchange(
                    wanted,
                    current,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                Err(StorageError::Future {
                    asked: wanted,
                    current,
                })
            }
        }
    }

    /// Waits as long for a consistent read as it makes sense to.
    pub(super) async fn catch_up(&self, wanted: Revision, patience: Duration) -> Result<()> {
        let patience = if self.can_ask.load(Ordering::Relaxed) || self.revision() == 0 {
            patience
        } else {
            patience.min(HOPE)
        };
        self.wait(wanted, patience).await
    }

    /// etcd's revision at some moment after the call.
    pub(super) async fn latest(&self, storage: &dyn Storage) -> Result<Revision> {
        // Reads that have begun may miss what was acknowledged before this call.
        let begun = self.started.load(Ordering::SeqCst);
        let mut last = self.last_read.lock().await;
        if last.number > begun
            && let Some(outcome) = &last.outcome
        {
            return outcome.clone().map_err(StorageError::Unavailable);
        }
        last.number = self.started.fetch_add(1, Ordering::SeqCst) + 1;
        last.outcome = None;
        let outcome = storage.current_revision().await;
        last.outcome = Some(match &outcome {
            Ok(revision) => Ok(*revision),
            Err(error) => Err(error.to_string()),
        });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::fake::Fake;

    #[tokio::test(start_paused = true)]
    async fn a_revision_is_waited_for_but_not_forever() {
        let freshness = Arc::new(Freshness::new());
        let second = Duration::from_secs(1);
        let unfilled = freshness.wait(1, second).await;
        assert!(matches!(unfilled, Err(StorageError::Unavailable(_))));
        freshness.reached(5);
        freshness.wait(5, second).await.unwrap();
        let waiting = tokio::spawn({
            let freshness = freshness.clone();
            async move { freshness.wait(7, second).await }
        });
        while !freshness.is_behind() {
            tokio::task::yield_now().await;
        }
        freshness.reached(8);
        waiting.await.unwrap().unwrap();
        let late = freshness.wait(9, second).await;
        assert!(matches!(
            late,
            Err(StorageError::Future {
                asked: 9,
                current: 8
            })
        ));
        assert!(!freshness.is_behind());
    }

    #[tokio::test]
    async fn one_read_serves_all_who_asked_before_it_began() {
        let storage = Fake::new();
        let freshness = Arc::new(Freshness::new());
        let gate = storage.hold_reads();
        let readers: Vec<_> = (0..50)
            .map(|_| {
                let (storage, freshness) = (storage.clone(), freshness.clone());
                tokio::spawn(async move { freshness.latest(&*storage).await.unwrap() })
            })
            .collect();
        // Everybody has asked; the first is at etcd, and may not serve those who came later.
        while Arc::strong_count(&freshness) < 51 || storage.reads() == 0 {
            tokio::task::yield_now().await;
        }
        drop(gate);
        for reader in readers {
            reader.await.unwrap();
        }
        assert!(storage.reads() <= 2, "{} reads", storage.reads());
    }
}
