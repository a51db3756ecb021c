//! Admission: the last word on a write. Mutating plugins run before validation,
//! validating ones after it, each list in upstream's order.
//!
//! One file per plugin; one line of `chain.rs` registers it.
//! What must not be here: authorization, defaults of the API itself (`proto/api`).

mod allow_privileged;
mod certificates;
mod chain;
pub mod config;
mod default_class;
mod default_toleration_seconds;
mod limit_ranger;
mod metrics;
mod namespace_lifecycle;
mod node_restriction;
mod persistent_volume_claim_resize;
mod pod_group;
mod pod_resize;
mod pod_security;
mod pod_topology_labels;
mod priority;
mod rbac_escalation;
pub mod resource_quota;
mod run;
mod runtime_class;
mod service_account;
mod simple;
mod storage_object_in_use_protection;
mod taint_nodes_by_condition;

pub use allow_privileged::NoPrivileged;
pub use chain::{Deps, chain};
pub use config::Configuration;
pub use rbac_escalation::RbacEscalation;
pub use run::Admission;

use futures::future::BoxFuture;
use meta::{GroupResource, Status};
use schema::Resource;
use serde_json::Value;

use crate::authn::User;
use crate::registry::store::Warnings;

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
    /// Nothing will be written, so nothing may be counted.
    pub dry_run: bool,
    /// What the client shall be told, whatever becomes of the request.
    pub warnings: &'a Warnings,
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

impl Attributes<'_> {
    /// Whether the request is for this resource itself, not for a subresource of it.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.is_sub(group, resource, "")
    }

    pub fn is_sub(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.resource.group == group
            && self.resource.plural == resource
            && self.subresource == subresource
    }

    /// 403 in the words of every plugin. `object` names what has no name yet.
    pub fn forbidden(&self, object: Option<&Value>, why: impl std::fmt::Display) -> Status {
        let from = |field: &str| {
            let name = object.and_then(|o| o["metadata"][field].as_str());
            name.filter(|n| !n.is_empty())
        };
        let name = match self.name {
            "" => from("name")
                .or_else(|| from("generateName"))
                .unwrap_or("Unknown"),
            name => name,
        };
        let resource = GroupResource::new(self.resource.group, self.resource.plural);
        Status::forbidden(&resource, name, why)
    }
}

/// For plugins that never wait.
fn ready<'a>(result: Result<(), Status>) -> BoxFuture<'a, Result<(), Status>> {
    Box::pin(std::future::ready(result))
}

/// The text at a JSON pointer; empty when there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The items of the list of that name, which may be absent.
fn items_mut<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

/// The list of that name, made when it is absent.
fn list_mut<'a>(object: &'a mut Value, field: &str) -> &'a mut Vec<Value> {
    if !object.is_object() {
        *object = Value::Object(Default::default());
    }
    if !object[field].is_array() {
        object[field] = Value::Array(Vec::new());
    }
    object[field].as_array_mut().expect("made an array above")
}

#[cfg(test)]
mod tests;
