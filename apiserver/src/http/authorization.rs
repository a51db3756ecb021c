//! Asking the authorizer about a request, and saying no in upstream's words.

use meta::{GroupResource, Status};

use super::request_info::RequestInfo;
use crate::authn::User;
use crate::authz::{Attributes, Authorizer, Decision};

/// What is asked for a request.
pub fn attributes<'a>(
    info: &'a RequestInfo,
    user: &'a User,
    field_selector: &'a str,
) -> Attributes<'a> {
    let selects = matches!(info.verb.as_str(), "list" | "watch" | "deletecollection");
    Attributes {
        user,
        verb: &info.verb,
        namespace: &info.namespace,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        name: &info.name,
        is_resource: info.is_resource,
        path: &info.path,
        field_selector: if selects && !info.verb_in_path {
            field_selector
        } else {
            ""
        },
    }
}

pub fn authorize(authorizer: &dyn Authorizer, attributes: &Attributes<'_>) -> Result<(), Status> {
    match authorizer.authorize(attributes) {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) => Err(forbidden(attributes, &reason)),
    }
}

/// 403 (`responsewriters.ForbiddenStatusError`).
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let message = sanitized(&message(attributes));
    let message = if reason.is_empty() {
        message
    } else {
        format!("{message}: {reason}")
    };
    let resource = GroupResource::new(attributes.group, attributes.resource);
    Status::forbidden(&resource, attributes.name, message)
}

fn message(a: &Attributes<'_>) -> String {
    let user = &a.user.name;
    if !a.is_resource {
        return format!("User {user:?} cannot {} path {:?}", a.verb, a.path);
    }
    let resource = match a.subresource {
        "" => a.resource.to_owned(),
        sub => format!("{}/{sub}", a.resource),
    };
    let place = match a.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    format!(
        "User {user:?} cannot {} resource {resource:?} in API group {:?} {place}",
        a.verb, a.group
    )
}

/// Answers must not be mistaken for HTML.
fn sanitized(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::query::Query;
    use super::*;

    #[test]
    fn the_words_are_upstreams() {
        let user = User {
            name: "jane".into(),
            ..User::default()
        };
        let say = |method: &str, path: &str| {
            let info = RequestInfo::new(&method.parse().unwrap(), path, &Query::default());
            forbidden(&attributes(&info, &user, ""), "").message
        };
        assert_eq!(
            say("GET", "/api/v1/namespaces/a/pods"),
            r#"pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "a""#
        );
        assert_eq!(
            say("PUT", "/apis/apps/v1/namespaces/a/deployments/d/scale"),
            r#"deployments.apps "d" is forbidden: User "jane" cannot update resource "deployments/scale" in API group "apps" in the namespace "a""#
        );
        assert_eq!(
            say("GET", "/api/v1/nodes/n"),
            r#"nodes "n" is forbidden: User "jane" cannot get resource "nodes" in API group "" at the cluster scope"#
        );
        assert_eq!(
            say("GET", "/metrics"),
            r#"forbidden: User "jane" cannot get path "/metrics""#
        );
    }
}
