//! Admission policies whose expressions are checked. No expression that is warned of speaks of
//! an object as a whole: the names of types are each manager's own.

use serde_json::{Value, json};

use super::Book;
use crate::controllers::World;
use crate::controllers::world::Propagation;

const POLICY: &str = "ValidatingAdmissionPolicy";

pub fn write(book: &mut Book) {
    book.add("policy/right", |w| {
        checked(w, &["apps/v1/deployments"], right())
    });
    book.add("policy/wrong", |w| {
        checked(w, &["apps/v1/deployments"], wrong())
    });
    let kinds = &[
        "apps/v1/deployments",
        "batch/v1/jobs",
        "/v1/pods",
        "/v1/events",
    ];
    book.add("policy/several-kinds", |w| checked(w, kinds, wrong()));
    book.add("policy/any-kind", |w| checked(w, &["*/*/*"], wrong()));
    book.add("policy/unknown-kind", |w| {
        checked(w, &["example.com/v1/things"], wrong())
    });
    book.add("policy/changed", changed);
    book.add("policy/params", params);
    book.add("policy/variables", variables);
}

fn policy(w: &World, resources: &[&str], fields: Value) -> Value {
    let rules: Value = resources
        .iter()
        .filter_map(|resource| {
            let (group_version, resource) = resource.rsplit_once('/')?;
            let (group, version) = group_version.rsplit_once('/')?;
            Some(json!({
                "apiGroups": [group], "apiVersions": [version], "resources": [resource],
                "operations": ["CREATE"],
            }))
        })
        .collect();
    let mut spec = json!({"failurePolicy": "Ignore", "matchConstraints": {"resourceRules": rules}});
    for (field, value) in fields.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": POLICY,
        "metadata": {"name": w.namespace()}, "spec": spec,
    })
}

fn validations(expressions: &[&str]) -> Value {
    let all = expressions.iter().map(|text| json!({"expression": text}));
    json!({"validations": all.collect::<Value>()})
}

fn right() -> Value {
    validations(&[
        "object.spec.replicas <= 5",
        "object.spec.template.spec.containers.all(c, c.image.startsWith('registry/'))",
        "oldObject == null || oldObject.metadata.name == object.metadata.name",
        "request.userInfo.groups.exists(g, g == 'system:masters')",
        "namespaceObject.metadata.labels[?'level'].orValue('low') != 'high'",
        "authorizer.group('apps').resource('deployments').check('update').allowed()",
    ])
}

fn wrong() -> Value {
    let mut wrong = validations(&[
        "object.spec.replicas > '5'",
        "object.spec.nothing == 1",
        "has(object.spec.template.nothing)",
        "object.spec.template.spec.containers.exists(c, c.name == 5)",
        "object.metadata.labels.all(k, v, v > 1)",
        "object.metadata.name == 'ü' &&\n  object.metadata.name < 1",
    ]);
    wrong["validations"][0]["messageExpression"] = json!("'replicas: ' + object.spec.replicas");
    wrong
}

async fn observed(w: &World, generation: u64) {
    let pointer = "/status/observedGeneration";
    w.until_field(POLICY, w.namespace(), pointer, json!(generation))
        .await;
    w.see(&format!("generation {generation}")).await;
}

async fn checked(w: World, resources: &'static [&'static str], fields: Value) {
    w.create(policy(&w, resources, fields)).await;
    observed(&w, 1).await;
}

async fn changed(w: World) {
    w.create(policy(&w, &["apps/v1/deployments"], right()))
        .await;
    observed(&w, 1).await;
    for (generation, fields) in [(2, wrong()), (3, right())] {
        w.patch(POLICY, w.namespace(), json!({"spec": fields}))
            .await;
        observed(&w, generation).await;
    }
    // What is no change of the spec leaves the status as it is.
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    w.patch(POLICY, w.namespace(), labels).await;
    w.see("labelled").await;
    w.delete(POLICY, w.namespace(), Propagation::Background)
        .await;
    w.until_gone(POLICY, w.namespace()).await;
}

async fn params(w: World) {
    let mut fields = validations(&[
        "params.data.most == '5'",
        "object.spec.replicas > params.data.most",
        "params.nothing == 1",
    ]);
    fields["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    w.create(policy(&w, &["apps/v1/deployments"], fields)).await;
    observed(&w, 1).await;
}

async fn variables(w: World) {
    let mut fields = validations(&["variables.double == 2", "variables.names.all(n, n > 1)"]);
    fields["variables"] = json!([
        {"name": "replicas", "expression": "object.spec.replicas"},
        {"name": "double", "expression": "variables.replicas * 2"},
        {"name": "names", "expression": "object.spec.template.spec.containers.map(c, c.name)"},
    ]);
    w.create(policy(&w, &["apps/v1/deployments"], fields)).await;
    observed(&w, 1).await;
}
