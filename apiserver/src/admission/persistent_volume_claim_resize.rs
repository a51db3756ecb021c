//! PersistentVolumeClaimResize: a claim grows only where its class can grow it.

use std::sync::Arc;

use meta::Quantity;

use super::chain::Deps;
use super::*;
use crate::lookup::Lookup;

pub struct PersistentVolumeClaimResize {
    lookup: Arc<dyn Lookup>,
}

impl PersistentVolumeClaimResize {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
        }
    }

    fn check(&self, a: &Attributes<'_>, new: &Value, old: &Value) -> Result<(), Status> {
        let size = |claim: &Value| {
            let size = text(claim, "/spec/resources/requests/storage");
            size.parse::<Quantity>().unwrap_or_default()
        };
        if size(new) <= size(old) {
            return Ok(());
        }
        if text(old, "/status/phase") != "Bound" {
            let why = "Only bound persistent volume claims can be expanded";
            return Err(a.forbidden(Some(new), why));
        }
        let class = class(new);
        let expands = !class.is_empty()
            && class == self::class(old)
            && self
                .lookup
                .get("storage.k8s.io", "storageclasses", "", class)
                .is_some_and(|c| c["allowVolumeExpansion"] == true);
        if !expands {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that \
                       provisions the pvc must support resize";
            return Err(a.forbidden(Some(new), why));
        }
        Ok(())
    }
}

fn class(claim: &Value) -> &str {
    let annotations = &claim["metadata"]["annotations"];
    annotations["volume.beta.kubernetes.io/storage-class"]
        .as_str()
        .unwrap_or_else(|| text(claim, "/spec/storageClassName"))
}

impl Plugin for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Update
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        ready(match (object, attributes.old) {
            (Some(new), Some(old)) if attributes.is("", "persistentvolumeclaims") => {
                self.check(attributes, new, old)
            }
            _ => Ok(()),
        })
    }
}
