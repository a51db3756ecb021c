//! The [Common Expression Language][language], as Kubernetes uses it: an expression is compiled once and
//! evaluated against variables, within a budget.
//!
//! [`Program`] evaluates: values are typed then, and an expression that can never have the right
//! type compiles and fails. Its functions are those of the language, and of what Kubernetes adds
//! those that device selectors need (quantities, versions, strings, lists, sets, optional
//! values, `cel.bind`).
//!
//! [`Environment`] checks types and evaluates nothing. It knows all functions that Kubernetes
//! has.
//!
//! What must not be here: what the variables are. Nothing knows a kind.
//!
//! [language]: https://github.com/google/cel-spec

mod ast;
mod check;
mod eval;
mod functions;
mod identifiers;
mod kubernetes;
mod lexer;
mod macros;
mod names;
mod parser;
mod strings;
#[cfg(test)]
mod tests;
mod value;
mod version;

pub use check::{Environment, Field, Issue, Issues, ObjectTypes, Type};
pub use identifiers::{escape, is_identifier, is_reserved};
pub use value::{Key, Map, Value};
pub use version::Version;

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ERROR: <input>:{line}:{column}: {message}")]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub message: String,
}

/// Why an expression has no value. The texts are those of cel-go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    #[error("no such key: {0}")]
    NoSuchKey(String),
    #[error("no such overload")]
    NoSuchOverload,
    #[error("operation cancelled: actual cost limit exceeded")]
    TooCostly,
    #[error("{0}")]
    Other(String),
}

impl EvalError {
    fn other(text: impl Into<String>) -> Self {
        Self::Other(text.into())
    }
}

/// A compiled expression. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Program {
    root: std::sync::Arc<ast::Expr>,
}

impl Program {
    /// `variables` are the names that the expression may use.
    ///
    /// # Errors
    ///
    /// When the text is no expression, or uses names and functions that there are not.
    pub fn compile(text: &str, variables: &[&str]) -> Result<Self, SyntaxError> {
        let mut root = parser::parse(text, true)?;
        names::resolve(&mut root, text, variables)?;
        Ok(Self { root: root.into() })
    }

    /// The expression's value. `limit` is what it may cost: a step costs about 1, and so do
    /// ten characters that are looked at.
    ///
    /// # Errors
    ///
    /// When it has none, or costs too much.
    pub fn evaluate(&self, variables: &[(&str, Value)], limit: u64) -> Result<Value, EvalError> {
        eval::evaluate(&self.root, variables, limit)
    }
}
