//! Role-based access control: an index of roles and bindings, fed by the watch cache, that
//! answers in memory.
//!
//! Bindings are found by subject, so a decision costs what the user's own bindings cost,
//! not what the cluster's do.
//! What must not be here: the default roles (`bootstrap/`), object changes.

pub mod escalation;
pub mod rules;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use codec::serde_pb::Part;
use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule};
use parking_lot::RwLock;
use serde::Deserialize;
use serde_json::Value;

use super::{Attributes, Authorizer, Decision, Rules};
use crate::authn::{User, service_account};
use crate::lookup::{Observed, Observer};
use rules::PolicyRule;

pub const GROUP: &str = "rbac.authorization.k8s.io";

/// `Observer` feeds it, `Authorizer` reads it.
#[derive(Default)]
pub struct Rbac {
    index: RwLock<Index>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    pub api_group: String,
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

struct Binding {
    name: String,
    /// Empty for a ClusterRoleBinding.
    namespace: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// Who a binding is found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    User(String),
    Group(String),
}

/// The bindings of one namespace, or of the cluster.
#[derive(Default)]
struct Scope {
    /// By name, so that decisions are explained the same way each time.
    bindings: BTreeMap<String, Arc<Binding>>,
    by_subject: HashMap<Key, Vec<(Arc<Binding>, usize)>>,
}

#[derive(Default)]
struct Index {
    cluster_roles: HashMap<String, Arc<[PolicyRule]>>,
    roles: HashMap<(String, String), Arc<[PolicyRule]>>,
    cluster: Scope,
    namespaces: HashMap<String, Scope>,
}

impl Subject {
    fn key(&self, namespace: &str) -> Option<Key> {
        match self.kind.as_str() {
            "User" => Some(Key::User(self.name.clone())),
            "Group" => Some(Key::Group(self.name.clone())),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() {
                    namespace
                } else {
                    &self.namespace
                };
                (!namespace.is_empty())
                    .then(|| Key::User(service_account::username(namespace, &self.name)))
            }
            _ => None,
        }
    }
}

impl Scope {
    fn put(&mut self, binding: Binding) {
        self.remove(&binding.name);
        let binding = Arc::new(binding);
        for (i, subject) in binding.subjects.iter().enumerate() {
            if let Some(key) = subject.key(&binding.namespace) {
                let known = self.by_subject.entry(key).or_default();
                known.push((binding.clone(), i));
            }
        }
        self.bindings.insert(binding.name.clone(), binding);
    }

    fn remove(&mut self, name: &str) {
        let Some(old) = self.bindings.remove(name) else {
            return;
        };
        for subject in &old.subjects {
            if let Some(key) = subject.key(&old.namespace)
                && let Some(known) = self.by_subject.get_mut(&key)
            {
                known.retain(|(binding, _)| !Arc::ptr_eq(binding, &old));
                if known.is_empty() {
                    self.by_subject.remove(&key);
                }
            }
        }
    }

    /// The user's bindings, each with the subject that makes it so.
    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = (&'a Binding, &'a Subject)> {
        // Keys are owned by the map, so looking one up wants an owned one; a user has few.
        let keys = std::iter::once(Key::User(user.name.clone()))
            .chain(user.groups.iter().map(|g| Key::Group(g.clone())));
        keys.filter_map(|key| self.by_subject.get(&key))
            .flatten()
            .map(|(binding, i)| (&**binding, &binding.subjects[*i]))
    }
}

impl Index {
    fn rules(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, String> {
        let found = match role.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&role.name).cloned(),
            "Role" => self
                .roles
                .get(&(namespace.to_owned(), role.name.clone()))
                .cloned(),
            kind => return Err(format!("unsupported role reference kind: {kind:?}")),
        };
        found.ok_or_else(|| {
            let resource = if role.kind == "Role" {
                "role"
            } else {
                "clusterrole"
            };
            format!("{resource}.{GROUP} {:?} not found", role.name)
        })
    }

    /// Calls `visit` with each of the user's rules until it returns true; returns why some
    /// rules could not be found.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(&Binding, &Subject, &PolicyRule) -> bool,
    ) -> Vec<String> {
        let mut errors = Vec::new();
        let scopes = [Some(&self.cluster), self.namespaces.get(namespace)];
        for scope in scopes.into_iter().flatten() {
            for (binding, subject) in scope.of(user) {
                match self.rules(&binding.role, &binding.namespace) {
                    Ok(rules) => {
                        if rules.iter().any(|rule| visit(binding, subject, rule)) {
                            return errors;
                        }
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
        errors
    }
}

impl Rbac {
    /// Every rule of the user in a namespace (empty: cluster-wide), and what could not be
    /// resolved.
    pub fn policy_rules(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let mut rules = Vec::new();
        let errors = self.index.read().visit(user, namespace, |_, _, rule| {
            rules.push(rule.clone());
            false
        });
        (rules, errors)
    }

    /// The rules of a role that a binding in `namespace` refers to.
    pub fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<Arc<[PolicyRule]>, String> {
        self.index.read().rules(role, namespace)
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let mut allowed = None;
        let index = self.index.read();
        let errors = index.visit(
            attributes.user,
            attributes.namespace,
            |binding, subject, rule| {
                let allows = rule.allows(attributes);
                if allows {
                    allowed = Some(explain(binding, subject));
                }
                allows
            },
        );
        match allowed {
            Some(reason) => Decision::Allow(reason),
            None if errors.is_empty() => Decision::NoOpinion(String::new()),
            None => Decision::NoOpinion(format!("RBAC: {}", aggregate(&errors))),
        }
    }

    fn rules_for(&self, user: &User, namespace: &str) -> Rules {
        let (rules, errors) = self.policy_rules(user, namespace);
        let mut out = Rules {
            evaluation_error: (!errors.is_empty()).then(|| aggregate(&errors)),
            ..Rules::default()
        };
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        for rule in rules {
            if !rule.resources.is_empty() {
                out.resource.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: some(&rule.api_groups),
                    resources: some(&rule.resources),
                    resource_names: some(&rule.resource_names),
                });
            }
            if !rule.non_resource_urls.is_empty() {
                out.non_resource.push(NonResourceRule {
                    verbs: rule.verbs,
                    non_resource_urls: Some(rule.non_resource_urls),
                });
            }
        }
        out
    }
}

fn explain(binding: &Binding, subject: &Subject) -> String {
    let (kind, name) = if binding.namespace.is_empty() {
        ("ClusterRoleBinding", binding.name.clone())
    } else {
        (
            "RoleBinding",
            format!("{}/{}", binding.name, binding.namespace),
        )
    };
    let who = match (subject.kind.as_str(), subject.namespace.as_str()) {
        ("ServiceAccount", "") => format!("{}/{}", subject.name, binding.namespace),
        ("ServiceAccount", namespace) => format!("{}/{namespace}", subject.name),
        _ => subject.name.clone(),
    };
    format!(
        "RBAC: allowed by {kind} {name:?} of {} {:?} to {} {who:?}",
        binding.role.kind, binding.role.name, subject.kind
    )
}

fn aggregate(errors: &[String]) -> String {
    match errors {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn list<'de, T: Deserialize<'de>>(object: &'de Value, field: &str) -> Vec<T> {
    match Vec::deserialize(&object[field]) {
        Ok(list) => list,
        Err(_) if object[field].is_null() => Vec::new(),
        Err(error) => {
            // Such an object cannot have passed validation; without rules it grants nothing.
            tracing::error!(%error, field, "unreadable RBAC object");
            Vec::new()
        }
    }
}

impl Observer for Rbac {
    fn observes(&self) -> &'static [Observed] {
        const fn observed(resource: &'static str) -> Observed {
            Observed {
                group: GROUP,
                resource,
                reads: Part::All,
            }
        }
        const {
            &[
                observed("clusterroles"),
                observed("clusterrolebindings"),
                observed("roles"),
                observed("rolebindings"),
            ]
        }
    }

    fn put(&self, _group: &str, resource: &str, object: &Value) {
        let text = |field: &str| {
            let value = object["metadata"][field].as_str();
            value.unwrap_or_default().to_owned()
        };
        let (name, namespace) = (text("name"), text("namespace"));
        match resource {
            "clusterroles" => {
                let rules = list(object, "rules").into();
                self.index.write().cluster_roles.insert(name, rules);
            }
            "roles" => {
                let rules = list(object, "rules").into();
                self.index.write().roles.insert((namespace, name), rules);
            }
            "clusterrolebindings" | "rolebindings" => {
                let binding = Binding {
                    name,
                    namespace: namespace.clone(),
                    role: RoleRef::deserialize(&object["roleRef"]).unwrap_or_default(),
                    subjects: list(object, "subjects"),
                };
                let mut index = self.index.write();
                let scope = if resource == "rolebindings" {
                    index.namespaces.entry(namespace).or_default()
                } else {
                    &mut index.cluster
                };
                scope.put(binding);
            }
            _ => {}
        }
    }

    fn delete(&self, _group: &str, resource: &str, namespace: &str, name: &str) {
        let mut index = self.index.write();
        match resource {
            "clusterroles" => {
                index.cluster_roles.remove(name);
            }
            "roles" => {
                index.roles.remove(&(namespace.to_owned(), name.to_owned()));
            }
            "clusterrolebindings" => index.cluster.remove(name),
            "rolebindings" => {
                if let Some(scope) = index.namespaces.get_mut(namespace) {
                    scope.remove(name);
                    if scope.bindings.is_empty() {
                        index.namespaces.remove(namespace);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
