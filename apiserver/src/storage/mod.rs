//! Where objects live: the seam between the registry and etcd.
//!
//! [`Storage`] is what etcd does (bytes under keys, one revision for everything);
//! `etcd.rs` implements it. [`cache::Cache`] keeps every object of the prefix as the
//! bytes etcd holds and answers reads and watches from memory. One test suite
//! (`tests.rs`) runs against both.
//!
//! What must not be here: kinds, users, HTTP.

pub mod cache;
mod calls;
pub mod etcd;
pub mod keys;
pub mod metrics;

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// An etcd revision. 0 stands for "none" or "any".
pub type Revision = u64;

/// A key with its value, as etcd holds it.
#[derive(Debug, Clone)]
pub struct KeyValue {
    /// The whole key, `--etcd-prefix` included.
    pub key: String,
    pub value: Bytes,
    pub mod_revision: Revision,
}

/// What a prefix watch reports, in revision order, nothing skipped or repeated.
#[derive(Debug, Clone)]
pub enum Change {
    Put(KeyValue),
    Delete {
        key: String,
        revision: Revision,
    },
    /// Everything up to this revision has been reported.
    Progress(Revision),
}

/// One page of a range read.
#[derive(Debug)]
pub struct Page {
    pub items: Vec<KeyValue>,
    /// More keys follow the last item.
    pub more: bool,
    /// How many keys the whole range holds.
    pub count: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("key not found: {0}")]
    NotFound(String),
    #[error("key exists: {0}")]
    Exists(String),
    /// A write's expected revision was not the key's; `current` is what is there now, as the
    /// failed transaction read it.
    #[error("key changed meanwhile")]
    Conflict { current: Option<KeyValue> },
    /// The revision asked for has been compacted; `oldest` is the first that is left
    /// (0: unknown).
    #[error("revision {asked} has been compacted")]
    Compacted { asked: Revision, oldest: Revision },
    /// The revision asked for is not there yet.
    #[error("revision {asked} is larger than the current {current}")]
    Future { asked: Revision, current: Revision },
    /// etcd has no space left and takes no writes; the text says what to do.
    #[error("{0}")]
    NoSpace(String),
    /// etcd cannot be reached, has no leader, or did not answer in time. Whether a write
    /// that fails so was done is not known.
    #[error("storage unavailable: {0}")]
    Unavailable(String),
    /// The value is larger than etcd takes.
    #[error("etcdserver: request is too large")]
    TooLarge,
    #[error("storage: {0}")]
    Internal(String),
}

pub type Result<T, E = StorageError> = std::result::Result<T, E>;

/// A watch that has begun.
pub struct Watch {
    /// In revision order. All changes of one revision are followed by a [`Change::Progress`]
    /// that closes it. The stream ends after an error.
    pub changes: BoxStream<'static, Result<Change>>,
    /// Asks for a [`Change::Progress`] at the store's revision; `None` when the store cannot be
    /// asked (etcd before 3.4.31 and 3.5.13), so that who waits must read it.
    pub request_progress: Option<Box<dyn Fn() + Send + Sync>>,
}

/// What etcd does. Every write is one transaction on the key's mod revision.
pub trait Storage: Send + Sync + 'static {
    /// Reads one key at `revision` (0: now, linearizable).
    fn get<'a>(
        &'a self,
        key: &'a str,
        revision: Revision,
    ) -> BoxFuture<'a, Result<Option<KeyValue>>>;

    /// Reads the keys in `start..end`, in order, at most `limit` (0: all), at `revision` (0: now,
    /// linearizable). [`keys::prefix_end`] ends the range of a prefix.
    fn range<'a>(
        &'a self,
        start: &'a str,
        end: &'a str,
        limit: usize,
        revision: Revision,
    ) -> BoxFuture<'a, Result<Page>>;

    /// Writes a key that must not exist. `ttl` puts it under a lease.
    fn create<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<Revision>>;

    /// Replaces a key whose mod revision must be `expected`.
    fn update<'a>(
        &'a self,
        key: &'a str,
        value: Bytes,
        expected: Revision,
        ttl: Option<Duration>,
    ) -> BoxFuture<'a, Result<Revision>>;

    /// Deletes a key whose mod revision must be `expected`; `NotFound` when there is none.
    fn delete<'a>(&'a self, key: &'a str, expected: Revision) -> BoxFuture<'a, Result<Revision>>;

    /// Watches a prefix from the revision after `after`. That it is compacted may also be the
    /// first item.
    fn watch<'a>(&'a self, prefix: &'a str, after: Revision) -> BoxFuture<'a, Result<Watch>>;

    /// The store's revision now, linearizable.
    fn current_revision(&self) -> BoxFuture<'_, Result<Revision>>;
}
