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
    let request = json!({"metadata": {"name": "r", "namespace": "ns"}, "spec": {"nodeName": "n1"}});
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

fn allowed(node: &NodeAuthorizer, who: &User, Ask(verb, group, resource, ns, name): Ask) -> bool {
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
    assert!(node.graph.read().is_empty());
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
