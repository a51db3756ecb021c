//! The schema as server-side apply sees it: which values are leaves, which are owned whole,
//! and by what the items of a list are told apart.

use std::borrow::Cow;

use schema::{Cardinality, Field, ListType, Message, Omit, Special, Type};
use serde_json::Value;

use super::set::Element;

/// The type of a value, before the value is looked at.
#[derive(Debug, Clone, Copy)]
pub enum Ref {
    Object(&'static Message),
    Field(&'static Field),
    /// An item of the field's list, or a value of its map.
    Item(&'static Field),
    Text,
    /// Any JSON, owned whole (`RawExtension`).
    Untyped,
    /// Any JSON; maps are owned by their fields, lists whole.
    Deduced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    Numeric,
    Text,
    Boolean,
    Any,
}

/// How the items of a list are told apart.
#[derive(Debug, Clone, Copy)]
pub enum Relation {
    Atomic,
    /// By value.
    Set,
    /// By the fields of these names, which belong to items of this type.
    Keys(&'static [&'static str], Option<&'static Message>),
}

/// What a value is taken for.
#[derive(Debug, Clone, Copy)]
pub enum Atom {
    Scalar(Scalar),
    Struct {
        message: &'static Message,
        atomic: bool,
    },
    Map {
        item: Ref,
        atomic: bool,
    },
    List {
        item: Ref,
        relation: Relation,
    },
}

impl Ref {
    /// `value` decides where the type takes any JSON.
    pub fn atom(self, value: Option<&Value>) -> Atom {
        match self {
            Ref::Object(message) => of_message(message, None, value),
            Ref::Field(field) => match field.cardinality {
                Cardinality::One => one(field, value),
                Cardinality::List => Atom::List {
                    item: Ref::Item(field),
                    relation: relation(field),
                },
                Cardinality::Map => Atom::Map {
                    item: Ref::Item(field),
                    atomic: field.list_type == ListType::Atomic,
                },
            },
            Ref::Item(field) => of_type(&field.ty, None, value),
            Ref::Text => Atom::Scalar(Scalar::Text),
            Ref::Untyped => any(value, Ref::Untyped),
            Ref::Deduced => any(value, Ref::Deduced),
        }
    }

    /// The type of what an element leads to in a value of this type; `None`: not in the schema.
    pub fn descend(self, element: &Element) -> Option<Ref> {
        match (self.atom(None), element) {
            (Atom::Struct { message, .. }, Element::Field(name)) => {
                message.field(name).map(Ref::Field)
            }
            (Atom::Map { item, .. }, Element::Field(_)) => Some(item),
            (Atom::List { item, .. }, Element::Key(_) | Element::Value(_)) => Some(item),
            (Atom::Scalar(_), Element::Field(_)) => self.free_form(),
            _ => None,
        }
    }

    /// How the maps of a type that takes any JSON are owned.
    pub fn free_form(self) -> Option<Ref> {
        let field = match self {
            Ref::Untyped | Ref::Deduced => return Some(self),
            Ref::Field(field) if field.cardinality == Cardinality::One => field,
            Ref::Item(field) => field,
            _ => return None,
        };
        match field.ty {
            Type::Special(Special::RawExtension) => Some(Ref::Untyped),
            Type::Special(
                Special::FieldsV1
                | Special::Json
                | Special::JsonSchemaPropsOrBool
                | Special::JsonSchemaPropsOrArray
                | Special::JsonSchemaPropsOrStringArray,
            ) => Some(Ref::Deduced),
            _ => None,
        }
    }

    /// Whether the field is one that the type declares, not a key of a map.
    pub fn declares(self, element: &Element) -> bool {
        match (self.atom(None), element) {
            (Atom::Struct { message, .. }, Element::Field(name)) => message.field(name).is_some(),
            _ => false,
        }
    }
}

fn one(field: &'static Field, value: Option<&Value>) -> Atom {
    // What the field says goes before what its type says.
    let atomic = match field.list_type {
        ListType::Atomic => Some(true),
        ListType::Granular => Some(false),
        _ => None,
    };
    of_type(&field.ty, atomic, value)
}

fn of_type(ty: &'static Type, atomic: Option<bool>, value: Option<&Value>) -> Atom {
    match ty {
        Type::Bool => Atom::Scalar(Scalar::Boolean),
        Type::Int32 | Type::Int64 | Type::Float64 => Atom::Scalar(Scalar::Numeric),
        Type::String | Type::Bytes => Atom::Scalar(Scalar::Text),
        Type::Message(message) => of_message(message, atomic, value),
        Type::Special(special) => match special {
            Special::Quantity | Special::IntOrString | Special::Time | Special::MicroTime => {
                Atom::Scalar(Scalar::Any)
            }
            Special::Duration => Atom::Scalar(Scalar::Text),
            Special::StringList => Atom::List {
                item: Ref::Text,
                relation: Relation::Atomic,
            },
            Special::RawExtension => any(value, Ref::Untyped),
            Special::FieldsV1
            | Special::Json
            | Special::JsonSchemaPropsOrBool
            | Special::JsonSchemaPropsOrArray
            | Special::JsonSchemaPropsOrStringArray => any(value, Ref::Deduced),
        },
    }
}

fn of_message(message: &'static Message, atomic: Option<bool>, value: Option<&Value>) -> Atom {
    if message.fields.is_empty() {
        // An object without properties is free-form to OpenAPI.
        return match value {
            None => Atom::Map {
                item: Ref::Deduced,
                atomic: false,
            },
            value => any(value, Ref::Deduced),
        };
    }
    Atom::Struct {
        message,
        atomic: atomic.unwrap_or(message.atomic),
    }
}

fn any(value: Option<&Value>, below: Ref) -> Atom {
    match value {
        Some(Value::Object(_)) => Atom::Map {
            item: below,
            atomic: matches!(below, Ref::Untyped),
        },
        Some(Value::Array(_)) => Atom::List {
            item: Ref::Untyped,
            relation: Relation::Atomic,
        },
        _ => Atom::Scalar(Scalar::Any),
    }
}

fn relation(field: &'static Field) -> Relation {
    match field.list_type {
        ListType::Set => Relation::Set,
        ListType::Map => Relation::Keys(
            field.list_map_keys,
            match field.ty {
                Type::Message(message) => Some(message),
                _ => None,
            },
        ),
        ListType::Unset | ListType::Atomic | ListType::Granular => Relation::Atomic,
    }
}

/// What tells an item of an associative list from the others.
pub fn element_of(relation: Relation, item: &Value) -> Result<Element, String> {
    match relation {
        Relation::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        Relation::Set => match item {
            Value::Object(_) => {
                Err("associative list without keys has an element that's a map type".to_owned())
            }
            Value::Array(_) => {
                Err("not supported: associative list with lists as elements".to_owned())
            }
            Value::Null => Err(
                "associative list without keys has an element that's an explicit null".to_owned(),
            ),
            scalar => Ok(Element::Value(scalar.clone())),
        },
        Relation::Keys(names, message) => {
            let Value::Object(members) = item else {
                return Err(match item {
                    Value::Null => "associative list with keys has a null element",
                    _ => "associative list with keys may not have non-map elements",
                }
                .to_owned());
            };
            let mut key: Vec<(Cow<'static, str>, Value)> = Vec::with_capacity(names.len());
            for name in names {
                let value = members
                    .get(*name)
                    .cloned()
                    .or_else(|| default_of(message?.field(name)?));
                // A key field that is absent makes another key than one that is there.
                if let Some(value) = value {
                    key.push((Cow::Borrowed(*name), value));
                }
            }
            if key.is_empty() {
                let names: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
                return Err(format!(
                    "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                    names.join(" ")
                ));
            }
            key.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(Element::Key(key))
        }
    }
}

/// The default that OpenAPI states for a field.
fn default_of(field: &Field) -> Option<Value> {
    if let Some(literal) = field.default {
        return serde_json::from_str(literal).ok();
    }
    if field.pointer || field.omit != Omit::Never || field.cardinality != Cardinality::One {
        return None;
    }
    match field.ty {
        Type::Bool => Some(false.into()),
        Type::Int32 | Type::Int64 | Type::Float64 => Some(0.into()),
        Type::String => Some("".into()),
        _ => None,
    }
}

/// The items of a list; none for `null` and whatever is no list.
pub fn items(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::Array(items)) => items,
        _ => &[],
    }
}
