use serde_json::json;

use super::{ServiceName, State};

fn name() -> ServiceName {
    ServiceName {
        namespace: "default".into(),
        name: "web".into(),
    }
}

fn service(port: u16) -> k8s_openapi::api::core::v1::Service {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"name": "http", "port": port}]},
    }))
    .unwrap()
}

fn slice(name: &str, addresses: &[&str]) -> k8s_openapi::api::discovery::v1::EndpointSlice {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|a| json!({"addresses": [a], "nodeName": "here", "conditions": {"ready": true}}))
        .collect();
    serde_json::from_value(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    }))
    .unwrap()
}

#[test]
fn only_what_changes_is_reported_and_once() {
    let mut state = State::new("here");
    state.apply_service(&service(80));
    state.apply_slice(&slice("web-1", &["10.1.0.1"]));
    assert_eq!(
        state.take_changes().into_iter().collect::<Vec<_>>(),
        [name()]
    );
    state.apply_service(&service(80));
    state.apply_slice(&slice("web-1", &["10.1.0.1"]));
    assert!(state.take_changes().is_empty());
    state.apply_service(&service(81));
    assert!(state.take_changes().contains(&name()));
    state.delete_service(&name());
    assert!(state.take_changes().contains(&name()));
    assert!(state.service(&name()).is_none());
}

#[test]
fn endpoints_of_all_slices_are_joined_without_repetition() {
    let mut state = State::new("here");
    state.apply_service(&service(80));
    state.apply_slice(&slice("web-1", &["10.1.0.2", "10.1.0.1"]));
    state.apply_slice(&slice("web-2", &["10.1.0.2", "10.1.0.3"]));
    let port = state.service(&name()).unwrap().ports[0].clone();
    let found: Vec<_> = state
        .endpoints(&name(), &port)
        .iter()
        .map(|e| e.address.to_string())
        .collect();
    assert_eq!(found, ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:8080"]);
    state.delete_slice(&slice("web-1", &[]));
    let port = state.service(&name()).unwrap().ports[0].clone();
    assert_eq!(state.endpoints(&name(), &port).len(), 2);
}

#[test]
fn a_headless_service_is_nobody_to_proxy_for() {
    let mut state = State::new("here");
    let mut headless = service(80);
    let spec = headless.spec.as_mut().unwrap();
    spec.cluster_ip = Some("None".into());
    spec.cluster_ips = Some(vec!["None".into()]);
    state.apply_service(&headless);
    assert!(state.service(&name()).is_none());
    assert!(state.take_changes().is_empty());
}
