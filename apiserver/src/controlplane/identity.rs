//! The server's own lease in `kube-system`, by which others know that it lives
//! (KEP-1965).

use std::sync::Arc;

use jiff::Timestamp;
use meta::Status;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::ControlPlane;

const GROUP: &str = "coordination.k8s.io";
const NAMESPACE: &str = "kube-system";
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
    if let Some(mut lease) = cp.local.get(GROUP, "leases", NAMESPACE, &name).await? {
        lease["spec"]["renewTime"] = micro(now);
        cp.local.update(GROUP, "leases", NAMESPACE, lease).await?;
        return Ok(());
    }
    let lease = json!({
        "metadata": {
            "name": name, "namespace": NAMESPACE,
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

#[cfg(test)]
mod tests {
    #[test]
    fn the_name_is_a_dns_label() {
        let name = super::name("host-1");
        assert_eq!(name.len(), "apiserver-".len() + 26);
        assert!(meta::validation::dns1123_label(&name).is_empty());
        assert_ne!(name, super::name("host-2"));
    }
}
