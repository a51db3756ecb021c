//! The ServiceCIDR `kubernetes`: the range of the flags as an object (KEP-1880).

use std::sync::Arc;

use meta::Status;
use serde_json::json;

use super::ControlPlane;
use crate::registry::conditions;

const GROUP: &str = "networking.k8s.io";

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
    cp.local
        .set_condition(
            (GROUP, "servicecidrs"),
            "kubernetes",
            "Ready",
            "Kubernetes default Service CIDR is ready",
        )
        .await
}
