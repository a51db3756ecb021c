//! The documents against upstream's published ones, and how requests for them are answered.

use std::collections::BTreeMap;

use super::*;

/// The directory of upstream's `api/discovery`, which lists every API there is.
const GOLDEN: &str = "FERROKUBE_UPSTREAM_DISCOVERY";

fn discovery(runtime_config: &[(&str, &str)]) -> Discovery {
    let config: BTreeMap<String, String> = runtime_config
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    Discovery::new(
        served(&config, |_| true).unwrap(),
        Addresses {
            external: "10.10.10.10:8050".into(),
            internal: vec![("10.0.0.0/24".parse().unwrap(), "10.0.0.1:443".into())],
        },
    )
}

fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.clone(), value.parse().unwrap()))
        .collect()
}

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 0, 9));
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

fn get(discovery: &Discovery, path: &str, with: &[(http::HeaderName, &str)]) -> Response<Bytes> {
    let answer = discovery.get(path, &headers(with), CLIENT);
    answer.expect("a discovery path").unwrap()
}

fn json_of(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap()
}

#[test]
fn documents_are_upstreams() {
    let Ok(dir) = std::env::var(GOLDEN) else {
        eprintln!("NOT COMPARED: set {GOLDEN} to upstream's api/discovery");
        return;
    };
    let discovery = discovery(&[("api/all", "true")]);
    let mut differing = Vec::new();
    let mut compared = 0;
    for entry in std::fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = name.strip_suffix(".json") else {
            continue;
        };
        let theirs = std::fs::read(format!("{dir}/{name}")).unwrap();
        let theirs: Value = serde_json::from_slice(&theirs).unwrap();
        let ours = if stem == "aggregated_v2" {
            let mut ours = json_of(&get(&discovery, "/apis", &[(ACCEPT, AGGREGATED)]));
            ours["metadata"] = json!({});
            ours
        } else {
            json_of(&get(
                &discovery,
                &format!("/{}", stem.replace("__", "/")),
                &[],
            ))
        };
        compared += 1;
        if ours != theirs {
            differing.push(name);
        }
    }
    assert!(differing.is_empty(), "of {compared} differ: {differing:?}");
    assert!(compared > 50);
    eprintln!("{compared} documents equal");
}

#[test]
fn the_root_tells_addresses() {
    let discovery = discovery(&[]);
    let root = get(&discovery, "/api", &[]);
    assert_eq!(
        root.body(),
        r#"{"kind":"APIVersions","versions":["v1"],"serverAddressByClientCIDRs":[{"clientCIDR":"0.0.0.0/0","serverAddress":"10.10.10.10:8050"}]}"#
    );
    let inside = discovery.get("/api/", &HeaderMap::new(), "10.0.0.7".parse().unwrap());
    let inside = json_of(&inside.unwrap().unwrap());
    assert_eq!(
        inside["serverAddressByClientCIDRs"][1],
        json!({"clientCIDR": "10.0.0.0/24", "serverAddress": "10.0.0.1:443"})
    );
}

#[test]
fn other_paths_are_not_ours() {
    let discovery = discovery(&[]);
    for path in [
        "/",
        "/apis/nope",
        "/apis/apps/v7",
        "/api/v1/pods",
        "/apis//v1",
    ] {
        assert!(
            discovery.get(path, &HeaderMap::new(), CLIENT).is_none(),
            "{path}"
        );
    }
}

#[test]
fn aggregated_documents_are_tagged() {
    let discovery = discovery(&[]);
    let first = get(&discovery, "/apis", &[(ACCEPT, AGGREGATED)]);
    assert_eq!(first.headers()[CONTENT_TYPE], AGGREGATED);
    let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
    assert_eq!(tag.len(), 130);
    let again = get(
        &discovery,
        "/apis",
        &[(ACCEPT, AGGREGATED), (IF_NONE_MATCH, &tag)],
    );
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert!(again.body().is_empty());
    let core = get(&discovery, "/api", &[(ACCEPT, AGGREGATED)]);
    assert_ne!(core.headers()[ETAG], first.headers()[ETAG]);
    assert_eq!(json_of(&core)["items"].as_array().unwrap().len(), 1);
}

#[test]
fn old_and_new_clients_get_what_they_can_read() {
    let discovery = discovery(&[]);
    // A kubectl that knows aggregation falls back to the plain list for what is not offered.
    let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    let plain = get(&discovery, "/apis", &[(ACCEPT, beta)]);
    assert_eq!(json_of(&plain)["kind"], "APIGroupList");
    let proto = "application/vnd.kubernetes.protobuf";
    let proto = get(&discovery, "/apis/apps/v1", &[(ACCEPT, proto)]);
    let unknown = codec::envelope::decode(proto.body()).unwrap();
    assert_eq!(
        (unknown.api_version, unknown.kind),
        ("v1", "APIResourceList")
    );
    let refused = discovery.get("/apis", &headers(&[(ACCEPT, "text/html")]), CLIENT);
    assert_eq!(refused.unwrap().unwrap_err().code, 406);
}
