//! The API itself, by the `kube` crate and by bare requests: list and watch
//! semantics, patches, names, finalizers, tokens, discovery.

use e2e::wait::until_async;
use e2e::{Cluster, Namespace};
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use k8s_openapi::api::authentication::v1::{
    TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec,
};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

/// The administrator's configuration.
pub async fn config() -> Config {
    let file = Kubeconfig::read_from(Cluster::get().path("kubeconfig/admin.conf"))
        .expect("the kubeconfig");
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .expect("a configuration")
}

/// The administrator.
pub async fn client() -> Client {
    Client::try_from(config().await).expect("a client")
}

/// The bearer of a token, and of nothing else.
pub async fn bearer(token: &str) -> Client {
    let mut config = config().await;
    config.auth_info = kube::config::AuthInfo {
        token: Some(token.to_owned().into()),
        ..Default::default()
    };
    Client::try_from(config).expect("a client")
}

/// A request as it is, and the answer as it is.
pub async fn send(client: &Client, request: Request<Vec<u8>>) -> (u16, Value) {
    let (head, body) = answer(client, request).await.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&bytes);
    (
        head.status.as_u16(),
        serde_json::from_str(&text).unwrap_or(Value::String(text.into_owned())),
    )
}

async fn answer(client: &Client, request: Request<Vec<u8>>) -> Response<Body> {
    client
        .send(request.map(Body::from))
        .await
        .expect("an answer")
}

fn get(uri: &str) -> Request<Vec<u8>> {
    Request::get(uri).body(Vec::new()).expect("a request")
}

fn config_map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..Default::default()
        },
        data: Some([("key".to_owned(), "value".to_owned())].into()),
        ..Default::default()
    }
}

async fn config_maps(theme: &str) -> (Namespace, Api<ConfigMap>) {
    let namespace = Namespace::new(theme);
    let api = Api::namespaced(client().await, &namespace.name);
    (namespace, api)
}

#[tokio::test]
async fn lists_come_in_pages() {
    let (_namespace, api) = config_maps("pages").await;
    for number in 0..5 {
        api.create(
            &PostParams::default(),
            &config_map(&format!("page-{number}")),
        )
        .await
        .unwrap();
    }
    let mut parameters = ListParams::default()
        .limit(2)
        .fields("metadata.name!=kube-root-ca.crt");
    let mut names = Vec::new();
    let mut revisions = Vec::new();
    loop {
        let page = api.list(&parameters).await.unwrap();
        assert!(
            page.items.len() <= 2,
            "{} objects in a page of 2",
            page.items.len()
        );
        names.extend(
            page.items
                .into_iter()
                .filter_map(|object| object.metadata.name),
        );
        revisions.push(page.metadata.resource_version);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => break,
        }
        // What comes after the list began is not in it.
        let late = format!("page-late-{}", revisions.len());
        api.create(&PostParams::default(), &config_map(&late))
            .await
            .unwrap();
    }
    let mine: Vec<_> = names
        .iter()
        .filter(|name| name.starts_with("page-"))
        .collect();
    assert_eq!(mine, ["page-0", "page-1", "page-2", "page-3", "page-4"]);
    revisions.dedup();
    assert_eq!(revisions.len(), 1, "all pages are of one revision");
}

#[tokio::test]
async fn a_watch_goes_on_where_the_list_was() {
    let (_namespace, api) = config_maps("watch").await;
    let list = api.list(&ListParams::default()).await.unwrap();
    let revision = list.metadata.resource_version.unwrap();
    // Before the watch begins, and yet it must be told.
    let created = api
        .create(&PostParams::default(), &config_map("one"))
        .await
        .unwrap();
    let stream = api.watch(&WatchParams::default(), &revision).await.unwrap();
    let mut stream = std::pin::pin!(stream);
    match stream.next().await.unwrap().unwrap() {
        WatchEvent::Added(object) => assert_eq!(object, created),
        other => panic!("{other:?}"),
    }
    let merge = Patch::Merge(json!({"data": {"more": "yes"}}));
    let patched = api
        .patch("one", &PatchParams::default(), &merge)
        .await
        .unwrap();
    match stream.next().await.unwrap().unwrap() {
        WatchEvent::Modified(object) => assert_eq!(object, patched),
        other => panic!("{other:?}"),
    }
    api.delete("one", &DeleteParams::default()).await.unwrap();
    match stream.next().await.unwrap().unwrap() {
        WatchEvent::Deleted(object) => {
            assert_eq!(object.data, patched.data);
            assert_ne!(
                object.metadata.resource_version, patched.metadata.resource_version,
                "a deletion has a revision too"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_watch_says_how_far_it_has_come_before_it_ends() {
    let (_namespace, api) = config_maps("last-bookmark").await;
    let list = api.list(&ListParams::default()).await.unwrap();
    let began = list.metadata.resource_version.unwrap();
    let parameters = WatchParams::default()
        .fields("metadata.name=nobody")
        .timeout(4);
    let watch = api.watch(&parameters, &began).await.unwrap();
    let other = api
        .create(&PostParams::default(), &config_map("other"))
        .await
        .unwrap();
    let written = other.metadata.resource_version.unwrap();
    let events: Vec<_> = watch.collect().await;
    let Some(Ok(WatchEvent::Bookmark(bookmark))) = events.last() else {
        panic!("no bookmark: {events:?}");
    };
    let revision = |text: &str| text.parse::<u64>().unwrap();
    assert!(revision(&bookmark.metadata.resource_version) >= revision(&written));
}

#[tokio::test]
async fn a_watch_can_begin_with_everything() {
    let (namespace, api) = config_maps("initial").await;
    api.create(&PostParams::default(), &config_map("there"))
        .await
        .unwrap();
    let uri = format!(
        "/api/v1/namespaces/{}/configmaps?watch=1&sendInitialEvents=true&allowWatchBookmarks=true\
         &resourceVersionMatch=NotOlderThan&fieldSelector=metadata.name%3Dthere",
        namespace.name
    );
    let mut body = answer(&client().await, get(&uri)).await.into_body();
    let mut text = String::new();
    while text.lines().count() < 2 || !text.ends_with('\n') {
        let frame = body
            .frame()
            .await
            .expect("the watch goes on")
            .expect("a frame");
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    let events: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&events[0]["type"], &events[0]["object"]["metadata"]["name"]),
        (&json!("ADDED"), &json!("there"))
    );
    assert_eq!(events[1]["type"], "BOOKMARK");
    assert_eq!(
        events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn a_revision_of_the_far_past_is_gone() {
    let (namespace, _) = config_maps("gone").await;
    let uri = format!(
        "/api/v1/namespaces/{}/configmaps?watch=1&resourceVersion=1",
        namespace.name
    );
    let mut body = answer(&client().await, get(&uri)).await.into_body();
    let first = body
        .frame()
        .await
        .expect("an answer")
        .expect("a frame")
        .into_data()
        .unwrap();
    let first: Value = serde_json::from_slice(&first).unwrap();
    // Told as an event of the watch or, when known at once, as the answer.
    let status = if first["type"] == "ERROR" {
        &first["object"]
    } else {
        &first
    };
    assert_eq!(
        (&status["code"], &status["reason"]),
        (&json!(410), &json!("Expired")),
        "{first}"
    );
}

#[tokio::test]
async fn an_update_needs_the_revision_it_saw() {
    let (_namespace, api) = config_maps("conflict").await;
    let first = api
        .create(&PostParams::default(), &config_map("one"))
        .await
        .unwrap();
    let mut second = first.clone();
    second.data = None;
    let second = api
        .replace("one", &PostParams::default(), &second)
        .await
        .unwrap();
    assert_ne!(
        first.metadata.resource_version,
        second.metadata.resource_version
    );
    let error = api
        .replace("one", &PostParams::default(), &first)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"),
        "{error:?}"
    );

    // Nothing changed, so nothing was written.
    let third = api
        .replace("one", &PostParams::default(), &second)
        .await
        .unwrap();
    assert_eq!(
        third.metadata.resource_version,
        second.metadata.resource_version
    );
}

/// So storage version migration has an object stored anew (KEP-4192).
#[tokio::test]
async fn an_apply_by_uid_makes_nothing() {
    let (_namespace, api) = config_maps("apply-uid").await;
    let touch = |uid: &str| {
        Patch::Apply(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"uid": uid},
        }))
    };
    let parameters = PatchParams::apply("toucher");
    let there = api
        .create(&PostParams::default(), &config_map("there"))
        .await
        .unwrap()
        .metadata;
    let (uid, revision) = (there.uid.unwrap(), there.resource_version);

    let touched = api.patch("there", &parameters, &touch(&uid)).await.unwrap();
    assert_eq!(touched.metadata.resource_version, revision);

    let gone = api.patch("gone", &parameters, &touch(&uid)).await;
    let Err(kube::Error::Api(status)) = gone else {
        panic!("made anew: {gone:?}");
    };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert!(api.get_opt("gone").await.unwrap().is_none());
}

#[tokio::test]
async fn a_scale_is_of_the_namespace_in_the_path() {
    let namespace = Namespace::new("scale");
    let client = client().await;
    let path = format!(
        "/api/v1/namespaces/{}/replicationcontrollers",
        namespace.name
    );
    let controller = json!({
        "metadata": {"name": "none"},
        "spec": {
            "replicas": 0, "selector": {"app": "none"},
            "template": {
                "metadata": {"labels": {"app": "none"}},
                "spec": {"containers": [{"name": "c", "image": "registry.example/pause:1"}]},
            },
        },
    });
    let request = |method: &str, path: &str, body: &Value| {
        Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", "application/json")
            .body(body.to_string().into_bytes())
            .expect("a request")
    };
    let (code, made) = send(&client, request("POST", &path, &controller)).await;
    assert_eq!(code, 201, "{made}");
    let scale = json!({"metadata": {"name": "none"}, "spec": {"replicas": 0}});
    let put = request("PUT", &format!("{path}/none/scale"), &scale);
    let (code, scale) = send(&client, put).await;
    assert_eq!(code, 200, "{scale}");
    assert_eq!(scale["metadata"]["namespace"], *namespace.name);
}

#[tokio::test]
async fn preconditions_hold_for_deletes() {
    let (_namespace, api) = config_maps("precondition").await;
    let one = api
        .create(&PostParams::default(), &config_map("one"))
        .await
        .unwrap();
    let wrong = DeleteParams {
        preconditions: Some(kube::api::Preconditions {
            uid: Some("not-its-uid".into()),
            resource_version: None,
        }),
        ..Default::default()
    };
    let error = api.delete("one", &wrong).await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 409),
        "{error:?}"
    );
    let right = DeleteParams {
        preconditions: Some(kube::api::Preconditions {
            uid: one.metadata.uid,
            resource_version: None,
        }),
        ..Default::default()
    };
    api.delete("one", &right).await.unwrap();
    assert_eq!(api.get_opt("one").await.unwrap(), None);
}

#[tokio::test]
async fn names_can_be_generated() {
    let (_namespace, api) = config_maps("generate").await;
    let mut object = config_map("unused");
    object.metadata = ObjectMeta {
        generate_name: Some("made-".into()),
        ..Default::default()
    };
    let first = api
        .create(&PostParams::default(), &object)
        .await
        .unwrap()
        .metadata
        .name
        .unwrap();
    let second = api
        .create(&PostParams::default(), &object)
        .await
        .unwrap()
        .metadata
        .name
        .unwrap();
    assert!(
        first.starts_with("made-") && first.len() == "made-".len() + 5,
        "{first}"
    );
    assert_ne!(first, second);
}

#[tokio::test]
async fn finalizers_hold_an_object_back() {
    let (_namespace, api) = config_maps("finalizer").await;
    let mut object = config_map("held");
    object.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    api.create(&PostParams::default(), &object).await.unwrap();
    api.delete("held", &DeleteParams::default()).await.unwrap();
    let held = api.get("held").await.unwrap();
    assert!(
        held.metadata.deletion_timestamp.is_some(),
        "deleted, but held"
    );

    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    api.patch("held", &PatchParams::default(), &release)
        .await
        .unwrap();
    assert_eq!(api.get_opt("held").await.unwrap(), None);
}

#[tokio::test]
async fn deletecollection_heeds_selectors() {
    let (_namespace, api) = config_maps("collection").await;
    for (name, group) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let mut object = config_map(name);
        object.metadata.labels = Some([("group".to_owned(), group.to_owned())].into());
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    api.delete_collection(
        &DeleteParams::default(),
        &ListParams::default().labels("group in (x,z)"),
    )
    .await
    .unwrap();
    let left = api
        .list(&ListParams::default().labels("group"))
        .await
        .unwrap();
    let left: Vec<_> = left
        .items
        .into_iter()
        .filter_map(|object| object.metadata.name)
        .collect();
    assert_eq!(left, ["c"]);
}

#[tokio::test]
async fn dry_runs_store_nothing() {
    let (_namespace, api) = config_maps("dry").await;
    let dry = PostParams {
        dry_run: true,
        ..Default::default()
    };
    let answered = api.create(&dry, &config_map("ghost")).await.unwrap();
    assert!(
        answered.metadata.uid.is_some(),
        "a dry run answers as a wet one would"
    );
    assert_eq!(api.get_opt("ghost").await.unwrap(), None);
}

#[tokio::test]
async fn tokens_are_issued_reviewed_and_used() {
    let namespace = Namespace::new("token");
    let accounts: Api<ServiceAccount> = Api::namespaced(client().await, &namespace.name);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(600),
            ..Default::default()
        }),
        ..Default::default()
    };
    let issued = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .unwrap();
    let token = issued
        .status
        .and_then(|status| status.token)
        .expect("a token");
    let user = format!("system:serviceaccount:{}:default", namespace.name);

    let reviews: Api<TokenReview> = Api::all(client().await);
    let review = |token: &str| TokenReview {
        spec: TokenReviewSpec {
            token: token.to_owned(),
            ..Default::default()
        },
        ..Default::default()
    };
    let good = reviews
        .create(&PostParams::default(), &review(&token))
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(
        (good.authenticated, good.user.and_then(|user| user.username)),
        (Some(true), Some(user.clone()))
    );
    // The middle of the signature: its last character may carry bits of no account.
    let mut forged: Vec<char> = token.chars().collect();
    let at = forged.len() - 20;
    forged[at] = if forged[at] == 'A' { 'B' } else { 'A' };
    let forged: String = forged.into_iter().collect();
    let bad = reviews
        .create(&PostParams::default(), &review(&forged))
        .await
        .unwrap()
        .status
        .unwrap();
    assert_ne!(bad.authenticated, Some(true));

    let holder = bearer(&token).await;
    let (code, status) = send(
        &holder,
        get(&format!("/api/v1/namespaces/{}/pods", namespace.name)),
    )
    .await;
    assert_eq!((code, &status["reason"]), (403, &json!("Forbidden")));
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains(&format!("User \"{user}\" cannot list resource \"pods\"")),
        "{status}"
    );

    namespace
        .kubectl("create role viewer --verb=list --resource=pods")
        .ok();
    namespace
        .kubectl("create rolebinding viewer --role=viewer")
        .args([format!("--serviceaccount={}:default", namespace.name)])
        .ok();
    e2e::until("the binding to be heeded", || {
        let can = namespace
            .kubectl("auth can-i list pods")
            .args([format!("--as={user}")])
            .run();
        can.success()
    });
    let (code, list) = send(
        &holder,
        get(&format!("/api/v1/namespaces/{}/pods", namespace.name)),
    )
    .await;
    assert_eq!((code, &list["kind"]), (200, &json!("PodList")), "{list}");

    // A token is worth nothing without its account, which is another one when it
    // has been made again.
    namespace.kubectl("delete serviceaccount default").ok();
    until_async("the token to be refused", async || {
        let (code, answer) = send(&holder, get("/api")).await;
        if code == 401 {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn discovery_comes_in_both_forms() {
    let client = client().await;
    let (code, plain) = send(&client, get("/apis")).await;
    assert_eq!((code, &plain["kind"]), (200, &json!("APIGroupList")));
    let names: Vec<_> = plain["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["name"].clone())
        .collect();
    assert!(
        names.contains(&json!("apps")) && names.contains(&json!("rbac.authorization.k8s.io")),
        "{names:?}"
    );

    let aggregated = client.list_api_groups_aggregated().await.unwrap();
    assert!(aggregated.items.iter().any(|group| {
        group
            .metadata
            .as_ref()
            .is_some_and(|m| m.name.as_deref() == Some("apps"))
    }));

    let apps = client.list_api_group_resources("apps/v1").await.unwrap();
    let scale = apps
        .resources
        .iter()
        .find(|resource| resource.name == "deployments/scale")
        .expect("a scale subresource");
    assert_eq!(
        (
            scale.kind.as_str(),
            scale.group.as_deref(),
            scale.version.as_deref()
        ),
        ("Scale", Some("autoscaling"), Some("v1"))
    );
}

#[tokio::test]
async fn openapi_describes_pods() {
    let client = client().await;
    let (code, index) = send(&client, get("/openapi/v3")).await;
    assert_eq!(code, 200);
    let uri = index["paths"]["api/v1"]["serverRelativeURL"]
        .as_str()
        .expect("the core group")
        .to_owned();
    let (code, core) = send(&client, get(&uri)).await;
    assert_eq!(code, 200);
    let pod = &core["components"]["schemas"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"][0],
        json!({"group": "", "kind": "Pod", "version": "v1"})
    );
    assert!(core["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["get"].is_object());

    let (code, old) = send(&client, get("/openapi/v2")).await;
    assert_eq!((code, &old["swagger"]), (200, &json!("2.0")));
    assert!(old["definitions"]["io.k8s.api.apps.v1.Deployment"].is_object());
}

#[tokio::test]
async fn protobuf_is_spoken() {
    let (namespace, api) = config_maps("protobuf").await;
    api.create(&PostParams::default(), &config_map("one"))
        .await
        .unwrap();
    let request = Request::get(format!(
        "/api/v1/namespaces/{}/configmaps/one",
        namespace.name
    ))
    .header("Accept", "application/vnd.kubernetes.protobuf");
    let answer = answer(&client().await, request.body(Vec::new()).unwrap()).await;
    assert_eq!(
        answer.headers()["content-type"],
        "application/vnd.kubernetes.protobuf"
    );
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&bytes[..4], b"k8s\0", "the envelope's magic");
}

#[tokio::test]
async fn tables_are_made_by_the_server() {
    let (namespace, api) = config_maps("tables").await;
    api.create(&PostParams::default(), &config_map("one"))
        .await
        .unwrap();
    let request = Request::get(format!(
        "/api/v1/namespaces/{}/configmaps/one",
        namespace.name
    ))
    .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let (code, table) = send(&client().await, request.body(Vec::new()).unwrap()).await;
    assert_eq!((code, &table["kind"]), (200, &json!("Table")));
    let columns: Vec<_> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].clone())
        .collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    assert_eq!(
        (&table["rows"][0]["cells"][0], &table["rows"][0]["cells"][1]),
        (&json!("one"), &json!(1))
    );
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

/// Longer than what is answered in one piece.
#[tokio::test]
async fn long_lists_are_whole_in_every_form() {
    let (namespace, api) = config_maps("long-lists").await;
    let line = "a line that is repeated until the object is long\n".repeat(400);
    for number in 0..30 {
        let mut object = config_map(&format!("long-{number}"));
        object.data = Some([("text".to_owned(), line.clone())].into());
        api.create(&PostParams::default(), &object).await.unwrap();
    }
    let client = client().await;
    let uri = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
    let ask = async |headers: &[(&str, &str)]| {
        let mut request = Request::get(&uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = answer(&client, request.body(Vec::new()).unwrap()).await;
        let (head, body) = response.into_parts();
        assert_eq!(head.status, 200);
        (head.headers, body.collect().await.unwrap().to_bytes())
    };
    let (_, plain) = ask(&[]).await;
    let list: Value = serde_json::from_slice(&plain).unwrap();
    let count = list["items"].as_array().unwrap().len();
    assert!(count >= 30, "{count} objects");
    assert_eq!(list["kind"], "ConfigMapList");

    let (headers, packed) = ask(&[("accept-encoding", "gzip")]).await;
    assert_eq!(headers["content-encoding"], "gzip");
    assert!(packed.len() < plain.len() / 4, "{} bytes", packed.len());

    let (_, raw) = ask(&[("accept", "application/vnd.kubernetes.protobuf")]).await;
    let found = raw.windows(line.len()).filter(|w| *w == line.as_bytes());
    assert_eq!(found.count(), 30);

    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let (_, metadata) = ask(&[("accept", partial)]).await;
    let metadata: Value = serde_json::from_slice(&metadata).unwrap();
    assert_eq!(metadata["items"].as_array().unwrap().len(), count);
    assert_eq!(metadata["items"][0]["kind"], "PartialObjectMetadata");
}
