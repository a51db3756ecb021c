//! OpenAPI v3: one document per group version (KEP-2896).
//!
//! What must not be here: routing (`mod.rs`).

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::models::{Dialect, closure, schema_of};
use super::operations::{Answer, Operation, PathItem};
use super::parameters::Parameter;

/// Receives a document piece by piece.
pub trait Sink: Default {
    /// `openapi` and `info`.
    fn head(&mut self, version: &str, info: &Value);
    fn path(&mut self, path: &str, item: &Value);
    fn schema(&mut self, model: &str, schema: &Value);
    fn security_schemes(&mut self, schemes: &Value);
    fn finish(self) -> Vec<u8>;
}

/// Renders a document of these paths, never holding more than one piece as a tree.
pub fn render<S: Sink>(
    paths: &[PathItem],
    group_version: Option<(&'static str, &'static str)>,
) -> Vec<u8> {
    let mut descriptions = Descriptions::default();
    let mut roots = BTreeSet::new();
    for operation in paths.iter().flat_map(|p| &p.operations) {
        if let Answer::Model(model) = operation.answer {
            roots.insert(model);
        }
        if let Some(body) = &operation.body {
            roots.insert(body.model);
        }
    }
    let mut sink = S::default();
    sink.head("3.0.0", &super::info());
    for path in paths {
        sink.path(&path.path, &path_item(path));
    }
    for model in closure(roots) {
        let schema = schema_of(model, Dialect::V3, &mut descriptions, group_version);
        sink.schema(model, &schema);
    }
    sink.security_schemes(&super::security_schemes());
    sink.finish()
}

fn path_item(path: &PathItem) -> Value {
    let mut out = Map::new();
    if !path.parameters.is_empty() {
        let parameters = path.parameters.iter().map(parameter);
        out.insert("parameters".into(), parameters.collect());
    }
    for operation in &path.operations {
        out.insert(operation.method.into(), self::operation(operation));
    }
    out.into()
}

fn parameter(parameter: &Parameter) -> Value {
    let mut out = json!({
        "name": parameter.name,
        "in": if parameter.in_path { "path" } else { "query" },
        "description": parameter.description,
        "schema": {"type": parameter.ty, "uniqueItems": true},
    });
    if parameter.in_path {
        out["required"] = true.into();
    }
    out
}

fn operation(operation: &Operation) -> Value {
    let answer = match operation.answer {
        Answer::Model(model) => Dialect::V3.reference(model),
        Answer::Text => json!({"type": "string"}),
    };
    let content = |types: &[&str], schema: &Value| -> Value {
        let types = types
            .iter()
            .map(|t| ((*t).to_owned(), json!({"schema": schema})));
        Value::Object(types.collect())
    };
    let response = |description: &str| {
        json!({
            "description": description,
            "content": content(operation.produces, &answer),
        })
    };
    let mut responses = Map::new();
    responses.insert("200".into(), response("OK"));
    if operation.created {
        responses.insert("201".into(), response("Created"));
    }
    if operation.accepted {
        responses.insert("202".into(), response("Accepted"));
    }
    responses.insert("401".into(), json!({"description": "Unauthorized"}));
    let mut out = json!({
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
        "responses": responses,
    });
    if !operation.parameters.is_empty() {
        out["parameters"] = operation.parameters.iter().map(parameter).collect();
    }
    if let Some(body) = &operation.body {
        let schema = Dialect::V3.reference(body.model);
        out["requestBody"] = json!({"content": content(operation.consumes, &schema)});
        if body.required {
            out["requestBody"]["required"] = true.into();
        }
    }
    super::extend(&mut out, operation);
    out
}
