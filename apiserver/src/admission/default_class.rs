//! DefaultStorageClass and DefaultIngressClass: what names no class gets the one that is
//! annotated as default; of several the newest.

use std::cmp::Reverse;
use std::sync::Arc;

use super::chain::Deps;
use super::*;
use crate::lookup::Lookup;

const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_CLASS: &str = "kubernetes.io/ingress.class";

pub struct DefaultStorageClass {
    lookup: Arc<dyn Lookup>,
}

pub struct DefaultIngressClass {
    lookup: Arc<dyn Lookup>,
}

/// The default class's name. `annotations`: any of them says so.
fn default_class(classes: &[Arc<Value>], annotations: &[&str]) -> Option<String> {
    classes
        .iter()
        .filter(|class| {
            let of_class = &class["metadata"]["annotations"];
            annotations.iter().any(|a| of_class[*a] == "true")
        })
        .map(|class| {
            let created = text(class, "/metadata/creationTimestamp");
            (Reverse(created), text(class, "/metadata/name"))
        })
        .min()
        .map(|(_, name)| name.to_owned())
}

impl DefaultStorageClass {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
        }
    }
}

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(claim) = object
            && attributes.is("", "persistentvolumeclaims")
            // An empty class is a choice too: no dynamic provisioning.
            && claim["spec"]["storageClassName"].is_null()
            && claim["metadata"]["annotations"][BETA_STORAGE_CLASS].is_null()
        {
            let classes = self.lookup.list("storage.k8s.io", "storageclasses", "");
            let annotations = [
                "storageclass.kubernetes.io/is-default-class",
                "storageclass.beta.kubernetes.io/is-default-class",
            ];
            if let Some(name) = default_class(&classes, &annotations) {
                claim["spec"]["storageClassName"] = name.into();
            }
        }
        ready(Ok(()))
    }
}

impl DefaultIngressClass {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
        }
    }
}

impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(ingress) = object
            && attributes.is("networking.k8s.io", "ingresses")
            && ingress["spec"]["ingressClassName"].is_null()
            && ingress["metadata"]["annotations"][INGRESS_CLASS].is_null()
        {
            let classes = self.lookup.list("networking.k8s.io", "ingressclasses", "");
            let annotations = ["ingressclass.kubernetes.io/is-default-class"];
            if let Some(name) = default_class(&classes, &annotations) {
                ingress["spec"]["ingressClassName"] = name.into();
            }
        }
        ready(Ok(()))
    }
}
