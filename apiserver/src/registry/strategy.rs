//! What is special about a kind: one implementation of [`Strategy`] in one file of
//! this folder (or none: [`Generic`] serves every kind that is not special).
//!
//! What must not be here: HTTP, etcd.

use std::time::Duration;

use meta::field::ErrorList;
use serde_json::Value;

/// What a strategy may ask about the request it serves.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub user: &'a crate::authn::User,
    pub namespace: &'a str,
    pub now: jiff::Timestamp,
    pub dry_run: bool,
    /// `""`, `"status"`, `"scale"`, …
    pub subresource: &'a str,
}

/// The rules of one kind (`rest.RESTCreateUpdateStrategy`). Objects are trees of the
/// requested version with defaults applied; nothing here does I/O.
pub trait Strategy: Send + Sync + 'static {
    /// Wipes what a client may not set on create (status), sets generation.
    fn prepare_create(&self, cx: &Context<'_>, object: &mut Value);

    fn validate_create(&self, cx: &Context<'_>, object: &Value) -> ErrorList;

    /// Keeps what the (sub)resource may not change, bumps `metadata.generation` when the
    /// spec changes.
    fn prepare_update(&self, cx: &Context<'_>, object: &mut Value, old: &Value);

    fn validate_update(&self, cx: &Context<'_>, object: &Value, old: &Value) -> ErrorList;

    /// `Warning` headers for what is deprecated or surely a mistake.
    fn warnings(&self, _object: &Value) -> Vec<String> {
        Vec::new()
    }

    /// PUT creates what is missing (leases, endpoints, nodes' status…).
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// PUT without a resourceVersion overwrites.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// How long a deletion waits; `None`: this kind is not deleted gracefully.
    fn graceful_deletion(&self, _object: &Value, _asked: Option<Duration>) -> Option<Duration> {
        None
    }

    /// How long the object lives in etcd (events).
    fn ttl(&self) -> Option<Duration> {
        None
    }
}
