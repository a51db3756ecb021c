//! What is wrong with an expression before it is evaluated: names that are not declared, fields
//! that an object does not have, functions that do not take what they are given.
//!
//! The rules, texts and places are those of cel-go's checker, with the functions that
//! Kubernetes' environment for stored expressions has.
//!
//! What must not be here: where types come from. An [`Environment`] says what the variables
//! are, an [`ObjectTypes`] which fields objects have.

mod calls;
mod checker;
mod folds;
mod formats;
mod issues;
mod literals;
mod overloads;
#[cfg(test)]
mod tests;
mod types;
mod unify;

use std::collections::HashMap;

pub use issues::{Issue, Issues};
pub use types::Type;

use crate::parser;

/// What is known of a field of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    Is(Type),
    /// The object has no field of that name.
    Undefined,
    /// There is no object type of that name.
    UnknownObject,
}

/// Where the fields of objects are known.
pub trait ObjectTypes {
    /// The field of an object type, by the names of both. A field's name is one that an
    /// expression can have (escaped where the API's is none).
    fn field(&self, object: &str, field: &str) -> Field;
}

/// What an expression may speak of.
#[derive(Clone)]
pub struct Environment<'a> {
    objects: &'a dyn ObjectTypes,
    variables: HashMap<Box<str>, Type>,
    binds: bool,
}

impl<'a> Environment<'a> {
    /// An environment without variables.
    #[must_use]
    pub fn new(objects: &'a dyn ObjectTypes) -> Self {
        Self {
            objects,
            variables: HashMap::new(),
            binds: false,
        }
    }

    /// Declares a variable. Its name may have dots (`authorizer.requestResource`).
    #[must_use]
    pub fn variable(mut self, name: &str, of: Type) -> Self {
        self.variables.insert(name.into(), of);
        self
    }

    /// Has `cel.bind`, which gives a part of an expression a name.
    #[must_use]
    pub fn with_bindings(mut self) -> Self {
        self.binds = true;
        self
    }

    /// The type of an expression.
    ///
    /// # Errors
    ///
    /// All that is wrong with it, or why it is no expression.
    pub fn check(&self, text: &str) -> Result<Type, Issues> {
        match parser::parse(text, self.binds) {
            Ok(expr) => checker::check(&expr, text, self),
            Err(error) => Err(Issues::of_syntax(text, error)),
        }
    }
}
