//! Who does not wait for the answer of a write leaves nothing half done.

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::stand::http::{Ask, Connection};
use e2e::wait::until_async;
use serde_json::{Value, json};

use super::refusals::Client;
use super::stand;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

async fn items(connection: &Connection, path: &str) -> Vec<Value> {
    let list = connection.success(&Ask::get(path)).await.unwrap();
    let list: Value = serde_json::from_slice(&list).unwrap();
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Of Services that are there, and of those that have taken addresses.
async fn names(connection: &Connection) -> [BTreeSet<String>; 2] {
    let services = items(connection, "/api/v1/services").await;
    let addresses = items(connection, ADDRESSES).await;
    let text = |object: &Value, pointer: &str| {
        let text = object.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    [
        (services.iter().map(|s| text(s, "/metadata/name"))).collect(),
        (addresses.iter().map(|a| text(a, "/spec/parentRef/name"))).collect(),
    ]
}

#[tokio::test]
async fn a_service_that_nobody_waits_for_is_made_whole_or_not_at_all() {
    let stand = stand(&[], &[]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    for n in 0..100 {
        let service = json!({"metadata": {"name": format!("s{n}")},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        let asks = stand.endpoint.connect().await.unwrap();
        // Hangs up, or runs out of time, somewhere on the way.
        if n % 2 == 0 {
            let wait = Duration::from_micros(100 * n);
            let ask = Ask::post(SERVICES, &service);
            let _ = tokio::time::timeout(wait, asks.ask(&ask)).await;
        } else {
            let path = format!("{SERVICES}?timeout={}us", 100 * n);
            asks.ask(&Ask::post(path, &service)).await.unwrap();
        }
    }
    until_async("no address without a Service", async || {
        let [services, addresses] = names(&connection).await;
        let strays: Vec<_> = addresses.symmetric_difference(&services).collect();
        match strays.is_empty() {
            true => Ok(()),
            false => Err(format!("{strays:?}")),
        }
    })
    .await;
    // What was made can be made no more, and what was not can be.
    for n in 0..100 {
        let service = json!({"metadata": {"name": format!("s{n}")},
            "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        let (status, _) = connection
            .ask(&Ask::post(SERVICES, &service))
            .await
            .unwrap();
        assert!([201, 409].contains(&status.as_u16()), "{status}");
    }
}

#[tokio::test]
async fn a_body_that_never_comes_takes_nobodys_place_for_long() {
    let flags = ["--max-mutating-requests-inflight=1", "--request-timeout=1s"];
    let stand = stand(&[], &flags).await;
    let connection = stand.endpoint.connect().await.unwrap();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "slow"}});
    connection
        .success(&Ask::post(accounts, &account))
        .await
        .unwrap();
    let binding = json!({"metadata": {"name": "slow"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "slow"}]});
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    connection
        .success(&Ask::post(bindings, &binding))
        .await
        .unwrap();
    let ask = Ask::post(format!("{accounts}/slow/token"), &json!({"spec": {}}));
    let token = connection.success(&ask).await.unwrap();
    let token: Value = serde_json::from_slice(&token).unwrap();
    let token = token["status"]["token"].as_str().unwrap();
    let who = format!("Authorization: Bearer {token}\r\n");

    let mut slow = Client::connect(&stand).await;
    slow.send_head("services", 1000, &who).await;
    let head = slow.answer().await;
    assert!(head.starts_with("http/1.1 504 "), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    until_async("a place", async || {
        let body = json!({"metadata": {"generateName": "quick-"},
            "spec": {"ports": [{"port": 80}]}})
        .to_string();
        let mut quick = Client::connect(&stand).await;
        quick.send_head("services", body.len(), &who).await;
        quick.send(body.as_bytes()).await;
        let head = quick.answer().await;
        match head.starts_with("http/1.1 201 ") {
            true => Ok(()),
            false => Err(head),
        }
    })
    .await;
}
