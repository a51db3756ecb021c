//! NodeRestriction: a kubelet writes only its own node and what belongs to its own pods.
//!
//! The Node authorizer (`authz/node/`) decides by verbs and names; what depends on the
//! objects' content is decided here.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::certificates;
use super::chain::Deps;
use super::*;
use crate::authz::node::{
    LEASE_NAMESPACE, MIRROR_ANNOTATION, identity, is_mirror, items,
    references_secrets_and_config_maps,
};
use crate::authz::{self, Authorizer};
use crate::lookup::Lookup;

const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];
const KUBELET_LABEL_NAMESPACES: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const RESTRICTED_NAMESPACE: &str = "node-restriction.kubernetes.io";
const KUBELET_SIGNERS: [&str; 2] = [
    "kubernetes.io/kubelet-serving",
    "kubernetes.io/kube-apiserver-client-kubelet",
];

pub struct NodeRestriction {
    lookup: Arc<dyn Lookup>,
    authorizer: Arc<dyn Authorizer>,
    certifies_pods: bool,
}

/// A refusal: its words, to become a 403, or an answer of its own.
enum Refused {
    Why(String),
    Status(Status),
}

impl<T: Into<String>> From<T> for Refused {
    fn from(why: T) -> Self {
        Refused::Why(why.into())
    }
}

type Verdict = Result<(), Refused>;

fn refuse(why: impl Into<String>) -> Verdict {
    Err(Refused::Why(why.into()))
}

impl NodeRestriction {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
            authorizer: deps.authorizer.clone(),
            certifies_pods: deps.gates.enabled("PodCertificateRequest"),
        }
    }

    fn admit(&self, a: &Attributes<'_>, object: Option<&Value>) -> Result<(), Status> {
        let Some(node) = identity(a.user) else {
            return Ok(());
        };
        if node.is_empty() {
            let why = format!("could not determine node from user {:?}", a.user.name);
            return Err(a.forbidden(object, why));
        }
        let new = object.unwrap_or(&Value::Null);
        let verdict = match (a.resource.group, a.resource.plural) {
            ("", "pods") => self.pod(node, a, new),
            ("", "nodes") => own_node(node, a, new),
            ("", "persistentvolumeclaims") => claim_status(node, a, new),
            ("", "serviceaccounts") => self.token(node, a, new),
            ("coordination.k8s.io", "leases") => own_lease(node, a, new),
            ("storage.k8s.io", "csinodes") if name(a, new) != node => {
                refuse("can only access CSINode with the same name as the requesting node")
            }
            ("resource.k8s.io", "resourceslices") => own_slice(node, a, new),
            ("certificates.k8s.io", "certificatesigningrequests") => own_request(node, a, new),
            ("certificates.k8s.io", "podcertificaterequests") => self.pod_certificate(node, a, new),
            _ => Ok(()),
        };
        verdict.map_err(|refused| match refused {
            Refused::Why(why) => a.forbidden(object, why),
            Refused::Status(status) => status,
        })
    }

    fn find_pod(&self, namespace: &str, name: &str) -> Result<Arc<Value>, Refused> {
        self.lookup
            .get("", "pods", namespace, name)
            .ok_or_else(|| Refused::Status(Status::not_found(&GroupResource::new("", "pod"), name)))
    }

    /// A node asks for certificates of its own pods only, as what they are. What may be but
    /// the cache's lag is no refusal: who asks may ask again.
    fn pod_certificate(&self, node: &str, a: &Attributes<'_>, new: &Value) -> Verdict {
        if !self.certifies_pods {
            return refuse("PodCertificateRequest feature gate is disabled");
        }
        if a.operation != Operation::Create {
            return refuse(format!("unexpected operation {}", upper(a.operation)));
        }
        if !a.subresource.is_empty() {
            return refuse(format!("unexpected subresource {}", a.subresource));
        }
        let said = |field: &str| text(new, &format!("/spec/{field}"));
        let of_node = said("nodeName");
        if of_node != node {
            return refuse(format!(
                "PodCertificateRequest.Spec.NodeName={of_node:?}, which is not the requesting node {node:?}"
            ));
        }
        let pod_name = said("podName");
        let named = format!("{}/{pod_name}", a.namespace);
        let later = |why: String| Err(Refused::Status(Status::unknown(why)));
        let find = |what: &str, plural: &str, namespace: &str, name: &str| {
            let found = self.lookup.get("", plural, namespace, name);
            found.ok_or_else(|| {
                let why =
                    format!("{what} {name:?} named in the PodCertificateRequest is not found");
                Refused::Status(Status::unknown(why))
            })
        };
        let own = find("node", "nodes", "", node)?;
        if said("nodeUID") != text(&own, "/metadata/uid") {
            return later(format!(
                "PodCertificateRequest for pod {named:?} names node UID {:?}, inconsistent with the running node ({:?})",
                said("nodeUID"),
                text(&own, "/metadata/uid")
            ));
        }
        let pod = find("pod", "pods", a.namespace, pod_name)?;
        if said("podUID") != text(&pod, "/metadata/uid") {
            return later(format!(
                "PodCertificateRequest for pod {named:?} contains pod UID ({:?}) which differs from running pod {:?}",
                said("podUID"),
                text(&pod, "/metadata/uid")
            ));
        }
        if text(&pod, "/spec/nodeName") != node {
            return refuse(format!(
                "pod {named:?} is not running on node {node:?} named in the PodCertificateRequest"
            ));
        }
        if is_mirror(&pod) {
            return refuse(format!("pod {named:?} is a mirror pod"));
        }
        let (account, runs_as) = (
            said("serviceAccountName"),
            text(&pod, "/spec/serviceAccountName"),
        );
        if account != runs_as {
            return refuse(format!(
                "PodCertificateRequest for pod {named:?} contains serviceAccountName ({account:?}) that differs from running pod ({runs_as:?})"
            ));
        }
        let account = find("service account", "serviceaccounts", a.namespace, account)?;
        if said("serviceAccountUID") != text(&account, "/metadata/uid") {
            return later(format!(
                "PodCertificateRequest for pod {named:?} names service account UID {:?}, which differs from the running service account ({:?})",
                said("serviceAccountUID"),
                text(&account, "/metadata/uid")
            ));
        }
        Ok(())
    }

    fn pod(&self, node: &str, a: &Attributes<'_>, new: &Value) -> Verdict {
        match (a.subresource, a.operation) {
            ("", Operation::Create) => self.mirror_pod(node, new),
            ("", Operation::Delete) => {
                let pod = self.find_pod(a.namespace, a.name)?;
                if text(&pod, "/spec/nodeName") != node {
                    return refuse(format!(
                        "node {node:?} can only delete pods with spec.nodeName set to itself"
                    ));
                }
                Ok(())
            }
            ("", operation) => refuse(format!(
                "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
                upper(operation)
            )),
            ("status", Operation::Update) => pod_status(node, a, new),
            ("eviction", Operation::Create) => {
                let pod = match a.name {
                    "" => text(new, "/metadata/name"),
                    name => name,
                };
                if pod.is_empty() {
                    return refuse("could not determine pod from request data");
                }
                let pod = self.find_pod(a.namespace, pod)?;
                if text(&pod, "/spec/nodeName") != node {
                    return refuse(format!(
                        "node {node} can only evict pods with spec.nodeName set to itself"
                    ));
                }
                Ok(())
            }
            ("status", operation) => refuse(format!("unexpected operation {:?}", upper(operation))),
            ("eviction", operation) => refuse(format!("unexpected operation {}", upper(operation))),
            (other, _) => refuse(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            )),
        }
    }

    fn mirror_pod(&self, node: &str, pod: &Value) -> Verdict {
        if !is_mirror(pod) {
            return refuse(format!(
                "pod does not have {MIRROR_ANNOTATION:?} annotation, node {node:?} can only \
                 create mirror pods"
            ));
        }
        if text(pod, "/spec/nodeName") != node {
            return refuse(format!(
                "node {node:?} can only create pods with spec.nodeName set to itself"
            ));
        }
        let owners: Vec<&Value> = items(&pod["metadata"]["ownerReferences"]).collect();
        let owner = match owners.as_slice() {
            [owner] => *owner,
            [] => {
                return refuse(format!(
                    "node {node:?} can only create pods with an owner reference set to itself"
                ));
            }
            _ => {
                return refuse(format!(
                    "node {node:?} can only create pods with a single owner reference set to itself"
                ));
            }
        };
        if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
            return refuse(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        if owner["controller"] != true {
            return refuse(format!(
                "node {node:?} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner["blockOwnerDeletion"] == true {
            return refuse(format!(
                "node {node:?} must not set blockOwnerDeletion on an owner reference"
            ));
        }
        let Some(found) = self.lookup.get("", "nodes", "", node) else {
            let resource = GroupResource::new("", "node");
            return Err(Refused::Status(Status::not_found(&resource, node)));
        };
        let (given, actual) = (text(owner, "/uid"), text(&found, "/metadata/uid"));
        if given != actual {
            return refuse(format!(
                "node {node} UID mismatch: expected {given} got {actual}"
            ));
        }
        match api_reference(pod) {
            Ok(None) => Ok(()),
            Ok(Some(what)) => refuse(format!(
                "node {node:?} can not create pods that reference {what}"
            )),
            Err(error) => refuse(format!(
                "error checking mirror pod for API references: {error}"
            )),
        }
    }

    fn token(&self, node: &str, a: &Attributes<'_>, request: &Value) -> Verdict {
        if a.operation != Operation::Create || a.subresource != "token" {
            return Ok(());
        }
        let bound = &request["spec"]["boundObjectRef"];
        let pod_name = text(bound, "/name");
        if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || pod_name.is_empty() {
            return refuse("node requested token not bound to a pod");
        }
        let uid = text(bound, "/uid");
        if uid.is_empty() {
            return refuse("node requested token with a pod binding without a uid");
        }
        let pod = self.find_pod(a.namespace, pod_name)?;
        if text(&pod, "/metadata/uid") != uid {
            return refuse(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. \
                 The object might have been deleted and then recreated"
            ));
        }
        if text(&pod, "/spec/nodeName") != node {
            return refuse("node requested token bound to a pod scheduled on a different node");
        }
        let audience = match items(&request["spec"]["audiences"]).collect::<Vec<_>>()[..] {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return refuse("node may only request 0 or 1 audiences"),
        };
        if self.pod_wants_audience(&pod, a.namespace, audience) {
            return Ok(());
        }
        let verb = "request-serviceaccounts-token-audience";
        if self.authorizer.allows(&authz::Attributes {
            namespace: a.namespace,
            name: a.name,
            ..authz::Attributes::of_resource(a.user, verb, "", audience)
        }) {
            return Ok(());
        }
        refuse(format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request \
             tokens for this audience",
            a.user.name
        ))
    }

    /// Whether one of the pod's volumes carries a token for this audience, itself or through
    /// its CSI driver.
    fn pod_wants_audience(&self, pod: &Value, namespace: &str, audience: &str) -> bool {
        items(&pod["spec"]["volumes"]).any(|volume| {
            let projected = items(&volume["projected"]["sources"])
                .map(|source| &source["serviceAccountToken"])
                .any(|token| token.is_object() && text(token, "/audience") == audience);
            projected
                || self
                    .csi_driver(pod, namespace, volume)
                    .is_some_and(|driver| {
                        self.lookup
                            .get("storage.k8s.io", "csidrivers", "", &driver)
                            .is_some_and(|driver| {
                                items(&driver["spec"]["tokenRequests"])
                                    .any(|request| text(request, "/audience") == audience)
                            })
                    })
        })
    }

    fn csi_driver(&self, pod: &Value, namespace: &str, volume: &Value) -> Option<String> {
        if let Some(driver) = volume["csi"]["driver"].as_str() {
            return Some(driver.to_owned());
        }
        let claim = if volume["ephemeral"].is_object() {
            format!("{}-{}", text(pod, "/metadata/name"), text(volume, "/name"))
        } else {
            volume["persistentVolumeClaim"]["claimName"]
                .as_str()?
                .to_owned()
        };
        let claim = self
            .lookup
            .get("", "persistentvolumeclaims", namespace, &claim)?;
        let bound = text(&claim, "/spec/volumeName");
        let bound = self.lookup.get("", "persistentvolumes", "", bound)?;
        Some(bound["spec"]["csi"]["driver"].as_str()?.to_owned())
    }
}

fn upper(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// The object's name, which the path does not tell on a create.
fn name<'a>(a: &Attributes<'a>, new: &'a Value) -> &'a str {
    match a.operation {
        Operation::Create => text(new, "/metadata/name"),
        _ => a.name,
    }
}

fn pod_status(node: &str, a: &Attributes<'_>, new: &Value) -> Verdict {
    let old = a.old.unwrap_or(&Value::Null);
    if text(old, "/spec/nodeName") != node {
        return refuse(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if !same(&old["metadata"]["labels"], &new["metadata"]["labels"]) {
        return refuse(format!(
            "node {node:?} cannot update labels through pod status"
        ));
    }
    let (old, new) = (&old["status"], &new["status"]);
    if !same(&old["resourceClaimStatuses"], &new["resourceClaimStatuses"]) {
        return refuse(format!(
            "node {node:?} cannot update resource claim statues"
        ));
    }
    if old["extendedResourceClaimStatus"] != new["extendedResourceClaimStatus"] {
        return refuse(format!(
            "node {node:?} cannot update extended resource claim status"
        ));
    }
    Ok(())
}

/// Equal, where nothing and an empty list or map are the same.
fn same(a: &Value, b: &Value) -> bool {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    a == b || (empty(a) && empty(b))
}

fn own_node(node: &str, a: &Attributes<'_>, new: &Value) -> Verdict {
    // Unlike other resources', a node's name is known on a create: the request's object has it.
    let asked = match a.name {
        "" => text(new, "/metadata/name"),
        name => name,
    };
    if asked != node {
        return refuse(format!(
            "node {node:?} is not allowed to modify node {asked:?}"
        ));
    }
    let config = &new["spec"]["configSource"];
    match a.operation {
        Operation::Create => {
            if config.is_object() {
                return refuse(format!(
                    "node {node:?} is not allowed to create pods with a non-nil configSource"
                ));
            }
            let forbidden = forbidden_labels(&Value::Null, new);
            if !forbidden.is_empty() {
                return refuse(format!(
                    "node {node:?} is not allowed to set the following labels: {forbidden}"
                ));
            }
        }
        Operation::Update => {
            let old = a.old.unwrap_or(&Value::Null);
            if config.is_object() && *config != old["spec"]["configSource"] {
                return refuse(format!(
                    "node {node:?} is not allowed to update configSource to a new non-nil \
                     configSource"
                ));
            }
            if !same(&new["spec"]["taints"], &old["spec"]["taints"]) {
                return refuse(format!("node {node:?} is not allowed to modify taints"));
            }
            let owners = |object: &Value| object["metadata"]["ownerReferences"].clone();
            if !same(&owners(new), &owners(old)) {
                return refuse(format!(
                    "node {node:?} is not allowed to modify ownerReferences"
                ));
            }
            let forbidden = forbidden_labels(old, new);
            if !forbidden.is_empty() {
                return refuse(format!("is not allowed to modify labels: {forbidden}"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// The labels that differ and are not for a kubelet to set, joined for a message.
fn forbidden_labels(old: &Value, new: &Value) -> String {
    let (old, new) = (&old["metadata"]["labels"], &new["metadata"]["labels"]);
    let keys = [old, new]
        .into_iter()
        .filter_map(Value::as_object)
        .flat_map(|labels| labels.keys());
    let forbidden: BTreeSet<&str> = keys
        .filter(|key| old[key.as_str()] != new[key.as_str()] && is_forbidden(key))
        .map(String::as_str)
        .collect();
    forbidden.into_iter().collect::<Vec<_>>().join(", ")
}

fn is_forbidden(key: &str) -> bool {
    let namespace = key.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |domain: &str| {
        namespace == domain
            || namespace
                .strip_suffix(domain)
                .is_some_and(|rest| rest.ends_with('.'))
    };
    if within(RESTRICTED_NAMESPACE) {
        return true;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    let kubelets = KUBELET_LABELS.contains(&key)
        || KUBELET_LABEL_NAMESPACES.iter().any(|domain| within(domain));
    kubernetes && !kubelets
}

fn claim_status(node: &str, a: &Attributes<'_>, new: &Value) -> Verdict {
    if a.subresource != "status" {
        return refuse("may only update PVC status");
    }
    if a.operation != Operation::Update {
        return refuse(format!("unexpected operation {:?}", upper(a.operation)));
    }
    let strip = |claim: &Value| {
        let mut claim = claim.clone();
        if let Some(metadata) = claim["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
            metadata.remove("managedFields");
        }
        if let Some(status) = claim["status"].as_object_mut() {
            for field in [
                "capacity",
                "conditions",
                "allocatedResourceStatuses",
                "allocatedResources",
            ] {
                status.remove(field);
            }
        }
        claim
    };
    if strip(a.old.unwrap_or(&Value::Null)) != strip(new) {
        return refuse(format!(
            "node {node:?} is not allowed to update fields other than status.quantity and \
             status.conditions"
        ));
    }
    Ok(())
}

fn own_lease(node: &str, a: &Attributes<'_>, new: &Value) -> Verdict {
    if a.namespace != LEASE_NAMESPACE {
        return refuse(format!(
            "can only access leases in the {LEASE_NAMESPACE:?} system namespace"
        ));
    }
    if name(a, new) != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn own_slice(node: &str, a: &Attributes<'_>, new: &Value) -> Verdict {
    let (slice, verb) = match a.operation {
        Operation::Create => (new, "create"),
        Operation::Delete => (a.old.unwrap_or(&Value::Null), "delete"),
        _ => return Ok(()),
    };
    if slice["spec"]["nodeName"] != node {
        return refuse(format!(
            "can only {verb} ResourceSlice with the same NodeName as the requesting node"
        ));
    }
    Ok(())
}

fn own_request(node: &str, a: &Attributes<'_>, new: &Value) -> Verdict {
    if a.operation != Operation::Create || !KUBELET_SIGNERS.contains(&text(new, "/spec/signerName"))
    {
        return Ok(());
    }
    let (common_name, _) =
        certificates::subject(new).map_err(|e| format!("unable to parse csr: {e}"))?;
    if common_name != format!("system:node:{node}") {
        return refuse(format!(
            "can only create a node CSR with CN=system:node:{node}"
        ));
    }
    Ok(())
}

/// The first thing of the API that a pod names: a static pod may name none.
fn api_reference(pod: &Value) -> Result<Option<&'static str>, String> {
    const LOCAL: [&str; 21] = [
        "awsElasticBlockStore",
        "azureDisk",
        "cephfs",
        "cinder",
        "downwardAPI",
        "emptyDir",
        "fc",
        "flexVolume",
        "flocker",
        "gcePersistentDisk",
        "gitRepo",
        "hostPath",
        "image",
        "iscsi",
        "nfs",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "rbd",
        "scaleIO",
        "storageos",
    ];
    const REMOTE: [(&str, &str); 7] = [
        ("configMap", "configmaps (via configmap volumes)"),
        ("secret", "secrets (via secret volumes)"),
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        (
            "ephemeral",
            "persistentvolumeclaims (via ephemeral volumes)",
        ),
        ("azureFile", "secrets (via azureFile volumes)"),
    ];
    const PROJECTED: [(&str, &str); 5] = [
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        (
            "serviceAccountToken",
            "serviceaccounts (via projected volumes)",
        ),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return Ok(Some("serviceaccounts"));
    }
    match references_secrets_and_config_maps(pod) {
        (true, _) => return Ok(Some("secrets")),
        (_, true) => return Ok(Some("configmaps")),
        _ => {}
    }
    if items(&pod["spec"]["resourceClaims"]).next().is_some() {
        return Ok(Some("resourceclaims"));
    }
    for volume in items(&pod["spec"]["volumes"]) {
        let has = |field: &str| volume[field].is_object();
        if LOCAL.iter().any(|f| has(f)) || has("vsphereVolume") {
            continue;
        }
        if let Some((_, what)) = REMOTE.iter().find(|(field, _)| has(field)) {
            return Ok(Some(what));
        }
        if !has("projected") {
            let name = text(volume, "/name");
            return Err(format!("unknown volume type for volume  {name:?}"));
        }
        for source in items(&volume["projected"]["sources"]) {
            if let Some((_, what)) = PROJECTED.iter().find(|(f, _)| source[*f].is_object()) {
                return Ok(Some(what));
            }
            if !source["downwardAPI"].is_object() {
                let name = text(volume, "/name");
                return Err(format!("unknown source for projected volume {name:?}"));
            }
        }
    }
    Ok(None)
}

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation != Operation::Connect
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        ready(self.admit(attributes, object.map(|o| &*o)))
    }
}
