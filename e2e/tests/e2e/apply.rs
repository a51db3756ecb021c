//! Server-side apply: who owns which fields, and what becomes of what nobody applies any more.

use e2e::Namespace;
use serde_json::{Value, json};

/// The managers of an object with the operations by which they own fields, and where.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array();
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<String> = entries
        .into_iter()
        .flatten()
        .map(|e| {
            format!(
                "{} {} {}",
                text(e, "manager"),
                text(e, "operation"),
                text(e, "subresource")
            )
            .trim_end()
            .to_owned()
        })
        .collect();
    all.sort();
    all
}

/// What a manager owns.
fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array();
    entries
        .into_iter()
        .flatten()
        .find(|entry| entry["manager"] == manager)
        .map_or(&Value::Null, |entry| &entry["fieldsV1"])
}

/// An object with its managers, which kubectl hides by itself.
fn whole(namespace: &Namespace, object: &str) -> Value {
    let text = namespace
        .kubectl(&format!("get {object} -o json --show-managed-fields"))
        .ok();
    serde_json::from_str(&text).expect("an object")
}

fn apply(namespace: &Namespace, manager: &str, object: &Value) -> e2e::kubectl::Kubectl {
    namespace
        .kubectl("apply --server-side -f -")
        .args(["--field-manager", manager])
        .stdin(&object.to_string())
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
           "data": data})
}

#[test]
fn appliers_share_an_object() {
    let namespace = Namespace::new("apply");
    let one = config_map(json!({"colour": "green", "size": "1"}));
    apply(&namespace, "one", &one).ok();
    apply(&namespace, "two", &config_map(json!({"size": "1"}))).ok();
    let conflict = apply(&namespace, "two", &config_map(json!({"size": "2"}))).fails();
    assert!(
        conflict.contains("Apply failed with 1 conflict: conflict with \"one\": .data.size"),
        "{conflict}"
    );
    let forced = config_map(json!({"size": "2"}));
    apply(&namespace, "two", &forced)
        .args(["--force-conflicts"])
        .ok();
    // It is the second's alone now; the first gives up its colour.
    apply(&namespace, "one", &config_map(json!({}))).ok();
    let object = whole(&namespace, "configmap/settings");
    assert_eq!(object["data"], json!({"size": "2"}));
    assert_eq!(fields(&object, "two"), &json!({"f:data": {"f:size": {}}}));
    // Applying the same again changes nothing, not even the version.
    apply(&namespace, "two", &forced).ok();
    let again = whole(&namespace, "configmap/settings");
    assert_eq!(again["metadata"], object["metadata"]);
}

fn deployment(image: &str, replicas: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "paused": true,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": image}]}}}})
}

#[test]
fn every_way_of_writing_has_its_owner() {
    let namespace = Namespace::new("owners");
    apply(&namespace, "author", &deployment("a", json!(0))).ok();
    namespace.kubectl("scale deployment/web --replicas=1").ok();
    namespace.kubectl("label deployment/web tier=front").ok();
    // The controller reports.
    namespace.await_value("deployment/web", "/status/observedGeneration", 2);
    let object = whole(&namespace, "deployment/web");
    let managers = managers(&object);
    for expected in [
        "author Apply",
        "kubectl-label Update",
        "kubectl Update scale",
        "kube-controller-manager Update status",
    ] {
        assert!(managers.iter().any(|m| m == expected), "{managers:?}");
    }
    assert_eq!(object["spec"]["replicas"], 1);
    assert!(
        fields(&object, "author")["f:spec"]
            .get("f:replicas")
            .is_none()
    );
    let conflict = apply(&namespace, "author", &deployment("a", json!(0))).fails();
    assert!(
        conflict.contains(
            "conflict with \"kubectl\" with subresource \"scale\" using apps/v1: .spec.replicas"
        ),
        "{conflict}"
    );
    // What is not applied is not fought for.
    apply(&namespace, "author", &deployment("b", Value::Null)).fails();
    let mut silent = deployment("b", json!(0));
    silent["spec"].as_object_mut().unwrap().remove("replicas");
    apply(&namespace, "author", &silent).ok();
    let object = whole(&namespace, "deployment/web");
    assert_eq!(object["spec"]["replicas"], 1);
    assert_eq!(
        object["spec"]["template"]["spec"]["containers"][0]["image"],
        "b"
    );
}

#[test]
fn client_side_apply_becomes_server_side_apply() {
    let namespace = Namespace::new("migration");
    namespace.apply(&deployment("a", json!(0)).to_string());
    namespace
        .kubectl("apply --server-side -f -")
        .stdin(&deployment("b", json!(0)).to_string())
        .ok();
    let object = whole(&namespace, "deployment/web");
    let containers = &object["spec"]["template"]["spec"]["containers"];
    assert_eq!(containers[0]["image"], "b");
    assert!(
        managers(&object).contains(&"kubectl Apply".to_owned()),
        "{:?}",
        managers(&object)
    );
}

#[test]
fn what_is_applied_is_checked() {
    let namespace = Namespace::new("apply-checks");
    let unknown = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "settings"}, "dada": {}});
    let error = apply(&namespace, "one", &unknown)
        .args(["--validate=false"])
        .fails();
    assert!(
        error.contains(".dada: field not declared in schema"),
        "{error}"
    );
    // Nothing of it was written.
    assert!(namespace.get("configmap/settings").is_err());
}
