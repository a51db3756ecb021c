//! Devices with the administrator's rights, which let a pod look into those that others use: only
//! where a label of the namespace allows it (KEP-5018).
//!
//! What must not be here: what claims look like.

use std::sync::Arc;

use api::validation;
use futures::future::BoxFuture;
use meta::{ErrorList, FieldError, GroupKind, Path, Status};
use serde_json::Value;

use super::object_meta::meta;
use super::strategy::{Context, Hooks, Undo};
use crate::lookup::Lookup;

const GROUP: &str = "resource.k8s.io";
const LABEL: &str = "resource.kubernetes.io/admin-access";

/// Watches over claims, or over templates of claims.
pub struct AdminAccess {
    pub kind: &'static str,
    /// Where the spec of the claim is.
    pub spec: &'static str,
    pub lookup: Arc<dyn Lookup>,
}

fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// The first request of such a device.
fn requested(object: &Value, spec: &str) -> Option<Path> {
    let requests = items(object, &format!("{spec}/devices/requests"));
    let i = requests
        .iter()
        .position(|request| request["exactly"]["adminAccess"] == true)?;
    // Upstream has the same path for templates.
    let list = Path::new("spec").child("devices").child("requests");
    Some(list.index(i).child("adminAccess"))
}

/// The first such device that is given.
fn granted(claim: &Value) -> Option<Path> {
    let results = items(claim, "/status/allocation/devices/results");
    let i = results
        .iter()
        .position(|result| result["adminAccess"] == true)?;
    let allocation = Path::new("status").child("allocation");
    let list = allocation.child("devices").child("results");
    Some(list.index(i).child("adminAccess"))
}

impl AdminAccess {
    /// Why the namespace does not allow it.
    async fn refusal(&self, object: &Value, path: &Path) -> Option<FieldError> {
        let namespace = meta(object).namespace();
        let found = self.lookup.get_fresh("", "namespaces", "", namespace).await;
        let why = match found {
            Ok(Some(found)) if found["metadata"]["labels"][LABEL] == "true" => return None,
            Ok(Some(_)) => {
                let detail = format!(
                    "admin access to devices requires the `{LABEL}: true` label on the containing namespace"
                );
                return Some(FieldError::forbidden(path, detail));
            }
            Ok(None) => format!("namespaces {namespace:?} not found"),
            Err(e) => e.message,
        };
        let why = format!("could not retrieve namespace to verify admin access: {why}");
        Some(FieldError::internal(path, why))
    }

    async fn check(
        &self,
        object: &Value,
        path: Option<Path>,
        others: impl FnOnce() -> ErrorList,
    ) -> Result<Option<Undo>, Status> {
        let refusal = match &path {
            Some(path) => self.refusal(object, path).await,
            None => None,
        };
        let Some(refusal) = refusal else {
            return Ok(None);
        };
        let mut errors = ErrorList::from(vec![refusal]);
        errors.extend(others().0);
        let kind = GroupKind::new(GROUP, self.kind);
        Err(Status::invalid(&kind, meta(object).name(), &errors))
    }
}

impl Hooks for AdminAccess {
    fn begin_create<'a>(
        &'a self,
        _cx: &'a Context<'a>,
        object: &'a mut Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>> {
        Box::pin(async move {
            let path = requested(object, self.spec);
            self.check(object, path, || {
                validation::create(GROUP, self.kind, true, object)
            })
            .await
        })
    }

    /// The spec cannot change, so only what a status gives is of interest.
    fn begin_update<'a>(
        &'a self,
        cx: &'a Context<'a>,
        object: &'a mut Value,
        old: &'a Value,
    ) -> BoxFuture<'a, Result<Option<Undo>, Status>> {
        Box::pin(async move {
            let path = granted(object).filter(|_| cx.subresource == "status");
            let path = path.filter(|_| granted(old).is_none());
            self.check(object, path, || {
                validation::update_status(GROUP, self.kind, object, old)
            })
            .await
        })
    }

    fn after_update<'a>(&'a self, _object: &'a Value, _old: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn after_delete<'a>(&'a self, _object: &'a Value) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_that_asks_is_named() {
        let requests = json!([
            {"name": "a", "exactly": {"adminAccess": false}},
            {"name": "b", "firstAvailable": [{"adminAccess": true}]},
            {"name": "c", "exactly": {"adminAccess": true}},
        ]);
        let claim = json!({"spec": {"devices": {"requests": requests}}});
        let path = requested(&claim, "/spec").unwrap();
        assert_eq!(path.to_string(), "spec.devices.requests[2].adminAccess");
        let template = json!({"spec": {"spec": claim["spec"]}});
        assert!(requested(&template, "/spec/spec").is_some());
        assert!(requested(&template, "/spec").is_none());
        assert!(granted(&claim).is_none());
        let results = json!([{"adminAccess": true}]);
        let claim = json!({"status": {"allocation": {"devices": {"results": results}}}});
        assert_eq!(
            granted(&claim).unwrap().to_string(),
            "status.allocation.devices.results[0].adminAccess"
        );
    }
}
