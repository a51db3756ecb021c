//! Which objects a request is about.
//!
//! What must not be here: parsing selectors (`meta`), where objects are kept.

use std::sync::Arc;

use super::object::{Labels, Object};

/// A compiled label selector.
pub trait LabelMatch: Send + Sync + 'static {
    fn matches(&self, labels: Labels<'_>) -> bool;
}

/// Namespace, name, labels and fields; the default selects everything.
#[derive(Clone, Default)]
pub struct Selector {
    /// Empty: every namespace, or a cluster-scoped resource.
    pub namespace: String,
    /// Empty: every name.
    pub name: String,
    pub labels: Option<Arc<dyn LabelMatch>>,
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

impl Selector {
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
            && self
                .labels
                .as_ref()
                .is_none_or(|labels| labels.matches(object.labels()))
    }

    /// Nothing but namespace and name is asked, so counting needs no look at the objects.
    pub(super) fn is_plain(&self) -> bool {
        self.labels.is_none() && self.fields.is_empty()
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

impl std::fmt::Debug for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selector")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("labels", &self.labels.is_some())
            .field("fields", &self.fields)
            .finish()
    }
}
