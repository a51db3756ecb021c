//! The order of a merged list: what the patch says comes first, then the order that the
//! live list had, and items that only the server knows are woven in between.

use serde_json::Value;

use super::{PATCH, no_merge_key};
use crate::places::{Places, identity};
use crate::{Error, Result};

/// The patch's items must appear in `$setElementOrder`'s list, and in its order.
pub fn check(patch: &[Value], wanted: &[Value], key: &str) -> Result<()> {
    if wanted.is_empty() || patch.is_empty() {
        return Ok(());
    }
    let mut rest = wanted.iter();
    for item in patch.iter().filter(|i| i.get(PATCH).is_none()) {
        let id = identity(item, key).ok_or_else(|| missing(item, key))?;
        if !rest.any(|w| identity(w, key) == Some(id)) {
            return Err(Error::Schema(format!(
                "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                Value::Array(patch.to_vec()),
                Value::Array(wanted.to_vec())
            )));
        }
    }
    Ok(())
}

/// Brings `merged` into order: items that `wanted` names in its order, the others in
/// that of `live`, each of the others before the first named item that followed it in `live`.
pub fn enforce(
    merged: Vec<Value>,
    wanted: &[Value],
    live: &[Value],
    key: &str,
) -> Result<Vec<Value>> {
    if let Some(item) = merged.iter().find(|i| identity(i, key).is_none()) {
        return Err(missing(item, key));
    }
    let (wanted, live) = (Places::new(wanted, key), Places::new(live, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|i| wanted.same_as(i).is_some());
    // Stable, and items that the order does not know come last.
    let rank = |order: &Places<'_>, item: &Value| order.same_as(item).unwrap_or(usize::MAX);
    named.sort_by_cached_key(|i| rank(&wanted, i));
    others.sort_by_cached_key(|i| rank(&live, i));

    let mut result = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return Ok(result),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(name)) => match (live.same_as(other), live.same_as(name)) {
                (Some(other), Some(name)) => other < name,
                _ => false,
            },
        };
        result.extend(if other_first {
            others.next()
        } else {
            named.next()
        });
    }
}

fn missing(item: &Value, key: &str) -> Error {
    match item {
        Value::Object(map) => no_merge_key(map, key),
        other => Error::Schema(format!("expected a map, but received {other}")),
    }
}
