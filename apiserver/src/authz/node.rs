//! What a node may do (KEP-279): its own objects, and those that its pods use.
//!
//! An index of which node uses which object, fed by the watch cache, answers whether a
//! secret, config map, claim, volume or service account is a node's business. Mirror pods
//! lead nowhere: a node could make one that names any secret.
//! What must not be here: what a node may write into an object (`admission/node_restriction.rs`).

use std::collections::HashMap;
use std::sync::Arc;

use codec::serde_pb::Part;
use component::features::FeatureGates;
use parking_lot::RwLock;
use prometheus::{Histogram, HistogramOpts, HistogramVec};
use serde_json::Value;

use super::rbac::rules::PolicyRule;
use super::{Attributes, Authorizer, Decision, Rules};
use crate::authn::{NODES, User};
use crate::lookup::{Observed, Observer};

const USER_PREFIX: &str = "system:node:";
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
pub const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// Volume plugins whose source carries a `secretRef` that the kubelet reads.
const SECRET_DRIVERS: [&str; 7] = [
    "cephfs",
    "cinder",
    "flexVolume",
    "rbd",
    "scaleIO",
    "iscsi",
    "storageos",
];

/// The node that a user is: `None` for other users.
pub fn identity(user: &User) -> Option<&str> {
    let name = user.name.strip_prefix(USER_PREFIX)?;
    user.in_group(NODES).then_some(name)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Pod,
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    ResourceClaim,
    Volume,
    VolumeAttachment,
    ResourceSlice,
    PodCertificate,
}

/// An object, by kind, namespace and name.
type Object = (Kind, Box<str>, Box<str>);

/// Who uses what.
#[derive(Default)]
struct Graph {
    /// What each source (a pod, a volume attachment…) makes its node's business.
    sources: HashMap<Object, (Arc<str>, Box<[Object]>)>,
    /// For each object its nodes, with the number of sources that say so.
    nodes: HashMap<Object, Vec<(Arc<str>, u32)>>,
    /// For each persistent volume its claim and the secrets that mounting it needs.
    volumes: HashMap<Box<str>, (Object, Box<[Object]>)>,
    /// For each such secret the volumes.
    secret_volumes: HashMap<Object, Vec<Box<str>>>,
}

impl Graph {
    fn put(&mut self, source: Object, node: &str, mut uses: Vec<Object>) {
        uses.push(source.clone());
        uses.sort_unstable_by(|a, b| (a.0 as u8, &a.1, &a.2).cmp(&(b.0 as u8, &b.1, &b.2)));
        uses.dedup();
        // Pods change all the time, and seldom what they use.
        if let Some((old_node, old_uses)) = self.sources.get(&source)
            && **old_node == *node
            && **old_uses == *uses
        {
            return;
        }
        self.remove(&source);
        let node: Arc<str> = node.into();
        for object in &uses {
            let nodes = self.nodes.entry(object.clone()).or_default();
            match nodes.iter_mut().find(|(n, _)| *n == node) {
                Some((_, count)) => *count += 1,
                None => nodes.push((node.clone(), 1)),
            }
        }
        self.sources.insert(source, (node, uses.into()));
    }

    fn remove(&mut self, source: &Object) {
        let Some((node, uses)) = self.sources.remove(source) else {
            return;
        };
        for object in uses {
            let Some(nodes) = self.nodes.get_mut(&object) else {
                continue;
            };
            if let Some(i) = nodes.iter().position(|(n, _)| *n == node) {
                nodes[i].1 -= 1;
                if nodes[i].1 == 0 {
                    nodes.swap_remove(i);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&object);
            }
        }
    }

    fn put_volume(&mut self, name: &str, claim: Object, secrets: Vec<Object>) {
        self.remove_volume(name);
        for secret in &secrets {
            let volumes = self.secret_volumes.entry(secret.clone()).or_default();
            volumes.push(name.into());
        }
        self.volumes.insert(name.into(), (claim, secrets.into()));
    }

    fn remove_volume(&mut self, name: &str) {
        let Some((_, secrets)) = self.volumes.remove(name) else {
            return;
        };
        for secret in secrets {
            if let Some(volumes) = self.secret_volumes.get_mut(&secret) {
                volumes.retain(|v| **v != *name);
                if volumes.is_empty() {
                    self.secret_volumes.remove(&secret);
                }
            }
        }
    }

    fn used_by(&self, node: &str, object: &Object) -> bool {
        let direct = |object: &Object| {
            self.nodes
                .get(object)
                .is_some_and(|nodes| nodes.iter().any(|(n, _)| **n == *node))
        };
        let through_claim = |volume: &str| {
            self.volumes
                .get(volume)
                .is_some_and(|(claim, _)| direct(claim))
        };
        match object.0 {
            Kind::Volume => through_claim(&object.2),
            Kind::Secret => {
                direct(object)
                    || self
                        .secret_volumes
                        .get(object)
                        .is_some_and(|volumes| volumes.iter().any(|v| through_claim(v)))
            }
            _ => direct(object),
        }
    }
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

/// What of a pod leads to other objects.
const POD: Part = {
    const CONTAINERS: Part = Part::Of(&[
        ("env", Part::Of(&[("valueFrom", Part::All)])),
        ("envFrom", Part::All),
    ]);
    const METADATA: Part = Part::Of(&[
        ("name", Part::All),
        ("namespace", Part::All),
        ("annotations", Part::All),
    ]);
    const SPEC: Part = Part::Of(&[
        ("nodeName", Part::All),
        ("serviceAccountName", Part::All),
        ("imagePullSecrets", Part::All),
        ("containers", CONTAINERS),
        ("initContainers", CONTAINERS),
        ("ephemeralContainers", CONTAINERS),
        ("volumes", Part::All),
        ("resourceClaims", Part::All),
    ]);
    const STATUS: Part = Part::Of(&[
        ("resourceClaimStatuses", Part::All),
        ("extendedResourceClaimStatus", Part::All),
    ]);
    Part::Of(&[("metadata", METADATA), ("spec", SPEC), ("status", STATUS)])
};

/// Every object that a pod makes its node's business.
fn pod_uses(pod: &Value, namespace: &str) -> Vec<Object> {
    if is_mirror(pod) {
        return Vec::new();
    }
    pod_references(pod, namespace)
}

/// Whether the pod is a kubelet's image of a static pod.
pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"]
        .get(MIRROR_ANNOTATION)
        .is_some()
}

/// Whether the pod names secrets, and whether it names config maps.
pub fn references_secrets_and_config_maps(pod: &Value) -> (bool, bool) {
    let all = pod_references(pod, "");
    let any = |kind| all.iter().any(|o| o.0 == kind);
    (any(Kind::Secret), any(Kind::ConfigMap))
}

fn pod_references(pod: &Value, namespace: &str) -> Vec<Object> {
    let mut uses = Vec::new();
    let mut add = |kind: Kind, name: &Value| {
        if let Some(name) = name.as_str().filter(|n| !n.is_empty()) {
            uses.push((kind, namespace.into(), name.into()));
        }
    };
    let spec = &pod["spec"];
    add(Kind::ServiceAccount, &spec["serviceAccountName"]);
    for secret in items(&spec["imagePullSecrets"]) {
        add(Kind::Secret, &secret["name"]);
    }
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(&spec[containers]) {
            for source in items(&container["envFrom"]) {
                add(Kind::Secret, &source["secretRef"]["name"]);
                add(Kind::ConfigMap, &source["configMapRef"]["name"]);
            }
            for variable in items(&container["env"]) {
                let from = &variable["valueFrom"];
                add(Kind::Secret, &from["secretKeyRef"]["name"]);
                add(Kind::ConfigMap, &from["configMapKeyRef"]["name"]);
            }
        }
    }
    for volume in items(&spec["volumes"]) {
        add(Kind::Secret, &volume["secret"]["secretName"]);
        add(Kind::ConfigMap, &volume["configMap"]["name"]);
        add(Kind::Secret, &volume["azureFile"]["secretName"]);
        for driver in SECRET_DRIVERS {
            add(Kind::Secret, &volume[driver]["secretRef"]["name"]);
        }
        add(Kind::Secret, &volume["csi"]["nodePublishSecretRef"]["name"]);
        for source in items(&volume["projected"]["sources"]) {
            add(Kind::Secret, &source["secret"]["name"]);
            add(Kind::ConfigMap, &source["configMap"]["name"]);
        }
        add(Kind::Claim, &volume["persistentVolumeClaim"]["claimName"]);
        if volume["ephemeral"].is_object() {
            let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let volume_name = volume["name"].as_str().unwrap_or_default();
            add(
                Kind::Claim,
                &Value::from(format!("{pod_name}-{volume_name}")),
            );
        }
    }
    for claim in items(&spec["resourceClaims"]) {
        add(Kind::ResourceClaim, &claim["resourceClaimName"]);
        // A claim made from a template is named in the status.
        if claim["resourceClaimTemplateName"].is_string() {
            for status in items(&pod["status"]["resourceClaimStatuses"]) {
                if status["name"] == claim["name"] {
                    add(Kind::ResourceClaim, &status["resourceClaimName"]);
                }
            }
        }
    }
    let extended = &pod["status"]["extendedResourceClaimStatus"];
    add(Kind::ResourceClaim, &extended["resourceClaimName"]);
    uses
}

/// The secrets that a kubelet needs to mount a volume.
fn volume_secrets(volume: &Value, claim_namespace: &str) -> Vec<Object> {
    let spec = &volume["spec"];
    let mut secrets = Vec::new();
    let mut add = |secret: &Value, field: &str, namespace_field: &str| {
        let namespace = secret[namespace_field].as_str().filter(|n| !n.is_empty());
        if let Some(name) = secret[field].as_str().filter(|n| !n.is_empty()) {
            let namespace = namespace.unwrap_or(claim_namespace);
            secrets.push((Kind::Secret, namespace.into(), name.into()));
        }
    };
    add(&spec["azureFile"], "secretName", "secretNamespace");
    for driver in SECRET_DRIVERS {
        add(&spec[driver]["secretRef"], "name", "namespace");
    }
    for secret in [
        "nodePublishSecretRef",
        "nodeStageSecretRef",
        "nodeExpandSecretRef",
    ] {
        add(&spec["csi"][secret], "name", "namespace");
    }
    secrets
}

/// The items of a list that may be absent.
pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn authorizer() -> NodeAuthorizer {
        with_gates("")
    }

    fn with_gates(gates: &str) -> NodeAuthorizer {
        let gates = FeatureGates::parse(gates).unwrap();
        NodeAuthorizer::new(Vec::new(), &gates, &graph_actions().unwrap())
    }

    #[test]
    fn a_node_asks_for_certificates_of_its_pods_and_sees_those_it_asked_for() {
        const GROUP: &str = "certificates.k8s.io";
        const REQUESTS: &str = "podcertificaterequests";
        let request =
            json!({"metadata": {"name": "r", "namespace": "ns"}, "spec": {"nodeName": "n1"}});
        let [own, other] = ["n1", "n2"].map(node_user);
        let get = || Ask("get", GROUP, REQUESTS, "ns", "r");
        let list = || Ask("list", GROUP, REQUESTS, "", "");
        let node = with_gates("PodCertificateRequest=true");
        assert!(!allowed(&node, &own, get()));
        node.put(GROUP, REQUESTS, &request);
        assert!(allowed(&node, &own, get()));
        assert!(!allowed(&node, &other, get()));
        assert!(allowed(
            &node,
            &own,
            Ask("create", GROUP, REQUESTS, "ns", "")
        ));
        let status = "podcertificaterequests/status";
        assert!(!allowed(
            &node,
            &own,
            Ask("update", GROUP, status, "ns", "r")
        ));
        assert!(!allowed(&node, &own, list()));
        assert!(allowed_with(&node, &own, list(), "spec.nodeName=n1"));
        assert!(!allowed_with(&node, &own, list(), "spec.nodeName=n2"));
        node.delete(GROUP, REQUESTS, "ns", "r");
        assert!(!allowed(&node, &own, get()));

        let off = authorizer();
        assert!(!allowed(
            &off,
            &own,
            Ask("create", GROUP, REQUESTS, "ns", "")
        ));
    }

    fn node_user(name: &str) -> User {
        User {
            name: format!("system:node:{name}"),
            groups: vec!["system:nodes".into()],
            ..User::default()
        }
    }

    struct Ask<'a>(&'a str, &'a str, &'a str, &'a str, &'a str);

    fn allowed(
        node: &NodeAuthorizer,
        who: &User,
        Ask(verb, group, resource, ns, name): Ask,
    ) -> bool {
        allowed_with(node, who, Ask(verb, group, resource, ns, name), "")
    }

    fn allowed_with(
        node: &NodeAuthorizer,
        user: &User,
        Ask(verb, group, resource, namespace, name): Ask,
        field_selector: &str,
    ) -> bool {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        matches!(
            node.authorize(&Attributes {
                user,
                verb,
                namespace,
                group,
                resource,
                subresource,
                name,
                is_resource: true,
                path: "",
                field_selector,
            }),
            Decision::Allow(_)
        )
    }

    fn pod(extra: Value) -> Value {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {
                "nodeName": "n1",
                "serviceAccountName": "web",
                "containers": [{
                    "envFrom": [{"secretRef": {"name": "env"}}],
                    "env": [{"valueFrom": {"configMapKeyRef": {"name": "settings"}}}],
                }],
                "volumes": [
                    {"projected": {"sources": [{"configMap": {"name": "ca"}}]}},
                    {"persistentVolumeClaim": {"claimName": "data"}},
                ],
            },
        });
        for (key, value) in extra.as_object().unwrap() {
            pod["metadata"][key] = value.clone();
        }
        pod
    }

    /// What leads to other objects is all in what is decoded of a pod.
    #[test]
    fn nothing_that_is_used_is_stepped_over() {
        let container = |n: u32| {
            json!([{
                "name": format!("c{n}"),
                "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": format!("s{n}"), "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": format!("m{n}")}}],
            }])
        };
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns"},
            "spec": {
                "nodeName": "n1",
                "serviceAccountName": "web",
                "imagePullSecrets": [{"name": "pull"}],
                "containers": container(1),
                "initContainers": container(2),
                "ephemeralContainers": container(3),
                "volumes": [
                    {"name": "a", "secret": {"secretName": "file"}},
                    {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
                    {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
                ],
                "resourceClaims": [
                    {"name": "x", "resourceClaimName": "own"},
                    {"name": "y", "resourceClaimTemplateName": "template"},
                ],
            },
            "status": {
                "resourceClaimStatuses": [{"name": "y", "resourceClaimName": "made"}],
                "extendedResourceClaimStatus": {"requestMappings": [], "resourceClaimName": "more"},
            },
        });
        let message = schema::kind("", "v1", "Pod").unwrap();
        let raw = codec::serde_pb::to_vec(message, &pod).unwrap();
        let part = codec::serde_pb::part_from_slice(message, &raw, POD).unwrap();
        assert_eq!(pod_uses(&part, "ns"), pod_uses(&pod, "ns"));
        assert_eq!(pod_uses(&part, "ns").len(), 14);
        let mirror = json!({"metadata": {"annotations": {MIRROR_ANNOTATION: "1"}}});
        let raw = codec::serde_pb::to_vec(message, &mirror).unwrap();
        assert!(is_mirror(
            &codec::serde_pb::part_from_slice(message, &raw, POD).unwrap()
        ));
    }

    #[test]
    fn a_node_reads_what_its_pods_use() {
        let node = authorizer();
        let (n1, n2) = (node_user("n1"), node_user("n2"));
        let secret = || Ask("get", "", "secrets", "ns", "env");
        assert!(!allowed(&node, &n1, secret()));
        node.put("", "pods", &pod(json!({})));
        assert!(allowed(&node, &n1, secret()));
        assert!(!allowed(&node, &n2, secret()));
        assert!(allowed(
            &node,
            &n1,
            Ask("watch", "", "configmaps", "ns", "settings")
        ));
        assert!(allowed(
            &node,
            &n1,
            Ask("get", "", "configmaps", "ns", "ca")
        ));
        assert!(!allowed(
            &node,
            &n1,
            Ask("list", "", "configmaps", "ns", "")
        ));
        assert!(!allowed(
            &node,
            &n1,
            Ask("update", "", "secrets", "ns", "env")
        ));
        assert!(allowed(
            &node,
            &n1,
            Ask("create", "", "serviceaccounts/token", "ns", "web")
        ));
        assert!(!allowed(
            &node,
            &n1,
            Ask("create", "", "serviceaccounts/token", "ns", "x")
        ));
        assert!(allowed(
            &node,
            &n1,
            Ask("get", "", "persistentvolumeclaims", "ns", "data")
        ));
        node.delete("", "pods", "ns", "p");
        assert!(!allowed(&node, &n1, secret()));
        assert!(node.graph.read().nodes.is_empty());
    }

    #[test]
    fn two_pods_that_use_a_secret_count_twice() {
        let node = authorizer();
        let n1 = node_user("n1");
        node.put("", "pods", &pod(json!({})));
        node.put("", "pods", &pod(json!({"name": "q"})));
        node.put("", "pods", &pod(json!({"name": "q"})));
        node.delete("", "pods", "ns", "q");
        assert!(allowed(&node, &n1, Ask("get", "", "secrets", "ns", "env")));
    }

    #[test]
    fn mirror_pods_lead_nowhere() {
        let node = authorizer();
        let n1 = node_user("n1");
        node.put(
            "",
            "pods",
            &pod(json!({"annotations": {MIRROR_ANNOTATION: "x"}})),
        );
        assert!(!allowed(&node, &n1, Ask("get", "", "secrets", "ns", "env")));
        assert!(allowed(&node, &n1, Ask("get", "", "pods", "ns", "p")));
    }

    #[test]
    fn volumes_are_reached_through_claims() {
        let node = authorizer();
        let n1 = node_user("n1");
        node.put("", "pods", &pod(json!({})));
        let volume = json!({
            "metadata": {"name": "pv"},
            "spec": {
                "claimRef": {"namespace": "ns", "name": "data"},
                "csi": {"nodeStageSecretRef": {"name": "key", "namespace": "storage"}},
            },
        });
        node.put("", "persistentvolumes", &volume);
        assert!(allowed(
            &node,
            &n1,
            Ask("get", "", "persistentvolumes", "", "pv")
        ));
        assert!(allowed(
            &node,
            &n1,
            Ask("get", "", "secrets", "storage", "key")
        ));
        node.delete("", "persistentvolumes", "", "pv");
        assert!(!allowed(
            &node,
            &n1,
            Ask("get", "", "secrets", "storage", "key")
        ));
    }

    #[test]
    fn pods_are_listed_by_node_only() {
        let node = authorizer();
        let n1 = node_user("n1");
        let list = || Ask("list", "", "pods", "", "");
        assert!(allowed_with(&node, &n1, list(), "spec.nodeName=n1"));
        assert!(!allowed_with(&node, &n1, list(), "spec.nodeName=n2"));
        assert!(!allowed_with(&node, &n1, list(), "spec.nodeName!=n1"));
        assert!(!allowed(&node, &n1, list()));
    }

    #[test]
    fn a_node_owns_its_node_lease_and_csinode() {
        let node = authorizer();
        let n1 = node_user("n1");
        let leases = "coordination.k8s.io";
        assert!(allowed(
            &node,
            &n1,
            Ask("update", leases, "leases", LEASE_NAMESPACE, "n1")
        ));
        assert!(!allowed(
            &node,
            &n1,
            Ask("update", leases, "leases", LEASE_NAMESPACE, "n2")
        ));
        assert!(!allowed(
            &node,
            &n1,
            Ask("update", leases, "leases", "ns", "n1")
        ));
        assert!(allowed(&node, &n1, Ask("get", "", "nodes", "", "n1")));
        assert!(!allowed(&node, &n1, Ask("get", "", "nodes", "", "n2")));
        assert!(!allowed(&node, &n1, Ask("delete", "", "nodes", "", "n1")));
        assert!(allowed(
            &node,
            &n1,
            Ask("patch", "", "nodes/status", "", "n1")
        ));
        let nobody = User {
            name: "system:node:n1".into(),
            ..User::default()
        };
        assert!(!allowed(&node, &nobody, Ask("get", "", "nodes", "", "n1")));
    }
}
