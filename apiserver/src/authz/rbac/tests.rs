//! The index and the escalation check over small clusters of roles and bindings.

use serde_json::json;

use super::escalation::{Write, check};
use super::*;
use crate::authn::ALL_AUTHENTICATED;

fn user(name: &str, groups: &[&str]) -> User {
    User {
        name: name.into(),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        ..User::default()
    }
}

fn ask<'a>(user: &'a User, verb: &'a str, namespace: &'a str, resource: &'a str) -> Attributes<'a> {
    Attributes {
        user,
        verb,
        namespace,
        group: "",
        resource,
        subresource: "",
        name: "",
        is_resource: true,
        path: "",
        field_selector: "",
    }
}

fn role(namespace: &str, name: &str, verbs: &[&str], resources: &[&str]) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "rules": [{"verbs": verbs, "apiGroups": [""], "resources": resources}],
    })
}

fn binding(namespace: &str, name: &str, role: (&str, &str), subject: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": GROUP, "kind": role.0, "name": role.1},
        "subjects": [subject],
    })
}

fn rbac() -> Rbac {
    let rbac = Rbac::default();
    rbac.put(
        GROUP,
        "clusterroles",
        &role("", "reader", &["get", "list"], &["pods"]),
    );
    rbac.put(
        GROUP,
        "roles",
        &role("ns", "writer", &["create"], &["pods"]),
    );
    let group = json!({"kind": "Group", "name": ALL_AUTHENTICATED});
    let account = json!({"kind": "ServiceAccount", "name": "web"});
    let reads = binding("", "all-read", ("ClusterRole", "reader"), group);
    let writes = binding("ns", "web-writes", ("Role", "writer"), account);
    rbac.put(GROUP, "clusterrolebindings", &reads);
    rbac.put(GROUP, "rolebindings", &writes);
    rbac
}

#[test]
fn groups_users_and_accounts_are_bound() {
    let rbac = rbac();
    let web = user("system:serviceaccount:ns:web", &[ALL_AUTHENTICATED]);
    assert_eq!(
        rbac.authorize(&ask(&web, "get", "other", "pods")),
        Decision::Allow(
            r#"RBAC: allowed by ClusterRoleBinding "all-read" of ClusterRole "reader" to Group "system:authenticated""#
                .into()
        )
    );
    assert_eq!(
        rbac.authorize(&ask(&web, "create", "ns", "pods")),
        Decision::Allow(
            r#"RBAC: allowed by RoleBinding "web-writes/ns" of Role "writer" to ServiceAccount "web/ns""#
                .into()
        )
    );
    let none = Decision::NoOpinion(String::new());
    assert_eq!(rbac.authorize(&ask(&web, "create", "other", "pods")), none);
    assert_eq!(rbac.authorize(&ask(&web, "create", "", "pods")), none);
    assert_eq!(
        rbac.authorize(&ask(&user("x", &[]), "get", "ns", "pods")),
        none
    );
}

#[test]
fn changes_take_effect() {
    let rbac = rbac();
    let web = user("system:serviceaccount:ns:web", &[]);
    let create = ask(&web, "create", "ns", "pods");
    rbac.put(
        GROUP,
        "roles",
        &role("ns", "writer", &["delete"], &["pods"]),
    );
    assert!(!matches!(rbac.authorize(&create), Decision::Allow(_)));
    assert!(matches!(
        rbac.authorize(&ask(&web, "delete", "ns", "pods")),
        Decision::Allow(_)
    ));
    let bob = binding(
        "ns",
        "web-writes",
        ("Role", "writer"),
        json!({"kind": "User", "name": "bob"}),
    );
    rbac.put(GROUP, "rolebindings", &bob);
    assert!(!matches!(
        rbac.authorize(&ask(&web, "delete", "ns", "pods")),
        Decision::Allow(_)
    ));
    rbac.delete(GROUP, "rolebindings", "ns", "web-writes");
    let bob = user("bob", &[]);
    assert!(!matches!(
        rbac.authorize(&ask(&bob, "delete", "ns", "pods")),
        Decision::Allow(_)
    ));
    assert!(rbac.index.read().namespaces.is_empty());
}

#[test]
fn a_missing_role_is_told() {
    let rbac = rbac();
    rbac.delete(GROUP, "clusterroles", "", "reader");
    let ann = user("ann", &[ALL_AUTHENTICATED]);
    assert_eq!(
        rbac.authorize(&ask(&ann, "get", "ns", "pods")),
        Decision::NoOpinion(
            r#"RBAC: clusterrole.rbac.authorization.k8s.io "reader" not found"#.into()
        )
    );
}

fn write<'a>(user: &'a User, resource: &'a str, object: &'a Value) -> Write<'a> {
    Write {
        user,
        resource,
        namespace: "ns",
        name: "",
        object,
        old: None,
    }
}

#[test]
fn nobody_grants_what_they_lack() {
    let rbac = rbac();
    let web = user("system:serviceaccount:ns:web", &[ALL_AUTHENTICATED]);
    let held = role("ns", "new", &["get", "create"], &["pods"]);
    assert!(check(&rbac, &rbac, &write(&web, "roles", &held)).is_ok());
    let more = role("ns", "new", &["get", "delete", "patch"], &["pods"]);
    let refused = check(&rbac, &rbac, &write(&web, "roles", &more)).unwrap_err();
    assert_eq!(refused.code, 403);
    assert!(refused.message.ends_with(
        "user \"system:serviceaccount:ns:web\" (groups=[\"system:authenticated\"]) is attempting \
         to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"patch\"]}"
    ));
    let root = user("root", &[crate::authn::MASTERS]);
    assert!(check(&rbac, &rbac, &write(&root, "roles", &more)).is_ok());
}

#[test]
fn binding_needs_the_roles_rights_or_the_verb() {
    let rbac = rbac();
    let ann = user("ann", &[]);
    let object = binding(
        "ns",
        "b",
        ("ClusterRole", "reader"),
        json!({"kind": "User", "name": "x"}),
    );
    assert!(check(&rbac, &rbac, &write(&ann, "rolebindings", &object)).is_err());
    rbac.put(
        GROUP,
        "clusterroles",
        &json!({
            "metadata": {"name": "binder"},
            "rules": [{
                "verbs": ["bind"],
                "apiGroups": [GROUP],
                "resources": ["clusterroles"],
                "resourceNames": ["reader"],
            }],
        }),
    );
    let subject = json!({"kind": "User", "name": "ann"});
    let grant = binding("", "ann-binds", ("ClusterRole", "binder"), subject);
    rbac.put(GROUP, "clusterrolebindings", &grant);
    assert!(check(&rbac, &rbac, &write(&ann, "rolebindings", &object)).is_ok());
    let gone = binding(
        "ns",
        "b",
        ("Role", "none"),
        json!({"kind": "User", "name": "x"}),
    );
    let missing = check(&rbac, &rbac, &write(&ann, "rolebindings", &gone)).unwrap_err();
    assert_eq!(missing.code, 404);
}

#[test]
fn owners_may_be_changed_by_anyone_who_may_write() {
    let rbac = rbac();
    let collector = user("gc", &[]);
    let old = role("ns", "big", &["*"], &["*"]);
    let mut new = old.clone();
    new["metadata"]["ownerReferences"] = json!([{"uid": "1"}]);
    let mut request = write(&collector, "roles", &new);
    request.old = Some(&old);
    assert!(check(&rbac, &rbac, &request).is_ok());
}
