//! Whether two values mean the same. To upstream's `apiequality.Semantic` absent and empty lists
//! and maps are one, and so are absent values and zeros where Go has no pointer; a pointer to
//! nothing is not one to something empty. Quantities and times go by what they are worth.
//!
//! What must not be here: which fields may change.

use meta::quantity::Quantity;
use schema::{Cardinality, Field, Message, Special, Type};
use serde_json::{Map, Value};

/// How much two values may differ and still be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// `apiequality.Semantic`.
    Meaning,
    /// `reflect.DeepEqual`, to which an empty list or map is not an absent one.
    Value,
}

/// Whether two values of a message mean the same; that one of them may be absent is for who
/// calls it to know.
pub fn same(message: &Message, a: Option<&Value>, b: Option<&Value>, by: By) -> bool {
    a == b || same_message(message, a, b, by)
}

/// The fields of a message in which two differ.
pub fn differing(
    message: &Message,
    a: Option<&Value>,
    b: Option<&Value>,
    by: By,
) -> Vec<&'static str> {
    if a == b {
        return Vec::new();
    }
    let fields = message.fields.iter();
    let changed = fields.filter(|field| !same_in(field, object(a), object(b), by));
    changed.map(|field| field.json).collect()
}

fn object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn same_message(message: &Message, a: Option<&Value>, b: Option<&Value>, by: By) -> bool {
    let (a, b) = (object(a), object(b));
    message.fields.iter().all(|field| same_in(field, a, b, by))
}

/// Whether two objects have the same in a field.
fn same_in(
    field: &Field,
    a: Option<&Map<String, Value>>,
    b: Option<&Map<String, Value>>,
    by: By,
) -> bool {
    if field.json.is_empty() {
        return match field.ty {
            Type::Message(inlined) => inlined.fields.iter().all(|f| same_in(f, a, b, by)),
            _ => true,
        };
    }
    let [a, b] = [a, b].map(|of| of.and_then(|o| o.get(field.json)).filter(|v| !v.is_null()));
    if a == b {
        return true;
    }
    let told_apart = match field.cardinality {
        // Bytes are a list in Go.
        Cardinality::One => field.pointer || (matches!(field.ty, Type::Bytes) && by == By::Value),
        Cardinality::List | Cardinality::Map => by == By::Value,
    };
    if told_apart && a.is_some() != b.is_some() {
        return false;
    }
    match field.cardinality {
        Cardinality::List => {
            let [a, b] = [a, b].map(|list| list.and_then(Value::as_array).map_or(&[][..], |l| l));
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| same_value(field.ty, Some(a), Some(b), by))
        }
        Cardinality::Map => {
            let of = |map: Option<&Value>| object(map).map_or(0, Map::len);
            of(a) == of(b)
                && object(a).into_iter().flatten().all(|(key, value)| {
                    let other = object(b).and_then(|b| b.get(key));
                    other.is_some() && same_value(field.ty, Some(value), other, by)
                })
        }
        Cardinality::One => same_value(field.ty, a, b, by),
    }
}

fn same_value(ty: Type, a: Option<&Value>, b: Option<&Value>, by: By) -> bool {
    match ty {
        Type::Message(message) => same_message(message, a, b, by),
        Type::Special(Special::Quantity) => amount(a) == amount(b),
        Type::Special(Special::Time | Special::MicroTime) => time(a) == time(b),
        _ => unless_zero(a) == unless_zero(b),
    }
}

/// Zero where there is none; `None` for what is no amount.
fn amount(value: Option<&Value>) -> Option<Quantity> {
    match value {
        None => Some(Quantity::default()),
        Some(Value::String(text)) => text.parse().ok(),
        Some(number) => number.to_string().parse().ok(),
    }
}

fn time(value: Option<&Value>) -> Option<jiff::Timestamp> {
    value.and_then(Value::as_str)?.parse().ok()
}

fn unless_zero(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(name: &str) -> &'static Message {
        schema::message(&format!("io.k8s.{name}")).unwrap()
    }

    #[test]
    fn only_pointers_tell_absent_from_empty() {
        let of_kind = |a: &Value, b: &Value, by| {
            let message = message("api.core.v1.Container");
            same(message, Some(a), Some(b), by) && same(message, Some(b), Some(a), by)
        };
        let of = |a: &Value, b: &Value| of_kind(a, b, By::Meaning);
        let bare = || json!({"name": "a"});
        for same in [
            json!({"name": "a", "env": [], "command": null}),
            json!({"name": "a", "resources": {"requests": {}}, "image": ""}),
        ] {
            assert!(of(&bare(), &same));
        }
        for other in [
            json!({"name": "a", "lifecycle": {}}),
            json!({"name": "a", "securityContext": {}}),
            json!({"name": "b"}),
            json!({"name": "a", "env": [{}]}),
        ] {
            assert!(!of(&bare(), &other));
        }
        assert!(!of_kind(
            &bare(),
            &json!({"name": "a", "env": []}),
            By::Value
        ));
        let bundled = |by| {
            let message = message("api.admissionregistration.v1.WebhookClientConfig");
            let [none, empty] = [json!({}), json!({"caBundle": ""})];
            same(message, Some(&none), Some(&empty), by)
        };
        assert!(bundled(By::Meaning) && !bundled(By::Value));
    }

    #[test]
    fn amounts_and_times_go_by_their_worth() {
        let asks = |cpu: Value| json!({"requests": {"cpu": cpu}});
        let of = |a, b| {
            let message = message("api.core.v1.ResourceRequirements");
            same(message, Some(&asks(a)), Some(&asks(b)), By::Meaning)
        };
        assert!(of(json!("1"), json!("1000m")) && of(json!(1), json!("1")));
        assert!(!of(json!("1"), json!("1001m")));
        let meta = |time: &str| json!({"deletionTimestamp": time});
        let of = |a, b| {
            let message = message("apimachinery.pkg.apis.meta.v1.ObjectMeta");
            same(message, Some(&meta(a)), Some(&meta(b)), By::Meaning)
        };
        assert!(of("2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00"));
        assert!(!of("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"));
    }

    #[test]
    fn what_differs_is_named() {
        let (a, b) = (
            json!({"volumeName": "", "accessModes": ["x"], "selector": {}}),
            json!({"accessModes": ["y"]}),
        );
        let message = message("api.core.v1.PersistentVolumeClaimSpec");
        assert_eq!(
            differing(message, Some(&a), Some(&b), By::Meaning),
            ["accessModes", "selector"]
        );
    }
}
