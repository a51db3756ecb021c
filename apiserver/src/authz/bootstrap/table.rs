//! The form in which the default roles are written down, and how it becomes API objects.
//!
//! Lists are words parted by spaces, sorted as upstream sorts them; `core` stands for the
//! core API group.
//! What must not be here: any particular role.

use serde_json::{Value, json};

use crate::authz::rbac::GROUP;
use crate::authz::rbac::rules::PolicyRule;

pub const READ: &str = "get list watch";
pub const WATCH: &str = "list watch";
pub const WRITE: &str = "create delete deletecollection patch update";
pub const READ_WRITE: &str = "create delete deletecollection get list patch update watch";
pub const READ_UPDATE: &str = "get list patch update watch";
/// What everyone who records events needs.
pub const EVENTS: Rule = on("create patch update", "core events.k8s.io", "events");

const LABEL_PREFIX: &str = "rbac.authorization.k8s.io/";

#[derive(Debug, Clone, Copy)]
pub struct Rule {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
}

/// A role or cluster role.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    pub name: &'static str,
    rules: &'static [Rule],
    label: &'static str,
    aggregates: &'static str,
}

/// Verbs on resources.
pub const fn on(verbs: &'static str, groups: &'static str, resources: &'static str) -> Rule {
    named(verbs, groups, resources, "")
}

/// Verbs on resources of certain names.
pub const fn named(
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
) -> Rule {
    Rule {
        verbs,
        groups,
        resources,
        names,
        urls: "",
    }
}

/// Verbs on paths.
pub const fn urls(verbs: &'static str, urls: &'static str) -> Rule {
    Rule {
        verbs,
        groups: "",
        resources: "",
        names: "",
        urls,
    }
}

pub const fn role(name: &'static str, rules: &'static [Rule]) -> Role {
    Role {
        name,
        rules,
        label: "",
        aggregates: "",
    }
}

impl Role {
    /// Its rules go into the roles that aggregate this label.
    pub const fn labelled(mut self, label: &'static str) -> Self {
        self.label = label;
        self
    }

    /// Its rules are those of the cluster roles with this label.
    pub const fn aggregating(mut self, label: &'static str) -> Self {
        self.aggregates = label;
        self
    }

    pub fn policy_rules(&self) -> Vec<PolicyRule> {
        self.rules.iter().map(Rule::policy_rule).collect()
    }

    /// The API object; `prefix` comes before the name. An empty namespace makes a ClusterRole.
    pub fn to_object(self, prefix: &str, namespace: &str) -> Value {
        let kind = if namespace.is_empty() {
            "ClusterRole"
        } else {
            "Role"
        };
        let name = format!("{prefix}{}", self.name);
        let mut object = object(kind, &name, namespace);
        if !self.label.is_empty() {
            let label = format!("{LABEL_PREFIX}{}", self.label);
            object["metadata"]["labels"][label] = "true".into();
        }
        // An aggregated role starts without rules: they come from kube-controller-manager.
        object["rules"] = if self.aggregates.is_empty() {
            json!(self.policy_rules())
        } else {
            Value::Null
        };
        if !self.aggregates.is_empty() {
            let label = format!("{LABEL_PREFIX}{}", self.aggregates);
            object["aggregationRule"] =
                json!({"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]});
        }
        object
    }
}

impl Rule {
    pub fn policy_rule(&self) -> PolicyRule {
        PolicyRule {
            verbs: words(self.verbs),
            api_groups: words(self.groups)
                .into_iter()
                .map(|g| if g == "core" { String::new() } else { g })
                .collect(),
            resources: words(self.resources),
            resource_names: words(self.names),
            non_resource_urls: words(self.urls),
        }
    }
}

fn words(list: &str) -> Vec<String> {
    list.split_whitespace().map(str::to_owned).collect()
}

/// A binding to a role of the same scope. Subjects are `Group name`, `User name` or
/// `ServiceAccount namespace/name`.
pub fn binding(namespace: &str, name: &str, role: &str, subjects: &[&str]) -> Value {
    let (kind, role_kind) = if namespace.is_empty() {
        ("ClusterRoleBinding", "ClusterRole")
    } else {
        ("RoleBinding", "Role")
    };
    let mut object = object(kind, name, namespace);
    object["roleRef"] = json!({"apiGroup": GROUP, "kind": role_kind, "name": role});
    let subjects: Vec<Value> = subjects
        .iter()
        .filter_map(|subject| subject.split_once(' '))
        .map(|(kind, name)| match name.split_once('/') {
            Some((namespace, name)) => json!({"kind": kind, "name": name, "namespace": namespace}),
            None => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
        })
        .collect();
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
    object
}

fn object(kind: &str, name: &str, namespace: &str) -> Value {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "annotations": {super::AUTOUPDATE: "true"},
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "name": name,
        },
    });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}
