//! Devices with the administrator's rights, which let a pod look into those that others use: only
//! where a label of the namespace allows it (KEP-5018).
//!
//! What must not be here: what claims look like.

use meta::{ErrorList, FieldError, Path};
use serde_json::Value;

use super::items;
use crate::lookup::Lookup;
use crate::registry::object_meta::meta;

const LABEL: &str = "resource.kubernetes.io/admin-access";

/// The first request of such a device.
pub fn requested(object: &Value, spec: &str) -> Option<Path> {
    let requests = items(object, &format!("{spec}/devices/requests"));
    let i = requests
        .iter()
        .position(|request| request["exactly"]["adminAccess"] == true)?;
    // Upstream has the same path for templates.
    let list = Path::new("spec").child("devices").child("requests");
    Some(list.index(i).child("adminAccess"))
}

/// The first such device that is given.
pub fn granted(claim: &Value) -> Option<Path> {
    let results = items(claim, "/status/allocation/devices/results");
    let i = results
        .iter()
        .position(|result| result["adminAccess"] == true)?;
    let allocation = Path::new("status").child("allocation");
    let list = allocation.child("devices").child("results");
    Some(list.index(i).child("adminAccess"))
}

/// Complains of the field that wants it where the namespace does not allow it.
pub async fn refusals(lookup: &dyn Lookup, object: &Value, wants: Option<Path>) -> ErrorList {
    let Some(path) = wants else {
        return ErrorList::new();
    };
    let refusal = refusal(lookup, meta(object).namespace(), &path).await;
    ErrorList::from(Vec::from_iter(refusal))
}

async fn refusal(lookup: &dyn Lookup, namespace: &str, path: &Path) -> Option<FieldError> {
    let found = lookup.get_fresh("", "namespaces", "", namespace).await;
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
