//! Kubelets that are played: N nodes that are ready and renew their leases, and whose pods
//! run a set time after they come, and end when they are told to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use http::Method;
use serde_json::{Value, json};

use super::objects::{delete, patch_status, pod_path};
use super::watch::Changes;
use crate::controllers::kubelet::lease;
use crate::controllers::side::LEASES;
use crate::stand::http::{Ask, MERGE};
use crate::stand::pki::Pki;
use crate::stand::{Connection, Endpoint};

/// Plays many kubelets of a cluster.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many nodes.
    #[arg(long, default_value_t = 100)]
    pub count: usize,
    /// The API server's port on this machine.
    #[arg(long)]
    pub port: u16,
    /// A directory with `ca.crt`, and `admin.crt` and `admin.key` of an administrator.
    #[arg(long)]
    pub pki: PathBuf,
    /// How long a pod takes to run.
    #[arg(long, default_value_t = 1000)]
    pub start_milliseconds: u64,
    /// Zones that the nodes are in.
    #[arg(long, default_value_t = 3)]
    pub zones: usize,
}

/// How often a kubelet renews its lease.
const RENEW: Duration = Duration::from_secs(10);
/// After a request that was refused.
const RETRY: Duration = Duration::from_secs(1);
/// Requests in flight.
const IN_FLIGHT: usize = 64;

/// A node as its kubelet would register it.
pub fn node(i: usize, zones: usize) -> Value {
    let name = format!("sim-{i:05}");
    let resources =
        json!({"cpu": "32", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "110"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": format!("zone-{}", i % zones.max(1)),
        }},
        "status": {
            "capacity": resources, "allocatable": resources,
            "conditions": [ready()],
            "nodeInfo": {
                "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "simulated://1",
                "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "v1.36.2",
                "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
            },
        },
    })
}

fn ready() -> Value {
    json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "played"})
}

/// Does something for each of a number of things, [`IN_FLIGHT`] at once.
pub async fn each<T, F: Future<Output = Result<()>>>(
    of: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> F,
) -> Result<()> {
    each_of(IN_FLIGHT, of, work).await
}

/// [`each`], so many at once.
pub async fn each_of<T, F: Future<Output = Result<()>>>(
    at_once: usize,
    of: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> F,
) -> Result<()> {
    stream::iter(of)
        .map(|one| Ok(work(one)))
        .try_buffer_unordered(at_once)
        .try_collect()
        .await
}

/// Plays until it is ended.
///
/// # Errors
///
/// When the API server cannot be reached.
pub async fn run(options: Options) -> Result<()> {
    let endpoint = Endpoint::new(options.port, &Pki::at(&options.pki))?;
    let connection = Arc::new(endpoint.connect().await?);
    let mut changes = Changes::follow(&endpoint, "/api/v1/pods").await?;
    each(0..options.count, |i| {
        let ask = Ask::post("/api/v1/nodes", &node(i, options.zones));
        let connection = Arc::clone(&connection);
        // It may be there from the last time.
        async move { connection.ask(&ask).await.map(drop) }
    })
    .await?;
    println!("{} nodes are registered", options.count);
    let renewing = {
        let connection = Arc::clone(&connection);
        async move {
            let mut tick = tokio::time::interval(RENEW);
            loop {
                tick.tick().await;
                each(0..options.count, |i| renew(&connection, i)).await?;
            }
        }
    };
    let delay = Duration::from_millis(options.start_milliseconds);
    let playing = async {
        loop {
            let (kind, pod) = changes.next_at_all().await?;
            let on = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            if kind == "DELETED" || !on.starts_with("sim-") {
                continue;
            }
            let connection = Arc::clone(&connection);
            tokio::spawn(async move {
                if let Err(error) = play(&connection, &pod, delay).await {
                    eprintln!("a pod is not played: {error}");
                }
            });
        }
    };
    tokio::select! {
        ended = renewing => ended,
        ended = playing => ended,
    }
}

/// Renews a node's lease. The status of a node that is well is told every five minutes only,
/// which is longer than any run.
async fn renew(connection: &Connection, i: usize) -> Result<()> {
    let name = format!("sim-{i:05}");
    let lease = lease(&name);
    // Leases are not replaced without saying which.
    let renewed = json!({"spec": lease["spec"]});
    let path = format!("{LEASES}/{name}");
    let ask = Ask::send(Method::PATCH, path, MERGE, renewed.to_string());
    let (status, _) = connection.ask(&ask).await?;
    if status == http::StatusCode::NOT_FOUND {
        connection.success(&Ask::post(LEASES, &lease)).await?;
    } else {
        anyhow::ensure!(status.is_success(), "the lease of {name}: {status}");
    }
    Ok(())
}

/// What a kubelet does about a pod that has changed.
async fn play(connection: &Connection, pod: &Value, delay: Duration) -> Result<()> {
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    let path = pod_path(text("namespace"), text("name"));
    let ask = if pod["metadata"]["deletionTimestamp"].is_string() {
        delete(&path)
    } else if pod["status"]["phase"] == "Pending" {
        tokio::time::sleep(delay).await;
        let yes = |ty: &str| json!({"type": ty, "status": "True"});
        let status = json!({
            "phase": "Running",
            "conditions": [yes("Initialized"), yes("ContainersReady"), yes("Ready")],
        });
        patch_status(&path, &status)
    } else {
        return Ok(());
    };
    loop {
        let (status, body) = connection.ask(&ask).await?;
        if status.is_success() || status == http::StatusCode::NOT_FOUND {
            return Ok(());
        }
        // Kubelets do not give up.
        eprintln!("{path}: {status} {}", String::from_utf8_lossy(&body));
        tokio::time::sleep(RETRY).await;
    }
}
