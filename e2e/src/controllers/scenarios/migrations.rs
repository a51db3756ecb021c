//! Objects that are written anew for the sake of how they are stored. Objects are those of all
//! scenarios, so that migrations of one resource wait for each other.

use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};

use super::Book;
use crate::controllers::World;
use crate::controllers::world::Propagation;

const MIGRATION: &str = "StorageVersionMigration";
const DEFINITION: &str = "CustomResourceDefinition";
/// More than one page of a list.
const MANY: usize = 600;
/// Theirs waits a minute until it has heard of a resource of which nothing changes.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long theirs may take a resource that is gone for one that is there.
const STALE: Duration = Duration::from_secs(35);

pub fn write(book: &mut Book) {
    book.add("migration/unknown", unknown);
    book.with("migration/none", ("", "limitranges"), succeeds);
    book.with("migration/bindings", ("", "bindings"), fails);
    book.with("migration/reviews", (REVIEWS, "tokenreviews"), fails);
    book.add("migration/definition", definition);
    book.add("migration/definition-goes", definition_goes);
    // Objects that are stored as they should be are not told from those that were not reached.
    book.whole(|book| {
        book.with("migration/many", MANY, secrets);
        book.with("migration/one", 1, secrets);
        book.with("migration/namespaces", ("", "namespaces"), succeeds);
        book.with("migration/roles", (RBAC, "clusterroles"), succeeds);
        book.with("migration/leases", (LEASES, "leases"), succeeds);
        book.add("migration/in-turn", in_turn);
        book.add("migration/side-by-side", side_by_side);
        book.add("migration/objects-go", objects_go);
        book.add("migration/goes", goes);
        book.add("migration/definition-again", definition_again);
    });
}

const LEASES: &str = "coordination.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const REVIEWS: &str = "authentication.k8s.io";

async fn migrate(w: &World, suffix: &str, group: &str, resource: &str) {
    w.create(json!({
        "apiVersion": "storagemigration.k8s.io/v1beta1", "kind": MIGRATION,
        "metadata": {"name": w.name(suffix)},
        "spec": {"resource": {"group": group, "resource": resource}},
    }))
    .await;
}

fn is(w: &World, suffix: &str, ty: &str) -> bool {
    w.has_condition(MIGRATION, &w.name(suffix), ty)
}

/// Waits until a migration has ended so, and runs no more.
async fn until(w: &World, suffix: &str, ty: &str) {
    let what = format!("the migration {suffix} to be {ty}");
    w.until_for(PATIENCE, &what, |w| {
        is(w, suffix, ty) && !is(w, suffix, "Running")
    })
    .await;
}

async fn fill(w: &World, kind: &str, count: usize) {
    let objects = (0..count).map(|n| {
        w.create(json!({
            "apiVersion": "v1", "kind": kind, "metadata": {"name": format!("s{n}")},
        }))
    });
    join_all(objects).await;
}

async fn unknown(w: World) {
    migrate(&w, "m", "example.com", "nothings").await;
    w.see("asked for").await;
    until(&w, "m", "Failed").await;
    w.see("failed").await;
}

async fn secrets(w: World, count: usize) {
    fill(&w, "Secret", count).await;
    migrate(&w, "m", "", "secrets").await;
    until(&w, "m", "Succeeded").await;
    w.see("migrated").await;
}

async fn succeeds(w: World, (group, resource): (&'static str, &'static str)) {
    migrate(&w, "m", group, resource).await;
    until(&w, "m", "Succeeded").await;
    w.see("migrated").await;
}

async fn fails(w: World, (group, resource): (&'static str, &'static str)) {
    migrate(&w, "m", group, resource).await;
    until(&w, "m", "Failed").await;
    w.see("failed").await;
}

async fn in_turn(w: World) {
    fill(&w, "ServiceAccount", 50).await;
    let all = ["a", "b", "c"];
    for suffix in all {
        migrate(&w, suffix, "", "serviceaccounts").await;
    }
    for suffix in all {
        until(&w, suffix, "Succeeded").await;
    }
    w.see("migrated").await;
}

async fn side_by_side(w: World) {
    migrate(&w, "a", "", "replicationcontrollers").await;
    migrate(&w, "b", "apps", "controllerrevisions").await;
    for suffix in ["a", "b"] {
        until(&w, suffix, "Succeeded").await;
    }
    w.see("migrated").await;
}

async fn objects_go(w: World) {
    fill(&w, "Secret", 200).await;
    migrate(&w, "m", "", "secrets").await;
    let names: Vec<_> = (0..200).map(|n| format!("s{n}")).collect();
    let going = names.iter().step_by(2);
    join_all(going.map(|name| w.delete("Secret", name, Propagation::Background))).await;
    until(&w, "m", "Succeeded").await;
    w.see("migrated").await;
}

/// A migration that is deleted makes way for the next.
async fn goes(w: World) {
    fill(&w, "ConfigMap", 200).await;
    migrate(&w, "a", "", "configmaps").await;
    migrate(&w, "b", "", "configmaps").await;
    // Not before those of other scenarios.
    w.until_for(PATIENCE, "a migration to run", |w| is(w, "a", "Running"))
        .await;
    w.delete(MIGRATION, &w.name("a"), Propagation::Background)
        .await;
    until(&w, "b", "Succeeded").await;
    w.see("migrated").await;
}

fn group(w: &World) -> String {
    format!("{}.example.com", w.namespace())
}

fn versions(storage: &str) -> Value {
    let version = |name: &str| {
        json!({
            "name": name, "served": true, "storage": name == storage,
            "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }},
        })
    };
    json!([version("v1"), version("v2")])
}

/// Objects that are stored in a version that is not today's.
async fn things(w: &World) -> String {
    let (plural, group) = (w.name("things"), group(w));
    let name = format!("{plural}.{group}");
    w.create(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": DEFINITION, "metadata": {"name": name},
        "spec": {
            "group": group, "scope": "Namespaced", "versions": versions("v1"),
            "names": {"plural": plural, "kind": "Thing"},
        },
    }))
    .await;
    w.until_condition(DEFINITION, &name, "Established").await;
    // Requests find it a moment later.
    w.rest().await;
    let path = format!("/apis/{group}/v1/namespaces/{}/{plural}", w.namespace());
    for n in 0..3 {
        let thing = json!({
            "apiVersion": format!("{group}/v1"), "kind": "Thing",
            "metadata": {"name": format!("t{n}")},
        });
        w.create_at(&path, &thing).await;
    }
    store_in(w, &name, "v2").await;
    name
}

async fn store_in(w: &World, name: &str, version: &str) {
    let patch = json!({"spec": {"versions": versions(version)}});
    w.patch(DEFINITION, name, patch).await;
    w.rest().await;
}

async fn definition(w: World) {
    things(&w).await;
    w.see("two versions").await;
    migrate(&w, "m", &group(&w), &w.name("things")).await;
    until(&w, "m", "Succeeded").await;
    w.see("migrated").await;
}

async fn definition_again(w: World) {
    let name = things(&w).await;
    for (suffix, version) in [("a", "v2"), ("b", "v2"), ("c", "v1")] {
        store_in(&w, &name, version).await;
        migrate(&w, suffix, &group(&w), &w.name("things")).await;
        until(&w, suffix, "Succeeded").await;
        w.see(suffix).await;
    }
}

/// A resource that is gone before its turn comes.
async fn definition_goes(w: World) {
    let name = things(&w).await;
    w.delete(DEFINITION, &name, Propagation::Background).await;
    w.until_gone(DEFINITION, &name).await;
    w.pass(STALE).await;
    migrate(&w, "m", &group(&w), &w.name("things")).await;
    until(&w, "m", "Failed").await;
    w.see("failed").await;
}
