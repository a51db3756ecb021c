//! How the client takes what servers do: answers out of the ordinary, watches that end,
//! break, or are too old.

mod fake;

use client::informer::{Event, Selection};
use client::{Api, Informer, ListOptions};
use fake::{Answer, Server, bookmark, config_map, event, failure, list, watch};
use k8s_openapi::api::core::v1::ConfigMap;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

struct Setup {
    server: Server,
    informer: Informer<ConfigMap>,
    events: mpsc::UnboundedReceiver<String>,
    _stop: tokio_util::sync::DropGuard,
}

async fn setup() -> Setup {
    let server = Server::start().await;
    let informer = Informer::new(Api::all(&server.client()), &Selection::default());
    let (sender, events) = mpsc::unbounded_channel();
    informer.add_handler(move |event: &Event<ConfigMap>| {
        let what = match event {
            Event::Added(_) => "+",
            Event::Updated { .. } => "~",
            Event::Deleted(_) => "-",
        };
        let _ = sender.send(format!("{what}{}", event.key().name()));
    });
    let stop = CancellationToken::new();
    informer.start(&stop);
    Setup {
        server,
        informer,
        events,
        _stop: stop.drop_guard(),
    }
}

impl Setup {
    async fn expect(&mut self, want: &[&str]) {
        let mut seen = Vec::new();
        for _ in want {
            seen.push(self.events.recv().await.unwrap());
        }
        seen.sort();
        assert_eq!(seen, want);
        assert!(self.events.is_empty());
    }
}

#[tokio::test]
async fn a_streamed_list_appears_in_one_step() {
    let mut s = setup().await;
    let (answer, stream) = watch(vec![
        event("ADDED", config_map("a", 1)),
        event("ADDED", serde_json::json!({"metadata": {"name": 5}})),
        event("ADDED", config_map("b", 2)),
    ]);
    s.server.answer(answer);
    let requests = s.server.wait_for_requests(1).await;
    assert!(
        requests[0].contains("sendInitialEvents=true"),
        "{requests:?}"
    );
    assert!(!s.informer.has_synced());
    stream.send(&event("DELETED", config_map("b", 3)));
    stream.send(&bookmark(4, true));
    s.informer.wait_synced().await;
    s.expect(&["+a"]).await;
    stream.send(&event("ADDED", config_map("c", 5)));
    stream.send(&event("MODIFIED", config_map("a", 6)));
    s.expect(&["+c", "~a"]).await;
    stream.send(&bookmark(9, false));
    drop(stream);
    // Taken up where the bookmark says.
    let requests = s.server.wait_for_requests(2).await;
    assert!(requests[1].contains("resourceVersion=9"), "{requests:?}");
    let (answer, stream) = watch(vec![event("DELETED", config_map("c", 10))]);
    s.server.answer(answer);
    s.expect(&["-c"]).await;
    drop(stream);
}

#[tokio::test]
async fn a_server_without_streamed_lists_is_listed() {
    let mut s = setup().await;
    s.server.answer(Answer::Json(422, failure(422, "Invalid")));
    s.server.answer(Answer::Json(
        200,
        list(5, vec![config_map("a", 1), config_map("b", 2)]),
    ));
    let (answer, stream) = watch(vec![]);
    s.server.answer(answer);
    s.expect(&["+a", "+b"]).await;
    let requests = s.server.wait_for_requests(3).await;
    assert!(requests[1].contains("resourceVersion=0"), "{requests:?}");
    assert!(requests[2].contains("watch=true") && requests[2].contains("resourceVersion=5"));
    drop(stream);
}

#[tokio::test]
async fn too_old_a_revision_lists_anew_and_tells_the_differences() {
    let mut s = setup().await;
    let (answer, stream) = watch(vec![
        event("ADDED", config_map("a", 1)),
        event("ADDED", config_map("b", 2)),
        bookmark(3, true),
    ]);
    s.server.answer(answer);
    s.expect(&["+a", "+b"]).await;
    stream.send(&event("ERROR", failure(410, "Expired")));
    drop(stream);
    let (answer, stream) = watch(vec![
        event("ADDED", config_map("b", 20)),
        event("ADDED", config_map("c", 21)),
        bookmark(22, true),
    ]);
    s.server.answer(answer);
    s.expect(&["+c", "-a", "~b"]).await;
    let requests = s.server.wait_for_requests(2).await;
    assert!(!requests[1].contains("resourceVersion="), "{requests:?}");
    assert_eq!(s.informer.store().len(), 2);
    drop(stream);
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_is_taken_up_where_it_was() {
    let mut s = setup().await;
    let (answer, stream) = watch(vec![event("ADDED", config_map("a", 1)), bookmark(3, true)]);
    s.server.answer(answer);
    s.expect(&["+a"]).await;
    stream.send(&event("MODIFIED", config_map("a", 7)));
    s.expect(&["~a"]).await;
    stream.cut();
    let requests = s.server.wait_for_requests(2).await;
    assert!(requests[1].contains("watch=true") && requests[1].contains("resourceVersion=7"));
    let (answer, stream) = watch(vec![event("DELETED", config_map("a", 8))]);
    s.server.answer(answer);
    s.expect(&["-a"]).await;
    drop(stream);
}

#[tokio::test]
async fn a_late_handler_hears_of_everything_once() {
    let mut s = setup().await;
    let (answer, stream) = watch(vec![event("ADDED", config_map("a", 1)), bookmark(3, true)]);
    s.server.answer(answer);
    s.expect(&["+a"]).await;
    let (sender, mut late) = mpsc::unbounded_channel();
    s.informer
        .add_handler(move |event| drop(sender.send(event.key().name().to_owned())));
    stream.send(&event("ADDED", config_map("b", 4)));
    assert_eq!(late.recv().await.as_deref(), Some("a"));
    assert_eq!(late.recv().await.as_deref(), Some("b"));
    assert!(late.is_empty());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed() {
    let server = Server::start().await;
    let api: Api<ConfigMap> = Api::namespaced(&server.client(), "ns");
    server.answer(Answer::Raw(429, vec![("retry-after", "2")], "slow down"));
    server.answer(Answer::Raw(503, vec![("retry-after", "1")], ""));
    server.answer(Answer::Json(200, config_map("a", 1)));
    let start = tokio::time::Instant::now();
    assert_eq!(
        api.get("a").await.unwrap().metadata.name.as_deref(),
        Some("a")
    );
    assert!(start.elapsed().as_secs() >= 3);
    // Without the header it is the caller's decision.
    server.answer(Answer::Raw(503, vec![], "down"));
    let err = api.get("a").await.unwrap_err();
    assert!(err.is_service_unavailable() && err.is_retriable(), "{err}");
    assert_eq!(
        err.to_string(),
        "the server is currently unable to handle the request (get configmaps a)"
    );
}

#[tokio::test(start_paused = true)]
async fn a_part_waits_for_no_other() {
    let server = Server::start().await;
    let busy = server.client().with_rate_limit(0.1, 1);
    let part = busy.for_part("leader-election");
    for i in 1..=3 {
        server.answer(Answer::Json(200, config_map("a", i)));
    }
    let get = async |client: &client::Client| {
        let api: Api<ConfigMap> = Api::namespaced(client, "ns");
        let start = tokio::time::Instant::now();
        api.get("a").await.unwrap();
        start.elapsed().as_secs()
    };
    get(&busy).await;
    let (busy, part) = tokio::join!(get(&busy), get(&part));
    assert!(busy >= 9 && part < 5, "{busy} s and {part} s");
}

#[tokio::test]
async fn requests_are_counted() {
    let server = Server::start().await;
    let registry = prometheus::Registry::new();
    let metrics = client::metrics::ClientMetrics::register(&registry).unwrap();
    let client = server.client().with_metrics(&metrics);
    let api: Api<ConfigMap> = Api::namespaced(&client, "ns");
    server.answer(Answer::Json(200, config_map("a", 1)));
    server.answer(Answer::Json(404, failure(404, "NotFound")));
    api.get("a").await.unwrap();
    assert!(api.get_opt("b").await.unwrap().is_none());
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&registry.gather())
        .unwrap();
    let host = server.address;
    for code in [200, 404] {
        let line = format!(
            "rest_client_requests_total{{code=\"{code}\",host=\"{host}\",method=\"GET\"}} 1"
        );
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[tokio::test]
async fn paths_and_bodies_are_upstreams() {
    let server = Server::start().await;
    let api: Api<ConfigMap> = Api::all(&server.client());
    assert!(api.get("a").await.is_err());
    server.answer(Answer::Json(200, list(1, vec![])));
    api.list(
        &ListOptions::new()
            .labels("a in (b,c)")
            .fields("metadata.name=x"),
    )
    .await
    .unwrap();
    server.answer(Answer::Json(200, config_map("a", 1)));
    api.within("ns").get("system:a/b").await.unwrap();
    server.answer(Answer::Json(200, serde_json::json!({"kind": "Status"})));
    let options = client::DeleteOptions::with_uid("u").grace_period(5);
    api.within("ns").delete("a", &options).await.unwrap();
    assert_eq!(
        server.requests(),
        [
            "GET /api/v1/configmaps?labelSelector=a%20in%20%28b%2Cc%29&fieldSelector=metadata.name%3Dx",
            "GET /api/v1/namespaces/ns/configmaps/system:a%2Fb",
            r#"DELETE /api/v1/namespaces/ns/configmaps/a {"apiVersion":"v1","gracePeriodSeconds":5,"kind":"DeleteOptions","preconditions":{"uid":"u"}}"#,
        ]
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_apart() {
    let client = client::Client::new(client::Config::new("http://127.0.0.1:1")).unwrap();
    let err = Api::<ConfigMap>::namespaced(&client, "ns")
        .get("a")
        .await
        .unwrap_err();
    assert!(err.is_connection_refused() && err.is_retriable(), "{err:?}");
}
