use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, endpoints, plan};
use super::topology::{Given, Zones};
use crate::kinds::Pod;

fn service(spec: Value) -> Service {
    let mut value = json!({
        "metadata": {"name": "web", "namespace": "d", "uid": "svc", "labels": {"a": "b"}},
        "spec": {"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"},
                 "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"}]},
    });
    for (k, v) in spec.as_object().unwrap() {
        value["spec"][k] = v.clone();
    }
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, ip: &str, ready: bool) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "d", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [
            {"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                   "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

fn pods(values: impl IntoIterator<Item = Value>) -> Vec<Arc<Pod>> {
    values
        .into_iter()
        .map(|v| Arc::new(serde_json::from_value(v).unwrap()))
        .collect()
}

fn run(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>], max: usize) -> Plan {
    let (zones, given) = (Zones::default(), Given::default());
    run_in(&zones, &given, service, pods, slices, max)
}

/// Nodes `n1`, `n2` ... are in zones `z1`, `z2` ...; what has no number is not there.
fn run_in(
    zones: &Zones,
    given: &Given,
    service: &Service,
    pods: &[Arc<Pod>],
    slices: &[Arc<EndpointSlice>],
    max: usize,
) -> Plan {
    plan(&Observed {
        service,
        pods,
        zone_of: &|node| node.strip_prefix('n').map(|n| Some(format!("z{n}"))),
        slices,
        trigger_time: Some("2024-01-01T00:00:00Z".parse().unwrap()),
        max_per_slice: max,
        zones,
        given,
    })
}

/// The slices after the plan has been carried out.
fn apply(plan: Plan, slices: &[Arc<EndpointSlice>]) -> Vec<Arc<EndpointSlice>> {
    let kept = slices.iter().filter(|s| {
        let name = s.metadata.name.clone().unwrap();
        !plan.delete.contains(&name)
            && !plan
                .update
                .iter()
                .any(|u| u.metadata.name.as_deref() == Some(&name))
    });
    let mut out: Vec<_> = kept.cloned().collect();
    out.extend(plan.update.into_iter().map(Arc::new));
    for (i, mut slice) in plan.create.into_iter().enumerate() {
        slice.metadata.name = Some(format!(
            "{}{}-{i}",
            slice.metadata.generate_name.clone().unwrap(),
            out.len()
        ));
        out.push(Arc::new(slice));
    }
    out
}

fn writes(plan: &Plan) -> (usize, usize, usize) {
    (plan.create.len(), plan.update.len(), plan.delete.len())
}

#[test]
fn a_slice_in_full() {
    let plan = run(
        &service(json!({})),
        &pods([pod("p1", "10.1.0.1", true)]),
        &[],
        100,
    );
    assert_eq!(writes(&plan), (1, 0, 0));
    assert_eq!(
        serde_json::to_value(&plan.create[0]).unwrap(),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "generateName": "web-", "namespace": "d",
                "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2024-01-01T00:00:00Z"},
                "labels": {"a": "b", "kubernetes.io/service-name": "web",
                           "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "svc",
                                     "controller": true, "blockOwnerDeletion": true}],
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{
                "addresses": ["10.1.0.1"], "nodeName": "n1", "zone": "z1",
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "d", "name": "p1", "uid": "p1"},
            }],
        })
    );
}

#[test]
fn no_pods_leave_a_placeholder_that_is_filled_later() {
    let svc = service(json!({}));
    let slices = apply(run(&svc, &[], &[], 100), &[]);
    assert_eq!((slices.len(), endpoints(&slices[0]).len()), (1, 0));
    assert_eq!(writes(&run(&svc, &[], &slices, 100)), (0, 0, 0));
    let plan = run(&svc, &pods([pod("p1", "10.1.0.1", false)]), &slices, 100);
    assert_eq!(writes(&plan), (0, 1, 0));
    assert_eq!(plan.update[0].metadata.name, slices[0].metadata.name);
    assert_eq!(
        endpoints(&plan.update[0])[0]
            .conditions
            .as_ref()
            .unwrap()
            .ready,
        Some(false)
    );
}

#[test]
fn changes_touch_as_few_slices_as_possible() {
    let svc = service(json!({}));
    let all =
        |n: usize| pods((0..n).map(|i| pod(&format!("p{i:03}"), &format!("10.1.0.{i}"), true)));
    let slices = apply(run(&svc, &all(25), &[], 10), &[]);
    assert_eq!(slices.iter().map(|s| endpoints(s).len()).sum::<usize>(), 25);
    assert_eq!(slices.len(), 3);
    assert_eq!(writes(&run(&svc, &all(25), &slices, 10)), (0, 0, 0));
    // Three more fit the slice of five.
    let plan = run(&svc, &all(28), &slices, 10);
    assert_eq!(writes(&plan), (0, 1, 0));
    assert_eq!(endpoints(&plan.update[0]).len(), 8);
    // Seven more do not fit any: a new slice, rather than two writes.
    assert_eq!(writes(&run(&svc, &all(32), &slices, 10)), (1, 0, 0));
    // One endpoint changes.
    let mut changed = all(25);
    changed[3] = pods([pod("p003", "10.1.0.3", false)]).remove(0);
    assert_eq!(writes(&run(&svc, &changed, &slices, 10)), (0, 1, 0));
    let fewer = run(&svc, &all(1), &slices, 10);
    assert_eq!(writes(&fewer), (0, 1, 2));
    assert_eq!(apply(fewer, &slices).len(), 1);
}

#[test]
fn labels_of_the_service_follow_and_others_are_kept_out() {
    let mut svc = service(json!({"clusterIP": "None"}));
    let pods = pods([pod("p1", "10.1.0.1", true)]);
    let slices = apply(run(&svc, &pods, &[], 100), &[]);
    let labels = slices[0].metadata.labels.as_ref().unwrap();
    assert_eq!(labels["service.kubernetes.io/headless"], "");
    svc.metadata.labels = Some([("x".to_owned(), "y".to_owned())].into());
    let plan = run(&svc, &pods, &slices, 100);
    assert_eq!(writes(&plan), (0, 1, 0));
    assert!(
        !plan.update[0]
            .metadata
            .labels
            .as_ref()
            .unwrap()
            .contains_key("a")
    );
}

#[test]
fn ports_differ_by_pod() {
    let svc = service(json!({}));
    let mut other = pod("p2", "10.1.0.2", true);
    other["spec"]["containers"][0]["ports"][0]["containerPort"] = json!(9090);
    let plan = run(&svc, &pods([pod("p1", "10.1.0.1", true), other]), &[], 100);
    let ports: Vec<_> = plan
        .create
        .iter()
        .map(|s| s.ports.as_ref().unwrap()[0].port.unwrap())
        .collect();
    assert_eq!(ports, [8080, 9090]);
}

#[test]
fn families_and_terminating_pods() {
    let svc = service(json!({"ipFamilies": ["IPv4", "IPv6"], "publishNotReadyAddresses": true}));
    let mut p = pod("p1", "10.1.0.1", false);
    p["status"]["podIPs"] = json!([{"ip": "10.1.0.1"}, {"ip": "fd00:0::1"}]);
    p["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
    let plan = run(&svc, &pods([p]), &[], 100);
    let got: Vec<_> = plan
        .create
        .iter()
        .map(|s| {
            (
                s.address_type.as_str(),
                endpoints(s)[0].addresses[0].as_str(),
            )
        })
        .collect();
    assert_eq!(got, [("IPv4", "10.1.0.1"), ("IPv6", "fd00::1")]);
    let conditions = endpoints(&plan.create[0])[0].conditions.clone().unwrap();
    assert_eq!(
        (conditions.ready, conditions.serving, conditions.terminating),
        (Some(true), Some(false), Some(true))
    );
}

#[test]
fn a_pod_of_an_unknown_node_is_left_out_and_said() {
    let mut p = pod("p1", "10.1.0.1", true);
    p["spec"]["nodeName"] = json!("gone");
    let plan = run(&service(json!({})), &pods([p]), &[], 100);
    assert_eq!(
        plan.errors,
        ["skipping Pod p1 for Service d/web: Node gone Not Found"]
    );
    assert!(endpoints(&plan.create[0]).is_empty());
}

#[test]
fn hints_for_traffic_distribution() {
    let pods = pods([pod("p1", "10.1.0.1", true), pod("p2", "10.1.0.2", false)]);
    let plain = apply(run(&service(json!({})), &pods, &[], 100), &[]);
    let near = service(json!({"trafficDistribution": "PreferSameNode"}));
    let plan = run(&near, &pods, &plain, 100);
    assert_eq!(writes(&plan), (0, 1, 0));
    let hints = serde_json::to_value(&endpoints(&plan.update[0])[0].hints).unwrap();
    assert_eq!(
        hints,
        json!({"forZones": [{"name": "z1"}], "forNodes": [{"name": "n1"}]})
    );
    assert_eq!(endpoints(&plan.update[0])[1].hints, None);
    let hinted = apply(plan, &plain);
    assert_eq!(writes(&run(&near, &pods, &hinted, 100)), (0, 0, 0));
    assert_eq!(
        writes(&run(&service(json!({})), &pods, &hinted, 100)),
        (0, 1, 0)
    );
}

#[test]
fn slices_of_an_earlier_service_are_replaced() {
    let mut old = service(json!({}));
    old.metadata.uid = Some("old".into());
    let pods = pods([pod("p1", "10.1.0.1", true)]);
    let slices = apply(run(&old, &pods, &[], 100), &[]);
    assert_eq!(
        writes(&run(&service(json!({})), &pods, &slices, 100)),
        (1, 0, 1)
    );
}

/// Zones `z1`, `z2` ... with as many CPUs each.
fn zones(count: u8) -> Zones {
    let part = 1.0 / f64::from(count);
    Zones::Known((1..=count).map(|n| (format!("z{n}"), part)).collect())
}

/// Ready pods `p0`, `p1` ... on nodes of these numbers.
fn pods_on(nodes: &[u8]) -> Vec<Arc<Pod>> {
    pods(nodes.iter().enumerate().map(|(i, node)| {
        let mut pod = pod(&format!("p{i}"), &format!("10.1.0.{i}"), true);
        pod["spec"]["nodeName"] = format!("n{node}").into();
        pod
    }))
}

fn annotated(key: &str, mode: &str, spec: Value) -> Service {
    let mut svc = service(spec);
    svc.metadata.annotations = Some([(key.to_owned(), mode.to_owned())].into());
    svc
}

fn auto(spec: Value) -> Service {
    annotated("service.kubernetes.io/topology-mode", "Auto", spec)
}

/// The zone that each endpoint is meant for.
fn meant(slice: &EndpointSlice) -> Vec<Option<String>> {
    let zone = |e: &k8s_openapi::api::discovery::v1::Endpoint| {
        let zones = e.hints.clone()?.for_zones?;
        zones.first().map(|zone| zone.name.clone())
    };
    endpoints(slice).iter().map(zone).collect()
}

fn zs(numbers: &[u8]) -> Vec<Option<String>> {
    numbers.iter().map(|n| Some(format!("z{n}"))).collect()
}

fn told(plan: &Plan) -> Vec<(&'static str, &str)> {
    let notices = plan.notices.iter();
    notices.map(|n| (n.reason(), &*n.message)).collect()
}

const ENABLED: (&str, &str) = (
    "TopologyAwareHintsEnabled",
    "Topology Aware Hints has been enabled, addressType: IPv4",
);

#[test]
fn zones_share_endpoints_by_annotation() {
    let svc = auto(json!({}));
    let all = pods_on(&[1, 2, 1, 2, 1, 2]);
    let (three, two) = (zones(3), zones(2));
    let plan = run_in(&three, &Given::default(), &svc, &all, &[], 100);
    assert_eq!(meant(&plan.create[0]), zs(&[3, 3, 1, 2, 1, 2]));
    assert_eq!(told(&plan), [ENABLED]);
    let given = plan.given.clone();
    let slices = apply(plan, &[]);
    // They stay, and nobody is told again.
    let plan = run_in(&three, &given, &svc, &all, &slices, 100);
    assert_eq!((writes(&plan), told(&plan)), ((0, 0, 0), vec![]));
    assert_eq!(plan.given, given);
    // A zone goes.
    let plan = run_in(&two, &given, &svc, &all, &slices, 100);
    assert_eq!(meant(&plan.update[0]), zs(&[1, 2, 1, 2, 1, 2]));
    assert_eq!(told(&plan), []);
    // Not all in a slice that stays can be given away.
    let (given, slices) = (plan.given.clone(), apply(plan, &slices));
    let more = pods_on(&[1, 2, 1, 2, 1, 2, 1, 1, 1]);
    let plan = run_in(&two, &given, &svc, &more, &slices, 6);
    assert_eq!(writes(&plan), (1, 0, 0));
    assert_eq!(meant(&plan.create[0]), zs(&[2, 1, 1]));
}

#[test]
fn hints_go_when_there_are_too_few_endpoints() {
    let svc = auto(json!({}));
    let mut all = pods_on(&[1, 2, 3]);
    let three = zones(3);
    let plan = run_in(&three, &Given::default(), &svc, &all, &[], 100);
    assert_eq!(meant(&plan.create[0]), zs(&[1, 2, 3]));
    let (given, slices) = (plan.given.clone(), apply(plan, &[]));
    let mut unready = pod("p2", "10.1.0.2", false);
    unready["spec"]["nodeName"] = "n3".into();
    all[2] = pods([unready]).remove(0);
    let plan = run_in(&three, &given, &svc, &all, &slices, 100);
    assert_eq!(meant(&plan.update[0]), [None, None, None]);
    let why = "Insufficient number of endpoints (2 endpoints, 3 zones), addressType: IPv4";
    assert_eq!(told(&plan), [("TopologyAwareHintsDisabled", why)]);
    assert_eq!(plan.given, Given::default());
    // It is told each time.
    let slices = apply(plan, &slices);
    let plan = run_in(&three, &Given::default(), &svc, &all, &slices, 100);
    assert_eq!((writes(&plan), told(&plan).len()), ((0, 0, 0), 1));
    // With one zone less there are enough.
    let plan = run_in(&zones(2), &Given::default(), &svc, &all, &slices, 100);
    let mut expected = zs(&[1, 2]);
    expected.push(None);
    assert_eq!(meant(&plan.update[0]), expected);
    assert_eq!(told(&plan), [ENABLED]);
}

#[test]
fn an_endpoint_without_a_zone_spoils_it() {
    let mut all = pods_on(&[1, 2, 1]);
    let mut nowhere = pod("p3", "10.1.0.3", true);
    nowhere["spec"]["nodeName"] = "gone".into();
    all.extend(pods([nowhere]));
    let svc = auto(json!({"publishNotReadyAddresses": true}));
    let plan = run_in(&zones(2), &Given::default(), &svc, &all, &[], 100);
    assert_eq!(meant(&plan.create[0]), [None, None, None, None]);
    let why = "One or more endpoints do not have a zone specified, addressType: IPv4";
    assert_eq!(told(&plan), [("TopologyAwareHintsDisabled", why)]);
}

#[test]
fn the_annotation_comes_before_the_distribution() {
    let near = json!({"trafficDistribution": "PreferClose"});
    let all = pods_on(&[1, 2]);
    let run = |zones: &Zones, given: &Given, svc: &Service, slices: &[Arc<EndpointSlice>]| {
        run_in(zones, given, svc, &all, slices, 100)
    };
    let plan = run(&zones(3), &Given::default(), &auto(near.clone()), &[]);
    assert_eq!(meant(&plan.create[0]), [None, None]);
    let plan = run(&zones(2), &Given::default(), &auto(near.clone()), &[]);
    let (given, slices) = (plan.given.clone(), apply(plan, &[]));
    let why = "Topology Aware Hints has been disabled, addressType: IPv4";
    let disabled = [("TopologyAwareHintsDisabled", why)];
    // Those hints are right without it, too.
    let plan = run(&zones(2), &given, &service(near), &slices);
    assert_eq!((writes(&plan), told(&plan)), ((0, 0, 0), disabled.to_vec()));
    assert_eq!(plan.given, Given::default());
    let plan = run(&zones(2), &given, &service(json!({})), &slices);
    assert_eq!(meant(&plan.update[0]), [None, None]);
    assert_eq!(told(&plan), disabled);
}

#[test]
fn which_annotation_asks_for_it() {
    let all = pods_on(&[1, 2]);
    let old = "service.kubernetes.io/topology-aware-hints";
    let new = "service.kubernetes.io/topology-mode";
    for (key, mode, asks) in [
        (new, "Auto", true),
        (new, "auto", true),
        (new, "AUTO", false),
        (new, "Disabled", false),
        (old, "auto", true),
        (old, "Auto", true),
        ("service.kubernetes.io/topology", "Auto", false),
    ] {
        let svc = annotated(key, mode, json!({}));
        let plan = run_in(&zones(2), &Given::default(), &svc, &all, &[], 100);
        assert_eq!(!plan.notices.is_empty(), asks, "{key}: {mode}");
    }
    let mut both = annotated(new, "Auto", json!({}));
    let annotations = both.metadata.annotations.as_mut().unwrap();
    annotations.insert(old.to_owned(), "Disabled".to_owned());
    let plan = run_in(&zones(2), &Given::default(), &both, &all, &[], 100);
    assert!(plan.notices.is_empty());
}

#[test]
fn families_are_shared_out_apart() {
    let both = |i: u8, node: &str, second: bool| {
        let mut pod = pod(&format!("p{i}"), &format!("10.1.0.{i}"), true);
        pod["spec"]["nodeName"] = node.into();
        if second {
            let ips = [format!("10.1.0.{i}"), format!("fd00::{i}")];
            pod["status"]["podIPs"] = ips.iter().map(|ip| json!({"ip": ip})).collect();
        }
        pod
    };
    let all = pods([both(1, "n1", true), both(2, "n2", true)]);
    let two = json!({"ipFamilies": ["IPv4", "IPv6"]});
    let plan = run_in(
        &zones(2),
        &Given::default(),
        &auto(two.clone()),
        &all,
        &[],
        100,
    );
    assert_eq!(told(&plan), [ENABLED]);
    let (given, slices) = (plan.given.clone(), apply(plan, &[]));
    // Only one family goes on: its hints stay, and that is told.
    let plan = run_in(&zones(2), &given, &auto(json!({})), &all, &slices, 100);
    assert_eq!((writes(&plan), told(&plan)), ((0, 0, 1), vec![ENABLED]));
    // One has too few.
    let all = pods([both(1, "n1", true), both(2, "n2", false)]);
    let plan = run_in(&zones(2), &given, &auto(two), &all, &slices, 100);
    let why = "Insufficient number of endpoints (1 endpoints, 2 zones), addressType: IPv6";
    assert_eq!(told(&plan), [("TopologyAwareHintsDisabled", why)]);
    assert_eq!(meant(&plan.update[0]), [None]);
}
