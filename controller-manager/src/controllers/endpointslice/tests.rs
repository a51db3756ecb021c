use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::plan::{Observed, Plan, endpoints, plan};
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
    plan(&Observed {
        service,
        pods,
        zone_of: &|node| (node == "n1").then(|| Some("z1".to_owned())),
        slices,
        trigger_time: Some("2024-01-01T00:00:00Z".parse().unwrap()),
        max_per_slice: max,
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
