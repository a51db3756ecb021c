//! The patches a PATCH request may carry, as pure functions over JSON trees:
//! [`json`] (RFC 6902), [`merge`] (RFC 7386) and [`strategic`] (Kubernetes' strategic
//! merge patch, driven by the schema's patch strategies and merge keys).
//!
//! What must not be here: HTTP statuses, decoding of objects, storage.

pub mod apply;
pub mod json;
pub mod merge;
mod places;
pub mod strategic;

/// Why a patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The patch is no valid patch document (400).
    #[error("{0}")]
    Malformed(String),
    /// A JSON patch with more operations than the API server takes (413).
    #[error("The allowed maximum operations in a JSON patch is {allowed}, got {got}")]
    TooManyOperations { allowed: usize, got: usize },
    /// A well-formed patch does not apply to this object (422).
    #[error("{0}")]
    Inapplicable(String),
    /// The patch contradicts the object's schema, which upstream reports as an internal error (500).
    #[error("{0}")]
    Schema(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
