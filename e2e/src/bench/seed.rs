//! The data that both sides begin with: namespaces, a few small objects, and very many
//! pods.
//!
//! One pod is made through an API server, by theirs when there is one; its bytes in
//! etcd are the template of all others, which differ in parts of equal length.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Options;
use super::measure::etcd_flags;
use crate::stand::http::Ask;
use crate::stand::pki::Pki;
use crate::stand::{Apiserver, Connection, Endpoint, Etcd};

/// Where the many pods are; each namespace has the same number.
pub const NAMESPACES: [&str; 5] = ["bench-0", "bench-1", "bench-2", "bench-3", "bench-4"];
/// Where pods are that change while they are watched.
pub const FANOUT: &str = "fan-out";
/// How many those are.
pub const FANOUT_PODS: u64 = 100;
/// Where pods are created.
pub const CREATES: &str = "creates";
/// Where deployments are applied.
pub const APPLIES: &str = "applies";
/// How many config maps the first of [`NAMESPACES`] has.
pub const CONFIG_MAPS: u64 = 10;

/// The placeholders of the template, each as long as what replaces it.
const NAMESPACE: &str = "bench-x";
const NAME: &str = "pod-xxxxxx";
const NODE: &str = "node-xxxx";
const HUNDREDTH: &str = "hundredth-xx";

/// What was made.
#[derive(Debug)]
pub struct Seed {
    /// etcd's data directory, at rest.
    pub data: PathBuf,
    /// Bytes of all pods.
    pub stored: u64,
}

/// Makes the data, or finds it made by an earlier run with the same number of pods.
///
/// # Errors
///
/// When a server does not do what it should.
pub async fn make(options: &Options, directory: &Path, pki: &Pki) -> Result<Seed> {
    ensure!(
        options.pods.is_multiple_of(500) && options.pods < 1_000_000,
        "--pods must be a multiple of 500, below a million"
    );
    let home = directory.join(format!("seed-{}", options.pods));
    let (data, done) = (home.join("m0/data"), home.join("stored"));
    if let Ok(stored) = std::fs::read_to_string(&done) {
        let stored = stored.trim().parse()?;
        return Ok(Seed { data, stored });
    }
    if home.exists() {
        std::fs::remove_dir_all(&home)?;
    }
    std::fs::create_dir_all(&home)?;
    let mut etcd = Etcd::new(&home, 1, &etcd_flags(options))?;
    etcd.start().await?;
    let bin = options.theirs.as_ref().unwrap_or(&options.ours);
    let log = home.join("kube-apiserver.log");
    let mut api = Apiserver::new(bin, &etcd.servers(), pki, &log, &options.flag)?;
    let endpoint = Endpoint::new(api.port, pki)?;
    api.start()?;
    api.ready(&endpoint).await?;
    let connection = endpoint.connect().await?;
    small_objects(&connection).await?;
    let uid = template(&connection).await?;
    api.stop()?;

    let gateway = etcd.gateway(0).await?;
    let template_key = format!("/registry/pods/{NAMESPACE}/{NAME}");
    let template = gateway.get(&template_key).await?;
    gateway.delete_prefix(&template_key).await?;
    let mut stored = 0;
    let each = options.pods / NAMESPACES.len() as u64;
    let places = NAMESPACES.map(|namespace| (namespace, each));
    for (namespace, count) in places.into_iter().chain([(FANOUT, FANOUT_PODS)]) {
        let numbers: Vec<_> = (0..count).collect();
        for chunk in numbers.chunks(50) {
            let mut batch = Vec::new();
            for n in chunk {
                let bytes = pod(&template, &uid, namespace, *n)?;
                stored += bytes.len() as u64;
                batch.push((pod_key(namespace, *n), bytes));
            }
            gateway.put_all(&batch).await?;
        }
    }
    gateway.compact(gateway.revision().await?).await?;
    gateway.defragment().await?;
    etcd.stop()?;
    std::fs::write(done, stored.to_string())?;
    Ok(Seed { data, stored })
}

/// The key of a pod in etcd.
pub fn pod_key(namespace: &str, n: u64) -> String {
    format!("{}pod-{n:06}", pods_prefix(namespace))
}

/// What the keys of a namespace's pods begin with.
pub fn pods_prefix(namespace: &str) -> String {
    format!("/registry/pods/{namespace}/")
}

fn pod(template: &[u8], uid: &str, namespace: &str, n: u64) -> Result<Vec<u8>> {
    let place = NAMESPACES.iter().position(|name| *name == namespace);
    let number = place.unwrap_or(NAMESPACES.len()) as u64 * 1_000_000 + n;
    let mut bytes = template.to_vec();
    for (from, to) in [
        (NAMESPACE, namespace.to_owned()),
        (NAME, format!("pod-{n:06}")),
        (NODE, format!("node-{:04}", n % 1000)),
        (HUNDREDTH, format!("hundredth-{:02}", n % 100)),
        (uid, format!("00000000-0000-4000-8000-{number:012}")),
    ] {
        let count = replace(&mut bytes, from.as_bytes(), to.as_bytes());
        ensure!(count > 0, "{from} is not in the stored pod");
    }
    Ok(bytes)
}

/// Replaces by what is as long, and says how often.
fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) -> usize {
    assert_eq!(from.len(), to.len(), "lengths must not change");
    let mut count = 0;
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if &bytes[at..at + from.len()] == from {
            bytes[at..at + from.len()].copy_from_slice(to);
            count += 1;
            at += from.len();
        } else {
            at += 1;
        }
    }
    count
}

async fn small_objects(connection: &Connection) -> Result<()> {
    let others = [NAMESPACE, FANOUT, CREATES, APPLIES];
    for namespace in NAMESPACES.into_iter().chain(others) {
        let body = json!({"metadata": {"name": namespace}});
        let ask = Ask::post("/api/v1/namespaces", &body);
        connection.success(&ask).await?;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        let body = json!({"metadata": {"name": "default"}});
        connection.success(&Ask::post(path, &body)).await?;
    }
    for n in 0..CONFIG_MAPS {
        let path = format!("/api/v1/namespaces/{}/configmaps", NAMESPACES[0]);
        let body = json!({"metadata": {"name": format!("small-{n}")}, "data": {"key": "value"}});
        connection.success(&Ask::post(path, &body)).await?;
    }
    let path = format!(
        "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
        NAMESPACES[0]
    );
    let body = json!({"metadata": {"name": "other"}, "spec": {"holderIdentity": "bench", "leaseDurationSeconds": 15}});
    connection.success(&Ask::post(path, &body)).await?;
    Ok(())
}

/// Makes the pod that all others are copies of, as it looks once it runs.
async fn template(connection: &Connection) -> Result<String> {
    let container = |name: &str, port: u64| {
        json!({
            "name": name,
            "image": format!("registry.example/shop/{name}:v1.27.3"),
            "command": [format!("/usr/bin/{name}"), "--config=/etc/shop/config.yaml", "--v=2"],
            "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
            "env": [
                {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "LOG_LEVEL", "value": "info"},
            ],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 10},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 5},
            "volumeMounts": [{"name": "config", "mountPath": "/etc/shop", "readOnly": true}],
        })
    };
    let pod = json!({
        "metadata": {
            "name": NAME,
            "labels": {"app": "shop", "tier": "backend", "pod-template-hash": "6d4cf56db6", "bench": HUNDREDTH},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "shop-6d4cf56db6",
                "uid": "7b3f6d0e-4a52-4a37-9c33-0f1f6f3e9a11", "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "nodeName": NODE,
            "containers": [container("server", 8080), container("metrics", 9090)],
            "volumes": [{"name": "config", "configMap": {"name": "shop"}}],
        },
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let made = connection.json(&Ask::post(&path, &pod)).await?;
    let uid = made["metadata"]["uid"].as_str().context("a uid")?;
    let time = "2026-01-02T03:04:05Z";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": time});
    let running = |name: &str| {
        json!({
            "name": name, "ready": true, "started": true, "restartCount": 0,
            "image": format!("registry.example/shop/{name}:v1.27.3"),
            "imageID": "registry.example/shop@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
            "containerID": "containerd://fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9",
            "state": {"running": {"startedAt": time}},
        })
    };
    let conditions: Vec<Value> = [
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodScheduled",
    ]
    .map(condition)
    .into();
    let mut with_status = made.clone();
    with_status["status"] = json!({
        "phase": "Running", "hostIP": "192.0.2.10", "hostIPs": [{"ip": "192.0.2.10"}],
        "podIP": "10.244.1.17", "podIPs": [{"ip": "10.244.1.17"}],
        "startTime": time, "qosClass": "Burstable", "conditions": conditions,
        "containerStatuses": [running("server"), running("metrics")],
    });
    let status = Ask::send(
        http::Method::PUT,
        format!("{path}/{NAME}/status"),
        crate::stand::http::JSON,
        with_status.to_string(),
    );
    connection.success(&status).await?;
    Ok(uid.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_differ_in_parts_of_equal_length() {
        let uid = "7b3f6d0e-4a52-4a37-9c33-0f1f6f3e9a11";
        let template = format!("{NAMESPACE}/{NAME} {NODE} {HUNDREDTH} {uid} {NAME}").into_bytes();
        let bytes = pod(&template, uid, "bench-1", 1234).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "bench-1/pod-001234 node-0234 hundredth-34 00000000-0000-4000-8000-000001001234 pod-001234"
        );
        assert!(pod(b"another", uid, "bench-1", 1).is_err());
    }
}
