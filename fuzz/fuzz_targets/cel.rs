//! An expression is compiled or refused, and has a value, or none, or costs too much, whatever
//! the object that it is about. And it has a type, or something is wrong with it that can be shown.

#![no_main]

use cel::{Environment, Field, Key, Map, ObjectTypes, Program, Type, Value};
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

/// An object has itself, under many names, and what it has of other types.
struct Fields;

impl ObjectTypes for Fields {
    fn field(&self, object: &str, field: &str) -> Field {
        match field.len() % 6 {
            0 => Field::Is(Type::object(object)),
            1 => Field::Is(Type::list(Type::object(object))),
            2 => Field::Is(Type::map(Type::String, Type::Int)),
            3 => Field::Is(Type::optional(Type::Timestamp)),
            4 => Field::Undefined,
            _ => Field::UnknownObject,
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let (text, object) = fuzz::halves(data).unwrap_or((data, b"null"));
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let environment = Environment::new(&Fields)
        .variable("object", Type::object("Object"))
        .variable("oldObject", Type::Dyn);
    if let Err(issues) = environment.check(text) {
        assert!(issues.to_string().starts_with("ERROR: "));
    }
    if let Ok(program) = Program::compile(text, &["object", "oldObject"])
        && let Ok(object) = codec::decode::untyped(object)
    {
        let object = value(&object);
        let variables = [("object", object.clone()), ("oldObject", object)];
        let _ = program.evaluate(&variables, LIMIT);
    }
});
