//! [`Value`]: what expressions work with. Cheap to clone.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use meta::quantity::Quantity;

use crate::{EvalError, Version};

#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Arc<[Value]>),
    Map(Arc<Map>),
    /// Of Kubernetes' quantity library.
    Quantity(Arc<Quantity>),
    /// Of Kubernetes' semver library.
    Version(Arc<Version>),
    Optional(Option<Arc<Value>>),
    /// The name of a type.
    Type(&'static str),
}

/// What values of a map are found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    /// Only where it is too large for an `Int`: 1u finds what 1 does.
    Uint(u64),
    String(Arc<str>),
}

#[derive(Debug, Clone, Default)]
pub struct Map {
    pub entries: BTreeMap<Key, Value>,
    /// What any other key finds.
    pub otherwise: Option<Value>,
}

impl Map {
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.entries.get(key).or(self.otherwise.as_ref())
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl Key {
    /// The key that a value is; `None` when it cannot be one.
    pub fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Bool(b) => Self::Bool(*b),
            Value::Int(n) => Self::Int(*n),
            Value::Uint(n) => match i64::try_from(*n) {
                Ok(n) => Self::Int(n),
                Err(_) => Self::Uint(*n),
            },
            Value::Double(x) => Self::Int(whole(*x)?),
            Value::String(text) => Self::String(Arc::clone(text)),
            _ => return None,
        })
    }

    pub fn value(&self) -> Value {
        match self {
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => Value::Int(*n),
            Self::Uint(n) => Value::Uint(*n),
            Self::String(text) => Value::String(Arc::clone(text)),
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "checked")]
fn whole(x: f64) -> Option<i64> {
    (x.fract() == 0.0 && x.abs() < 9.2e18).then_some(x as i64)
}

impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}
impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}
impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Map(map.into())
    }
}
impl From<Vec<Value>> for Value {
    fn from(list: Vec<Value>) -> Self {
        Self::List(list.into())
    }
}
impl From<Quantity> for Value {
    fn from(quantity: Quantity) -> Self {
        Self::Quantity(quantity.into())
    }
}
impl From<Version> for Value {
    fn from(version: Version) -> Self {
        Self::Version(version.into())
    }
}

impl FromIterator<(Key, Value)> for Map {
    fn from_iter<T: IntoIterator<Item = (Key, Value)>>(entries: T) -> Self {
        Self {
            entries: entries.into_iter().collect(),
            otherwise: None,
        }
    }
}

impl Value {
    /// An optional value that is there.
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(value.into()))
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Version(_) => "kubernetes.Semver",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
        }
    }

    /// `==`: numbers of different types are compared by what they are worth, and what is of
    /// different types is different.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len() && a.iter().zip(&**b).all(|(a, b)| a.equals(b))
            }
            (Self::Map(a), Self::Map(b)) => {
                a.entries.len() == b.entries.len()
                    && a.entries.iter().all(|(key, value)| {
                        b.entries.get(key).is_some_and(|other| value.equals(other))
                    })
            }
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Version(a), Self::Version(b)) => a.precedence(b) == Ordering::Equal,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::Type(a), Self::Type(b)) => a == b,
            _ => numbers(self, other) == Some(Some(Ordering::Equal)),
        }
    }

    /// `<` and its kin; `None` when one of them is no number at all (NaN).
    pub fn order(&self, other: &Self) -> Result<Option<Ordering>, EvalError> {
        Ok(Some(match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::String(a), Self::String(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            _ => return numbers(self, other).ok_or(EvalError::NoSuchOverload),
        }))
    }
}

/// How numbers compare; outer `None` when they are not numbers.
#[allow(clippy::cast_precision_loss, reason = "as cel-go compares them")]
fn numbers(a: &Value, b: &Value) -> Option<Option<Ordering>> {
    let signed = |n: u64| i64::try_from(n).ok();
    Some(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Some(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Some(a.cmp(b)),
        (Value::Int(a), Value::Uint(b)) => Some(signed(*b).map_or(Ordering::Less, |b| a.cmp(&b))),
        (Value::Uint(a), Value::Int(b)) => Some(signed(*a).map_or(Ordering::Greater, |a| a.cmp(b))),
        (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
        (Value::Double(a), Value::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Int(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
        (Value::Double(a), Value::Uint(b)) => a.partial_cmp(&(*b as f64)),
        (Value::Uint(a), Value::Double(b)) => (*a as f64).partial_cmp(b),
        _ => return None,
    })
}
