//! Questions about the devices of a driver's pools. Every scenario has a driver of its own.

use serde_json::{Value, json};

use super::Book;
use crate::controllers::World;
use crate::controllers::world::Propagation;

const REQUEST: &str = "ResourcePoolStatusRequest";

pub fn write(book: &mut Book) {
    book.add("pools/none", none);
    book.add("pools/one", one);
    book.add("pools/several", several);
    book.add("pools/by-name", by_name);
    book.add("pools/limit", limit);
    book.add("pools/new-generation", new_generation);
    book.add("pools/answered-once", once);
    book.add("pools/in-use", in_use);
    // A manager that begins looks at it once more.
    book.whole(|book| book.add("pools/incomplete", incomplete));
}

fn driver(w: &World) -> String {
    format!("{}.example.com", w.namespace())
}

/// A slice of a pool: its generation, of how many it is, and how many devices are in it.
async fn slice(w: &World, pool: &str, name: &str, (generation, count, devices): (i64, i64, usize)) {
    let devices = (0..devices).map(|n| json!({"name": format!("d{n}")}));
    w.create(json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
        "metadata": {"name": w.name(&format!("{pool}-{name}"))},
        "spec": {
            "driver": driver(w), "nodeName": pool, "devices": devices.collect::<Value>(),
            "pool": {"name": pool, "generation": generation, "resourceSliceCount": count},
        },
    }))
    .await;
}

async fn ask(w: &World, name: &str, fields: Value) {
    let mut spec = json!({"driver": driver(w)});
    for (field, value) in fields.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    w.create(json!({
        "apiVersion": "resource.k8s.io/v1alpha3", "kind": REQUEST,
        "metadata": {"name": w.name(name)}, "spec": spec,
    }))
    .await;
}

async fn answered(w: &World, name: &str) {
    w.until_condition(REQUEST, &w.name(name), "Complete").await;
}

async fn none(w: World) {
    ask(&w, "r", json!({})).await;
    answered(&w, "r").await;
    w.see("answered").await;
}

async fn one(w: World) {
    slice(&w, "p", "a", (1, 2, 3)).await;
    slice(&w, "p", "b", (1, 2, 1)).await;
    w.rest().await;
    ask(&w, "r", json!({})).await;
    answered(&w, "r").await;
    w.see("answered").await;
}

async fn pools(w: &World) {
    for (pool, devices) in [("z", 1), ("a", 2), ("m", 0)] {
        slice(w, pool, "s", (1, 1, devices)).await;
    }
    w.rest().await;
}

async fn several(w: World) {
    pools(&w).await;
    ask(&w, "r", json!({})).await;
    answered(&w, "r").await;
    w.see("answered").await;
}

async fn by_name(w: World) {
    pools(&w).await;
    ask(&w, "r", json!({"poolName": "z"})).await;
    ask(&w, "s", json!({"poolName": "unknown"})).await;
    answered(&w, "r").await;
    answered(&w, "s").await;
    w.see("answered").await;
}

async fn limit(w: World) {
    pools(&w).await;
    ask(&w, "r", json!({"limit": 2})).await;
    answered(&w, "r").await;
    w.see("answered").await;
}

async fn new_generation(w: World) {
    slice(&w, "p", "a", (1, 2, 3)).await;
    slice(&w, "p", "b", (1, 2, 3)).await;
    slice(&w, "p", "c", (2, 1, 1)).await;
    w.rest().await;
    ask(&w, "r", json!({})).await;
    answered(&w, "r").await;
    w.see("answered").await;
}

/// It is not answered, and not looked at again when the rest comes.
async fn incomplete(w: World) {
    slice(&w, "p", "a", (1, 2, 3)).await;
    w.rest().await;
    ask(&w, "r", json!({})).await;
    w.see("not answered").await;
    slice(&w, "p", "b", (1, 2, 1)).await;
    w.see("given up").await;
    w.patch(
        REQUEST,
        &w.name("r"),
        json!({"metadata": {"labels": {"a": "b"}}}),
    )
    .await;
    answered(&w, "r").await;
    w.see("answered").await;
}

async fn once(w: World) {
    slice(&w, "p", "a", (1, 1, 1)).await;
    w.rest().await;
    ask(&w, "r", json!({})).await;
    answered(&w, "r").await;
    w.delete("ResourceSlice", &w.name("p-a"), Propagation::Background)
        .await;
    w.patch(
        REQUEST,
        &w.name("r"),
        json!({"metadata": {"labels": {"a": "b"}}}),
    )
    .await;
    w.see("as it was").await;
}

/// What the scheduler writes of a claim with devices of pools.
async fn allocate(w: &World, name: &str, pools: &[&str]) {
    let request =
        |i: usize| json!({"name": format!("r{i}"), "exactly": {"deviceClassName": "example.com"}});
    let requests: Value = (0..pools.len()).map(request).collect();
    w.create(json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "finalizers": ["resource.kubernetes.io/delete-protection"]},
        "spec": {"devices": {"requests": requests}},
    }))
    .await;
    let results = pools.iter().enumerate().map(|(i, pool)| {
        json!({
            "request": format!("r{i}"), "driver": driver(w), "pool": pool,
            "device": format!("d{i}"),
        })
    });
    let results: Value = results.collect();
    let status = json!({
        "allocation": {"devices": {"results": results}},
        "reservedFor": [{"resource": "things", "apiGroup": "example.com", "name": "t", "uid": "u"}],
    });
    w.patch_status("ResourceClaim", name, status).await;
}

async fn in_use(w: World) {
    slice(&w, "p", "a", (1, 1, 3)).await;
    slice(&w, "q", "a", (1, 1, 1)).await;
    allocate(&w, "c", &["p", "p"]).await;
    allocate(&w, "d", &["p", "q"]).await;
    allocate(&w, "e", &["q", "elsewhere"]).await;
    w.rest().await;
    ask(&w, "r", json!({})).await;
    answered(&w, "r").await;
    w.see("answered").await;
}
