//! The plugins of one sentence: AlwaysAdmit, AlwaysDeny, AlwaysPullImages,
//! NamespaceExists, DenyServiceExternalIPs. All are off by default.

use std::sync::Arc;

use super::chain::Deps;
use super::*;
use crate::authz::node::items;
use crate::lookup::Lookup;

/// Does nothing; kept for old command lines.
pub struct AlwaysAdmit;

impl Plugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }

    fn handles(&self, _: Operation) -> bool {
        false
    }
}

/// Refuses everything; kept for tests.
pub struct AlwaysDeny;

impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn handles(&self, _: Operation) -> bool {
        true
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let why = "admission control is denying all modifications";
        ready(Err(attributes.forbidden(object.map(|o| &*o), why)))
    }
}

/// Every image is pulled each time, so that a private one needs its credentials.
pub struct AlwaysPullImages;

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn has_containers(a: &Attributes<'_>) -> bool {
    a.is("", "pods") || a.is_sub("", "pods", "ephemeralcontainers")
}

impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(pod) = object
            && has_containers(attributes)
        {
            for field in CONTAINERS {
                for container in items_mut(&mut pod["spec"], field) {
                    container["imagePullPolicy"] = "Always".into();
                }
            }
        }
        ready(Ok(()))
    }
}

/// Objects are only made in namespaces that exist.
pub struct NamespaceExists {
    lookup: Arc<dyn Lookup>,
}

impl NamespaceExists {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
        }
    }
}

impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        _object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if a.namespace.is_empty() || a.is("", "namespaces") {
            return ready(Ok(()));
        }
        Box::pin(async move {
            if self.lookup.get("", "namespaces", "", a.namespace).is_some() {
                return Ok(());
            }
            let found = self.lookup.get_fresh("", "namespaces", "", a.namespace);
            match found.await? {
                Some(_) => Ok(()),
                None => Err(Status::not_found(
                    &GroupResource::new("", "namespaces"),
                    a.namespace,
                )),
            }
        })
    }
}

/// No service gets new external IPs (CVE-2020-8554).
pub struct DenyServiceExternalIps;

impl Plugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let Some(service) = object.filter(|_| a.is("", "services")) else {
            return ready(Ok(()));
        };
        let old = a
            .old
            .map_or(&Value::Null, |old| &old["spec"]["externalIPs"]);
        let added =
            items(&service["spec"]["externalIPs"]).any(|ip| !items(old).any(|known| known == ip));
        if added {
            let why = "Use of external IPs is denied by admission control.";
            return ready(Err(a.forbidden(object, why)));
        }
        ready(Ok(()))
    }
}
