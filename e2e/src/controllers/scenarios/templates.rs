//! Objects that many scenarios begin with.

use serde_json::{Value, json};

/// The second object's fields laid over the first's, objects into objects.
pub fn merged(mut base: Value, over: Value) -> Value {
    match (&mut base, over) {
        (Value::Object(fields), Value::Object(over)) => {
            for (key, value) in over {
                let had = fields.remove(&key).unwrap_or_default();
                let value = if had.is_object() && value.is_object() {
                    merged(had, value)
                } else {
                    value
                };
                fields.insert(key, value);
            }
            base
        }
        (_, over) => over,
    }
}

/// A template of pods that bear the label `app`.
pub fn template(app: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"containers": [{"name": "c", "image": image}]},
    })
}

/// A patch that changes the image of a template's container.
pub fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// A pod that nobody controls.
pub fn pod(name: &str, app: &str) -> Value {
    let template = template(app, "one");
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    })
}

/// A workload of a kind of apps/v1 called `name`, whose pods bear the label `app=name`.
fn workload(kind: &str, name: &str, spec: Value) -> Value {
    let base = json!({
        "selector": {"matchLabels": {"app": name}},
        "template": template(name, "one"),
    });
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": merged(base, spec),
    })
}

pub fn deployment(name: &str, spec: Value) -> Value {
    workload("Deployment", name, spec)
}

pub fn replicaset(name: &str, spec: Value) -> Value {
    workload("ReplicaSet", name, spec)
}

pub fn daemonset(name: &str, spec: Value) -> Value {
    workload("DaemonSet", name, spec)
}

/// A StatefulSet with claims called `claims`.
pub fn statefulset(name: &str, claims: &[&str], spec: Value) -> Value {
    let claims = claims.iter().map(|claim| {
        json!({
            "metadata": {"name": claim},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        })
    });
    let claims: Value = claims.collect();
    let base = json!({"serviceName": name, "volumeClaimTemplates": claims});
    workload("StatefulSet", name, merged(base, spec))
}

pub fn job(name: &str, spec: Value) -> Value {
    let base = json!({"template": {"spec": {
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "one"}],
    }}});
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": merged(base, spec),
    })
}

pub fn cronjob(name: &str, spec: Value) -> Value {
    let template = job("", json!({}));
    let base = json!({
        "schedule": "* * * * *",
        "jobTemplate": {"metadata": {"labels": {"of": name}}, "spec": template["spec"]},
    });
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": name},
        "spec": merged(base, spec),
    })
}

/// A Service that selects `app=name`.
pub fn service(name: &str, spec: Value) -> Value {
    let base = json!({
        "selector": {"app": name},
        "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
    });
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": merged(base, spec),
    })
}

pub fn claim(name: &str, class: &str, spec: Value) -> Value {
    let base = json!({
        "accessModes": ["ReadWriteOnce"], "storageClassName": class,
        "resources": {"requests": {"storage": "1Gi"}},
    });
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": merged(base, spec),
    })
}

pub fn volume(name: &str, class: &str, spec: Value) -> Value {
    let source = if spec.get("csi").is_some() {
        json!({})
    } else {
        json!({"hostPath": {"path": "/x"}})
    };
    let base = json!({
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain", "storageClassName": class,
    });
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": merged(merged(base, source), spec),
    })
}

pub fn budget(name: &str, app: &str, spec: Value) -> Value {
    let base = json!({"selector": {"matchLabels": {"app": app}}});
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": merged(base, spec),
    })
}

pub fn config(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "b"},
    })
}
