//! Paths of objects, and what many tests of schedulers need to exist.

use anyhow::Result;
use serde_json::{Value, json};

use crate::stand::Connection;
use crate::stand::http::{Ask, STRATEGIC};

/// Priority classes by their values.
pub const PRIORITIES: [i64; 4] = [10, 50, 100, 1000];

pub fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

/// Deletes at once, whatever the object's grace.
pub fn delete(path: &str) -> Ask {
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0});
    Ask::send(
        http::Method::DELETE,
        path,
        crate::stand::http::JSON,
        body.to_string(),
    )
}

/// Changes an object's status.
pub fn patch_status(path: &str, status: &Value) -> Ask {
    let body = json!({"status": status});
    let path = format!("{path}/status");
    Ask::send(http::Method::PATCH, path, STRATEGIC, body.to_string())
}

/// Priority classes, namespaces with labels, and the service accounts that no controller
/// makes here.
pub async fn prepare(connection: &Connection, namespaces: &[(&str, &str)]) -> Result<()> {
    for value in PRIORITIES {
        let class = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": format!("p{value}")}, "value": value,
        });
        let ask = Ask::post("/apis/scheduling.k8s.io/v1/priorityclasses", &class);
        connection.success(&ask).await?;
    }
    let never = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": "never"}, "value": 500, "preemptionPolicy": "Never",
    });
    let ask = Ask::post("/apis/scheduling.k8s.io/v1/priorityclasses", &never);
    connection.success(&ask).await?;
    for (name, team) in namespaces {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"team": team}},
        });
        // `default` may be there already.
        connection
            .ask(&Ask::post("/api/v1/namespaces", &namespace))
            .await?;
    }
    Ok(())
}

/// Flags of the API server: without controllers nobody makes service accounts, and nobody
/// takes the taint off new nodes.
pub fn flags() -> Vec<String> {
    vec![
        "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition,DefaultTolerationSeconds"
            .into(),
    ]
}
