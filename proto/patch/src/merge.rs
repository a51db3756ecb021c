//! JSON merge patch (RFC 7386).

use serde_json::Value;

use crate::{Error, Result};

/// Merges `patch` into `doc`: members that are `null` are removed, objects are merged,
/// everything else replaces.
pub fn apply(doc: &mut Value, patch: Value) -> Result<()> {
    match patch {
        Value::Object(_) | Value::Array(_) => {
            merge(doc, patch);
            Ok(())
        }
        _ => Err(Error::Malformed("Invalid JSON Patch".into())),
    }
}

fn merge(doc: &mut Value, patch: Value) {
    match (doc, patch) {
        (Value::Object(doc), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    doc.remove(&key);
                    continue;
                }
                match doc.get_mut(&key) {
                    Some(existing) => merge(existing, value),
                    None => {
                        doc.insert(key, without_nulls(value));
                    }
                }
            }
        }
        // A list over an object or the like: taken as it is, as upstream does.
        (doc @ Value::Object(_), patch) => *doc = patch,
        (doc, patch) => *doc = without_nulls(patch),
    }
}

/// Drops `null` members of objects, inside lists too; `null` items of lists stay.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k, without_nulls(v)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_rfcs_examples_hold() {
        for (doc, patch, want) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
            (json!({"a": "foo"}), json!(["b"]), json!(["b"])),
        ] {
            let mut got = doc.clone();
            apply(&mut got, patch.clone()).unwrap();
            assert_eq!(got, want, "{doc} + {patch}");
        }
        assert!(apply(&mut json!({}), json!("bar")).is_err());
        assert!(apply(&mut json!({}), json!(null)).is_err());
    }
}
