//! HorizontalPodAutoscalers without metrics: bounds, targets, and what is wrong with them.

use serde_json::{Value, json};

use super::Book;
use super::templates::{deployment, merged, statefulset};
use crate::controllers::World;

pub fn write(book: &mut Book) {
    for (min, max, has) in [(2, 5, 1), (1, 2, 4), (1, 5, 3), (1, 5, 0)] {
        book.with(
            format!("autoscaler/{has}-within-{min}-{max}"),
            (min, max, has),
            bounds,
        );
    }
    for (name, metric) in metrics() {
        book.with(format!("autoscaler/metric-{name}"), metric, of_metric);
    }
    for (name, target) in [
        (
            "none",
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "nobody"}),
        ),
        (
            "kind",
            json!({"apiVersion": "apps/v1", "kind": "Nonsense", "name": "d"}),
        ),
        (
            "group",
            json!({"apiVersion": "nonsense.example.com/v1", "kind": "Deployment", "name": "d"}),
        ),
        (
            "version",
            json!({"apiVersion": "a/b/c", "kind": "Deployment", "name": "d"}),
        ),
        (
            "without-scale",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "d"}),
        ),
    ] {
        book.with(format!("autoscaler/target-{name}"), target, wrong_target);
    }
    book.add("autoscaler/statefulset", of_statefulset);
    book.add("autoscaler/two-of-one", two);
    book.add("autoscaler/behaviour", behaviour);
    book.add("autoscaler/bounds-changed", bounds_changed);
    book.add("autoscaler/no-selector-match", no_requests);
}

fn cpu() -> Value {
    json!([{"type": "Resource", "resource": {
        "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50},
    }}])
}

fn autoscaler(name: &str, spec: Value) -> Value {
    let base = json!({
        "minReplicas": 1, "maxReplicas": 5, "metrics": cpu(),
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
    });
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name}, "spec": merged(base, spec),
    })
}

async fn target(w: &World, replicas: i32) {
    w.kubelets();
    let requests = json!([{"name": "c", "image": "one", "resources": {"requests": {"cpu": "1"}}}]);
    let template = json!({"spec": {"containers": requests}});
    w.create(deployment(
        "d",
        json!({"replicas": replicas, "template": template}),
    ))
    .await;
    w.until_field(
        "Deployment",
        "d",
        "/status/availableReplicas",
        json!(replicas),
    )
    .await;
}

async fn told(w: &World) {
    w.until("conditions", |w| {
        !w.field("HorizontalPodAutoscaler", "h", "/status/conditions")
            .is_null()
    })
    .await;
}

async fn bounds(w: World, (min, max, has): (i32, i32, i32)) {
    target(&w, has).await;
    w.create(autoscaler(
        "h",
        json!({"minReplicas": min, "maxReplicas": max}),
    ))
    .await;
    told(&w).await;
    if has != 0 {
        let wanted = json!(has.clamp(min, max));
        w.until_field("Deployment", "d", "/status/availableReplicas", wanted)
            .await;
    }
    w.see("within").await;
}

fn metrics() -> Vec<(&'static str, Value)> {
    let average = json!({"type": "AverageValue", "averageValue": "1"});
    let value = json!({"type": "Value", "value": "10"});
    let service = json!({"kind": "Service", "name": "s", "apiVersion": "v1"});
    let resource = |target: Value| json!([{"type": "Resource", "resource": {"name": "memory", "target": target}}]);
    vec![
        ("resource-average", resource(average.clone())),
        (
            "resource-utilization",
            resource(json!({"type": "Utilization", "averageUtilization": 80})),
        ),
        (
            "container",
            json!([{"type": "ContainerResource", "containerResource": {
                "name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 50},
            }}]),
        ),
        (
            "pods",
            json!([{"type": "Pods", "pods": {"metric": {"name": "q"}, "target": average}}]),
        ),
        (
            "object",
            json!([{"type": "Object", "object": {
                "describedObject": service, "metric": {"name": "o"}, "target": value,
            }}]),
        ),
        (
            "external",
            json!([{"type": "External", "external": {
                "metric": {"name": "e", "selector": {"matchLabels": {"k": "v"}}}, "target": average,
            }}]),
        ),
        (
            "of-malformed-selector",
            json!([{"type": "External", "external": {
                "metric": {"name": "e", "selector": {"matchExpressions": [
                    {"key": "k", "operator": "Resembles", "values": ["v"]},
                ]}},
                "target": average,
            }}]),
        ),
        (
            "of-pods-by-malformed-selector",
            json!([{"type": "Pods", "pods": {
                "metric": {"name": "q", "selector": {"matchLabels": {"no key!": "v"}}},
                "target": average,
            }}]),
        ),
        (
            "of-unknown-kind",
            json!([{"type": "Object", "object": {
                "describedObject": {"kind": "Nothing", "name": "n", "apiVersion": "nowhere.example/v1"},
                "metric": {"name": "o"}, "target": value,
            }}]),
        ),
        (
            "without-source",
            json!([{"type": "Pods"}, {"type": "Resource", "resource": {
                "name": "cpu", "target": {"type": "Value", "value": "1"},
            }}]),
        ),
        (
            "three",
            json!([
                {"type": "Pods", "pods": {"metric": {"name": "q"}, "target": average}},
                {"type": "External", "external": {"metric": {"name": "e"}, "target": value}},
                cpu()[0],
            ]),
        ),
    ]
}

async fn of_metric(w: World, metrics: Value) {
    target(&w, 2).await;
    w.create(autoscaler("h", json!({"metrics": metrics}))).await;
    told(&w).await;
    w.see("no metrics").await;
}

async fn wrong_target(w: World, target: Value) {
    w.create(super::templates::config("d")).await;
    w.create(autoscaler("h", json!({"scaleTargetRef": target})))
        .await;
    told(&w).await;
    w.see("wrong").await;
}

async fn of_statefulset(w: World) {
    w.kubelets();
    w.create(statefulset("d", &[], json!({"replicas": 1})))
        .await;
    let target = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "d"});
    w.create(autoscaler(
        "h",
        json!({"scaleTargetRef": target, "minReplicas": 2}),
    ))
    .await;
    w.until_field("StatefulSet", "d", "/status/readyReplicas", json!(2))
        .await;
    w.see("two").await;
}

async fn two(w: World) {
    target(&w, 2).await;
    w.create(autoscaler("h", json!({}))).await;
    told(&w).await;
    w.create(autoscaler("i", json!({}))).await;
    w.until_event("AmbiguousSelector").await;
    w.see("ambiguous").await;
}

async fn behaviour(w: World) {
    target(&w, 5).await;
    let policy = json!([{"type": "Pods", "value": 1, "periodSeconds": 1800}]);
    let behaviour = json!({"scaleDown": {"policies": policy, "stabilizationWindowSeconds": 0}});
    w.create(autoscaler(
        "h",
        json!({"maxReplicas": 2, "behavior": behaviour}),
    ))
    .await;
    told(&w).await;
    w.see("slowly").await;
}

async fn bounds_changed(w: World) {
    target(&w, 2).await;
    w.create(autoscaler("h", json!({}))).await;
    told(&w).await;
    let patch = json!({"spec": {"minReplicas": 4, "maxReplicas": 6}});
    w.patch("HorizontalPodAutoscaler", "h", patch).await;
    w.until_field("Deployment", "d", "/status/availableReplicas", json!(4))
        .await;
    w.see("four").await;
}

async fn no_requests(w: World) {
    w.kubelets();
    w.create(deployment("d", json!({"replicas": 2}))).await;
    w.until_field("Deployment", "d", "/status/availableReplicas", json!(2))
        .await;
    w.create(autoscaler("h", json!({}))).await;
    told(&w).await;
    w.see("no requests").await;
}
