//! A [`serde_json::Value`] as the tree of what is being written or evaluated.
//!
//! A tree holds what the object's JSON holds, except that no member is `null` (outside of
//! types that hold any JSON): an absent member and `null` are the same to Go. JSON that objects
//! embed is held as text: the field sets of `managedFields` (see [`expand_managed_fields`]) and
//! raw extensions, which are stored byte for byte (see [`expand_raw`]).

use std::sync::LazyLock;

use schema::{Cardinality, Field, Message, Omit, Special, Type};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::json::{spelling, write};
use crate::serde_pb::Embedded;
use crate::{MAX_DEPTH, assemble, decode, serde_pb, special};

/// Reads a message into a tree.
pub fn from_proto(msg: &'static Message, raw: &[u8]) -> Result<Value> {
    serde_pb::tree_from_slice(msg, raw, None)
}

/// Reads a message into the tree of an object that states its API version and kind.
pub fn from_proto_with_type_meta(
    msg: &'static Message,
    raw: &[u8],
    api_version: &str,
    kind: &str,
) -> Result<Value> {
    serde_pb::tree_from_slice(msg, raw, Some((api_version, kind)))
}

/// Makes JSON of all field sets in a tree, those of templates' metadata too, for those who show
/// or change it as plain JSON.
pub fn expand_field_sets(msg: &'static Message, tree: &mut Value) {
    each(Special::FieldsV1, msg, tree, None, &mut |fields, _| {
        special::fields_v1::expand(fields);
    });
}

/// Makes JSON of the field sets in an object's own `managedFields`.
pub fn expand_managed_fields(object: &mut Value) {
    let list = object.pointer_mut("/metadata/managedFields");
    for entry in list.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(fields) = entry.get_mut("fieldsV1") {
            special::fields_v1::expand(fields);
        }
    }
}

/// Takes out bytes that are set and empty where JSON leaves them out: what has been printed
/// and read again has none.
pub fn drop_empty_bytes(msg: &'static Message, tree: &mut Value) {
    if !msg.holds_bytes {
        return;
    }
    for field in msg.fields {
        let msg = match &field.ty {
            Type::Message(inlined) if field.json.is_empty() => {
                drop_empty_bytes(inlined, tree);
                continue;
            }
            Type::Message(msg) => msg,
            Type::Bytes if field.cardinality == Cardinality::One && field.omit == Omit::Empty => {
                let members = tree.as_object_mut();
                let members = members.filter(|m| m.get(field.json).is_some_and(|v| v == ""));
                members.map(|members| members.remove(field.json));
                continue;
            }
            _ => continue,
        };
        match (field.cardinality, tree.get_mut(field.json)) {
            (Cardinality::List, Some(Value::Array(items))) => {
                items
                    .iter_mut()
                    .for_each(|item| drop_empty_bytes(msg, item));
            }
            (Cardinality::Map, Some(Value::Object(entries))) => {
                entries
                    .values_mut()
                    .for_each(|entry| drop_empty_bytes(msg, entry));
            }
            (Cardinality::One, Some(value)) => drop_empty_bytes(msg, value),
            _ => {}
        }
    }
}

/// Makes JSON of the raw extensions in a tree, for those who show or change it as plain JSON.
/// What is no JSON stays text.
pub fn expand_raw(msg: &'static Message, tree: &mut Value) {
    each(Special::RawExtension, msg, tree, None, &mut |raw, _| {
        let text = raw.as_str().map(str::as_bytes);
        if let Some(Ok(json)) = text.map(decode::untyped) {
            *raw = json;
        }
    });
}

/// Gives raw extensions, and the numbers in them, that are what they were `before` at the same
/// place the spelling back that they had. The text is compact then, as if it had been printed
/// and read.
pub fn keep_raw(msg: &'static Message, tree: &mut Value, before: &Value) {
    let before = Some(before);
    each(
        Special::RawExtension,
        msg,
        tree,
        before,
        &mut |raw, before| {
            let (Some(text), Some(Value::String(old))) = (raw.as_str(), before) else {
                return;
            };
            // However its numbers were printed on the way.
            let [then, now] =
                [old.as_str(), text].map(|text| decode::untyped(text.as_bytes()).ok());
            let (Some(then), Some(now)) = (then, now) else {
                return;
            };
            let mut kept = Vec::with_capacity(old.len());
            if then == now {
                if write::compact(&mut kept, old.as_bytes()).is_err() {
                    return;
                }
            } else {
                spelling::spelled_as(&now, serde_json::from_str(old).ok(), &mut kept);
            }
            *raw = Value::String(String::from_utf8(kept).unwrap_or_default());
        },
    );
}

/// Calls `act` for each value of a special form, with what `other` holds at the same place.
fn each(
    wanted: Special,
    msg: &'static Message,
    tree: &mut Value,
    other: Option<&Value>,
    act: &mut impl FnMut(&mut Value, Option<&Value>),
) {
    let holds = match wanted {
        Special::RawExtension => msg.holds_raw,
        Special::FieldsV1 => msg.holds_field_sets,
        _ => true,
    };
    if !holds {
        return;
    }
    for field in msg.fields {
        if let (true, Type::Message(inlined)) = (field.json.is_empty(), &field.ty) {
            each(wanted, inlined, tree, other, act);
            continue;
        }
        let Some(value) = tree.get_mut(field.json) else {
            continue;
        };
        let other = other.and_then(|other| other.get(field.json));
        let mut visit = |value: &mut Value, other: Option<&Value>| match &field.ty {
            Type::Message(msg) => each(wanted, msg, value, other, act),
            Type::Special(special) if *special == wanted => act(value, other),
            _ => {}
        };
        match (field.cardinality, value) {
            (Cardinality::List, Value::Array(items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    visit(item, other.and_then(|other| other.get(i)));
                }
            }
            (Cardinality::Map, Value::Object(entries)) => {
                for (key, entry) in entries {
                    visit(entry, other.and_then(|other| other.get(key)));
                }
            }
            (_, value) => visit(value, other),
        }
    }
}

/// Writes a tree as a message, exactly as gogo-proto writes the object: fields by number,
/// values that are no pointers even when they are zero, maps sorted. `apiVersion` and
/// `kind` belong into the envelope and are left out.
pub fn to_proto(msg: &'static Message, tree: &Value, out: &mut Vec<u8>) -> Result<()> {
    serde_pb::to_writer(msg, tree, Embedded::Text, out)
}

/// Writes a tree as JSON text, exactly as Go's encoding/json writes the object: members
/// in the schema's order, what Go omits left out, what Go always prints there. Members
/// that the schema does not know are left out.
pub fn to_json(msg: &'static Message, tree: &Value, out: &mut Vec<u8>) -> Result<()> {
    object(msg, tree, out, 0)
}

/// Adds the members that Go prints for an object even when they were never set: empty
/// structs, and zero values and `null`s of fields without `omitempty`. A JSON patch
/// (RFC 6902) is applied to such a tree, because its paths may name them.
pub fn complete(msg: &'static Message, tree: &mut Value) {
    if let Value::Object(members) = tree {
        complete_members(msg, members, 0);
    }
}

fn complete_members(msg: &'static Message, members: &mut Map<String, Value>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    for field in msg.fields {
        if field.json.is_empty() {
            if let (Type::Message(inlined), false) = (&field.ty, field.pointer) {
                complete_members(inlined, members, depth + 1);
            }
            continue;
        }
        if !members.contains_key(field.json) {
            match zero(field) {
                Some(zero) => members.insert(field.json.into(), zero.clone()),
                None => continue,
            };
        }
        let Some(value) = members.get_mut(field.json) else {
            continue;
        };
        let Type::Message(msg) = &field.ty else {
            continue;
        };
        let each = |value: &mut Value| {
            if let Value::Object(members) = value {
                complete_members(msg, members, depth + 1);
            }
        };
        match (field.cardinality, value) {
            (Cardinality::One, value) => each(value),
            (Cardinality::List, Value::Array(items)) => items.iter_mut().for_each(each),
            (Cardinality::Map, Value::Object(entries)) => entries.values_mut().for_each(each),
            _ => {}
        }
    }
}

/// What Go prints of a field: its value, unless Go leaves it out, or what stands for a field
/// that was never set.
pub fn printed<'a>(field: &Field, value: Option<&'a Value>) -> Option<&'a Value> {
    match value {
        Some(value) if !value.is_null() => {
            (field.omit == Omit::Never || !empty(field, value)).then_some(value)
        }
        _ => zero(field),
    }
}

/// The tree of exactly the members that Go prints.
pub fn printed_tree(msg: &'static Message, tree: &Value) -> Value {
    let mut members = Map::new();
    print_members(msg, tree, &mut members, 0);
    Value::Object(members)
}

fn print_members(msg: &'static Message, tree: &Value, out: &mut Map<String, Value>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    for field in msg.fields {
        if field.json.is_empty() {
            if let Type::Message(inlined) = &field.ty {
                print_members(inlined, tree, out, depth + 1);
            }
            continue;
        }
        let Some(value) = printed(field, tree.get(field.json)) else {
            continue;
        };
        let single = |value: &Value| match (&field.ty, value) {
            (Type::Message(msg), Value::Object(_)) => {
                let mut members = Map::new();
                print_members(msg, value, &mut members, depth + 1);
                Value::Object(members)
            }
            _ => value.clone(),
        };
        let value = match (field.cardinality, value) {
            (Cardinality::List, Value::Array(items)) => items.iter().map(single).collect(),
            (Cardinality::Map, Value::Object(entries)) => {
                let entries = entries.iter().map(|(k, v)| (k.clone(), single(v)));
                Value::Object(entries.collect())
            }
            (_, value) => single(value),
        };
        out.insert(field.json.into(), value);
    }
}

/// The values that stand for fields that were never set.
struct Zeros {
    null: Value,
    no: Value,
    number: Value,
    text: Value,
    object: Value,
    quantity: Value,
    duration: Value,
}

static ZEROS: LazyLock<Zeros> = LazyLock::new(|| Zeros {
    null: Value::Null,
    no: Value::Bool(false),
    number: 0.into(),
    text: "".into(),
    object: Value::Object(Map::new()),
    quantity: "0".into(),
    duration: "0s".into(),
});

/// What Go prints for a field that was never set, if it prints it at all.
fn zero(field: &Field) -> Option<&'static Value> {
    let is_struct = match field.ty {
        Type::Message(_) => true,
        Type::Special(special) => special != Special::StringList,
        _ => false,
    } && field.cardinality == Cardinality::One
        && !field.pointer;
    let printed = match field.omit {
        Omit::Never => true,
        Omit::Empty => is_struct,
        Omit::Zero => false,
    };
    if !printed {
        return None;
    }
    let zeros = &*ZEROS;
    if field.pointer || field.cardinality != Cardinality::One {
        return Some(&zeros.null);
    }
    Some(match field.ty {
        Type::Bool => &zeros.no,
        Type::Int32 | Type::Int64 | Type::Float64 => &zeros.number,
        Type::String => &zeros.text,
        Type::Bytes => &zeros.null,
        Type::Message(_) => &zeros.object,
        Type::Special(special) => match special {
            Special::Quantity => &zeros.quantity,
            Special::IntOrString => &zeros.number,
            Special::Duration => &zeros.duration,
            Special::JsonSchemaPropsOrBool => &zeros.no,
            _ => &zeros.null,
        },
    })
}

/// Whether `omitempty` leaves out the value of a field that is no pointer.
fn empty(field: &Field, value: &Value) -> bool {
    match (field.cardinality, value) {
        (Cardinality::List, Value::Array(items)) => items.is_empty(),
        (Cardinality::Map, Value::Object(entries)) => entries.is_empty(),
        (Cardinality::One, value) if !field.pointer => match (&field.ty, value) {
            (Type::Special(Special::StringList), Value::Array(items)) => items.is_empty(),
            (Type::Special(_), _) => field.omit == Omit::Zero && zero(field) == Some(value),
            (_, Value::String(text)) => text.is_empty(),
            (_, Value::Bool(v)) => !v,
            (_, Value::Number(v)) => v.as_f64() == Some(0.0),
            // Only `omitzero` looks into a struct.
            (Type::Message(msg), value) => field.omit == Omit::Zero && is_zero(msg, value),
            _ => false,
        },
        _ => false,
    }
}

fn is_zero(msg: &'static Message, value: &Value) -> bool {
    let Value::Object(members) = value else {
        return true;
    };
    members.iter().all(|(name, value)| {
        value.is_null()
            || msg.field(name).is_none_or(|field| {
                !field.pointer && field.cardinality == Cardinality::One && empty(field, value)
            })
    })
}

fn object(msg: &'static Message, tree: &Value, out: &mut Vec<u8>, depth: usize) -> Result<()> {
    let none = Map::new();
    let members = match tree {
        Value::Object(members) => members,
        Value::Null => &none,
        other => return Err(mismatch(other, &Type::Message(msg))),
    };
    out.push(b'{');
    let start = out.len();
    fields(msg, members, out, start, depth)?;
    out.push(b'}');
    Ok(())
}

fn fields(
    msg: &'static Message,
    members: &Map<String, Value>,
    out: &mut Vec<u8>,
    start: usize,
    depth: usize,
) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::TooDeep);
    }
    for field in msg.fields {
        if field.json.is_empty() {
            // A pointer to an inlined struct without members prints nothing either way.
            if let Type::Message(inlined) = &field.ty {
                fields(inlined, members, out, start, depth + 1)?;
            }
            continue;
        }
        let Some(value) = printed(field, members.get(field.json)) else {
            continue;
        };
        if out.len() > start {
            out.push(b',');
        }
        out.push(b'"');
        out.extend_from_slice(field.json.as_bytes());
        out.extend_from_slice(b"\":");
        match (field.cardinality, value) {
            (_, Value::Null) => out.extend_from_slice(b"null"),
            (Cardinality::One, value) => single(&field.ty, msg, value, out, depth)?,
            (Cardinality::List, Value::Array(items)) => {
                list(items, out, |item, out| {
                    single(&field.ty, msg, item, out, depth)
                })?;
            }
            (Cardinality::Map, Value::Object(entries)) => {
                out.push(b'{');
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_unstable_by_key(|(key, _)| *key);
                for (i, (key, value)) in sorted.into_iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write::string(out, key.as_bytes());
                    out.push(b':');
                    single(&field.ty, msg, value, out, depth)?;
                }
                out.push(b'}');
            }
            (_, other) => return Err(mismatch(other, &field.ty)),
        }
    }
    Ok(())
}

fn list(
    items: &[Value],
    out: &mut Vec<u8>,
    mut each: impl FnMut(&Value, &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    out.push(b'[');
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        each(item, out)?;
    }
    out.push(b']');
    Ok(())
}

fn single(
    ty: &'static Type,
    parent: &'static Message,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<()> {
    match (ty, value) {
        (Type::Bool, Value::Bool(v)) => write::bool(out, *v),
        (Type::Int32 | Type::Int64, Value::Number(v)) => match v.as_i64() {
            Some(v) => write::int(out, v),
            None => return Err(mismatch(value, ty)),
        },
        (Type::Float64, Value::Number(v)) => write::float(out, v.as_f64().unwrap_or_default())?,
        (Type::String | Type::Bytes, Value::String(v)) => write::string(out, v.as_bytes()),
        (Type::Message(msg), value) => object(msg, value, out, depth + 1)?,
        (Type::Special(special), value) => special_value(*special, parent, value, out, depth)?,
        (_, Value::Null) => out.extend_from_slice(match ty {
            Type::Bool => b"false",
            Type::String => b"\"\"",
            Type::Bytes => b"\"\"",
            _ => b"0",
        }),
        (ty, value) => return Err(mismatch(value, ty)),
    }
    Ok(())
}

fn special_value(
    special: Special,
    parent: &'static Message,
    value: &Value,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<()> {
    match (special, value) {
        (Special::FieldsV1, Value::String(text)) => write::compact(out, text.as_bytes())?,
        (Special::FieldsV1, value) => special::fields_v1::put(value, out),
        (Special::RawExtension, Value::String(text)) => write::compact(out, text.as_bytes())?,
        (Special::RawExtension | Special::Json, value) => write::value(out, value),
        (_, Value::Null) => out.extend_from_slice(b"null"),
        (
            Special::JsonSchemaPropsOrBool
            | Special::JsonSchemaPropsOrArray
            | Special::JsonSchemaPropsOrStringArray,
            Value::Object(_),
        ) => object(parent, value, out, depth + 1)?,
        (Special::JsonSchemaPropsOrBool, Value::Bool(v)) => write::bool(out, *v),
        (Special::JsonSchemaPropsOrArray, Value::Array(items)) => match items.len() {
            0 => out.extend_from_slice(b"null"),
            _ => list(items, out, |item, out| object(parent, item, out, depth + 1))?,
        },
        (Special::JsonSchemaPropsOrStringArray | Special::StringList, Value::Array(items)) => {
            match (items.len(), special) {
                (0, Special::JsonSchemaPropsOrStringArray) => out.extend_from_slice(b"null"),
                _ => list(items, out, |item, out| {
                    write::value(out, item);
                    Ok(())
                })?,
            }
        }
        (Special::IntOrString, Value::Number(v)) if v.as_i64().is_some() => {
            write::int(out, v.as_i64().unwrap_or_default());
        }
        (Special::Quantity, Value::Number(v)) => {
            let text = v.to_string();
            write::string(out, special::normal_text(special, &text)?.as_bytes());
        }
        (_, Value::String(text)) => {
            write::string(out, special::normal_text(special, text)?.as_bytes());
        }
        (special, value) => return Err(mismatch(value, &Type::Special(special))),
    }
    Ok(())
}

fn mismatch(found: &Value, ty: &Type) -> Error {
    let word = match found {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Error::mismatch(word, &assemble::go_name(ty))
}
