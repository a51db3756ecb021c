//! The documents against upstream's published ones, and how requests for them are answered.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::discovery::served;

/// The directory of upstream's `api/openapi-spec`, which describes every API there is.
const GOLDEN: &str = "FERROKUBE_UPSTREAM_OPENAPI";

fn openapi(all: bool) -> OpenApi {
    let config = BTreeMap::from([("api/all".to_owned(), "true".to_owned())]);
    let config = if all { config } else { BTreeMap::new() };
    OpenApi::new(served(&config, |_| all).unwrap(), || {
        Timestamp::from_second(1_800_000_000).unwrap()
    })
}

fn get(openapi: &OpenApi, path: &str, with: &[(http::HeaderName, &str)]) -> Response<Bytes> {
    let headers = with.iter().map(|(n, v)| (n.clone(), v.parse().unwrap()));
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    openapi.get(path, query, &headers.collect()).unwrap()
}

fn json_of(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

/// Descriptions are compared for presence only; enum values are not in the published files,
/// which are made with that feature off, nor is what an alpha feature (CBOR) adds in ours.
fn comparable(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.remove("enum");
            map.remove("description");
            map.retain(|key, _| !key.contains("cbor"));
            map.values_mut().for_each(comparable);
        }
        Value::Array(list) => {
            list.retain(|v| !v.as_str().is_some_and(|s| s.contains("cbor")));
            list.iter_mut().for_each(comparable);
        }
        _ => {}
    }
}

/// Parameters of the path belong to each of its operations; references are followed.
fn flatten_parameters(paths: &mut Value, shared: &Value) {
    for item in paths.as_object_mut().unwrap().values_mut() {
        let item = item.as_object_mut().unwrap();
        let common = item.remove("parameters").unwrap_or(json!([]));
        for operation in item.values_mut() {
            let own = operation["parameters"].take();
            let all = common
                .as_array()
                .unwrap()
                .iter()
                .chain(own.as_array().into_iter().flatten());
            let by_name: BTreeMap<String, Value> = all
                .map(|p| match p["$ref"].as_str() {
                    Some(r) => shared[r.strip_prefix("#/parameters/").unwrap()].clone(),
                    None => p.clone(),
                })
                .map(|p| (format!("{}/{}", p["in"], p["name"]), p))
                .collect();
            operation["parameters"] = by_name.into_values().collect();
        }
    }
}

/// The places at which two trees differ.
fn differences(at: &str, ours: &Value, theirs: &Value, out: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let null = Value::Null;
                let (a, b) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
                differences(&format!("{at} > {key}"), a, b, out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at} > {i}"), a, b, out);
            }
        }
        (a, b) if a != b => {
            let short = |v: &Value| v.to_string().chars().take(160).collect::<String>();
            out.push(format!("{at}: ours {} theirs {}", short(a), short(b)));
        }
        _ => {}
    }
}

/// Of all descriptions of types and fields that upstream has, how many we have.
fn described(ours: &Value, theirs: &Value, counts: &mut (usize, usize)) {
    if let (Value::Object(ours), Value::Object(theirs)) = (ours, theirs) {
        if theirs.get("description").is_some_and(Value::is_string) {
            counts.1 += 1;
            if ours.get("description").is_some_and(Value::is_string) {
                counts.0 += 1;
            } else {
                eprintln!(
                    "no description where upstream has {}",
                    theirs["description"]
                );
            }
        }
        for (key, theirs) in theirs {
            described(ours.get(key).unwrap_or(&Value::Null), theirs, counts);
        }
    }
}

#[test]
fn documents_are_upstreams() {
    let Ok(dir) = std::env::var(GOLDEN) else {
        eprintln!("NOT COMPARED: set {GOLDEN} to upstream's api/openapi-spec");
        return;
    };
    let openapi = openapi(true);
    let mut all = Vec::new();
    let mut counts = (0, 0);
    let mut documents = 0;
    for entry in std::fs::read_dir(format!("{dir}/v3")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix("_openapi.json") else {
            continue;
        };
        let name = name.replace("__", "/");
        // The logs of the server's own machine are not served by default.
        if name == "logs" {
            continue;
        }
        let text = std::fs::read(format!("{dir}/v3/{file}")).unwrap();
        let mut theirs: Value = serde_json::from_slice(&text).unwrap();
        let mut ours = json_of(&get(&openapi, &format!("/openapi/v3/{name}"), &[]));
        described(&ours["components"], &theirs["components"], &mut counts);
        for document in [&mut ours, &mut theirs] {
            document["info"]["version"] = "".into();
            flatten_parameters(&mut document["paths"], &Value::Null);
            comparable(document);
        }
        differences(&name, &ours, &theirs, &mut all);
        documents += 1;
    }
    let text = std::fs::read(format!("{dir}/swagger.json")).unwrap();
    let mut theirs: Value = serde_json::from_slice(&text).unwrap();
    let mut ours = json_of(&get(&openapi, "/openapi/v2", &[]));
    for document in [&mut ours, &mut theirs] {
        document["info"]["version"] = "".into();
        let shared = document["parameters"].take();
        flatten_parameters(&mut document["paths"], &shared);
        document["paths"]
            .as_object_mut()
            .unwrap()
            .retain(|path, _| !path.starts_with("/logs/"));
        comparable(document);
    }
    differences("v2", &ours, &theirs, &mut all);
    eprintln!(
        "{documents} documents and v2 compared, {} differences, {} of {} descriptions",
        all.len(),
        counts.0,
        counts.1
    );
    for difference in all.iter().take(2000) {
        eprintln!("{difference}");
    }
    assert!(all.is_empty());
}

#[test]
fn the_index_leads_to_documents_that_may_be_kept() {
    let openapi = openapi(false);
    let index = json_of(&get(&openapi, "/openapi/v3", &[]));
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="));
    let document = get(&openapi, url, &[]);
    assert_eq!(document.headers()[CACHE_CONTROL], "public, immutable");
    assert_eq!(document.headers()[EXPIRES], "Sat, 15 Jan 2028 08:00:00 UTC");
    let tag = document.headers()[ETAG].to_str().unwrap().to_owned();
    let hash = hex(&Sha512::digest(document.body()));
    assert_eq!(tag, format!("\"{hash}\""));
    let again = get(&openapi, url, &[(IF_NONE_MATCH, &tag)]);
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let stale = get(&openapi, "/openapi/v3/apis/apps/v1?hash=0", &[]);
    assert_eq!(stale.status(), StatusCode::MOVED_PERMANENTLY);
    assert_eq!(stale.headers()[LOCATION], url);
    assert!(
        openapi
            .get("/openapi/v3/apis/nope/v1", "", &HeaderMap::new())
            .is_none()
    );
}

#[test]
fn old_clients_get_protobuf() {
    let openapi = openapi(false);
    let proto = get(&openapi, "/openapi/v2", &[(ACCEPT, V2_PROTO_OLD)]);
    assert_eq!(proto.headers()[CONTENT_TYPE], V2_PROTO);
    // Document.swagger = 1, Document.info = 2 { title = 1 }.
    assert!(proto.body().starts_with(b"\x0a\x032.0\x12"));
    let json = get(&openapi, "/openapi/v2", &[(ACCEPT, "application/json")]);
    let json = json_of(&json);
    let patch = &json["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    let names: Vec<_> = patch["parameters"].as_array().unwrap().iter().collect();
    assert!(names.iter().any(|p| p["name"] == "dryRun"));
    let refused = get(&openapi, "/openapi/v2", &[(ACCEPT, "text/html")]);
    assert_eq!(refused.status(), StatusCode::NOT_ACCEPTABLE);
}

#[test]
fn versions_are_had_as_protobuf_under_the_hash_of_their_json() {
    let openapi = openapi(false);
    let of = |accept| get(&openapi, "/openapi/v3/version", &[(ACCEPT, accept)]);
    let (json, proto) = (of(JSON), of(V3_PROTO_OLD));
    assert_eq!(proto.headers()[CONTENT_TYPE], V3_PROTO);
    assert_eq!(proto.headers()[ETAG], json.headers()[ETAG]);
    assert_eq!(proto.body(), of(V3_PROTO).body());
    // Document { openapi = 1, info = 2 { title = 1 } }.
    assert!(proto.body().starts_with(b"\x0a\x053.0.0\x12"));
    let has = |part: &[u8]| proto.body().windows(part.len()).any(|w| w == part);
    // NamedSchemaOrReference { name = 1, value = 2 { schema = 1 {
    // type = 25, default = 33 { string = 3 } } } }.
    assert!(has(
        b"\x0a\x08compiler\x12\x10\x0a\x0e\xca\x01\x06string\x8a\x02\x02\x1a\x00"
    ));
    assert_eq!(of("text/html").status(), StatusCode::NOT_ACCEPTABLE);
}

#[test]
fn schemas_say_what_kubectl_needs() {
    let openapi = openapi(false);
    let core = json_of(&get(&openapi, "/openapi/v3/api/v1", &[]));
    let schema = |name: &str| &core["components"]["schemas"][format!("io.k8s.api.core.v1.{name}")];
    let containers = &schema("PodSpec")["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert!(
        containers["description"]
            .as_str()
            .unwrap()
            .starts_with("List of containers")
    );
    assert_eq!(
        schema("ServicePort")["properties"]["protocol"]["default"],
        "TCP"
    );
    assert_eq!(
        schema("Pod")["x-kubernetes-group-version-kind"],
        json!([{"group": "", "kind": "Pod", "version": "v1"}])
    );
}
