use serde_json::{Value, json};

use super::{Row, format, of_kind};

fn cells(group: &str, kind: &str, object: Value) -> Vec<Value> {
    let row = Row {
        object: &object,
        now: "2026-01-02T00:00:00Z".parse().unwrap(),
    };
    of_kind(group, kind)
        .iter()
        .map(|column| (column.cell)(&row))
        .collect()
}

#[test]
fn ages_get_coarser() {
    let text = |seconds| format::duration(jiff::SignedDuration::from_secs(seconds));
    assert_eq!(text(0), "0s");
    assert_eq!(text(119), "119s");
    assert_eq!(text(120), "2m");
    assert_eq!(text(9 * 60 + 5), "9m5s");
    assert_eq!(text(179 * 60), "179m");
    assert_eq!(text(3 * 3600 + 60), "3h1m");
    assert_eq!(text(47 * 3600), "47h");
    assert_eq!(text(3 * 86_400 + 3600), "3d1h");
    assert_eq!(text(100 * 86_400), "100d");
    assert_eq!(text(3 * 365 * 86_400), "3y");
    assert_eq!(text(-5), "<invalid>");
}

#[test]
fn of_endpoints_only_those_that_are_shown_are_made() {
    let many = |n: usize, item: fn(usize) -> Value| (0..n).map(item).collect::<Vec<_>>();
    let shown = |subsets: Value| cells("", "Endpoints", json!({"subsets": subsets}))[1].clone();
    let addresses = many(
        20_000,
        |i| json!({"ip": format!("10.1.{}.{}", i / 250, i % 250)}),
    );
    let ports = many(5_000, |i| json!({"port": i + 1}));
    assert_eq!(
        shown(json!([{"addresses": addresses, "ports": ports}])),
        "10.1.0.0:1,10.1.0.1:1,10.1.0.2:1 + 99999997 more..."
    );
    let two = json!([{"addresses": [{"ip": "10.0.0.1"}]}, {"addresses": [{"ip": "fd00::1"}],
        "ports": [{"port": 7}]}]);
    assert_eq!(shown(two), "10.0.0.1,[fd00::1]:7");
    assert_eq!(
        shown(json!([{"notReadyAddresses": [{"ip": "10.0.0.1"}]}])),
        ""
    );
    assert_eq!(shown(json!([])), "<none>");
}

#[test]
fn a_pod_that_crashes_says_so() {
    let pod = json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "node1", "containers": [{"name": "a"}, {"name": "b"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.1.0.1"}], "containerStatuses": [
            {"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": "b", "ready": false, "restartCount": 3,
             "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T23:59:00Z"}}},
        ]},
    });
    assert_eq!(
        cells("", "Pod", pod),
        [
            "web",
            "1/2",
            "CrashLoopBackOff",
            "3 (60s ago)",
            "24h",
            "10.1.0.1",
            "node1",
            "<none>",
            "<none>"
        ]
    );
}

#[test]
fn an_init_container_holds_the_pod_up() {
    let pod = json!({
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]},
        "status": {"phase": "Pending", "initContainerStatuses": [
            {"name": "i", "restartCount": 0, "state": {"terminated": {"exitCode": 0}}},
            {"name": "j", "restartCount": 0, "state": {"waiting": {"reason": "PodInitializing"}}},
        ]},
    });
    assert_eq!(cells("", "Pod", pod)[..4], ["web", "0/1", "Init:1/2", "0"]);
}

#[test]
fn a_service_shows_its_addresses() {
    let service = json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T23:59:00Z"},
        "spec": {"type": "NodePort", "clusterIPs": ["10.0.0.1"], "selector": {"app": "web"},
                 "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]},
    });
    assert_eq!(
        cells("", "Service", service),
        [
            "web",
            "NodePort",
            "10.0.0.1",
            "<none>",
            "80:30080/TCP,53/UDP",
            "60s",
            "app=web"
        ]
    );
}

#[test]
fn a_deployment_shows_its_counts() {
    let deployment = json!({
        "metadata": {"name": "web", "creationTimestamp": "2026-01-01T23:59:00Z"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"spec": {"containers": [{"name": "c", "image": "i:1"}]}}},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2},
    });
    let expected = json!(["web", "2/3", 3, 2, "60s", "c", "i:1", "app=web"])
        .as_array()
        .unwrap()
        .clone();
    assert_eq!(cells("apps", "Deployment", deployment), expected);
}

#[test]
fn a_kind_without_columns_of_its_own_shows_when_it_was_made() {
    let role = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}});
    assert_eq!(
        cells("rbac.authorization.k8s.io", "Role", role),
        ["a", "2026-01-01T00:00:00Z"]
    );
}

#[test]
fn a_slices_ports_without_a_number_go_by_their_names() {
    let slice = json!({"ports": [{"port": 80}, {"name": "a"}, {"protocol": "TCP"}]});
    assert_eq!(
        cells("discovery.k8s.io", "EndpointSlice", slice)[2],
        "80,a,*"
    );
}

#[test]
fn a_policy_binding_shows_its_parameters() {
    let shown = |reference: Value| {
        let binding = json!({"spec": {"policyName": "p", "paramRef": reference}});
        let group = "admissionregistration.k8s.io";
        cells(group, "MutatingAdmissionPolicyBinding", binding)[2].clone()
    };
    assert_eq!(shown(Value::Null), "<unset>");
    assert_eq!(shown(json!({"name": "a"})), "*/a");
    assert_eq!(shown(json!({"name": "a", "namespace": "n"})), "n/a");
    let expression = json!({"key": "k", "operator": "In", "values": ["x", "y"]});
    assert_eq!(
        shown(json!({"selector": {"matchLabels": {"a": "b"}, "matchExpressions": [expression]}})),
        "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
    );
}
