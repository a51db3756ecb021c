//! What can go wrong between bytes and objects. One enum for the whole crate: every
//! format here is read against the same schema, and callers answer all of it with 400.

use std::borrow::Cow;

/// A body that cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NotEnveloped,
    #[error("empty data")]
    Empty,
    #[error("unexpected EOF")]
    UnexpectedEof,
    #[error("proto: integer overflow")]
    Overflow,
    #[error("proto: illegal tag {number} (wire type {wire})")]
    IllegalTag { number: u64, wire: u8 },
    #[error("proto: illegal wireType {0}")]
    IllegalWireType(u8),
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WrongWireType { wire: u8, field: &'static str },
    #[error("exceeded max depth")]
    TooDeep,
    /// JSON or YAML that is no JSON or YAML.
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong type, or one that its type refuses.
    #[error("{0}")]
    Value(Cow<'static, str>),
    /// Raised by a serde type.
    #[error("{0}")]
    Custom(String),
}

impl Error {
    pub(crate) fn value(text: impl Into<Cow<'static, str>>) -> Self {
        Error::Value(text.into())
    }

    /// encoding/json's words for a JSON value of the wrong type.
    pub(crate) fn mismatch(found: &str, wanted: &str) -> Self {
        Error::value(format!(
            "json: cannot unmarshal {found} into Go value of type {wanted}"
        ))
    }
}

impl serde::de::Error for Error {
    fn custom<T: std::fmt::Display>(msg: T) -> Self {
        Error::Custom(msg.to_string())
    }
}

impl serde::ser::Error for Error {
    fn custom<T: std::fmt::Display>(msg: T) -> Self {
        Error::Custom(msg.to_string())
    }
}

pub type Result<T, E = Error> = std::result::Result<T, E>;
