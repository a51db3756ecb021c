//! Versions that the API does not have any more, in which earlier releases have stored objects:
//! what they say otherwise than the version that is stored today. There is no way back.

use schema::{Message, Resource};
use serde_json::{Map, Value, json};

use super::super::object_meta::meta_mut;
use super::{Function, api_version, events};

/// By the older version's message.
const CONVERSIONS: &[(&str, Function)] = &[
    ("io.k8s.api.apps.v1beta1.Deployment", deployment),
    ("io.k8s.api.apps.v1beta2.DaemonSet", daemon_set),
    ("io.k8s.api.apps.v1beta2.Deployment", deployment),
    ("io.k8s.api.discovery.v1beta1.EndpointSlice", endpoint_slice),
    ("io.k8s.api.events.v1beta1.Event", events::v1_to_core),
    ("io.k8s.api.extensions.v1beta1.DaemonSet", daemon_set),
    ("io.k8s.api.extensions.v1beta1.Deployment", deployment),
    ("io.k8s.api.extensions.v1beta1.Ingress", ingress),
    (
        "io.k8s.api.flowcontrol.v1beta1.PriorityLevelConfiguration",
        assured_shares,
    ),
    (
        "io.k8s.api.flowcontrol.v1beta2.PriorityLevelConfiguration",
        assured_shares,
    ),
    (
        "io.k8s.api.flowcontrol.v1beta3.PriorityLevelConfiguration",
        zero_shares,
    ),
    ("io.k8s.api.networking.v1beta1.Ingress", ingress),
    ("io.k8s.api.node.v1alpha1.RuntimeClass", runtime_class),
    (
        "io.k8s.api.policy.v1beta1.PodDisruptionBudget",
        disruption_budget,
    ),
    ("io.k8s.api.rbac.v1alpha1.ClusterRoleBinding", role_binding),
    ("io.k8s.api.rbac.v1alpha1.RoleBinding", role_binding),
];

/// Makes of an object in an older version one of the version that is stored.
pub fn renew(written: &Message, stored: &Resource, object: &mut Value) {
    if let Some((_, function)) = CONVERSIONS.iter().find(|(name, _)| *name == written.name) {
        function(object);
    }
    if let Some(members) = object.as_object_mut() {
        members.insert("apiVersion".into(), json!(api_version(stored)));
        members.insert("kind".into(), json!(stored.kind));
    }
}

type Fields = Map<String, Value>;

fn spec(object: &mut Value) -> Option<&mut Fields> {
    object.get_mut("spec")?.as_object_mut()
}

/// The objects in a list.
fn each(list: Option<&mut Value>) -> impl Iterator<Item = &mut Fields> {
    let items = list.and_then(Value::as_array_mut).into_iter().flatten();
    items.filter_map(Value::as_object_mut)
}

fn rename(fields: &mut Fields, from: &str, to: &str) {
    if let Some(value) = fields.remove(from) {
        fields.insert(to.to_owned(), value);
    }
}

fn annotate(object: &mut Value, key: &str, value: String) {
    let annotations = meta_mut(object)
        .entry("annotations")
        .or_insert_with(|| json!({}));
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[key] = json!(value);
}

/// The revision to roll back to is an annotation now.
fn deployment(deployment: &mut Value) {
    let asked = spec(deployment).and_then(|spec| spec.remove("rollbackTo"));
    if let Some(asked) = asked.filter(Value::is_object) {
        let revision = asked["revision"].as_i64().unwrap_or_default();
        annotate(
            deployment,
            "deprecated.deployment.rollback.to",
            revision.to_string(),
        );
    }
}

/// The template's generation is an annotation now.
fn daemon_set(set: &mut Value) {
    let generation = spec(set).and_then(|spec| spec.remove("templateGeneration"));
    let generation = generation.and_then(|g| g.as_i64()).unwrap_or_default();
    annotate(
        set,
        "deprecated.daemonset.template.generation",
        generation.to_string(),
    );
}

/// Zones have a field now; the rest of the topology is only kept, and of that the node only where
/// it is another one.
fn endpoint_slice(slice: &mut Value) {
    const ZONE: &str = "topology.kubernetes.io/zone";
    const HOST: &str = "kubernetes.io/hostname";
    for endpoint in each(slice.get_mut("endpoints")) {
        let Some(Value::Object(mut topology)) = endpoint.remove("topology") else {
            continue;
        };
        if let Some(zone) = topology.remove(ZONE) {
            endpoint.insert("zone".into(), zone);
        }
        if topology.get(HOST).is_some() && topology.get(HOST) == endpoint.get("nodeName") {
            topology.remove(HOST);
        }
        if !topology.is_empty() {
            endpoint.insert("deprecatedTopology".into(), Value::Object(topology));
        }
    }
}

fn ingress(ingress: &mut Value) {
    let Some(spec) = spec(ingress) else { return };
    rename(spec, "backend", "defaultBackend");
    if let Some(backend) = spec
        .get_mut("defaultBackend")
        .and_then(Value::as_object_mut)
    {
        ingress_backend(backend);
    }
    for rule in each(spec.get_mut("rules")) {
        let paths = rule.get_mut("http").and_then(|http| http.get_mut("paths"));
        for path in each(paths) {
            if let Some(backend) = path.get_mut("backend").and_then(Value::as_object_mut) {
                ingress_backend(backend);
            }
        }
    }
}

/// A service was two fields beside the resource.
fn ingress_backend(backend: &mut Fields) {
    let name = backend.remove("serviceName").unwrap_or_default();
    let port = backend.remove("servicePort").unwrap_or_default();
    let name = name.as_str().unwrap_or_default();
    let port = match port {
        Value::Number(number) if number.as_i64() != Some(0) => json!({"number": number}),
        Value::String(port) => match port.is_empty() {
            true => json!({}),
            false => json!({"name": port}),
        },
        _ if name.is_empty() => return,
        _ => json!({}),
    };
    backend.insert("service".into(), json!({"name": name, "port": port}));
}

fn assured_shares(level: &mut Value) {
    let limited = spec(level).and_then(|spec| spec.get_mut("limited")?.as_object_mut());
    if let Some(limited) = limited {
        rename(
            limited,
            "assuredConcurrencyShares",
            "nominalConcurrencyShares",
        );
    }
}

/// That no shares were meant, an annotation said.
fn zero_shares(level: &mut Value) {
    let annotations = meta_mut(level).get_mut("annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(api::defaults::PRESERVE_ZERO_SHARES);
    }
}

/// What the spec held is the object's own.
fn runtime_class(class: &mut Value) {
    let Some(members) = class.as_object_mut() else {
        return;
    };
    if let Some(Value::Object(mut spec)) = members.remove("spec") {
        rename(&mut spec, "runtimeHandler", "handler");
        members.extend(spec);
    }
}

/// An empty selector selected nothing, and selects everything now; each can be said in the other's
/// words by a label that no pod has.
fn disruption_budget(budget: &mut Value) {
    const LABEL: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";
    let expression = |operator: &str| json!([{"key": LABEL, "operator": operator}]);
    let selector = spec(budget).and_then(|spec| spec.get_mut("selector")?.as_object_mut());
    let Some(selector) = selector else { return };
    let empty = |value: Option<&Value>| match value {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    };
    let labels = empty(selector.get("matchLabels"));
    if labels && empty(selector.get("matchExpressions")) {
        selector.insert("matchExpressions".into(), expression("Exists"));
        return;
    }
    if labels && selector.get("matchExpressions") == Some(&expression("DoesNotExist")) {
        selector.clear();
        return;
    }
    if let Some(labels) = selector
        .get_mut("matchLabels")
        .and_then(Value::as_object_mut)
    {
        labels.remove(LABEL);
    }
    if let Some(list) = selector
        .get_mut("matchExpressions")
        .and_then(Value::as_array_mut)
    {
        list.retain(|expression| expression["key"] != LABEL);
    }
}

/// Subjects said which version of their kind they meant, where the group is enough; and everybody
/// who is known was a user called `*`.
fn role_binding(binding: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    for subject in each(binding.get_mut("subjects")) {
        let version = subject.remove("apiVersion").unwrap_or_default();
        let group = match subject.get("kind").and_then(Value::as_str) {
            Some("ServiceAccount") => "",
            Some("User" | "Group") => GROUP,
            _ => version
                .as_str()
                .and_then(|version| Some(version.split_once('/')?.0))
                .unwrap_or_default(),
        };
        subject.insert("apiGroup".into(), json!(group));
        if subject.get("kind") == Some(&json!("User")) && subject.get("name") == Some(&json!("*")) {
            subject.insert("kind".into(), json!("Group"));
            subject.insert("name".into(), json!("system:authenticated"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_exists_and_is_not_served() {
        for (name, _) in CONVERSIONS {
            let message = schema::message(name).expect(name);
            assert!(
                schema::resources()
                    .iter()
                    .all(|r| !std::ptr::eq(r.message, message)),
                "{name}"
            );
        }
    }

    #[test]
    fn backends_of_ingresses() {
        let mut old = json!({"spec": {"backend": {"serviceName": "s", "servicePort": 80}, "rules": [
            {"host": "h"},
            {"http": {"paths": [
                {"backend": {"serviceName": "t", "servicePort": "web"}},
                {"backend": {"resource": {"kind": "K", "name": "n"}, "servicePort": 0}},
            ]}},
        ]}});
        ingress(&mut old);
        let service = json!({"service": {"name": "s", "port": {"number": 80}}});
        assert_eq!(old["spec"]["defaultBackend"], service);
        let paths = &old["spec"]["rules"][1]["http"]["paths"];
        let service = json!({"service": {"name": "t", "port": {"name": "web"}}});
        assert_eq!(paths[0]["backend"], service);
        assert_eq!(
            paths[1]["backend"],
            json!({"resource": {"kind": "K", "name": "n"}})
        );
    }

    #[test]
    fn topologies_of_endpoints() {
        let mut slice = json!({"endpoints": [
            {"nodeName": "n", "topology": {"kubernetes.io/hostname": "n", "topology.kubernetes.io/zone": "z"}},
            {"nodeName": "n", "topology": {"kubernetes.io/hostname": "m", "a": "b"}},
        ]});
        endpoint_slice(&mut slice);
        let wanted = json!([{"nodeName": "n", "zone": "z"}, {"nodeName": "n",
            "deprecatedTopology": {"kubernetes.io/hostname": "m", "a": "b"}}]);
        assert_eq!(slice["endpoints"], wanted);
    }

    #[test]
    fn budgets_that_select_nothing_or_everything() {
        let budget = |selector: Value| {
            let mut budget = json!({"spec": {"selector": selector}});
            disruption_budget(&mut budget);
            budget["spec"]["selector"].take()
        };
        let nothing = budget(json!({}));
        assert_eq!(nothing["matchExpressions"][0]["operator"], "Exists");
        let mut all = nothing.clone();
        all["matchExpressions"][0]["operator"] = json!("DoesNotExist");
        assert_eq!(budget(all), json!({}));
        let some = json!({"matchLabels": {"a": "b"}});
        assert_eq!(budget(some.clone()), some);
    }

    #[test]
    fn subjects_of_bindings() {
        let mut binding = json!({"subjects": [
            {"kind": "User", "name": "*"},
            {"kind": "ServiceAccount", "name": "s", "apiVersion": "v1"},
            {"kind": "Robot", "name": "r", "apiVersion": "example.com/v1"},
        ]});
        role_binding(&mut binding);
        assert_eq!(binding["subjects"][0]["kind"], "Group");
        assert_eq!(binding["subjects"][0]["name"], "system:authenticated");
        assert_eq!(binding["subjects"][1]["apiGroup"], "");
        assert_eq!(binding["subjects"][2]["apiGroup"], "example.com");
    }
}
