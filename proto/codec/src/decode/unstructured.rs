//! Fitting a tree that was merged or patched to its type, as upstream's converter of
//! unstructured objects does it: more leniently than the decoder where numbers are concerned,
//! and with errors of its own.
//!
//! What has a JSON form of its own (times, quantities, …) is left to the decoder.

use schema::{Cardinality, Message, Type};
use serde_json::Value;

/// Makes the numbers of a tree integers of their fields' sizes, by Go's conversions.
///
/// # Errors
/// The converter's words for the first value, in the schema's order, that it does not convert.
pub fn unstructured(msg: &'static Message, tree: &mut Value) -> Result<(), String> {
    let word = kind(tree);
    let Value::Object(members) = tree else {
        return Err(format!("cannot restore struct from: {word}"));
    };
    for field in msg.fields {
        if field.json.is_empty() {
            if let Type::Message(inlined) = &field.ty {
                // Its members are ours.
                let mut own = Value::Object(std::mem::take(members));
                let done = unstructured(inlined, &mut own);
                if let Value::Object(own) = own {
                    *members = own;
                }
                done?;
            }
            continue;
        }
        let Some(value) = members.get_mut(field.json) else {
            continue;
        };
        let word = kind(value);
        match (field.cardinality, value) {
            (_, Value::Null) => {}
            (Cardinality::One, value) => single(&field.ty, value)?,
            (Cardinality::List, Value::Array(items)) => {
                for item in items {
                    single(&field.ty, item)?;
                }
            }
            (Cardinality::List, _) => return Err(format!("cannot restore slice from {word}")),
            (Cardinality::Map, Value::Object(entries)) => {
                for value in entries.values_mut() {
                    single(&field.ty, value)?;
                }
            }
            (Cardinality::Map, _) => return Err(format!("cannot restore map from {word}")),
        }
    }
    Ok(())
}

fn single(ty: &'static Type, value: &mut Value) -> Result<(), String> {
    let name = match ty {
        Type::Message(msg) => {
            return match value {
                Value::Null => Ok(()),
                value => unstructured(msg, value),
            };
        }
        Type::Special(_) => return Ok(()),
        Type::Bytes => {
            return match value {
                Value::Null | Value::String(_) | Value::Array(_) => Ok(()),
                other => Err(format!("cannot restore slice from {}", kind(other))),
            };
        }
        Type::Bool => "bool",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Float64 => "float64",
        Type::String => "string",
    };
    match (ty, &*value) {
        (_, Value::Null) | (Type::Bool, Value::Bool(_)) | (Type::String, Value::String(_)) => {}
        (Type::Float64, Value::Number(_)) => {}
        (Type::Int32 | Type::Int64, Value::Number(number)) => {
            let Some(whole) = integer(number) else {
                return Err(format!("cannot convert float64 to {name}"));
            };
            *value = match ty {
                Type::Int32 => (whole as i32).into(),
                _ => whole.into(),
            };
        }
        // Go's integers are convertible to strings, which is not what is wanted here.
        (Type::String, Value::Number(number)) if !number.is_f64() => {
            return Err(format!("cannot convert int64 to {name}"));
        }
        _ => return Err(format!("unrecognized type: {name}")),
    }
    Ok(())
}

/// A whole number as amd64 converts it: what is beyond is the least one.
fn integer(number: &serde_json::Number) -> Option<i64> {
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if let Some(whole) = number.as_i64() {
        return Some(whole);
    }
    let float = number.as_f64()?;
    if float != float.trunc() {
        return None;
    }
    Some(if (-BEYOND..BEYOND).contains(&float) {
        float as i64
    } else {
        i64::MIN
    })
}

/// Go's kind of what JSON decodes to.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fitted(kind: &str, mut tree: Value) -> Result<Value, String> {
        let group = if kind == "Deployment" { "apps" } else { "" };
        let msg = schema::kind(group, "v1", kind).unwrap();
        unstructured(msg, &mut tree).map(|()| tree)
    }

    #[test]
    fn numbers_become_what_go_makes_of_them() {
        for (sent, want) in [
            (json!(4_294_967_298_i64), 2),
            (json!(1e2), 100),
            (json!(1.8446744073709552e19), 0),
            (json!(-1e30), 0),
        ] {
            let fitted = fitted("Deployment", json!({"spec": {"replicas": sent}}));
            assert_eq!(fitted, Ok(json!({"spec": {"replicas": want}})), "{sent}");
        }
        let generation = fitted("ConfigMap", json!({"metadata": {"generation": 1e19}}));
        assert_eq!(
            generation,
            Ok(json!({"metadata": {"generation": i64::MIN}}))
        );
    }

    #[test]
    fn what_does_not_fit_is_told_in_the_converters_words() {
        for (kind, tree, want) in [
            (
                "Deployment",
                json!({"spec": {"replicas": 1.5}}),
                "cannot convert float64 to int32",
            ),
            (
                "Deployment",
                json!({"spec": {"replicas": "1"}}),
                "unrecognized type: int32",
            ),
            (
                "Deployment",
                json!({"spec": []}),
                "cannot restore struct from: slice",
            ),
            (
                "Deployment",
                json!({"spec": {"paused": 1}}),
                "unrecognized type: bool",
            ),
            (
                "ConfigMap",
                json!({"data": {"a": 1}}),
                "cannot convert int64 to string",
            ),
            (
                "ConfigMap",
                json!({"data": {"a": true}}),
                "unrecognized type: string",
            ),
            (
                "ConfigMap",
                json!({"data": []}),
                "cannot restore map from slice",
            ),
            (
                "ConfigMap",
                json!({"data": "x"}),
                "cannot restore map from string",
            ),
            (
                "ConfigMap",
                json!({"binaryData": {"a": 1}}),
                "cannot restore slice from int64",
            ),
            (
                "ConfigMap",
                json!({"metadata": {"managedFields": "x"}}),
                "cannot restore slice from string",
            ),
        ] {
            assert_eq!(fitted(kind, tree.clone()), Err(want.to_owned()), "{tree}");
        }
    }
}
