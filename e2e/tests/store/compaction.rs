//! History that goes while a list of several pages is read.

use e2e::stand::http::Ask;
use e2e::wait::until_async;
use serde_json::{Value, json};

use super::{refusal, stand};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const ALL: usize = 30;
const PAGE: usize = 10;

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().expect("a list");
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    let names = items.iter().map(name);
    names.filter(|name| name.starts_with("page-")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_whose_revision_goes_can_be_continued_inconsistently() {
    let stand = stand(&[], &["--etcd-compaction-interval=1s"]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    for n in 0..ALL {
        let object = json!({"metadata": {"name": format!("page-{n:02}")}});
        connection.success(&Ask::post(PATH, &object)).await.unwrap();
    }
    let page = format!("{PATH}?limit={PAGE}&fieldSelector=metadata.name%21%3Dkube-root-ca.crt");
    let first = connection.json(&Ask::get(&*page)).await.unwrap();
    assert_eq!(names(&first).len(), PAGE);
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    // Something is written again and again: compaction is of revisions, not of time.
    let object = json!({"metadata": {"name": "other"}});
    connection.success(&Ask::post(PATH, &object)).await.unwrap();
    let second = Ask::get(format!("{page}&continue={token}"));
    let (status, body) = until_async("the revision to be compacted", async || {
        let patch = json!({"data": {"n": format!("{:?}", std::time::Instant::now())}});
        let patch = Ask::send(
            http::Method::PATCH,
            format!("{PATH}/other"),
            "application/merge-patch+json",
            patch.to_string(),
        );
        connection
            .success(&patch)
            .await
            .map_err(|e| e.to_string())?;
        let (status, body) = connection.ask(&second).await.map_err(|e| e.to_string())?;
        if status.is_success() {
            Err("the old page is still served".into())
        } else {
            Ok((status, body))
        }
    })
    .await;
    let (code, reason, message) = refusal(status, &body);
    assert_eq!((code, reason.as_str()), (410, "Expired"), "{message}");
    assert!(
        message.starts_with(
            "The provided continue parameter is too old to display a consistent list result."
        ),
        "{message}"
    );
    let body: Value = serde_json::from_slice(&body).unwrap();
    let fresh = body["metadata"]["continue"]
        .as_str()
        .expect("a fresh token");
    assert_ne!(fresh, token);

    // It leads through what is left, as it is now.
    let mut seen = names(&first);
    let mut token = fresh.to_owned();
    loop {
        let list = connection
            .json(&Ask::get(format!("{page}&continue={token}")))
            .await
            .unwrap();
        seen.extend(names(&list));
        match list["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => token = next.to_owned(),
            _ => break,
        }
    }
    let all: Vec<_> = (0..ALL).map(|n| format!("page-{n:02}")).collect();
    assert_eq!(seen, all);
}
