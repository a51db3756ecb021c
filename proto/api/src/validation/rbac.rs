//! Roles and bindings.

use meta::field::ErrorList;
use meta::validation as format;

use super::at::At;
use super::{Rules, any_update, pod};

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: GROUP,
        kind: "Role",
        name: format::path_segment_name,
        object: |at, errors| policy_rules(at, true, errors),
        update: any_update,
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "ClusterRole",
        name: format::path_segment_name,
        object: |at, errors| policy_rules(at, false, errors),
        update: any_update,
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "RoleBinding",
        name: format::path_segment_name,
        object: |at, errors| binding(at, &["Role", "ClusterRole"], errors),
        update: same_role,
        status: any_update,
    },
    Rules {
        group: GROUP,
        kind: "ClusterRoleBinding",
        name: format::path_segment_name,
        object: |at, errors| binding(at, &["ClusterRole"], errors),
        update: same_role,
        status: any_update,
    },
];

fn policy_rules(role: &At<'_>, namespaced: bool, errors: &mut ErrorList) {
    let aggregation = role.get("aggregationRule");
    if aggregation.is_set() {
        let selectors = aggregation.get("clusterRoleSelectors");
        if selectors.len() == 0 {
            selectors.required(
                errors,
                "at least one clusterRoleSelector required if aggregationRule is non-nil",
            );
        }
        for selector in selectors.items() {
            let before = errors.len();
            pod::label_selector(&selector, errors);
            if errors.len() > before {
                selector.invalid(errors, "invalid label selector.");
            }
        }
    }
    for rule in role.get("rules").items() {
        let verbs = rule.get("verbs");
        if verbs.len() == 0 {
            verbs.required(errors, "verbs must contain at least one value");
        }
        let urls = rule.get("nonResourceURLs");
        if urls.len() > 0 {
            if namespaced {
                urls.invalid(errors, "namespaced rules cannot apply to non-resource URLs");
            }
            let resources = ["apiGroups", "resources", "resourceNames"];
            if resources.iter().any(|f| rule.get(f).len() > 0) {
                urls.invalid(
                    errors,
                    "rules cannot apply to both regular resources and non-resource URLs",
                );
            }
            continue;
        }
        for (field, detail) in [
            (
                "apiGroups",
                "resource rules must supply at least one api group",
            ),
            (
                "resources",
                "resource rules must supply at least one resource",
            ),
        ] {
            if rule.get(field).len() == 0 {
                rule.get(field).required(errors, detail);
            }
        }
    }
}

fn binding(binding: &At<'_>, kinds: &[&str], errors: &mut ErrorList) {
    let namespaced = kinds.contains(&"Role");
    let role = binding.get("roleRef");
    role.get("apiGroup").one_of(errors, &[GROUP]);
    role.get("kind").one_of(errors, kinds);
    if role.get("name").is_given() {
        role.get("name")
            .check(errors, format::path_segment_name(role.get("name").text()));
    } else {
        role.get("name").required(errors, "");
    }
    for subject in binding.get("subjects").items() {
        if !subject.get("name").is_given() {
            subject.get("name").required(errors, "");
        }
        let (kind, group) = (subject.get("kind"), subject.get("apiGroup"));
        match kind.text() {
            "ServiceAccount" => {
                let name = subject.get("name");
                if name.is_given() {
                    name.check(errors, format::dns1123_subdomain(name.text()));
                }
                if group.is_given() {
                    group.one_of(errors, &[""]);
                }
                // That of the binding is meant.
                if !namespaced && !subject.get("namespace").is_given() {
                    subject.get("namespace").required(errors, "");
                }
            }
            "User" | "Group" => group.one_of(errors, &[GROUP]),
            _ => kind.one_of(errors, &["ServiceAccount", "User", "Group"]),
        }
    }
}

fn same_role(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (new, old) = (new.get("roleRef"), old.get("roleRef"));
    if new.value() != old.value() {
        new.invalid(errors, "cannot change roleRef");
    }
}
