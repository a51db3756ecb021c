//! The strategic merge patch of a node's status. Pure.

use k8s_openapi::api::core::v1::NodeStatus;
use serde_json::{Map, Value, json};

/// From `old` to `new`; `None` where nothing differs. Conditions merge by type; addresses are
/// replaced as a whole, since their key does not tell two of them apart.
///
/// # Errors
/// When a status does not serialize, which no status does.
pub fn status(old: &NodeStatus, new: &NodeStatus) -> serde_json::Result<Option<Value>> {
    let (Value::Object(old), Value::Object(new)) =
        (serde_json::to_value(old)?, serde_json::to_value(new)?)
    else {
        return Ok(None);
    };
    let mut status = Map::new();
    for (field, value) in &new {
        if old.get(field) == Some(value) {
            continue;
        }
        let value = match (field.as_str(), value) {
            ("conditions", Value::Array(conditions)) => {
                let known = old.get(field).and_then(Value::as_array);
                let changed = conditions
                    .iter()
                    .filter(|c| !known.is_some_and(|known| known.contains(c)));
                Value::Array(changed.cloned().collect())
            }
            ("addresses", Value::Array(addresses)) => Value::Array(
                addresses
                    .iter()
                    .cloned()
                    .chain([json!({"$patch": "replace"})])
                    .collect(),
            ),
            _ => {
                let mut value = value.clone();
                null_missing(old.get(field), &mut value);
                value
            }
        };
        status.insert(field.clone(), value);
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        status.insert(field.clone(), Value::Null);
    }
    Ok((!status.is_empty()).then(|| json!({"status": status})))
}

fn null_missing(before: Option<&Value>, value: &mut Value) {
    let (Some(Value::Object(before)), Value::Object(value)) = (before, value) else {
        return;
    };
    for (field, old) in before {
        match value.get_mut(field) {
            Some(new) => null_missing(Some(old), new),
            None => {
                value.insert(field.clone(), Value::Null);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs() {
        let of = |value: Value| serde_json::from_value::<NodeStatus>(value).unwrap();
        let old = of(
            json!({"capacity": {"cpu": "1", "x": "1"}, "addresses": [{"type": "A", "address": "1"}],
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "P", "status": "False"}]}),
        );
        let new = of(
            json!({"capacity": {"cpu": "2"}, "addresses": [{"type": "A", "address": "2"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "P", "status": "False"}]}),
        );
        assert_eq!(
            status(&old, &new).unwrap().unwrap(),
            json!({"status": {
                "capacity": {"cpu": "2", "x": null},
                "addresses": [{"type": "A", "address": "2"}, {"$patch": "replace"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            }})
        );
        assert_eq!(status(&new, &new).unwrap(), None);
    }
}
