//! The protobuf form of the documents: gnostic's `openapi.v2.Document` and
//! `openapi.v3.Document`.
//!
//! What must not be here: what the documents say.

pub mod v2;
pub mod v3;

use serde_json::Value;

/// A message that is being written; fields by number.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, number: u64, message: &Message) {
        self.bytes(number, &message.0);
    }

    /// A string member of `value`, when it is there and not empty.
    fn text(&mut self, number: u64, value: &Value, member: &str) {
        if let Some(text) = value[member].as_str().filter(|t| !t.is_empty()) {
            self.bytes(number, text.as_bytes());
        }
    }

    fn texts(&mut self, number: u64, value: &Value, member: &str) {
        for text in value[member].as_array().into_iter().flatten() {
            self.bytes(number, text.as_str().unwrap_or_default().as_bytes());
        }
    }

    fn flag(&mut self, number: u64, value: &Value, member: &str) {
        if value[member] == true {
            self.boolean(number, true);
        }
    }

    fn boolean(&mut self, number: u64, value: bool) {
        self.varint(number << 3);
        self.varint(value.into());
    }

    fn double(&mut self, number: u64, value: f64) {
        self.varint(number << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Members that begin with `x-`, each a `NamedAny`.
    fn extensions(&mut self, number: u64, value: &Value) {
        for (name, value) in value.as_object().into_iter().flatten() {
            if name.starts_with("x-") {
                self.named(number, name, &any(value));
            }
        }
    }

    /// The entries of an object, each as `entry` writes it.
    fn map(&mut self, number: u64, value: &Value, entry: impl Fn(&Value) -> Message) {
        for (name, value) in value.as_object().into_iter().flatten() {
            self.named(number, name, &entry(value));
        }
    }

    /// `Named…{name, value}`, as gnostic writes entries of maps.
    fn named(&mut self, number: u64, name: &str, value: &Message) {
        let mut entry = Message::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, value);
        self.message(number, &entry);
    }
}

/// One member of a oneof, wrapped in the message that holds it.
fn one_of(number: u64, value: Message) -> Message {
    let mut out = Message::default();
    out.message(number, &value);
    out
}

/// `Any{yaml}`; JSON is YAML.
fn any(value: &Value) -> Message {
    let mut out = Message::default();
    out.bytes(2, value.to_string().as_bytes());
    out
}
