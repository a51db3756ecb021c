//! What an expression is worth.

use std::cell::Cell;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::EvalError;
use crate::ast::{Binary, Each, Expr, Kind};
use crate::functions;
use crate::value::{Key, Map, Value};

type Outcome = Result<Value, EvalError>;

/// Names and what they stand for, the innermost first.
struct Scope<'a> {
    name: &'a str,
    value: &'a Value,
    outer: Option<&'a Scope<'a>>,
}

/// Counts what evaluation costs.
pub struct Budget {
    left: Cell<u64>,
}

impl Budget {
    pub fn spend(&self, cost: usize) -> Result<(), EvalError> {
        let left = self.left.get().checked_sub(cost as u64);
        self.left.set(left.unwrap_or(0));
        left.map(drop).ok_or(EvalError::TooCostly)
    }

    /// Ten characters cost as much as a step.
    pub fn spend_on_text(&self, length: usize) -> Result<(), EvalError> {
        self.spend(length / 10)
    }
}

pub fn evaluate(root: &Expr, variables: &[(&str, Value)], limit: u64) -> Outcome {
    let budget = Budget {
        left: Cell::new(limit),
    };
    chain(root, variables, None, &budget)
}

fn chain(
    root: &Expr,
    variables: &[(&str, Value)],
    outer: Option<&Scope<'_>>,
    budget: &Budget,
) -> Outcome {
    match variables {
        [] => of(root, outer, budget),
        [(name, value), rest @ ..] => {
            let scope = Scope { name, value, outer };
            chain(root, rest, Some(&scope), budget)
        }
    }
}

fn of(expr: &Expr, scope: Option<&Scope<'_>>, budget: &Budget) -> Outcome {
    let value = |expr: &Expr| of(expr, scope, budget);
    match &expr.kind {
        Kind::Literal(value) => Ok(value.clone()),
        Kind::Ident(name) => {
            budget.spend(1)?;
            let mut at = scope;
            while let Some(here) = at {
                if here.name == &**name {
                    return Ok(here.value.clone());
                }
                at = here.outer;
            }
            Err(EvalError::other(format!("no such attribute: {name}")))
        }
        Kind::Select {
            of,
            field,
            optional,
        } => {
            budget.spend(1)?;
            select(&value(of)?, field, *optional)
        }
        Kind::Has(of, field) => {
            budget.spend(1)?;
            match value(of)? {
                Value::Map(map) => Ok(map.get(&Key::from(&**field)).is_some().into()),
                Value::Optional(Some(inner)) => match &*inner {
                    Value::Map(map) => Ok(map.get(&Key::from(&**field)).is_some().into()),
                    _ => Err(EvalError::NoSuchOverload),
                },
                Value::Optional(None) => Ok(false.into()),
                _ => Err(EvalError::NoSuchOverload),
            }
        }
        Kind::Index {
            of,
            index: at,
            optional,
        } => {
            budget.spend(1)?;
            let of = value(of)?;
            index(&of, &value(at)?, *optional)
        }
        Kind::Call {
            function,
            target,
            arguments,
        } => {
            budget.spend(1)?;
            call(function, target.as_deref(), arguments, scope, budget)
        }
        Kind::List(elements) => {
            budget.spend(10)?;
            let mut list = Vec::with_capacity(elements.len());
            for (element, optional) in elements {
                match (value(element)?, optional) {
                    (element, false) => list.push(element),
                    (Value::Optional(element), true) => {
                        list.extend(element.map(|e| (*e).clone()));
                    }
                    _ => return Err(EvalError::NoSuchOverload),
                }
            }
            Ok(list.into())
        }
        Kind::Map(entries) => {
            budget.spend(30)?;
            let mut map = Map::default();
            for (key, entry, optional) in entries {
                let key = Key::of(&value(key)?)
                    .ok_or_else(|| EvalError::other("unsupported key type"))?;
                let entry = match (value(entry)?, optional) {
                    (entry, false) => entry,
                    (Value::Optional(Some(entry)), true) => (*entry).clone(),
                    (Value::Optional(None), true) => continue,
                    _ => return Err(EvalError::NoSuchOverload),
                };
                if map.entries.insert(key.clone(), entry).is_some() {
                    return Err(EvalError::other(format!(
                        "Failed with repeated key: {}",
                        shown(&key)
                    )));
                }
            }
            Ok(map.into())
        }
        Kind::And(a, b) => both(value(a), || value(b), false),
        Kind::Or(a, b) => both(value(a), || value(b), true),
        Kind::Not(of) => match value(of)? {
            Value::Bool(b) => Ok((!b).into()),
            _ => Err(EvalError::NoSuchOverload),
        },
        Kind::Negate(of) => {
            budget.spend(1)?;
            match value(of)? {
                Value::Int(n) => n.checked_neg().map(Value::Int).ok_or_else(overflow),
                Value::Double(x) => Ok(Value::Double(-x)),
                _ => Err(EvalError::NoSuchOverload),
            }
        }
        Kind::Conditional(parts) => {
            let (condition, yes, no) = &**parts;
            match value(condition)? {
                Value::Bool(true) => value(yes),
                Value::Bool(false) => value(no),
                _ => Err(EvalError::NoSuchOverload),
            }
        }
        Kind::Binary(operator, sides) => {
            budget.spend(1)?;
            let (left, right) = (value(&sides.0)?, value(&sides.1)?);
            binary(*operator, &left, &right, budget)
        }
        Kind::Each {
            range,
            variable,
            what,
            ..
        } => each(&value(range)?, variable, what, scope, budget),
        Kind::Bind {
            name,
            value: bound,
            body,
        } => {
            let bound = value(bound)?;
            let inner = Scope {
                name,
                value: &bound,
                outer: scope,
            };
            of(body, Some(&inner), budget)
        }
        Kind::OptionalMap {
            of: option,
            name,
            body,
            flat,
        } => match value(option)? {
            Value::Optional(Some(present)) => {
                let inner = Scope {
                    name,
                    value: &present,
                    outer: scope,
                };
                let mapped = of(body, Some(&inner), budget)?;
                Ok(if *flat { mapped } else { Value::some(mapped) })
            }
            none @ Value::Optional(None) => Ok(none),
            _ => Err(EvalError::NoSuchOverload),
        },
    }
}

fn call(
    function: &str,
    target: Option<&Expr>,
    arguments: &[Expr],
    scope: Option<&Scope<'_>>,
    budget: &Budget,
) -> Outcome {
    let target = target.map(|target| of(target, scope, budget)).transpose()?;
    // What stands in for a missing value is only looked at when it is needed.
    if let (Some(Value::Optional(option)), [argument]) = (&target, arguments) {
        match (function, option) {
            ("orValue", Some(value)) => return Ok((**value).clone()),
            ("or", Some(_)) => return Ok(Value::Optional(option.clone())),
            ("or" | "orValue", None) => return of(argument, scope, budget),
            _ => {}
        }
    }
    let arguments: Vec<Value> = arguments
        .iter()
        .map(|argument| of(argument, scope, budget))
        .collect::<Result<_, _>>()?;
    functions::call(function, target.as_ref(), &arguments, budget)
}

/// `&&` and `||`: an error on one side does not matter when the other decides.
fn both(left: Outcome, right: impl FnOnce() -> Outcome, decides: bool) -> Outcome {
    if matches!(left, Ok(Value::Bool(b)) if b == decides) || left == Err(EvalError::TooCostly) {
        return left;
    }
    let right = right();
    match (left, right) {
        (_, Ok(Value::Bool(b))) if b == decides => Ok(decides.into()),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok((!decides).into()),
        _ => Err(EvalError::NoSuchOverload),
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.equals(other)
    }
}

fn shown(key: &Key) -> String {
    match key {
        Key::Bool(b) => b.to_string(),
        Key::Int(n) => n.to_string(),
        Key::Uint(n) => n.to_string(),
        Key::String(text) => text.to_string(),
    }
}

fn select(of: &Value, field: &str, optional: bool) -> Outcome {
    match of {
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => select(inner, field, true),
        Value::Map(map) => {
            let found = map.get(&Key::from(field)).cloned();
            match (found, optional) {
                (Some(value), true) => Ok(Value::some(value)),
                (None, true) => Ok(Value::Optional(None)),
                (Some(value), false) => Ok(value),
                (None, false) => Err(EvalError::NoSuchKey(field.to_owned())),
            }
        }
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn index(of: &Value, at: &Value, optional: bool) -> Outcome {
    let found = match of {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => return index(inner, at, true),
        Value::Map(map) => {
            let key = Key::of(at).ok_or(EvalError::NoSuchOverload)?;
            map.get(&key)
                .cloned()
                .ok_or_else(|| EvalError::NoSuchKey(shown(&key)))
        }
        Value::List(list) => {
            let Some(Key::Int(n)) = Key::of(at) else {
                return Err(EvalError::other("unsupported index type in list"));
            };
            let place = usize::try_from(n).ok();
            place
                .and_then(|place| list.get(place).cloned())
                .ok_or_else(|| EvalError::other(format!("index out of bounds: {n}")))
        }
        _ => return Err(EvalError::NoSuchOverload),
    };
    match (found, optional) {
        (found, false) => found,
        (Ok(value), true) => Ok(Value::some(value)),
        (Err(_), true) => Ok(Value::Optional(None)),
    }
}

fn overflow() -> EvalError {
    EvalError::other("integer overflow")
}

pub fn contains(of: &Value, what: &Value) -> Result<bool, EvalError> {
    match of {
        Value::List(list) => Ok(list.iter().any(|element| element.equals(what))),
        // Maps find keys of any kind, and those that they do not have but answer for.
        Value::Map(map) => Ok(Key::of(what).is_some_and(|key| map.get(&key).is_some())),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn binary(operator: Binary, left: &Value, right: &Value, budget: &Budget) -> Outcome {
    if let (Value::String(a), Value::String(b)) = (left, right) {
        budget.spend_on_text(a.len().min(b.len()))?;
    }
    let ordered = |wanted: &[Ordering]| -> Outcome {
        let order = left.order(right)?;
        Ok(order.is_some_and(|order| wanted.contains(&order)).into())
    };
    match operator {
        Binary::Equal => Ok(left.equals(right).into()),
        Binary::Unequal => Ok((!left.equals(right)).into()),
        Binary::Less => ordered(&[Ordering::Less]),
        Binary::LessOrEqual => ordered(&[Ordering::Less, Ordering::Equal]),
        Binary::Greater => ordered(&[Ordering::Greater]),
        Binary::GreaterOrEqual => ordered(&[Ordering::Greater, Ordering::Equal]),
        Binary::In => {
            if let Value::List(list) = right {
                budget.spend(list.len())?;
            }
            Ok(contains(right, left)?.into())
        }
        Binary::Add => add(left, right, budget),
        Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => {
            arithmetic(operator, left, right)
        }
    }
}

fn add(left: &Value, right: &Value, budget: &Budget) -> Outcome {
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int).ok_or_else(overflow),
        (Value::Uint(a), Value::Uint(b)) => a
            .checked_add(*b)
            .map(Value::Uint)
            .ok_or_else(|| EvalError::other("unsigned integer overflow")),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            budget.spend_on_text(a.len() + b.len())?;
            Ok(format!("{a}{b}").into())
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            budget.spend_on_text(a.len() + b.len())?;
            Ok(Value::Bytes([&**a, &**b].concat().into()))
        }
        (Value::List(a), Value::List(b)) => {
            budget.spend(a.len() + b.len())?;
            Ok([&**a, &**b].concat().into())
        }
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn arithmetic(operator: Binary, left: &Value, right: &Value) -> Outcome {
    let by_zero = || {
        EvalError::other(match operator {
            Binary::Remainder => "modulus by zero",
            _ => "division by zero",
        })
    };
    match (left, right) {
        (Value::Int(a), Value::Int(b)) => match operator {
            Binary::Subtract => a.checked_sub(*b),
            Binary::Multiply => a.checked_mul(*b),
            _ if *b == 0 => return Err(by_zero()),
            Binary::Divide => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Value::Int)
        .ok_or_else(overflow),
        (Value::Uint(a), Value::Uint(b)) => match operator {
            Binary::Subtract => a.checked_sub(*b),
            Binary::Multiply => a.checked_mul(*b),
            _ if *b == 0 => return Err(by_zero()),
            Binary::Divide => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Value::Uint)
        .ok_or_else(|| EvalError::other("unsigned integer overflow")),
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(match operator {
            Binary::Subtract => a - b,
            Binary::Multiply => a * b,
            Binary::Divide => a / b,
            _ => return Err(EvalError::NoSuchOverload),
        })),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn each(
    range: &Value,
    variable: &str,
    what: &Each,
    scope: Option<&Scope<'_>>,
    budget: &Budget,
) -> Outcome {
    let elements: Arc<[Value]> = match range {
        Value::List(list) => Arc::clone(list),
        Value::Map(map) => map.entries.keys().map(Key::value).collect(),
        _ => return Err(EvalError::NoSuchOverload),
    };
    let with = |element: &Value, body: &Expr| {
        budget.spend(1)?;
        let inner = Scope {
            name: variable,
            value: element,
            outer: scope,
        };
        of(body, Some(&inner), budget)
    };
    let is = |element: &Value, body: &Expr| match with(element, body)? {
        Value::Bool(b) => Ok(b),
        _ => Err(EvalError::NoSuchOverload),
    };
    match what {
        Each::All(body) | Each::Exists(body) => {
            let decides = matches!(what, Each::Exists(_));
            let mut so_far: Outcome = Ok((!decides).into());
            for element in &*elements {
                so_far = both(so_far, || with(element, body), decides);
                match &so_far {
                    Ok(Value::Bool(b)) if *b == decides => break,
                    Err(EvalError::TooCostly) => break,
                    _ => {}
                }
            }
            so_far
        }
        Each::ExistsOne(body) => {
            let mut count = 0;
            for element in &*elements {
                count += usize::from(is(element, body)?);
            }
            Ok((count == 1).into())
        }
        Each::Filter(body) => {
            let mut list = Vec::new();
            for element in &*elements {
                if is(element, body)? {
                    list.push(element.clone());
                }
            }
            Ok(list.into())
        }
        Each::Map(condition, body) => {
            let mut list = Vec::new();
            for element in &*elements {
                if let Some(condition) = condition
                    && !is(element, condition)?
                {
                    continue;
                }
                list.push(with(element, body)?);
            }
            Ok(list.into())
        }
        // Refused where names are looked up.
        Each::TransformMap(..) | Each::TransformMapEntry(..) | Each::SortBy(_) => {
            Err(EvalError::NoSuchOverload)
        }
    }
}
