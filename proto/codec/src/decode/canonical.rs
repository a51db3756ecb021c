//! Sparing a tree the way through its own text. What [`super::json`] makes of the text is mostly
//! the same tree: a patch changes little of an object that was read from storage.
//!
//! What must not be here: errors. What is not canonical is for the decoder to judge.

use base64::Engine as _;
use schema::{Cardinality, Message, Special, Type};
use serde_json::{Map, Value};

use crate::MAX_DEPTH;
use crate::assemble::{Finder, decode_base64};
use crate::special;

/// What decoding the tree's text gives, where that is the tree but for members that are `null`,
/// and the decoder would find nothing to say about it.
///
/// # Errors
/// The tree as it was: its text must be decoded.
pub fn canonical(msg: &'static Message, mut tree: Value) -> Result<Value, Value> {
    let mut walk = Walk { nulls: false };
    let canonical = tree
        .as_object()
        .is_some_and(|members| walk.members(msg, members, 0));
    if !canonical {
        return Err(tree);
    }
    if walk.nulls {
        without_nulls(&mut tree);
    }
    Ok(tree)
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

struct Walk {
    /// A message has a member that is `null`. Nothing else is, in what is canonical.
    nulls: bool,
}

impl Walk {
    fn members(
        &mut self,
        msg: &'static Message,
        members: &Map<String, Value>,
        depth: usize,
    ) -> bool {
        if depth >= MAX_DEPTH {
            return false;
        }
        let mut finder = Finder::new(msg);
        members.iter().all(|(key, value)| {
            let Some((field, _)) = finder.find(key) else {
                return false;
            };
            if value.is_null() {
                self.nulls = true;
                return true;
            }
            let mut each = |value: &Value| self.value(&field.ty, value, depth + 1);
            match (field.cardinality, value) {
                (Cardinality::One, value) => each(value),
                (Cardinality::List, Value::Array(items)) => items.iter().all(each),
                (Cardinality::Map, Value::Object(entries)) => entries.values().all(each),
                _ => false,
            }
        })
    }

    fn value(&mut self, ty: &'static Type, value: &Value, depth: usize) -> bool {
        match (ty, value) {
            (Type::Message(msg), Value::Object(members)) => self.members(msg, members, depth),
            (ty, value) => scalar(ty, value),
        }
    }
}

fn scalar(ty: &Type, value: &Value) -> bool {
    match (ty, value) {
        (Type::Bool, Value::Bool(_)) | (Type::String, Value::String(_)) => true,
        (Type::Int32, Value::Number(n)) => n.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
        (Type::Int64, Value::Number(n)) => n.as_i64().is_some(),
        (Type::Float64, Value::Number(n)) => n.is_f64(),
        (Type::Bytes, Value::String(text)) => decode_base64(text)
            .is_ok_and(|bytes| base64::engine::general_purpose::STANDARD.encode(bytes) == *text),
        (Type::Special(special), value) => text(*special, value),
        _ => false,
    }
}

fn text(special: Special, value: &Value) -> bool {
    match (special, value) {
        (Special::IntOrString, Value::Number(n)) => {
            n.as_i64().is_some_and(|n| i32::try_from(n).is_ok())
        }
        (Special::IntOrString, Value::String(_)) => true,
        (
            Special::Quantity | Special::Time | Special::MicroTime | Special::Duration,
            Value::String(text),
        ) => special::normal_text(special, text).is_ok_and(|normal| normal == *text),
        // Their contents nest as they like.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::{Strictness, json};

    fn pod() -> &'static Message {
        schema::kind("", "v1", "Pod").unwrap()
    }

    /// What is taken for canonical is what the decoder makes of it.
    fn is_canonical(tree: &Value) -> bool {
        let Ok(settled) = canonical(pod(), tree.clone()) else {
            return false;
        };
        let text = tree.to_string();
        let decoded = json(pod(), text.as_bytes(), Strictness::Strict).unwrap();
        assert_eq!(decoded.value, settled);
        assert!(decoded.strict_errors.is_empty());
        true
    }

    #[test]
    fn what_the_decoder_would_change_is_not_canonical() {
        let container = |member: &str, value: Value| {
            let mut container = json!({"name": "c"});
            container[member] = value;
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [container]}})
        };
        let quantity = |q: Value| container("resources", json!({"limits": {"cpu": q}}));
        let port = |p: Value| container("livenessProbe", json!({"httpGet": {"port": p}}));
        for good in [
            container("image", json!("i")),
            container("image", json!(null)),
            container("securityContext", json!({"runAsUser": null})),
            container("ports", json!([{"containerPort": 80}])),
            quantity(json!("500m")),
            port(json!(80)),
            port(json!("http")),
            json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"a": ""}}}),
        ] {
            assert!(is_canonical(&good), "{good}");
        }
        for bad in [
            container("image", json!(1)),
            container("unknown", json!(1)),
            container("ports", json!([null])),
            container("ports", json!([{"containerPort": 80.0}])),
            container("ports", json!([{"containerPort": 1i64 << 31}])),
            container("ports", json!({})),
            quantity(json!("0.5")),
            quantity(json!(1)),
            port(json!(1i64 << 31)),
            json!({"metadata": {"creationTimestamp": "2026-01-01T01:00:00+01:00"}}),
            json!({"metadata": {"labels": {"a": null}}}),
            json!([]),
        ] {
            assert!(!is_canonical(&bad), "{bad}");
        }
    }
}
