//! Owners and what they own.

use serde_json::{Value, json};

use super::Book;
use super::templates::{config, merged, pod};
use crate::controllers::World;
use crate::controllers::world::Propagation;

const ABSENT: &str = "11111111-2222-3333-4444-555555555555";

pub fn write(book: &mut Book) {
    use Propagation::{Background, Foreground, Orphan};
    for policy in [Foreground, Background, Orphan] {
        book.with(format!("garbage/chain-{policy:?}"), policy, chain);
        book.with(format!("garbage/cycle-{policy:?}"), policy, cycle);
        book.with(format!("garbage/diamond-{policy:?}"), policy, diamond);
        book.with(format!("garbage/wide-{policy:?}"), policy, wide);
    }
    for (name, uid, kind) in [
        ("uid-of-nobody", ABSENT, "ConfigMap"),
        ("unknown-kind", ABSENT, "Nonsense"),
        ("kind-of-cluster", ABSENT, "Node"),
    ] {
        book.with(format!("garbage/absent-owner-{name}"), (uid, kind), absent);
    }
    book.add("garbage/owner-of-another-uid", another_uid);
    book.add("garbage/owner-of-another-name", another_name);
    book.add("garbage/owner-in-another-namespace", another_namespace);
    book.add(
        "garbage/cluster-object-of-a-namespaced-owner",
        cluster_of_namespaced,
    );
    book.add("garbage/owned-by-itself", itself);
    book.add("garbage/one-of-two-owners-gone", one_of_two);
    book.add("garbage/second-owner-holds", second_owner_holds);
    book.add("garbage/foreground-blocked", blocked);
    book.add("garbage/foreground-not-blocking", not_blocking);
    book.add("garbage/foreground-then-background", changed_mind);
    book.add("garbage/foreign-finalizer", foreign_finalizer);
    book.add("garbage/reference-given-later", later);
    book.add("garbage/reference-removed-in-time", in_time);
    book.add("garbage/owner-made-anew", anew);
    book.add("garbage/foreground-of-a-cycle-of-three", three);
}

async fn uid(w: &World, kind: &str, name: &str) -> Value {
    w.until(&format!("{kind}/{name}"), |w| w.get(kind, name).is_some())
        .await;
    w.field(kind, name, "/metadata/uid")
}

fn reference(name: &str, uid: &Value, blocks: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid,
        "blockOwnerDeletion": blocks,
    })
}

/// Makes an object owned by others that are there.
async fn owned(w: &World, name: &str, owners: &[&str], blocks: bool) {
    let mut references = Vec::new();
    for owner in owners {
        references.push(reference(owner, &uid(w, "ConfigMap", owner).await, blocks));
    }
    let meta = json!({"metadata": {"ownerReferences": references}});
    w.create(merged(config(name), meta)).await;
    uid(w, "ConfigMap", name).await;
}

async fn own(w: &World, name: &str, owner: &str) {
    let reference = reference(owner, &uid(w, "ConfigMap", owner).await, true);
    let patch = json!({"metadata": {"ownerReferences": [reference]}});
    w.patch("ConfigMap", name, patch).await;
}

async fn chain(w: World, policy: Propagation) {
    w.create(config("a")).await;
    for (name, owner) in [("b", "a"), ("c", "b"), ("d", "c")] {
        owned(&w, name, &[owner], true).await;
    }
    w.rest().await;
    w.delete("ConfigMap", "a", policy).await;
    w.until_gone("ConfigMap", "a").await;
    w.see("deleted").await;
}

async fn cycle(w: World, policy: Propagation) {
    w.create(config("a")).await;
    owned(&w, "b", &["a"], true).await;
    own(&w, "a", "b").await;
    w.see("owned").await;
    w.delete("ConfigMap", "a", policy).await;
    w.see("deleted").await;
}

async fn three(w: World) {
    w.create(config("a")).await;
    owned(&w, "b", &["a"], true).await;
    owned(&w, "c", &["b"], true).await;
    own(&w, "a", "c").await;
    w.rest().await;
    w.delete("ConfigMap", "b", Propagation::Foreground).await;
    w.see("deleted").await;
}

async fn diamond(w: World, policy: Propagation) {
    w.create(config("a")).await;
    owned(&w, "b", &["a"], true).await;
    owned(&w, "c", &["a"], true).await;
    owned(&w, "d", &["b", "c"], true).await;
    w.rest().await;
    w.delete("ConfigMap", "b", policy).await;
    w.until_gone("ConfigMap", "b").await;
    w.see("half").await;
    w.delete("ConfigMap", "a", policy).await;
    w.until_gone("ConfigMap", "a").await;
    w.see("all").await;
}

async fn wide(w: World, policy: Propagation) {
    w.create(config("a")).await;
    for i in 0..20 {
        owned(&w, &format!("b{i}"), &["a"], i % 2 == 0).await;
    }
    w.rest().await;
    w.delete("ConfigMap", "a", policy).await;
    w.until_gone("ConfigMap", "a").await;
    w.see("deleted").await;
}

async fn absent(w: World, (uid, kind): (&'static str, &'static str)) {
    let reference = json!({"apiVersion": "v1", "kind": kind, "name": "nobody", "uid": uid});
    let meta = json!({"metadata": {"ownerReferences": [reference]}});
    w.create(merged(config("a"), meta)).await;
    w.see("owned by nobody").await;
}

async fn another_uid(w: World) {
    w.create(config("a")).await;
    let meta = json!({"metadata": {"ownerReferences": [reference("a", &json!(ABSENT), false)]}});
    w.create(merged(config("b"), meta)).await;
    w.until_gone("ConfigMap", "b").await;
    w.see("gone").await;
}

async fn another_name(w: World) {
    w.create(config("a")).await;
    let uid = uid(&w, "ConfigMap", "a").await;
    let meta = json!({"metadata": {"ownerReferences": [reference("z", &uid, false)]}});
    w.create(merged(config("b"), meta)).await;
    w.see("a wrong name").await;
}

async fn another_namespace(w: World) {
    w.namespace_too("other").await;
    let elsewhere = json!({"metadata": {"namespace": w.name("other")}});
    w.create(merged(config("a"), elsewhere)).await;
    w.until("the owner", |w| {
        w.list("ConfigMap")
            .iter()
            .any(|c| c["metadata"]["name"] == "a")
    })
    .await;
    let owner = w
        .list("ConfigMap")
        .into_iter()
        .find(|c| c["metadata"]["name"] == "a");
    let uid = owner.unwrap_or_default()["metadata"]["uid"].clone();
    let meta = json!({"metadata": {"ownerReferences": [reference("a", &uid, false)]}});
    w.create(merged(config("b"), meta)).await;
    w.see("gone, and told").await;
}

async fn cluster_of_namespaced(w: World) {
    w.create(config("a")).await;
    let uid = uid(&w, "ConfigMap", "a").await;
    w.create(json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 5,
        "metadata": {"name": w.namespace(), "ownerReferences": [reference("a", &uid, false)]},
    }))
    .await;
    w.see("told").await;
    w.delete("ConfigMap", "a", Propagation::Background).await;
    w.see("it stays").await;
}

async fn itself(w: World) {
    w.create(config("a")).await;
    own(&w, "a", "a").await;
    w.rest().await;
    w.delete("ConfigMap", "a", Propagation::Foreground).await;
    w.see("deleted").await;
}

async fn one_of_two(w: World) {
    w.create(config("a")).await;
    let a = reference("a", &uid(&w, "ConfigMap", "a").await, false);
    let nobody = reference("nobody", &json!(ABSENT), false);
    let meta = json!({"metadata": {"ownerReferences": [a, nobody]}});
    w.create(merged(config("b"), meta)).await;
    w.see("one reference is left").await;
}

async fn second_owner_holds(w: World) {
    w.create(config("a")).await;
    w.create(config("b")).await;
    owned(&w, "c", &["a", "b"], true).await;
    w.rest().await;
    w.delete("ConfigMap", "a", Propagation::Foreground).await;
    w.until_gone("ConfigMap", "a").await;
    w.see("it stays").await;
    w.delete("ConfigMap", "b", Propagation::Background).await;
    w.until_gone("ConfigMap", "c").await;
    w.see("it goes").await;
}

async fn held(w: &World, blocks: bool) {
    w.create(config("a")).await;
    owned(w, "b", &["a"], blocks).await;
    let finalizers = json!({"metadata": {"finalizers": ["example.com/mine"]}});
    w.patch("ConfigMap", "b", finalizers).await;
    w.rest().await;
    w.delete("ConfigMap", "a", Propagation::Foreground).await;
    w.see("deleted").await;
}

async fn blocked(w: World) {
    held(&w, true).await;
    w.patch("ConfigMap", "b", json!({"metadata": {"finalizers": null}}))
        .await;
    w.until_gone("ConfigMap", "a").await;
    w.see("let go").await;
}

async fn not_blocking(w: World) {
    held(&w, false).await;
}

async fn changed_mind(w: World) {
    held(&w, true).await;
    w.delete("ConfigMap", "a", Propagation::Background).await;
    w.see("in the background").await;
}

async fn foreign_finalizer(w: World) {
    w.kubelets();
    w.create(config("a")).await;
    let owner = reference("a", &uid(&w, "ConfigMap", "a").await, true);
    let meta =
        json!({"metadata": {"ownerReferences": [owner], "finalizers": ["example.com/mine"]}});
    w.create(merged(pod("p", "p"), meta)).await;
    w.rest().await;
    w.delete("ConfigMap", "a", Propagation::Background).await;
    w.see("held").await;
}

async fn later(w: World) {
    w.create(config("a")).await;
    w.create(config("b")).await;
    own(&w, "b", "a").await;
    w.rest().await;
    w.delete("ConfigMap", "a", Propagation::Background).await;
    w.until_gone("ConfigMap", "b").await;
    w.see("gone").await;
}

async fn in_time(w: World) {
    w.create(config("a")).await;
    owned(&w, "b", &["a"], true).await;
    w.rest().await;
    w.patch(
        "ConfigMap",
        "b",
        json!({"metadata": {"ownerReferences": null}}),
    )
    .await;
    w.rest().await;
    w.delete("ConfigMap", "a", Propagation::Foreground).await;
    w.until_gone("ConfigMap", "a").await;
    w.see("it stays").await;
}

async fn anew(w: World) {
    w.create(config("a")).await;
    owned(&w, "b", &["a"], true).await;
    w.rest().await;
    w.delete("ConfigMap", "a", Propagation::Background).await;
    w.create(config("a")).await;
    w.until_gone("ConfigMap", "b").await;
    w.see("gone").await;
}
