//! Defaulting: one walk over an object along its schema.
//!
//! A message's own function (one per message, in this folder's files) runs before its
//! fields are visited, as upstream's generated defaulters do; then static defaults
//! (`Field::default`) fill what is unset. Which messages have anything to default
//! below them is worked out once per process, so that a walk only enters those.
//!
//! What must not be here: anything that depends on the old object or on the cluster.

mod admissionregistration;
mod apiregistration;
mod apps;
mod autoscaling;
mod batch;
mod core;
mod discovery;
mod flowcontrol;
mod image;
mod networking;
mod rbac;
mod resource;
mod storage;

use std::collections::HashMap;
use std::sync::{OnceLock, RwLock};

pub use self::core::pod_level_requests;
pub use self::flowcontrol::PRESERVE_ZERO_SHARES;
use schema::{Cardinality, Field, Message, Type};
use serde_json::{Map, Value};

/// An object's fields.
type Fields = Map<String, Value>;

/// Sets what one message leaves unset.
type Defaulter = fn(&mut Fields);

/// Every message with a function of its own, by OpenAPI model name.
const DEFAULTERS: &[&[(&str, Defaulter)]] = &[
    admissionregistration::DEFAULTERS,
    apiregistration::DEFAULTERS,
    apps::DEFAULTERS,
    autoscaling::DEFAULTERS,
    batch::DEFAULTERS,
    core::DEFAULTERS,
    discovery::DEFAULTERS,
    flowcontrol::DEFAULTERS,
    networking::DEFAULTERS,
    rbac::DEFAULTERS,
    resource::DEFAULTERS,
    storage::DEFAULTERS,
];

/// Fills in the defaults of `object`, a `message`, in place.
pub fn apply(message: &'static Message, object: &mut Value) {
    if let (Some(plan), Value::Object(fields)) = (plan(message), object) {
        plan.run(fields);
    }
}

/// Whether there is anything to default in a `message`, or below it.
pub fn has_any(message: &'static Message) -> bool {
    plan(message).is_some()
}

/// What there is to do in one message.
struct Plan {
    own: Option<Defaulter>,
    /// The field, whether it is a pointer, and its value.
    statics: Vec<(&'static str, bool, Value)>,
    /// Fields whose messages have something to default. The name is empty for an
    /// inlined message, whose fields are the parent's.
    below: Vec<(&'static Field, &'static Message)>,
}

impl Plan {
    fn run(&self, fields: &mut Fields) {
        if let Some(own) = self.own {
            own(fields);
        }
        for (name, pointer, value) in &self.statics {
            let there = if *pointer {
                is_set(fields, name)
            } else {
                is_given(fields, name)
            };
            if !there {
                fields.insert((*name).to_owned(), value.clone());
            }
        }
        for (field, message) in &self.below {
            let Some(plan) = plan(message) else { continue };
            if field.json.is_empty() {
                plan.run(fields);
                continue;
            }
            match (field.cardinality, fields.get_mut(field.json)) {
                (Cardinality::One, Some(Value::Object(child))) => plan.run(child),
                (Cardinality::List, Some(Value::Array(items))) => {
                    for child in items.iter_mut().filter_map(Value::as_object_mut) {
                        plan.run(child);
                    }
                }
                (Cardinality::Map, Some(Value::Object(entries))) => {
                    for child in entries.values_mut().filter_map(Value::as_object_mut) {
                        plan.run(child);
                    }
                }
                // A struct that is no pointer exists even when nobody wrote it.
                (Cardinality::One, None | Some(Value::Null)) if !field.pointer => {
                    let mut child = Fields::new();
                    plan.run(&mut child);
                    if !child.is_empty() {
                        fields.insert(field.json.to_owned(), Value::Object(child));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Plans by message address; `None` for a message with nothing to default in it or below.
type Plans = HashMap<usize, Option<&'static Plan>>;

fn plan(message: &'static Message) -> Option<&'static Plan> {
    static PLANS: OnceLock<RwLock<Plans>> = OnceLock::new();
    let plans = PLANS.get_or_init(RwLock::default);
    let key = std::ptr::from_ref(message) as usize;
    if let Some(known) = plans.read().ok()?.get(&key) {
        return *known;
    }
    let mut plans = plans.write().ok()?;
    compile(message, &mut plans)
}

fn compile(message: &'static Message, plans: &mut Plans) -> Option<&'static Plan> {
    let key = std::ptr::from_ref(message) as usize;
    if let Some(known) = plans.get(&key) {
        return *known;
    }
    // A message that contains itself (JSONSchemaProps) is entered once; no default of
    // the built-in API lies inside such a cycle.
    plans.insert(key, None);
    let below: Vec<_> = message
        .fields
        .iter()
        .filter_map(|field| match field.ty {
            Type::Message(child) if compile(child, plans).is_some() => Some((field, child)),
            _ => None,
        })
        .collect();
    let statics: Vec<_> = message
        .fields
        .iter()
        .filter(|field| !field.json.is_empty())
        .filter_map(|field| {
            let value = serde_json::from_str(field.default?).ok()?;
            // `""`, `0`, `{}`: what an unset field means anyway, if it is no pointer.
            (!is_zero(&value) || field.pointer).then_some((field.json, field.pointer, value))
        })
        .collect();
    let own = DEFAULTERS
        .iter()
        .flat_map(|group| group.iter())
        .find(|(name, _)| *name == message.name)
        .map(|(_, own)| *own);
    if own.is_none() && statics.is_empty() && below.is_empty() {
        return None;
    }
    let plan: &'static Plan = Box::leak(Box::new(Plan {
        own,
        statics,
        below,
    }));
    plans.insert(key, Some(plan));
    Some(plan)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

/// The field is there and is not `null`.
fn is_set(fields: &Fields, name: &str) -> bool {
    fields.get(name).is_some_and(|v| !v.is_null())
}

/// The field says something: not absent, `null`, `""`, `0`, or empty. For Go values
/// that are no pointers this is the same as "set".
fn is_given(fields: &Fields, name: &str) -> bool {
    fields.get(name).is_some_and(|v| !is_zero(v))
}

/// Sets a pointer field that is unset.
fn set_unset(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    if !is_set(fields, name) {
        fields.insert(name.to_owned(), value.into());
    }
}

/// Sets a value field that is zero or empty.
fn set_empty(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    if !is_given(fields, name) {
        fields.insert(name.to_owned(), value.into());
    }
}

fn text<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The object under `name`, made when it is unset.
fn object<'a>(fields: &'a mut Fields, name: &str) -> &'a mut Fields {
    let slot = fields.entry(name.to_owned()).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Fields::new());
    }
    match slot {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object just above"),
    }
}

/// The objects in the list under `name`.
fn objects<'a>(fields: &'a mut Fields, name: &str) -> impl Iterator<Item = &'a mut Fields> {
    fields
        .get_mut(name)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests;
