//! The server's own lease in `kube-system`, by which others know that it lives
//! (KEP-1965).

use std::sync::Arc;

use jiff::Timestamp;
use meta::Status;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::ControlPlane;
use crate::registry::object_meta::{child_mut, meta};

const GROUP: &str = "coordination.k8s.io";
const NAMESPACE: &str = "kube-system";
/// Of the leases of these servers.
const LABEL: &str = "apiserver.kubernetes.io/identity=kube-apiserver";
/// Where other servers reach the one that holds the lease (KEP-4020).
const PEER_ADDRESS: &str = "kubernetes.io/peer-advertise-address";
/// Seconds.
const DURATION: i64 = 3600;

/// `apiserver-` and half of the host name's hash in base 32.
fn name(hostname: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let hash = Sha256::digest(hostname.as_bytes());
    let mut out = String::from("apiserver-");
    let (mut bits, mut have) = (0u32, 0);
    for byte in &hash[..16] {
        bits = bits << 8 | u32::from(*byte);
        have += 8;
        while have >= 5 {
            have -= 5;
            out.push(ALPHABET[(bits >> have & 31) as usize] as char);
        }
    }
    if have > 0 {
        out.push(ALPHABET[(bits << (5 - have) & 31) as usize] as char);
    }
    out
}

fn micro(at: Timestamp) -> Value {
    json!(at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
}

pub(super) async fn renew(cp: Arc<ControlPlane>) -> Result<(), Status> {
    let name = name(&cp.hostname);
    let now = Timestamp::now();
    let address = cp.peer.to_string();
    if let Some(mut lease) = cp.local.get(GROUP, "leases", NAMESPACE, &name).await? {
        child_mut(&mut lease["metadata"], "annotations")
            .insert(PEER_ADDRESS.into(), address.into());
        lease["spec"]["renewTime"] = micro(now);
        cp.local.update(GROUP, "leases", NAMESPACE, lease).await?;
        return Ok(());
    }
    let lease = json!({
        "metadata": {
            "name": name, "namespace": NAMESPACE,
            "annotations": {PEER_ADDRESS: address},
            "labels": {
                "apiserver.kubernetes.io/identity": "kube-apiserver",
                "kubernetes.io/hostname": cp.hostname,
            },
        },
        "spec": {
            "holderIdentity": format!("{name}_{}", uuid::Uuid::new_v4()),
            "leaseDurationSeconds": DURATION,
            "renewTime": micro(now),
        },
    });
    cp.local.ensure(GROUP, "leases", NAMESPACE, lease).await
}

/// Whether nobody has renewed the lease for as long as it holds.
fn is_expired(lease: &Value, now: Timestamp) -> bool {
    let renewed = lease["spec"]["renewTime"].as_str();
    let renewed = renewed.and_then(|t| t.parse::<Timestamp>().ok());
    let holds = lease["spec"]["leaseDurationSeconds"].as_i64();
    match (renewed, holds) {
        (Some(renewed), Some(holds)) => now.as_second() - renewed.as_second() > holds,
        _ => true,
    }
}

/// Removes the leases of servers that are no more.
pub(super) async fn collect(cp: Arc<ControlPlane>) -> Result<(), Status> {
    let leases = cp.local.list(GROUP, "leases", NAMESPACE, LABEL).await?;
    for lease in leases {
        let name = meta(&lease).name();
        if !is_expired(&lease, Timestamp::now()) {
            continue;
        }
        // The cache may be behind.
        let fresh = cp.local.get(GROUP, "leases", NAMESPACE, name).await?;
        if fresh.is_none_or(|lease| !is_expired(&lease, Timestamp::now())) {
            continue;
        }
        match cp.local.delete(GROUP, "leases", NAMESPACE, name).await {
            Err(e) if !e.is_not_found() => return Err(e),
            _ => tracing::info!(name, "removed the lease of a server that is no more"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_without_a_renewal_are_over() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let lease =
            |renewed: &str| json!({"spec": {"renewTime": renewed, "leaseDurationSeconds": 3600}});
        assert!(!is_expired(&lease("2026-11-21T09:00:00.000000Z"), now));
        assert!(is_expired(&lease("2026-11-21T08:59:59.000000Z"), now));
        assert!(is_expired(&json!({"spec": {}}), now));
    }

    #[test]
    fn the_name_is_a_dns_label() {
        let name = super::name("host-1");
        assert_eq!(name.len(), "apiserver-".len() + 26);
        assert!(meta::validation::dns1123_label(&name).is_empty());
        assert_ne!(name, super::name("host-2"));
    }
}
