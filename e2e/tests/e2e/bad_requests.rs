//! Requests that must be refused, each with upstream's code, reason and words.

use e2e::Namespace;
use http::Request;
use serde_json::{Value, json};

use crate::rest::{bearer, client, send};

/// Upstream's limit of a request body.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

fn post(uri: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Request<Vec<u8>> {
    Request::post(uri)
        .header("Content-Type", content_type)
        .body(body.into())
        .expect("a request")
}

fn assert_status(answer: &(u16, Value), code: u16, reason: &str, words: &[&str]) {
    let (seen, status) = answer;
    assert_eq!(*seen, code, "{status}");
    for (field, value) in [
        ("kind", json!("Status")),
        ("apiVersion", json!("v1")),
        ("status", json!("Failure")),
        ("reason", json!(reason)),
        ("code", json!(code)),
    ] {
        assert_eq!(status[field], value, "{field} of {status}");
    }
    let message = status["message"].as_str().unwrap_or_default();
    for word in words {
        assert!(message.contains(word), "no {word:?} in {message:?}");
    }
}

async fn config_maps(theme: &str) -> (Namespace, String) {
    let namespace = Namespace::new(theme);
    let uri = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
    (namespace, uri)
}

#[tokio::test]
async fn an_unknown_field_is_refused_when_strict() {
    let (_namespace, uri) = config_maps("strict").await;
    let body = r#"{"metadata":{"name":"one","colour":"red"},"data":{"a":"1","a":"2"},"dada":{}}"#;
    let answer = send(
        &client().await,
        post(
            &format!("{uri}?fieldValidation=Strict"),
            "application/json",
            body,
        ),
    )
    .await;
    let words = [
        "strict decoding error",
        r#"unknown field "dada""#,
        r#"unknown field "metadata.colour""#,
        r#"duplicate field "data.a""#,
    ];
    assert_status(&answer, 400, "BadRequest", &words);

    // By default a warning says so, and the object is stored.
    let (code, object) = send(&client().await, post(&uri, "application/json", body)).await;
    assert_eq!(
        (code, &object["data"]),
        (201, &json!({"a": "2"})),
        "{object}"
    );
}

#[tokio::test]
async fn a_wrong_type_is_refused() {
    let (_namespace, uri) = config_maps("type").await;
    let body = r#"{"metadata":{"name":"one"},"data":["not","a","map"]}"#;
    let answer = send(&client().await, post(&uri, "application/json", body)).await;
    assert_status(
        &answer,
        400,
        "BadRequest",
        &["json: cannot unmarshal array into Go struct field ConfigMap.data"],
    );

    let answer = send(&client().await, post(&uri, "application/json", "{")).await;
    assert_status(&answer, 400, "BadRequest", &[]);
}

#[tokio::test]
async fn a_wrong_kind_is_refused() {
    let (_namespace, uri) = config_maps("kind").await;
    let body = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"one"}}"#;
    let answer = send(&client().await, post(&uri, "application/json", body)).await;
    assert_status(&answer, 400, "BadRequest", &["Secret", "ConfigMap"]);
}

#[tokio::test]
async fn an_invalid_object_is_refused_field_by_field() {
    let namespace = Namespace::new("invalid");
    let uri = format!("/api/v1/namespaces/{}/pods", namespace.name);
    let body = r#"{"metadata":{"name":"Not_A_Name"},"spec":{"containers":[{"name":"main"}]}}"#;
    let answer = send(&client().await, post(&uri, "application/json", body)).await;
    assert_status(
        &answer,
        422,
        "Invalid",
        &[
            r#"Pod "Not_A_Name" is invalid"#,
            "metadata.name",
            "spec.containers[0].image: Required value",
        ],
    );
    let causes = answer.1["details"]["causes"].as_array().unwrap();
    let fields: Vec<_> = causes
        .iter()
        .map(|cause| cause["field"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(fields, ["metadata.name", "spec.containers[0].image"]);
    assert_eq!(causes[1]["reason"], "FieldValueRequired");
}

#[tokio::test]
async fn a_stale_revision_is_refused() {
    let (_namespace, uri) = config_maps("stale").await;
    let client = client().await;
    let (code, first) = send(
        &client,
        post(&uri, "application/json", r#"{"metadata":{"name":"one"}}"#),
    )
    .await;
    assert_eq!(code, 201, "{first}");
    let put = |object: &Value| {
        let body = serde_json::to_vec(object).unwrap();
        Request::put(format!("{uri}/one"))
            .header("Content-Type", "application/json")
            .body(body)
            .unwrap()
    };
    let mut second = first.clone();
    second["data"] = json!({"a": "1"});
    assert_eq!(send(&client, put(&second)).await.0, 200);
    let answer = send(&client, put(&first)).await;
    let words = "Operation cannot be fulfilled on configmaps \"one\": the object has been modified; please apply your \
                 changes to the latest version and try again";
    assert_status(&answer, 409, "Conflict", &[words]);
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused() {
    let (_namespace, uri) = config_maps("taken").await;
    let client = client().await;
    let body = r#"{"metadata":{"name":"one"}}"#;
    assert_eq!(
        send(&client, post(&uri, "application/json", body)).await.0,
        201
    );
    let answer = send(&client, post(&uri, "application/json", body)).await;
    assert_status(
        &answer,
        409,
        "AlreadyExists",
        &[r#"configmaps "one" already exists"#],
    );
}

/// Events are of two groups, and each speaks of its own.
#[tokio::test]
async fn an_event_that_is_taken_is_refused_in_the_group_that_was_asked() {
    let namespace = Namespace::new("taken-event");
    let event = json!({
        "metadata": {"name": "one"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "type": "Normal",
        "reason": "Testing",
        "action": "Test",
        "reportingController": "example.com/test",
        "reportingInstance": "one",
        "regarding": {"kind": "Pod", "namespace": namespace.name, "name": "p"},
    });
    let group = "events.k8s.io";
    let uri = format!("/apis/{group}/v1/namespaces/{}/events", namespace.name);
    let client = client().await;
    let create = || post(&uri, "application/json", event.to_string());
    assert_eq!(send(&client, create()).await.0, 201);
    let answer = send(&client, create()).await;
    let words = r#"events.events.k8s.io "one" already exists"#;
    assert_status(&answer, 409, "AlreadyExists", &[words]);
    assert_eq!(answer.1["details"]["group"], group);
}

/// Go's `net/url` passes over what it cannot read.
#[tokio::test]
async fn malformed_parameters_are_passed_over() {
    let (_namespace, uri) = config_maps("malformed").await;
    let client = client().await;
    for query in ["limit=%zz", "labelSelector=a;b", "fieldSelector=%"] {
        let uri = format!("{uri}?{query}");
        let answer = send(&client, Request::get(&uri).body(Vec::new()).unwrap()).await;
        assert_eq!(answer.0, 200, "{query}: {}", answer.1);
    }
}

#[tokio::test]
async fn a_body_too_large_is_refused() {
    let (_namespace, uri) = config_maps("large").await;
    let body = format!(
        r#"{{"metadata":{{"name":"one"}},"data":{{"a":"{}"}}}}"#,
        "x".repeat(BODY_LIMIT)
    );
    let answer = send(&client().await, post(&uri, "application/json", body)).await;
    assert_status(&answer, 413, "RequestEntityTooLarge", &["limit is 3145728"]);
}

#[tokio::test]
async fn an_unknown_content_type_is_refused() {
    let (_namespace, uri) = config_maps("media").await;
    let answer = send(
        &client().await,
        post(&uri, "text/plain", r#"{"metadata":{"name":"one"}}"#),
    )
    .await;
    assert_status(
        &answer,
        415,
        "UnsupportedMediaType",
        &[
            "the body of the request was in an unknown format",
            "application/json",
        ],
    );

    let patch = Request::patch(format!("{uri}/one"))
        .header("Content-Type", "application/json")
        .body(b"{}".to_vec());
    let answer = send(&client().await, patch.unwrap()).await;
    assert_status(
        &answer,
        415,
        "UnsupportedMediaType",
        &["415: Unsupported Media Type"],
    );
}

#[tokio::test]
async fn an_answer_in_no_known_form_is_refused() {
    let (_namespace, uri) = config_maps("accept").await;
    let request = Request::get(uri)
        .header("Accept", "text/html")
        .body(Vec::new())
        .unwrap();
    let answer = send(&client().await, request).await;
    assert_status(
        &answer,
        406,
        "NotAcceptable",
        &["406: Not Acceptable", "application/vnd.kubernetes.protobuf"],
    );
}

#[tokio::test]
async fn a_bad_token_is_refused() {
    let (_namespace, uri) = config_maps("unauthorized").await;
    for token in ["nonsense", "e30.e30.e30"] {
        let request = Request::get(&uri).body(Vec::new()).unwrap();
        let answer = send(&bearer(token).await, request).await;
        assert_status(&answer, 401, "Unauthorized", &["Unauthorized"]);
    }
}

#[tokio::test]
async fn a_forbidden_user_is_refused() {
    let (namespace, uri) = config_maps("forbidden").await;
    let request = Request::get(&uri)
        .header("Impersonate-User", "nobody-in-particular")
        .body(Vec::new())
        .unwrap();
    let answer = send(&client().await, request).await;
    let words = format!(
        "configmaps is forbidden: User \"nobody-in-particular\" cannot list resource \"configmaps\" in API group \"\" in \
         the namespace \"{}\"",
        namespace.name
    );
    assert_status(&answer, 403, "Forbidden", &[&words]);
    assert_eq!(answer.1["details"]["kind"], "configmaps");
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let (_namespace, uri) = config_maps("missing").await;
    let client = client().await;
    let get = |uri: &str| Request::get(uri).body(Vec::new()).unwrap();
    let answer = send(&client, get(&format!("{uri}/none"))).await;
    assert_status(
        &answer,
        404,
        "NotFound",
        &[r#"configmaps "none" not found"#],
    );
    let answer = send(&client, get("/apis/apps/v1/cattle")).await;
    assert_status(
        &answer,
        404,
        "NotFound",
        &["the server could not find the requested resource"],
    );
    assert_eq!(send(&client, get("/no/such/path")).await.0, 404);
    // What is only created has no path of one.
    let one = "/apis/authentication.k8s.io/v1/tokenreviews/one";
    assert_eq!(send(&client, get(one)).await.0, 404);
    let uri = "/api/v1/namespaces/absent-altogether/configmaps";
    let answer = send(
        &client,
        post(uri, "application/json", r#"{"metadata":{"name":"one"}}"#),
    )
    .await;
    assert_status(
        &answer,
        404,
        "NotFound",
        &[r#"namespaces "absent-altogether" not found"#],
    );
}

#[tokio::test]
async fn a_verb_that_is_not_there_is_refused() {
    let client = client().await;
    let answer = send(
        &client,
        Request::post("/api/v1/pods")
            .header("Content-Type", "application/json")
            .body(b"{}".to_vec())
            .unwrap(),
    )
    .await;
    assert_eq!(answer.0, 405, "{}", answer.1);
}
