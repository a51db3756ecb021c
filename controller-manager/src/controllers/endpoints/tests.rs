use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::plan::{Plan, plan};
use crate::kinds::Pod;

fn service(ports: Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "d", "labels": {"a": "b"}},
        "spec": {"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": {"app": "web"}, "ports": ports},
    }))
    .unwrap()
}

fn pod(n: usize, ready: bool) -> Arc<Pod> {
    let ip = format!("10.1.{}.{}", n / 250, n % 250);
    let value = json!({
        "metadata": {"name": format!("p{n}"), "namespace": "d", "uid": format!("u{n}")},
        "spec": {"nodeName": "n1"},
        "status": {"podIP": ip, "podIPs": [{"ip": ip}],
                   "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    });
    Arc::new(serde_json::from_value(value).unwrap())
}

#[test]
fn ready_and_not_ready_share_a_subset() {
    let svc = service(json!([{"name": "b", "port": 81, "targetPort": 8081},
                             {"name": "a", "port": 80, "targetPort": 8080}]));
    let Plan::Create(made) = plan(&svc, &[pod(2, false), pod(1, true)], None, None) else {
        panic!()
    };
    let mut value = serde_json::to_value(&made).unwrap();
    let address = |n: usize| {
        json!({"ip": format!("10.1.0.{n}"), "nodeName": "n1",
               "targetRef": {"kind": "Pod", "namespace": "d", "name": format!("p{n}"), "uid": format!("u{n}")}})
    };
    assert_eq!(
        value["subsets"].take(),
        json!([{
            "addresses": [address(1)], "notReadyAddresses": [address(2)],
            "ports": [{"name": "a", "port": 8080, "protocol": "TCP"}, {"name": "b", "port": 8081, "protocol": "TCP"}],
        }])
    );
    assert_eq!(
        value["metadata"]["labels"],
        json!({"a": "b", "endpoints.kubernetes.io/managed-by": "endpoint-controller"})
    );
    assert_eq!(
        plan(&svc, &[pod(1, true), pod(2, false)], Some(&made), None),
        Plan::Nothing
    );
    assert!(matches!(
        plan(&svc, &[pod(1, true)], Some(&made), None),
        Plan::Update(_)
    ));
}

#[test]
fn too_many_are_cut_off() {
    let svc = service(json!([{"port": 80, "targetPort": 80}]));
    let pods: Vec<_> = (0..1200).map(|n| pod(n, n % 4 != 0)).collect();
    let Plan::Create(made) = plan(&svc, &pods, None, None) else {
        panic!()
    };
    let subset = &made.subsets.as_ref().unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap().len(), 900);
    assert_eq!(subset.not_ready_addresses.as_ref().unwrap().len(), 100);
    let annotations = made.metadata.annotations.as_ref().unwrap();
    assert_eq!(
        annotations["endpoints.kubernetes.io/over-capacity"],
        "truncated"
    );
}
