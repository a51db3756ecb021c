//! The client against a real API server, upstream's or ours: the same tests must pass against both.
//!
//! Name a kubeconfig of an administrator in `FERROKUBE_TEST_KUBECONFIG`; without it the tests
//! say so and do nothing. Each test works in a namespace of its own and removes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::events::{EventType, Recorder, reference};
use client::informer::{Event, Selection};
use client::leader_election::{self, Outcome};
use client::{
    Api, Client, Config, DeleteOptions, Informers, ListOptions, Patch, PatchOptions, SlimMeta,
    WatchEvent, WriteOptions, slim_kind,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::GroupVersionResource;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const VARIABLE: &str = "FERROKUBE_TEST_KUBECONFIG";

/// A client and a fresh namespace.
async fn setup() -> Option<(Client, String)> {
    let Some(path) = std::env::var_os(VARIABLE) else {
        eprintln!("SKIPPED: {VARIABLE} names no kubeconfig");
        return None;
    };
    let client = Client::new(Config::from_kubeconfig(path).unwrap()).unwrap();
    let namespace = Namespace {
        metadata: ObjectMeta {
            generate_name: Some("client-test-".into()),
            ..Default::default()
        },
        ..Namespace::default()
    };
    let created = Api::<Namespace>::all(&client)
        .create(&namespace)
        .await
        .unwrap();
    Some((client, created.metadata.name.unwrap()))
}

async fn teardown(client: &Client, namespace: &str) {
    Api::<Namespace>::all(client)
        .delete(namespace, &DeleteOptions::new())
        .await
        .unwrap();
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some([("app".to_owned(), "test".to_owned())].into()),
            ..Default::default()
        },
        data: Some([("k".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn value(map: &ConfigMap) -> &str {
    &map.data.as_ref().unwrap()["k"]
}

#[tokio::test]
async fn verbs() {
    let Some((client, ns)) = setup().await else {
        return;
    };
    let api: Api<ConfigMap> = Api::namespaced(&client, &ns);

    let created = api.create(&config_map("a", "1")).await.unwrap();
    assert!(created.metadata.uid.is_some());
    let err = api.create(&config_map("a", "1")).await.unwrap_err();
    assert!(err.is_already_exists(), "{err}");
    assert_eq!(err.to_string(), r#"configmaps "a" already exists"#);
    assert!(api.get_opt("none").await.unwrap().is_none());

    let mut changed = api.get("a").await.unwrap();
    changed.data = Some([("k".to_owned(), "2".to_owned())].into());
    let replaced = api.replace(&changed).await.unwrap();
    assert_eq!(value(&replaced), "2");
    let err = api.replace(&changed).await.unwrap_err();
    assert!(err.is_conflict(), "{err}");

    let patched = api
        .patch(
            "a",
            &Patch::Merge(json!({"data": {"k": "3"}})),
            &PatchOptions::default(),
        )
        .await
        .unwrap();
    assert_eq!(value(&patched), "3");
    let patch = Patch::Json(json!([{"op": "replace", "path": "/data/k", "value": "4"}]));
    let patched = api
        .patch("a", &patch, &PatchOptions::default())
        .await
        .unwrap();
    assert_eq!(value(&patched), "4");
    let patch = Patch::Strategic(json!({"data": {"k": "5"}}));
    let patched = api
        .patch("a", &patch, &PatchOptions::default())
        .await
        .unwrap();
    assert_eq!(value(&patched), "5");

    let mut invalid = config_map("Not-Valid", "1");
    invalid.metadata.name = Some("Not-Valid".into());
    let err = api.create(&invalid).await.unwrap_err();
    assert!(err.is_invalid(), "{err}");
    assert_eq!(
        err.status().unwrap().details.as_ref().unwrap().causes[0].field,
        "metadata.name"
    );

    let dry = WriteOptions {
        dry_run: true,
        ..WriteOptions::default()
    };
    api.create_with(&config_map("dry", "1"), &dry)
        .await
        .unwrap();
    assert!(api.get_opt("dry").await.unwrap().is_none());

    for i in 0..5 {
        api.create(&config_map(&format!("b{i}"), "x"))
            .await
            .unwrap();
    }
    let selected = ListOptions::new().labels("app=test").limit(2);
    let page = api.list(&selected).await.unwrap();
    assert_eq!(
        (page.items.len(), page.continue_token().is_some()),
        (2, true)
    );
    let all = api.list_pages(&selected).await.unwrap();
    assert_eq!(all.items.len(), 6);
    let one = ListOptions::new().fields("metadata.name=b3");
    assert_eq!(api.list(&one).await.unwrap().items.len(), 1);

    let uid = DeleteOptions::with_uid("11111111-1111-1111-1111-111111111111");
    assert!(api.delete("a", &uid).await.unwrap_err().is_conflict());
    api.delete("a", &DeleteOptions::new()).await.unwrap();
    assert!(
        api.delete("a", &DeleteOptions::new())
            .await
            .unwrap_err()
            .is_not_found()
    );
    let everything = ListOptions::new().labels("app=test");
    api.delete_collection(&DeleteOptions::new(), &everything)
        .await
        .unwrap();
    assert!(api.list(&everything).await.unwrap().items.is_empty());
    teardown(&client, &ns).await;
}

#[tokio::test]
async fn apply_patches() {
    let Some((client, ns)) = setup().await else {
        return;
    };
    let api: Api<ConfigMap> = Api::namespaced(&client, &ns);
    let options = |manager: &str, force| PatchOptions {
        write: WriteOptions {
            field_manager: Some(manager.into()),
            ..WriteOptions::default()
        },
        force,
    };
    let patch = |v: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": v}
        }))
    };
    match api.patch("a", &patch("1"), &options("one", false)).await {
        // Then controllers fall back on updates.
        Err(error)
            if error
                .status()
                .is_some_and(|s| s.is_unsupported_media_type()) =>
        {
            eprintln!("NOT TESTED: this server does not serve server-side apply");
            return teardown(&client, &ns).await;
        }
        applied => assert_eq!(value(&applied.unwrap()), "1"),
    }
    let err = api
        .patch("a", &patch("2"), &options("two", false))
        .await
        .unwrap_err();
    assert!(err.is_conflict(), "{err}");
    assert!(err.status().unwrap().has_cause("FieldManagerConflict"));
    let forced = api
        .patch("a", &patch("2"), &options("two", true))
        .await
        .unwrap();
    assert_eq!(value(&forced), "2");
    teardown(&client, &ns).await;
}

#[tokio::test]
async fn watches_and_bookmarks() {
    let Some((client, ns)) = setup().await else {
        return;
    };
    let api: Api<ConfigMap> = Api::namespaced(&client, &ns);
    api.create(&config_map("a", "1")).await.unwrap();
    let options = ListOptions {
        resource_version_match: Some("NotOlderThan"),
        send_initial_events: Some(true),
        allow_watch_bookmarks: true,
        ..ListOptions::new().labels("app=test")
    };
    let mut watch = api.watch(&options).await.unwrap();
    let mut seen = Vec::new();
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::Added(m) => seen.push(m.metadata.name.unwrap()),
            WatchEvent::Bookmark {
                initial_events_end: true,
                ..
            } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, ["a"]);
    api.delete("a", &DeleteOptions::new()).await.unwrap();
    assert!(matches!(
        watch.next().await.unwrap().unwrap(),
        WatchEvent::Deleted(m) if m.metadata.name.as_deref() == Some("a")
    ));
    // Long gone.
    let old = ListOptions::new().at("1");
    let outcome = match api.watch(&old).await {
        Err(e) => e.is_expired(),
        Ok(mut watch) => {
            matches!(watch.next().await, Ok(Some(WatchEvent::Error(s))) if s.is_expired())
        }
    };
    // A young server still has its first revisions.
    let young = client.get_text("/readyz").await.is_ok();
    assert!(outcome || young);
    teardown(&client, &ns).await;
}

#[derive(serde::Deserialize)]
struct SlimConfigMap {
    metadata: SlimMeta,
    #[serde(default)]
    data: BTreeMap<String, String>,
}
slim_kind!(
    SlimConfigMap,
    "",
    "v1",
    "ConfigMap",
    "configmaps",
    namespaced
);

#[tokio::test]
async fn informers_follow() {
    let Some((client, ns)) = setup().await else {
        return;
    };
    let stop = CancellationToken::new();
    let api: Api<ConfigMap> = Api::namespaced(&client, &ns);
    api.create(&config_map("before", "1")).await.unwrap();

    let informers = Informers::new(&client);
    let selection = Selection {
        labels: "app=test".into(),
        ..Selection::namespace(&ns)
    };
    let maps = informers.select::<SlimConfigMap>(&selection);
    let by_value = maps.add_index("value", |m: &SlimConfigMap| {
        m.data.values().cloned().collect()
    });
    let (sender, mut events) = mpsc::unbounded_channel();
    maps.add_handler(move |event: &Event<SlimConfigMap>| {
        let what = match event {
            Event::Added(_) => "+",
            Event::Updated { .. } => "~",
            Event::Deleted(_) => "-",
        };
        let _ = sender.send(format!("{what}{}", event.object().metadata.name));
    });
    let again = informers.select::<SlimConfigMap>(&selection);
    informers.start(&stop);
    informers.wait_synced().await;
    assert!(informers.pending().is_empty());
    assert_eq!(again.store().len(), 1);

    api.create(&config_map("after", "2")).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"k": "3"}}));
    api.patch("after", &patch, &PatchOptions::default())
        .await
        .unwrap();
    api.delete("before", &DeleteOptions::new()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
        seen.push(event.expect("an event within ten seconds").unwrap());
    }
    assert_eq!(seen, ["+before", "+after", "~after", "-before"]);
    assert_eq!(by_value.get("3").len(), 1);
    assert!(maps.store().get(&ns, "before").is_none());

    let gvr = GroupVersionResource::new("", "v1", "configmaps");
    let metadata = client::Informer::new(Api::metadata(&client, &gvr, true), &selection);
    metadata.start(&stop);
    metadata.wait_synced().await;
    assert_eq!(metadata.store().len(), 1);
    stop.cancel();
    teardown(&client, &ns).await;
}

#[tokio::test]
async fn two_candidates_one_leader() {
    let Some((client, ns)) = setup().await else {
        return;
    };
    let (sender, mut leaders) = mpsc::unbounded_channel();
    let candidate = |identity: &'static str, stop: &CancellationToken| {
        // Each is a program of its own.
        let client = Client::new(client.config().clone()).unwrap();
        let (ns, stop, sender) = (ns.clone(), stop.clone(), sender.clone());
        tokio::spawn(async move {
            let mut config = leader_election::Config::new(ns, "demo", identity);
            config.lease_duration = Duration::from_secs(3);
            config.renew_deadline = Duration::from_secs(2);
            config.retry_period = Duration::from_millis(200);
            let outcome = leader_election::run(&client, config, stop, |leading| async move {
                let _ = sender.send(identity);
                leading.cancelled().await;
            })
            .await;
            (outcome, client)
        })
    };
    let (stop_a, stop_b) = (CancellationToken::new(), CancellationToken::new());
    let a = candidate("a", &stop_a);
    assert_eq!(leaders.recv().await, Some("a"));
    let b = candidate("b", &stop_b);
    let leases: Api<Lease> = Api::namespaced(&client, &ns);
    let lease = leases.get("demo").await.unwrap().spec.unwrap();
    assert_eq!(lease.holder_identity.as_deref(), Some("a"));
    assert_eq!(lease.lease_transitions, Some(0));
    stop_a.cancel();
    assert_eq!(a.await.unwrap().0, Outcome::Stopped);
    // It was released, so the other need not wait for it to expire.
    let leader = tokio::time::timeout(Duration::from_secs(10), leaders.recv()).await;
    assert_eq!(leader.unwrap(), Some("b"));
    let lease = leases.get("demo").await.unwrap();
    let spec = lease.spec.clone().unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("b"));
    assert_eq!(spec.lease_transitions, Some(1));
    // Somebody takes it by force: the leader must notice and end.
    let patch =
        Patch::Merge(json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 60}}));
    leases
        .patch("demo", &patch, &PatchOptions::default())
        .await
        .unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), b).await;
    let (outcome, loser) = ended.unwrap().unwrap();
    assert_eq!(outcome, Outcome::Lost);
    // And writes nothing any more.
    let late: Api<ConfigMap> = Api::namespaced(&loser, &ns);
    let refused = late.create(&config_map("late", "1")).await;
    assert!(matches!(refused, Err(client::Error::NotLeading)));
    teardown(&client, &ns).await;
}

#[tokio::test]
async fn events_are_counted() {
    let Some((client, ns)) = setup().await else {
        return;
    };
    let stop = CancellationToken::new();
    let api: Api<ConfigMap> = Api::namespaced(&client, &ns);
    let map = api.create(&config_map("a", "1")).await.unwrap();
    let recorder = Recorder::start(&client, "demo-controller", "host", &stop);
    for _ in 0..3 {
        recorder.event(&reference(&map), EventType::Warning, "Odd", "it is odd");
    }
    let events: Api<CoreEvent> = Api::namespaced(&client, &ns);
    let wait = async {
        loop {
            let list = events.list(&ListOptions::new()).await.unwrap().items;
            if let [event] = list.as_slice()
                && event.count == Some(3)
            {
                return event.clone();
            }
            tokio::task::yield_now().await;
        }
    };
    let event = tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap();
    assert_eq!(event.involved_object.uid, map.metadata.uid);
    assert_eq!(event.reason.as_deref(), Some("Odd"));
    assert_eq!(event.source.unwrap().host.as_deref(), Some("host"));
    stop.cancel();
    teardown(&client, &ns).await;
}

#[tokio::test]
async fn service_accounts_authenticate() {
    let Some((client, ns)) = setup().await else {
        return;
    };
    // It is created on the way.
    let account = client.as_service_account(&ns, "worker").unwrap();
    let review: serde_json::Value = {
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let request = client::Request::new(http::Method::POST, path)
            .body("application/json", body.to_string().into());
        let (_, bytes) = account.fetch(&request).await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let user = format!("system:serviceaccount:{ns}:worker");
    assert_eq!(review["status"]["userInfo"]["username"], user.as_str());
    assert!(
        Api::<ServiceAccount>::namespaced(&client, &ns)
            .get_opt("worker")
            .await
            .unwrap()
            .is_some()
    );
    let err = Api::<ConfigMap>::namespaced(&account, &ns)
        .list(&ListOptions::new())
        .await;
    assert!(err.unwrap_err().is_forbidden());
    let mut bad = client.config().clone().anonymous();
    bad.auth = client::config::Auth::Token("no-token".into());
    let bad = Client::new(bad).unwrap();
    let err = Api::<ConfigMap>::namespaced(&bad, &ns)
        .list(&ListOptions::new())
        .await;
    assert!(err.unwrap_err().is_unauthorized());
    teardown(&client, &ns).await;
}

#[tokio::test]
async fn many_requests_share_a_connection() {
    let Some((client, ns)) = setup().await else {
        return;
    };
    let api: Arc<Api<ConfigMap>> = Arc::new(Api::namespaced(&client, &ns));
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..50 {
        let api = Arc::clone(&api);
        tasks.spawn(async move { api.create(&config_map(&format!("m{i}"), "x")).await });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap().unwrap();
    }
    assert_eq!(
        api.list(&ListOptions::new().labels("app=test"))
            .await
            .unwrap()
            .items
            .len(),
        50
    );
    teardown(&client, &ns).await;
}
