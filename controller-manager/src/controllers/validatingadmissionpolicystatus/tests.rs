use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use meta::{GroupVersionKind, GroupVersionResource};
use serde_json::{Value, json};

use super::kinds::matched;
use super::params_kind;
use super::plan::{Described, warnings};
use super::schema::Document;
use super::unobserved;
use crate::discovery::{Resource, Resources};

const MARK: u32 = 7;

fn policy(spec: Value) -> ValidatingAdmissionPolicy {
    let policy = json!({"metadata": {"name": "p", "generation": 2}, "spec": spec});
    serde_json::from_value(policy).unwrap()
}

fn document() -> Document {
    let reference = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let described = |name: &str| json!({"default": {}, "allOf": [reference(name)]});
    let schemas = json!({
        "Widget": {
            "type": "object",
            "x-kubernetes-group-version-kind": [{"group": "example.com", "version": "v1", "kind": "Widget"}],
            "properties": {
                "kind": {"type": "string"}, "apiVersion": {"type": "string"},
                "metadata": described("Meta"),
                "spec": described("Spec"),
            },
        },
        "Meta": {"type": "object", "properties": {
            "name": {"type": "string"}, "generateName": {"type": "string"},
            "creationTimestamp": described("Time"),
            "labels": {"type": "object", "additionalProperties": {"type": "string", "default": ""}},
        }},
        "Time": {"type": "string", "format": "date-time"},
        "Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
        "Spec": {"type": "object", "properties": {
            "count": {"type": "integer"},
            "ratio": {"type": "number"},
            "blob": {"type": "string", "format": "byte"},
            "port": {"x-kubernetes-int-or-string": true},
            "other": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
            "limits": {"type": "object", "additionalProperties": reference("Quantity")},
            "parts": {"type": "array", "items": described("Spec")},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "my-field": {"type": "string"},
            "for": {"type": "string"},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true},
        }},
        "Bare": {
            "type": "object",
            "x-kubernetes-group-version-kind": [{"group": "example.com", "version": "v1", "kind": "Bare"}],
            "properties": {"metadata": {"type": "object"}},
        },
    });
    serde_json::from_value(json!({"components": {"schemas": schemas}})).unwrap()
}

fn widget() -> GroupVersionKind {
    GroupVersionKind::new("example.com", "v1", "Widget")
}

/// What is told of expressions, without the kind and the snippet.
fn told(spec: Value) -> Vec<String> {
    let (gvk, document) = (widget(), document());
    let described = Described {
        gvk: &gvk,
        document: &document,
    };
    let all = warnings(&policy(spec), &[described], Some(described), MARK);
    let all = all.iter().map(|warning| {
        let text = warning.warning.lines().next().unwrap_or_default();
        let text = text.trim_start_matches("example.com/v1, Kind=Widget: ERROR: <input>:");
        format!("{} {text}", warning.field_ref)
    });
    all.collect()
}

#[track_caller]
fn holds(expressions: &[&str]) {
    for expression in expressions {
        let spec = json!({"validations": [{"expression": expression}]});
        assert_eq!(told(spec), Vec::<String>::new(), "{expression}");
    }
}

#[track_caller]
fn fails(cases: &[(&str, &str)]) {
    for (expression, message) in cases {
        let spec = json!({"validations": [{"expression": expression}]});
        let expected = vec![format!("spec.validations[0].expression {message}")];
        assert_eq!(told(spec), expected, "{expression}");
    }
}

#[test]
fn types_are_those_of_the_schema() {
    holds(&[
        "object.spec.count + 1 > 2 && object.spec.ratio < 1.0 && object.spec.blob == b'a'",
        "object.spec.port == 'http' || object.spec.other == 1",
        "object.metadata.creationTimestamp > timestamp('2026-01-01T00:00:00Z')",
        "object.metadata.labels.a == 'b' && object.spec.my__dash__field == ''",
        "object.spec.__for__ == object.spec.for",
        "object.spec.embedded.metadata.name == object.spec.embedded.kind",
        "request.kind.group == '' && namespaceObject.metadata.UID == request.userInfo.uid",
    ]);
    fails(&[
        (
            "object.spec.count == ''",
            "1:19: found no matching overload for '_==_' applied to '(int, string)'",
        ),
        (
            "object.spec == 1",
            "1:13: found no matching overload for '_==_' applied to '(Widget7.spec, int)'",
        ),
        (
            "object.spec.embedded.metadata.labels",
            "1:30: undefined field 'labels'",
        ),
        ("object.spec.my_field", "1:12: undefined field 'my_field'"),
        // As upstream has it: it sees no type in a quantity's schema.
        ("object.spec.limits", "1:12: undefined field 'limits'"),
        ("object.spec.free.a", "1:17: undefined field 'a'"),
        (
            "params.spec.count",
            "1:1: undeclared reference to 'params' (in container '')",
        ),
    ]);
}

#[test]
fn a_schema_within_itself_ends() {
    holds(&["object.spec.parts[0] == null"]);
    fails(&[(
        "object.spec.parts[0].count == 1",
        "1:21: undefined field 'count'",
    )]);
}

#[test]
fn resources_have_a_name_even_where_no_schema_says_so() {
    let (gvk, document) = (
        GroupVersionKind::new("example.com", "v1", "Bare"),
        document(),
    );
    let described = Described {
        gvk: &gvk,
        document: &document,
    };
    let right = "object.metadata.name == object.kind + object.apiVersion";
    let wrong = "object.metadata.labels";
    let spec = json!({"validations": [{"expression": right}, {"expression": wrong}]});
    let warnings = warnings(&policy(spec), &[described], None, MARK);
    assert_eq!(warnings.len(), 1);
    assert_eq!(
        warnings[0].warning,
        "example.com/v1, Kind=Bare: ERROR: <input>:1:16: undefined field 'labels'\n \
         | object.metadata.labels\n | ...............^\n"
    );
}

#[test]
fn messages_params_and_variables_are_checked() {
    let spec = json!({
        "paramKind": {"apiVersion": "example.com/v1", "kind": "Widget"},
        "variables": [
            {"name": "count", "expression": "object.spec.count"},
            {"name": "double", "expression": "variables.count * 2"},
            {"name": "spec", "expression": "object.spec"},
            {"name": "wrong", "expression": "object.nothing"},
        ],
        "validations": [
            {"expression": "variables.double == 'x'", "messageExpression": "variables.count + ''"},
            {"expression": "variables.spec.anything == 1 && variables.wrong == 2", "messageExpression": ""},
            {"expression": "params.spec.count == variables.count"},
            {"expression": "params.spec.count == variables.nothing"},
        ],
    });
    assert_eq!(
        told(spec),
        [
            "spec.validations[0].expression 1:18: found no matching overload for '_==_' applied to '(int, string)'",
            "spec.validations[0].messageExpression 1:17: found no matching overload for '_+_' applied to '(int, string)'",
            "spec.validations[3].expression 1:31: undefined field 'nothing'",
        ]
    );
}

fn served() -> Resources {
    let resource = |group: &str, resource: &str, kind: &str| Resource {
        gvr: GroupVersionResource::new(group, "v1", resource),
        kind: kind.to_owned(),
        namespaced: true,
        verbs: Vec::new(),
    };
    let mut all = vec![
        resource("", "events", "Event"),
        resource("events.k8s.io", "events", "Event"),
        resource("apps", "deployments", "Deployment"),
    ];
    all.extend((0..12).map(|n| {
        resource(
            "many.example.com",
            &format!("k{n:02}s"),
            &format!("K{n:02}"),
        )
    }));
    Resources::of(all)
}

#[test]
fn kinds_are_those_that_rules_name() {
    let rules = |rules: &[(&str, &str, &[&str])]| {
        let rules: Vec<Value> = rules
            .iter()
            .map(|(group, version, resources)| {
                json!({
                    "apiGroups": [group], "apiVersions": [version], "resources": resources,
                    "operations": ["*"],
                })
            })
            .collect();
        let policy = policy(json!({"matchConstraints": {"resourceRules": rules}}));
        let matched = matched(&policy, &served());
        let kinds: Vec<String> = matched.kinds.iter().map(ToString::to_string).collect();
        (kinds.join("; "), matched.unknown)
    };
    let found = |kinds: &str| (kinds.to_owned(), false);
    assert_eq!(
        rules(&[(
            "apps",
            "v1",
            &["deployments", "deployments/scale", "deployment"]
        )]),
        found("apps/v1, Kind=Deployment")
    );
    assert_eq!(
        rules(&[("", "v1", &["events"])]),
        found("/v1, Kind=Event; events.k8s.io/v1, Kind=Event")
    );
    assert_eq!(rules(&[("*", "v1", &["events"])]), found(""));
    assert_eq!(rules(&[("apps", "*", &["deployments"])]), found(""));
    assert_eq!(rules(&[("apps", "v1", &["*"])]), found(""));
    assert_eq!(
        rules(&[("apps", "v2", &["deployments"])]),
        (String::new(), true)
    );
    let names: Vec<String> = (0..12).map(|n| format!("k{n:02}s")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (many, _) = rules(&[
        ("many.example.com", "v1", &names),
        ("apps", "v1", &["deployments"]),
    ]);
    assert_eq!(many.split("; ").count(), 10);
    assert!(!many.contains("Deployment"));
}

#[test]
fn what_is_to_be_checked() {
    let mut policy = policy(json!({}));
    assert_eq!(unobserved(&policy), Some(2));
    let status =
        |generation: i64| serde_json::from_value(json!({"observedGeneration": generation}));
    policy.status = status(1).unwrap();
    assert_eq!(unobserved(&policy), Some(2));
    policy.status = status(2).unwrap();
    assert_eq!(unobserved(&policy), None);
    let kind = serde_json::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap"})).unwrap();
    let expected = GroupVersionKind::new("", "v1", "ConfigMap");
    assert_eq!(params_kind(&kind), Some(expected));
}
