//! The documents as JSON text, of which only one member is ever a tree.
//!
//! What must not be here: what is written.

use serde_json::Value;

use super::{v2, v3};

fn append(out: &mut Vec<u8>, value: &Value) {
    // A tree without floats or odd keys, written to memory, cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// An object that is being written; nothing is an object without entries.
#[derive(Default)]
struct Object(Vec<u8>);

impl Object {
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        append(&mut self.0, &name.into());
        self.0.push(b':');
        &mut self.0
    }

    fn entry(&mut self, name: &str, value: &Value) {
        append(self.name(name), value);
    }

    /// An object that has been written apart; left out when it has no entries.
    fn object(&mut self, name: &str, object: Object) {
        if !object.0.is_empty() {
            let object = object.end();
            self.name(name).extend_from_slice(&object);
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

/// The v2 document as JSON text.
#[derive(Default)]
pub struct JsonV2 {
    members: Object,
    paths: Object,
    definitions: Object,
    parameters: Object,
}

impl v2::Sink for JsonV2 {
    fn member(&mut self, name: &str, value: &Value) {
        self.members.entry(name, value);
    }

    fn path(&mut self, path: &str, item: &Value) {
        self.paths.entry(path, item);
    }

    fn definition(&mut self, model: &str, schema: &Value) {
        self.definitions.entry(model, schema);
    }

    fn parameter(&mut self, name: &str, parameter: &Value) {
        self.parameters.entry(name, parameter);
    }
}

impl JsonV2 {
    pub fn finish(self) -> Vec<u8> {
        let mut out = self.members;
        out.object("paths", self.paths);
        out.object("definitions", self.definitions);
        out.object("parameters", self.parameters);
        out.end()
    }
}

/// A v3 document as JSON text.
#[derive(Default)]
pub struct JsonV3 {
    head: Object,
    paths: Object,
    schemas: Object,
    components: Object,
}

impl v3::Sink for JsonV3 {
    fn head(&mut self, version: &str, info: &Value) {
        self.head.entry("openapi", &version.into());
        self.head.entry("info", info);
    }

    fn path(&mut self, path: &str, item: &Value) {
        self.paths.entry(path, item);
    }

    fn schema(&mut self, model: &str, schema: &Value) {
        self.schemas.entry(model, schema);
    }

    fn security_schemes(&mut self, schemes: &Value) {
        self.components.entry("securitySchemes", schemes);
    }

    fn finish(self) -> Vec<u8> {
        let mut components = self.components;
        components.object("schemas", self.schemas);
        let mut out = self.head;
        out.object("paths", self.paths);
        out.object("components", components);
        out.end()
    }
}
