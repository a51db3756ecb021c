//! ResourceClaims of pods, and devices that are tainted.

use serde_json::{Value, json};

use super::Book;
use super::templates::{job, merged, pod};
use crate::controllers::World;
use crate::controllers::world::Propagation;

pub fn write(book: &mut Book) {
    book.add("resourceclaim/of-template", of_template);
    book.add("resourceclaim/template-comes-later", later);
    book.add("resourceclaim/pod-deleted", deleted);
    book.add("resourceclaim/pod-ends", ends);
    book.add("resourceclaim/by-name", by_name);
    book.add("resourceclaim/of-job", of_job);
    book.add("resourceclaim/reserved-by-ended-pod", reserved);
    book.add("resourceclaim/allocated-and-unused", unused);
    let tolerate = |seconds: Value| {
        json!([{
            "key": "example.com/bad", "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": seconds,
        }])
    };
    for (name, tolerations) in [
        ("none", json!([])),
        ("for-a-while", tolerate(json!(3))),
        ("for-long", tolerate(json!(1000))),
        ("for-ever", tolerate(json!(null))),
    ] {
        book.with(
            format!("devicetaint/tolerating-{name}"),
            tolerations,
            tainted,
        );
    }
    book.add("devicetaint/called-off", called_off);
}

fn request() -> Value {
    json!({"devices": {"requests": [{
        "name": "r", "exactly": {"deviceClassName": "example.com"},
    }]}})
}

async fn template(w: &World) {
    w.create(json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": {"name": "t"},
        "spec": {"metadata": {"labels": {"a": "b"}}, "spec": request()},
    }))
    .await;
}

fn claiming(field: &str, name: &str) -> Value {
    json!({"spec": {"resourceClaims": [{"name": "device", field: name}]}})
}

fn user() -> Value {
    merged(pod("p", "p"), claiming("resourceClaimTemplateName", "t"))
}

async fn claimed(w: &World) {
    w.until("a claim", |w| w.list("ResourceClaim").len() == 1)
        .await;
    w.until("the pod to know", |w| {
        !w.field("Pod", "p", "/status/resourceClaimStatuses")
            .is_null()
    })
    .await;
}

async fn of_template(w: World) {
    template(&w).await;
    w.create(user()).await;
    claimed(&w).await;
    w.see("claimed").await;
}

async fn later(w: World) {
    w.create(user()).await;
    w.until_event("FailedResourceClaimCreation").await;
    w.see("no template").await;
    template(&w).await;
    claimed(&w).await;
    w.see("claimed").await;
}

async fn deleted(w: World) {
    template(&w).await;
    w.create(user()).await;
    claimed(&w).await;
    w.kill(&w.pods()[0]).await;
    w.until("no claim", |w| w.list("ResourceClaim").is_empty())
        .await;
    w.see("gone").await;
}

async fn ends(w: World) {
    template(&w).await;
    w.create(user()).await;
    claimed(&w).await;
    w.end(&w.pods()[0], 0).await;
    w.see("ended").await;
}

async fn claim(w: &World) {
    w.create(json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": "c"}, "spec": request(),
    }))
    .await;
}

async fn by_name(w: World) {
    claim(&w).await;
    w.create(merged(pod("p", "p"), claiming("resourceClaimName", "c")))
        .await;
    w.see("claimed").await;
}

async fn of_job(w: World) {
    template(&w).await;
    let claims = claiming("resourceClaimTemplateName", "t");
    w.create(job("j", json!({"template": claims}))).await;
    w.until("a claim", |w| w.list("ResourceClaim").len() == 1)
        .await;
    w.rest().await;
    w.end(&w.pods()[0], 0).await;
    w.until_condition("Job", "j", "Complete").await;
    w.see("complete").await;
}

/// What the scheduler writes when it gives a claim to a pod.
async fn allocate(w: &World, pod: &Value, tolerations: Value) {
    let result = json!({
        "request": "r", "driver": "example.com", "pool": w.namespace(), "device": "d",
        "tolerations": tolerations,
    });
    let status = json!({
        "allocation": {"devices": {"results": [result]}},
        "reservedFor": [{"resource": "pods", "name": "p", "uid": pod["metadata"]["uid"]}],
    });
    w.patch(
        "ResourceClaim",
        "c",
        json!({"metadata": {"finalizers": ["resource.kubernetes.io/delete-protection"]}}),
    )
    .await;
    w.patch_status("ResourceClaim", "c", status).await;
}

async fn in_use(w: &World) {
    claim(w).await;
    w.create(merged(pod("p", "p"), claiming("resourceClaimName", "c")))
        .await;
    w.until_pods(1).await;
    let pod = w.pods().remove(0);
    allocate(w, &pod, json!(null)).await;
    w.run(&pod).await;
    w.see("in use").await;
}

async fn reserved(w: World) {
    in_use(&w).await;
    w.end(&w.pods()[0], 0).await;
    w.see("ended").await;
}

async fn unused(w: World) {
    in_use(&w).await;
    w.delete("ResourceClaim", "c", Propagation::Background)
        .await;
    w.see("deleted, in use").await;
    w.kill(&w.pods()[0]).await;
    w.until_gone("ResourceClaim", "c").await;
    w.see("gone").await;
}

/// A pool of one device.
fn slice(w: &World, generation: i64, taints: &Value) -> Value {
    json!({
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
        "metadata": {"name": w.name("slice")},
        "spec": {
            "driver": "example.com", "allNodes": true,
            "pool": {"name": w.namespace(), "generation": generation, "resourceSliceCount": 1},
            "devices": [{"name": "d", "taints": taints}],
        },
    })
}

async fn taint(w: &World, taints: Value) {
    let spec = slice(w, 2, &taints)["spec"].clone();
    w.patch("ResourceSlice", &w.name("slice"), json!({"spec": spec}))
        .await;
}

async fn on_device(w: &World, tolerations: Value) {
    w.create(slice(w, 1, &json!(null))).await;
    claim(w).await;
    w.create(merged(pod("p", "p"), claiming("resourceClaimName", "c")))
        .await;
    w.until_pods(1).await;
    let pod = w.pods().remove(0);
    allocate(w, &pod, tolerations).await;
    w.run(&pod).await;
    w.rest().await;
}

fn bad() -> Value {
    let now = crate::controllers::kubelet::now();
    json!([{"key": "example.com/bad", "effect": "NoExecute", "timeAdded": now}])
}

async fn tainted(w: World, tolerations: Value) {
    on_device(&w, tolerations).await;
    taint(&w, bad()).await;
    w.pass(std::time::Duration::from_secs(4)).await;
    w.see("tainted").await;
}

async fn called_off(w: World) {
    on_device(
        &w,
        json!([{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}]),
    )
    .await;
    taint(&w, bad()).await;
    w.rest().await;
    taint(&w, json!(null)).await;
    w.pass(std::time::Duration::from_secs(5)).await;
    w.see("called off").await;
}
