//! An expression is compiled or refused, and has a value, or none, or costs too much, whatever
//! the object that it is about.

#![no_main]

use cel::{Key, Map, Program, Value};
use libfuzzer_sys::fuzz_target;
use serde_json::Value as Json;

/// What an expression may cost: of the order of what the API server allows.
const LIMIT: u64 = 1_000_000;

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(v) => Value::Bool(*v),
        Json::Number(v) => match (v.as_i64(), v.as_u64()) {
            (Some(v), _) => Value::Int(v),
            (None, Some(v)) => Value::Uint(v),
            (None, None) => Value::Double(v.as_f64().unwrap_or_default()),
        },
        Json::String(v) => Value::String(v.as_str().into()),
        Json::Array(list) => Value::List(list.iter().map(value).collect()),
        Json::Object(map) => Value::Map(
            Map {
                entries: map
                    .iter()
                    .map(|(k, v)| (Key::String(k.as_str().into()), value(v)))
                    .collect(),
                otherwise: None,
            }
            .into(),
        ),
    }
}

fuzz_target!(|data: &[u8]| {
    let (text, object) = fuzz::halves(data).unwrap_or((data, b"null"));
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    if let Ok(program) = Program::compile(text, &["object", "oldObject"])
        && let Ok(object) = codec::decode::untyped(object)
    {
        let object = value(&object);
        let variables = [("object", object.clone()), ("oldObject", object)];
        let _ = program.evaluate(&variables, LIMIT);
    }
});
