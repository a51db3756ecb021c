//! [`Type`]: what is known of a value before there is one.

use std::fmt;
use std::sync::Arc;

/// The type of an expression. Cheap to clone. It is shown as cel-go shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Nothing is known before evaluation.
    Dyn,
    /// As [`Type::Dyn`], but no list and no map: there is nothing in it to go through.
    Any,
    /// Of an expression in which an error has been found: it fits everywhere, so that one error
    /// is told once.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Duration,
    Timestamp,
    List(Arc<Type>),
    /// Of keys and values.
    Map(Arc<(Type, Type)>),
    /// An object by its type's name, of which an [`super::ObjectTypes`] knows the fields.
    Object(Arc<str>),
    /// A type with a name, and perhaps parameters, of which nothing else is known.
    Opaque(Arc<str>, Arc<[Type]>),
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// What is not known yet: a parameter of a function, or the element of an empty list.
    Param(usize),
}

/// How many parts a type may have. A map of what was a map of what was a map has soon more than
/// can be looked at.
const MOST_PARTS: usize = 1000;
/// What optional values are called.
const OPTIONAL: &str = "optional_type";

impl Type {
    #[must_use]
    pub fn list(of: Self) -> Self {
        Self::List(of.into())
    }

    #[must_use]
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map((key, value).into())
    }

    #[must_use]
    pub fn object(name: &str) -> Self {
        Self::Object(name.into())
    }

    #[must_use]
    pub fn optional(of: Self) -> Self {
        Self::Opaque(OPTIONAL.into(), [of].into())
    }

    /// What an optional value has, if it has anything.
    pub(super) fn within_optional(&self) -> Option<&Self> {
        match self {
            Self::Opaque(name, parameters) if **name == *OPTIONAL => parameters.first(),
            _ => None,
        }
    }

    /// Whether it has more parts than anything that is meant.
    pub(super) fn is_huge(&self) -> bool {
        !self.fits_into(&mut { MOST_PARTS })
    }

    fn fits_into(&self, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(1) else {
            return false;
        };
        *left = rest;
        match self {
            Self::List(of) | Self::Type(Some(of)) => of.fits_into(left),
            Self::Map(of) => of.0.fits_into(left) && of.1.fits_into(left),
            Self::Opaque(_, parameters) => parameters.iter().all(|of| of.fits_into(left)),
            _ => true,
        }
    }

    pub(super) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any | Self::Error)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Dyn => "dyn",
            Self::Any => "any",
            Self::Error => "!error!",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "duration",
            Self::Timestamp => "timestamp",
            Self::List(of) => return write!(f, "list({of})"),
            Self::Map(of) => return write!(f, "map({}, {})", of.0, of.1),
            Self::Object(name) => name,
            Self::Opaque(name, parameters) => {
                f.write_str(name)?;
                for (i, parameter) in parameters.iter().enumerate() {
                    write!(f, "{}{parameter}", if i == 0 { "(" } else { ", " })?;
                }
                if parameters.is_empty() { "" } else { ")" }
            }
            Self::Type(None) => "type",
            Self::Type(Some(of)) => return write!(f, "type({of})"),
            Self::Param(n) => return write!(f, "_var{n}"),
        };
        f.write_str(name)
    }
}

/// The types that have names of their own in expressions.
pub(super) fn named(name: &str) -> Option<Type> {
    Some(match name {
        "bool" => Type::Bool,
        "bytes" => Type::Bytes,
        "double" => Type::Double,
        "duration" => Type::Duration,
        "dyn" => Type::Dyn,
        "google.protobuf.Duration" => Type::Duration,
        "google.protobuf.Timestamp" => Type::Timestamp,
        "int" => Type::Int,
        "list" => Type::list(Type::Dyn),
        "map" => Type::map(Type::Dyn, Type::Dyn),
        "null_type" => Type::Null,
        "string" => Type::String,
        "timestamp" => Type::Timestamp,
        "type" => Type::Type(None),
        "uint" => Type::Uint,
        "net.IP" | "net.CIDR" => Type::Opaque(name.into(), [].into()),
        OPTIONAL => Type::optional(Type::Dyn),
        _ => return None,
    })
}

impl Type {
    /// A function's type with parameters that are numbered from `first`.
    pub(super) fn shifted(&self, first: usize) -> Self {
        match self {
            Self::Param(n) => Self::Param(first + n),
            Self::List(of) => Self::list(of.shifted(first)),
            Self::Map(of) => Self::map(of.0.shifted(first), of.1.shifted(first)),
            Self::Opaque(name, parameters) => Self::Opaque(
                Arc::clone(name),
                parameters.iter().map(|of| of.shifted(first)).collect(),
            ),
            Self::Type(Some(of)) => Self::Type(Some(of.shifted(first).into())),
            _ => self.clone(),
        }
    }
}
