//! Endpoints that are not simply stored objects: subresources that speak another kind
//! (`scale`, `binding`, `eviction`, `token`) and kinds that are asked and not kept (reviews).
//!
//! One implementation of [`Rest`] per file of this folder.

use futures::future::BoxFuture;
use meta::{GroupResource, Status};
use schema::Resource;
use serde_json::Value;

use super::managed::FieldManager;
use super::object_meta::meta;
use super::store::{Change, Warnings};
use crate::authn::User;

/// What a request to an endpoint is about.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub resource: &'static Resource,
    pub namespace: &'a str,
    pub name: &'a str,
    pub user: &'a User,
    pub dry_run: bool,
    pub warnings: &'a Warnings,
    /// Who comes to own what is written, in the kind that the endpoint speaks.
    pub fields: FieldManager<'a>,
    /// Server-side apply: the change notes by itself who owns what.
    pub apply: bool,
    /// The stored object must have this uid, unless it is empty: the one of what is PUT.
    pub uid: &'a str,
}

impl Target<'_> {
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.resource.group, self.resource.plural)
    }

    /// What is sent to one namespace is not about another.
    pub fn check_namespace(&self, object: &Value) -> Result<(), Status> {
        match meta(object).namespace() {
            "" => Ok(()),
            own if own == self.namespace => Ok(()),
            _ => Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
        }
    }

    fn unsupported<T>(&self, verb: &str) -> Result<T, Status> {
        Err(Status::method_not_supported(&self.group_resource(), verb))
    }
}

/// What an endpoint answers with.
#[derive(Debug)]
pub enum Reply {
    /// An object of the kind that the endpoint speaks.
    Object(Value),
    Status(Status),
}

/// An endpoint that is not simply a stored object. Trees are of the kind that the endpoint
/// speaks.
pub trait Rest: Send + Sync + 'static {
    fn get<'a>(&'a self, target: Target<'a>) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move { target.unsupported("get") })
    }

    fn create<'a>(
        &'a self,
        target: Target<'a>,
        _object: Value,
    ) -> BoxFuture<'a, Result<Reply, Status>> {
        Box::pin(async move { target.unsupported("create") })
    }

    fn update<'a>(
        &'a self,
        target: Target<'a>,
        _change: &'a Change<'a>,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(async move { target.unsupported("update") })
    }
}
