//! Claims, volumes, classes, and what protects them.

use serde_json::{Value, json};

use super::Book;
use super::templates::{claim, merged, pod, volume};
use crate::controllers::World;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    for (name, volumes, wanted) in matches() {
        book.with(format!("volume/match-{name}"), (volumes, wanted), matching);
    }
    book.add("volume/late", late);
    book.add("volume/no-class", no_class);
    book.add("volume/unknown-class", unknown_class);
    book.add("volume/named-by-claim", named);
    book.add("volume/named-too-small", named_too_small);
    book.add("volume/named-but-taken", named_taken);
    book.add("volume/names-its-claim", prebound);
    book.add("volume/names-another-claim", prebound_other);
    for policy in ["Retain", "Delete", "Recycle"] {
        book.with(format!("volume/released-{policy}"), policy, released);
    }
    book.add("volume/lost", lost);
    book.add("volume/claim-ref-removed", reference_removed);
    for mode in ["Immediate", "WaitForFirstConsumer"] {
        book.with(format!("volume/provision-{mode}"), mode, provision);
    }
    book.add("volume/selected-node", selected_node);
    book.add("volume/two-claims-one-volume", two_claims);
    book.add("volume/claim-in-use", in_use);
    book.add("volume/claim-of-ended-pod", of_ended_pod);
    book.add("volume/volume-in-use", volume_in_use);
    for allowed in [true, false] {
        book.with(format!("volume/expand-allowed-{allowed}"), allowed, expand);
    }
    book.add("volume/ephemeral", ephemeral);
    book.add("volume/ephemeral-in-the-way", ephemeral_conflict);
    book.add("volume/attributes-class", attributes_class);
    book.add("volume/attached-and-detached", attach);
    book.add("volume/attach-not-needed", attach_not_needed);
}

fn of(w: &World, name: &str, spec: Value) -> Value {
    volume(&w.name(name), w.namespace(), spec)
}

fn wants(w: &World, name: &str, spec: Value) -> Value {
    claim(name, w.namespace(), spec)
}

async fn class(w: &World, fields: Value) {
    let base = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": w.namespace()}, "provisioner": "example.com/p",
    });
    w.create(merged(base, fields)).await;
}

async fn phase(w: &World, name: &str, phase: &str) {
    w.until_field("PersistentVolumeClaim", name, "/status/phase", json!(phase))
        .await;
}

async fn volume_phase(w: &World, name: &str, phase: &str) {
    w.until_field(
        "PersistentVolume",
        &w.name(name),
        "/status/phase",
        json!(phase),
    )
    .await;
}

async fn bound(w: &World) {
    w.create(of(w, "a", json!({}))).await;
    volume_phase(w, "a", "Available").await;
    w.create(wants(w, "c", json!({}))).await;
    phase(w, "c", "Bound").await;
}

fn matches() -> Vec<(&'static str, Vec<Value>, Value)> {
    let size = |size: &str| json!({"capacity": {"storage": size}});
    let ask = |size: &str| json!({"resources": {"requests": {"storage": size}}});
    let modes = |modes: &[&str]| json!({"accessModes": modes});
    vec![
        (
            "smallest",
            vec![size("5Gi"), size("2Gi"), size("3Gi")],
            ask("1Gi"),
        ),
        ("exact", vec![size("5Gi"), size("2Gi")], ask("5Gi")),
        (
            "none-large-enough",
            vec![size("1Gi"), size("2Gi")],
            ask("5Gi"),
        ),
        (
            "mode",
            vec![modes(&["ReadWriteOnce"]), modes(&["ReadWriteMany"])],
            modes(&["ReadWriteMany"]),
        ),
        (
            "no-mode",
            vec![modes(&["ReadWriteOnce"])],
            modes(&["ReadWriteOncePod"]),
        ),
        (
            "block",
            vec![json!({"volumeMode": "Block"})],
            json!({"volumeMode": "Block"}),
        ),
        (
            "block-of-files",
            vec![json!({})],
            json!({"volumeMode": "Block"}),
        ),
        (
            "other-class",
            vec![json!({"storageClassName": "other"})],
            json!({}),
        ),
        (
            "selector",
            vec![json!({})],
            json!({"selector": {"matchLabels": {"a": "b"}}}),
        ),
    ]
}

async fn matching(w: World, (volumes, wanted): (Vec<Value>, Value)) {
    for (i, spec) in volumes.into_iter().enumerate() {
        let name = format!("v{i}");
        w.create(of(&w, &name, spec)).await;
        volume_phase(&w, &name, "Available").await;
    }
    w.create(wants(&w, "c", wanted)).await;
    w.see("matched").await;
}

async fn late(w: World) {
    w.create(wants(&w, "c", json!({}))).await;
    w.rest().await;
    w.create(of(&w, "a", json!({}))).await;
    phase(&w, "c", "Bound").await;
    w.see("bound").await;
}

async fn no_class(w: World) {
    w.create(claim("c", "", json!({}))).await;
    w.until_event("FailedBinding").await;
    w.see("waits").await;
}

async fn unknown_class(w: World) {
    w.create(wants(&w, "c", json!({}))).await;
    w.until_event("ProvisioningFailed").await;
    w.see("waits").await;
}

async fn named(w: World) {
    w.create(of(&w, "a", json!({}))).await;
    w.create(of(&w, "b", json!({}))).await;
    volume_phase(&w, "b", "Available").await;
    w.create(wants(&w, "c", json!({"volumeName": w.name("b")})))
        .await;
    phase(&w, "c", "Bound").await;
    w.see("bound").await;
}

async fn named_too_small(w: World) {
    w.create(of(&w, "a", json!({}))).await;
    volume_phase(&w, "a", "Available").await;
    let spec = json!({"volumeName": w.name("a"), "resources": {"requests": {"storage": "9Gi"}}});
    w.create(wants(&w, "c", spec)).await;
    w.see("no").await;
}

async fn named_taken(w: World) {
    bound(&w).await;
    w.create(wants(&w, "d", json!({"volumeName": w.name("a")})))
        .await;
    w.see("no").await;
}

async fn prebound(w: World) {
    let reference = json!({"namespace": w.namespace(), "name": "c"});
    w.create(of(&w, "a", json!({"claimRef": reference}))).await;
    volume_phase(&w, "a", "Available").await;
    w.create(wants(&w, "c", json!({}))).await;
    phase(&w, "c", "Bound").await;
    w.see("bound").await;
}

async fn prebound_other(w: World) {
    let reference = json!({"namespace": w.namespace(), "name": "other"});
    w.create(of(&w, "a", json!({"claimRef": reference}))).await;
    volume_phase(&w, "a", "Available").await;
    w.create(wants(&w, "c", json!({}))).await;
    w.see("waits").await;
}

async fn released(w: World, policy: &'static str) {
    let mut spec = json!({"persistentVolumeReclaimPolicy": policy});
    if policy == "Delete" {
        // A path on a host would be removed: nobody deletes what a driver has made but it.
        spec["csi"] = json!({"driver": "example.com", "volumeHandle": "h"});
    }
    w.create(of(&w, "a", spec)).await;
    volume_phase(&w, "a", "Available").await;
    w.create(wants(&w, "c", json!({}))).await;
    phase(&w, "c", "Bound").await;
    if policy == "Recycle" {
        // Recycling takes a pod on a node; the phases up to there are the same.
        w.see("bound").await;
        return;
    }
    w.delete("PersistentVolumeClaim", "c", Propagation::Background)
        .await;
    volume_phase(&w, "a", "Released").await;
    w.see("released").await;
}

async fn lost(w: World) {
    bound(&w).await;
    let name = w.name("a");
    w.delete("PersistentVolume", &name, Propagation::Background)
        .await;
    w.see("protected").await;
    w.patch(
        "PersistentVolume",
        &name,
        json!({"metadata": {"finalizers": null}}),
    )
    .await;
    phase(&w, "c", "Lost").await;
    w.see("lost").await;
    w.create(of(&w, "a", json!({}))).await;
    phase(&w, "c", "Bound").await;
    w.see("made anew").await;
}

async fn reference_removed(w: World) {
    bound(&w).await;
    w.delete("PersistentVolumeClaim", "c", Propagation::Background)
        .await;
    volume_phase(&w, "a", "Released").await;
    w.patch(
        "PersistentVolume",
        &w.name("a"),
        json!({"spec": {"claimRef": null}}),
    )
    .await;
    volume_phase(&w, "a", "Available").await;
    w.see("available").await;
}

async fn provision(w: World, mode: &'static str) {
    class(&w, json!({"volumeBindingMode": mode})).await;
    w.create(wants(&w, "c", json!({}))).await;
    w.rest().await;
    w.see("asked for").await;
    if mode == "Immediate" {
        let uid = w.field("PersistentVolumeClaim", "c", "/metadata/uid");
        let reference = json!({
            "namespace": w.namespace(), "name": "c", "uid": uid,
            "kind": "PersistentVolumeClaim", "apiVersion": "v1",
        });
        let spec = json!({
            "claimRef": reference, "persistentVolumeReclaimPolicy": "Delete",
            "csi": {"driver": "example.com", "volumeHandle": "h"},
        });
        let annotation = json!({"pv.kubernetes.io/provisioned-by": "example.com/p"});
        let object = merged(
            of(&w, "a", spec),
            json!({"metadata": {"annotations": annotation}}),
        );
        w.create(object).await;
        phase(&w, "c", "Bound").await;
        w.see("bound").await;
        w.delete("PersistentVolumeClaim", "c", Propagation::Background)
            .await;
        volume_phase(&w, "a", "Released").await;
        w.see("released").await;
    }
}

async fn selected_node(w: World) {
    class(&w, json!({"volumeBindingMode": "WaitForFirstConsumer"})).await;
    w.create(wants(&w, "c", json!({}))).await;
    w.rest().await;
    let annotation = json!({"volume.kubernetes.io/selected-node": "node1"});
    let patch = json!({"metadata": {"annotations": annotation}});
    w.patch("PersistentVolumeClaim", "c", patch).await;
    w.see("asked for").await;
}

async fn two_claims(w: World) {
    w.create(of(&w, "a", json!({}))).await;
    volume_phase(&w, "a", "Available").await;
    w.create(wants(&w, "c", json!({}))).await;
    phase(&w, "c", "Bound").await;
    w.create(wants(&w, "d", json!({}))).await;
    w.see("one waits").await;
}

fn using(name: &str, claim: &str) -> Value {
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]);
    merged(pod(name, "p"), json!({"spec": {"volumes": volumes}}))
}

async fn in_use(w: World) {
    bound(&w).await;
    w.create(using("p", "c")).await;
    w.until_pods(1).await;
    w.run_all().await;
    w.rest().await;
    w.delete("PersistentVolumeClaim", "c", Propagation::Background)
        .await;
    w.see("in use").await;
    w.kill(&w.pods()[0]).await;
    w.until_gone("PersistentVolumeClaim", "c").await;
    w.see("gone").await;
}

async fn of_ended_pod(w: World) {
    bound(&w).await;
    w.create(using("p", "c")).await;
    w.until_pods(1).await;
    w.end(&w.pods()[0], 0).await;
    w.rest().await;
    w.delete("PersistentVolumeClaim", "c", Propagation::Background)
        .await;
    w.see("deleted").await;
}

async fn volume_in_use(w: World) {
    bound(&w).await;
    w.delete("PersistentVolume", &w.name("a"), Propagation::Background)
        .await;
    w.see("in use").await;
    w.delete("PersistentVolumeClaim", "c", Propagation::Background)
        .await;
    w.until_gone("PersistentVolume", &w.name("a")).await;
    w.see("gone").await;
}

async fn expand(w: World, allowed: bool) {
    class(&w, json!({"allowVolumeExpansion": allowed})).await;
    w.create(of(
        &w,
        "a",
        json!({"csi": {"driver": "example.com", "volumeHandle": "h"}}),
    ))
    .await;
    volume_phase(&w, "a", "Available").await;
    w.create(wants(&w, "c", json!({}))).await;
    phase(&w, "c", "Bound").await;
    let more = json!({"spec": {"resources": {"requests": {"storage": "3Gi"}}}});
    w.patch("PersistentVolumeClaim", "c", more).await;
    w.see("asked for more").await;
}

fn ephemeral_pod(w: &World) -> Value {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": wants(w, "", json!({}))["spec"]});
    let volumes = json!([{"name": "v", "ephemeral": {"volumeClaimTemplate": template}}]);
    merged(pod("p", "p"), json!({"spec": {"volumes": volumes}}))
}

async fn ephemeral(w: World) {
    w.create(ephemeral_pod(&w)).await;
    w.until("a claim", |w| {
        w.get("PersistentVolumeClaim", "p-v").is_some()
    })
    .await;
    w.see("claimed").await;
    w.kill(&w.pods()[0]).await;
    w.until_gone("PersistentVolumeClaim", "p-v").await;
    w.see("gone").await;
}

async fn ephemeral_conflict(w: World) {
    w.create(wants(&w, "p-v", json!({}))).await;
    w.rest().await;
    w.create(ephemeral_pod(&w)).await;
    w.see("in the way").await;
}

async fn attributes_class(w: World) {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass",
        "metadata": {"name": w.namespace()}, "driverName": "example.com",
        "parameters": {"a": "b"},
    });
    w.create(class).await;
    w.rest().await;
    w.create(wants(
        &w,
        "c",
        json!({"volumeAttributesClassName": w.namespace()}),
    ))
    .await;
    w.rest().await;
    w.delete(
        "VolumeAttributesClass",
        w.namespace(),
        Propagation::Background,
    )
    .await;
    w.see("in use").await;
    w.delete("PersistentVolumeClaim", "c", Propagation::Background)
        .await;
    w.until_gone("VolumeAttributesClass", w.namespace()).await;
    w.see("gone").await;
}

/// A node whose kubelet lets the controller attach, and a volume of a driver.
async fn attachable(w: &World, attach: bool) {
    let driver = w.name("driver");
    w.create(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSIDriver", "metadata": {"name": driver},
        "spec": {"attachRequired": attach},
    }))
    .await;
    w.node("n", json!({}), json!([])).await;
    w.create(json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": w.name("n")},
        "spec": {"drivers": [{"name": driver, "nodeID": "n", "topologyKeys": null}]},
    }))
    .await;
    w.create(of(
        w,
        "a",
        json!({"csi": {"driver": driver, "volumeHandle": "h"}}),
    ))
    .await;
    volume_phase(w, "a", "Available").await;
    w.create(wants(w, "c", json!({}))).await;
    phase(w, "c", "Bound").await;
    w.create(using("p", "c")).await;
    w.until_pods(1).await;
    let pod = w.pods().remove(0);
    w.bind(&pod, &w.name("n")).await;
}

async fn attach(w: World) {
    attachable(&w, true).await;
    w.until("an attachment", |w| w.list("VolumeAttachment").len() == 1)
        .await;
    let name = w.list("VolumeAttachment")[0]["metadata"]["name"].clone();
    let name = name.as_str().unwrap_or_default().to_owned();
    w.see("asked for").await;
    w.patch_status("VolumeAttachment", &name, json!({"attached": true}))
        .await;
    w.until("the node to know", |w| {
        !w.field("Node", &w.name("n"), "/status/volumesAttached")
            .is_null()
    })
    .await;
    w.see("attached").await;
    w.kill(&w.pods()[0]).await;
    w.until_gone("VolumeAttachment", &name).await;
    w.see("detached").await;
}

async fn attach_not_needed(w: World) {
    attachable(&w, false).await;
    w.see("not needed").await;
}
