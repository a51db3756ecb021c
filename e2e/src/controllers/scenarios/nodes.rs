//! Nodes that come, sicken and go, and the pods on them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Book;
use super::templates::{merged, pod, replicaset, service, statefulset};
use crate::controllers::World;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    book.add("node/comes", comes);
    book.add("node/not-ready", not_ready);
    book.add("node/not-ready-and-back", back);
    book.add("node/silent", silent);
    book.add("node/silent-and-back", silent_back);
    for condition in [
        "MemoryPressure",
        "DiskPressure",
        "PIDPressure",
        "NetworkUnavailable",
    ] {
        book.with(format!("node/{condition}"), condition, pressure);
    }
    book.add("node/unschedulable", unschedulable);
    book.add("node/labels", labels);
    for (name, toleration) in [
        ("none", json!([])),
        ("all", json!([{"operator": "Exists"}])),
        (
            "for-a-while",
            json!([{"key": "example.com/t", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}]),
        ),
        (
            "for-long",
            json!([{"key": "example.com/t", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1000}]),
        ),
        (
            "another",
            json!([{"key": "example.com/other", "operator": "Exists"}]),
        ),
    ] {
        book.with(
            format!("node/eviction-tolerating-{name}"),
            toleration,
            eviction,
        );
    }
    book.add("node/eviction-called-off", called_off);
    book.add("node/eviction-of-deleted-pod", deleted_meanwhile);
    book.add("node/gone-with-pods", gone);
    book.add("node/out-of-service", out_of_service);
    book.add("node/statefulset-on-dead-node", statefulset_on_dead);
    book.add("node/ended-pods-of-gone-node", ended_of_gone);
    book.add("node/service-of-not-ready-node", service_of_not_ready);
}

async fn on_node(w: &World, name: &str, spec: Value) -> Arc<Value> {
    w.create(merged(pod(name, name), json!({"spec": spec})))
        .await;
    w.until(&format!("Pod/{name}"), |w| w.get("Pod", name).is_some())
        .await;
    let pod = w.get("Pod", name).unwrap_or_default();
    w.bind(&pod, &w.name("n")).await;
    let bound = |w: &World| w.field("Pod", name, "/spec/nodeName").is_string();
    w.until("it to be bound", bound).await;
    let pod = w.get("Pod", name).unwrap_or_default();
    w.run(&pod).await;
    w.get("Pod", name).unwrap_or_default()
}

async fn node(w: &World) {
    w.node("n", json!({}), json!([])).await;
    w.rest().await;
}

async fn comes(w: World) {
    node(&w).await;
    w.see("comes").await;
}

async fn not_ready(w: World) {
    node(&w).await;
    on_node(&w, "p", json!({})).await;
    w.node_ready("n", false).await;
    w.see("not ready").await;
}

async fn back(w: World) {
    node(&w).await;
    on_node(&w, "p", json!({})).await;
    w.node_ready("n", false).await;
    w.rest().await;
    w.node_ready("n", true).await;
    w.see("back").await;
}

fn unreachable(w: &World) -> bool {
    let taints = w.field("Node", &w.name("n"), "/spec/taints").to_string();
    taints.contains("unreachable") && taints.contains("NoExecute")
}

async fn silent(w: World) {
    node(&w).await;
    on_node(&w, "p", json!({})).await;
    w.silence("n");
    w.until("it to be unreachable", unreachable).await;
    w.see("silent").await;
}

async fn silent_back(w: World) {
    node(&w).await;
    on_node(&w, "p", json!({})).await;
    w.silence("n");
    w.until("it to be unreachable", unreachable).await;
    w.node_ready("n", true).await;
    if let Some(pod) = w.get("Pod", "p") {
        w.run(&pod).await;
    }
    w.until("no taint", |w| !unreachable(w)).await;
    w.see("back").await;
}

async fn pressure(w: World, condition: &'static str) {
    node(&w).await;
    let conditions = |status: bool| {
        json!({"conditions": [
            crate::controllers::kubelet::node_condition("Ready", true),
            crate::controllers::kubelet::node_condition(condition, status),
        ]})
    };
    w.patch_status("Node", &w.name("n"), conditions(true)).await;
    w.see("tainted").await;
    w.patch_status("Node", &w.name("n"), conditions(false))
        .await;
    w.see("no more").await;
}

async fn unschedulable(w: World) {
    node(&w).await;
    w.patch(
        "Node",
        &w.name("n"),
        json!({"spec": {"unschedulable": true}}),
    )
    .await;
    w.see("unschedulable").await;
    w.patch(
        "Node",
        &w.name("n"),
        json!({"spec": {"unschedulable": null}}),
    )
    .await;
    w.see("schedulable").await;
}

async fn labels(w: World) {
    node(&w).await;
    let labels = json!({
        "beta.kubernetes.io/os": "other", "kubernetes.io/arch": "amd64",
    });
    w.patch(
        "Node",
        &w.name("n"),
        json!({"metadata": {"labels": labels}}),
    )
    .await;
    w.see("set right").await;
}

fn taint() -> Value {
    json!({"spec": {"taints": [{"key": "example.com/t", "effect": "NoExecute"}]}})
}

async fn eviction(w: World, tolerations: Value) {
    node(&w).await;
    on_node(&w, "p", json!({"tolerations": tolerations})).await;
    w.rest().await;
    w.patch("Node", &w.name("n"), taint()).await;
    w.pass(Duration::from_secs(3)).await;
    w.see("tainted").await;
}

async fn called_off(w: World) {
    node(&w).await;
    let toleration = json!([{
        "key": "example.com/t", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 4,
    }]);
    on_node(&w, "p", json!({"tolerations": toleration})).await;
    w.rest().await;
    w.patch("Node", &w.name("n"), taint()).await;
    w.pass(Duration::from_secs(1)).await;
    w.patch("Node", &w.name("n"), json!({"spec": {"taints": null}}))
        .await;
    w.pass(Duration::from_secs(4)).await;
    w.see("called off").await;
}

async fn deleted_meanwhile(w: World) {
    node(&w).await;
    let toleration = json!([{
        "key": "example.com/t", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": 100,
    }]);
    let pod = on_node(&w, "p", json!({"tolerations": toleration})).await;
    w.rest().await;
    w.patch("Node", &w.name("n"), taint()).await;
    w.rest().await;
    w.kill(&pod).await;
    w.see("deleted").await;
}

async fn gone(w: World) {
    node(&w).await;
    on_node(&w, "p", json!({})).await;
    w.silence("n");
    w.delete("Node", &w.name("n"), Propagation::Background)
        .await;
    w.until_for(Duration::from_secs(120), "the pod to be gone", |w| {
        w.list("Pod").is_empty()
    })
    .await;
    w.see("gone").await;
}

async fn ended_of_gone(w: World) {
    node(&w).await;
    let pod = on_node(&w, "p", json!({})).await;
    w.end(&pod, 0).await;
    w.silence("n");
    w.delete("Node", &w.name("n"), Propagation::Background)
        .await;
    w.until_for(Duration::from_secs(120), "the pod to be gone", |w| {
        w.list("Pod").is_empty()
    })
    .await;
    w.see("gone").await;
}

async fn out_of_service(w: World) {
    node(&w).await;
    on_node(&w, "p", json!({})).await;
    w.node_ready("n", false).await;
    w.rest().await;
    w.delete("Pod", "p", Propagation::Background).await;
    w.rest().await;
    let name = w.name("n");
    let mut taints = w.field("Node", &name, "/spec/taints");
    if let Some(taints) = taints.as_array_mut() {
        taints.push(json!({
            "key": "node.kubernetes.io/out-of-service", "value": "x", "effect": "NoExecute",
        }));
    }
    w.patch("Node", &name, json!({"spec": {"taints": taints}}))
        .await;
    w.until_for(Duration::from_secs(60), "the pod to be gone", |w| {
        w.list("Pod").is_empty()
    })
    .await;
    w.see("gone").await;
}

/// No second pod of an identity, however dead the first looks.
async fn statefulset_on_dead(w: World) {
    node(&w).await;
    w.create(statefulset("s", &[], json!({"replicas": 1})))
        .await;
    w.until_pods(1).await;
    let pod = w.pods().remove(0);
    w.bind(&pod, &w.name("n")).await;
    w.run(&pod).await;
    w.until_field("StatefulSet", "s", "/status/readyReplicas", json!(1))
        .await;
    w.silence("n");
    w.until("it to be unreachable", unreachable).await;
    w.delete("Pod", "s-0", Propagation::Background).await;
    w.see("it is waited for").await;
}

async fn service_of_not_ready(w: World) {
    node(&w).await;
    w.create(service("s", json!({}))).await;
    w.create(replicaset("s", json!({"replicas": 1}))).await;
    w.until_pods(1).await;
    let pod = w.pods().remove(0);
    w.bind(&pod, &w.name("n")).await;
    w.run(&pod).await;
    w.rest().await;
    w.node_ready("n", false).await;
    w.see("no endpoint").await;
}
