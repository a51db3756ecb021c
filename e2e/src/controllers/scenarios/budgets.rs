//! PodDisruptionBudgets.

use serde_json::{Value, json};

use super::Book;
use super::templates::{budget, deployment, job, merged, pod, replicaset, statefulset};
use crate::controllers::World;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    for (name, spec) in [
        ("min-2", json!({"minAvailable": 2})),
        ("min-0", json!({"minAvailable": 0})),
        ("min-9", json!({"minAvailable": 9})),
        ("min-half", json!({"minAvailable": "50%"})),
        ("min-all", json!({"minAvailable": "100%"})),
        ("max-0", json!({"maxUnavailable": 0})),
        ("max-1", json!({"maxUnavailable": 1})),
        ("max-third", json!({"maxUnavailable": "34%"})),
        ("none", json!({})),
    ] {
        for kind in ["Deployment", "StatefulSet"] {
            let name = format!("budget/{name}-{}", kind.to_lowercase());
            book.with(name, (kind, spec.clone()), of_workload);
        }
    }
    for spec in [
        json!({"minAvailable": 1}),
        json!({"maxUnavailable": 1}),
        json!({"minAvailable": "50%"}),
    ] {
        let name: String = spec
            .to_string()
            .chars()
            .filter(char::is_ascii_alphanumeric)
            .collect();
        book.with(
            format!("budget/nobodys-pods-{name}"),
            spec.clone(),
            of_nobody,
        );
        book.with(format!("budget/no-pods-{name}"), spec.clone(), no_pods);
        book.with(format!("budget/of-job-{name}"), spec, of_job);
    }
    book.add("budget/scaled", scaled);
    book.add("budget/unready", unready);
    for policy in ["IfHealthyBudget", "AlwaysAllow"] {
        book.with(format!("budget/eviction-{policy}"), policy, eviction);
    }
    book.add("budget/stale-disruption", stale);
    book.add("budget/empty-selector", empty_selector);
    book.add("budget/two-workloads", two);
    book.add("budget/selector-changed", selector_changed);
}

async fn healthy(w: &World, count: i32) {
    w.until_field(
        "PodDisruptionBudget",
        "b",
        "/status/currentHealthy",
        json!(count),
    )
    .await;
}

async fn of_workload(w: World, (kind, spec): (&'static str, Value)) {
    w.kubelets();
    let workload = if kind == "Deployment" {
        deployment("d", json!({"replicas": 3}))
    } else {
        statefulset(
            "d",
            &[],
            json!({"replicas": 3, "podManagementPolicy": "Parallel"}),
        )
    };
    w.create(workload).await;
    w.rest().await;
    w.create(budget("b", "d", spec)).await;
    healthy(&w, 3).await;
    w.see("three").await;
}

async fn of_nobody(w: World, spec: Value) {
    w.kubelets();
    w.create(pod("p", "d")).await;
    w.create(pod("q", "d")).await;
    w.rest().await;
    w.create(budget("b", "d", spec)).await;
    w.see("nobody's").await;
}

async fn no_pods(w: World, spec: Value) {
    w.rest().await;
    w.create(budget("b", "d", spec)).await;
    w.see("none").await;
}

async fn of_job(w: World, spec: Value) {
    w.kubelets();
    let template = json!({"metadata": {"labels": {"app": "d"}}});
    w.create(job(
        "j",
        json!({"template": template, "parallelism": 2, "completions": 2}),
    ))
    .await;
    w.until_pods(2).await;
    w.rest().await;
    w.create(budget("b", "d", spec)).await;
    w.see("of a job").await;
}

async fn scaled(w: World) {
    w.kubelets();
    w.create(deployment("d", json!({"replicas": 3}))).await;
    w.rest().await;
    w.create(budget("b", "d", json!({"maxUnavailable": "50%"})))
        .await;
    healthy(&w, 3).await;
    w.patch("Deployment", "d", json!({"spec": {"replicas": 6}}))
        .await;
    healthy(&w, 6).await;
    w.see("six").await;
}

async fn unready(w: World) {
    w.kubelets();
    w.create(replicaset("d", json!({"replicas": 3}))).await;
    w.rest().await;
    w.create(budget("b", "d", json!({"minAvailable": 2}))).await;
    healthy(&w, 3).await;
    w.run_as(&w.pods()[0], false, 0).await;
    healthy(&w, 2).await;
    w.see("one is not ready").await;
    w.run_as(&w.pods()[1], false, 0).await;
    healthy(&w, 1).await;
    w.see("two are not").await;
}

async fn eviction(w: World, policy: &'static str) {
    w.kubelets();
    w.create(replicaset("d", json!({"replicas": 3}))).await;
    let spec = json!({"minAvailable": 2, "unhealthyPodEvictionPolicy": policy});
    w.rest().await;
    w.create(budget("b", "d", spec)).await;
    healthy(&w, 3).await;
    w.rest().await;
    w.no_kubelets();
    let name = w.pods()[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name},
    });
    w.post("Pod", &name, "eviction", eviction).await;
    w.see("evicted").await;
    w.kubelets();
    w.rest().await;
    healthy(&w, 3).await;
    w.see("replaced").await;
}

/// Somebody was allowed to evict a pod long ago, and did not.
async fn stale(w: World) {
    w.kubelets();
    w.create(replicaset("d", json!({"replicas": 2}))).await;
    w.rest().await;
    w.create(budget("b", "d", json!({"maxUnavailable": 1})))
        .await;
    healthy(&w, 2).await;
    let name = w.pods()[0]["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let disrupted = json!({"disruptedPods": {name: "2020-01-01T00:00:00Z"}});
    w.patch_status("PodDisruptionBudget", "b", disrupted).await;
    w.see("forgotten").await;
}

async fn empty_selector(w: World) {
    w.kubelets();
    w.create(replicaset("d", json!({"replicas": 2}))).await;
    w.create(replicaset("e", json!({"replicas": 1}))).await;
    let mut all = budget("b", "d", json!({"minAvailable": 1}));
    all["spec"]["selector"] = json!({});
    w.create(all).await;
    healthy(&w, 3).await;
    w.see("all").await;
}

async fn two(w: World) {
    w.kubelets();
    w.create(replicaset("d", json!({"replicas": 2}))).await;
    let mut other = replicaset("e", json!({"replicas": 2}));
    let labels = json!({"metadata": {"labels": {"app": "e", "both": "yes"}}});
    other["spec"]["template"] = merged(other["spec"]["template"].clone(), labels);
    w.create(other).await;
    let mut both = budget("b", "d", json!({"maxUnavailable": 1}));
    let expression = json!({"key": "app", "operator": "In", "values": ["d", "e"]});
    both["spec"]["selector"] = json!({"matchExpressions": [expression]});
    w.create(both).await;
    healthy(&w, 4).await;
    w.see("both").await;
    w.delete("ReplicaSet", "d", Propagation::Background).await;
    healthy(&w, 2).await;
    w.see("one").await;
}

async fn selector_changed(w: World) {
    w.kubelets();
    w.create(replicaset("d", json!({"replicas": 2}))).await;
    w.rest().await;
    w.create(budget("b", "other", json!({"minAvailable": 1})))
        .await;
    w.rest().await;
    let selector = json!({"spec": {"selector": {"matchLabels": {"app": "d"}}}});
    w.patch("PodDisruptionBudget", "b", selector).await;
    healthy(&w, 2).await;
    w.see("those").await;
}
