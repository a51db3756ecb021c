//! Endpoints that are shared out among zones. There are as many of these as nodes say: one
//! scenario after the other, each with its own.

use serde_json::{Value, json};

use super::Book;
use super::templates::{merged, pod, service};
use crate::controllers::World;
use crate::controllers::side::NO_ZONE;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    book.add("endpointslice/zones", zones);
    book.add("endpointslice/zones-too-few-endpoints", too_few);
    book.add("endpointslice/zones-come-and-go", come_and_go);
    book.add("endpointslice/zones-node-without", node_without);
}

/// A node that is of some weight for zones.
async fn node(w: &World, name: &str, zone: Value) {
    let labels = json!({NO_ZONE: null, "topology.kubernetes.io/zone": zone});
    w.node(name, labels, json!([])).await;
    // The manager knows of it when it has done its first work about it.
    let first = "/metadata/labels/beta.kubernetes.io~1os";
    w.until_field("Node", &w.name(name), first, json!("linux"))
        .await;
}

/// Nodes that are called as their zones are.
async fn nodes(w: &World, names: &[&str]) {
    for name in names {
        node(w, name, json!(name)).await;
    }
    w.rest().await;
}

/// The zones are gone before others have theirs.
async fn no_nodes(w: &World, names: &[&str]) {
    for name in names {
        w.silence(name);
        let name = w.name(name);
        w.delete("Node", &name, Propagation::Background).await;
        w.until_gone("Node", &name).await;
    }
}

/// A ready pod of the Service.
async fn ready(w: &World, name: &str, node: &str) {
    w.create(pod(name, "s")).await;
    let there = |w: &World| w.get("Pod", name).is_some();
    w.until(&format!("Pod/{name}"), there).await;
    if let Some(pod) = w.get("Pod", name) {
        w.bind(&pod, &w.name(node)).await;
    }
    let bound = |w: &World| w.field("Pod", name, "/spec/nodeName").is_string();
    w.until("it to be bound", bound).await;
    if let Some(pod) = w.get("Pod", name) {
        w.run(&pod).await;
    }
}

fn annotated(annotations: Value) -> Value {
    json!({"metadata": {"annotations": annotations}})
}

fn mode(mode: &str) -> Value {
    annotated(json!({"service.kubernetes.io/topology-mode": mode}))
}

async fn zones(w: World) {
    let _alone = w.zones().await;
    let names = ["east", "north", "west"];
    nodes(&w, &names).await;
    for (pod, node) in [("p1", "east"), ("p2", "north"), ("p3", "west")] {
        ready(&w, pod, node).await;
    }
    // All pods are known before the Service.
    w.rest().await;
    w.create(merged(service("s", json!({})), mode("Auto")))
        .await;
    w.see("each its own").await;
    w.patch("Service", "s", mode("Disabled")).await;
    w.see("no more").await;
    let older = json!({
        "service.kubernetes.io/topology-mode": null,
        "service.kubernetes.io/topology-aware-hints": "auto",
    });
    w.patch("Service", "s", annotated(older)).await;
    w.see("by its older name").await;
    no_nodes(&w, &names).await;
}

async fn too_few(w: World) {
    let _alone = w.zones().await;
    let names = ["east", "north", "west"];
    nodes(&w, &names).await;
    ready(&w, "p1", "east").await;
    ready(&w, "p2", "north").await;
    w.rest().await;
    let close = service("s", json!({"trafficDistribution": "PreferClose"}));
    w.create(merged(close, mode("auto"))).await;
    w.see("two for three").await;
    ready(&w, "p3", "west").await;
    w.see("three").await;
    if let Some(pod) = w.get("Pod", "p3") {
        w.run_as(&pod, false, 0).await;
    }
    w.see("one is not ready").await;
    let none = annotated(json!({"service.kubernetes.io/topology-mode": null}));
    w.patch("Service", "s", none).await;
    w.see("close").await;
    w.delete("Service", "s", Propagation::Background).await;
    w.see("deleted").await;
    no_nodes(&w, &names).await;
}

/// How many endpoints there are.
fn endpoints(w: &World) -> usize {
    let slices = w.list("EndpointSlice");
    let of = |slice: &Value| slice["endpoints"].as_array().map_or(0, Vec::len);
    slices.iter().map(|slice| of(slice)).sum()
}

async fn come_and_go(w: World) {
    let _alone = w.zones().await;
    nodes(&w, &["east", "north", "west"]).await;
    w.create(service("s", json!({}))).await;
    // One after the other: who is first in a slice is given away first.
    for (i, node) in ["east", "west"].into_iter().cycle().take(6).enumerate() {
        ready(&w, &format!("p{i}"), node).await;
        w.until("its endpoint", |w| endpoints(w) == i + 1).await;
    }
    w.rest().await;
    w.patch("Service", "s", mode("Auto")).await;
    w.see("each has two").await;
    w.node_ready("north", false).await;
    w.see("one is not ready").await;
    w.node_ready("north", true).await;
    w.see("it is again").await;
    no_nodes(&w, &["north"]).await;
    w.see("it is gone").await;
    node(&w, "south", json!("south")).await;
    w.see("there is another").await;
    no_nodes(&w, &["east", "south", "west"]).await;
}

async fn node_without(w: World) {
    let _alone = w.zones().await;
    nodes(&w, &["east", "west"]).await;
    ready(&w, "p1", "east").await;
    ready(&w, "p2", "west").await;
    // All pods are known before the Service.
    w.rest().await;
    w.create(merged(service("s", json!({})), mode("Auto")))
        .await;
    w.see("each its own").await;
    node(&w, "none", Value::Null).await;
    w.see("one node has none").await;
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    // That it has a zone is what has nodes looked at again.
    let aside = labels(json!({NO_ZONE: "", "topology.kubernetes.io/zone": "west"}));
    w.patch("Node", &w.name("none"), aside).await;
    w.rest().await;
    // Nobody looks at the Service only because the zones are known again.
    w.patch("Service", "s", labels(json!({"a": "b"}))).await;
    w.see("it takes no part").await;
    no_nodes(&w, &["east", "none", "west"]).await;
}
