//! Requests below the size limit that are made to be expensive: each is answered as
//! upstream answers it, and costs the server less than a second.

use std::time::Duration;

use e2e::stand::http::{APPLY, Ask, JSON, STRATEGIC};
use http::Method;
use serde_json::json;

use super::{refusal, stand};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const PATCHED: &str = "/api/v1/namespaces/default/configmaps/patched";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const YAML: &str = "application/yaml";
/// What one request may cost.
const CPU: Duration = Duration::from_secs(1);

/// An object with something nested at `"x"`.
fn nested(open: &str, close: &str, depth: usize) -> String {
    let (open, close) = (open.repeat(depth), close.repeat(depth));
    format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"patched"}},"x":{open}1{close}}}"#
    )
}

fn arrays(depth: usize) -> String {
    nested("[", "]", depth)
}

fn objects(depth: usize) -> String {
    nested(r#"{"a":"#, "}", depth)
}

/// Aliases of aliases: ten to the power of `levels` of them.
fn aliases(levels: usize) -> String {
    let head = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: aliases}\na0: &a0 x\n";
    let mut yaml = head.to_owned();
    for level in 1..=levels {
        let before = vec![format!("*a{}", level - 1); 10].join(",");
        yaml += &format!("a{level}: &a{level} [{before}]\n");
    }
    yaml
}

/// Each operation copies what the one before made twice as large.
fn copies(count: usize) -> String {
    let filled = json!({"a": "x".repeat(1000)});
    let mut operations =
        vec![json!({"op": "add", "path": "/metadata/annotations", "value": filled})];
    for n in 0..count {
        let path = format!("/metadata/annotations/n{n}");
        operations.push(json!({"op": "copy", "from": "/metadata/annotations", "path": path}));
    }
    json!(operations).to_string()
}

/// A patch of so many operations.
fn operations(count: usize) -> String {
    let operation = json!({"op": "add", "path": "/data/key", "value": "value"});
    json!(vec![operation; count]).to_string()
}

/// Each round of operations puts what there is into something new.
fn moves(rounds: usize) -> String {
    let mut moves = vec![json!({"op": "add", "path": "/x", "value": {}})];
    for _ in 0..rounds {
        moves.push(json!({"op": "add", "path": "/y", "value": {}}));
        moves.push(json!({"op": "move", "from": "/x", "path": "/y/z"}));
        moves.push(json!({"op": "move", "from": "/y", "path": "/x"}));
    }
    json!(moves).to_string()
}

fn post(kind: &'static str, body: String) -> Ask {
    Ask::send(Method::POST, PATH, kind, body)
}

fn patch(kind: &'static str, body: String) -> Ask {
    Ask::send(Method::PATCH, PATCHED, kind, body)
}

fn apply(body: String) -> Ask {
    let path = format!("{PATCHED}?fieldManager=bounds");
    Ask::send(Method::PATCH, path, APPLY, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expensive_requests_are_cheap() {
    const UNRECOGNIZED: &str = "the object provided is unrecognized (must be of type ConfigMap): ";
    const OPERATIONS: &str = "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001";
    const BYTES: &str = "Request entity too large: limit is 3145728";
    let stand = stand(&[], &[]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    stand.api.settle().await.unwrap();
    let object = json!({"metadata": {"name": "patched"}, "data": {"key": "value"}});
    connection.success(&Ask::post(PATH, &object)).await.unwrap();
    let bad = |message| (400, "BadRequest", message);
    let large = |message| (413, "RequestEntityTooLarge", message);
    let mut wrong = Vec::new();
    for (name, ask, (code, reason, message)) in [
        ("arrays", post(JSON, arrays(1_400_000)), bad(UNRECOGNIZED)),
        ("objects", post(JSON, objects(400_000)), bad(UNRECOGNIZED)),
        (
            "YAML arrays",
            post(YAML, arrays(100_000)),
            bad(UNRECOGNIZED),
        ),
        ("YAML aliases", post(YAML, aliases(9)), bad(UNRECOGNIZED)),
        (
            "a merge patch",
            patch(MERGE_PATCH, arrays(1_400_000)),
            bad("error decoding patch: "),
        ),
        (
            "a strategic merge patch",
            patch(STRATEGIC, arrays(1_400_000)),
            bad(""),
        ),
        (
            "applied arrays",
            apply(arrays(100_000)),
            bad("error decoding YAML: "),
        ),
        (
            "applied aliases",
            apply(aliases(9)),
            bad("error decoding YAML: "),
        ),
        (
            "copies of copies",
            patch(JSON_PATCH, copies(40)),
            (422, "Invalid", "the server rejected our request"),
        ),
        (
            "10000 operations",
            patch(JSON_PATCH, operations(10_000)),
            (200, "", ""),
        ),
        (
            "10001 operations",
            patch(JSON_PATCH, operations(10_001)),
            large(OPERATIONS),
        ),
        (
            "too many bytes",
            post(JSON, arrays(1_600_000)),
            large(BYTES),
        ),
    ] {
        let before = stand.api.process().cpu().unwrap();
        let (status, body) = connection.ask(&ask).await.unwrap();
        let used = stand.api.process().cpu().unwrap() - before;
        let got = refusal(status, &body);
        println!("{name}: {used:?}");
        if (got.0, got.1.as_str()) != (code, reason) || !got.2.starts_with(message) || used > CPU {
            wrong.push(format!("{name}: {used:?}, {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Nested less deep than is refused: whatever the answer, the server is there afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_requests_do_no_harm() {
    let mut stand = stand(&[], &[]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    let object = json!({"metadata": {"name": "patched"}, "data": {"key": "value"}});
    connection.success(&Ask::post(PATH, &object)).await.unwrap();
    for (name, ask) in [
        ("posted arrays", post(JSON, arrays(9_900))),
        ("posted objects", post(JSON, objects(9_900))),
        ("posted YAML", post(YAML, arrays(9_900))),
        ("a merge patch", patch(MERGE_PATCH, objects(9_900))),
        ("a strategic merge patch", patch(STRATEGIC, objects(9_900))),
        ("applied", apply(objects(9_900))),
        ("moves", patch(JSON_PATCH, moves(3_000))),
    ] {
        let answer = connection.ask(&ask).await;
        if let Err(error) = stand.api.check() {
            panic!("{name}: {error}");
        }
        let (status, body) = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (code, _, message) = refusal(status, &body);
        assert!(code < 600, "{name}: {code} {message}");
        println!("{name}: {code} {}", &message[..message.len().min(120)]);
    }
}
