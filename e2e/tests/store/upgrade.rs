//! What earlier releases have stored: other versions of a kind, and objects from before some
//! default was known. Readers see what this release would have stored, and changes are changes
//! of that.

use e2e::stand::http::Ask;
use serde_json::{Value, json};

use super::stand;

const HPAS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const INGRESSES: &str = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const MERGE: &str = "application/merge-patch+json";

fn metadata(name: &str, uid: &str) -> Value {
    json!({"name": name, "namespace": "default", "uid": uid, "generation": 1,
           "creationTimestamp": "2020-01-02T03:04:05Z"})
}

/// As JSON, which every release reads.
fn stored() -> [(&'static str, Value); 4] {
    let hpa = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": metadata("old", "0c7d1ee4-8d0c-4a4b-9d8b-6a1f2a6f3a01"),
        "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
                 "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 70},
        "status": {"currentReplicas": 0, "desiredReplicas": 0},
    });
    let labels =
        json!({"controller-uid": "0c7d1ee4-8d0c-4a4b-9d8b-6a1f2a6f3a02", "job-name": "old"});
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": metadata("old", "0c7d1ee4-8d0c-4a4b-9d8b-6a1f2a6f3a02"),
        "spec": {
            "parallelism": 1, "completions": 1, "backoffLimit": 6,
            "selector": {"matchLabels": {"controller-uid": labels["controller-uid"]}},
            "template": {"metadata": {"labels": labels}, "spec": {
                "containers": [{"name": "a", "image": "a", "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File", "imagePullPolicy": "Always"}],
                "restartPolicy": "Never", "terminationGracePeriodSeconds": 30,
                "dnsPolicy": "ClusterFirst", "securityContext": {},
                "schedulerName": "default-scheduler"}},
        },
        "status": {},
    });
    // A version that the API does not have any more.
    let ingress = json!({
        "apiVersion": "extensions/v1beta1", "kind": "Ingress",
        "metadata": metadata("old", "0c7d1ee4-8d0c-4a4b-9d8b-6a1f2a6f3a03"),
        "spec": {"backend": {"serviceName": "s", "servicePort": 80}},
        "status": {"loadBalancer": {}},
    });
    // From before addresses were several.
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": metadata("old", "0c7d1ee4-8d0c-4a4b-9d8b-6a1f2a6f3a04"),
        "spec": {"type": "ClusterIP", "clusterIP": "None", "selector": {"a": "b"},
                 "sessionAffinity": "None",
                 "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]},
        "status": {"loadBalancer": {}},
    });
    [
        ("/registry/ingress/default/old", ingress),
        ("/registry/services/specs/default/old", service),
        ("/registry/horizontalpodautoscalers/default/old", hpa),
        ("/registry/jobs/default/old", job),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_earlier_releases_are_served_and_changed() {
    let stand = stand(&[], &[]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    let gateway = stand.etcd.gateway(0).await.unwrap();
    for (key, value) in stored() {
        let stored = gateway.put(key, value.to_string().as_bytes()).await;
        stored.unwrap();
    }

    let all = connection.json(&Ask::get(HPAS)).await.unwrap();
    let metric = &all["items"][0]["spec"]["metrics"][0]["resource"];
    assert_eq!(metric["target"]["averageUtilization"], 70, "{all}");
    let job = connection
        .json(&Ask::get(format!("{JOBS}/old")))
        .await
        .unwrap();
    assert_eq!(job["spec"]["completionMode"], "NonIndexed", "{job}");
    assert_eq!(job["spec"]["suspend"], false);

    let ingress = connection
        .json(&Ask::get(format!("{INGRESSES}/old")))
        .await
        .unwrap();
    let service = json!({"name": "s", "port": {"number": 80}});
    assert_eq!(ingress["spec"]["defaultBackend"]["service"], service);
    let service = connection
        .json(&Ask::get(format!("{SERVICES}/old")))
        .await
        .unwrap();
    assert_eq!(service["spec"]["clusterIPs"], json!(["None"]), "{service}");
    assert_eq!(service["spec"]["ipFamilyPolicy"], "SingleStack");

    for path in [HPAS, JOBS, INGRESSES] {
        let path = format!("{path}/old");
        let patch = json!({"metadata": {"annotations": {"a": "b"}}}).to_string();
        let patch = Ask::send(http::Method::PATCH, &*path, MERGE, patch);
        let patched = connection.json(&patch).await.unwrap();
        assert_eq!(patched["metadata"]["generation"], 1, "{patched}");
        let read = connection.json(&Ask::get(&*path)).await.unwrap();
        assert_eq!(read["metadata"], patched["metadata"]);
        assert_eq!(read["spec"], patched["spec"]);
    }
    // Services have no generation.
    let patch = json!({"metadata": {"annotations": {"a": "b"}}}).to_string();
    let patch = Ask::send(http::Method::PATCH, format!("{SERVICES}/old"), MERGE, patch);
    connection.success(&patch).await.unwrap();
    // Written again, they are as any other.
    for (key, _) in stored() {
        assert!(
            gateway.get(key).await.unwrap().starts_with(b"k8s\0"),
            "{key}"
        );
    }

    let gone = Ask::delete(format!("{HPAS}/old"));
    connection.success(&gone).await.unwrap();
}

/// With their paths: what was right when it was stored and would be refused today.
fn refused_today() -> [(&'static str, String, Value); 4] {
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": metadata("cloned", "0c7d1ee4-8d0c-4a4b-9d8b-6a1f2a6f3a11"),
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
                 "volumeMode": "Filesystem",
                 "dataSource": {"kind": "PersistentVolumeClaim", "name": "other"}},
        "status": {"phase": "Pending"},
    });
    let hpa = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler",
        "metadata": metadata("vague", "0c7d1ee4-8d0c-4a4b-9d8b-6a1f2a6f3a12"),
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3},
        "status": {"currentReplicas": 0, "desiredReplicas": 0},
    });
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": metadata("odd", "0c7d1ee4-8d0c-4a4b-9d8b-6a1f2a6f3a13"),
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "serviceName": "odd",
                 "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
                     "containers": [{"name": "c", "image": "i"}],
                     "volumes": [{"name": "v", "azureDisk": {"diskName": "d", "diskURI": "u"}}]}}},
        "status": {"replicas": 0},
    });
    let webhooks = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "careless", "uid": "0c7d1ee4-8d0c-4a4b-9d8b-6a1f2a6f3a14",
                     "generation": 1, "creationTimestamp": "2020-01-02T03:04:05Z"},
        "webhooks": [{"name": "a.example.com", "sideEffects": "Unknown",
                      "admissionReviewVersions": ["v1beta1"], "rules": [],
                      "clientConfig": {"url": "https://localhost/a"}}],
    });
    let of = |plural: &str| format!("namespaces/default/{plural}");
    [
        (
            "/registry/persistentvolumeclaims/default/cloned",
            format!("/api/v1/{}/cloned", of("persistentvolumeclaims")),
            claim,
        ),
        (
            "/registry/horizontalpodautoscalers/default/vague",
            format!("{HPAS}/vague"),
            hpa,
        ),
        (
            "/registry/statefulsets/default/odd",
            format!("/apis/apps/v1/{}/odd", of("statefulsets")),
            set,
        ),
        (
            "/registry/validatingwebhookconfigurations/careless",
            "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/careless".into(),
            webhooks,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_be_refused_today_can_be_labelled() {
    let stand = stand(&[], &[]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    let gateway = stand.etcd.gateway(0).await.unwrap();
    for (key, path, value) in refused_today() {
        let stored = gateway.put(key, value.to_string().as_bytes()).await;
        stored.unwrap();
        let patch = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
        let patch = Ask::send(http::Method::PATCH, &*path, MERGE, patch);
        let patched = connection.json(&patch).await.unwrap();
        assert_eq!(patched["metadata"]["labels"]["a"], "b", "{patched}");
    }
    // What is wrong now may not become wrong in another way.
    let [_, (_, hpa, _), (_, set, _), (_, webhooks, _)] = refused_today();
    let wrong = [
        (hpa, json!({"spec": {"scaleTargetRef": {"kind": "Other"}}})),
        (set, json!({"spec": {"replicas": -1}})),
        (webhooks, json!({"webhooks": [{"name": "b.example.com"}]})),
    ];
    for (path, patch) in wrong {
        let patch = Ask::send(http::Method::PATCH, path, MERGE, patch.to_string());
        let (status, answer) = connection.ask(&patch).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(status, http::StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }
}
