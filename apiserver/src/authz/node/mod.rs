//! What a node may do (KEP-279): its own objects, and those that its pods use.
//!
//! An index of which node uses which object, fed by the watch cache, answers whether a
//! secret, config map, claim, volume or service account is a node's business. Mirror pods
//! lead nowhere: a node could make one that names any secret.
//! What must not be here: what a node may write into an object (`admission/node_restriction.rs`).

mod graph;
mod references;

use std::collections::HashMap;

use codec::serde_pb::Part;
use component::features::FeatureGates;
use parking_lot::RwLock;
use prometheus::{Histogram, HistogramOpts, HistogramVec};
use serde_json::Value;

use graph::{Graph, Kind};
use references::{POD, pod_uses, volume_secrets};

use super::rbac::rules::PolicyRule;
use super::{Attributes, Authorizer, Decision, Rules};
use crate::authn::{NODES, User};
use crate::lookup::{Observed, Observer};

pub use references::{is_mirror, references_secrets_and_config_maps};

const USER_PREFIX: &str = "system:node:";
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The node that a user is: `None` for other users.
pub fn identity(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX)?;
    user.in_group(NODES).then_some(name)
}

/// The `Node` authorization mode.
pub struct NodeAuthorizer {
    graph: RwLock<Graph>,
    /// What every node may do alike.
    rules: Vec<PolicyRule>,
    /// Whether nodes ask for their pods' certificates.
    certifies_pods: bool,
    actions: HashMap<&'static str, Actions>,
}

/// How long the graph takes over objects of one resource, in seconds.
struct Actions {
    add: Histogram,
    delete: Histogram,
}

/// The metric of the graph's operations.
///
/// # Errors
/// None that the name and the label make.
pub fn graph_actions() -> prometheus::Result<HistogramVec> {
    let options = HistogramOpts::new(
        "node_authorizer_graph_actions_duration_seconds",
        "Seconds that the node authorizer's index took over a change.",
    );
    let buckets = prometheus::exponential_buckets(0.0001, 2.0, 12)?;
    HistogramVec::new(options.buckets(buckets), &["operation"])
}

/// The resources that the graph is made of, as its operations call them.
const OPERATIONS: [(&str, &str); 5] = [
    ("pods", "Pod"),
    ("podcertificaterequests", "PodCertificateRequest"),
    ("persistentvolumes", "PV"),
    ("volumeattachments", "VolumeAttachment"),
    ("resourceslices", "ResourceSlice"),
];

impl NodeAuthorizer {
    /// `rules` are those of the cluster role `system:node`; `actions` is labelled with the
    /// operation.
    pub fn new(rules: Vec<PolicyRule>, gates: &FeatureGates, actions: &HistogramVec) -> Self {
        let of = |(resource, name)| {
            let operation = |verb| actions.with_label_values(&[&format!("{verb}{name}")]);
            let actions = Actions {
                add: operation("Add"),
                delete: operation("Delete"),
            };
            (resource, actions)
        };
        Self {
            graph: RwLock::default(),
            rules,
            certifies_pods: gates.enabled("PodCertificateRequest")
                && gates.enabled("AuthorizeNodeWithSelectors"),
            actions: OPERATIONS.map(of).into(),
        }
    }

    fn related(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Decision {
        if a.name.is_empty() {
            return no("No Object name found");
        }
        let object = (kind, a.namespace.into(), a.name.into());
        if self.graph.read().used_by(node, &object) {
            return yes();
        }
        no(format!(
            "no relationship found between node '{node}' and this object"
        ))
    }

    /// Reads of single objects, one by one or by a watch on one name.
    fn read(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Decision {
        if !matches!(a.verb, "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if a.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        self.related(node, kind, a)
    }

    fn get(&self, node: &str, kind: Kind, a: &Attributes<'_>) -> Decision {
        if a.verb != "get" {
            return no("can only get individual resources of this type");
        }
        if !a.subresource.is_empty() {
            return no("cannot get subresource");
        }
        self.related(node, kind, a)
    }

    fn claim(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.subresource != "status" {
            return self.get(node, Kind::Claim, a);
        }
        if !matches!(a.verb, "update" | "patch") {
            return no("can only get/update/patch this type");
        }
        self.related(node, Kind::Claim, a)
    }

    fn service_account(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if a.verb == "get" && a.subresource.is_empty() {
            return self.read(node, Kind::ServiceAccount, a);
        }
        if a.verb != "create" || a.name.is_empty() {
            return no("can only create tokens for individual service accounts");
        }
        if a.subresource != "token" {
            return no("can only create token subresource of serviceaccount");
        }
        self.related(node, Kind::ServiceAccount, a)
    }

    fn resource_slice(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.subresource.is_empty() {
            return no("cannot authorize ResourceSlice subresources");
        }
        match a.verb {
            "create" => yes(),
            "get" | "update" | "patch" | "delete" => self.related(node, Kind::ResourceSlice, a),
            "watch" | "list" | "deletecollection" if selects(a, "spec.nodeName", node) => yes(),
            "watch" | "list" | "deletecollection" => no(
                "can only list/watch/deletecollection resourceslices with nodeName field selector",
            ),
            _ => no(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, \
                 create, update, patch, delete, deletecollection",
            ),
        }
    }

    fn pod_certificate(&self, node: &str, a: &Attributes<'_>) -> Decision {
        if !a.subresource.is_empty() {
            return no("nodes may not access the status subresource of PodCertificateRequests");
        }
        match a.verb {
            // NodeRestriction sees to it that it is for the node's own pod.
            "create" => yes(),
            "get" => self.related(node, Kind::PodCertificate, a),
            "list" | "watch" if selects(a, "spec.nodeName", node) => yes(),
            "list" | "watch" => {
                no("can only list/watch podcertificaterequests with nodeName field selector")
            }
            verb => no(format!("unrecognized verb {verb:?}")),
        }
    }

    fn pod(&self, node: &str, a: &Attributes<'_>) -> Decision {
        match (a.subresource, a.verb) {
            ("", "get") => self.get(node, Kind::Pod, a),
            ("", "list" | "watch") => {
                if selects(a, "spec.nodeName", node) {
                    yes()
                } else if !a.name.is_empty() {
                    self.related(node, Kind::Pod, a)
                } else {
                    no("can only list/watch pods with spec.nodeName field selector")
                }
            }
            // NodeRestriction sees to it that these are the node's own.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                yes()
            }
            _ => no(""),
        }
    }
}

fn yes() -> Decision {
    Decision::Allow(String::new())
}

fn no(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

/// Whether the request's field selector wants this value.
fn selects(a: &Attributes<'_>, field: &str, value: &str) -> bool {
    meta::fields::Selector::parse(a.field_selector).is_ok_and(|selector| {
        selector
            .requirements()
            .iter()
            .any(|r| r.equals && r.field == field && r.value == value)
    })
}

/// The API object of a node.
fn node_object(node: &str, a: &Attributes<'_>) -> Decision {
    match (a.subresource, a.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => yes(),
        ("", "get" | "list" | "watch") => match a.name {
            // By name, not by the graph: a kubelet looks for its node before there is one.
            name if name == node => yes(),
            "" => no(format!(
                "node '{node}' cannot read all nodes, only its own Node object"
            )),
            other => no(format!(
                "node '{node}' cannot read '{other}', only its own Node object"
            )),
        },
        _ => no(""),
    }
}

const OWN_VERBS: [&str; 5] = ["get", "create", "update", "patch", "delete"];

fn lease(node: &str, a: &Attributes<'_>) -> Decision {
    if !OWN_VERBS.contains(&a.verb) {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if a.namespace != LEASE_NAMESPACE {
        return no(format!(
            "can only access leases in the {LEASE_NAMESPACE:?} system namespace"
        ));
    }
    // The name is not known on a create; NodeRestriction checks it then.
    if a.verb != "create" && a.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    yes()
}

fn csi_node(node: &str, a: &Attributes<'_>) -> Decision {
    if !OWN_VERBS.contains(&a.verb) {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if !a.subresource.is_empty() {
        return no("cannot authorize CSINode subresources");
    }
    if a.verb != "create" && a.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    yes()
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, a: &Attributes<'_>) -> Decision {
        let Some(node) = identity(a.user) else {
            return no("");
        };
        if node.is_empty() {
            return no(format!("unknown node for user {:?}", a.user.name));
        }
        if a.is_resource {
            match (a.group, a.resource) {
                ("", "secrets") => return self.read(node, Kind::Secret, a),
                ("", "configmaps") => return self.read(node, Kind::ConfigMap, a),
                ("", "persistentvolumeclaims") => return self.claim(node, a),
                ("", "persistentvolumes") => return self.get(node, Kind::Volume, a),
                ("", "serviceaccounts") => return self.service_account(node, a),
                ("", "nodes") => return node_object(node, a),
                ("", "pods") => return self.pod(node, a),
                ("resource.k8s.io", "resourceclaims") => {
                    return self.get(node, Kind::ResourceClaim, a);
                }
                ("resource.k8s.io", "resourceslices") => return self.resource_slice(node, a),
                ("storage.k8s.io", "volumeattachments") => {
                    return self.get(node, Kind::VolumeAttachment, a);
                }
                ("storage.k8s.io", "csinodes") => return csi_node(node, a),
                ("coordination.k8s.io", "leases") => return lease(node, a),
                ("certificates.k8s.io", "podcertificaterequests") if self.certifies_pods => {
                    return self.pod_certificate(node, a);
                }
                ("certificates.k8s.io", "podcertificaterequests") => return no(""),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(a)) {
            yes()
        } else {
            no("")
        }
    }

    fn rules_for(&self, user: &User, _namespace: &str) -> Rules {
        if identity(user).is_none() {
            return Rules::default();
        }
        Rules {
            incomplete: true,
            evaluation_error: Some("node authorizer does not support user rule resolution".into()),
            ..Rules::default()
        }
    }
}

impl Observer for NodeAuthorizer {
    fn observes(&self) -> &'static [Observed] {
        const fn observed(group: &'static str, resource: &'static str, reads: Part) -> Observed {
            Observed {
                group,
                resource,
                reads,
            }
        }
        const NODE: Part = Part::Of(&[
            (
                "metadata",
                Part::Of(&[("name", Part::All), ("namespace", Part::All)]),
            ),
            ("spec", Part::Of(&[("nodeName", Part::All)])),
        ]);
        const {
            &[
                observed("", "pods", POD),
                observed("", "persistentvolumes", Part::All),
                // Not served, unless somebody asks for it.
                observed("certificates.k8s.io", "podcertificaterequests", NODE),
                observed("storage.k8s.io", "volumeattachments", NODE),
                observed("resource.k8s.io", "resourceslices", NODE),
            ]
        }
    }

    fn put(&self, _group: &str, resource: &str, object: &Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let name = text("/metadata/name").unwrap_or_default();
        let namespace = text("/metadata/namespace").unwrap_or_default();
        let node = text("/spec/nodeName").unwrap_or_default();
        let _timer = self.actions.get(resource).map(|a| a.add.start_timer());
        let mut graph = self.graph.write();
        match resource {
            "pods" => {
                let source = (Kind::Pod, namespace.into(), name.into());
                if node.is_empty() {
                    graph.remove(&source);
                } else {
                    graph.put(source, node, pod_uses(object, namespace));
                }
            }
            "persistentvolumes" => match object["spec"]["claimRef"].as_object() {
                Some(claim) => {
                    let of = |field: &str| claim.get(field).and_then(Value::as_str);
                    let claim_namespace = of("namespace").unwrap_or_default();
                    let claim_name = of("name").unwrap_or_default();
                    let claim = (Kind::Claim, claim_namespace.into(), claim_name.into());
                    graph.put_volume(name, claim, volume_secrets(object, claim_namespace));
                }
                None => graph.remove_volume(name),
            },
            _ => {
                let Some(kind) = bound_to_a_node(resource) else {
                    return;
                };
                let source = (kind, namespace.into(), name.into());
                if node.is_empty() {
                    graph.remove(&source);
                } else {
                    graph.put(source, node, Vec::new());
                }
            }
        }
    }

    fn delete(&self, _group: &str, resource: &str, namespace: &str, name: &str) {
        let _timer = self.actions.get(resource).map(|a| a.delete.start_timer());
        let mut graph = self.graph.write();
        let kind = match resource {
            "pods" => Some(Kind::Pod),
            "persistentvolumes" => return graph.remove_volume(name),
            other => bound_to_a_node(other),
        };
        if let Some(kind) = kind {
            graph.remove(&(kind, namespace.into(), name.into()));
        }
    }
}

/// What says of itself which node's it is, and leads to nothing else.
fn bound_to_a_node(resource: &str) -> Option<Kind> {
    Some(match resource {
        "podcertificaterequests" => Kind::PodCertificate,
        "resourceslices" => Kind::ResourceSlice,
        "volumeattachments" => Kind::VolumeAttachment,
        _ => return None,
    })
}

/// The items of a list that may be absent.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}
#[cfg(test)]
mod tests;
