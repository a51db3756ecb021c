//! Which objects a request is about.
//!
//! What must not be here: parsing selectors (`meta`), where objects are kept.

use meta::{fields, labels};

use super::Definition;
use super::object::Object;

/// Namespace, name, labels and fields; the default selects everything.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// Empty: every namespace, or a cluster-scoped resource.
    pub namespace: String,
    /// Empty: every name.
    pub name: String,
    pub labels: labels::Selector,
    /// All of them must hold.
    pub fields: Vec<FieldTerm>,
}

/// One term of a field selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTerm {
    pub field: FieldRef,
    /// `=`; false is `!=`.
    pub equals: bool,
    pub value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldRef {
    Name,
    Namespace,
    /// The index into `Definition::fields`.
    Selectable(usize),
}

/// A field selector names what the resource cannot be selected by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownField {
    #[error("field label not supported: {0}")]
    NotSelectable(String),
    /// Of a resource that has no selectable fields of its own.
    #[error("{0:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")]
    NotMetadata(String),
}

impl UnknownField {
    /// `plain`: the resource has no selectable fields of its own.
    pub fn new(field: &str, plain: bool) -> Self {
        match plain {
            true => Self::NotMetadata(field.to_owned()),
            false => Self::NotSelectable(field.to_owned()),
        }
    }
}

impl Selector {
    /// What a request selects of a resource; an empty `namespace` is every namespace.
    pub fn new(
        definition: &Definition,
        namespace: &str,
        labels: labels::Selector,
        fields: &fields::Selector,
    ) -> Result<Self, UnknownField> {
        let term = |term: &fields::Requirement| {
            Ok(FieldTerm {
                field: definition
                    .field(&term.field)
                    .ok_or_else(|| UnknownField::new(&term.field, definition.fields.is_empty()))?,
                equals: term.equals,
                value: term.value.clone(),
            })
        };
        Ok(Self {
            namespace: namespace.to_owned(),
            name: String::new(),
            labels,
            fields: fields
                .requirements()
                .iter()
                .map(term)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether it can select one object at most, whose key it says.
    pub fn is_of_one(&self, namespaced: bool) -> bool {
        let says = |field| {
            self.fields
                .iter()
                .any(|term| term.equals && term.field == field)
        };
        let named = !self.name.is_empty() || says(FieldRef::Name);
        named && (!namespaced || !self.namespace.is_empty() || says(FieldRef::Namespace))
    }

    pub fn matches(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || object.namespace() == self.namespace)
            && (self.name.is_empty() || object.name() == self.name)
            && self.fields.iter().all(|term| {
                let value = match term.field {
                    FieldRef::Name => object.name(),
                    FieldRef::Namespace => object.namespace(),
                    FieldRef::Selectable(i) => object.field(i),
                };
                (value == term.value) == term.equals
            })
            && (self.labels.is_empty() || {
                let labels = object.labels();
                self.labels.matches(|key| labels.get(key))
            })
    }

    /// A range of keys says all that is asked, so counting needs no look at the objects. A name
    /// alone, in whichever namespace, is no range.
    pub(super) fn is_plain(&self, definition: &Definition) -> bool {
        let is_range = self.name.is_empty() || !self.namespace.is_empty() || !definition.namespaced;
        is_range && self.labels.is_empty() && self.fields.is_empty()
    }

    /// Name and namespace that the field terms demand become the selector's own, which are
    /// looked up and not searched for.
    pub(super) fn normalized(mut self) -> Self {
        self.fields.retain(|term| {
            let own = match term.field {
                FieldRef::Name if term.equals => &mut self.name,
                FieldRef::Namespace if term.equals => &mut self.namespace,
                _ => return true,
            };
            if own.is_empty() {
                own.clone_from(&term.value);
            }
            // What contradicts stays and matches nothing.
            term.value.is_empty() || *own != term.value
        });
        self
    }
}
