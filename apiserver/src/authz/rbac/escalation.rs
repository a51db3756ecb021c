//! Nobody grants what they do not have: the checks on writes of roles and bindings.
//!
//! The registry calls [`check`] before it stores one of the four RBAC kinds.
//! What must not be here: storage.

use component::aside::aside;
use meta::{GroupResource, Status};
use serde::Deserialize;
use serde_json::Value;

use super::rules::{PolicyRule, describe, go_list, uncovered};
use super::{GROUP, Rbac, RoleRef, list};
use crate::authn::{MASTERS, User};
use crate::authz::{Attributes, Authorizer};

/// A write of a role or a binding.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    pub user: &'a User,
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`; nothing else is
    /// checked.
    pub resource: &'a str,
    /// Empty for the cluster-scoped kinds.
    pub namespace: &'a str,
    /// As in the path; empty on a create.
    pub name: &'a str,
    pub object: &'a Value,
    /// The object before an update.
    pub old: Option<&'a Value>,
}

/// Refuses with 403 what the user may not grant. `authorizer` is asked for the verbs
/// `escalate` and `bind`.
pub fn check(rbac: &Rbac, authorizer: &dyn Authorizer, write: &Write<'_>) -> Result<(), Status> {
    if write.user.in_group(MASTERS) {
        return Ok(());
    }
    if write
        .old
        .is_some_and(|old| only_ownership(write.object, old))
    {
        return Ok(());
    }
    let refused = |why: String| {
        let name = write.object["metadata"]["name"].as_str();
        Status::forbidden(
            &GroupResource::new(GROUP, write.resource),
            name.unwrap_or_default(),
            why,
        )
    };
    match write.resource {
        "roles" | "clusterroles" => {
            if allowed(authorizer, write, "escalate", write.resource, write.name) {
                return Ok(());
            }
            let wanted: Vec<PolicyRule> = list(write.object, "rules");
            no_escalation(rbac, write, &wanted).map_err(refused)?;
            let aggregates = [Some(write.object), write.old]
                .into_iter()
                .flatten()
                .any(has_aggregation_rule);
            if write.resource == "clusterroles"
                && aggregates
                && no_escalation(rbac, write, &full_authority()).is_err()
            {
                return Err(refused(
                    "must have cluster-admin privileges to use the aggregationRule".into(),
                ));
            }
            Ok(())
        }
        "rolebindings" | "clusterrolebindings" => {
            let role = RoleRef::deserialize(&write.object["roleRef"]).unwrap_or_default();
            let resource = match role.kind.as_str() {
                "ClusterRole" => "clusterroles",
                "Role" => "roles",
                // Validation refuses it.
                _ => return Ok(()),
            };
            if allowed(authorizer, write, "bind", resource, &role.name) {
                return Ok(());
            }
            let wanted = rbac.role_rules(&role, write.namespace).map_err(|_| {
                // Upstream's informers name the kind here, not the resource.
                let kind = role.kind.to_ascii_lowercase();
                Status::not_found(&GroupResource::new(GROUP, kind), &role.name)
            })?;
            no_escalation(rbac, write, &wanted).map_err(refused)
        }
        _ => Ok(()),
    }
}

fn allowed(
    authorizer: &dyn Authorizer,
    write: &Write<'_>,
    verb: &str,
    resource: &str,
    name: &str,
) -> bool {
    authorizer.allows(&Attributes {
        namespace: write.namespace,
        name,
        ..Attributes::of_resource(write.user, verb, GROUP, resource)
    })
}

fn no_escalation(rbac: &Rbac, write: &Write<'_>, wanted: &[PolicyRule]) -> Result<(), String> {
    let (held, errors) = rbac.policy_rules(write.user, write.namespace);
    const MANY: usize = 10_000;
    let each = wanted.iter().map(PolicyRule::breadth);
    let all = each.fold(0, usize::saturating_add);
    let is_long = all.saturating_mul(held.len()) > MANY;
    let missing = aside(is_long, || uncovered(&held, wanted));
    if missing.is_empty() {
        return Ok(());
    }
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        write.user.name,
        go_list(&write.user.groups),
        describe(&missing)
    );
    if !errors.is_empty() {
        why.push_str(&format!("; resolution errors: [{}]", errors.join(", ")));
    }
    Err(why)
}

fn full_authority() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..PolicyRule::default()
        },
        PolicyRule {
            verbs: all(),
            non_resource_urls: all(),
            ..PolicyRule::default()
        },
    ]
}

fn has_aggregation_rule(role: &Value) -> bool {
    role["aggregationRule"]["clusterRoleSelectors"]
        .as_array()
        .is_some_and(|s| !s.is_empty())
}

/// The garbage collector may change owners and finalizers of what it may not grant.
fn only_ownership(object: &Value, old: &Value) -> bool {
    let strip = |value: &Value| {
        let mut value = value.clone();
        if let Some(metadata) = value["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields"] {
                metadata.remove(field);
            }
        }
        value
    };
    strip(object) == strip(old)
}
