//! Writes a large JSON object member by member, so that only one member is ever a tree.
//!
//! What must not be here: what is written.

use serde_json::Value;

use super::v2::Sink;

/// An object that is being written.
pub struct ObjectWriter<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> ObjectWriter<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        append(self.out, &name.into());
        self.out.push(b':');
    }

    pub fn member(&mut self, name: &str, value: &Value) {
        self.name(name);
        append(self.out, value);
    }

    /// Begins a member that is an object itself.
    pub fn object(&mut self, name: &str) -> ObjectWriter<'_> {
        self.name(name);
        ObjectWriter::new(self.out)
    }

    pub fn end(self) {
        self.out.push(b'}');
    }
}

fn append(out: &mut Vec<u8>, value: &Value) {
    // A tree without floats or odd keys, written to memory, cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// The v2 document as JSON text.
#[derive(Default)]
pub struct JsonSink {
    members: Vec<u8>,
    paths: Vec<u8>,
    definitions: Vec<u8>,
    parameters: Vec<u8>,
}

fn entry(out: &mut Vec<u8>, name: &str, value: &Value) {
    out.push(if out.is_empty() { b'{' } else { b',' });
    append(out, &name.into());
    out.push(b':');
    append(out, value);
}

impl Sink for JsonSink {
    fn member(&mut self, name: &str, value: &Value) {
        entry(&mut self.members, name, value);
    }

    fn path(&mut self, path: &str, item: &Value) {
        entry(&mut self.paths, path, item);
    }

    fn definition(&mut self, model: &str, schema: &Value) {
        entry(&mut self.definitions, model, schema);
    }

    fn parameter(&mut self, name: &str, parameter: &Value) {
        entry(&mut self.parameters, name, parameter);
    }
}

impl JsonSink {
    pub fn finish(self) -> Vec<u8> {
        let mut out = self.members;
        for (name, part) in [
            ("paths", self.paths),
            ("definitions", self.definitions),
            ("parameters", self.parameters),
        ] {
            if !part.is_empty() {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                out.extend_from_slice(&part);
                out.push(b'}');
            }
        }
        out.push(b'}');
        out
    }
}
