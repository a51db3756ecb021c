//! Who was told that something is written builds on it, also where the next request writes
//! nothing by which the server would notice that it looked at an older state.

use e2e::stand::http::Ask;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::stand;

const PATH: &str = "/api/v1/namespaces/default/configmaps";

fn merge(query: &str, patch: &Value) -> Ask {
    let (path, kind) = (format!("{PATH}/one{query}"), "application/merge-patch+json");
    Ask::send(Method::PATCH, path, kind, patch.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_begins_with_what_was_acknowledged() {
    let stand = stand(&[], &[]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    let object = json!({"metadata": {"name": "one"}});
    connection.success(&Ask::post(PATH, &object)).await.unwrap();
    for n in 0..200 {
        let said = json!({"data": {"n": n.to_string()}});
        connection.success(&merge("", &said)).await.unwrap();
        let label = json!({"metadata": {"labels": {"a": "b"}}});
        let dry = merge("?dryRun=All", &label);
        let patched = connection.json(&dry).await.unwrap();
        assert_eq!(patched["data"], said["data"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_object_that_is_there_now_is_deleted_not_the_one_that_had_its_name() {
    let stand = stand(&[], &[]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    let held = json!({"metadata": {"name": "one", "finalizers": ["example.com/held"]}});
    let free = json!({"metadata": {"name": "one"}});
    let delete = |query| Ask::delete(format!("{PATH}/one{query}"));
    let let_go = merge("", &json!({"metadata": {"finalizers": null}}));
    for _ in 0..60 {
        connection.success(&Ask::post(PATH, &held)).await.unwrap();
        connection.success(&delete("")).await.unwrap();
        connection.success(&let_go).await.unwrap();
        connection.success(&Ask::post(PATH, &free)).await.unwrap();
        connection.success(&delete("")).await.unwrap();
        for gone in [delete("?dryRun=All"), Ask::get(format!("{PATH}/one"))] {
            let (status, body) = connection.ask(&gone).await.unwrap();
            assert_eq!(status, StatusCode::NOT_FOUND, "{body:?}");
        }
    }
}
