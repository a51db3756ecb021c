//! What API servers say of how they store resources, and servers that are no more.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Book;
use crate::controllers::World;
use crate::controllers::world::Propagation;

const VERSION: &str = "StorageVersion";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

pub fn write(book: &mut Book) {
    book.add("storageversion/none-lives", none_lives);
    book.add("storageversion/nobody-says", nobody_says);
    book.add("storageversion/one-ends", one_ends);
    book.add("storageversion/last-ends", last_ends);
    book.add("storageversion/they-agree-now", agree);
    book.add("storageversion/they-still-differ", differ);
    book.add("storageversion/not-of-a-server", not_of_a_server);
    book.add("storageversion/goes", goes);
}

fn lease(w: &World, server: &str) -> String {
    format!("{LEASES}/{}", w.name(server))
}

/// A server begins.
async fn begins(w: &World, server: &str, label: &str) {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {
            "name": w.name(server), "labels": {"apiserver.kubernetes.io/identity": label},
        },
        "spec": {
            "holderIdentity": w.name(server), "leaseDurationSeconds": 3600,
            "renewTime": format!("{:.6}", Timestamp::now()),
        },
    });
    w.create_at(LEASES, &lease).await;
}

fn things(w: &World) -> String {
    format!("{}.example.com.things", w.name("x"))
}

/// Servers say in which version they store.
async fn say(w: &World, servers: &[(&str, &str)]) {
    w.create(json!({
        "apiVersion": "internal.apiserver.k8s.io/v1alpha1", "kind": VERSION,
        "metadata": {"name": things(w)}, "spec": {}, "status": {},
    }))
    .await;
    let records = servers.iter().map(|(server, version)| {
        json!({
            "apiServerID": w.name(server), "encodingVersion": version,
            "decodableVersions": ["v1", "v2"], "servedVersions": ["v2"],
        })
    });
    let mut status = json!({"storageVersions": records.collect::<Value>()});
    let mut versions = servers.iter().map(|(_, version)| *version);
    if let Some(first) = versions.next()
        && versions.all(|version| version == first)
    {
        status["commonEncodingVersion"] = first.into();
    }
    if !servers.is_empty() {
        w.patch_status(VERSION, &things(w), status).await;
    }
}

/// Waits until so many servers are left of what was said.
async fn left(w: &World, count: usize) {
    let field = "/status/storageVersions";
    w.until("so many servers", |w| {
        let records = w.field(VERSION, &things(w), field);
        records.as_array().is_some_and(|all| all.len() == count)
    })
    .await;
}

async fn none_lives(w: World) {
    say(&w, &[("a", "v1"), ("b", "v2")]).await;
    w.until_gone(VERSION, &things(&w)).await;
    w.see("gone").await;
}

async fn nobody_says(w: World) {
    say(&w, &[]).await;
    w.see("said").await;
}

async fn one_ends(w: World) {
    begins(&w, "a", "kube-apiserver").await;
    begins(&w, "b", "kube-apiserver").await;
    say(&w, &[("a", "v1"), ("b", "v1")]).await;
    w.see("both").await;
    w.delete_at(&lease(&w, "b")).await;
    left(&w, 1).await;
    w.see("one").await;
    w.delete_at(&lease(&w, "a")).await;
}

async fn last_ends(w: World) {
    begins(&w, "a", "kube-apiserver").await;
    say(&w, &[("a", "v1")]).await;
    w.see("one").await;
    w.delete_at(&lease(&w, "a")).await;
    w.until_gone(VERSION, &things(&w)).await;
    w.see("gone").await;
}

async fn agree(w: World) {
    begins(&w, "a", "kube-apiserver").await;
    say(&w, &[("a", "v1"), ("b", "v2")]).await;
    left(&w, 1).await;
    w.see("one").await;
    w.delete_at(&lease(&w, "a")).await;
}

async fn differ(w: World) {
    begins(&w, "a", "kube-apiserver").await;
    begins(&w, "b", "kube-apiserver").await;
    say(&w, &[("a", "v1"), ("b", "v2"), ("c", "v1")]).await;
    left(&w, 2).await;
    w.see("two").await;
    w.delete_at(&lease(&w, "a")).await;
    w.delete_at(&lease(&w, "b")).await;
}

/// A lease of somebody else.
async fn not_of_a_server(w: World) {
    begins(&w, "a", "kube-apiserver").await;
    begins(&w, "b", "somebody").await;
    say(&w, &[("a", "v1"), ("b", "v1")]).await;
    left(&w, 1).await;
    w.see("one").await;
    w.delete_at(&lease(&w, "a")).await;
    w.delete_at(&lease(&w, "b")).await;
}

async fn goes(w: World) {
    begins(&w, "a", "kube-apiserver").await;
    say(&w, &[("a", "v1")]).await;
    w.rest().await;
    w.delete(VERSION, &things(&w), Propagation::Background)
        .await;
    w.delete_at(&lease(&w, "a")).await;
    w.see("gone").await;
}
