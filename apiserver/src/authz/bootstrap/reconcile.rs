//! Brings the default roles and bindings about: what is missing is made, what an upgrade
//! adds is added, what an administrator has added stays, and what is annotated
//! `autoupdate: "false"` is left alone.
//!
//! [`plan`] decides about one object; [`run`] does it.
//! What must not be here: the roles themselves.

use component::features::FeatureGates;
use futures::future::BoxFuture;
use meta::Status;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{AUTOUPDATE, objects};
use crate::authz::rbac::GROUP;
use crate::authz::rbac::rules::{PolicyRule, uncovered};

/// Writes RBAC objects as the server itself; the composition implements it over the
/// registry.
pub trait Objects: Send + Sync {
    fn get<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Value>, Status>>;

    fn create<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<(), Status>>;

    /// The object carries the resourceVersion that it replaces.
    fn update<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        object: Value,
    ) -> BoxFuture<'a, Result<(), Status>>;

    fn delete<'a>(
        &'a self,
        group: &'a str,
        resource: &'a str,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<(), Status>>;
}

/// What is to be done about one object.
#[derive(Debug, PartialEq)]
pub enum Action {
    Nothing,
    Create(Value),
    Update(Value),
    /// A binding's role cannot be changed in place.
    Recreate(Value),
    /// Something is missing, but the annotation says to leave it.
    Protected,
}

/// Compares what is there with what should be.
pub fn plan(existing: Option<&Value>, expected: &Value) -> Action {
    let Some(existing) = existing else {
        return Action::Create(expected.clone());
    };
    let protected = existing["metadata"]["annotations"][AUTOUPDATE] == "false";
    let protect = |action| if protected { Action::Protected } else { action };

    if expected
        .get("roleRef")
        .is_some_and(|r| *r != existing["roleRef"])
    {
        let mut new = expected.clone();
        merge_metadata(&mut new, existing);
        return protect(Action::Recreate(new));
    }
    let mut new = existing.clone();
    let mut changed = merge_metadata(&mut new, expected);
    if expected.get("roleRef").is_some() {
        changed |= add_missing(&mut new["subjects"], &expected["subjects"]);
    } else {
        changed |= add_rules(&mut new, expected);
        if expected["aggregationRule"].is_object() {
            if !new["aggregationRule"].is_object() {
                new["aggregationRule"] = json!({"clusterRoleSelectors": []});
            }
            changed |= add_missing(
                &mut new["aggregationRule"]["clusterRoleSelectors"],
                &expected["aggregationRule"]["clusterRoleSelectors"],
            );
        }
    }
    if changed {
        protect(Action::Update(new))
    } else {
        Action::Nothing
    }
}

/// Adds labels and annotations that are missing; those that are there stay as they are.
fn merge_metadata(object: &mut Value, from: &Value) -> bool {
    let mut changed = false;
    for field in ["labels", "annotations"] {
        let Some(wanted) = from["metadata"][field].as_object() else {
            continue;
        };
        if !object["metadata"][field].is_object() {
            object["metadata"][field] = json!({});
        }
        if let Some(there) = object["metadata"][field].as_object_mut() {
            for (key, value) in wanted {
                if !there.contains_key(key) {
                    there.insert(key.clone(), value.clone());
                    changed = true;
                }
            }
        }
    }
    changed
}

fn add_missing(list: &mut Value, wanted: &Value) -> bool {
    let mut changed = false;
    for item in wanted.as_array().into_iter().flatten() {
        if !list.is_array() {
            *list = json!([]);
        }
        if let Some(list) = list.as_array_mut()
            && !list.contains(item)
        {
            list.push(item.clone());
            changed = true;
        }
    }
    changed
}

fn rules(role: &Value) -> Vec<PolicyRule> {
    Vec::deserialize(&role["rules"]).unwrap_or_default()
}

fn add_rules(role: &mut Value, expected: &Value) -> bool {
    let mut all = rules(role);
    let missing = uncovered(&all, &rules(expected));
    if missing.is_empty() {
        return false;
    }
    all.extend(missing);
    role["rules"] = json!(all);
    true
}

/// Reconciles everything once. The errors are those of single objects: the rest has been
/// done; try again.
pub async fn run(cluster: &dyn Objects, gates: &FeatureGates) -> Result<(), Vec<Status>> {
    let wanted = objects(gates);
    let mut errors = Vec::new();
    for namespace in ["kube-system", "kube-public"] {
        if let Err(error) = ensure_namespace(cluster, namespace).await {
            errors.push(error);
        }
    }
    for (resource, objects) in [
        ("clusterroles", &wanted.cluster_roles),
        ("clusterrolebindings", &wanted.cluster_role_bindings),
        ("roles", &wanted.roles),
        ("rolebindings", &wanted.role_bindings),
    ] {
        for object in objects {
            if let Err(error) = reconcile(cluster, resource, object).await {
                errors.push(error);
            }
        }
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

async fn ensure_namespace(cluster: &dyn Objects, name: &str) -> Result<(), Status> {
    if cluster.get("", "namespaces", "", name).await?.is_some() {
        return Ok(());
    }
    let namespace = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name},
    });
    exists_is_fine(cluster.create("", "namespaces", "", namespace).await)
}

fn exists_is_fine(result: Result<(), Status>) -> Result<(), Status> {
    match result {
        Err(status) if status.reason == meta::Reason::AlreadyExists => Ok(()),
        other => other,
    }
}

async fn reconcile(cluster: &dyn Objects, resource: &str, wanted: &Value) -> Result<(), Status> {
    let (namespace, name) = (text(wanted, "namespace"), text(wanted, "name"));
    let existing = cluster.get(GROUP, resource, namespace, name).await?;
    match plan(existing.as_ref(), wanted) {
        Action::Nothing => Ok(()),
        Action::Protected => {
            tracing::warn!(
                resource,
                name,
                "skipped: reconciliation is switched off for it"
            );
            Ok(())
        }
        Action::Create(object) => {
            tracing::debug!(resource, name, "creating default RBAC object");
            // Another server of the cluster may be as fast.
            exists_is_fine(cluster.create(GROUP, resource, namespace, object).await)
        }
        Action::Update(object) => {
            tracing::info!(resource, name, "adding to default RBAC object");
            cluster.update(GROUP, resource, namespace, object).await
        }
        Action::Recreate(object) => {
            tracing::info!(resource, name, "recreating default RBAC binding");
            cluster.delete(GROUP, resource, namespace, name).await?;
            cluster.create(GROUP, resource, namespace, object).await
        }
    }
}
