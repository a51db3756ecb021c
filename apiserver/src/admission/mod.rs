//! Admission: the last word on a write. Mutating plugins run before validation,
//! validating ones after it, each list in upstream's order.
//!
//! One file per plugin; one line in `plugins()` registers it.
//! What must not be here: authorization, defaults of the API itself (`proto/api`).

use futures::future::BoxFuture;
use meta::status::Status;
use schema::Resource;
use serde_json::Value;

use crate::authn::User;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

/// What a plugin sees of a request (`admission.Attributes`).
#[derive(Debug)]
pub struct Attributes<'a> {
    pub operation: Operation,
    pub resource: &'static Resource,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    pub namespace: &'a str,
    /// Empty on a create with `generateName` until the name is generated.
    pub name: &'a str,
    pub user: &'a User,
    /// The object before the write; on DELETE the object that goes.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// The decoded `DeleteOptions`, `CreateOptions` and so on.
    pub options: Option<&'a Value>,
}

/// An admission plugin. The default of each half is to let the request pass.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    fn handles(&self, operation: Operation) -> bool;

    /// May change the object (absent on DELETE).
    fn mutate<'a>(
        &'a self,
        _attributes: &'a Attributes<'a>,
        _object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }

    fn validate<'a>(
        &'a self,
        _attributes: &'a Attributes<'a>,
        _object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async { Ok(()) })
    }
}
