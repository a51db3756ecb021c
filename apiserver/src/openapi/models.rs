//! Messages as OpenAPI schemas, in the two dialects.
//!
//! What must not be here: paths and operations.

use std::collections::BTreeSet;

use schema::{Cardinality, Field, ListType, Message, Omit, PatchStrategy, Special, Type};
use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::operations::{PATCH, WATCH_EVENT};

/// The dialect of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

impl Dialect {
    pub fn reference(self, model: &str) -> Value {
        let place = match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        };
        json!({"$ref": format!("{place}{model}")})
    }
}

/// Every model that those of `roots` consist of, themselves included.
pub fn closure(roots: impl IntoIterator<Item = &'static str>) -> BTreeSet<&'static str> {
    let mut all = BTreeSet::new();
    let mut open: Vec<&'static str> = roots.into_iter().collect();
    while let Some(model) = open.pop() {
        if !all.insert(model) {
            continue;
        }
        if let Some(message) = schema::message(model).filter(|_| special(model).is_none()) {
            visit(message, &mut |field| open.extend(field_model(field)));
        }
    }
    all
}

/// The fields that JSON shows, those of inlined messages included.
fn visit(message: &'static Message, f: &mut impl FnMut(&'static Field)) {
    for field in message.fields {
        match field.ty {
            Type::Message(inlined) if field.json.is_empty() => visit(inlined, f),
            _ => f(field),
        }
    }
}

fn field_model(field: &Field) -> Option<&'static str> {
    match field.ty {
        Type::Message(message) => Some(message.name),
        Type::Special(special) => special.model(),
        _ => None,
    }
}

/// Models that are not objects of fields.
fn special(model: &str) -> Option<fn(Dialect) -> Value> {
    let name = model.rsplit('.').next().unwrap_or_default();
    let of = |package: &str| model.starts_with(package);
    let meta = of("io.k8s.apimachinery.pkg.");
    let crds = of("io.k8s.apiextensions-apiserver.");
    match name {
        "Quantity" if meta => Some(|dialect| match dialect {
            Dialect::V2 => json!({"type": "string"}),
            Dialect::V3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        }),
        "IntOrString" if meta => Some(|dialect| match dialect {
            Dialect::V2 => json!({"type": "string", "format": "int-or-string"}),
            Dialect::V3 => json!({
                "format": "int-or-string",
                "oneOf": [{"type": "integer"}, {"type": "string"}],
            }),
        }),
        "Time" | "MicroTime" if meta => Some(|_| json!({"type": "string", "format": "date-time"})),
        "Duration" if meta => Some(|_| json!({"type": "string"})),
        "FieldsV1" | "Patch" | "RawExtension" if meta => Some(|_| json!({"type": "object"})),
        "JSON"
        | "JSONSchemaPropsOrArray"
        | "JSONSchemaPropsOrBool"
        | "JSONSchemaPropsOrStringArray"
            if crds =>
        {
            Some(|_| json!({}))
        }
        "CustomResourceSubresourceStatus" if crds => Some(|_| json!({"type": "object"})),
        _ => None,
    }
}

/// The schema of a model, in the document of a group version or of all.
pub fn schema_of(
    model: &'static str,
    dialect: Dialect,
    descriptions: &mut Descriptions,
    of_document: Option<(&str, &str)>,
) -> Value {
    let mut out = match special(model) {
        Some(special) => special(dialect),
        None => match schema::message(model) {
            Some(message) => object(message, dialect, descriptions),
            None => json!({"type": "object"}),
        },
    };
    if let Some(text) = describe(model, "", descriptions) {
        out["description"] = text.into();
    }
    let kinds = kinds(model, of_document);
    if !kinds.is_empty() {
        out["x-kubernetes-group-version-kind"] = kinds.into();
    }
    out
}

/// What a type or a field is for. Lists and what else the crate has as Rust types of its
/// own are described in our words.
fn describe(model: &str, field: &str, descriptions: &mut Descriptions) -> Option<String> {
    if let Some(text) = descriptions.get(model, field) {
        return Some(text.to_owned());
    }
    let name = model.rsplit('.').next().unwrap_or_default();
    let of_list = name.strip_suffix("List");
    let text = match (field, of_list) {
        ("kind" | "apiVersion", _) => {
            return descriptions
                .get("io.k8s.api.core.v1.Pod", field)
                .map(str::to_owned);
        }
        ("", Some(item)) => format!("{name} is a list of objects of kind {item}."),
        ("items", Some(item)) => format!("The objects of kind {item}."),
        ("metadata", Some(_)) => "Standard list metadata: how fresh the list is and, when it is a \
             page of a longer one, how to go on."
            .to_owned(),
        ("", None) if model == PATCH => {
            "What is to be changed, in the form that the content type says.".to_owned()
        }
        ("", None) if model == WATCH_EVENT => "One change to a watched object.".to_owned(),
        ("object", None) if model == WATCH_EVENT => "The object after the change, or before its \
             deletion; of a bookmark only its resourceVersion; of an error a Status."
            .to_owned(),
        _ => return None,
    };
    Some(text)
}

/// The group version kinds of a model. A kind of every group version there is names, in a
/// group version's document, only that and the first.
fn kinds(model: &str, of_document: Option<(&str, &str)>) -> Vec<Value> {
    let all = schema::message(model).map_or(&[][..], |m| m.gvks);
    let everywhere = all.len() >= schema::group_versions().len() / 2;
    all.iter()
        .filter(|k| match of_document {
            Some(document) if everywhere => {
                let own = (k.group, k.version);
                own == document || own == ("", "v1")
            }
            _ => true,
        })
        .map(|k| json!({"group": k.group, "kind": k.kind, "version": k.version}))
        .collect()
}

fn object(message: &'static Message, dialect: Dialect, descriptions: &mut Descriptions) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    visit(message, &mut |field| {
        if field.required {
            required.push(field.json);
        }
        let mut property = property(field, dialect);
        if let Some(text) = describe(message.name, field.json, descriptions) {
            property["description"] = (text + &possible_values(field)).into();
        }
        properties.insert(field.json.to_owned(), apart(property, dialect));
    });
    let mut out = json!({"type": "object"});
    if !properties.is_empty() {
        out["properties"] = properties.into();
    }
    if !required.is_empty() {
        out["required"] = json!(required);
    }
    if message.atomic {
        out["x-kubernetes-map-type"] = "atomic".into();
    }
    if !message.unions.is_empty() {
        out["x-kubernetes-unions"] = message.unions.iter().map(union).collect();
    }
    out
}

/// The values of an enumeration, as `kubectl explain` shows them below the description.
fn possible_values(field: &schema::Field) -> String {
    let mut values = field.enum_values.to_vec();
    if values.is_empty() {
        return String::new();
    }
    values.sort_unstable();
    let lines: Vec<String> = values.iter().map(|v| format!(" - `{v:?}`")).collect();
    format!("\n\nPossible enum values:\n{}", lines.join("\n"))
}

fn union(union: &schema::Union) -> Value {
    let members = union.members.iter();
    let members: Map<String, Value> = members
        .map(|(field, value)| ((*field).to_owned(), (*value).into()))
        .collect();
    let mut out = json!({"fields-to-discriminateBy": members});
    if let Some(discriminator) = union.discriminator {
        out["discriminator"] = discriminator.into();
    }
    out
}

/// OpenAPI 3.0 has no room for anything beside a reference: it moves into a list of one.
fn apart(mut property: Value, dialect: Dialect) -> Value {
    let siblings = property.as_object().is_some_and(|p| p.len() > 1);
    if dialect == Dialect::V3
        && siblings
        && let Some(reference) = property.as_object_mut().and_then(|p| p.remove("$ref"))
    {
        property["allOf"] = json!([{"$ref": reference}]);
    }
    property
}

fn property(field: &'static Field, dialect: Dialect) -> Value {
    let value = value_type(field, dialect);
    let mut out = match field.cardinality {
        Cardinality::One => value,
        Cardinality::List => json!({"type": "array", "items": value}),
        Cardinality::Map => json!({"type": "object", "additionalProperties": value}),
    };
    if dialect == Dialect::V3
        && let Some(default) = default(field)
    {
        out["default"] = default;
    }
    // Bytes are a list to Go.
    let list = field.cardinality == Cardinality::List || matches!(field.ty, Type::Bytes);
    let (extension, value) = match field.list_type {
        ListType::Unset => ("", ""),
        ListType::Set => ("x-kubernetes-list-type", "set"),
        ListType::Map => ("x-kubernetes-list-type", "map"),
        ListType::Atomic if list => ("x-kubernetes-list-type", "atomic"),
        ListType::Atomic => ("x-kubernetes-map-type", "atomic"),
        ListType::Granular => ("x-kubernetes-map-type", "granular"),
    };
    if !extension.is_empty() {
        out[extension] = value.into();
    }
    if !field.list_map_keys.is_empty() {
        out["x-kubernetes-list-map-keys"] = json!(field.list_map_keys);
    }
    if let Some(key) = field.patch_merge_key {
        out["x-kubernetes-patch-merge-key"] = key.into();
    }
    let strategy = match field.patch_strategy {
        PatchStrategy::Unset => None,
        PatchStrategy::Merge => Some("merge"),
        PatchStrategy::Replace => Some("replace"),
        PatchStrategy::RetainKeys => Some("retainKeys"),
        PatchStrategy::MergeRetainKeys => Some("merge,retainKeys"),
    };
    if let Some(strategy) = strategy {
        out["x-kubernetes-patch-strategy"] = strategy.into();
    }
    out
}

/// The type of the field's value, or of the items of its list or map.
fn value_type(field: &Field, dialect: Dialect) -> Value {
    let mut out = match field.ty {
        Type::Bool => json!({"type": "boolean"}),
        Type::Int32 => json!({"type": "integer", "format": "int32"}),
        Type::Int64 => json!({"type": "integer", "format": "int64"}),
        Type::Float64 => json!({"type": "number", "format": "double"}),
        Type::String => json!({"type": "string"}),
        Type::Bytes => json!({"type": "string", "format": "byte"}),
        Type::Message(message) => return dialect.reference(message.name),
        Type::Special(Special::StringList) => {
            return json!({"type": "array", "items": {"type": "string"}});
        }
        Type::Special(special) => match special.model() {
            Some(model) => return dialect.reference(model),
            None => json!({}),
        },
    };
    if let Some(format) = field.format {
        out["format"] = format.into();
    }
    if !field.enum_values.is_empty() {
        let mut values = field.enum_values.to_vec();
        values.sort_unstable();
        out["enum"] = json!(values);
    }
    out
}

/// What the field is when nobody sets it: its declared default, or Go's zero value where
/// there is no way to leave it out.
fn default(field: &Field) -> Option<Value> {
    if let Some(default) = field.default {
        return serde_json::from_str(default).ok();
    }
    if field.cardinality != Cardinality::One || field.pointer {
        return None;
    }
    match field.ty {
        Type::Message(_) => Some(json!({})),
        _ if field.omit != Omit::Never => None,
        Type::Bool => Some(false.into()),
        Type::Int32 | Type::Int64 => Some(0.into()),
        Type::Float64 => Some(json!(0)),
        Type::String => Some("".into()),
        _ => None,
    }
}
