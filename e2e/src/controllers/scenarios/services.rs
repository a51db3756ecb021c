//! Services, their Endpoints and EndpointSlices.

use serde_json::{Value, json};

use super::Book;
use super::templates::{merged, pod, service};
use crate::controllers::World;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    let ports = json!({"ports": [
        {"name": "a", "port": 80, "targetPort": "web"},
        {"name": "b", "port": 53, "protocol": "UDP"},
        {"name": "c", "port": 443, "appProtocol": "https"},
    ]});
    for (name, spec) in [
        ("plain", json!({})),
        ("headless", json!({"clusterIP": "None"})),
        (
            "headless-without-ports",
            json!({"clusterIP": "None", "ports": null}),
        ),
        ("ports", ports),
        ("unready-too", json!({"publishNotReadyAddresses": true})),
        ("node-port", json!({"type": "NodePort"})),
        (
            "local",
            json!({"type": "NodePort", "externalTrafficPolicy": "Local"}),
        ),
        ("local-inside", json!({"internalTrafficPolicy": "Local"})),
        ("close", json!({"trafficDistribution": "PreferClose"})),
        (
            "same-zone",
            json!({"trafficDistribution": "PreferSameZone"}),
        ),
        (
            "same-node",
            json!({"trafficDistribution": "PreferSameNode"}),
        ),
        ("affinity", json!({"sessionAffinity": "ClientIP"})),
        ("no-selector", json!({"selector": null})),
        (
            "external-name",
            json!({"type": "ExternalName", "externalName": "example.com", "selector": null}),
        ),
    ] {
        book.with(format!("service/{name}"), spec, of);
    }
    book.add("service/pod-comes-and-goes", pods_come_and_go);
    book.add("service/readiness", readiness);
    book.add("service/terminating", terminating);
    book.add("service/ended-pods", ended);
    book.add("service/selector-changed", selector_changed);
    book.add("service/ports-changed", ports_changed);
    book.add("service/labels", labels);
    book.add("service/to-external-name", to_external_name);
    book.add("service/deleted", deleted);
    book.add("service/two-of-the-same-pods", two);
    book.add("service/hostnames", hostnames);
    book.add("service/slice-deleted", slice_deleted);
    book.add("service/slice-changed", slice_changed);
    book.add("service/endpoints-deleted", endpoints_deleted);
    book.add("service/mirrored", mirrored);
    book.add("service/mirrored-changes", mirrored_changes);
    book.add("service/mirrored-skipped", mirrored_skipped);
    book.add("service/host-network", host_network);
    book.add("service/many", many);
}

fn web(name: &str) -> Value {
    let ports = json!([{"name": "web", "containerPort": 8080}]);
    let mut object = pod(name, "s");
    object["spec"]["containers"][0]["ports"] = ports;
    object
}

/// One ready pod and one that is not.
async fn pods(w: &World) {
    for name in ["p1", "p2"] {
        w.create(web(name)).await;
    }
    w.until_pods(2).await;
    for (name, ready) in [("p1", true), ("p2", false)] {
        if let Some(pod) = w.get("Pod", name) {
            w.run_as(&pod, ready, 0).await;
        }
    }
}

async fn of(w: World, spec: Value) {
    pods(&w).await;
    w.create(service("s", spec)).await;
    w.see("created").await;
}

async fn pods_come_and_go(w: World) {
    w.create(service("s", json!({}))).await;
    w.see("none").await;
    w.kubelets();
    w.create(web("p1")).await;
    w.see("one").await;
    w.create(web("p2")).await;
    w.see("two").await;
    w.delete("Pod", "p1", Propagation::Background).await;
    w.until_gone("Pod", "p1").await;
    w.see("one again").await;
}

async fn readiness(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.rest().await;
    for (name, ready) in [("p1", false), ("p2", true)] {
        if let Some(pod) = w.get("Pod", name) {
            w.run_as(&pod, ready, 0).await;
        }
    }
    w.see("the other way round").await;
}

async fn terminating(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.rest().await;
    w.delete("Pod", "p1", Propagation::Background).await;
    w.see("it ends, still ready").await;
    if let Some(pod) = w.get("Pod", "p1") {
        w.run_as(&pod, false, 0).await;
    }
    w.see("no more").await;
    w.kill_ending().await;
    w.see("gone").await;
}

async fn ended(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.rest().await;
    for (name, exit) in [("p2", 1), ("p1", 0)] {
        if let Some(pod) = w.get("Pod", name) {
            w.end(&pod, exit).await;
        }
    }
    w.see("ended").await;
}

async fn selector_changed(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.rest().await;
    w.patch(
        "Service",
        "s",
        json!({"spec": {"selector": {"app": "other"}}}),
    )
    .await;
    w.see("nobody").await;
    w.patch("Service", "s", json!({"spec": {"selector": null}}))
        .await;
    w.see("no selector").await;
}

async fn ports_changed(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.rest().await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": 9090}]);
    w.patch("Service", "s", json!({"spec": {"ports": ports}}))
        .await;
    w.see("another port").await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": "nothing"}]);
    w.patch("Service", "s", json!({"spec": {"ports": ports}}))
        .await;
    w.see("no such port").await;
}

async fn labels(w: World) {
    pods(&w).await;
    let meta = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}});
    w.create(merged(service("s", json!({})), meta)).await;
    w.see("labelled").await;
    w.patch("Service", "s", json!({"metadata": {"labels": {"a": "z"}}}))
        .await;
    w.see("otherwise").await;
    w.patch(
        "Service",
        "s",
        json!({"metadata": {"labels": null, "annotations": null}}),
    )
    .await;
    w.see("no more").await;
}

async fn to_external_name(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.rest().await;
    let spec = json!({
        "type": "ExternalName", "externalName": "example.com", "clusterIP": null,
        "clusterIPs": null, "selector": null, "ipFamilies": null, "ipFamilyPolicy": null,
    });
    w.patch("Service", "s", json!({"spec": spec})).await;
    w.see("elsewhere").await;
}

async fn deleted(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.rest().await;
    w.delete("Service", "s", Propagation::Background).await;
    w.until("no slices", |w| w.list("EndpointSlice").is_empty())
        .await;
    w.see("deleted").await;
}

async fn two(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.create(service("t", json!({"selector": {"app": "s"}})))
        .await;
    w.see("two").await;
}

async fn hostnames(w: World) {
    w.kubelets();
    w.create(service("s", json!({"clusterIP": "None"}))).await;
    let named = json!({"spec": {"hostname": "first", "subdomain": "s"}});
    w.create(merged(web("p1"), named)).await;
    let elsewhere = json!({"spec": {"hostname": "second", "subdomain": "other"}});
    w.create(merged(web("p2"), elsewhere)).await;
    w.see("named").await;
}

fn slice(w: &World) -> String {
    let slices = w.list("EndpointSlice");
    let name = slices.first().and_then(|s| s["metadata"]["name"].as_str());
    name.unwrap_or_default().to_owned()
}

async fn slice_deleted(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.rest().await;
    w.delete("EndpointSlice", &slice(&w), Propagation::Background)
        .await;
    w.see("made anew").await;
}

async fn slice_changed(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.rest().await;
    w.patch("EndpointSlice", &slice(&w), json!({"endpoints": []}))
        .await;
    w.see("set right").await;
}

async fn endpoints_deleted(w: World) {
    pods(&w).await;
    w.create(service("s", json!({}))).await;
    w.rest().await;
    w.delete("Endpoints", "s", Propagation::Background).await;
    w.see("made anew").await;
}

fn endpoints(addresses: &[&str]) -> Value {
    let of = |ip: &&str| json!({"ip": ip});
    json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "s", "labels": {"a": "b"}},
        "subsets": [{
            "addresses": addresses.iter().map(of).collect::<Value>(),
            "notReadyAddresses": [{"ip": "192.0.2.99"}],
            "ports": [{"name": "http", "port": 8080}],
        }],
    })
}

async fn mirrored(w: World) {
    w.create(service("s", json!({"selector": null}))).await;
    w.create(endpoints(&["192.0.2.1", "192.0.2.2"])).await;
    w.see("mirrored").await;
}

async fn mirrored_changes(w: World) {
    w.create(service("s", json!({"selector": null}))).await;
    w.create(endpoints(&["192.0.2.1"])).await;
    w.rest().await;
    let changed = endpoints(&["192.0.2.1", "192.0.2.3"]);
    w.patch("Endpoints", "s", json!({"subsets": changed["subsets"]}))
        .await;
    w.see("changed").await;
    w.delete("Endpoints", "s", Propagation::Background).await;
    w.see("deleted").await;
}

async fn mirrored_skipped(w: World) {
    w.create(service("s", json!({"selector": null}))).await;
    let label = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    let skip = json!({"metadata": {"labels": label}});
    w.create(merged(endpoints(&["192.0.2.1"]), skip)).await;
    w.see("skipped").await;
}

async fn host_network(w: World) {
    w.kubelets();
    w.create(service("s", json!({}))).await;
    w.create(merged(web("p1"), json!({"spec": {"hostNetwork": true}})))
        .await;
    w.see("of the node").await;
}

async fn many(w: World) {
    w.kubelets();
    w.create(service("s", json!({}))).await;
    for i in 0..20 {
        w.create(web(&format!("p{i}"))).await;
    }
    w.until("all to run", |w| {
        w.list("Pod")
            .iter()
            .all(|p| p["status"]["phase"] == "Running")
    })
    .await;
    w.see("twenty").await;
}
