//! Field paths and field errors: what validation returns and `Status` causes are made of.
//!
//! Texts follow apimachinery's `util/validation/field`, since `kubectl` prints them.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::gofmt::Quoted;

/// The way from an object's root to a field, displayed as `spec.containers[0].env[NAME]`.
///
/// Cloning and extending are cheap; the text is only made when an error is.
#[derive(Clone, Default)]
pub struct Path(Option<Arc<Node>>);

struct Node {
    parent: Option<Arc<Node>>,
    step: Step,
}

enum Step {
    Field(Cow<'static, str>),
    Index(usize),
    Key(String),
}

impl Path {
    /// A path that starts at the field `name`.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(None).child(name)
    }

    /// The object itself. It displays as `<nil>`, as upstream's nil path; children of it start afresh.
    pub fn root() -> Self {
        Self(None)
    }

    /// The field `name` of what this path leads to.
    #[must_use]
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.push(Step::Field(name.into()))
    }

    /// The item at `index` of the list that this path leads to.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.push(Step::Index(index))
    }

    /// The field called `name` beside the one that this path leads to.
    #[must_use]
    pub fn sibling(&self, name: &'static str) -> Self {
        Self(self.0.as_ref().and_then(|node| node.parent.clone())).child(name)
    }

    /// The entry under `key` of the map that this path leads to.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.push(Step::Key(key.into()))
    }

    fn push(&self, step: Step) -> Self {
        Self(Some(Arc::new(Node {
            parent: self.0.clone(),
            step,
        })))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn write(node: &Node, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            if let Some(parent) = &node.parent {
                write(parent, f)?;
            }
            match &node.step {
                Step::Field(name) if node.parent.is_some() => write!(f, ".{name}"),
                Step::Field(name) => f.write_str(name),
                Step::Index(i) => write!(f, "[{i}]"),
                Step::Key(key) => write!(f, "[{key}]"),
            }
        }
        match &self.0 {
            None => f.write_str("<nil>"),
            Some(node) => write(node, f),
        }
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

impl From<&'static str> for Path {
    fn from(name: &'static str) -> Self {
        Self::new(name)
    }
}

/// Why a field is wrong. [`ErrorType::reason`] is the value of a `Status` cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooShort,
    TooMany,
    TooFew,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The machine-readable name, which is the cause's `reason` in a `Status`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooShort => "FieldValueTooShort",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    /// Whether the message carries the bad value.
    fn shows_value(self) -> bool {
        !matches!(
            self,
            Self::Required | Self::Forbidden | Self::TooLong | Self::TooShort | Self::Internal
        )
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooShort => "Too short",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::Internal => "Internal error",
        })
    }
}

/// The value that was found wrong, as it is shown in the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadValue {
    /// Shown in Go's quotes.
    String(String),
    /// Shown as it is: a number, a bool, or JSON text.
    Raw(String),
    /// Not shown.
    Omitted,
}

impl BadValue {
    /// A list, map or struct, shown as the JSON that Go would write.
    pub fn json(value: &impl serde::Serialize) -> Self {
        // Go escapes these so that JSON can be pasted into HTML.
        let text = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
        Self::Raw(
            text.replace('&', "\\u0026")
                .replace('<', "\\u003c")
                .replace('>', "\\u003e"),
        )
    }
}

impl fmt::Display for BadValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(s) => Quoted(s).fmt(f),
            Self::Raw(s) => f.write_str(s),
            Self::Omitted => Ok(()),
        }
    }
}

impl From<&str> for BadValue {
    fn from(s: &str) -> Self {
        Self::String(s.to_owned())
    }
}
impl From<&String> for BadValue {
    fn from(s: &String) -> Self {
        Self::String(s.clone())
    }
}
impl From<String> for BadValue {
    fn from(s: String) -> Self {
        Self::String(s)
    }
}
impl From<&serde_json::Value> for BadValue {
    fn from(v: &serde_json::Value) -> Self {
        match v {
            serde_json::Value::String(s) => Self::String(s.clone()),
            other => Self::json(other),
        }
    }
}
macro_rules! raw_values {
    ($($ty:ty),*) => {$(
        impl From<$ty> for BadValue {
            fn from(v: $ty) -> Self {
                Self::Raw(v.to_string())
            }
        }
    )*};
}
raw_values!(bool, i32, i64, u16, u32, u64, usize, f64);

/// A field-level validation error, displayed as `spec.x: Invalid value: "y": detail`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub ty: ErrorType,
    /// The path's text.
    pub field: String,
    pub bad_value: BadValue,
    /// Empty when there is nothing to add.
    pub detail: String,
}

impl FieldError {
    fn with(ty: ErrorType, path: &Path, bad_value: BadValue, detail: impl Into<String>) -> Self {
        Self {
            ty,
            field: path.to_string(),
            bad_value,
            detail: detail.into(),
        }
    }

    /// A malformed value.
    pub fn invalid(path: &Path, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Invalid, path, value.into(), detail)
    }

    /// A value of the wrong type.
    pub fn type_invalid(
        path: &Path,
        value: impl Into<BadValue>,
        detail: impl Into<String>,
    ) -> Self {
        Self::with(ErrorType::TypeInvalid, path, value.into(), detail)
    }

    /// A value that is missing (or empty).
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Required, path, BadValue::Omitted, detail)
    }

    /// A value that must be unique and is not.
    pub fn duplicate(path: &Path, value: impl Into<BadValue>) -> Self {
        Self::with(ErrorType::Duplicate, path, value.into(), "")
    }

    /// A reference that leads nowhere.
    pub fn not_found(path: &Path, value: impl Into<BadValue>) -> Self {
        Self::with(ErrorType::NotFound, path, value.into(), "")
    }

    /// A value outside an enumeration. `valid` is shown in the given order; upstream sorts
    /// it at most call sites.
    pub fn not_supported<S: AsRef<str>>(
        path: &Path,
        value: impl Into<BadValue>,
        valid: &[S],
    ) -> Self {
        let mut detail = String::new();
        for (i, v) in valid.iter().enumerate() {
            detail.push_str(if i == 0 { "supported values: " } else { ", " });
            detail.push_str(&Quoted(v.as_ref()).to_string());
        }
        Self::with(ErrorType::NotSupported, path, value.into(), detail)
    }

    /// A well-formed value that is not permitted here and now.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Forbidden, path, BadValue::Omitted, detail)
    }

    /// A value of more than `max` bytes.
    pub fn too_long(path: &Path, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        let detail = format!("may not be more than {max} {unit}");
        Self::with(ErrorType::TooLong, path, BadValue::Omitted, detail)
    }

    /// A value of more than `max` characters.
    pub fn too_long_characters(path: &Path, max: usize) -> Self {
        let unit = if max == 1 { "character" } else { "characters" };
        let detail = format!("may not be more than {max} {unit}");
        Self::with(ErrorType::TooLong, path, BadValue::Omitted, detail)
    }

    /// A value of fewer than `min` characters.
    pub fn too_short(path: &Path, min: usize) -> Self {
        let unit = if min == 1 { "character" } else { "characters" };
        let detail = format!("must be at least {min} {unit}");
        Self::with(ErrorType::TooShort, path, BadValue::Omitted, detail)
    }

    /// A list of `actual` items where at most `max` are allowed.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {max} {unit}");
        Self::with(ErrorType::TooMany, path, actual.into(), detail)
    }

    /// A list of `actual` items where at least `min` are needed.
    pub fn too_few(path: &Path, actual: usize, min: usize) -> Self {
        let unit = if min == 1 { "item" } else { "items" };
        let detail = format!("must have at least {min} {unit}");
        Self::with(ErrorType::TooFew, path, actual.into(), detail)
    }

    /// A failure that is not the user's.
    pub fn internal(path: &Path, err: impl fmt::Display) -> Self {
        Self::with(
            ErrorType::Internal,
            path,
            BadValue::Omitted,
            err.to_string(),
        )
    }

    /// The message without the field, as a `Status` cause carries it.
    pub fn body(&self) -> String {
        let mut s = self.ty.to_string();
        if self.ty.shows_value() && self.bad_value != BadValue::Omitted {
            s.push_str(": ");
            s.push_str(&self.bad_value.to_string());
        }
        if !self.detail.is_empty() {
            s.push_str(": ");
            s.push_str(&self.detail);
        }
        s
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for FieldError {}

/// Every error that validation found, in the order found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorList(pub Vec<FieldError>);

impl ErrorList {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, err: FieldError) {
        self.0.push(err);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, FieldError> {
        self.0.iter()
    }

    /// `Err(self)` unless the list is empty.
    pub fn into_result(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

/// Upstream's aggregate: one message alone, several as `[a, b]`, equal ones once.
impl fmt::Display for ErrorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seen = HashSet::new();
        let messages: Vec<String> = self
            .0
            .iter()
            .map(ToString::to_string)
            .filter(|m| seen.insert(m.clone()))
            .collect();
        match messages.as_slice() {
            [] => Ok(()),
            [one] => f.write_str(one),
            many => write!(f, "[{}]", many.join(", ")),
        }
    }
}

impl std::error::Error for ErrorList {}

impl From<FieldError> for ErrorList {
    fn from(err: FieldError) -> Self {
        Self(vec![err])
    }
}
impl From<Vec<FieldError>> for ErrorList {
    fn from(errs: Vec<FieldError>) -> Self {
        Self(errs)
    }
}
impl FromIterator<FieldError> for ErrorList {
    fn from_iter<T: IntoIterator<Item = FieldError>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}
impl Extend<FieldError> for ErrorList {
    fn extend<T: IntoIterator<Item = FieldError>>(&mut self, iter: T) {
        self.0.extend(iter);
    }
}
impl IntoIterator for ErrorList {
    type Item = FieldError;
    type IntoIter = std::vec::IntoIter<FieldError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a FieldError;
    type IntoIter = std::slice::Iter<'a, FieldError>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_display() {
        let p = Path::new("spec")
            .child("containers")
            .index(0)
            .child("env")
            .key("A.b")
            .child("x");
        assert_eq!(p.to_string(), "spec.containers[0].env[A.b].x");
        assert_eq!(Path::root().to_string(), "<nil>");
        assert_eq!(
            Path::root().child("values").index(1).to_string(),
            "values[1]"
        );
    }

    #[test]
    fn messages_are_upstreams() {
        let p = Path::new("spec").child("x");
        let text = |e: FieldError| e.to_string();
        assert_eq!(
            text(FieldError::invalid(&p, "y", "detail")),
            r#"spec.x: Invalid value: "y": detail"#
        );
        assert_eq!(
            text(FieldError::invalid(&p, -1i64, "d")),
            "spec.x: Invalid value: -1: d"
        );
        assert_eq!(
            text(FieldError::invalid(&p, BadValue::json(&["<a>"]), "")),
            r#"spec.x: Invalid value: ["\u003ca\u003e"]"#
        );
        assert_eq!(text(FieldError::required(&p, "")), "spec.x: Required value");
        assert_eq!(
            text(FieldError::required(&p, "why")),
            "spec.x: Required value: why"
        );
        assert_eq!(
            text(FieldError::duplicate(&p, "a")),
            r#"spec.x: Duplicate value: "a""#
        );
        assert_eq!(
            text(FieldError::not_found(&p, "a")),
            r#"spec.x: Not found: "a""#
        );
        assert_eq!(
            text(FieldError::not_supported(&p, "a", &["B", "C"])),
            r#"spec.x: Unsupported value: "a": supported values: "B", "C""#
        );
        assert_eq!(
            text(FieldError::forbidden(&p, "no")),
            "spec.x: Forbidden: no"
        );
        assert_eq!(
            text(FieldError::too_long(&p, 5)),
            "spec.x: Too long: may not be more than 5 bytes"
        );
        assert_eq!(
            text(FieldError::too_many(&p, 4, 1)),
            "spec.x: Too many: 4: must have at most 1 item"
        );
        assert_eq!(
            text(FieldError::internal(&p, "oops")),
            "spec.x: Internal error: oops"
        );
    }

    #[test]
    fn lists_aggregate_once() {
        let p = Path::new("a");
        let mut list = ErrorList::from(FieldError::required(&p, ""));
        assert_eq!(list.to_string(), "a: Required value");
        list.push(FieldError::required(&p, ""));
        assert_eq!(list.to_string(), "a: Required value");
        list.push(FieldError::forbidden(&p, "b"));
        assert_eq!(list.to_string(), "[a: Required value, a: Forbidden: b]");
    }
}
