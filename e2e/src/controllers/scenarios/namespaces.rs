//! Namespaces and their end, quotas, service accounts, roles, certificates.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use super::Book;
use super::templates::{
    claim, config, cronjob, deployment, merged, pod, replicaset, service, statefulset,
};
use crate::controllers::World;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    book.add("namespace/deleted-empty", deleted_empty);
    book.add("namespace/deleted-full", deleted_full);
    book.add("namespace/held-by-finalizer", held);
    book.add("namespace/own-finalizer", own_finalizer);
    for (name, spec) in quotas() {
        book.with(format!("quota/{name}"), spec, quota);
    }
    book.add("quota/stops-a-replicaset", stops);
    book.add("quota/stops-a-statefulset", stops_statefulset);
    book.add("quota/changed", quota_changed);
    book.add("quota/released", quota_released);
    book.add("account/default-deleted", default_deleted);
    book.add("account/token", token);
    book.add("account/token-of-nobody", token_of_nobody);
    book.add("account/deleted-with-token", deleted_with_token);
    book.add("account/root-ca-deleted", root_ca_deleted);
    book.add("account/root-ca-changed", root_ca_changed);
    book.add("role/aggregated", aggregated);
    book.add("role/aggregated-changes", aggregated_changes);
    for signer in [
        "kube-apiserver-client",
        "kube-apiserver-client-kubelet",
        "kubelet-serving",
        "legacy-unknown",
    ] {
        book.with(format!("certificate/approved-{signer}"), signer, approved);
    }
    book.add("certificate/denied", denied);
    book.add("certificate/of-node", of_node);
}

async fn other(w: &World) -> Value {
    w.namespace_too("other").await;
    json!({"metadata": {"namespace": w.name("other")}})
}

async fn end(w: &World) {
    w.delete("Namespace", &w.name("other"), Propagation::Background)
        .await;
}

async fn deleted_empty(w: World) {
    other(&w).await;
    end(&w).await;
    w.until_gone("Namespace", &w.name("other")).await;
    w.see("gone").await;
}

async fn deleted_full(w: World) {
    let there = other(&w).await;
    w.kubelets();
    for object in [
        config("c"),
        deployment("d", json!({"replicas": 2})),
        statefulset("s", &["data"], json!({"replicas": 1})),
        service("s", json!({})),
        claim("c", "x", json!({})),
        cronjob("c", json!({"suspend": true})),
    ] {
        w.create(merged(object, there.clone())).await;
    }
    w.until("pods that run", |w| {
        let pods = w.list("Pod");
        pods.len() == 3 && pods.iter().all(|p| p["status"]["phase"] == "Running")
    })
    .await;
    w.rest().await;
    end(&w).await;
    w.until_gone("Namespace", &w.name("other")).await;
    w.see("gone").await;
}

async fn held(w: World) {
    let there = other(&w).await;
    let finalizer = json!({"metadata": {"finalizers": ["example.com/mine"]}});
    w.create(merged(
        merged(config("c"), there.clone()),
        finalizer.clone(),
    ))
    .await;
    w.create(merged(merged(claim("c", "x", json!({})), there), finalizer))
        .await;
    w.rest().await;
    end(&w).await;
    w.see("held").await;
    let name = w.name("other");
    for (kind, object) in [("configmaps", "c"), ("persistentvolumeclaims", "c")] {
        let path = format!("/api/v1/namespaces/{name}/{kind}/{object}");
        w.merge_at(&path, json!({"metadata": {"finalizers": null}}))
            .await;
    }
    w.until_gone("Namespace", &name).await;
    w.see("gone").await;
}

async fn own_finalizer(w: World) {
    other(&w).await;
    let name = w.name("other");
    let patch = json!({"metadata": {"finalizers": ["example.com/mine"]}});
    w.patch("Namespace", &name, patch).await;
    end(&w).await;
    w.see("held").await;
    w.patch(
        "Namespace",
        &name,
        json!({"metadata": {"finalizers": null}}),
    )
    .await;
    w.until_gone("Namespace", &name).await;
    w.see("gone").await;
}

fn quotas() -> Vec<(&'static str, Value)> {
    let of_scope = |scope: &str, hard: Value| json!({"hard": hard, "scopes": [scope]});
    let class = json!({"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]},
    ]});
    vec![
        (
            "pods",
            json!({"hard": {"pods": "10", "requests.cpu": "5", "limits.memory": "5Gi", "memory": "9Gi"}}),
        ),
        (
            "objects",
            json!({"hard": {
                "configmaps": "10", "secrets": "10", "services": "5", "services.nodeports": "2",
                "services.loadbalancers": "1", "persistentvolumeclaims": "4", "resourcequotas": "2",
                "replicationcontrollers": "3",
            }}),
        ),
        (
            "counts",
            json!({"hard": {
                "count/deployments.apps": "3", "count/replicasets.apps": "9", "count/jobs.batch": "2",
                "count/configmaps": "10", "count/pods": "20", "count/nonsense.example.com": "1",
            }}),
        ),
        (
            "storage",
            json!({"hard": {
                "requests.storage": "50Gi", "x.storageclass.storage.k8s.io/requests.storage": "9Gi",
                "x.storageclass.storage.k8s.io/persistentvolumeclaims": "3",
            }}),
        ),
        (
            "extended",
            json!({"hard": {"requests.example.com/gpu": "4"}}),
        ),
        ("best-effort", of_scope("BestEffort", json!({"pods": "5"}))),
        (
            "not-best-effort",
            of_scope("NotBestEffort", json!({"pods": "5", "cpu": "5"})),
        ),
        ("terminating", of_scope("Terminating", json!({"pods": "5"}))),
        (
            "not-terminating",
            of_scope("NotTerminating", json!({"pods": "5"})),
        ),
        (
            "priority",
            json!({"hard": {"pods": "5"}, "scopeSelector": class}),
        ),
        (
            "affinity",
            of_scope("CrossNamespacePodAffinity", json!({"pods": "5"})),
        ),
    ]
}

async fn quota(w: World, spec: Value) {
    w.kubelets();
    let resources = |cpu: &str| {
        json!({"spec": {"containers": [{"name": "c", "image": "one", "resources": {
            "requests": {"cpu": cpu, "memory": "1Gi", "example.com/gpu": "1"},
            "limits": {"memory": "2Gi", "example.com/gpu": "1"},
        }}]}})
    };
    w.create(pod("besteffort", "p")).await;
    w.create(merged(pod("burstable", "p"), resources("500m")))
        .await;
    w.create(merged(
        pod("deadline", "p"),
        json!({"spec": {"activeDeadlineSeconds": 1000}}),
    ))
    .await;
    w.create(merged(
        pod("important", "p"),
        json!({"spec": {"priorityClassName": "system-node-critical"}}),
    ))
    .await;
    w.create(service("s", json!({"type": "NodePort"}))).await;
    w.create(config("c")).await;
    w.create(claim("c", "x", json!({}))).await;
    w.create(deployment("d", json!({"replicas": 1}))).await;
    w.rest().await;
    w.create(json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": spec,
    }))
    .await;
    w.until("its status", |w| {
        !w.field("ResourceQuota", "q", "/status/hard").is_null()
    })
    .await;
    w.see("counted").await;
    if let Some(pod) = w.get("Pod", "burstable") {
        w.end(&pod, 0).await;
    }
    w.delete("Service", "s", Propagation::Background).await;
    w.pass(std::time::Duration::from_secs(6)).await;
    w.see("counted anew").await;
}

async fn limit(w: &World, hard: Value) {
    w.create(json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": hard},
    }))
    .await;
    w.until("its status", |w| {
        !w.field("ResourceQuota", "q", "/status/used").is_null()
    })
    .await;
}

async fn stops(w: World) {
    w.kubelets();
    limit(&w, json!({"pods": "2"})).await;
    w.create(replicaset("r", json!({"replicas": 4}))).await;
    w.until_condition("ReplicaSet", "r", "ReplicaFailure").await;
    w.until_pods(2).await;
    w.see("two of four").await;
}

async fn stops_statefulset(w: World) {
    w.kubelets();
    limit(&w, json!({"pods": "1"})).await;
    w.create(statefulset("s", &[], json!({"replicas": 2})))
        .await;
    w.until_event("FailedCreate").await;
    w.see("one of two").await;
}

async fn quota_changed(w: World) {
    limit(&w, json!({"configmaps": "5"})).await;
    w.create(config("c")).await;
    let hard = json!({"configmaps": "9", "secrets": "3"});
    w.patch("ResourceQuota", "q", json!({"spec": {"hard": hard}}))
        .await;
    w.see("changed").await;
}

async fn quota_released(w: World) {
    w.kubelets();
    limit(&w, json!({"pods": "1", "persistentvolumeclaims": "2"})).await;
    w.create(pod("a", "p")).await;
    w.create(claim("c", "x", json!({}))).await;
    w.rest().await;
    w.delete("Pod", "a", Propagation::Background).await;
    w.delete("PersistentVolumeClaim", "c", Propagation::Background)
        .await;
    w.until_field("ResourceQuota", "q", "/status/used/pods", json!("0"))
        .await;
    w.see("released").await;
}

async fn default_deleted(w: World) {
    let uid = w.field("ServiceAccount", "default", "/metadata/uid");
    w.delete("ServiceAccount", "default", Propagation::Background)
        .await;
    w.until("another", |w| {
        let new = w.field("ServiceAccount", "default", "/metadata/uid");
        new.is_string() && new != uid
    })
    .await;
    w.see("made anew").await;
}

fn secret(account: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": account}},
    })
}

async fn token(w: World) {
    w.create(secret("default")).await;
    w.until("a token", |w| {
        w.field("Secret", "t", "/data/token").is_string()
    })
    .await;
    w.see("given").await;
}

async fn token_of_nobody(w: World) {
    w.create(secret("nobody")).await;
    w.see("nobody").await;
}

async fn deleted_with_token(w: World) {
    w.create(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "mine"}}))
        .await;
    w.create(secret("mine")).await;
    w.until("a token", |w| {
        w.field("Secret", "t", "/data/token").is_string()
    })
    .await;
    w.delete("ServiceAccount", "mine", Propagation::Background)
        .await;
    w.until_gone("Secret", "t").await;
    w.see("gone").await;
}

fn root_ca(w: &World) -> Value {
    w.field("ConfigMap", "kube-root-ca.crt", "/data")
}

async fn root_ca_deleted(w: World) {
    w.until("a root CA", |w| root_ca(w).is_object()).await;
    let uid = w.field("ConfigMap", "kube-root-ca.crt", "/metadata/uid");
    w.delete("ConfigMap", "kube-root-ca.crt", Propagation::Background)
        .await;
    w.until("another", |w| {
        let new = w.field("ConfigMap", "kube-root-ca.crt", "/metadata/uid");
        new.is_string() && new != uid
    })
    .await;
    w.see("made anew").await;
}

async fn root_ca_changed(w: World) {
    w.until("a root CA", |w| root_ca(w).is_object()).await;
    let before = root_ca(&w);
    w.patch(
        "ConfigMap",
        "kube-root-ca.crt",
        json!({"data": {"ca.crt": "x"}}),
    )
    .await;
    w.rest().await;
    w.until("the root CA", |w| root_ca(w) == before).await;
    w.see("set right").await;
}

fn role(name: &str, part: &str, verbs: &[&str]) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"part": part}},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}],
    })
}

async fn aggregate(w: &World) {
    w.create(role(&w.name("a"), w.namespace(), &["get"])).await;
    w.create(role(&w.name("b"), w.namespace(), &["list"])).await;
    w.create(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": w.name("sum")},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": w.namespace()}}]},
        "rules": null,
    }))
    .await;
}

async fn aggregated(w: World) {
    aggregate(&w).await;
    w.see("the sum").await;
}

async fn aggregated_changes(w: World) {
    aggregate(&w).await;
    w.rest().await;
    w.create(role(&w.name("c"), w.namespace(), &["watch"]))
        .await;
    w.delete("ClusterRole", &w.name("a"), Propagation::Background)
        .await;
    w.see("another sum").await;
}

/// A request as kubelets make it.
fn request(common_name: &str, organization: &str) -> Option<String> {
    let key = rcgen::KeyPair::generate().ok()?;
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).ok()?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    let name = &mut parameters.distinguished_name;
    name.push(rcgen::DnType::OrganizationName, organization);
    name.push(rcgen::DnType::CommonName, common_name);
    let request = parameters.serialize_request(&key).ok()?;
    Some(BASE64.encode(request.pem().ok()?))
}

async fn ask(w: &World, signer: &str, usages: &[&str]) {
    w.create(json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": w.namespace()},
        "spec": {
            "request": request("system:node:n1", "system:nodes"),
            "signerName": format!("kubernetes.io/{signer}"), "usages": usages,
            "expirationSeconds": 3600,
        },
    }))
    .await;
}

async fn decide(w: &World, ty: &str) {
    let condition = json!({"type": ty, "status": "True", "reason": "Because", "message": "so"});
    let path = format!(
        "/apis/certificates.k8s.io/v1/certificatesigningrequests/{}/approval",
        w.namespace()
    );
    w.merge_at(&path, json!({"status": {"conditions": [condition]}}))
        .await;
}

async fn approved(w: World, signer: &'static str) {
    let usage = if signer == "kubelet-serving" {
        "server auth"
    } else {
        "client auth"
    };
    ask(&w, signer, &["digital signature", usage]).await;
    w.rest().await;
    decide(&w, "Approved").await;
    w.see("approved").await;
}

async fn denied(w: World) {
    ask(&w, "kube-apiserver-client", &["client auth"]).await;
    w.rest().await;
    decide(&w, "Denied").await;
    w.see("denied").await;
}

async fn of_node(w: World) {
    ask(
        &w,
        "kube-apiserver-client-kubelet",
        &["digital signature", "client auth"],
    )
    .await;
    w.see("the administrator may").await;
}
