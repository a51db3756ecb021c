//! OpenAPI v2: one document of everything, as JSON and, for older kubectls, as protobuf.
//!
//! What must not be here: routing (`mod.rs`), protobuf (`gnostic.rs`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::models::{Dialect, closure, schema_of};
use super::operations::{Answer, Operation, PathItem};
use super::parameters::Parameter;

/// Receives a document piece by piece, in the order in which it is written.
pub trait Sink {
    /// `swagger`, `info`, `security` and the like.
    fn member(&mut self, name: &str, value: &Value);
    fn path(&mut self, path: &str, item: &Value);
    fn definition(&mut self, model: &str, schema: &Value);
    fn parameter(&mut self, name: &str, parameter: &Value);
}

/// Renders the document of these paths into a sink, never holding more than one piece.
pub fn render(paths: impl Iterator<Item = PathItem>, sink: &mut impl Sink) {
    let mut descriptions = Descriptions::default();
    let mut roots = BTreeSet::new();
    let mut shared = BTreeMap::new();
    sink.member("swagger", &"2.0".into());
    sink.member("info", &super::info());
    for path in paths {
        for operation in &path.operations {
            if let Answer::Model(model) = operation.answer {
                roots.insert(model);
            }
            if let Some(body) = &operation.body {
                roots.insert(body.model);
            }
        }
        sink.path(&path.path, &path_item(&path, &mut shared));
    }
    for model in closure(roots) {
        let schema = schema_of(model, Dialect::V2, &mut descriptions, None);
        sink.definition(model, &schema);
    }
    for (name, parameter) in &shared {
        sink.parameter(name, parameter);
    }
    sink.member("securityDefinitions", &super::security_schemes());
    sink.member("security", &json!([{"BearerToken": []}]));
}

/// Parameters that are written where they are used: clients look there for whether an
/// operation has them.
const INLINE: [&str; 3] = ["dryRun", "fieldValidation", "name"];

fn path_item(path: &PathItem, shared: &mut BTreeMap<String, Value>) -> Value {
    let mut out = Map::new();
    if !path.parameters.is_empty() {
        let parameters = path.parameters.iter().map(|p| parameter(p, shared));
        out.insert("parameters".into(), parameters.collect());
    }
    for operation in &path.operations {
        out.insert(operation.method.into(), self::operation(operation, shared));
    }
    out.into()
}

fn parameter(parameter: &Parameter, shared: &mut BTreeMap<String, Value>) -> Value {
    let mut out = json!({
        "name": parameter.name,
        "in": if parameter.in_path { "path" } else { "query" },
        "description": parameter.description,
        "type": parameter.ty,
        "uniqueItems": true,
    });
    if parameter.in_path {
        out["required"] = true.into();
    }
    if INLINE.contains(&parameter.name) {
        return out;
    }
    // The same name may mean different things: options of exec and of attach, a path that
    // is part of the path or of the query.
    let place = if parameter.in_path { "path" } else { "query" };
    let name = format!("{}-{place}-{}", parameter.name, parameter.ty);
    let reference = json!({"$ref": format!("#/parameters/{name}")});
    shared.entry(name).or_insert(out);
    reference
}

fn operation(operation: &Operation, shared: &mut BTreeMap<String, Value>) -> Value {
    let answer = match operation.answer {
        Answer::Model(model) => Dialect::V2.reference(model),
        Answer::Text => json!({"type": "string"}),
    };
    let response = |description: &str| json!({"description": description, "schema": answer});
    let mut responses = Map::new();
    responses.insert("200".into(), response("OK"));
    if operation.created {
        responses.insert("201".into(), response("Created"));
    }
    if operation.accepted {
        responses.insert("202".into(), response("Accepted"));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let mut parameters: Vec<Value> = Vec::new();
    if let Some(body) = &operation.body {
        let mut parameter = json!({
            "name": "body",
            "in": "body",
            "schema": Dialect::V2.reference(body.model),
        });
        if body.required {
            parameter["required"] = true.into();
        }
        parameters.push(parameter);
    }
    parameters.extend(operation.parameters.iter().map(|p| parameter(p, shared)));
    let mut out = json!({
        "description": operation.description,
        "operationId": operation.id,
        "produces": operation.produces,
        "responses": responses,
        "schemes": ["https"],
        "tags": [operation.tag],
    });
    if !operation.consumes.is_empty() {
        out["consumes"] = json!(operation.consumes);
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    super::extend(&mut out, operation);
    out
}
