//! OpenAPI v2 (`openapi.v2.Document`), which kubectl asked for before it knew v3.
//!
//! What must not be here: what the document says (`openapi/v2.rs`).

use serde_json::Value;

use super::super::v2::Sink;
use super::{Message, any, one_of};

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, value, "$ref");
    out.text(2, value, "format");
    out.text(4, value, "description");
    out.texts(19, value, "required");
    for item in value["enum"].as_array().into_iter().flatten() {
        out.message(20, &any(item));
    }
    if value["additionalProperties"].is_object() {
        out.message(21, &one_of(1, schema(&value["additionalProperties"])));
    }
    if let Some(ty) = value["type"].as_str() {
        let mut item = Message::default();
        item.bytes(1, ty.as_bytes());
        out.message(22, &item);
    }
    if value["items"].is_object() {
        out.message(23, &one_of(1, schema(&value["items"])));
    }
    if let Some(properties) = value["properties"].as_object() {
        let mut all = Message::default();
        for (name, property) in properties {
            all.named(1, name, &schema(property));
        }
        out.message(25, &all);
    }
    out.extensions(31, value);
    out
}

/// `Parameter`, of the body, the query or the path.
fn parameter(value: &Value) -> Message {
    let mut out = Message::default();
    match value["in"].as_str() {
        Some("body") => {
            out.text(1, value, "description");
            out.text(2, value, "name");
            out.text(3, value, "in");
            out.flag(4, value, "required");
            out.message(5, &schema(&value["schema"]));
            one_of(1, out)
        }
        place => {
            let in_path = place == Some("path");
            out.flag(1, value, "required");
            out.text(2, value, "in");
            out.text(3, value, "description");
            out.text(4, value, "name");
            // The query's sub-schema has one field more in front of the type.
            let (ty, unique) = if in_path { (5, 19) } else { (6, 20) };
            out.text(ty, value, "type");
            out.flag(unique, value, "uniqueItems");
            one_of(2, one_of(if in_path { 4 } else { 3 }, out))
        }
    }
}

fn parameters_item(value: &Value) -> Message {
    if value["$ref"].is_string() {
        let mut reference = Message::default();
        reference.text(1, value, "$ref");
        return one_of(2, reference);
    }
    one_of(1, parameter(value))
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, value, "tags");
    out.text(3, value, "description");
    out.text(5, value, "operationId");
    out.texts(6, value, "produces");
    out.texts(7, value, "consumes");
    for parameter in value["parameters"].as_array().into_iter().flatten() {
        out.message(8, &parameters_item(parameter));
    }
    let mut responses = Message::default();
    for (code, response) in value["responses"].as_object().into_iter().flatten() {
        let mut written = Message::default();
        written.text(1, response, "description");
        if response["schema"].is_object() {
            written.message(2, &one_of(1, schema(&response["schema"])));
        }
        responses.named(1, code, &one_of(1, written));
    }
    out.message(9, &responses);
    out.texts(10, value, "schemes");
    out.extensions(13, value);
    out
}

fn path_item(value: &Value) -> Message {
    const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
    let mut out = Message::default();
    for (i, method) in METHODS.iter().enumerate() {
        if value[*method].is_object() {
            out.message(i as u64 + 2, &operation(&value[*method]));
        }
    }
    for parameter in value["parameters"].as_array().into_iter().flatten() {
        out.message(9, &parameters_item(parameter));
    }
    out
}

/// The document as protobuf.
#[derive(Default)]
pub struct ProtoSink {
    head: Message,
    paths: Message,
    definitions: Message,
    parameters: Message,
    tail: Message,
}

impl Sink for ProtoSink {
    fn member(&mut self, name: &str, value: &Value) {
        match name {
            "swagger" => self
                .head
                .bytes(1, value.as_str().unwrap_or_default().as_bytes()),
            "info" => {
                let mut info = Message::default();
                info.text(1, value, "title");
                info.text(2, value, "version");
                self.head.message(2, &info);
            }
            "security" => {
                for requirement in value.as_array().into_iter().flatten() {
                    let mut written = Message::default();
                    for (name, _) in requirement.as_object().into_iter().flatten() {
                        written.named(1, name, &Message::default());
                    }
                    self.tail.message(12, &written);
                }
            }
            "securityDefinitions" => {
                let mut all = Message::default();
                for (name, definition) in value.as_object().into_iter().flatten() {
                    let mut key = Message::default();
                    key.text(1, definition, "type");
                    key.text(2, definition, "name");
                    key.text(3, definition, "in");
                    key.text(4, definition, "description");
                    all.named(1, name, &one_of(2, key));
                }
                self.tail.message(13, &all);
            }
            _ => {}
        }
    }

    fn path(&mut self, path: &str, item: &Value) {
        self.paths.named(2, path, &path_item(item));
    }

    fn definition(&mut self, model: &str, value: &Value) {
        self.definitions.named(1, model, &schema(value));
    }

    fn parameter(&mut self, name: &str, value: &Value) {
        self.parameters.named(1, name, &parameter(value));
    }
}

impl ProtoSink {
    pub fn finish(self) -> Vec<u8> {
        let mut out = self.head;
        out.message(8, &self.paths);
        out.message(9, &self.definitions);
        out.message(10, &self.parameters);
        out.0.extend_from_slice(&self.tail.0);
        out.0
    }
}
