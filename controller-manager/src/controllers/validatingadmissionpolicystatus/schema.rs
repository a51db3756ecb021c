//! What an OpenAPI v3 document of the API server says of a kind, as types of expressions.
//!
//! Types are made when an expression asks for them: of a Pod's hundreds of fields it names few.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use cel::{Field, Type};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// An answer of `/openapi/v3/...`, without what is only said to people.
#[derive(Debug, Default, Deserialize)]
pub struct Document {
    #[serde(default)]
    components: Components,
}

#[derive(Debug, Default, Deserialize)]
struct Components {
    #[serde(default)]
    schemas: HashMap<String, Schema>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Schema {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    all_of: Vec<Schema>,
    r#type: Option<String>,
    format: Option<String>,
    items: Option<Box<Schema>>,
    properties: HashMap<String, Schema>,
    additional_properties: Option<Box<Additional>>,
    #[serde(rename = "x-kubernetes-int-or-string")]
    int_or_string: bool,
    #[serde(rename = "x-kubernetes-embedded-resource")]
    embedded_resource: bool,
    #[serde(rename = "x-kubernetes-group-version-kind")]
    kinds: Vec<Kind>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Additional {
    Schema(Schema),
    /// `true` and `false`: any values are as good as none.
    Whether(IgnoredAny),
}

#[derive(Debug, Clone, Deserialize)]
struct Kind {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    kind: String,
}

const REFERENCE: &str = "#/components/schemas/";

/// The references that lead to a schema. One that leads back into itself ends there.
#[derive(Debug)]
struct Way<'a> {
    reference: &'a str,
    before: Option<Rc<Way<'a>>>,
}

/// A schema, its references followed.
#[derive(Clone)]
struct Place<'a> {
    schema: &'a Schema,
    document: &'a Document,
    way: Option<Rc<Way<'a>>>,
    /// Whether it is an object with a kind and a name of its own.
    resource: bool,
}

/// The object types that expressions have asked for, by the names they were given.
#[derive(Default)]
pub struct Objects<'a>(RefCell<HashMap<Box<str>, Place<'a>>>);

impl Document {
    /// The type of a kind, called `name`; `None` when the document does not have the kind, and
    /// `Some(Dyn)` when nothing is known of it.
    pub fn kind<'a>(
        &'a self,
        gvk: &meta::GroupVersionKind,
        name: &str,
        objects: &Objects<'a>,
    ) -> Option<Type> {
        let is =
            |of: &Kind| of.group == gvk.group && of.version == gvk.version && of.kind == gvk.kind;
        let mut all = self.components.schemas.iter();
        let (reference, schema) = all.find(|(_, schema)| schema.kinds.iter().any(is))?;
        let place = Place {
            schema,
            document: self,
            way: Some(Rc::new(Way {
                reference,
                before: None,
            })),
            resource: true,
        };
        Some(objects.of(&place, name).unwrap_or(Type::Dyn))
    }
}

impl Schema {
    /// What this stands for; a reference may be within `allOf`, beside a description of its own.
    fn refers_to(&self) -> Option<&str> {
        if let Some(reference) = &self.reference {
            return Some(reference.strip_prefix(REFERENCE).unwrap_or(reference));
        }
        self.all_of.iter().find_map(Self::refers_to)
    }

    fn is(&self, of: &str) -> bool {
        self.r#type.as_deref() == Some(of)
    }
}

/// What a reference into itself is taken for.
static CYCLE: std::sync::LazyLock<Schema> = std::sync::LazyLock::new(|| Schema {
    r#type: Some("object".to_owned()),
    ..Schema::default()
});

impl<'a> Place<'a> {
    /// A schema within this one.
    fn within(&self, schema: &'a Schema) -> Option<Self> {
        let mut place = Self {
            schema,
            resource: schema.embedded_resource,
            ..self.clone()
        };
        if let Some(reference) = schema.refers_to() {
            let mut way = self.way.as_ref();
            while let Some(step) = way {
                if step.reference == reference {
                    place.schema = &CYCLE;
                    return Some(place);
                }
                way = step.before.as_ref();
            }
            place.schema = self.document.components.schemas.get(reference)?;
            place.resource = place.schema.embedded_resource;
            place.way = Some(Rc::new(Way {
                reference,
                before: self.way.clone(),
            }));
        }
        Some(place)
    }

    fn property(&self, name: &str) -> Option<Self> {
        self.within(self.schema.properties.get(name)?)
    }

    /// Whether the schema itself says what every resource has.
    fn says_what_resources_have(&self) -> bool {
        let text = |place: Option<Self>| place.is_some_and(|place| place.schema.is("string"));
        let metadata = self.property("metadata");
        text(self.property("kind"))
            && text(self.property("apiVersion"))
            && metadata.is_some_and(|metadata| {
                metadata.schema.is("object")
                    && text(metadata.property("name"))
                    && text(metadata.property("generateName"))
            })
    }
}

impl<'a> Objects<'a> {
    /// The field of an object type that has been given out.
    pub fn field(&self, object: &str, field: &str) -> Field {
        let place = self.0.borrow().get(object).cloned();
        let Some(place) = place else {
            // What a resource has where its schema does not say it.
            return match (object.strip_suffix(METADATA), field) {
                (Some(_), "name" | "generateName") => Field::Is(Type::String),
                (Some(_), _) => Field::Undefined,
                (None, _) => Field::UnknownObject,
            };
        };
        if place.resource && !place.says_what_resources_have() {
            match field {
                "apiVersion" | "kind" => return Field::Is(Type::String),
                "metadata" => return Field::Is(Type::object(&format!("{object}{METADATA}"))),
                _ => {}
            }
        }
        let properties = &place.schema.properties;
        let name = match properties.get_key_value(field) {
            // A reserved word may be written as it is, or escaped.
            Some((name, _))
                if cel::is_reserved(field) || cel::escape(name).as_deref() == Some(field) =>
            {
                Some(name)
            }
            _ => properties
                .keys()
                .find(|name| cel::escape(name).as_deref() == Some(field)),
        };
        let of = name.and_then(|name| {
            let escaped = cel::escape(name)?;
            self.of(&place.property(name)?, &format!("{object}.{escaped}"))
        });
        of.map_or(Field::Undefined, Field::Is)
    }

    /// The type of what a schema describes. Objects in it have names that begin with `name`.
    /// `None` when expressions cannot see it.
    fn of(&self, place: &Place<'a>, name: &str) -> Option<Type> {
        let schema = place.schema;
        let format = schema.format.as_deref().unwrap_or_default();
        if schema.int_or_string || format == "int-or-string" {
            return Some(Type::Dyn);
        }
        Some(match schema.r#type.as_deref()? {
            "array" => {
                let items = place.within(schema.items.as_deref()?)?;
                Type::list(self.of(&items, &format!("{name}.@idx"))?)
            }
            "object" => match schema.additional_properties.as_deref() {
                Some(Additional::Schema(values)) => {
                    let values = self.of(&place.within(values)?, &format!("{name}.@elem"))?;
                    Type::map(Type::String, values)
                }
                _ => {
                    self.0.borrow_mut().insert(name.into(), place.clone());
                    Type::object(name)
                }
            },
            "string" => match format {
                "byte" => Type::Bytes,
                "duration" => Type::Duration,
                "date" | "date-time" => Type::Timestamp,
                _ => Type::String,
            },
            "boolean" => Type::Bool,
            "number" => Type::Double,
            "integer" => Type::Int,
            _ => return None,
        })
    }
}

/// Ends the names of types of metadata that no schema describes.
const METADATA: &str = ".metadata";
