//! The live object and what is applied, made one. Nothing is removed here.

use std::collections::BTreeMap;

use schema::Message;
use serde_json::{Map, Value};

use super::set::Element;
use super::typed::{Atom, Ref, Relation, element_of, items};
use super::validate::Invalid;
use crate::places::SHORT;

/// Merges `applied` into `live`. Where both have a leaf, `applied` wins. The items of an
/// associative list are ordered as in `applied` where it has them, and as in `live` otherwise.
pub fn merge(
    message: &'static Message,
    live: &Value,
    applied: &Value,
) -> Result<Value, Vec<Invalid>> {
    let mut errors = Vec::new();
    let merged = value(Ref::Object(message), Some(live), Some(applied), &mut errors);
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(merged.unwrap_or(Value::Object(Map::new())))
}

fn value(
    of: Ref,
    live: Option<&Value>,
    applied: Option<&Value>,
    errors: &mut Vec<Invalid>,
) -> Option<Value> {
    let keep = || applied.or(live).cloned();
    match of.atom(applied.or(live)) {
        Atom::Scalar(_) => keep(),
        Atom::Struct { atomic: true, .. } | Atom::Map { atomic: true, .. } => keep(),
        Atom::Struct { message, .. } => map(
            &|key| message.field(key).map(Ref::Field),
            live,
            applied,
            errors,
        )
        .unwrap_or_else(keep),
        Atom::Map { item, .. } => map(&|_| Some(item), live, applied, errors).unwrap_or_else(keep),
        Atom::List { item, relation } => {
            let (live, applied) = (items(live), items(applied));
            if matches!(relation, Relation::Atomic) || (live.is_empty() && applied.is_empty()) {
                return keep();
            }
            list(item, relation, live, applied, errors)
        }
    }
}

/// `None`: both are empty, and whichever is there is kept as it is.
fn map(
    field: &dyn Fn(&str) -> Option<Ref>,
    live: Option<&Value>,
    applied: Option<&Value>,
    errors: &mut Vec<Invalid>,
) -> Option<Option<Value>> {
    let none = Map::new();
    let live = live.and_then(Value::as_object).unwrap_or(&none);
    let applied = applied.and_then(Value::as_object).unwrap_or(&none);
    if live.is_empty() && applied.is_empty() {
        return None;
    }
    let mut out = Map::new();
    let added = applied.keys().filter(|key| !live.contains_key(*key));
    for key in live.keys().chain(added) {
        let Some(of) = field(key) else {
            continue;
        };
        if let Some(merged) = value(of, live.get(key), applied.get(key), errors) {
            out.insert(key.clone(), merged);
        }
    }
    Some((!out.is_empty()).then_some(Value::Object(out)))
}

/// The items of a list by their elements. A repeated item of the live object has no value of
/// its own to merge with.
struct Indexed<'a> {
    elements: Vec<Element>,
    values: Vec<Option<&'a Value>>,
    /// Where the elements of a long list are. Short ones are searched.
    places: Option<BTreeMap<Element, usize>>,
}

impl<'a> Indexed<'a> {
    fn new(
        relation: Relation,
        items: &'a [Value],
        allow_duplicates: bool,
        errors: &mut Vec<Invalid>,
    ) -> Indexed<'a> {
        let mut indexed = Indexed {
            elements: Vec::with_capacity(items.len()),
            values: Vec::with_capacity(items.len()),
            places: (items.len() > SHORT).then(BTreeMap::new),
        };
        for (i, item) in items.iter().enumerate() {
            match element_of(relation, item) {
                Err(e) => errors.push(Invalid::item(i, e)),
                Ok(element) => {
                    let earlier = indexed.position(&element);
                    if let Some(earlier) = earlier {
                        if !allow_duplicates {
                            let text = format!("duplicate entries for key {element}");
                            errors.push(Invalid::item(i, text));
                            continue;
                        }
                        indexed.values[earlier] = None;
                    }
                    if let Some(places) = &mut indexed.places {
                        let at = indexed.elements.len();
                        places.entry(element.clone()).or_insert(at);
                    }
                    indexed.elements.push(element);
                    indexed.values.push(Some(item));
                }
            }
        }
        indexed
    }

    fn position(&self, element: &Element) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(element).copied(),
            None => self.elements.iter().position(|e| e == element),
        }
    }

    /// The item to merge with; `None` where there is none, or more than one.
    fn get(&self, element: &Element) -> Option<&'a Value> {
        self.position(element).and_then(|i| self.values[i])
    }
}

fn list(
    item: Ref,
    relation: Relation,
    live: &[Value],
    applied: &[Value],
    errors: &mut Vec<Invalid>,
) -> Option<Value> {
    let ours = Indexed::new(relation, applied, false, errors);
    let theirs = Indexed::new(relation, live, true, errors);
    if !errors.is_empty() {
        return None;
    }
    let mut shared = ours
        .elements
        .iter()
        .filter(|e| theirs.position(e).is_some())
        .peekable();
    let mut out = Vec::with_capacity(live.len().max(applied.len()));
    let mut merged = vec![false; ours.elements.len()];
    let (mut l, mut a) = (0, 0);
    while l < theirs.elements.len() || a < ours.elements.len() {
        if let Some(element) = theirs.elements.get(l) {
            match ours.position(element) {
                // Only the live object has it: it keeps its place.
                None => {
                    out.extend(value(item, live.get(l), None, errors));
                    l += 1;
                    continue;
                }
                Some(i) if i == a => l += 1,
                // Its place comes with what is applied, and others are due before.
                Some(_)
                    if a < ours.elements.len()
                        && shared.peek().is_some_and(|next| *next != element) =>
                {
                    l += 1;
                    continue;
                }
                Some(i) if merged[i] => l += 1,
                Some(_) => {}
            }
        }
        let Some(element) = ours.elements.get(a) else {
            continue;
        };
        out.extend(value(item, theirs.get(element), ours.get(element), errors));
        merged[a] = true;
        if shared.peek().is_some_and(|next| *next == element) {
            shared.next();
        }
        a += 1;
    }
    (!out.is_empty()).then_some(Value::Array(out))
}
