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

/// An object of so many owners, who are nobody.
fn owners(count: usize) -> String {
    let owner = |i| json!({"apiVersion": "v1", "kind": "X", "name": "x", "uid": format!("u{i}")});
    let owners: Vec<_> = (0..count).map(owner).collect();
    json!({"metadata": {"name": "owned", "ownerReferences": owners}}).to_string()
}

/// An object with so many finalizers.
fn finalizers(count: usize) -> String {
    let finalizers: Vec<_> = (0..count).map(|i| format!("example.com/{i}")).collect();
    let metadata = json!({"name": "patched", "finalizers": finalizers});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}).to_string()
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
        ("20000 owners", post(JSON, owners(20_000)), (201, "", "")),
        (
            "20000 applied finalizers",
            apply(finalizers(20_000)),
            (200, "", ""),
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

/// A revision with data that nest.
fn revision(name: &str, number: u32, depth: usize) -> String {
    let (open, close) = (r#"{"a":"#.repeat(depth), "}".repeat(depth));
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{{"name":"{name}"}},"revision":{number},"data":{open}1{close}}}"#
    )
}

/// What nests as deep as may be is taken, kept and shown like anything else, and one level more
/// is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nests_10000_deep_is_taken() {
    const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";
    const REVISION: &str = "/apis/apps/v1/namespaces/default/controllerrevisions/deep";
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
    let mut stand = stand(&[], &[]).await;
    let connection = stand.endpoint.connect().await.unwrap();
    stand.api.settle().await.unwrap();
    let object = json!({"metadata": {"name": "patched"}, "data": {"key": "value"}});
    connection.success(&Ask::post(PATH, &object)).await.unwrap();
    let put = |kind, body| Ask::send(Method::PUT, PATCHED, kind, body);
    let operation = |value: &str| {
        let body = format!(r#"[{{"op":"add","path":"/x","value":{value}}}]"#);
        patch(JSON_PATCH, body)
    };
    let value = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let label = json!({"metadata": {"labels": {"a": "b"}}}).to_string();
    let get = |accept: &'static str| Ask::get(REVISION).accept(accept);
    let deep = |method, path: &str, kind, body| Ask::send(method, path.to_owned(), kind, body);
    let forced = format!("{REVISION}?fieldManager=bounds&force=true");
    for (name, ask, code, message) in [
        ("put arrays", put(JSON, arrays(9_999)), 200, ""),
        ("put objects", put(JSON, objects(9_999)), 200, ""),
        ("put YAML", put(YAML, arrays(9_999)), 200, ""),
        ("put YAML objects", put(YAML, objects(9_999)), 200, ""),
        (
            "put too deep",
            put(JSON, arrays(10_000)),
            400,
            "invalid character '[' exceeded max depth",
        ),
        (
            "put YAML too deep",
            put(YAML, arrays(10_000)),
            400,
            "yaml: exceeded max depth of 10000",
        ),
        ("merged", patch(MERGE_PATCH, arrays(9_999)), 200, ""),
        (
            "merged too deep",
            patch(MERGE_PATCH, objects(10_000)),
            400,
            "error decoding patch: invalid character '{' exceeded max depth",
        ),
        (
            "merged strategically",
            patch(STRATEGIC, objects(9_999)),
            200,
            "",
        ),
        (
            "merged strategically too deep",
            patch(STRATEGIC, objects(10_000)),
            400,
            "invalid character '{' exceeded max depth",
        ),
        (
            "applied",
            apply(objects(9_900)),
            500,
            ".x: field not declared in schema",
        ),
        (
            "applied too deep",
            apply(objects(10_000)),
            400,
            "error decoding YAML: error converting YAML to JSON: yaml: exceeded max depth of 10000",
        ),
        ("added", operation(&value(9_998)), 200, ""),
        (
            "added too deep",
            operation(&value(9_999)),
            400,
            "error decoding patch: invalid character '[' exceeded max depth",
        ),
        ("moves", patch(JSON_PATCH, moves(3_000)), 200, ""),
        (
            "created",
            deep(Method::POST, REVISIONS, JSON, revision("deep", 1, 9_990)),
            201,
            "",
        ),
        ("shown as JSON", get(JSON), 200, ""),
        ("shown as YAML", get(YAML), 200, ""),
        ("shown as protobuf", get(PROTOBUF), 200, ""),
        ("shown in a table", get(TABLE), 200, ""),
        ("listed", Ask::get(REVISIONS), 200, ""),
        (
            "labelled",
            deep(Method::PATCH, REVISION, MERGE_PATCH, label.clone()),
            200,
            "",
        ),
        (
            "labelled strategically",
            deep(Method::PATCH, REVISION, STRATEGIC, label),
            200,
            "",
        ),
        (
            "applied as it is",
            deep(Method::PATCH, &forced, APPLY, revision("deep", 1, 9_990)),
            200,
            "",
        ),
        (
            "changed",
            deep(Method::PUT, REVISION, JSON, revision("deep", 1, 9_989)),
            422,
            "data: Invalid value",
        ),
        ("deleted", Ask::delete(REVISION), 200, ""),
    ] {
        let before = stand.api.process().cpu().unwrap();
        let answer = connection.ask(&ask).await;
        if let Err(error) = stand.api.check() {
            panic!("{name}: {error}");
        }
        let used = stand.api.process().cpu().unwrap() - before;
        let (status, body) = answer.unwrap_or_else(|error| panic!("{name}: {error}"));
        println!("{name}: {used:?}, {} bytes", body.len());
        // As YAML it is a hundred megabytes of indentation, and upstream's own patches take
        // seconds.
        let slow = [
            "shown as YAML",
            "merged",
            "added",
            "moves",
            "labelled",
            "applied as it is",
        ];
        assert!(used < CPU || slow.contains(&name), "{name}: {used:?}");
        let got = match status.is_success() {
            true => (status.as_u16(), String::new(), String::new()),
            false => refusal(status, &body),
        };
        let start = &got.2[..got.2.len().min(300)];
        assert!(
            got.0 == code && got.2.contains(message),
            "{name}: {} {start}",
            got.0
        );
    }
}
