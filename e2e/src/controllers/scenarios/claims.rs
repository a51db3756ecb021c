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
async fn allocate(w: &World, pod: &Value) {
    let result = json!({
        "request": "r", "driver": "example.com", "pool": "pool", "device": "d",
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
    allocate(w, &pod).await;
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
