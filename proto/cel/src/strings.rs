//! cel-go's extended strings. Positions are in characters.

use crate::EvalError;
use crate::eval::Budget;
use crate::functions::Outcome;
use crate::value::Value;

pub const METHODS: [&str; 11] = [
    "charAt",
    "indexOf",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "replace",
    "reverse",
    "split",
    "substring",
    "trim",
    "upperAscii",
];

fn place(n: i64, length: usize) -> Result<usize, EvalError> {
    usize::try_from(n)
        .ok()
        .filter(|n| *n <= length)
        .ok_or_else(|| EvalError::other(format!("index out of range: {n}")))
}

fn number(n: usize) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

pub fn method(name: &str, text: &str, arguments: &[Value], budget: &Budget) -> Outcome {
    let chars: Vec<char> = text.chars().collect();
    budget.spend_on_text(chars.len())?;
    let slice = |from: usize, to: usize| Value::from(chars[from..to].iter().collect::<String>());
    match (name, arguments) {
        ("charAt", [Value::Int(at)]) => {
            let at = place(*at, chars.len())?;
            Ok(slice(at, (at + 1).min(chars.len())))
        }
        ("lowerAscii", []) => Ok(text.to_ascii_lowercase().into()),
        ("upperAscii", []) => Ok(text.to_ascii_uppercase().into()),
        ("trim", []) => Ok(text.trim().into()),
        ("reverse", []) => Ok(text.chars().rev().collect::<String>().into()),
        ("substring", [Value::Int(from)]) => Ok(slice(place(*from, chars.len())?, chars.len())),
        ("substring", [Value::Int(from), Value::Int(to)]) => {
            let (start, end) = (place(*from, chars.len())?, place(*to, chars.len())?);
            if start > end {
                return Err(EvalError::other(format!(
                    "invalid substring range. start: {from}, end: {to}"
                )));
            }
            Ok(slice(start, end))
        }
        ("indexOf", [Value::String(part)]) => Ok(find(&chars, part, 0)),
        ("indexOf", [Value::String(part), Value::Int(from)]) => {
            Ok(find(&chars, part, place(*from, chars.len())?))
        }
        ("lastIndexOf", [Value::String(part)]) => Ok(find_last(&chars, part, chars.len())),
        ("lastIndexOf", [Value::String(part), Value::Int(from)]) => {
            Ok(find_last(&chars, part, place(*from, chars.len())?))
        }
        ("replace", [Value::String(old), Value::String(new)]) => {
            budget.spend_on_text(text.len().saturating_mul(new.len().max(1)))?;
            Ok(text.replace(&**old, new).into())
        }
        ("replace", [Value::String(old), Value::String(new), Value::Int(n)]) => {
            budget.spend_on_text(text.len().saturating_mul(new.len().max(1)))?;
            Ok(match usize::try_from(*n) {
                Ok(n) => text.replacen(&**old, new, n),
                Err(_) => text.replace(&**old, new),
            }
            .into())
        }
        ("split", [Value::String(by)]) => Ok(split(text, by, -1)),
        ("split", [Value::String(by), Value::Int(n)]) => Ok(split(text, by, *n)),
        _ => Err(EvalError::NoSuchOverload),
    }
}

fn find(chars: &[char], part: &str, from: usize) -> Value {
    let part: Vec<char> = part.chars().collect();
    if part.is_empty() {
        return number(from);
    }
    let found = chars[from..].windows(part.len()).position(|w| *w == *part);
    found.map_or(Value::Int(-1), |at| number(from + at))
}

fn find_last(chars: &[char], part: &str, from: usize) -> Value {
    let part: Vec<char> = part.chars().collect();
    if part.is_empty() {
        return number(from);
    }
    let found = chars
        .windows(part.len())
        .enumerate()
        .rfind(|(at, w)| *at <= from && **w == *part);
    found.map_or(Value::Int(-1), |(at, _)| number(at))
}

fn split(text: &str, by: &str, n: i64) -> Value {
    let parts: Vec<Value> = match usize::try_from(n) {
        Ok(0) => Vec::new(),
        Ok(n) if by.is_empty() => {
            let mut parts: Vec<Value> = Vec::new();
            for (at, c) in text.char_indices() {
                if parts.len() + 1 == n {
                    parts.push(text[at..].into());
                    break;
                }
                parts.push(c.to_string().into());
            }
            parts
        }
        Ok(n) => text.splitn(n, by).map(Value::from).collect(),
        Err(_) if by.is_empty() => text.chars().map(|c| c.to_string().into()).collect(),
        Err(_) => text.split(by).map(Value::from).collect(),
    };
    parts.into()
}

pub fn join(list: &[Value], arguments: &[Value]) -> Outcome {
    let between = match arguments {
        [] => "",
        [Value::String(between)] => between,
        _ => return Err(EvalError::NoSuchOverload),
    };
    let mut text = String::new();
    for (i, element) in list.iter().enumerate() {
        let Value::String(element) = element else {
            return Err(EvalError::NoSuchOverload);
        };
        if i > 0 {
            text.push_str(between);
        }
        text.push_str(element);
    }
    Ok(text.into())
}
