//! Claims of devices and templates of them: what only some may ask for or say. A refusal comes
//! together with whatever else is wrong with the object.
//!
//! What must not be here: what claims look like.

mod admin_access;
mod status;

use std::sync::Arc;

use api::validation;
use futures::future::BoxFuture;
use meta::{ErrorList, GroupKind, Status};
use serde_json::Value;

use super::generic::{META_BUT_FOR_STATUS, keep_all_but_status, keep_meta};
use super::object_meta::meta;
use super::strategy::{Context, Hooks, Undo};
use crate::authz::Authorizer;
use crate::lookup::Lookup;

const GROUP: &str = "resource.k8s.io";

/// Watches over claims, or over templates of claims.
pub struct DeviceClaims {
    pub kind: &'static str,
    /// Where the spec of the claim is.
    pub spec: &'static str,
    pub lookup: Arc<dyn Lookup>,
    /// Asked about each part of a status; `None`: who may write a status may write all of it.
    pub parts: Option<Arc<dyn Authorizer>>,
}

impl DeviceClaims {
    fn refuse(
        &self,
        object: &Value,
        mut refusals: ErrorList,
        others: impl FnOnce() -> ErrorList,
    ) -> Result<Option<Undo>, Status> {
        if refusals.is_empty() {
            return Ok(None);
        }
        refusals.extend(others().0);
        let kind = GroupKind::new(GROUP, self.kind);
        Err(Status::invalid(&kind, meta(object).name(), &refusals))
    }
}

impl Hooks for DeviceClaims {
    fn begin_create<'a>(
        &'a self,
        _cx: &'a Context<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>> {
        Box::pin(async move {
            let asked = admin_access::requested(object, self.spec);
            let refusals = admin_access::refusals(&*self.lookup, object, asked).await;
            self.refuse(object, refusals, || {
                validation::create(GROUP, self.kind, true, object)
            })
        })
    }

    /// The spec cannot change, so only the status is of interest.
    fn begin_update<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: &'a mut Value,
        old: &'a Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>> {
        Box::pin(async move {
            if cx.subresource != "status" {
                return Ok(None);
            }
            // As the strategy will have it.
            keep_all_but_status(object, old);
            keep_meta(object, old, META_BUT_FOR_STATUS);
            status::drop_deallocated(object, old);

            let granted = admin_access::granted(object);
            let granted = granted.filter(|_| admin_access::granted(old).is_none());
            let mut refusals = admin_access::refusals(&*self.lookup, object, granted).await;
            if let Some(authorizer) = &self.parts {
                refusals.extend(status::refusals(&**authorizer, cx, object, old).0);
            }
            self.refuse(object, refusals, || {
                validation::update_status(GROUP, self.kind, object, old)
            })
        })
    }
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}
