//! NamespaceLifecycle: nothing is made in a namespace that does not exist or is going, and
//! the system's namespaces stay.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::chain::Deps;
use super::*;
use crate::authn::Clock;
use crate::lookup::Lookup;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// How long after its deletion a namespace that still looks active is asked for at etcd.
const DISTRUST: SignedDuration = SignedDuration::from_secs(30);
const CAUSE: &str = "NamespaceTerminating";

pub struct NamespaceLifecycle {
    lookup: Arc<dyn Lookup>,
    clock: Clock,
    /// Namespaces whose deletion has passed here, with until when the cache is not
    /// believed about them.
    deleted: Mutex<HashMap<String, Timestamp>>,
}

impl NamespaceLifecycle {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
            clock: deps.clock.clone(),
            deleted: Mutex::default(),
        }
    }

    async fn admit(&self, a: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        if a.resource.group.is_empty() && a.resource.plural == "namespaces" {
            return self.admit_namespace(a);
        }
        // A review tells nothing about the namespace, not even that it is missing.
        let review = a.resource.group == "authorization.k8s.io"
            && a.resource.plural == "localsubjectaccessreviews";
        if a.namespace.is_empty() || a.operation == Operation::Delete || review {
            return Ok(());
        }
        let mut found = self.lookup.get("", "namespaces", "", a.namespace);
        let distrusted = found.as_ref().is_some_and(|n| {
            text(n, "/status/phase") != "Terminating" && self.recently_deleted(a.namespace)
        });
        if found.is_none() || distrusted {
            found = self
                .lookup
                .get_fresh("", "namespaces", "", a.namespace)
                .await?;
        }
        let Some(namespace) = found else {
            let resource = GroupResource::new("", "namespaces");
            return Err(Status::not_found(&resource, a.namespace));
        };
        if a.operation != Operation::Create || text(&namespace, "/status/phase") != "Terminating" {
            return Ok(());
        }
        let mut status = a.forbidden(
            object,
            format!(
                "unable to create new content in namespace {} because it is being terminated",
                a.namespace
            ),
        );
        status.details_mut().causes.push(meta::status::StatusCause {
            reason: CAUSE.to_owned(),
            message: format!("namespace {} is being terminated", a.namespace),
            field: "metadata.namespace".to_owned(),
        });
        Err(status)
    }

    fn admit_namespace(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if a.operation != Operation::Delete {
            return Ok(());
        }
        if IMMORTAL.contains(&a.name) {
            let resource = GroupResource::new("", "namespaces");
            let why = "this namespace may not be deleted";
            return Err(Status::forbidden(&resource, a.name, why));
        }
        let now = (self.clock)();
        let mut deleted = self.deleted.lock();
        deleted.retain(|_, until| now < *until);
        deleted.insert(a.name.to_owned(), now + DISTRUST);
        Ok(())
    }

    fn recently_deleted(&self, name: &str) -> bool {
        let deleted = self.deleted.lock();
        deleted
            .get(name)
            .is_some_and(|until| (self.clock)() < *until)
    }
}

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.admit(attributes, object.map(|o| &*o)))
    }
}
