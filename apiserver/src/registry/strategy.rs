//! What is special about a kind: one implementation of [`Strategy`] in one file of
//! this folder (or none: [`Generic`](super::generic::Generic) serves every kind that is
//! not special).
//!
//! What must not be here: HTTP, etcd.

use std::time::Duration;

use futures::future::BoxFuture;
use meta::Status;
use meta::field::ErrorList;
use serde_json::Value;

use super::deletion::GarbageCollection;
use super::options::DeleteOptions;
use super::store::Warnings;

/// What a strategy may ask about the request it serves.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub user: &'a crate::authn::User,
    /// `create`, `update` or `patch`.
    pub verb: &'a str,
    /// The group of the version that the client speaks: events have rules of two.
    pub group: &'a str,
    pub now: jiff::Timestamp,
    pub dry_run: bool,
    /// `""`, `"status"`, `"approval"`, … for updates that only touch a part of the object.
    pub subresource: &'a str,
    /// What the client is warned of beyond [`api::warnings`].
    pub warnings: Option<&'a Warnings>,
}

/// The rules of one kind (`rest.RESTCreateUpdateStrategy`). Objects are trees of the
/// storage version with defaults applied; nothing here does I/O.
pub trait Strategy: Send + Sync + 'static {
    /// Wipes what a client may not set on create (status), sets generation.
    fn prepare_create(&self, cx: &Context<'_>, object: &mut Value);

    fn validate_create(&self, cx: &Context<'_>, object: &Value) -> ErrorList;

    /// Keeps what the (sub)resource may not change, bumps `metadata.generation` when the
    /// spec changes.
    fn prepare_update(&self, cx: &Context<'_>, object: &mut Value, old: &Value);

    fn validate_update(&self, cx: &Context<'_>, object: &Value, old: &Value) -> ErrorList;

    /// PUT creates what is missing (leases, endpoints, …).
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// PUT without a resourceVersion overwrites.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Objects of this kind wait for a grace period before they go.
    fn is_graceful(&self) -> bool {
        false
    }

    /// How long a deletion waits; `None`: this object goes at once.
    fn grace_period(&self, _object: &Value, _options: &DeleteOptions) -> Option<Duration> {
        None
    }

    /// Something beside `metadata.finalizers` holds the object back from being deleted
    /// (`spec.finalizers` of a namespace).
    fn is_held(&self, _object: &Value) -> bool {
        false
    }

    /// Says in the object itself that it is being deleted (a namespace's phase).
    fn mark_deleting(&self, _object: &mut Value) {}

    /// Why the object of this name can never be deleted, if so.
    fn undeletable(&self, _name: &str) -> Option<&'static str> {
        None
    }

    fn garbage_collection(&self) -> GarbageCollection {
        GarbageCollection::Dependents
    }

    /// DELETE answers with the object; otherwise with a `Status`.
    fn returns_deleted(&self) -> bool {
        false
    }

    /// How long the object lives in etcd (events).
    fn ttl(&self, _object: &Value) -> Option<Duration> {
        None
    }
}

/// Undoes what a hook has done when the write that it was for fails.
pub type Undo = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// Undoes it after a write that has failed. One that may have been done after all leaves what it
/// took: taken for nothing is found and given back later, given to two is not.
pub async fn undo_failed(undo: Option<Undo>, why: &Status) {
    if let Some(undo) = undo.filter(|_| !why.is_server_timeout()) {
        undo().await;
    }
}

/// I/O that belongs to a kind's writes: Services allocate addresses and ports
/// (the generic store's `BeginCreate`, `BeginUpdate`, `AfterDelete`).
pub trait Hooks: Send + Sync + 'static {
    /// Whether a write takes something beside its object, which has to be given back when it comes
    /// to nothing: it must not end where it is.
    fn takes_more(&self) -> bool {
        false
    }

    /// Before validation; may fill the object.
    fn begin_create<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>>;

    fn begin_update<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: &'a mut Value,
        old: &'a Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>>;

    /// The write is done; `old` is what was there before.
    fn after_update<'a>(&'a self, _object: &'a Value, _old: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn after_delete<'a>(&'a self, _object: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use meta::GroupResource;

    use super::*;

    #[tokio::test]
    async fn what_may_have_been_done_is_not_undone() {
        let services = GroupResource::new("", "services");
        for (why, undone) in [
            (Status::server_timeout(&services, "create", 2), false),
            (Status::already_exists(&services, "a"), true),
        ] {
            let seen = Arc::new(AtomicBool::new(false));
            let set = seen.clone();
            let undo: Undo =
                Box::new(move || Box::pin(async move { set.store(true, Ordering::Relaxed) }));
            undo_failed(Some(undo), &why).await;
            assert_eq!(seen.load(Ordering::Relaxed), undone);
        }
    }
}
