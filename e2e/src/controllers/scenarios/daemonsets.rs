//! DaemonSets, on nodes of their own.

use serde_json::{Value, json};

use super::Book;
use super::templates::{daemonset, image, merged};
use crate::controllers::World;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    for nodes in [0, 1, 3] {
        book.with(format!("daemonset/create-{nodes}"), nodes, create);
    }
    for (name, strategy) in [
        ("default", json!({})),
        ("unavailable-2", rolling(json!(0), json!(2))),
        ("unavailable-all", rolling(json!(0), json!("100%"))),
        ("surge-1", rolling(json!(1), json!(0))),
        ("surge-half", rolling(json!("50%"), json!(0))),
    ] {
        book.with(format!("daemonset/roll-{name}"), strategy.clone(), roll);
        book.with(format!("daemonset/roll-stuck-{name}"), strategy, roll_stuck);
    }
    book.add("daemonset/on-delete", on_delete);
    book.add("daemonset/roll-back", roll_back);
    book.add("daemonset/node-comes", node_comes);
    book.add("daemonset/node-goes", node_goes);
    book.add("daemonset/node-label-changes", node_label);
    for effect in ["NoSchedule", "NoExecute", "PreferNoSchedule"] {
        for tolerated in [false, true] {
            let name = format!("daemonset/taint-{effect}-tolerated-{tolerated}");
            book.with(name, (effect, tolerated), taint);
        }
    }
    book.add("daemonset/taint-comes-later", taint_later);
    book.add("daemonset/affinity", affinity);
    book.add("daemonset/named-node", named_node);
    book.add("daemonset/selector-changed", selector_changed);
    book.add("daemonset/pod-failed", pod_failed);
    book.add("daemonset/pod-deleted", pod_deleted);
    book.add("daemonset/adopt", adopt);
    for policy in [
        Propagation::Foreground,
        Propagation::Background,
        Propagation::Orphan,
    ] {
        book.with(format!("daemonset/delete-{policy:?}"), policy, delete);
    }
    for limit in [0, 1] {
        book.with(format!("daemonset/history-{limit}"), limit, history);
    }
    book.add("daemonset/min-ready", min_ready);
    book.add("daemonset/unschedulable-node", unschedulable);
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {
        "maxSurge": surge, "maxUnavailable": unavailable,
    }}})
}

fn on_our_nodes(w: &World, spec: Value) -> Value {
    let selector = json!({"template": {"spec": {"nodeSelector": {"scenario": w.namespace()}}}});
    daemonset("ds", merged(selector, spec))
}

async fn nodes(w: &World, count: usize) {
    for i in 0..count {
        w.node(&format!("n{i}"), json!({}), json!([])).await;
    }
}

async fn ready(w: &World, count: usize) {
    w.until_field("DaemonSet", "ds", "/status/numberAvailable", json!(count))
        .await;
}

async fn start(w: &World, count: usize, spec: Value) {
    nodes(w, count).await;
    w.kubelets();
    w.create(on_our_nodes(w, spec)).await;
    w.until_field("DaemonSet", "ds", "/status/observedGeneration", json!(1))
        .await;
    ready(w, count).await;
}

async fn updated(w: &World, count: usize) {
    let generation = w.field("DaemonSet", "ds", "/metadata/generation").as_i64();
    w.until("the DaemonSet to be updated", |w| {
        let status = w.field("DaemonSet", "ds", "/status");
        let is = |field: &str| status[field].as_u64().unwrap_or(0) == count as u64;
        status["observedGeneration"].as_i64() >= generation
            && is("updatedNumberScheduled")
            && is("numberAvailable")
            && w.pods().len() == count
    })
    .await;
}

async fn create(w: World, count: usize) {
    start(&w, count, json!({})).await;
    w.see("created").await;
}

async fn roll(w: World, strategy: Value) {
    start(&w, 4, strategy).await;
    w.rest().await;
    w.patch("DaemonSet", "ds", image("two")).await;
    w.rest().await;
    updated(&w, 4).await;
    w.see("rolled").await;
}

async fn roll_stuck(w: World, strategy: Value) {
    start(&w, 4, strategy).await;
    w.rest().await;
    w.no_kubelets();
    w.patch("DaemonSet", "ds", image("two")).await;
    w.see("they end").await;
    w.kill_ending().await;
    w.see("new ones do not run").await;
    w.kubelets();
    updated(&w, 4).await;
    w.see("rolled").await;
}

async fn on_delete(w: World) {
    start(&w, 2, json!({"updateStrategy": {"type": "OnDelete"}})).await;
    w.patch("DaemonSet", "ds", image("two")).await;
    w.see("nothing happens").await;
    w.kill(&w.pods()[0]).await;
    w.until_field(
        "DaemonSet",
        "ds",
        "/status/updatedNumberScheduled",
        json!(1),
    )
    .await;
    ready(&w, 2).await;
    w.see("one was deleted").await;
}

async fn roll_back(w: World) {
    start(&w, 2, json!({})).await;
    for next in ["two", "one"] {
        w.rest().await;
        w.patch("DaemonSet", "ds", image(next)).await;
        w.rest().await;
        updated(&w, 2).await;
    }
    w.see("back").await;
}

async fn node_comes(w: World) {
    start(&w, 1, json!({})).await;
    w.node("late", json!({}), json!([])).await;
    ready(&w, 2).await;
    w.see("two").await;
}

async fn node_goes(w: World) {
    start(&w, 2, json!({})).await;
    let name = w.name("n1");
    w.silence("n1");
    w.delete("Node", &name, Propagation::Background).await;
    w.until_pods(1).await;
    ready(&w, 1).await;
    w.see("one").await;
}

async fn node_label(w: World) {
    start(&w, 2, json!({})).await;
    let name = w.name("n0");
    w.patch(
        "Node",
        &name,
        json!({"metadata": {"labels": {"scenario": "other"}}}),
    )
    .await;
    w.until_pods(1).await;
    w.see("left").await;
    let back = json!({"metadata": {"labels": {"scenario": w.namespace()}}});
    w.patch("Node", &name, back).await;
    ready(&w, 2).await;
    w.see("back").await;
}

async fn taint(w: World, (effect, tolerated): (&'static str, bool)) {
    nodes(&w, 1).await;
    let taint = json!([{"key": "example.com/t", "value": "v", "effect": effect}]);
    w.node("tainted", json!({}), taint).await;
    w.kubelets();
    let mut spec = json!({});
    if tolerated {
        let toleration = json!({"key": "example.com/t", "operator": "Equal", "value": "v"});
        spec = json!({"template": {"spec": {"tolerations": [toleration]}}});
    }
    w.create(on_our_nodes(&w, spec)).await;
    ready(
        &w,
        if tolerated || effect == "PreferNoSchedule" {
            2
        } else {
            1
        },
    )
    .await;
    w.see("created").await;
}

async fn taint_later(w: World) {
    start(&w, 2, json!({})).await;
    for (key, effect) in [
        ("example.com/a", "NoSchedule"),
        ("example.com/b", "NoExecute"),
    ] {
        let taints = json!({"spec": {"taints": [{"key": key, "effect": effect}]}});
        w.patch("Node", &w.name("n0"), taints).await;
        w.see(effect).await;
    }
    w.patch("Node", &w.name("n0"), json!({"spec": {"taints": null}}))
        .await;
    ready(&w, 2).await;
    w.see("none").await;
}

async fn affinity(w: World) {
    w.node("a", json!({"tier": "one"}), json!([])).await;
    w.node("b", json!({"tier": "two"}), json!([])).await;
    w.kubelets();
    let expression = json!({"key": "tier", "operator": "In", "values": ["two"]});
    let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [expression]}]});
    let affinity =
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
    w.create(on_our_nodes(
        &w,
        json!({"template": {"spec": {"affinity": affinity}}}),
    ))
    .await;
    ready(&w, 1).await;
    w.see("one").await;
}

async fn named_node(w: World) {
    nodes(&w, 2).await;
    w.kubelets();
    let spec = json!({"template": {"spec": {"nodeName": w.name("n1")}}});
    w.create(on_our_nodes(&w, spec)).await;
    ready(&w, 1).await;
    w.see("one").await;
}

async fn selector_changed(w: World) {
    start(&w, 2, json!({})).await;
    w.patch(
        "Node",
        &w.name("n1"),
        json!({"metadata": {"labels": {"more": "yes"}}}),
    )
    .await;
    let patch = json!({"spec": {"template": {"spec": {"nodeSelector": {"more": "yes"}}}}});
    w.patch("DaemonSet", "ds", patch).await;
    w.rest().await;
    updated(&w, 1).await;
    w.see("one").await;
}

async fn pod_failed(w: World) {
    start(&w, 1, json!({})).await;
    let pod = w.pods().remove(0);
    w.end(&pod, 1).await;
    w.until("another", |w| {
        let pods = w.pods();
        pods.len() == 1 && pods[0]["metadata"]["uid"] != pod["metadata"]["uid"]
    })
    .await;
    ready(&w, 1).await;
    w.see("replaced").await;
}

async fn pod_deleted(w: World) {
    start(&w, 2, json!({})).await;
    w.kill(&w.pods()[0]).await;
    w.rest().await;
    ready(&w, 2).await;
    w.see("replaced").await;
}

async fn adopt(w: World) {
    start(&w, 2, json!({})).await;
    w.delete("DaemonSet", "ds", Propagation::Orphan).await;
    w.until_gone("DaemonSet", "ds").await;
    w.rest().await;
    w.create(on_our_nodes(&w, json!({}))).await;
    ready(&w, 2).await;
    w.see("adopted").await;
}

async fn delete(w: World, policy: Propagation) {
    start(&w, 2, json!({})).await;
    w.delete("DaemonSet", "ds", policy).await;
    w.until_gone("DaemonSet", "ds").await;
    if policy != Propagation::Orphan {
        w.until("no pods", |w| w.list("Pod").is_empty()).await;
    }
    w.see("deleted").await;
}

async fn history(w: World, limit: i32) {
    start(&w, 1, json!({"revisionHistoryLimit": limit})).await;
    for next in ["two", "three", "four"] {
        w.patch("DaemonSet", "ds", image(next)).await;
        w.rest().await;
        updated(&w, 1).await;
    }
    w.see("four templates later").await;
}

async fn min_ready(w: World) {
    start(&w, 1, json!({"minReadySeconds": 2})).await;
    w.see("available").await;
}

async fn unschedulable(w: World) {
    nodes(&w, 1).await;
    w.patch(
        "Node",
        &w.name("n0"),
        json!({"spec": {"unschedulable": true}}),
    )
    .await;
    w.kubelets();
    w.create(on_our_nodes(&w, json!({}))).await;
    ready(&w, 1).await;
    w.see("tolerated").await;
}
