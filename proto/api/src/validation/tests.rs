use serde_json::{Value, json};

fn messages(errors: meta::field::ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

fn pod() -> Value {
    let mut pod = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    });
    crate::defaults::apply(schema::kind("", "v1", "Pod").unwrap(), &mut pod);
    pod
}

fn create(kind: &str, object: &Value) -> Vec<String> {
    let group = if kind == "Deployment" { "apps" } else { "" };
    messages(super::create(group, kind, true, object))
}

#[test]
fn a_defaulted_pod_is_valid() {
    assert_eq!(create("Pod", &pod()), [""; 0]);
}

#[test]
fn faults_are_told_with_their_paths() {
    let mut pod = pod();
    pod["metadata"]["name"] = json!("Web_1");
    pod["spec"]["containers"][0]["name"] = json!("");
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    pod["spec"]["containers"][0]["imagePullPolicy"] = json!("Sometimes");
    let found = create("Pod", &pod);
    assert!(
        found[0]
            .starts_with("metadata.name: Invalid value: \"Web_1\": a lowercase RFC 1123 subdomain"),
        "{found:?}"
    );
    assert!(
        found.contains(&"spec.containers[0].name: Required value".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&"spec.containers[0].volumeMounts[0].name: Not found: \"data\"".to_owned()),
        "{found:?}"
    );
    assert!(
        found.contains(&"spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"".to_owned()),
        "{found:?}"
    );
}

#[test]
fn requests_stay_below_limits() {
    let mut pod = pod();
    pod["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}});
    assert_eq!(
        create("Pod", &pod),
        [
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1500m"
        ]
    );
}

#[test]
fn a_pods_image_may_change_and_its_node_name_may_not() {
    let old = pod();
    let mut new = old.clone();
    new["spec"]["containers"][0]["image"] = json!("web:2");
    assert_eq!(messages(super::update("", "Pod", &new, &old)), [""; 0]);
    new["spec"]["nodeName"] = json!("other");
    let found = messages(super::update("", "Pod", &new, &old));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("spec: Forbidden: pod updates may not change fields other than"));
    assert!(found[0].ends_with("changed: spec.nodeName"));
}

#[test]
fn a_deployments_selector_selects_its_template() {
    let mut deployment = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "other"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    });
    crate::defaults::apply(
        schema::kind("apps", "v1", "Deployment").unwrap(),
        &mut deployment,
    );
    assert_eq!(
        create("Deployment", &deployment),
        [
            "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`"
        ]
    );
    deployment["spec"]["template"]["metadata"]["labels"]["app"] = json!("web");
    assert_eq!(create("Deployment", &deployment), [""; 0]);
}

#[test]
fn a_service_keeps_its_address() {
    let mut old = json!({
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}]},
    });
    crate::defaults::apply(schema::kind("", "v1", "Service").unwrap(), &mut old);
    assert_eq!(create("Service", &old), [""; 0]);
    let mut new = old.clone();
    new["spec"]["clusterIP"] = json!("10.0.0.2");
    new["spec"]["clusterIPs"] = json!(["10.0.0.2"]);
    assert_eq!(
        messages(super::update("", "Service", &new, &old)),
        ["spec.clusterIPs[0]: Invalid value: \"10.0.0.2\": may not change once set"]
    );
}

#[test]
fn an_immutable_config_map_stays_as_it_is() {
    let old =
        json!({"metadata": {"name": "a", "namespace": "b"}, "immutable": true, "data": {"k": "1"}});
    let mut new = old.clone();
    new["data"]["k"] = json!("2");
    assert_eq!(
        messages(super::update("", "ConfigMap", &new, &old)),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
}
