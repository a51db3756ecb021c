//! Takes fields and items out of an object.

use schema::Message;
use serde_json::{Map, Value};

use super::set::{Element, Set};
use super::typed::{Atom, Ref, Relation, element_of};

/// The object without the members of `fields`. What is owned as a whole (atomic lists and maps)
/// goes when its own field is in the set, never in part.
pub fn remove(message: &'static Message, object: &Value, fields: &Set) -> Value {
    value(Ref::Object(message), object, fields)
}

fn value(of: Ref, from: &Value, fields: &Set) -> Value {
    match (of.atom(Some(from)), from) {
        (Atom::Scalar(_), _) => from.clone(),
        (Atom::List { item, relation }, Value::Array(items)) => {
            if items.is_empty() || matches!(relation, Relation::Atomic) {
                return Value::Null;
            }
            list(item, relation, items, fields)
        }
        (Atom::Struct { atomic, .. } | Atom::Map { atomic, .. }, Value::Object(members)) => {
            if members.is_empty() || atomic {
                return Value::Null;
            }
            map(of, members, fields)
        }
        _ => Value::Null,
    }
}

/// Something below `from` goes: what held it stays, even when it is empty now.
fn below(of: Ref, from: &Value, fields: &Set) -> Value {
    match (value(of, from, fields), from) {
        (Value::Null, Value::Object(_)) => Value::Object(Map::new()),
        (Value::Null, Value::Array(_)) => Value::Array(Vec::new()),
        (left, _) => left,
    }
}

fn list(item: Ref, relation: Relation, items: &[Value], fields: &Set) -> Value {
    let mut left = Vec::with_capacity(items.len());
    let mut matched = false;
    for from in items {
        let node = element_of(relation, from)
            .ok()
            .and_then(|element| fields.node(&element));
        match node {
            Some(node) if node.member => {}
            Some(node) => {
                matched = true;
                left.push(below(item, from, &node.children));
            }
            None => left.push(from.clone()),
        }
    }
    if left.is_empty() && !matched {
        return Value::Null;
    }
    Value::Array(left)
}

fn map(of: Ref, members: &Map<String, Value>, fields: &Set) -> Value {
    let mut left = Map::new();
    let mut matched = false;
    for (key, from) in members {
        let element = Element::Field(key.clone().into());
        match fields.node(&element) {
            Some(node) if node.member => {}
            Some(node) => {
                matched = true;
                let of = of.descend(&element).unwrap_or(Ref::Untyped);
                left.insert(key.clone(), below(of, from, &node.children));
            }
            None => {
                left.insert(key.clone(), from.clone());
            }
        }
    }
    if left.is_empty() && !matched {
        return Value::Null;
    }
    Value::Object(left)
}
