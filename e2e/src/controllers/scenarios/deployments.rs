//! Deployments.

use std::time::Duration;

use serde_json::{Value, json};

use super::Book;
use super::templates::{deployment, image, merged};
use crate::controllers::World;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    for replicas in [0, 1, 3] {
        book.with(format!("deployment/create-{replicas}"), replicas, create);
    }
    book.add("deployment/create-without-kubelets", unplayed);
    for (from, to) in [(1, 4), (4, 1), (3, 0), (0, 2)] {
        book.with(format!("deployment/scale-{from}-{to}"), (from, to), scale);
    }
    for (name, strategy) in strategies() {
        book.with(format!("deployment/roll-{name}"), strategy.clone(), roll);
        book.with(
            format!("deployment/roll-stuck-{name}"),
            strategy.clone(),
            roll_stuck,
        );
        book.with(
            format!("deployment/roll-and-scale-{name}"),
            strategy.clone(),
            roll_and_scale,
        );
        book.with(format!("deployment/roll-back-{name}"), strategy, roll_back);
    }
    book.add("deployment/roll-over", roll_over);
    for limit in [0, 1, 2] {
        book.with(format!("deployment/history-{limit}"), limit, history);
    }
    book.add("deployment/pause", pause);
    book.add("deployment/paused-from-the-start", paused_from_start);
    book.add("deployment/paused-scale", paused_scale);
    for policy in [
        Propagation::Foreground,
        Propagation::Background,
        Propagation::Orphan,
    ] {
        book.with(format!("deployment/delete-{policy:?}"), policy, delete);
    }
    book.add("deployment/adopt", adopt);
    book.add("deployment/deadline", deadline);
    book.add("deployment/deadline-never-started", deadline_at_start);
    book.add("deployment/min-ready", min_ready);
    book.add("deployment/labels-of-template", template_labels);
    book.add("deployment/annotations", annotations);
    book.add("deployment/replicaset-deleted", replicaset_deleted);
    book.add("deployment/replicaset-scaled-by-hand", replicaset_scaled);
    book.add("deployment/pod-failed", pod_failed);
    book.add("deployment/unready-pods-go-first", unready_first);
    book.add("deployment/collision", collision);
    book.add("deployment/strategy-changed", strategy_changed);
    book.add("deployment/two-of-one-selector", overlapping);
    book.add("deployment/terminating-pods", terminating);
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {
        "maxSurge": surge, "maxUnavailable": unavailable,
    }}})
}

fn strategies() -> Vec<(&'static str, Value)> {
    vec![
        ("default", json!({})),
        ("surge-1-0", rolling(json!(1), json!(0))),
        ("surge-0-1", rolling(json!(0), json!(1))),
        ("surge-all", rolling(json!("100%"), json!(0))),
        ("surge-half", rolling(json!("50%"), json!("50%"))),
        ("recreate", json!({"strategy": {"type": "Recreate"}})),
    ]
}

async fn start(w: &World, spec: Value) {
    w.kubelets();
    let replicas = spec["replicas"].clone();
    w.create(deployment("d", spec)).await;
    w.until_field("Deployment", "d", "/status/availableReplicas", replicas)
        .await;
}

/// All pods are of the newest template, and the Deployment knows.
async fn done(w: &World, replicas: i32) {
    w.until("the Deployment to be done", |w| {
        let status = w.field("Deployment", "d", "/status");
        status["observedGeneration"] == w.field("Deployment", "d", "/metadata/generation")
            && ["replicas", "updatedReplicas", "availableReplicas"]
                .iter()
                .all(|field| status[field].as_i64().unwrap_or(0) == i64::from(replicas))
    })
    .await;
}

async fn create(w: World, replicas: i32) {
    start(&w, json!({"replicas": replicas})).await;
    w.see("created").await;
}

async fn unplayed(w: World) {
    w.create(deployment("d", json!({"replicas": 2}))).await;
    w.until_pods(2).await;
    w.see("pods wait").await;
}

async fn scale(w: World, (from, to): (i32, i32)) {
    start(&w, json!({"replicas": from})).await;
    w.see("before").await;
    w.patch("Deployment", "d", json!({"spec": {"replicas": to}}))
        .await;
    done(&w, to).await;
    w.see("after").await;
}

async fn roll(w: World, strategy: Value) {
    start(&w, merged(json!({"replicas": 4}), strategy)).await;
    w.patch("Deployment", "d", image("two")).await;
    done(&w, 4).await;
    w.see("rolled").await;
}

async fn roll_stuck(w: World, strategy: Value) {
    start(&w, merged(json!({"replicas": 4}), strategy)).await;
    w.rest().await;
    w.no_kubelets();
    w.patch("Deployment", "d", image("two")).await;
    w.until("a second ReplicaSet", |w| w.list("ReplicaSet").len() == 2)
        .await;
    w.see("new pods do not run").await;
    w.kubelets();
    done(&w, 4).await;
    w.see("they do").await;
}

async fn roll_and_scale(w: World, strategy: Value) {
    start(&w, merged(json!({"replicas": 4}), strategy)).await;
    w.rest().await;
    w.no_kubelets();
    w.patch("Deployment", "d", image("two")).await;
    w.rest().await;
    w.patch("Deployment", "d", json!({"spec": {"replicas": 10}}))
        .await;
    w.see("scaled within").await;
    w.patch("Deployment", "d", json!({"spec": {"replicas": 3}}))
        .await;
    w.see("scaled back").await;
    w.kubelets();
    done(&w, 3).await;
    w.see("done").await;
}

async fn roll_back(w: World, strategy: Value) {
    start(&w, merged(json!({"replicas": 3}), strategy)).await;
    w.patch("Deployment", "d", image("two")).await;
    done(&w, 3).await;
    w.rest().await;
    w.patch("Deployment", "d", image("one")).await;
    done(&w, 3).await;
    w.see("back").await;
}

async fn roll_over(w: World) {
    start(&w, json!({"replicas": 3})).await;
    w.rest().await;
    w.no_kubelets();
    w.patch("Deployment", "d", image("two")).await;
    w.until("a second ReplicaSet", |w| w.list("ReplicaSet").len() == 2)
        .await;
    w.rest().await;
    w.patch("Deployment", "d", image("three")).await;
    w.until("a third ReplicaSet", |w| w.list("ReplicaSet").len() == 3)
        .await;
    w.see("over").await;
    w.kubelets();
    done(&w, 3).await;
    w.see("done").await;
}

async fn history(w: World, limit: i32) {
    start(&w, json!({"replicas": 1, "revisionHistoryLimit": limit})).await;
    for next in ["two", "three", "four"] {
        w.patch("Deployment", "d", image(next)).await;
        done(&w, 1).await;
        w.rest().await;
    }
    w.see("four templates later").await;
}

async fn pause(w: World) {
    start(&w, json!({"replicas": 2})).await;
    w.patch("Deployment", "d", json!({"spec": {"paused": true}}))
        .await;
    w.patch("Deployment", "d", image("two")).await;
    w.see("paused").await;
    w.patch("Deployment", "d", json!({"spec": {"paused": false}}))
        .await;
    done(&w, 2).await;
    w.see("resumed").await;
}

async fn paused_from_start(w: World) {
    w.kubelets();
    w.create(deployment("d", json!({"replicas": 2, "paused": true})))
        .await;
    w.see("paused").await;
    w.patch("Deployment", "d", json!({"spec": {"paused": false}}))
        .await;
    done(&w, 2).await;
    w.see("resumed").await;
}

async fn paused_scale(w: World) {
    start(&w, json!({"replicas": 2})).await;
    w.patch(
        "Deployment",
        "d",
        json!({"spec": {"paused": true, "replicas": 4}}),
    )
    .await;
    done(&w, 4).await;
    w.see("scaled").await;
}

async fn delete(w: World, policy: Propagation) {
    start(&w, json!({"replicas": 2})).await;
    w.delete("Deployment", "d", policy).await;
    w.until_gone("Deployment", "d").await;
    if policy != Propagation::Orphan {
        w.until("no pods", |w| w.list("Pod").is_empty()).await;
    }
    w.see("deleted").await;
}

async fn adopt(w: World) {
    start(&w, json!({"replicas": 2})).await;
    w.delete("Deployment", "d", Propagation::Orphan).await;
    w.until_gone("Deployment", "d").await;
    w.rest().await;
    start(&w, json!({"replicas": 2})).await;
    done(&w, 2).await;
    w.see("adopted").await;
}

async fn deadline(w: World) {
    start(&w, json!({"replicas": 1, "progressDeadlineSeconds": 3})).await;
    w.no_kubelets();
    w.patch("Deployment", "d", image("two")).await;
    w.until("no progress", |w| {
        let conditions = w.field("Deployment", "d", "/status/conditions");
        conditions.to_string().contains("ProgressDeadlineExceeded")
    })
    .await;
    w.see("too late").await;
    w.kubelets();
    done(&w, 1).await;
    w.see("after all").await;
}

async fn deadline_at_start(w: World) {
    w.create(deployment(
        "d",
        json!({"replicas": 1, "progressDeadlineSeconds": 2}),
    ))
    .await;
    w.until("no progress", |w| {
        let conditions = w.field("Deployment", "d", "/status/conditions");
        conditions.to_string().contains("ProgressDeadlineExceeded")
    })
    .await;
    w.see("too late").await;
}

async fn min_ready(w: World) {
    start(&w, json!({"replicas": 2, "minReadySeconds": 2})).await;
    w.patch("Deployment", "d", image("two")).await;
    done(&w, 2).await;
    w.see("done").await;
}

async fn template_labels(w: World) {
    start(&w, json!({"replicas": 1})).await;
    let labels = json!({"app": "d", "extra": "yes"});
    let patch = json!({"spec": {"template": {"metadata": {"labels": labels}}}});
    w.patch("Deployment", "d", patch).await;
    done(&w, 1).await;
    w.see("done").await;
}

async fn annotations(w: World) {
    start(&w, json!({"replicas": 1})).await;
    let annotations = json!({"kubernetes.io/change-cause": "because", "mine": "1"});
    w.patch(
        "Deployment",
        "d",
        json!({"metadata": {"annotations": annotations}}),
    )
    .await;
    w.see("annotated").await;
    w.patch(
        "Deployment",
        "d",
        json!({"metadata": {"annotations": {"mine": null}}}),
    )
    .await;
    w.see("less").await;
}

async fn replicaset_deleted(w: World) {
    start(&w, json!({"replicas": 2})).await;
    let name = w.list("ReplicaSet")[0]["metadata"]["name"].clone();
    let name = name.as_str().unwrap_or_default().to_owned();
    let uid = w.field("ReplicaSet", &name, "/metadata/uid");
    w.delete("ReplicaSet", &name, Propagation::Background).await;
    w.until("another ReplicaSet", |w| {
        let found = w.field("ReplicaSet", &name, "/metadata/uid");
        found.is_string() && found != uid
    })
    .await;
    done(&w, 2).await;
    w.until("two pods", |w| w.list("Pod").len() == 2).await;
    w.see("made anew").await;
}

async fn replicaset_scaled(w: World) {
    start(&w, json!({"replicas": 2})).await;
    let name = w.list("ReplicaSet")[0]["metadata"]["name"].clone();
    let name = name.as_str().unwrap_or_default().to_owned();
    w.patch("ReplicaSet", &name, json!({"spec": {"replicas": 5}}))
        .await;
    w.rest().await;
    done(&w, 2).await;
    w.see("scaled back").await;
}

async fn pod_failed(w: World) {
    start(&w, json!({"replicas": 2})).await;
    let pod = w.pods().remove(0);
    w.end(&pod, 1).await;
    w.until_pods(2).await;
    done(&w, 2).await;
    w.see("replaced").await;
}

async fn unready_first(w: World) {
    w.create(deployment("d", json!({"replicas": 3}))).await;
    w.until_pods(3).await;
    let pods = w.pods();
    w.run(&pods[0]).await;
    w.run_as(&pods[1], false, 0).await;
    w.until_field("Deployment", "d", "/status/readyReplicas", json!(1))
        .await;
    w.patch("Deployment", "d", json!({"spec": {"replicas": 1}}))
        .await;
    w.until_pods(1).await;
    w.kill_ending().await;
    w.see("the ready one stays").await;
}

/// A ReplicaSet of the name that a Deployment's will have.
async fn collision(w: World) {
    start(&w, json!({"replicas": 1})).await;
    w.delete("Deployment", "d", Propagation::Orphan).await;
    w.until_gone("Deployment", "d").await;
    w.rest().await;
    let name = w.list("ReplicaSet")[0]["metadata"]["name"].clone();
    let name = name.as_str().unwrap_or_default().to_owned();
    w.patch(
        "ReplicaSet",
        &name,
        json!({"metadata": {"labels": {"app": "other"}}}),
    )
    .await;
    w.rest().await;
    w.kubelets();
    w.create(deployment("d", json!({"replicas": 1}))).await;
    w.until_field("Deployment", "d", "/status/collisionCount", json!(1))
        .await;
    w.pass(Duration::from_secs(1)).await;
    w.see("another name").await;
}

async fn strategy_changed(w: World) {
    start(&w, json!({"replicas": 2})).await;
    let strategy = json!({"type": "Recreate", "rollingUpdate": null});
    w.patch("Deployment", "d", json!({"spec": {"strategy": strategy}}))
        .await;
    w.patch("Deployment", "d", image("two")).await;
    done(&w, 2).await;
    w.see("recreated").await;
}

async fn overlapping(w: World) {
    start(&w, json!({"replicas": 2})).await;
    let mut other = deployment("e", json!({"replicas": 1}));
    other["spec"]["selector"] = json!({"matchLabels": {"app": "d"}});
    other["spec"]["template"]["metadata"]["labels"] = json!({"app": "d", "e": "e"});
    w.create(other).await;
    w.until_field("Deployment", "e", "/status/availableReplicas", json!(1))
        .await;
    w.see("side by side").await;
}

async fn terminating(w: World) {
    start(&w, json!({"replicas": 3})).await;
    w.no_kubelets();
    w.rest().await;
    w.patch("Deployment", "d", json!({"spec": {"replicas": 1}}))
        .await;
    w.until("two that end", |w| w.ending().len() == 2).await;
    w.see("they end").await;
    w.kill_ending().await;
    w.see("they are gone").await;
}
