//! `metav1.FieldsV1` as text, which is also what trees hold of it: most who read an object have
//! no use for what is inside. Its members are ordered by the path elements that their keys
//! stand for: numbers among the values of keys are compared as numbers, where a sorted map
//! compares their digits.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use crate::decode;
use crate::json::write;

/// The text of a field set, members in structured-merge-diff's order.
pub fn text(fields: &Value) -> String {
    let mut out = Vec::new();
    put(fields, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// What a tree holds of a field set, as JSON.
pub fn expand(fields: &mut Value) {
    if let Value::String(text) = fields {
        *fields = decode::untyped(text.as_bytes()).unwrap_or_default();
    }
}

/// Appends a field set, members in structured-merge-diff's order.
pub fn put(fields: &Value, out: &mut Vec<u8>) {
    let Value::Object(members) = fields else {
        // Whatever else a client sent: it is kept as it is.
        out.extend_from_slice(fields.to_string().as_bytes());
        return;
    };
    out.push(b'{');
    for (i, (key, below)) in ordered(members).into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write::string(out, key.as_bytes());
        out.push(b':');
        put(below, out);
    }
    out.push(b'}');
}

fn ordered(members: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut list: Vec<_> = members.iter().collect();
    let by_value = |key: &str| key.starts_with("k:") || key.starts_with("v:");
    if list.iter().filter(|(key, _)| by_value(key)).count() < 2 {
        return list;
    }
    let mut parsed: Vec<(Option<Value>, (&String, &Value))> = list
        .drain(..)
        .map(|member| {
            let value = by_value(member.0).then(|| serde_json::from_str(&member.0[2..]).ok());
            (value.flatten(), member)
        })
        .collect();
    parsed.sort_by(|(a, (x, _)), (b, (y, _))| match (a, b) {
        (Some(a), Some(b)) if x.as_bytes()[0] == y.as_bytes()[0] => compare(a, b),
        _ => x.cmp(y),
    });
    parsed.into_iter().map(|(_, member)| member).collect()
}

/// structured-merge-diff's total order of values: numbers, texts, booleans, lists, maps, null.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    fn rank(value: &Value) -> u8 {
        match value {
            Value::Number(_) => 0,
            Value::String(_) => 1,
            Value::Bool(_) => 2,
            Value::Array(_) => 3,
            Value::Object(_) => 4,
            Value::Null => 5,
        }
    }
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => {
                let (a, b) = (a.as_f64().unwrap_or(0.0), b.as_f64().unwrap_or(0.0));
                a.partial_cmp(&b).unwrap_or(Ordering::Equal)
            }
        },
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => a
            .iter()
            .zip(b)
            .map(|(a, b)| compare(a, b))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| a.len().cmp(&b.len())),
        (Value::Object(a), Value::Object(b)) => a
            .iter()
            .zip(b)
            .map(|((k, a), (l, b))| k.cmp(l).then_with(|| compare(a, b)))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| a.len().cmp(&b.len())),
        _ => rank(a).cmp(&rank(b)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_ordered_as_numbers() {
        let fields = json!({"f:ports": {
            ".": {},
            r#"k:{"containerPort":443,"protocol":"TCP"}"#: {},
            r#"k:{"containerPort":80,"protocol":"TCP"}"#: {".": {}},
        }});
        let mut out = Vec::new();
        put(&fields, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            concat!(
                r#"{"f:ports":{".":{},"#,
                r#""k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{}},"#,
                r#""k:{\"containerPort\":443,\"protocol\":\"TCP\"}":{}}}"#,
            )
        );
    }
}
