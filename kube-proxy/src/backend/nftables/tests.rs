use serde_json::{Value, json};

use super::{Family, Options, Programmed};
use crate::state::State;

fn options() -> Options {
    Options {
        masquerade_bit: 14,
        masquerade_all: false,
        cluster_cidrs: vec!["10.1.0.0/16".parse().unwrap()],
        node_port_addresses: Vec::new(),
    }
}

fn service(state: &mut State, name: &str, spec: Value) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    });
    state.apply_service(&serde_json::from_value(service).unwrap());
}

/// Endpoints as `(address, node, ready)`.
fn slice(state: &mut State, service: &str, endpoints: &[(&str, &str, bool)]) {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|(address, node, ready)| {
            json!({"addresses": [address], "nodeName": node, "conditions": {"ready": ready}})
        })
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{service}-1"), "namespace": "default",
                     "labels": {"kubernetes.io/service-name": service}},
        "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    });
    state.apply_slice(&serde_json::from_value(slice).unwrap());
}

/// Plans, commits, and returns what nft would be told.
fn sync(programmed: &mut Programmed, state: &mut State) -> String {
    let plan = programmed.plan(state, &state.take_changes_for_test());
    let script = plan.script.clone();
    programmed.committed(plan);
    script
}

impl State {
    fn take_changes_for_test(&self) -> std::collections::BTreeSet<crate::state::ServiceName> {
        self.names().cloned().collect()
    }
}

#[test]
fn the_whole_table() {
    let mut state = State::new("here");
    service(
        &mut state,
        "web",
        json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80, "nodePort": 30080}]}),
    );
    slice(
        &mut state,
        "web",
        &[("10.1.0.1", "here", true), ("10.1.1.1", "there", true)],
    );
    service(
        &mut state,
        "idle",
        json!({"clusterIP": "10.0.0.2", "ports": [{"port": 80}]}),
    );
    let mut programmed = Programmed::new(Family::V4, options());
    let script = sync(&mut programmed, &mut state);
    // The other chains look the same.
    let shown: Vec<&str> = script
        .lines()
        .filter(|line| {
            !line.contains(" kube-proxy service-") && !line.contains(" kube-proxy nodeport-")
                || line.contains("-2 ")
                || line.ends_with("-2")
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn more_endpoints_than_there_are_chains_for_make_the_table_anew() {
    let mut state = State::new("here");
    service(
        &mut state,
        "web",
        json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}),
    );
    let mut programmed = Programmed::new(Family::V4, options());
    sync(&mut programmed, &mut state);
    let addresses: Vec<String> = (1..=17).map(|n| format!("10.1.0.{n}")).collect();
    let many: Vec<_> = addresses
        .iter()
        .map(|a| (a.as_str(), "here", true))
        .collect();
    slice(&mut state, "web", &many);
    let script = sync(&mut programmed, &mut state);
    assert!(
        script.starts_with("add table ip kube-proxy\ndelete table"),
        "{script}"
    );
    assert!(
        script.contains("add chain ip kube-proxy service-32\n"),
        "{script}"
    );
    slice(&mut state, "web", &many[..16]);
    assert!(sync(&mut programmed, &mut state).starts_with("delete element"));
}

#[test]
fn a_change_is_told_alone() {
    let mut state = State::new("here");
    service(
        &mut state,
        "web",
        json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}),
    );
    slice(
        &mut state,
        "web",
        &[("10.1.0.1", "here", true), ("10.1.1.1", "there", true)],
    );
    service(
        &mut state,
        "other",
        json!({"clusterIP": "10.0.0.3", "ports": [{"port": 80}]}),
    );
    slice(&mut state, "other", &[("10.1.0.1", "here", true)]);
    let mut programmed = Programmed::new(Family::V4, options());
    sync(&mut programmed, &mut state);

    // Nothing changed, nothing said.
    assert_eq!(sync(&mut programmed, &mut state), "");

    // The pod that both services share leaves one of them: its hairpin stays.
    slice(&mut state, "web", &[("10.1.1.1", "there", true)]);
    insta::assert_snapshot!(sync(&mut programmed, &mut state), @r"
    delete element ip kube-proxy endpoints { 10.0.0.1 . tcp . 80 . 0 : 10.1.0.1 . 8080, 10.0.0.1 . tcp . 80 . 1 : 10.1.1.1 . 8080 }
    delete element ip kube-proxy services { 10.0.0.1 . tcp . 80 : goto service-2 }
    add element ip kube-proxy endpoints { 10.0.0.1 . tcp . 80 . 0 : 10.1.1.1 . 8080 }
    add element ip kube-proxy services { 10.0.0.1 . tcp . 80 : goto service-1 }
    ");

    // No endpoint is left: refused instead.
    slice(&mut state, "web", &[]);
    insta::assert_snapshot!(sync(&mut programmed, &mut state), @r"
    delete element ip kube-proxy endpoints { 10.0.0.1 . tcp . 80 . 0 : 10.1.1.1 . 8080 }
    delete element ip kube-proxy services { 10.0.0.1 . tcp . 80 : goto service-1 }
    add element ip kube-proxy no-endpoints { 10.0.0.1 . tcp . 80 : goto reject-chain }
    ");
}

#[test]
fn a_local_policy_keeps_to_this_nodes_endpoints() {
    let mut state = State::new("here");
    let spec = json!({
        "type": "NodePort", "clusterIP": "10.0.0.1", "externalTrafficPolicy": "Local",
        "ports": [{"port": 80, "nodePort": 30080}],
    });
    service(&mut state, "web", spec);
    slice(&mut state, "web", &[("10.1.1.1", "there", true)]);
    let mut programmed = Programmed::new(Family::V4, options());
    let script = sync(&mut programmed, &mut state);
    assert!(
        script.contains("no-endpoint-nodeports { tcp . 30080 : drop }"),
        "{script}"
    );
    assert!(
        script.contains("services { 10.0.0.1 . tcp . 80 : goto service-1 }"),
        "{script}"
    );
    slice(
        &mut state,
        "web",
        &[("10.1.1.1", "there", true), ("10.1.0.1", "here", true)],
    );
    let script = sync(&mut programmed, &mut state);
    assert!(
        script.contains("nodeports { tcp . 30080 : goto nodeport-1 }"),
        "{script}"
    );
    assert!(
        script.contains("nodeport-endpoints { tcp . 30080 . 0 : 10.1.0.1 . 8080 }"),
        "{script}"
    );
}

#[test]
fn after_a_failure_the_table_is_made_anew() {
    let mut state = State::new("here");
    service(
        &mut state,
        "web",
        json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}),
    );
    let mut programmed = Programmed::new(Family::V4, options());
    let first = sync(&mut programmed, &mut state);
    programmed.failed();
    assert_eq!(sync(&mut programmed, &mut state), first);
}
