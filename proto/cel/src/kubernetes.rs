//! What Kubernetes adds: quantities, versions, lists, regular expressions.

use std::cmp::Ordering;

use meta::quantity::{Format, Quantity};
use regex::Regex;

use crate::eval::Budget;
use crate::functions::Outcome;
use crate::value::Value;
use crate::{EvalError, Version};

pub const GLOBAL: [&str; 4] = ["isQuantity", "isSemver", "quantity", "semver"];
pub const METHODS: [&str; 20] = [
    "add",
    "asApproximateFloat",
    "asInteger",
    "compareTo",
    "find",
    "findAll",
    SUBTRACT,
    "indexOf",
    "isGreaterThan",
    "isInteger",
    "isLessThan",
    "isSorted",
    "lastIndexOf",
    "major",
    "max",
    "min",
    "minor",
    "patch",
    "sign",
    "sum",
];
/// Of quantities.
const SUBTRACT: &str = "sub";

pub fn global(name: &str, arguments: &[Value], budget: &Budget) -> Outcome {
    let [Value::String(text), rest @ ..] = arguments else {
        return Err(EvalError::NoSuchOverload);
    };
    budget.spend_on_text(text.len())?;
    let version = || match rest {
        [] | [Value::Bool(false)] => Ok(text.parse::<Version>()),
        [Value::Bool(true)] => Ok(Version::lenient(text)),
        _ => Err(EvalError::NoSuchOverload),
    };
    match (name, rest) {
        ("quantity", []) => match text.parse::<Quantity>() {
            Ok(quantity) => Ok(quantity.into()),
            Err(error) => Err(EvalError::other(error.to_string())),
        },
        ("isQuantity", []) => Ok(text.parse::<Quantity>().is_ok().into()),
        ("semver", _) => match version()? {
            Ok(version) => Ok(version.into()),
            Err(error) => Err(EvalError::other(error.to_string())),
        },
        ("isSemver", _) => Ok(version()?.is_ok().into()),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn sign(order: Ordering) -> Value {
    Value::Int(match order {
        Ordering::Less => -1,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    })
}

pub fn method(name: &str, target: &Value, arguments: &[Value], budget: &Budget) -> Outcome {
    let order = match (target, arguments) {
        (Value::Quantity(a), [Value::Quantity(b)]) => Some(a.cmp(b)),
        (Value::Version(a), [Value::Version(b)]) => Some(a.precedence(b)),
        _ => None,
    };
    match (name, order) {
        ("compareTo", Some(order)) => return Ok(sign(order)),
        ("isGreaterThan", Some(order)) => return Ok(order.is_gt().into()),
        ("isLessThan", Some(order)) => return Ok(order.is_lt().into()),
        _ => {}
    }
    match target {
        Value::Quantity(quantity) => of_quantity(name, quantity, arguments),
        Value::Version(version) => {
            let part = match (name, arguments) {
                ("major", []) => version.major,
                ("minor", []) => version.minor,
                ("patch", []) => version.patch,
                _ => return Err(EvalError::NoSuchOverload),
            };
            Ok(Value::Int(i64::try_from(part).unwrap_or(i64::MAX)))
        }
        Value::List(list) => of_list(name, list, arguments, budget),
        Value::String(text) => of_text(name, text, arguments, budget),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn of_quantity(name: &str, quantity: &Quantity, arguments: &[Value]) -> Outcome {
    match (name, arguments) {
        ("sign", []) => Ok(Value::Int(quantity.sign().into())),
        ("isInteger", []) => Ok(quantity.as_i64().is_some().into()),
        ("asInteger", []) => quantity
            .as_i64()
            .map(Value::Int)
            .ok_or_else(|| EvalError::other("cannot convert value to integer")),
        ("asApproximateFloat", []) => Ok(Value::Double(quantity.to_f64())),
        ("add" | SUBTRACT, [other]) => {
            let other = match other {
                Value::Quantity(other) => (**other).clone(),
                Value::Int(n) => Quantity::new(*n, Format::DecimalSI),
                _ => return Err(EvalError::NoSuchOverload),
            };
            let mut result = quantity.clone();
            if name == SUBTRACT {
                result.sub(&other);
            } else {
                result.add(&other);
            }
            Ok(result.into())
        }
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn of_list(name: &str, list: &[Value], arguments: &[Value], budget: &Budget) -> Outcome {
    budget.spend(list.len())?;
    let extreme = |wanted: Ordering| {
        let mut best = list
            .first()
            .ok_or_else(|| EvalError::other(format!("{name} called on empty list")))?;
        for element in &list[1..] {
            if element.order(best)? == Some(wanted) {
                best = element;
            }
        }
        Ok(best.clone())
    };
    let at = |found: Option<usize>| {
        Value::Int(found.map_or(-1, |at| i64::try_from(at).unwrap_or(i64::MAX)))
    };
    match (name, arguments) {
        ("indexOf", [what]) => Ok(at(list.iter().position(|e| e.equals(what)))),
        ("lastIndexOf", [what]) => Ok(at(list.iter().rposition(|e| e.equals(what)))),
        ("min", []) => extreme(Ordering::Less),
        ("max", []) => extreme(Ordering::Greater),
        ("isSorted", []) => {
            for pair in list.windows(2) {
                if pair[0].order(&pair[1])? == Some(Ordering::Greater) {
                    return Ok(false.into());
                }
            }
            Ok(true.into())
        }
        ("sum", []) => {
            let mut sum = match list.first() {
                None => return Ok(Value::Int(0)),
                Some(first) => first.clone(),
            };
            for element in &list[1..] {
                sum = match (&sum, element) {
                    (Value::Int(a), Value::Int(b)) => a
                        .checked_add(*b)
                        .map(Value::Int)
                        .ok_or_else(|| EvalError::other("integer overflow"))?,
                    (Value::Uint(a), Value::Uint(b)) => a
                        .checked_add(*b)
                        .map(Value::Uint)
                        .ok_or_else(|| EvalError::other("unsigned integer overflow"))?,
                    (Value::Double(a), Value::Double(b)) => Value::Double(a + b),
                    _ => return Err(EvalError::NoSuchOverload),
                };
            }
            Ok(sum)
        }
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn of_text(name: &str, text: &str, arguments: &[Value], budget: &Budget) -> Outcome {
    let [Value::String(pattern), rest @ ..] = arguments else {
        return Err(EvalError::NoSuchOverload);
    };
    budget.spend_on_text(text.len() + pattern.len())?;
    let regex =
        || Regex::new(pattern).map_err(|_| EvalError::other(format!("Illegal regex: {pattern}")));
    match (name, rest) {
        ("find", []) => Ok(regex()?
            .find(text)
            .map_or("", |found| found.as_str())
            .into()),
        ("findAll", []) => Ok(all(&regex()?, text, usize::MAX)),
        ("findAll", [Value::Int(n)]) => Ok(all(
            &regex()?,
            text,
            usize::try_from(*n).unwrap_or(usize::MAX),
        )),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn all(regex: &Regex, text: &str, most: usize) -> Value {
    let found = regex.find_iter(text).take(most);
    found
        .map(|found| Value::from(found.as_str()))
        .collect::<Vec<_>>()
        .into()
}
