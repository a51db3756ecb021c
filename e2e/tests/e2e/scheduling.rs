//! Where pods go, and what is said of those that go nowhere.

use e2e::{Cluster, Namespace, until};
use serde_json::{Value, json};

fn apply(namespace: &Namespace, name: &str, spec: &str) {
    let containers = "  containers:\n  - {name: main, image: 'ferrokube.local/demo:1', command: [sleep, '100000']}\n";
    let containers = if spec.contains("containers:") {
        ""
    } else {
        containers
    };
    let head = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n");
    namespace.apply(&format!(
        "{head}spec:\n  terminationGracePeriodSeconds: 1\n{containers}{spec}"
    ));
}

/// Waits until the pod is told that it fits nowhere, and returns why.
fn unschedulable(namespace: &Namespace, pod: &str) -> String {
    let condition = until(&format!("{pod} to be unschedulable"), || {
        let pod = namespace.get(&format!("pod {pod}"))?;
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let condition = conditions
            .into_iter()
            .find(|c| c["type"] == "PodScheduled" && c["reason"] == "Unschedulable");
        condition.ok_or_else(|| pod["status"].to_string())
    });
    condition["message"].as_str().unwrap_or_default().to_owned()
}

fn node_of(namespace: &Namespace, pod: &str) -> String {
    until(&format!("{pod} to be scheduled"), || {
        let pod = namespace.get(&format!("pod {pod}"))?;
        pod["spec"]["nodeName"]
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| pod["status"].to_string())
    })
}

#[test]
fn node_selectors_and_affinity_choose_the_node() {
    let namespace = Namespace::new("select");
    for node in Cluster::get().nodes() {
        apply(
            &namespace,
            &format!("by-label-{node}"),
            &format!("  nodeSelector: {{kubernetes.io/hostname: {node}}}\n"),
        );
        assert_eq!(node_of(&namespace, &format!("by-label-{node}")), node);
        apply(
            &namespace,
            &format!("by-affinity-{node}"),
            &format!(
                "  affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: \
                 [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]}}}}}}\n"
            ),
        );
        assert_eq!(node_of(&namespace, &format!("by-affinity-{node}")), node);
    }
}

#[test]
fn a_selector_that_nothing_matches_is_told() {
    let namespace = Namespace::new("nomatch");
    apply(
        &namespace,
        "nowhere",
        "  nodeSelector: {no-such-label: here}\n",
    );
    let nodes = Cluster::get().nodes().len();
    let message = unschedulable(&namespace, "nowhere");
    let expected = format!(
        "0/{nodes} nodes are available: {nodes} node(s) didn't match Pod's node affinity/selector."
    );
    assert!(message.starts_with(&expected), "{message}");
    let event: Value = until("an event that says the same", || {
        let events = namespace.get("events")?;
        let mut events = events["items"]
            .as_array()
            .cloned()
            .unwrap_or_default()
            .into_iter();
        events
            .find(|event| event["reason"] == "FailedScheduling")
            .ok_or_else(|| "no FailedScheduling".to_owned())
    });
    assert_eq!(
        (&event["message"], &event["type"]),
        (&json!(message), &json!("Warning"))
    );
}

#[test]
fn what_does_not_fit_waits_for_room() {
    let namespace = Namespace::new("room");
    let nodes = Cluster::get().nodes();
    apply(
        &namespace,
        "huge",
        "  containers:\n  - {name: main, image: 'ferrokube.local/demo:1', resources: {requests: {cpu: '1000'}}}\n",
    );
    let message = unschedulable(&namespace, "huge");
    assert!(
        message.starts_with(&format!(
            "0/{0} nodes are available: {0} Insufficient cpu.",
            nodes.len()
        )),
        "{message}"
    );

    // Two pods that want the same port of one node: the second waits for the first.
    let port = "  nodeSelector: {kubernetes.io/hostname: node1}\n  containers:\n  - name: main\n    image: \
                ferrokube.local/demo:1\n    ports: [{containerPort: 8080, hostPort: 18080}]\n";
    apply(&namespace, "first", port);
    namespace.await_ready("first");
    apply(&namespace, "second", port);
    let message = unschedulable(&namespace, "second");
    assert!(
        message.contains("1 node(s) didn't have free ports for the requested pod ports"),
        "{message}"
    );
    namespace.kubectl("delete pod first").ok();
    assert_eq!(node_of(&namespace, "second"), "node1");
}

#[test]
fn gates_hold_a_pod_back() {
    let namespace = Namespace::new("gates");
    apply(
        &namespace,
        "gated",
        "  schedulingGates: [{name: example.com/hold}]\n",
    );
    until("the pod to be held", || {
        let pod = namespace.get("pod gated")?;
        let reason = pod.pointer("/status/conditions/0/reason");
        if reason == Some(&json!("SchedulingGated")) {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        }
    });
    assert!(
        namespace
            .kubectl("get pod gated")
            .ok()
            .contains("SchedulingGated")
    );
    namespace
        .kubectl("patch pod gated --type=json -p")
        .args([r#"[{"op":"remove","path":"/spec/schedulingGates"}]"#])
        .ok();
    namespace.await_ready("gated");
}
