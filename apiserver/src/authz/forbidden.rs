//! The 403 that a refused request gets, in upstream's words.

use meta::{GroupResource, Status};

use super::Attributes;

/// `reason` is the authorizers' own, and may be empty.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> Status {
    let mut message = sanitize(&describe(attributes));
    if !reason.is_empty() {
        message.push_str(": ");
        message.push_str(reason);
    }
    let resource = GroupResource::new(attributes.group, attributes.resource);
    Status::forbidden(&resource, attributes.name, message)
}

fn describe(a: &Attributes<'_>) -> String {
    let user = &a.user.name;
    if !a.is_resource {
        return format!("User {user:?} cannot {} path {:?}", a.verb, a.path);
    }
    let resource = if a.subresource.is_empty() {
        a.resource.to_owned()
    } else {
        format!("{}/{}", a.resource, a.subresource)
    };
    let place = if a.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", a.namespace)
    };
    format!(
        "User {user:?} cannot {} resource {resource:?} in API group {:?} {place}",
        a.verb, a.group
    )
}

/// Browsers may show it: paths and user names are anybody's.
fn sanitize(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::User;

    #[test]
    fn words_are_upstreams() {
        let user = User {
            name: "ann".into(),
            ..User::default()
        };
        let mut a = Attributes {
            user: &user,
            verb: "get",
            namespace: "ns",
            group: "apps",
            version: "v1",
            resource: "deployments",
            subresource: "scale",
            name: "web",
            is_resource: true,
            path: "",
            field_selector: "",
        };
        assert_eq!(
            forbidden(&a, "").message,
            r#"deployments.apps "web" is forbidden: User "ann" cannot get resource "deployments/scale" in API group "apps" in the namespace "ns""#
        );
        a.namespace = "";
        a.subresource = "";
        assert_eq!(
            forbidden(&a, "why").message,
            r#"deployments.apps "web" is forbidden: User "ann" cannot get resource "deployments" in API group "apps" at the cluster scope: why"#
        );
        let path = Attributes {
            is_resource: false,
            path: "/<x>",
            group: "",
            resource: "",
            name: "",
            ..a
        };
        assert_eq!(
            forbidden(&path, "").message,
            r#"forbidden: User "ann" cannot get path "/&lt;x&gt;""#
        );
    }
}
