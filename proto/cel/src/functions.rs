//! Functions of the language itself, and the way to all others.

use regex::Regex;

use crate::eval::{Budget, contains};
use crate::value::Value;
use crate::{EvalError, kubernetes, strings};

pub type Outcome = Result<Value, EvalError>;

const GLOBAL: [&str; 10] = [
    "bool", "bytes", "double", "dyn", "int", "matches", "size", "string", "type", "uint",
];
const OPTIONAL: [&str; 3] = ["optional.none", "optional.of", "optional.ofNonZeroValue"];
const SETS: [&str; 3] = ["sets.contains", "sets.equivalent", "sets.intersects"];
const METHODS: [&str; 9] = [
    "contains",
    "endsWith",
    "hasValue",
    "matches",
    "or",
    "orValue",
    "size",
    "startsWith",
    "value",
];

/// Whether there is a function of this name.
pub fn exists(name: &str, method: bool) -> bool {
    if method {
        METHODS.contains(&name)
            || strings::METHODS.contains(&name)
            || kubernetes::METHODS.contains(&name)
    } else {
        GLOBAL.contains(&name)
            || OPTIONAL.contains(&name)
            || SETS.contains(&name)
            || kubernetes::GLOBAL.contains(&name)
    }
}

pub fn call(name: &str, target: Option<&Value>, arguments: &[Value], budget: &Budget) -> Outcome {
    let Some(target) = target else {
        return global(name, arguments, budget);
    };
    for value in std::iter::once(target).chain(arguments) {
        if let Value::String(text) = value {
            budget.spend_on_text(text.len())?;
        }
    }
    match (name, target, arguments) {
        ("size", _, []) => size(target),
        ("matches", Value::String(text), [Value::String(pattern)]) => matches(text, pattern),
        ("contains", Value::String(text), [Value::String(part)]) => {
            Ok(text.contains(&**part).into())
        }
        ("startsWith", Value::String(text), [Value::String(part)]) => {
            Ok(text.starts_with(&**part).into())
        }
        ("endsWith", Value::String(text), [Value::String(part)]) => {
            Ok(text.ends_with(&**part).into())
        }
        ("hasValue", Value::Optional(option), []) => Ok(option.is_some().into()),
        ("value", Value::Optional(option), []) => match option {
            Some(value) => Ok((**value).clone()),
            None => Err(EvalError::other("optional.none() dereference")),
        },
        (_, Value::String(text), _) if strings::METHODS.contains(&name) => {
            strings::method(name, text, arguments, budget)
        }
        ("join", Value::List(list), _) => strings::join(list, arguments),
        _ => kubernetes::method(name, target, arguments, budget),
    }
}

fn matches(text: &str, pattern: &str) -> Outcome {
    let regex = Regex::new(pattern)
        .map_err(|error| EvalError::other(format!("error parsing regexp: {error}")))?;
    Ok(regex.is_match(text).into())
}

fn size(of: &Value) -> Outcome {
    let size = match of {
        Value::String(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.entries.len(),
        _ => return Err(EvalError::NoSuchOverload),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn global(name: &str, arguments: &[Value], budget: &Budget) -> Outcome {
    match (name, arguments) {
        ("size", [of]) => size(of),
        ("matches", [Value::String(text), Value::String(pattern)]) => {
            budget.spend_on_text(text.len() + pattern.len())?;
            matches(text, pattern)
        }
        ("dyn", [of]) => Ok(of.clone()),
        ("type", [of]) => Ok(Value::Type(of.type_name())),
        ("int" | "uint" | "double" | "string" | "bool" | "bytes", [of]) => convert(name, of),
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.of", [of]) => Ok(Value::some(of.clone())),
        ("optional.ofNonZeroValue", [of]) => Ok(if is_zero(of) {
            Value::Optional(None)
        } else {
            Value::some(of.clone())
        }),
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => {
            sets(name, a, b, budget)
        }
        _ => kubernetes::global(name, arguments, budget),
    }
}

fn is_zero(of: &Value) -> bool {
    match of {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Int(n) => *n == 0,
        Value::Uint(n) => *n == 0,
        Value::Double(x) => *x == 0.0,
        Value::Optional(option) => option.is_none(),
        _ => matches!(size(of), Ok(Value::Int(0))),
    }
}

fn sets(name: &str, a: &Value, b: &Value, budget: &Budget) -> Outcome {
    let (Value::List(x), Value::List(y)) = (a, b) else {
        return Err(EvalError::NoSuchOverload);
    };
    budget.spend(x.len().saturating_mul(y.len()))?;
    let within = |of: &Value, all: &[Value]| {
        for element in all {
            if !contains(of, element)? {
                return Ok(false);
            }
        }
        Ok::<_, EvalError>(true)
    };
    Ok(match name {
        "sets.contains" => within(a, y)?,
        "sets.equivalent" => within(a, y)? && within(b, x)?,
        _ => y.is_empty() || x.iter().any(|e| y.iter().any(|o| o.equals(e))),
    }
    .into())
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "checked before, or as the language has it"
)]
fn convert(to: &str, of: &Value) -> Outcome {
    let range = |what: &str| EvalError::other(format!("{what} overflow"));
    let parse = || {
        EvalError::other(format!(
            "type conversion error from '{}' to '{to}'",
            of.type_name()
        ))
    };
    Ok(match (to, of) {
        ("int", Value::Int(_))
        | ("uint", Value::Uint(_))
        | ("double", Value::Double(_))
        | ("string", Value::String(_))
        | ("bytes", Value::Bytes(_))
        | ("bool", Value::Bool(_)) => of.clone(),
        ("int", Value::Uint(n)) => Value::Int(i64::try_from(*n).map_err(|_| range("integer"))?),
        ("int", Value::Double(x)) if x.abs() < 9.2e18 => Value::Int(*x as i64),
        ("int" | "uint", Value::Double(x)) if x.is_nan() || *x < 0.0 || *x > 1.8e19 => {
            return Err(range("integer"));
        }
        ("int", Value::Double(_)) => return Err(range("integer")),
        ("int", Value::String(text)) => Value::Int(text.parse().map_err(|_| parse())?),
        ("uint", Value::Int(n)) => {
            Value::Uint(u64::try_from(*n).map_err(|_| range("unsigned integer"))?)
        }
        ("uint", Value::Double(x)) => Value::Uint(*x as u64),
        ("uint", Value::String(text)) => Value::Uint(text.parse().map_err(|_| parse())?),
        ("double", Value::Int(n)) => Value::Double(*n as f64),
        ("double", Value::Uint(n)) => Value::Double(*n as f64),
        ("double", Value::String(text)) => Value::Double(text.parse().map_err(|_| parse())?),
        ("string", Value::Bool(b)) => b.to_string().into(),
        ("string", Value::Int(n)) => n.to_string().into(),
        ("string", Value::Uint(n)) => n.to_string().into(),
        ("string", Value::Double(x)) => x.to_string().into(),
        ("string", Value::Bytes(bytes)) => std::str::from_utf8(bytes)
            .map_err(|_| EvalError::other("invalid UTF-8 in bytes, cannot convert to string"))?
            .into(),
        ("bytes", Value::String(text)) => Value::Bytes(text.as_bytes().into()),
        ("bool", Value::String(text)) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true.into(),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false.into(),
            _ => return Err(parse()),
        },
        _ => return Err(EvalError::NoSuchOverload),
    })
}
