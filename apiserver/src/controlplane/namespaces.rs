//! The namespaces that every cluster has.

use std::sync::Arc;

use meta::Status;
use serde_json::json;

use super::ControlPlane;

const SYSTEM: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

pub(super) async fn ensure(cp: Arc<ControlPlane>) -> Result<(), Status> {
    for name in SYSTEM {
        let namespace = json!({"metadata": {"name": name}});
        cp.local.ensure("", "namespaces", "", namespace).await?;
    }
    Ok(())
}
