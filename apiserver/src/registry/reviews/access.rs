//! `SubjectAccessReview`, `LocalSubjectAccessReview` and `SelfSubjectAccessReview`: may
//! somebody do something?

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use meta::field::BadValue;
use meta::{ErrorList, FieldError, GroupKind, Path, Status};
use serde_json::{Value, json};

use super::super::object_meta::meta;
use super::super::rest::{Reply, Rest, Target};
use super::selectors::{self, Understood};
use crate::authn::User;
use crate::authz::{Attributes, Authorizer, Decision};

/// About whom a review asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Cluster,
    /// In the namespace of the request only.
    Local,
    /// The one who asks.
    Own,
}

pub struct AccessReviews {
    pub authorizer: Arc<dyn Authorizer>,
    pub scope: Scope,
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn subject(spec: &Value) -> User {
    let extra: BTreeMap<String, Vec<String>> = spec["extra"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k.to_lowercase(), texts(v)))
        .collect();
    User {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: texts(&spec["groups"]),
        extra,
    }
}

/// `nonResourceAttributes` as upstream prints its own form of them.
fn as_go(attributes: Option<&Value>) -> BadValue {
    let attributes = attributes.unwrap_or(&Value::Null);
    BadValue::json(&json!({"Path": text(attributes, "path"), "Verb": text(attributes, "verb")}))
}

/// `namespace` is that of a local review.
fn validate(scope: Scope, spec: &Value, namespace: &str) -> ErrorList {
    let mut errs = ErrorList::default();
    let path = Path::new("spec");
    selectors::validate(
        &spec["resourceAttributes"],
        &path.child("resourceAttributes"),
        &mut errs,
    );
    let (resource, other) = (
        spec.get("resourceAttributes"),
        spec.get("nonResourceAttributes"),
    );
    if resource.is_some() && other.is_some() {
        errs.push(FieldError::invalid(
            &path.child("nonResourceAttributes"),
            as_go(other),
            "cannot be specified in combination with resourceAttributes",
        ));
    }
    if resource.is_none() && other.is_none() {
        errs.push(FieldError::invalid(
            &path.child("resourceAttributes"),
            BadValue::json(&Value::Null),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    if scope != Scope::Own && text(spec, "user").is_empty() && texts(&spec["groups"]).is_empty() {
        errs.push(FieldError::invalid(
            &path.child("user"),
            text(spec, "user"),
            "at least one of user or group must be specified",
        ));
    }
    if scope == Scope::Local {
        let asked = resource.map_or("", |r| text(r, "namespace"));
        if other.is_some() {
            errs.push(FieldError::invalid(
                &path.child("nonResourceAttributes"),
                as_go(other),
                "disallowed on this kind of request",
            ));
        }
        if resource.is_some() && asked != namespace {
            errs.push(FieldError::invalid(
                &path.child("resourceAttributes").child("namespace"),
                asked,
                "must match metadata.namespace",
            ));
        }
    }
    errs
}

/// A review is no object: there is nothing to call by a name.
fn named(scope: Scope, review: &Value) -> Option<FieldError> {
    let mut metadata = review["metadata"].as_object().cloned().unwrap_or_default();
    metadata.retain(|key, value| match key.as_str() {
        "managedFields" | "creationTimestamp" => false,
        "namespace" => scope != Scope::Local,
        _ => !value.is_null() && value != "",
    });
    (!metadata.is_empty()).then(|| {
        let value = BadValue::json(&metadata);
        FieldError::invalid(&Path::new("metadata"), value, "must be empty")
    })
}

impl AccessReviews {
    fn decide(&self, spec: &Value, selectors: &Understood, asking: &User) -> Decision {
        let user = match self.scope {
            Scope::Own => asking.clone(),
            Scope::Cluster | Scope::Local => subject(spec),
        };
        let (resource, other) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let is_resource = resource.is_object();
        let attributes = Attributes {
            user: &user,
            verb: text(if is_resource { resource } else { other }, "verb"),
            namespace: text(resource, "namespace"),
            group: text(resource, "group"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            name: text(resource, "name"),
            is_resource,
            path: text(other, "path"),
            field_selector: &selectors.fields.to_string(),
        };
        self.authorizer.authorize(&attributes)
    }
}

impl Rest for AccessReviews {
    fn create<'a>(
        &'a self,
        target: Target<'a>,
        mut review: Value,
    ) -> BoxFuture<'a, Result<Reply, Status>> {
        Box::pin(async move {
            let spec = review["spec"].clone();
            if self.scope == Scope::Local {
                target.check_namespace(&review)?;
            }
            let namespace = match meta(&review).namespace() {
                "" => target.namespace,
                own => own,
            };
            let mut errs = validate(self.scope, &spec, namespace);
            if let Some(metadata) = named(self.scope, &review) {
                errs.push(metadata);
            }
            if !errs.is_empty() {
                let kind = GroupKind::new("authorization.k8s.io", "");
                return Err(Status::invalid(&kind, "", &errs));
            }
            if self.scope == Scope::Local {
                review["metadata"]["namespace"] = target.namespace.into();
            }
            let mut status = json!({"allowed": false});
            let selectors = Understood::of(&spec["resourceAttributes"]);
            let reason = match self.decide(&spec, &selectors, target.user) {
                Decision::Allow(reason) => {
                    status["allowed"] = json!(true);
                    reason
                }
                Decision::NoOpinion(reason) => reason,
            };
            if !reason.is_empty() {
                status["reason"] = json!(reason);
            }
            if !selectors.ignored.is_empty() {
                status["evaluationError"] = json!(selectors.ignored.join("; "));
            }
            review["status"] = status;
            Ok(Reply::Object(review))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_about_one_thing_and_somebody() {
        let both = json!({"user": "a", "resourceAttributes": {}, "nonResourceAttributes": {}});
        assert_eq!(validate(Scope::Cluster, &both, "").len(), 1);
        let elsewhere = json!({"user": "u", "resourceAttributes": {"namespace": "other"}});
        assert_eq!(
            validate(Scope::Local, &elsewhere, "here").to_string(),
            "spec.resourceAttributes.namespace: Invalid value: \"other\": must match metadata.namespace"
        );
        assert_eq!(validate(Scope::Cluster, &json!({}), "").len(), 2);
        assert!(validate(Scope::Own, &json!({"resourceAttributes": {}}), "").is_empty());
        assert_eq!(
            subject(&json!({"user": "a", "extra": {"Key": ["v"]}})).extra["key"],
            ["v"]
        );
    }
}
