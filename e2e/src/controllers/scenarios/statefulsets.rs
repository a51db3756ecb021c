//! StatefulSets.

use serde_json::{Value, json};

use super::Book;
use super::templates::{image, merged, statefulset};
use crate::controllers::World;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    for management in ["OrderedReady", "Parallel"] {
        for (from, to) in [(0, 2), (3, 1), (1, 3), (2, 0)] {
            let name = format!("statefulset/scale-{from}-{to}-{management}");
            book.with(name, (management, from, to), scale);
        }
        book.with(format!("statefulset/stuck-{management}"), management, stuck);
        book.with(format!("statefulset/roll-{management}"), management, roll);
        book.with(
            format!("statefulset/roll-back-{management}"),
            management,
            roll_back,
        );
        book.with(
            format!("statefulset/broken-roll-{management}"),
            management,
            broken_roll,
        );
        book.with(
            format!("statefulset/pod-failed-{management}"),
            management,
            pod_failed,
        );
        book.with(
            format!("statefulset/pod-deleted-{management}"),
            management,
            pod_deleted,
        );
        for start in [0, 3] {
            let name = format!("statefulset/start-{start}-{management}");
            book.with(name, (management, start), start_ordinal);
        }
    }
    for partition in [0, 1, 2, 5] {
        book.with(
            format!("statefulset/partition-{partition}"),
            partition,
            partitioned,
        );
    }
    for max in [json!(1), json!(2), json!("50%")] {
        let name = format!(
            "statefulset/max-unavailable-{}",
            max.to_string().replace('"', "")
        );
        book.with(name, max, max_unavailable);
    }
    book.add("statefulset/on-delete", on_delete);
    for deleted in ["Retain", "Delete"] {
        for scaled in ["Retain", "Delete"] {
            let name = format!("statefulset/claims-{deleted}-{scaled}");
            book.with(name, (deleted, scaled), claims);
        }
    }
    book.add("statefulset/claims-policy-changed", claims_policy_changed);
    book.add("statefulset/claim-deleted", claim_deleted);
    book.add("statefulset/min-ready", min_ready);
    book.add("statefulset/label-lost", label_lost);
    for policy in [
        Propagation::Foreground,
        Propagation::Background,
        Propagation::Orphan,
    ] {
        book.with(format!("statefulset/delete-{policy:?}"), policy, delete);
    }
    book.add("statefulset/adopt", adopt);
    for limit in [0, 1, 3] {
        book.with(format!("statefulset/history-{limit}"), limit, history);
    }
    book.add("statefulset/pod-in-the-way", in_the_way);
    book.add(
        "statefulset/terminating-pod-is-waited-for",
        waits_for_terminating,
    );
    book.add("statefulset/unready-while-scaling", unready);
}

async fn done(w: &World, replicas: i32) {
    w.until("the StatefulSet to be done", |w| {
        let status = w.field("StatefulSet", "s", "/status");
        let count = |field: &str| status[field].as_i64().unwrap_or(0) == i64::from(replicas);
        status["observedGeneration"] == w.field("StatefulSet", "s", "/metadata/generation")
            && count("replicas")
            && count("readyReplicas")
    })
    .await;
}

async fn updated(w: &World, replicas: i32) {
    w.until_field(
        "StatefulSet",
        "s",
        "/status/updatedReplicas",
        json!(replicas),
    )
    .await;
    done(w, 3).await;
}

async fn start(w: &World, claims: &[&str], spec: Value) {
    w.kubelets();
    let replicas = spec["replicas"].as_i64().unwrap_or(1) as i32;
    w.create(statefulset("s", claims, spec)).await;
    done(w, replicas).await;
}

async fn scale(w: World, (management, from, to): (&'static str, i32, i32)) {
    start(
        &w,
        &[],
        json!({"replicas": from, "podManagementPolicy": management}),
    )
    .await;
    w.patch("StatefulSet", "s", json!({"spec": {"replicas": to}}))
        .await;
    done(&w, to).await;
    w.see("scaled").await;
}

async fn stuck(w: World, management: &'static str) {
    let spec = json!({"replicas": 3, "podManagementPolicy": management});
    w.create(statefulset("s", &[], spec)).await;
    w.see("nothing runs").await;
    w.patch("StatefulSet", "s", json!({"spec": {"replicas": 1}}))
        .await;
    w.see("fewer").await;
    w.kubelets();
    done(&w, 1).await;
    w.see("it runs").await;
}

async fn roll(w: World, management: &'static str) {
    start(
        &w,
        &[],
        json!({"replicas": 3, "podManagementPolicy": management}),
    )
    .await;
    w.patch("StatefulSet", "s", image("two")).await;
    updated(&w, 3).await;
    w.see("rolled").await;
}

async fn roll_back(w: World, management: &'static str) {
    start(
        &w,
        &[],
        json!({"replicas": 3, "podManagementPolicy": management}),
    )
    .await;
    w.patch("StatefulSet", "s", image("two")).await;
    updated(&w, 3).await;
    w.rest().await;
    w.patch("StatefulSet", "s", image("one")).await;
    w.until("pods of the first image", |w| {
        let pods = w.pods();
        pods.len() == 3
            && pods
                .iter()
                .all(|p| p["spec"]["containers"][0]["image"] == "one")
    })
    .await;
    updated(&w, 3).await;
    w.see("back").await;
}

/// The new pods never get ready: the roll stops there, also when it is taken back.
async fn broken_roll(w: World, management: &'static str) {
    start(
        &w,
        &[],
        json!({"replicas": 3, "podManagementPolicy": management}),
    )
    .await;
    w.rest().await;
    w.no_kubelets();
    w.patch("StatefulSet", "s", image("two")).await;
    w.until("one to end", |w| !w.ending().is_empty()).await;
    w.kill_ending().await;
    w.until_pods(3).await;
    w.see("it stands still").await;
    w.patch("StatefulSet", "s", image("one")).await;
    w.see("taken back").await;
    let waiting = w
        .pods()
        .into_iter()
        .find(|pod| pod["status"]["phase"] == "Pending");
    if let Some(pod) = waiting {
        w.kill(&pod).await;
    }
    w.kubelets();
    updated(&w, 3).await;
    w.see("done").await;
}

async fn pod_failed(w: World, management: &'static str) {
    start(
        &w,
        &[],
        json!({"replicas": 3, "podManagementPolicy": management}),
    )
    .await;
    let Some(pod) = w.get("Pod", "s-1") else {
        return;
    };
    w.end(&pod, 1).await;
    w.until("another", |w| {
        w.get("Pod", "s-1")
            .is_some_and(|new| new["metadata"]["uid"] != pod["metadata"]["uid"])
    })
    .await;
    done(&w, 3).await;
    w.see("replaced").await;
}

async fn pod_deleted(w: World, management: &'static str) {
    start(
        &w,
        &[],
        json!({"replicas": 3, "podManagementPolicy": management}),
    )
    .await;
    let Some(pod) = w.get("Pod", "s-0") else {
        return;
    };
    w.kill(&pod).await;
    w.until("another", |w| {
        w.get("Pod", "s-0")
            .is_some_and(|new| new["metadata"]["uid"] != pod["metadata"]["uid"])
    })
    .await;
    done(&w, 3).await;
    w.see("replaced").await;
}

async fn start_ordinal(w: World, (management, first): (&'static str, i32)) {
    let spec = json!({
        "replicas": 2, "podManagementPolicy": management, "ordinals": {"start": first},
    });
    start(&w, &[], spec).await;
    w.see("from there").await;
    w.patch(
        "StatefulSet",
        "s",
        json!({"spec": {"ordinals": {"start": first + 1}}}),
    )
    .await;
    w.until("the last pod", |w| {
        w.get("Pod", &format!("s-{}", first + 2)).is_some()
    })
    .await;
    w.until_gone("Pod", &format!("s-{first}")).await;
    done(&w, 2).await;
    w.see("moved").await;
}

async fn partitioned(w: World, partition: i32) {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
    start(&w, &[], json!({"replicas": 3, "updateStrategy": strategy})).await;
    w.patch("StatefulSet", "s", image("two")).await;
    updated(&w, (3 - partition).max(0)).await;
    w.see("those above").await;
    let Some(pod) = w.get("Pod", "s-0") else {
        return;
    };
    w.kill(&pod).await;
    w.until("another", |w| {
        w.get("Pod", "s-0")
            .is_some_and(|new| new["metadata"]["uid"] != pod["metadata"]["uid"])
    })
    .await;
    done(&w, 3).await;
    w.see("the first is as it was").await;
    let none = json!({"rollingUpdate": {"partition": 0}});
    w.patch(
        "StatefulSet",
        "s",
        json!({"spec": {"updateStrategy": none}}),
    )
    .await;
    updated(&w, 3).await;
    w.see("all").await;
}

async fn max_unavailable(w: World, max: Value) {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": max}});
    let spec = json!({
        "replicas": 3, "updateStrategy": strategy, "podManagementPolicy": "Parallel",
    });
    start(&w, &[], spec).await;
    w.rest().await;
    w.no_kubelets();
    w.patch("StatefulSet", "s", image("two")).await;
    w.see("so many end").await;
    w.kubelets();
    updated(&w, 3).await;
    w.see("rolled").await;
}

async fn on_delete(w: World) {
    start(
        &w,
        &[],
        json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}}),
    )
    .await;
    w.patch("StatefulSet", "s", image("two")).await;
    w.see("nothing happens").await;
    if let Some(pod) = w.get("Pod", "s-1") {
        w.kill(&pod).await;
    }
    updated(&w, 1).await;
    w.see("one was deleted").await;
}

async fn claims(w: World, (deleted, scaled): (&'static str, &'static str)) {
    let policy = json!({"whenDeleted": deleted, "whenScaled": scaled});
    let spec = json!({"replicas": 3, "persistentVolumeClaimRetentionPolicy": policy});
    start(&w, &["data", "more"], spec).await;
    w.see("created").await;
    w.patch("StatefulSet", "s", json!({"spec": {"replicas": 1}}))
        .await;
    done(&w, 1).await;
    if scaled == "Delete" {
        w.until("claims to be deleted", |w| {
            w.list("PersistentVolumeClaim").len() == 2
        })
        .await;
    }
    w.see("scaled").await;
    w.delete("StatefulSet", "s", Propagation::Background).await;
    w.until("no pods", |w| w.list("Pod").is_empty()).await;
    if deleted == "Delete" {
        w.until("no claims", |w| w.list("PersistentVolumeClaim").is_empty())
            .await;
    }
    w.see("deleted").await;
}

async fn claims_policy_changed(w: World) {
    start(&w, &["data"], json!({"replicas": 2})).await;
    let policy = json!({"whenDeleted": "Delete", "whenScaled": "Delete"});
    let patch = json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}});
    w.patch("StatefulSet", "s", patch).await;
    w.see("owned").await;
    let policy = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    let patch = json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}});
    w.patch("StatefulSet", "s", patch).await;
    w.see("owned no more").await;
}

async fn claim_deleted(w: World) {
    start(&w, &["data"], json!({"replicas": 2})).await;
    w.delete("PersistentVolumeClaim", "data-s-1", Propagation::Background)
        .await;
    w.see("it is in use").await;
    if let Some(pod) = w.get("Pod", "s-1") {
        w.kill(&pod).await;
    }
    w.until("a new pod", |w| w.pods().len() == 2).await;
    done(&w, 2).await;
    w.see("replaced").await;
}

async fn min_ready(w: World) {
    w.kubelets();
    w.create(statefulset(
        "s",
        &[],
        json!({"replicas": 2, "minReadySeconds": 2}),
    ))
    .await;
    w.until_field("StatefulSet", "s", "/status/availableReplicas", json!(2))
        .await;
    w.see("available").await;
}

async fn label_lost(w: World) {
    start(&w, &[], json!({"replicas": 2})).await;
    let label = "statefulset.kubernetes.io/pod-name";
    w.patch("Pod", "s-0", json!({"metadata": {"labels": {label: null}}}))
        .await;
    w.until("the label", |w| {
        let pod = w.get("Pod", "s-0").unwrap_or_default();
        pod["metadata"]["labels"][label].is_string()
    })
    .await;
    w.see("given again").await;
}

async fn delete(w: World, policy: Propagation) {
    start(&w, &["data"], json!({"replicas": 2})).await;
    w.delete("StatefulSet", "s", policy).await;
    w.until_gone("StatefulSet", "s").await;
    if policy != Propagation::Orphan {
        w.until("no pods", |w| w.list("Pod").is_empty()).await;
    }
    w.see("deleted").await;
}

async fn adopt(w: World) {
    start(&w, &[], json!({"replicas": 2})).await;
    w.delete("StatefulSet", "s", Propagation::Orphan).await;
    w.until_gone("StatefulSet", "s").await;
    w.rest().await;
    start(&w, &[], json!({"replicas": 2})).await;
    w.see("adopted").await;
}

async fn history(w: World, limit: i32) {
    start(
        &w,
        &[],
        json!({"replicas": 1, "revisionHistoryLimit": limit}),
    )
    .await;
    for next in ["two", "three", "four"] {
        w.patch("StatefulSet", "s", image(next)).await;
        w.until(&format!("a pod of {next}"), |w| {
            let pods = w.pods();
            pods.len() == 1 && pods[0]["spec"]["containers"][0]["image"] == next
        })
        .await;
        done(&w, 1).await;
        w.rest().await;
    }
    w.see("four templates later").await;
}

async fn in_the_way(w: World) {
    w.kubelets();
    let pod = merged(
        super::templates::pod("s-1", "other"),
        json!({"metadata": {"annotations": {"mine": "yes"}}}),
    );
    w.create(pod).await;
    w.create(statefulset("s", &[], json!({"replicas": 3})))
        .await;
    w.until_event("FailedCreate").await;
    w.see("a stranger has the name").await;
}

async fn waits_for_terminating(w: World) {
    start(&w, &[], json!({"replicas": 2})).await;
    w.rest().await;
    w.no_kubelets();
    w.delete("Pod", "s-0", Propagation::Background).await;
    w.patch("StatefulSet", "s", json!({"spec": {"replicas": 3}}))
        .await;
    w.see("one ends").await;
    w.kubelets();
    done(&w, 3).await;
    w.see("done").await;
}

async fn unready(w: World) {
    start(&w, &[], json!({"replicas": 3})).await;
    w.rest().await;
    if let Some(pod) = w.get("Pod", "s-1") {
        w.run_as(&pod, false, 0).await;
    }
    w.until_field("StatefulSet", "s", "/status/readyReplicas", json!(2))
        .await;
    w.patch("StatefulSet", "s", json!({"spec": {"replicas": 1}}))
        .await;
    w.see("scaled").await;
}
