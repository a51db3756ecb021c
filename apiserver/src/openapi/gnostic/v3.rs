//! OpenAPI v3 (`openapi.v3.Document`), which kubectl asks for where it only looks for a
//! parameter.
//!
//! What must not be here: what the document says (`openapi/v3.rs`).

use serde_json::Value;

use super::super::v3::Sink;
use super::{Message, any, one_of};

/// `…OrReference`: the first member of the oneof is the thing itself, the second where it is.
fn or_reference(value: &Value, thing: impl Fn(&Value) -> Message) -> Message {
    if value["$ref"].is_string() {
        let mut reference = Message::default();
        reference.text(1, value, "$ref");
        return one_of(2, reference);
    }
    one_of(1, thing(value))
}

fn schema_or_reference(value: &Value) -> Message {
    or_reference(value, schema)
}

fn schema(value: &Value) -> Message {
    let mut out = Message::default();
    out.flag(20, value, "uniqueItems");
    out.texts(23, value, "required");
    for item in value["enum"].as_array().into_iter().flatten() {
        out.message(24, &any(item));
    }
    out.text(25, value, "type");
    for (number, member) in [(26, "allOf"), (27, "oneOf"), (28, "anyOf")] {
        for alternative in value[member].as_array().into_iter().flatten() {
            out.message(number, &schema_or_reference(alternative));
        }
    }
    if value["items"].is_object() {
        out.message(30, &one_of(1, schema_or_reference(&value["items"])));
    }
    if value["properties"].is_object() {
        let mut properties = Message::default();
        properties.map(1, &value["properties"], schema_or_reference);
        out.message(31, &properties);
    }
    if value["additionalProperties"].is_object() {
        let every = schema_or_reference(&value["additionalProperties"]);
        out.message(32, &one_of(1, every));
    }
    if let Some(default) = value.get("default") {
        out.message(33, &default_type(default));
    }
    out.text(34, value, "description");
    out.text(35, value, "format");
    out.extensions(36, value);
    out
}

/// `DefaultType` is a number, a boolean or a string. An object is none of them and leaves it
/// empty.
fn default_type(value: &Value) -> Message {
    let mut out = Message::default();
    match value {
        Value::Number(number) => out.double(1, number.as_f64().unwrap_or_default()),
        Value::Bool(flag) => out.boolean(2, *flag),
        Value::String(text) => out.bytes(3, text.as_bytes()),
        _ => {}
    }
    out
}

fn parameter(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, value, "name");
    out.text(2, value, "in");
    out.text(3, value, "description");
    out.flag(4, value, "required");
    out.message(10, &schema_or_reference(&value["schema"]));
    out
}

/// `MediaTypes`: the schema of each.
fn content(value: &Value) -> Message {
    let mut out = Message::default();
    out.map(1, value, |media| {
        one_of(1, schema_or_reference(&media["schema"]))
    });
    out
}

fn request_body(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, value, "description");
    out.message(2, &content(&value["content"]));
    out.flag(3, value, "required");
    out
}

fn response(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, value, "description");
    if value["content"].is_object() {
        out.message(3, &content(&value["content"]));
    }
    out
}

fn operation(value: &Value) -> Message {
    let mut out = Message::default();
    out.texts(1, value, "tags");
    out.text(3, value, "description");
    out.text(5, value, "operationId");
    for written in value["parameters"].as_array().into_iter().flatten() {
        out.message(6, &or_reference(written, parameter));
    }
    if value["requestBody"].is_object() {
        out.message(7, &or_reference(&value["requestBody"], request_body));
    }
    let mut responses = Message::default();
    responses.map(2, &value["responses"], |r| or_reference(r, response));
    out.message(8, &responses);
    out.extensions(13, value);
    out
}

fn path_item(value: &Value) -> Message {
    const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
    let mut out = Message::default();
    for (method, number) in METHODS.iter().zip(4..) {
        if value[*method].is_object() {
            out.message(number, &operation(&value[*method]));
        }
    }
    for written in value["parameters"].as_array().into_iter().flatten() {
        out.message(13, &or_reference(written, parameter));
    }
    out
}

fn security_scheme(value: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, value, "type");
    out.text(2, value, "description");
    out.text(3, value, "name");
    out.text(4, value, "in");
    out
}

/// The document as protobuf.
#[derive(Default)]
pub struct ProtoSink {
    head: Message,
    paths: Message,
    schemas: Message,
    schemes: Message,
}

impl Sink for ProtoSink {
    fn head(&mut self, version: &str, info: &Value) {
        self.head.bytes(1, version.as_bytes());
        let mut written = Message::default();
        written.text(1, info, "title");
        written.text(6, info, "version");
        self.head.message(2, &written);
    }

    fn path(&mut self, path: &str, item: &Value) {
        self.paths.named(1, path, &path_item(item));
    }

    fn schema(&mut self, model: &str, value: &Value) {
        let value = schema_or_reference(value);
        self.schemas.named(1, model, &value);
    }

    fn security_schemes(&mut self, value: &Value) {
        let write = |scheme: &Value| or_reference(scheme, security_scheme);
        self.schemes.map(1, value, write);
    }

    fn finish(self) -> Vec<u8> {
        let mut components = Message::default();
        if !self.schemas.0.is_empty() {
            components.message(1, &self.schemas);
        }
        components.message(7, &self.schemes);
        let mut out = self.head;
        out.message(4, &self.paths);
        out.message(5, &components);
        out.0
    }
}
