//! The node's heartbeat: a lease in `kube-node-lease`, renewed four times in its life.

use std::time::Duration;

use client::{Api, Client};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use tokio_util::sync::CancellationToken;
use tracing::warn;

const NAMESPACE: &str = "kube-node-lease";
/// Between attempts that fail.
const RETRY: Duration = Duration::from_millis(200);
const MAX_RETRY: Duration = Duration::from_secs(7);

/// Renews the lease until `stop`.
pub async fn run(client: Client, node_name: String, seconds: i32, stop: CancellationToken) {
    let leases: Api<Lease> = Api::namespaced(&client, NAMESPACE);
    let nodes: Api<Node> = Api::all(&client);
    let renew = Duration::from_secs(u64::try_from(seconds).unwrap_or(40)) / 4;
    let mut held: Option<Lease> = None;
    let mut retry = RETRY;
    loop {
        let pause = match beat(&leases, &nodes, &node_name, seconds, held.take()).await {
            Ok(lease) => {
                held = Some(lease);
                retry = RETRY;
                // Not all nodes of a cluster at once.
                renew.mul_f64(1.0 + 0.04 * rand::random::<f64>())
            }
            Err(error) => {
                warn!(%error, "cannot renew the node's lease yet");
                retry = (retry * 2).min(MAX_RETRY);
                retry
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn beat(
    leases: &Api<Lease>,
    nodes: &Api<Node>,
    node_name: &str,
    seconds: i32,
    held: Option<Lease>,
) -> client::Result<Lease> {
    if let Some(mut lease) = held {
        renewed(&mut lease, node_name, seconds);
        // Someone else changed it: look at it anew below.
        match leases.replace(&lease).await {
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            other => return other,
        }
    }
    match leases.get_opt(node_name).await? {
        Some(mut lease) => {
            renewed(&mut lease, node_name, seconds);
            own(&mut lease, nodes, node_name).await;
            leases.replace(&lease).await
        }
        None => {
            let mut lease = Lease::default();
            lease.metadata.name = Some(node_name.to_owned());
            lease.metadata.namespace = Some(NAMESPACE.to_owned());
            renewed(&mut lease, node_name, seconds);
            own(&mut lease, nodes, node_name).await;
            leases.create(&lease).await
        }
    }
}

fn renewed(lease: &mut Lease, node_name: &str, seconds: i32) {
    let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
    spec.holder_identity = Some(node_name.to_owned());
    spec.lease_duration_seconds = Some(seconds);
    spec.renew_time = Some(MicroTime(Timestamp::now()));
}

/// The lease goes when its node does.
async fn own(lease: &mut Lease, nodes: &Api<Node>, node_name: &str) {
    if lease
        .metadata
        .owner_references
        .as_ref()
        .is_some_and(|owners| !owners.is_empty())
    {
        return;
    }
    if let Ok(node) = nodes.get(node_name).await {
        lease.metadata.owner_references = Some(vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: node_name.to_owned(),
            uid: node.metadata.uid.unwrap_or_default(),
            ..Default::default()
        }]);
    }
}
