//! The watch cache: every object under the prefix, as the bytes etcd holds, in memory.
//!
//! One [`Cache`] runs one etcd watch on the whole prefix and is the only writer of what it
//! holds. The registry [`register`](Cache::register)s each resource once and reads through the
//! [`ResourceCache`] it gets: [`get`](ResourceCache::get), [`list`](ResourceCache::list),
//! [`watch`](ResourceCache::watch), with `resourceVersion` semantics as
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions> has them.
//!
//! Writes do not pass here: the registry writes to [`Storage`](super::Storage), answers with
//! the revision that the transaction returned, and the cache learns of it from the watch.
//! Who must read what they wrote asks for [`At::NotOlderThan`] that revision.
//!
//! What must not be here: kinds, codecs (they come in as an [`Ingest`]), HTTP.

mod encodings;
mod freshness;
mod history;
mod indexes;
mod object;
mod resource;
mod selector;
#[cfg(test)]
pub(in crate::storage) mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod watch;
mod watchers;
mod writer;
mod written;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::keys::Keys;
use super::metrics::Metrics;
use super::{Result, Revision, Storage};
use encodings::Encodings;
use freshness::Freshness;

pub use object::Object;
pub use resource::ResourceCache;
pub use selector::{FieldRef, Selector, UnknownField};
pub use watch::Watcher;
pub use writer::Cache;

/// How the cache reads one resource's stored bytes. Built-ins are protobuf envelopes, custom
/// resources are JSON; the cache does not know which.
pub trait Ingest: Send + Sync + 'static {
    /// Reads what the cache must know of a stored value and writes `revision` into its
    /// `metadata.resourceVersion`. An error is logged with the key (it must not quote the
    /// value) and the object is skipped.
    fn ingest(&self, value: &[u8], revision: Revision) -> Result<Ingested, String>;

    /// The same bytes under another `metadata.resourceVersion`: a deleted object, or one that
    /// leaves a selector, is sent as it last was, at the revision of the change.
    fn restamp(&self, bytes: &[u8], revision: Revision) -> Result<Bytes, String>;
}

/// What [`Ingest`] finds in a value.
#[derive(Debug, Default)]
pub struct Ingested {
    /// The stored form with the resource version spliced in; not a slice of the input.
    pub bytes: Bytes,
    pub labels: Vec<(String, String)>,
    /// The values of [`Definition::fields`], in that order.
    pub fields: Vec<String>,
}

/// A resource as the cache must know it.
#[derive(Clone)]
pub struct Definition {
    /// Group and plural, for logs and metrics.
    pub group: String,
    pub resource: String,
    /// The key between the etcd prefix and the namespace or name, without slashes at its ends:
    /// `pods`, `services/specs`, `stable.example.com/crontabs`.
    pub storage_prefix: String,
    pub namespaced: bool,
    /// Selectable fields besides `metadata.name` and `metadata.namespace`.
    pub fields: Vec<SelectableField>,
    pub ingest: Arc<dyn Ingest>,
}

#[derive(Debug, Clone)]
pub struct SelectableField {
    /// As in a field selector: `spec.nodeName`.
    pub name: String,
    /// Keep an index: equality on this field is asked often (`spec.nodeName` by every kubelet).
    pub indexed: bool,
}

/// Which state a read must see (`resourceVersion` and `resourceVersionMatch`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// No `resourceVersion`: everything that was acknowledged before the request came.
    Latest,
    /// `0`: whatever is in memory.
    Any,
    /// `N`: waits up to 3 s for the cache to get there, then
    /// [`Future`](super::StorageError::Future) ("Too large resource version", 504).
    NotOlderThan(Revision),
    /// `N` with `resourceVersionMatch=Exact`, and every page after the first.
    Exact(Revision),
}

#[derive(Debug, Clone, Copy)]
pub struct ListQuery<'a> {
    pub selector: &'a Selector,
    pub at: At,
    /// At most this many objects; 0: all.
    pub limit: usize,
    /// The first relative key (`<namespace>/<name>` or `<name>`) that may be returned, the
    /// start key of upstream's continue token: the last key returned with a NUL behind it.
    /// Empty: from the beginning.
    pub start: &'a str,
}

/// One state of a resource, or a page of it, in key order.
#[derive(Debug)]
pub struct List {
    pub objects: Vec<Arc<Object>>,
    /// The revision of the state, for the list's `metadata.resourceVersion`. A watch from here
    /// continues it without a gap or a repetition.
    pub revision: Revision,
    /// Objects that match follow the last one; its [`Object::key`] goes into the continue token.
    pub more: bool,
    /// How many follow; `None` when a label or field selector would make counting expensive
    /// (`remainingItemCount` is then absent).
    pub remaining: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct WatchQuery {
    pub selector: Selector,
    pub start: Start,
    /// Send [`WatchItem::Bookmark`]s (`allowWatchBookmarks`).
    pub bookmarks: bool,
}

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// `resourceVersion=N`: the changes after `N`; [`Compacted`](super::StorageError::Compacted)
    /// (410) when they are no longer known.
    After(Revision),
    /// The changes from now on, without the state (`sendInitialEvents=false` without a version).
    Now,
    /// The state as `Added` items ([`At::Latest`] without a version, [`At::Any`] for 0,
    /// [`At::NotOlderThan`] with `sendInitialEvents=true`), then the changes.
    State {
        at: At,
        /// `sendInitialEvents=true`: a bookmark with `initial_events_end` ends the state.
        marked: bool,
    },
}

/// What a watch sends. An object that comes to match a selector is `Added`; one that no longer
/// matches is `Deleted`, as it was before, at the revision of the change.
#[derive(Debug, Clone)]
pub enum WatchItem {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    Deleted(Arc<Object>),
    Bookmark {
        /// Everything up to here has been sent.
        revision: Revision,
        /// To be annotated `k8s.io/initial-events-end: "true"`.
        initial_events_end: bool,
    },
}

/// What the cache may use. The defaults suit a control plane of any size: memory is bounded in
/// bytes, and history in age.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--etcd-prefix`.
    pub prefix: String,
    /// Old states that are kept so that watches can resume, over all resources.
    pub history_bytes: usize,
    /// How long they are kept at most. Lists at an older revision go to etcd.
    pub history_age: Duration,
    /// So many of each resource are kept whatever their age (upstream's smallest ring): a watch
    /// of what seldom changes can be resumed.
    pub history_least: usize,
    /// What may wait for one watcher before it is cut off.
    pub watcher_bytes: usize,
    /// Encodings other than the stored one (JSON, other versions, watch frames).
    pub encoding_bytes: usize,
    /// Between bookmarks (upstream: about a minute).
    pub bookmark_interval: Duration,
    /// How long a read waits for a revision.
    pub freshness_timeout: Duration,
    /// Objects per page when the cache fills.
    pub page_size: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "/registry".into(),
            history_bytes: 64 << 20,
            history_age: Duration::from_secs(150),
            history_least: 100,
            watcher_bytes: 16 << 20,
            encoding_bytes: 64 << 20,
            bookmark_interval: Duration::from_secs(60),
            freshness_timeout: Duration::from_secs(3),
            page_size: 1000,
        }
    }
}

/// What the writer and the resources share.
struct Shared {
    storage: Arc<dyn Storage>,
    options: Options,
    keys: Keys,
    metrics: Arc<Metrics>,
    encodings: Arc<Encodings>,
    freshness: Freshness,
    /// Bytes of all resources' history.
    history_bytes: AtomicUsize,
    /// States before this one are gone from etcd, as far as is known.
    compacted: AtomicU64,
}

impl Shared {
    fn history_changed(&self, before: usize, after: usize) {
        self.history_bytes.fetch_add(after, Ordering::Relaxed);
        self.history_bytes.fetch_sub(before, Ordering::Relaxed);
    }
}

impl Definition {
    /// How selectors name a field; `None` for one that is not selectable.
    pub fn field(&self, name: &str) -> Option<FieldRef> {
        match name {
            "metadata.name" => Some(FieldRef::Name),
            "metadata.namespace" if self.namespaced => Some(FieldRef::Namespace),
            name => {
                let i = self.fields.iter().position(|field| field.name == name)?;
                Some(FieldRef::Selectable(i))
            }
        }
    }
}
