//! `default/kubernetes`: the Service behind which the API servers are.

use meta::Status;
use serde_json::json;

use super::ControlPlane;

pub(super) const NAME: &str = "kubernetes";
pub(super) const NAMESPACE: &str = "default";
const PORT: u16 = 443;

pub(super) async fn ensure(cp: &ControlPlane) -> Result<(), Status> {
    cp.local
        .ensure(
            "",
            "namespaces",
            "",
            json!({"metadata": {"name": NAMESPACE}}),
        )
        .await?;
    // The first address of the range is the server's.
    let Some(range) = cp.service_ranges.first() else {
        return Ok(());
    };
    let Some(address) = range.hosts().next() else {
        return Err(Status::internal(format!("{range} has no addresses")));
    };
    let mut port = json!({
        "name": "https", "protocol": "TCP", "port": PORT, "targetPort": cp.secure_port,
    });
    let mut ty = "ClusterIP";
    if cp.service_node_port > 0 {
        port["nodePort"] = json!(cp.service_node_port);
        ty = "NodePort";
    }
    let service = json!({
        "metadata": {
            "name": NAME, "namespace": NAMESPACE,
            "labels": {"provider": "kubernetes", "component": "apiserver"},
        },
        "spec": {
            "ports": [port],
            "clusterIP": address.to_string(),
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "type": ty,
        },
    });
    cp.local.ensure("", "services", NAMESPACE, service).await
}
