//! What expressions of admission policies may speak of besides objects: the request, its
//! namespace, the variables of the policy.

use std::cell::RefCell;
use std::collections::HashMap;

use cel::{Field, ObjectTypes, Type};

use super::schema::Objects;

pub const REQUEST: &str = "kubernetes.AdmissionRequest";
pub const NAMESPACE: &str = "kubernetes.Namespace";
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
pub const VARIABLES: &str = "kubernetes.variables";

/// The object types that one policy's expressions can come to.
#[derive(Default)]
pub struct Types<'a> {
    pub objects: Objects<'a>,
    /// Of the policy's `spec.variables`, those that have been checked.
    pub variables: RefCell<HashMap<String, Type>>,
}

impl ObjectTypes for Types<'_> {
    fn field(&self, object: &str, field: &str) -> Field {
        let found = match object {
            VARIABLES => self.variables.borrow().get(field).cloned(),
            REQUEST => request(field),
            NAMESPACE => namespace(field),
            "kubernetes.GroupVersionKind" => strings(field, &["group", "version", "kind"]),
            "kubernetes.GroupVersionResource" => strings(field, &["group", "version", "resource"]),
            "kubernetes.UserInfo" => user(field),
            "kubernetes.NamespaceMetadata" => namespace_metadata(field),
            "kubernetes.NamespaceSpec" => (field == "finalizers").then(|| Type::list(Type::String)),
            "kubernetes.NamespaceStatus" => match field {
                "conditions" => Some(Type::list(Type::object("kubernetes.NamespaceCondition"))),
                _ => strings(field, &["phase"]),
            },
            "kubernetes.NamespaceCondition" => match field {
                "lastTransitionTime" => Some(Type::Timestamp),
                _ => strings(field, &["status", "type", "message", "reason"]),
            },
            _ => return self.objects.field(object, field),
        };
        found.map_or(Field::Undefined, Field::Is)
    }
}

fn strings(field: &str, fields: &[&str]) -> Option<Type> {
    fields.contains(&field).then_some(Type::String)
}

/// An AdmissionRequest (`admission.k8s.io/v1`) without its objects, which are variables of
/// their own.
fn request(field: &str) -> Option<Type> {
    Some(match field {
        "kind" | "requestKind" => Type::object("kubernetes.GroupVersionKind"),
        "resource" | "requestResource" => Type::object("kubernetes.GroupVersionResource"),
        "userInfo" => Type::object("kubernetes.UserInfo"),
        "dryRun" => Type::Bool,
        "options" => Type::Dyn,
        "subResource" | "requestSubResource" | "name" | "namespace" | "operation" => Type::String,
        _ => return None,
    })
}

fn user(field: &str) -> Option<Type> {
    Some(match field {
        "username" | "uid" => Type::String,
        "groups" => Type::list(Type::String),
        "extra" => Type::map(Type::String, Type::list(Type::String)),
        _ => return None,
    })
}

/// Not all that a Namespace has: what admission makes known of it.
fn namespace(field: &str) -> Option<Type> {
    Some(match field {
        "metadata" => Type::object("kubernetes.NamespaceMetadata"),
        "spec" => Type::object("kubernetes.NamespaceSpec"),
        "status" => Type::object("kubernetes.NamespaceStatus"),
        _ => return None,
    })
}

fn namespace_metadata(field: &str) -> Option<Type> {
    Some(match field {
        "labels" | "annotations" => Type::map(Type::String, Type::String),
        "creationTimestamp" | "deletionTimestamp" => Type::Timestamp,
        "deletionGracePeriodSeconds" | "generation" => Type::Int,
        "finalizers" => Type::list(Type::String),
        // As upstream spells it.
        "name" | "generateName" | "namespace" | "UID" | "resourceVersion" => Type::String,
        _ => return None,
    })
}
