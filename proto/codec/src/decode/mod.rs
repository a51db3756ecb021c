//! Reading what a client sent: JSON or YAML into a tree that is known to fit the schema,
//! with upstream's errors for what does not.

mod json;
mod yaml;

pub use json::json;
pub use yaml::{to_json as yaml_to_json, yaml};

use serde_json::Value;

/// What becomes of unknown and duplicate fields (`fieldValidation` of a request).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// They are dropped.
    Ignore,
    /// They are dropped and listed, to be sent back as warnings.
    Warn,
    /// They are dropped and listed, and the request is to be refused.
    Strict,
}

/// A body that could be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What the schema knows of the body, in canonical form and without `null`s.
    pub value: Value,
    /// Unknown and duplicate fields in upstream's words, such as
    /// `unknown field "spec.containers[0].foo"`; empty under [`Strictness::Ignore`].
    pub strict_errors: Vec<String>,
}

impl Decoded {
    /// The errors of [`Strictness::Strict`] as one, if there are any.
    pub fn strict_error(&self) -> Option<String> {
        let errors = &self.strict_errors;
        (!errors.is_empty()).then(|| format!("strict decoding error: {}", errors.join(", ")))
    }
}

/// A body that could not be read; the text is upstream's.
pub type DecodeError = crate::error::Error;
