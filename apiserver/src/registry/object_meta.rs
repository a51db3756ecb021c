//! `metadata` of an object tree: reading it, and the fields that only the server writes.
//!
//! What must not be here: rules of one kind.

use std::collections::HashSet;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The finalizer that asks the garbage collector to set dependents free.
pub const FINALIZER_ORPHAN: &str = "orphan";
/// The finalizer that asks the garbage collector to delete dependents first.
pub const FINALIZER_FOREGROUND: &str = "foregroundDeletion";

static NULL: Value = Value::Null;

/// Read access to `metadata`.
#[derive(Debug, Clone, Copy)]
pub struct Meta<'a>(&'a Value);

/// `metadata` of an object; every getter answers with the empty value for what is absent.
pub fn meta(object: &Value) -> Meta<'_> {
    Meta(object.get("metadata").unwrap_or(&NULL))
}

impl<'a> Meta<'a> {
    fn text(self, key: &str) -> &'a str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn name(self) -> &'a str {
        self.text("name")
    }

    pub fn generate_name(self) -> &'a str {
        self.text("generateName")
    }

    pub fn namespace(self) -> &'a str {
        self.text("namespace")
    }

    pub fn uid(self) -> &'a str {
        self.text("uid")
    }

    pub fn resource_version(self) -> &'a str {
        self.text("resourceVersion")
    }

    pub fn generation(self) -> i64 {
        self.0
            .get("generation")
            .and_then(Value::as_i64)
            .unwrap_or_default()
    }

    pub fn deletion_timestamp(self) -> Option<Timestamp> {
        self.text("deletionTimestamp").parse().ok()
    }

    pub fn is_deleting(self) -> bool {
        !self.text("deletionTimestamp").is_empty()
    }

    /// Seconds.
    pub fn deletion_grace_period(self) -> Option<i64> {
        self.0
            .get("deletionGracePeriodSeconds")
            .and_then(Value::as_i64)
    }

    pub fn finalizers(self) -> impl Iterator<Item = &'a str> {
        self.0
            .get("finalizers")
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .filter_map(Value::as_str)
    }

    pub fn has_finalizers(self) -> bool {
        self.finalizers().next().is_some()
    }

    pub fn annotation(self, key: &str) -> Option<&'a str> {
        self.0.get("annotations")?.get(key)?.as_str()
    }

    pub fn get(self, key: &str) -> Option<&'a Value> {
        self.0.get(key)
    }
}

/// `metadata` for writing; made when it is absent.
pub fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_mut(object, "metadata")
}

/// A member that is an object; made when it is absent or something else.
pub fn child_mut<'a>(object: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let child = object
        .as_object_mut()
        .expect("made an object above")
        .entry(key)
        .or_insert_with(|| json!({}));
    if !child.is_object() {
        *child = json!({});
    }
    child.as_object_mut().expect("made an object above")
}

/// Sets a member, or removes it when there is nothing to set.
pub fn set(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    match value {
        Some(value) => {
            map.insert(key.to_owned(), value);
        }
        None => {
            map.remove(key);
        }
    }
}

/// Sets a text, or removes it when it is empty.
pub fn set_text(map: &mut Map<String, Value>, key: &str, text: &str) {
    set(map, key, (!text.is_empty()).then(|| json!(text)));
}

/// Takes a member over from another object.
pub fn keep(object: &mut Value, from: &Value, key: &str) {
    // Mostly they are the same, and comparing costs less than copying.
    if let Some(object) = object.as_object_mut()
        && object.get(key) != from.get(key)
    {
        set(object, key, from.get(key).cloned());
    }
}

/// Seconds precision, as `metav1.Time` has it.
pub fn time(at: Timestamp) -> Value {
    json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// Drops what a client may not choose on create (`rest.WipeObjectMetaSystemFields`).
pub fn wipe_system_fields(object: &mut Value) {
    let meta = meta_mut(object);
    for key in [
        "creationTimestamp",
        "uid",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
    ] {
        meta.remove(key);
    }
}

pub fn fill_system_fields(object: &mut Value, now: Timestamp, uid: &str) {
    let meta = meta_mut(object);
    meta.insert("creationTimestamp".into(), time(now));
    meta.insert("uid".into(), json!(uid));
}

pub fn set_finalizers(object: &mut Value, finalizers: &[String]) {
    set(
        meta_mut(object),
        "finalizers",
        (!finalizers.is_empty()).then(|| json!(finalizers)),
    );
}

pub fn set_generation(object: &mut Value, generation: i64) {
    set(
        meta_mut(object),
        "generation",
        (generation != 0).then(|| json!(generation)),
    );
}

/// Drops owner references that are repeated; says whose.
pub fn dedup_owner_references(object: &mut Value) -> Vec<String> {
    let Some(references) = object
        .get_mut("metadata")
        .and_then(|m| m.get_mut("ownerReferences"))
        .and_then(Value::as_array_mut)
    else {
        return Vec::new();
    };
    // There may be as many as a body holds.
    let mut seen = HashSet::with_capacity(references.len());
    let mut duplicates = Vec::new();
    references.retain(|reference| {
        let is_new = seen.insert(reference.clone());
        if !is_new {
            duplicates.push(reference["uid"].as_str().unwrap_or_default().to_owned());
        }
        is_new
    });
    duplicates
}

/// Equal in Kubernetes' eyes: absent, `null` and empty lists, maps and texts are the same.
pub fn semantically_equal(a: Option<&Value>, b: Option<&Value>) -> bool {
    fn empty(value: Option<&Value>) -> bool {
        match value {
            None | Some(Value::Null) => true,
            Some(Value::Array(items)) => items.is_empty(),
            Some(Value::Object(map)) => map.values().all(|v| empty(Some(v))),
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Bool(b)) => !b,
            Some(Value::Number(_)) => false,
        }
    }
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            a.iter().all(|(k, v)| semantically_equal(Some(v), b.get(k)))
                && b.iter().all(|(k, v)| a.contains_key(k) || empty(Some(v)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| semantically_equal(Some(a), Some(b)))
        }
        _ => a == b || (empty(a) && empty(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emptiness_does_not_make_a_difference() {
        let eq = |a: Value, b: Value| semantically_equal(Some(&a), Some(&b));
        assert!(eq(json!({"a": [], "b": null}), json!({"c": {}})));
        assert!(eq(json!([{"x": ""}]), json!([{}])));
        assert!(!eq(json!({"a": 0}), json!({})));
        assert!(!eq(json!({"a": [1]}), json!({"a": [2]})));
        assert!(!eq(json!([{}]), json!([])));
        assert!(semantically_equal(None, Some(&json!({}))));
    }

    #[test]
    fn repeated_owners_are_dropped() {
        let mut object = json!({"metadata": {"ownerReferences": [
            {"uid": "a", "name": "x"}, {"uid": "a", "name": "x"}, {"uid": "a", "name": "y"}
        ]}});
        assert_eq!(dedup_owner_references(&mut object), ["a"]);
        assert_eq!(
            object["metadata"]["ownerReferences"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn times_have_seconds() {
        let at: Timestamp = "2024-05-06T07:08:09.987654Z".parse().unwrap();
        assert_eq!(time(at), "2024-05-06T07:08:09Z");
    }
}
