//! The ServiceCIDR `kubernetes`: the range of the flags as an object (KEP-1880).

use std::sync::Arc;

use jiff::Timestamp;
use meta::Status;
use serde_json::json;

use super::ControlPlane;
use crate::registry::conditions;
use crate::registry::object_meta::time;

const GROUP: &str = "networking.k8s.io";
/// Who applies its status, which upstream does in a controller of that name.
const MANAGER: &str = "kubernetes-service-cidr-controller";

pub(super) async fn ensure(cp: Arc<ControlPlane>) -> Result<(), Status> {
    if cp.service_ranges.is_empty() {
        return Ok(());
    }
    let ranges: Vec<String> = cp.service_ranges.iter().map(ToString::to_string).collect();
    let object = json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ranges}});
    cp.local.ensure(GROUP, "servicecidrs", "", object).await?;
    let Some(found) = cp
        .local
        .get(GROUP, "servicecidrs", "", "kubernetes")
        .await?
    else {
        return Ok(());
    };
    if conditions::status(&found, "Ready") == "True" {
        return Ok(());
    }
    let status = json!({"conditions": [{
        "type": "Ready",
        "status": "True",
        "message": "Kubernetes default Service CIDR is ready",
        "lastTransitionTime": time(Timestamp::now()),
    }]});
    cp.local
        .apply_status((GROUP, "servicecidrs"), "kubernetes", MANAGER, &status)
        .await
}
