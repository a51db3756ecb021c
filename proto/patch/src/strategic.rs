//! Strategic merge patch: a merge patch that knows the schema. Lists with the strategy
//! `merge` are merged by their merge key (or as sets of scalars), and directives steer
//! the rest:
//!
//! | in the patch | meaning |
//! |---|---|
//! | `$patch: replace` / `delete` | replace this map or list, delete this map or item |
//! | `$deleteFromPrimitiveList/<field>` | items to take out of a list of scalars |
//! | `$setElementOrder/<field>` | the order that the merged list shall have |
//! | `$retainKeys` | the only keys that may stay in this map |
//!
//! Contributor guide: `sig-api-machinery/strategic-merge-patch.md`; KEP-less design
//! `preserve-order-in-strategic-merge-patch`.

mod order;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use schema::{Cardinality, Field, Message, PatchStrategy, Type};
use serde_json::{Map, Value};

use crate::places::Places;
use crate::{Error, Result};

type Object = Map<String, Value>;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

/// Applies `patch` to an object of the type `message`.
pub fn apply(original: Value, patch: Value, message: &'static Message) -> Result<Value> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(Error::Malformed("invalid JSON document".into()));
    };
    merge_map(original, patch, Schema::Struct(message)).map(Value::Object)
}

/// What is known about the value that is being merged.
#[derive(Debug, Clone, Copy)]
enum Schema {
    Struct(&'static Message),
    /// A map, a scalar or free-form JSON: it has no fields to look up.
    Opaque,
}

/// How a field is merged.
struct Lookup {
    schema: Schema,
    strategy: Option<PatchStrategy>,
    merge_key: &'static str,
}

impl Schema {
    fn field(self, key: &str) -> Result<&'static Field> {
        match self {
            Schema::Struct(message) => message.field(key).ok_or_else(|| {
                let name = message.name.rsplit('.').next().unwrap_or(message.name);
                Error::Schema(format!(
                    "unable to find api field in struct {name} for the json field \"{key}\""
                ))
            }),
            Schema::Opaque => Err(Error::Schema(
                "merging an object in json but data type is not struct, instead is: map".into(),
            )),
        }
    }

    fn of_map(self, key: &str) -> Result<Lookup> {
        let field = self.field(key)?;
        Ok(Lookup {
            schema: match (field.cardinality, field.ty) {
                (Cardinality::One, Type::Message(m)) => Schema::Struct(m),
                _ => Schema::Opaque,
            },
            ..Lookup::strategy(field)
        })
    }

    fn of_list(self, key: &str) -> Result<Lookup> {
        let field = self.field(key)?;
        Ok(Lookup {
            schema: match field.ty {
                Type::Message(m) => Schema::Struct(m),
                _ => Schema::Opaque,
            },
            ..Lookup::strategy(field)
        })
    }
}

impl Lookup {
    fn strategy(field: &'static Field) -> Lookup {
        Lookup {
            schema: Schema::Opaque,
            strategy: match field.patch_strategy {
                PatchStrategy::Merge | PatchStrategy::MergeRetainKeys => Some(PatchStrategy::Merge),
                PatchStrategy::Replace => Some(PatchStrategy::Replace),
                PatchStrategy::Unset | PatchStrategy::RetainKeys => None,
            },
            merge_key: field.patch_merge_key.unwrap_or_default(),
        }
    }

    fn merges(&self) -> bool {
        self.strategy == Some(PatchStrategy::Merge)
    }
}

fn merge_map(mut original: Object, mut patch: Object, schema: Schema) -> Result<Object> {
    if let Some(directive) = patch.remove(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(bad_patch_type(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order_lists(&mut original, &mut patch, schema)?;

    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            Some(field) => match field.strip_prefix('/') {
                Some(field) => (field.to_owned(), true),
                None => return Err(malformed("invalid patch format of primitive list")),
            },
            None => (key, false),
        };
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (Some(Value::Object(original)), Value::Object(patch)) => {
                let lookup = schema.of_map(&key)?;
                Some(Value::Object(
                    if lookup.strategy == Some(PatchStrategy::Replace) {
                        patch
                    } else {
                        merge_map(original, patch, lookup.schema)?
                    },
                ))
            }
            (Some(Value::Array(original)), Value::Array(patch)) => {
                let lookup = schema.of_list(&key)?;
                Some(Value::Array(if lookup.merges() || deletes {
                    merge_list(original, patch, &lookup, deletes)?
                } else {
                    patch
                }))
            }
            // A deletion list says nothing about what is no list.
            (original, _) if deletes => original,
            // The types differ, or both are scalars: the patch's value wins.
            (_, value) => without_directives(without_nulls(value)),
        };
        if let Some(merged) = merged {
            original.insert(key, merged);
        }
    }
    Ok(original)
}

/// `$retainKeys`: whatever the list does not name goes; the patch may set only what it names.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<()> {
    let Some(retained) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad = || malformed("invalid patch format of retainKeys");
    let retained = retained.as_array().ok_or_else(bad)?;
    let retained: HashSet<&str> = retained.iter().filter_map(Value::as_str).collect();
    let named = |key: &str| retained.contains(key);
    let stray = patch.iter().any(|(key, value)| {
        !value.is_null()
            && !key.starts_with(DELETE_FROM_PRIMITIVE_LIST)
            && !key.starts_with(SET_ELEMENT_ORDER)
            && !named(key)
    });
    if stray {
        return Err(bad());
    }
    original.retain(|key, _| named(key));
    Ok(())
}

/// `$setElementOrder/<field>`: merges the field's list and brings it into that order,
/// and takes both keys out of the patch.
fn order_lists(original: &mut Object, patch: &mut Object, schema: Schema) -> Result<()> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|k| k.starts_with(SET_ELEMENT_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let field = directive[SET_ELEMENT_ORDER.len()..]
            .strip_prefix('/')
            .ok_or_else(|| malformed("invalid patch format of setElementOrder list"))?;
        let wanted = list(patch.remove(&directive).unwrap_or_default())?;
        let ours = original.get(field).cloned().map(list).transpose()?;
        let theirs = patch.get(field).cloned().map(list).transpose()?;
        let lookup = schema.of_list(field)?;
        let key = lookup.merge_key;
        order::check(theirs.as_deref().unwrap_or_default(), &wanted, key)?;

        let live = live_order(
            ours.as_deref().unwrap_or_default(),
            theirs.as_deref().unwrap_or_default(),
            key,
        );
        let merged = match (ours, theirs) {
            (None, None) => continue,
            (Some(ours), None) => ours,
            (None, Some(theirs)) => theirs.into_iter().filter_map(without_directives).collect(),
            (Some(ours), Some(theirs)) if lookup.merges() => {
                merge_list(ours, theirs, &lookup, false)?
            }
            (Some(_), Some(theirs)) => theirs,
        };
        let ordered = order::enforce(merged, &wanted, &live, key)?;
        original.insert(field.to_owned(), Value::Array(ordered));
        patch.remove(field);
    }
    Ok(())
}

/// The live list's order, with the places of items that the patch deletes given to items
/// that it adds: that is where upstream's clients have come to expect them.
fn live_order(ours: &[Value], theirs: &[Value], key: &str) -> Vec<Value> {
    let (deleting, adding): (Vec<_>, Vec<_>) = theirs.iter().partition(|i| i.get(PATCH).is_some());
    let deleted: HashSet<Option<&Value>> = deleting.into_iter().map(|d| d.get(key)).collect();
    let mut live: Vec<Value> = ours
        .iter()
        .filter(|o| key.is_empty() || !deleted.contains(&o.get(key)))
        .cloned()
        .collect();
    let mut known: HashSet<Value> = live.iter().filter_map(|l| l.get(key).cloned()).collect();
    for item in adding {
        if live.len() == ours.len() {
            break;
        }
        if item.get(key).is_none_or(|v| known.insert(v.clone())) {
            live.push(item.clone());
        }
    }
    live
}

fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(Error::Schema(format!(
            "expected a []interface {{}}, but received a {}",
            type_name(&other)
        ))),
    }
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    lookup: &Lookup,
    deletes: bool,
) -> Result<Vec<Value>> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let key = lookup.merge_key;
    if !of_maps(original.iter().chain(&patch))? {
        if deletes {
            let deleted: HashSet<Value> = patch.into_iter().collect();
            let kept = original.into_iter().filter(|v| !deleted.contains(v));
            return Ok(kept.collect());
        }
        let mut seen = HashSet::with_capacity(original.len() + patch.len());
        let all = original.iter().chain(&patch);
        let merged: Vec<Value> = all.filter(|item| seen.insert(*item)).cloned().collect();
        return order::enforce(merged, &patch, &original, key);
    }
    if key.is_empty() {
        return Err(Error::Schema(
            "cannot merge lists without merge key for struct".into(),
        ));
    }
    let (mut merged, patch) = directives_of_items(original, patch, key)?;
    let live = merged.clone();
    let places = Places::new(&live, key);
    // Where those are that the patch has added.
    let mut added: HashMap<&Value, usize> = HashMap::new();
    for item in &patch {
        let Value::Object(item) = item else {
            unreachable!("of_maps() has looked at every item")
        };
        let value = item.get(key).ok_or_else(|| no_merge_key(item, key))?;
        match places.of(value).or_else(|| added.get(value).copied()) {
            Some(at) => {
                let Value::Object(ours) = merged[at].take() else {
                    unreachable!("only maps have keys")
                };
                merged[at] = Value::Object(merge_map(ours, item.clone(), lookup.schema)?);
            }
            None => {
                added.insert(value, merged.len());
                merged.push(Value::Object(item.clone()));
            }
        }
    }
    order::enforce(merged, &patch, &live, key)
}

/// Obeys the items of a patch that carry `$patch`; returns what is left of the original
/// and the patch's ordinary items.
fn directives_of_items(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut ordinary = Vec::with_capacity(patch.len());
    let mut deleted: HashSet<Value> = HashSet::new();
    let mut replaces = false;
    for item in patch {
        let Some(directive) = item.get(PATCH) else {
            ordinary.push(item);
            continue;
        };
        let map = item.as_object().cloned().unwrap_or_default();
        match directive.as_str() {
            Some("delete") => {
                let value = map.get(key).ok_or_else(|| no_merge_key(&map, key))?;
                deleted.insert(value.clone());
            }
            Some("replace") => replaces = true,
            Some("merge") => {
                return Err(Error::Schema(
                    "merging lists cannot yet be specified in the patch".into(),
                ));
            }
            _ => return Err(bad_patch_type(directive, &map)),
        }
    }
    if !deleted.is_empty() {
        original.retain(|o| o.get(key).is_none_or(|value| !deleted.contains(value)));
    }
    Ok(if replaces {
        (ordinary, Vec::new())
    } else {
        (original, ordinary)
    })
}

/// Whether the items are maps; they must be of one type, and not lists.
fn of_maps<'a>(items: impl Iterator<Item = &'a Value>) -> Result<bool> {
    let mut first = None;
    for item in items {
        if item.is_array() {
            return Err(Error::Inapplicable(
                "lists of lists are not supported".into(),
            ));
        }
        let kind = type_name(item);
        if *first.get_or_insert(kind) != kind {
            return Err(Error::Schema("list element types are not identical".into()));
        }
    }
    Ok(first == Some(MAP))
}

const MAP: &str = "map[string]interface {}";

/// Go's name of the type that a JSON value decodes to, as it appears in messages.
fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => MAP,
    }
}

/// Drops `null` members at every depth; they delete nothing where nothing is.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k, without_nulls(v)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// Drops maps that are directives (`$patch`), at every depth; `None` when the value is one.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key(PATCH) => return None,
        Value::Object(map) => map
            .into_iter()
            .filter_map(|(k, v)| Some((k, without_directives(v)?)))
            .collect(),
        Value::Array(items) => items.into_iter().filter_map(without_directives).collect(),
        other => other,
    })
}

fn malformed(message: &str) -> Error {
    Error::Malformed(message.into())
}

fn no_merge_key(map: &Object, key: &str) -> Error {
    Error::Schema(format!(
        "map: {} does not contain declared merge key: {key}",
        Value::Object(map.clone())
    ))
}

fn bad_patch_type(directive: &Value, map: &Object) -> Error {
    Error::Schema(format!(
        "unknown patch type: {} in map: {}",
        directive.as_str().unwrap_or_default(),
        Value::Object(map.clone())
    ))
}
