//! The priorities of what the cluster itself consists of.

use std::sync::Arc;

use meta::Status;
use serde_json::json;

use super::ControlPlane;

const CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Pods without which their node does not work; they must not be moved to another.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Pods without which the cluster does not work; any node may run them.",
    ),
];

pub(super) async fn ensure(cp: Arc<ControlPlane>) -> Result<(), Status> {
    for (name, value, description) in CLASSES {
        let class = json!({
            "metadata": {"name": name},
            "value": value,
            "description": description,
        });
        cp.local
            .ensure("scheduling.k8s.io", "priorityclasses", "", class)
            .await?;
    }
    Ok(())
}
