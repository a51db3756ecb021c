//! Not a plugin that a flag names, but asked like one: nobody grants by a role or a binding
//! what they do not have (`authz/rbac/escalation.rs`). Part of the chain whenever RBAC is
//! an authorization mode.

use std::sync::Arc;

use super::*;
use crate::authz::Authz;
use crate::authz::rbac::{self, escalation};

pub struct RbacEscalation(pub Arc<Authz>);

impl Plugin for RbacEscalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, operation: Operation) -> bool {
        matches!(operation, Operation::Create | Operation::Update)
    }

    fn validate<'a>(
        &'a self,
        a: &'a Attributes<'a>,
        object: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        let (Some(object), Some(rbac), rbac::GROUP, "") =
            (object, self.0.rbac(), a.resource.group, a.subresource)
        else {
            return ready(Ok(()));
        };
        let write = escalation::Write {
            user: a.user,
            resource: a.resource.plural,
            namespace: a.namespace,
            // A create has no name in its path.
            name: match a.operation {
                Operation::Create => "",
                _ => a.name,
            },
            object,
            old: a.old,
        };
        ready(escalation::check(rbac, &*self.0, &write))
    }
}
