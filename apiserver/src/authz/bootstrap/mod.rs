//! The roles and bindings that every cluster has, and how they are brought about on start.
//!
//! [`objects`] is the data, [`reconcile`] the way from it to the cluster.
//! What must not be here: decisions (`rbac/`).

mod cluster_roles;
mod controller_roles;
pub mod reconcile;
mod table;

use component::features::FeatureGates;
use serde_json::{Value, json};

use super::rbac::rules::PolicyRule;
use table::{EVENTS, READ, Role, binding, named, on, role};

/// `"false"` keeps a role or binding as an administrator has made it.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

const CONTROLLER_PREFIX: &str = "system:controller:";
const KUBE_SYSTEM: &str = "kube-system";
const KUBE_PUBLIC: &str = "kube-public";

/// The rules of `system:node`, which the Node authorizer applies to every node.
pub fn node_rules(gates: &FeatureGates) -> Vec<PolicyRule> {
    let node = cluster_roles::ROLES
        .iter()
        .find(|r| r.name == "system:node");
    let mut rules = node.map(Role::policy_rules).unwrap_or_default();
    rules.extend(gated_rules("system:node", cluster_roles::GATED, gates));
    rules
}

/// Rules of roles while a feature is on: role, gate, rules.
type Gated = [(&'static str, &'static str, &'static [table::Rule])];

/// What a role has for features that are on.
fn gated_rules(role: &str, all: &Gated, gates: &FeatureGates) -> Vec<PolicyRule> {
    let of_role = all.iter().filter(|(of, ..)| *of == role);
    let on = of_role.filter(|(_, gate, _)| gates.enabled(gate));
    let rules = on.flat_map(|(.., rules)| *rules);
    rules.map(table::Rule::policy_rule).collect()
}

fn with_gated_rules(mut object: Value, role: &str, all: &Gated, gates: &FeatureGates) -> Value {
    if let Some(rules) = object["rules"].as_array_mut() {
        let more = gated_rules(role, all, gates);
        rules.extend(more.iter().map(|rule| json!(rule)));
    }
    object
}

/// Subjects of the cluster role bindings, each bound to the role of its own name.
const CLUSTER_BINDINGS: &[(&str, &[&str])] = &[
    ("cluster-admin", &["Group system:masters"]),
    ("system:monitoring", &["Group system:monitoring"]),
    ("system:discovery", &["Group system:authenticated"]),
    ("system:basic-user", &["Group system:authenticated"]),
    (
        "system:public-info-viewer",
        &["Group system:authenticated", "Group system:unauthenticated"],
    ),
    ("system:node-proxier", &["User system:kube-proxy"]),
    (
        "system:kube-controller-manager",
        &["User system:kube-controller-manager"],
    ),
    ("system:kube-dns", &["ServiceAccount kube-system/kube-dns"]),
    ("system:kube-scheduler", &["User system:kube-scheduler"]),
    ("system:volume-scheduler", &["User system:kube-scheduler"]),
    // Without subjects: the Node authorizer does this role's work.
    ("system:node", &[]),
    (
        "system:service-account-issuer-discovery",
        &["Group system:serviceaccounts"],
    ),
];

/// The same for roles of features: gate, name, subjects.
const GATED_BINDINGS: &[(&str, &str, &[&str])] = &[(
    "ClusterTrustBundle",
    "system:cluster-trust-bundle-discovery",
    &["Group system:serviceaccounts"],
)];

const LEADER_LOCKING: &[table::Rule] = &[
    on(
        "create get list update watch",
        "coordination.k8s.io",
        "leases",
    ),
    on(
        "create get list update watch",
        "coordination.k8s.io",
        "leasecandidates",
    ),
];

/// Namespace, prefix of the name, role.
const NAMESPACE_ROLES: &[(&str, &str, Role)] = &[
    (
        KUBE_SYSTEM,
        "",
        role(
            "extension-apiserver-authentication-reader",
            &[named(
                READ,
                "core",
                "configmaps",
                "extension-apiserver-authentication",
            )],
        ),
    ),
    (
        KUBE_SYSTEM,
        CONTROLLER_PREFIX,
        role("bootstrap-signer", &[on(READ, "core", "secrets")]),
    ),
    (
        KUBE_SYSTEM,
        CONTROLLER_PREFIX,
        role(
            "cloud-provider",
            &[on("create get list watch", "core", "configmaps")],
        ),
    ),
    (
        KUBE_SYSTEM,
        CONTROLLER_PREFIX,
        role(
            "token-cleaner",
            &[on("delete get list watch", "core", "secrets"), EVENTS],
        ),
    ),
    (
        KUBE_SYSTEM,
        "system::leader-locking-",
        role("kube-controller-manager", LEADER_LOCKING),
    ),
    (
        KUBE_SYSTEM,
        "system::leader-locking-",
        role("kube-scheduler", LEADER_LOCKING),
    ),
    (
        KUBE_PUBLIC,
        CONTROLLER_PREFIX,
        role(
            "bootstrap-signer",
            &[
                on(READ, "core", "configmaps"),
                named("update", "core", "configmaps", "cluster-info"),
                EVENTS,
            ],
        ),
    ),
];

/// Namespace, name, role, subjects.
const NAMESPACE_BINDINGS: &[(&str, &str, &str, &[&str])] = &[
    (
        KUBE_SYSTEM,
        "system::extension-apiserver-authentication-reader",
        "extension-apiserver-authentication-reader",
        &[
            "User system:kube-controller-manager",
            "User system:kube-scheduler",
        ],
    ),
    (
        KUBE_SYSTEM,
        "system::leader-locking-kube-controller-manager",
        "system::leader-locking-kube-controller-manager",
        &[
            "User system:kube-controller-manager",
            "ServiceAccount kube-system/kube-controller-manager",
            "ServiceAccount kube-system/leader-election-controller",
        ],
    ),
    (
        KUBE_SYSTEM,
        "system::leader-locking-kube-scheduler",
        "system::leader-locking-kube-scheduler",
        &[
            "User system:kube-scheduler",
            "ServiceAccount kube-system/kube-scheduler",
        ],
    ),
    (
        KUBE_SYSTEM,
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &["ServiceAccount kube-system/bootstrap-signer"],
    ),
    (
        KUBE_SYSTEM,
        "system:controller:cloud-provider",
        "system:controller:cloud-provider",
        &["ServiceAccount kube-system/cloud-provider"],
    ),
    (
        KUBE_SYSTEM,
        "system:controller:token-cleaner",
        "system:controller:token-cleaner",
        &["ServiceAccount kube-system/token-cleaner"],
    ),
    (
        KUBE_PUBLIC,
        "system:controller:bootstrap-signer",
        "system:controller:bootstrap-signer",
        &["ServiceAccount kube-system/bootstrap-signer"],
    ),
];

/// Every default object by resource, in the order in which they are to be made.
#[derive(Debug)]
pub struct Objects {
    pub cluster_roles: Vec<Value>,
    pub cluster_role_bindings: Vec<Value>,
    pub roles: Vec<Value>,
    pub role_bindings: Vec<Value>,
}

pub fn objects(gates: &FeatureGates) -> Objects {
    let of_features = cluster_roles::GATED_ROLES.iter();
    let of_features = of_features.filter(|(gate, _)| gates.enabled(gate));
    let people = cluster_roles::ROLES.iter();
    let people = people.chain(of_features.map(|(_, role)| role)).map(|role| {
        let object = role.to_object("", "");
        with_gated_rules(object, role.name, cluster_roles::GATED, gates)
    });
    let gated_bindings = GATED_BINDINGS.iter();
    let gated_bindings = gated_bindings.filter(|(gate, _, _)| gates.enabled(gate));
    let gated = controller_roles::GATED.iter();
    let gated = gated.filter(|(all, _)| all.iter().all(|gate| gates.enabled(gate)));
    let controllers = controller_roles::ROLES.iter();
    let controllers = controllers.chain(gated.map(|(_, role)| role));
    let controller_bindings = controllers.clone().map(|r| {
        let name = format!("{CONTROLLER_PREFIX}{}", r.name);
        let account = format!("ServiceAccount {KUBE_SYSTEM}/{}", r.name);
        binding("", &name, &name, &[&account])
    });
    Objects {
        cluster_roles: people
            .chain(controllers.map(|role| {
                let object = role.to_object(CONTROLLER_PREFIX, "");
                with_gated_rules(object, role.name, controller_roles::MORE, gates)
            }))
            .collect(),
        cluster_role_bindings: CLUSTER_BINDINGS
            .iter()
            .map(|(name, subjects)| binding("", name, name, subjects))
            .chain(gated_bindings.map(|(_, name, subjects)| binding("", name, name, subjects)))
            .chain(controller_bindings)
            .collect(),
        roles: NAMESPACE_ROLES
            .iter()
            .map(|(namespace, prefix, role)| role.to_object(prefix, namespace))
            .collect(),
        role_bindings: NAMESPACE_BINDINGS
            .iter()
            .map(|(namespace, name, role, subjects)| binding(namespace, name, role, subjects))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
