//! How authentication, authorization and admission read objects: two small seams that
//! the composition implements over the watch cache and tests implement over a map.
//!
//! What must not be here: storage, HTTP, decisions.

use std::sync::Arc;

use codec::serde_pb::Part;
use futures::future::BoxFuture;
use meta::status::Status;
use serde_json::Value;

/// Reads objects as trees of their storage version.
pub trait Lookup: Send + Sync + 'static {
    /// The object as the watch cache has it, without waiting. `namespace` is empty for
    /// cluster-scoped resources.
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>>;

    /// Every object of a namespace (of all namespaces when it is empty), in key order.
    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Value>>;

    /// The object as etcd has it now. For the rare case in which the cache's answer "there
    /// is none" may be only its lag.
    fn get_fresh<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<Value>>, Status>>;
}

/// A resource that is followed.
#[derive(Debug, Clone, Copy)]
pub struct Observed {
    pub group: &'static str,
    pub resource: &'static str,
    /// What is read of each object; nothing else of it is decoded.
    pub reads: Part,
}

/// Follows some resources: an index that is fed with every change, in order.
///
/// Calls come from one task. They must be quick: they run before the next event is read.
pub trait Observer: Send + Sync + 'static {
    /// What is followed.
    fn observes(&self) -> &'static [Observed];

    /// The object is there, new or changed. It has at least what [`Observed::reads`] says.
    fn put(&self, group: &str, resource: &str, object: &Value);

    fn delete(&self, group: &str, resource: &str, namespace: &str, name: &str);

    /// Everything that was there at the start has been reported.
    fn synced(&self) {}
}
