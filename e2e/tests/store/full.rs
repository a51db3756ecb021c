//! etcd has no space left (its NOSPACE alarm): reads go on, writes are refused at once
//! with a reason, and when there is space again no restart is needed.

use std::time::{Duration, Instant};

use e2e::stand::http::{Ask, next};
use serde_json::json;

use super::{refusal, stand};

const PATH: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_is_read_and_recovers() {
    let stand = stand(&["--quota-backend-bytes=16777216"], &[]).await;
    let pid = stand.api.process().pid();
    let connection = stand.endpoint.connect().await.unwrap();
    let value = "x".repeat(500_000);
    let object = |n: u32| json!({"metadata": {"name": format!("full-{n}")}, "data": {"x": value}});
    let mut written = 0;
    let (status, body) = loop {
        assert!(written < 100, "50 MB fit into 16");
        let start = Instant::now();
        let (status, body) = connection
            .ask(&Ask::post(PATH, &object(written)))
            .await
            .unwrap();
        if !status.is_success() {
            assert!(start.elapsed() < Duration::from_secs(1), "a late refusal");
            break (status, body);
        }
        written += 1;
    };
    let (code, _, message) = refusal(status, &body);
    assert!(code >= 500, "{code}: {message}");
    assert!(message.contains("database space exceeded"), "{message}");

    // An update is a write as well.
    let start = Instant::now();
    let mut changed = object(0);
    changed["data"]["y"] = "z".into();
    let put = Ask::send(
        http::Method::PUT,
        format!("{PATH}/full-0"),
        "application/json",
        changed.to_string(),
    );
    let (status, body) = connection.ask(&put).await.unwrap();
    let (code, _, message) = refusal(status, &body);
    assert!(code >= 500, "{code}: {message}");
    assert!(message.contains("database space exceeded"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(1), "a late refusal");

    // Reads of every sort.
    for query in ["", "?resourceVersion=0", "?limit=2"] {
        let list = connection
            .json(&Ask::get(format!("{PATH}{query}")))
            .await
            .unwrap();
        let items = list["items"].as_array().unwrap().len();
        assert!(items >= 2, "{items} items with {query:?}");
    }
    let one = connection
        .json(&Ask::get(format!("{PATH}/full-0")))
        .await
        .unwrap();
    assert_eq!(one["metadata"]["name"], "full-0");
    let watch = Ask::get(format!("{PATH}?watch=true"));
    let mut watch = connection.open(&watch).await.unwrap();
    assert!(watch.status().is_success());
    assert!(next(watch.body_mut()).await.unwrap().is_some());

    // Deleting is what makes space, and is allowed.
    for n in 0..written {
        let delete = Ask::delete(format!("{PATH}/full-{n}"));
        connection.success(&delete).await.unwrap();
    }
    let gateway = stand.etcd.gateway(0).await.unwrap();
    let revision = gateway.revision().await.unwrap();
    gateway.compact(revision).await.unwrap();
    gateway.defragment().await.unwrap();
    gateway.disarm().await.unwrap();
    connection
        .success(&Ask::post(PATH, &object(0)))
        .await
        .expect("space again");
    assert_eq!(stand.api.process().pid(), pid);
}
