//! ReplicaSets and ReplicationControllers.

use serde_json::{Value, json};

use super::Book;
use super::templates::{merged, pod, replicaset, template};
use crate::controllers::World;
use crate::controllers::world::Propagation;

const KINDS: [&str; 2] = ["ReplicaSet", "ReplicationController"];

pub fn write(book: &mut Book) {
    for kind in KINDS {
        let name = |what: &str| format!("{}/{what}", kind.to_lowercase());
        for (from, to) in [(0, 0), (2, 2), (1, 12), (5, 2), (2, 0)] {
            book.with(name(&format!("scale-{from}-{to}")), (kind, from, to), scale);
        }
        book.with(name("pod-failed"), kind, pod_failed);
        book.with(name("pod-deleted"), kind, pod_deleted);
        book.with(name("adopt"), kind, adopt);
        book.with(name("release"), kind, release);
        book.with(name("min-ready"), kind, min_ready);
        book.with(name("refused-pods"), kind, refused);
        book.with(name("deletion-cost"), kind, cost);
        book.with(name("order-of-deletion"), kind, order);
        book.with(name("labels-of-status"), kind, labels);
        for policy in [
            Propagation::Foreground,
            Propagation::Background,
            Propagation::Orphan,
        ] {
            book.with(name(&format!("delete-{policy:?}")), (kind, policy), delete);
        }
    }
}

fn of(kind: &str, spec: Value) -> Value {
    if kind == "ReplicaSet" {
        return replicaset("r", spec);
    }
    let base = json!({"selector": {"app": "r"}, "template": template("r", "one")});
    json!({
        "apiVersion": "v1", "kind": kind, "metadata": {"name": "r"}, "spec": merged(base, spec),
    })
}

async fn ready(w: &World, kind: &str, count: i32) {
    w.until_field(kind, "r", "/status/readyReplicas", json!(count))
        .await;
}

async fn start(w: &World, kind: &str, replicas: i32) {
    w.kubelets();
    w.create(of(kind, json!({"replicas": replicas}))).await;
    w.until_field(kind, "r", "/status/observedGeneration", json!(1))
        .await;
    ready(w, kind, replicas).await;
}

async fn scale(w: World, (kind, from, to): (&'static str, i32, i32)) {
    start(&w, kind, from).await;
    w.patch(kind, "r", json!({"spec": {"replicas": to}})).await;
    ready(&w, kind, to).await;
    w.see("scaled").await;
}

async fn pod_failed(w: World, kind: &'static str) {
    start(&w, kind, 2).await;
    w.end(&w.pods()[0], 1).await;
    w.rest().await;
    ready(&w, kind, 2).await;
    w.see("replaced").await;
}

async fn pod_deleted(w: World, kind: &'static str) {
    start(&w, kind, 2).await;
    w.no_kubelets();
    let name = w.pods()[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    w.delete("Pod", &name, Propagation::Background).await;
    w.see("it ends, another waits").await;
    w.kubelets();
    w.rest().await;
    ready(&w, kind, 2).await;
    w.see("replaced").await;
}

async fn adopt(w: World, kind: &'static str) {
    w.kubelets();
    for name in ["a", "b", "c"] {
        w.create(pod(name, "r")).await;
    }
    w.rest().await;
    w.create(of(kind, json!({"replicas": 3}))).await;
    ready(&w, kind, 3).await;
    w.see("adopted").await;
}

async fn release(w: World, kind: &'static str) {
    start(&w, kind, 2).await;
    let name = w.pods()[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    w.patch(
        "Pod",
        &name,
        json!({"metadata": {"labels": {"app": "other"}}}),
    )
    .await;
    w.until_pods(3).await;
    w.see("released").await;
}

async fn min_ready(w: World, kind: &'static str) {
    w.kubelets();
    w.create(of(kind, json!({"replicas": 2, "minReadySeconds": 2})))
        .await;
    w.until_field(kind, "r", "/status/availableReplicas", json!(2))
        .await;
    w.see("available").await;
}

/// Pods need a service account that there is not.
async fn refused(w: World, kind: &'static str) {
    let spec = json!({"replicas": 3, "template": {"spec": {"serviceAccountName": "nobody"}}});
    w.create(of(kind, spec)).await;
    w.until_condition(kind, "r", "ReplicaFailure").await;
    w.see("refused").await;
    let account = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "nobody"},
    });
    w.create(account).await;
    w.until_pods(3).await;
    w.see("allowed").await;
}

async fn cost(w: World, kind: &'static str) {
    start(&w, kind, 3).await;
    let pods = w.pods();
    for (pod, cost) in pods.iter().zip(["5", "-5", "0"]) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let cost = json!({"controller.kubernetes.io/pod-deletion-cost": cost});
        w.patch("Pod", name, json!({"metadata": {"annotations": cost}}))
            .await;
    }
    w.rest().await;
    w.patch(kind, "r", json!({"spec": {"replicas": 1}})).await;
    w.until_pods(1).await;
    w.see("the dearest stays").await;
}

/// First those without a node, then those that wait, then those that are not ready, then
/// those that were restarted most.
async fn order(w: World, kind: &'static str) {
    w.create(of(kind, json!({"replicas": 5}))).await;
    w.until_pods(5).await;
    let pods = w.pods();
    w.bind(&pods[1], "node1").await;
    w.run_as(&pods[2], false, 0).await;
    w.run_as(&pods[3], true, 4).await;
    w.run_as(&pods[4], true, 0).await;
    ready(&w, kind, 2).await;
    w.rest().await;
    for left in [4, 3, 2, 1] {
        w.patch(kind, "r", json!({"spec": {"replicas": left}}))
            .await;
        w.until_pods(left).await;
        w.kill_ending().await;
        w.see(&format!("{left} left")).await;
    }
}

async fn labels(w: World, kind: &'static str) {
    let labels = json!({"app": "r", "tier": "front"});
    let template = json!({"metadata": {"labels": labels}});
    let mut object = of(kind, json!({"replicas": 2, "template": template}));
    if kind == "ReplicaSet" {
        object["spec"]["selector"] = json!({"matchLabels": labels});
    } else {
        object["spec"]["selector"] = labels;
    }
    w.create(object).await;
    w.until_pods(2).await;
    for pod in w.pods().iter().take(1) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        w.patch(
            "Pod",
            name,
            json!({"metadata": {"labels": {"tier": "back"}}}),
        )
        .await;
    }
    w.until_pods(3).await;
    w.see("labels").await;
}

async fn delete(w: World, (kind, policy): (&'static str, Propagation)) {
    start(&w, kind, 2).await;
    w.delete(kind, "r", policy).await;
    w.until_gone(kind, "r").await;
    if policy != Propagation::Orphan {
        w.until("no pods", |w| w.list("Pod").is_empty()).await;
    }
    w.see("deleted").await;
}
