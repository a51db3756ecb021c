//! Who may write what of a ResourceClaim's status: the right to write the status is not enough.

use bytes::Bytes;
use e2e::stand::http::{Ask, Connection, MERGE};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use super::{refusal, stand};

const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Lets a service account of that name do this, as verb and resource, beside writing statuses.
async fn account(connection: &Connection, name: &str, more: &[(&str, &str)]) {
    let rule = |verb: &str, resource: &str| json!({"apiGroups": ["resource.k8s.io"], "verbs": [verb], "resources": [resource]});
    let writes = [("patch", "resourceclaims/status")];
    let rules: Vec<_> = writes.iter().chain(more).map(|r| rule(r.0, r.1)).collect();
    let role = json!({"metadata": {"name": name}, "rules": rules});
    let ask = Ask::post(format!("{RBAC}/clusterroles"), &role);
    connection.success(&ask).await.unwrap();
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": name}]});
    let ask = Ask::post(format!("{RBAC}/clusterrolebindings"), &binding);
    connection.success(&ask).await.unwrap();
}

/// Patches the status as that account, whose token is bound to the node `n1`. Says which fields
/// are refused.
async fn patch(connection: &Connection, account: &str, status: &Value) -> Vec<String> {
    let patch = json!({"status": status}).to_string();
    let uri = format!("https://{}{CLAIMS}/c/status", connection.authority());
    let request = Request::builder()
        .method(Method::PATCH)
        .uri(uri)
        .header(header::CONTENT_TYPE, MERGE)
        .header(
            "Impersonate-User",
            format!("system:serviceaccount:default:{account}"),
        )
        .header(
            "Impersonate-Extra-authentication.kubernetes.io%2fnode-name",
            "n1",
        )
        .body(Full::new(Bytes::from(patch)))
        .unwrap();
    let answer = connection.send(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    if status.is_success() {
        return Vec::new();
    }
    let said = refusal(status, &body);
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{said:?}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    let causes = body["details"]["causes"].as_array().unwrap().iter();
    let fields = causes.map(|cause| cause["field"].as_str().unwrap().to_owned());
    fields.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_part_of_a_claims_status_is_a_right_of_its_own() {
    let stand = stand(&[], &[]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    account(&connection, "writer", &[]).await;
    account(
        &connection,
        "binder",
        &[("patch", "resourceclaims/binding")],
    )
    .await;
    let near = ("associated-node:patch", "resourceclaims/driver");
    account(&connection, "driver", &[near]).await;
    let request = json!({"name": "r", "exactly": {"deviceClassName": "c"}});
    let claim = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [request]}}});
    connection
        .success(&Ask::post(CLAIMS, &claim))
        .await
        .unwrap();

    let node = json!([{"key": "metadata.name", "operator": "In", "values": ["n1"]}]);
    let allocation = json!({"allocation": {
        "devices": {"results": [{"request": "r", "driver": "d.example.com", "pool": "p", "device": "d"}]},
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": node}]}}});
    let devices = json!({"devices": [{"driver": "d.example.com", "pool": "p", "device": "d"}]});
    let none: [&str; 0] = [];
    // RBAC's rules may take a moment to be known.
    let ready = async {
        while patch(&connection, "binder", &allocation).await != none {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), ready)
        .await
        .expect("what the scheduler does");
    for (account, status, refused) in [
        (
            "writer",
            &json!({"allocation": null}),
            &["status.allocation"][..],
        ),
        (
            "driver",
            &json!({"allocation": null}),
            &["status.allocation"],
        ),
        ("writer", &allocation, &none),
        ("binder", &devices, &["status.devices"]),
        ("driver", &devices, &none),
        ("binder", &json!({"devices": null}), &["status.devices"]),
        // What is deallocated has no devices any more, whoever it is that takes it.
        ("binder", &json!({"allocation": null}), &none),
    ] {
        assert_eq!(
            patch(&connection, account, status).await,
            refused,
            "{account} {status}"
        );
    }
    let read = connection
        .json(&Ask::get(format!("{CLAIMS}/c")))
        .await
        .unwrap();
    assert!(read["status"].get("devices").is_none(), "{read}");
}
