//! Whether what a client applies is of the type that it shall be.

use std::collections::BTreeSet;
use std::fmt;

use schema::Message;
use serde_json::Value;

use super::typed::{Atom, Ref, Relation, Scalar, element_of};

/// What is wrong with a value, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    path: String,
    message: String,
}

impl Invalid {
    pub fn item(index: usize, message: String) -> Invalid {
        Invalid {
            path: String::new(),
            message: format!("element {index}: {message}"),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Several, as one text.
pub fn join(errors: &[Invalid]) -> String {
    match errors {
        [only] => only.to_string(),
        several => {
            let mut text = "errors:".to_owned();
            for error in several {
                text.push_str(&format!("\n  {error}"));
            }
            text
        }
    }
}

/// Checks an object; `allow_duplicates` lets several items of a list have one key.
pub fn validate(message: &'static Message, value: &Value, allow_duplicates: bool) -> Vec<Invalid> {
    let mut walk = Walk {
        allow_duplicates,
        path: String::new(),
        errors: Vec::new(),
    };
    walk.value(Ref::Object(message), value);
    walk.errors
}

struct Walk {
    allow_duplicates: bool,
    path: String,
    errors: Vec<Invalid>,
}

impl Walk {
    fn error(&mut self, message: impl Into<String>) {
        self.errors.push(Invalid {
            path: self.path.clone(),
            message: message.into(),
        });
    }

    fn at(&mut self, element: &dyn fmt::Display, check: impl FnOnce(&mut Walk)) {
        let length = self.path.len();
        self.path.push_str(&element.to_string());
        check(self);
        self.path.truncate(length);
    }

    fn value(&mut self, of: Ref, value: &Value) {
        if value.is_null() {
            return;
        }
        match of.atom(Some(value)) {
            Atom::Scalar(scalar) => self.scalar(scalar, value),
            Atom::Struct { message, .. } => {
                let Some(members) = self.members(value) else {
                    return;
                };
                for (key, value) in members {
                    let element = format!(".{key}");
                    match message.field(key) {
                        Some(field) => self.at(&element, |w| w.value(Ref::Field(field), value)),
                        None => self.at(&element, |w| w.error("field not declared in schema")),
                    }
                }
            }
            Atom::Map { item, .. } => {
                let Some(members) = self.members(value) else {
                    return;
                };
                for (key, value) in members {
                    self.at(&format!(".{key}"), |w| w.value(item, value));
                }
            }
            Atom::List { item, relation } => {
                let Value::Array(items) = value else {
                    let found = go_value(value);
                    return self.error(format!("expected list, got &{{{found}}}"));
                };
                self.list(item, relation, items);
            }
        }
    }

    fn members<'a>(&mut self, value: &'a Value) -> Option<&'a serde_json::Map<String, Value>> {
        let members = value.as_object();
        if members.is_none() {
            let found = go_value(value);
            self.error(format!("expected map, got &{{{found}}}"));
        }
        members
    }

    fn list(&mut self, item: Ref, relation: Relation, items: &[Value]) {
        let mut seen = BTreeSet::new();
        for (i, value) in items.iter().enumerate() {
            if matches!(relation, Relation::Atomic) {
                self.at(&format!("[{i}]"), |w| w.value(item, value));
                continue;
            }
            let element = match element_of(relation, value) {
                Ok(element) => element,
                Err(e) => return self.error(format!("element {i}: {e}")),
            };
            if seen.contains(&element) && !self.allow_duplicates {
                self.error(format!("duplicate entries for key {element}"));
            }
            self.at(&element, |w| w.value(item, value));
            seen.insert(element);
        }
    }

    fn scalar(&mut self, scalar: Scalar, value: &Value) {
        let compound = value.is_object() || value.is_array();
        match scalar {
            Scalar::Numeric if !value.is_number() => self.error(format!(
                "expected numeric (int or float), got {}",
                go_type(value)
            )),
            Scalar::Text if !value.is_string() => self.error(format!(
                "expected string, got &value.valueUnstructured{{Value:{}}}",
                go_syntax(value)
            )),
            Scalar::Boolean if !value.is_boolean() => {
                self.error(format!("expected boolean, got &{{{}}}", go_value(value)))
            }
            Scalar::Any if compound => {
                self.error(format!("expected any scalar, got &{{{}}}", go_value(value)))
            }
            _ => {}
        }
    }
}

/// As Go's `%T` names the type.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// As Go's `%v` prints a value.
fn go_value(value: &Value) -> String {
    let mut text = String::new();
    put_go_value(value, &mut text);
    text
}

fn put_go_value(value: &Value, out: &mut String) {
    let space = |i| if i > 0 { " " } else { "" };
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(space(i));
                put_go_value(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push_str("map[");
            for (i, (key, value)) in members.iter().enumerate() {
                out.push_str(space(i));
                out.push_str(key);
                out.push(':');
                put_go_value(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// As Go's `%#v` prints a value.
fn go_syntax(value: &Value) -> String {
    let mut text = String::new();
    put_go_syntax(value, &mut text);
    text
}

fn put_go_syntax(value: &Value, out: &mut String) {
    let comma = |i| if i > 0 { ", " } else { "" };
    match value {
        Value::Null => out.push_str("interface {}(nil)"),
        Value::Array(items) => {
            out.push_str("[]interface {}{");
            for (i, item) in items.iter().enumerate() {
                out.push_str(comma(i));
                put_go_syntax(item, out);
            }
            out.push('}');
        }
        Value::Object(members) => {
            out.push_str("map[string]interface {}{");
            for (i, (key, value)) in members.iter().enumerate() {
                out.push_str(comma(i));
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                put_go_syntax(value, out);
            }
            out.push('}');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}
