//! A place in an object: a value and the path to it. Validation walks these.

use meta::field::{BadValue, ErrorList, FieldError, Path};
use meta::validation as format;
use serde_json::{Map, Value};

/// A field that may be absent, with its path.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub path: Path,
    value: Option<&'a Value>,
}

impl<'a> At<'a> {
    pub fn root(object: &'a Value) -> Self {
        Self {
            path: Path::root(),
            value: Some(object),
        }
    }

    pub fn new(path: Path, value: &'a Value) -> Self {
        Self {
            path,
            value: Some(value),
        }
    }

    pub fn get(&self, name: &'static str) -> At<'a> {
        At {
            path: self.path.child(name),
            value: self
                .value
                .and_then(|v| v.get(name))
                .filter(|v| !v.is_null()),
        }
    }

    /// The same value, told of as a field of another name: where upstream's paths differ from
    /// the field's name.
    pub fn renamed(&self, name: &'static str) -> At<'a> {
        self.moved(self.path.sibling(name))
    }

    /// The same value, told of at another place.
    pub fn moved(&self, path: Path) -> At<'a> {
        At {
            path,
            value: self.value,
        }
    }

    /// The same place seen without its path, for a look ahead.
    pub fn raw(&self, name: &str) -> Option<&'a Value> {
        self.value
            .and_then(|v| v.get(name))
            .filter(|v| !v.is_null())
    }

    pub fn value(&self) -> Option<&'a Value> {
        self.value
    }

    pub fn is_set(&self) -> bool {
        self.value.is_some()
    }

    /// Set and neither `""`, `0`, `[]` nor `{}`.
    pub fn is_given(&self) -> bool {
        match self.value {
            None | Some(Value::Null) => false,
            Some(Value::String(s)) => !s.is_empty(),
            Some(Value::Array(a)) => !a.is_empty(),
            Some(Value::Object(o)) => !o.is_empty(),
            Some(Value::Number(n)) => n.as_i64() != Some(0),
            Some(Value::Bool(b)) => *b,
        }
    }

    pub fn text(&self) -> &'a str {
        self.value.and_then(Value::as_str).unwrap_or_default()
    }

    pub fn int(&self) -> Option<i64> {
        self.value.and_then(Value::as_i64)
    }

    pub fn is_true(&self) -> bool {
        self.value == Some(&Value::Bool(true))
    }

    pub fn object(&self) -> Option<&'a Map<String, Value>> {
        self.value.and_then(Value::as_object)
    }

    pub fn items(&self) -> impl Iterator<Item = At<'a>> + use<'a> {
        let path = self.path.clone();
        let items = self
            .value
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default();
        items.iter().enumerate().map(move |(i, item)| At {
            path: path.index(i),
            value: Some(item),
        })
    }

    /// A map's entries; the path of an entry ends in `[key]`.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'a> {
        let path = self.path.clone();
        self.object()
            .into_iter()
            .flatten()
            .map(move |(key, value)| {
                (
                    key.as_str(),
                    At {
                        path: path.key(key.clone()),
                        value: Some(value),
                    },
                )
            })
    }

    pub fn len(&self) -> usize {
        match self.value {
            Some(Value::Array(items)) => items.len(),
            Some(Value::Object(entries)) => entries.len(),
            _ => 0,
        }
    }

    pub fn required(&self, errors: &mut ErrorList, detail: &'static str) {
        errors.push(FieldError::required(&self.path, detail));
    }

    pub fn forbidden(&self, errors: &mut ErrorList, detail: impl Into<String>) {
        errors.push(FieldError::forbidden(&self.path, detail));
    }

    pub fn invalid(&self, errors: &mut ErrorList, detail: impl Into<String>) {
        errors.push(FieldError::invalid(&self.path, self.bad_value(), detail));
    }

    pub fn duplicate(&self, errors: &mut ErrorList) {
        errors.push(FieldError::duplicate(&self.path, self.bad_value()));
    }

    pub fn not_found(&self, errors: &mut ErrorList) {
        errors.push(FieldError::not_found(&self.path, self.bad_value()));
    }

    /// One of `known`, or `NotSupported`.
    pub fn one_of(&self, errors: &mut ErrorList, known: &[&str]) {
        if !known.contains(&self.text()) {
            errors.push(FieldError::not_supported(&self.path, self.text(), known));
        }
    }

    /// An `Invalid` for each message of a format check of `meta::validation`.
    pub fn check(&self, errors: &mut ErrorList, messages: Vec<String>) {
        for message in messages {
            self.invalid(errors, message);
        }
    }

    pub fn non_negative(&self, errors: &mut ErrorList) {
        if self.int().is_some_and(|n| n < 0) {
            self.invalid(errors, NOT_NEGATIVE);
        }
    }

    /// An IP address, as strictly as v1.36 reads one (`StrictIPCIDRValidation`).
    pub fn ip(&self, errors: &mut ErrorList) -> bool {
        let found = format::ip::valid_ip_for_legacy_field(&self.path, self.text(), true, &[]);
        let good = found.is_empty();
        errors.extend(found.0);
        good
    }

    /// A network, as strictly as v1.36 reads one.
    pub fn cidr(&self, errors: &mut ErrorList) {
        self.cidr_in(self.text(), errors);
    }

    /// A network with blanks around it, perhaps.
    pub fn padded_cidr(&self, errors: &mut ErrorList) {
        self.cidr_in(self.text().trim(), errors);
    }

    fn cidr_in(&self, text: &str, errors: &mut ErrorList) {
        errors.extend(format::ip::valid_cidr_for_legacy_field(&self.path, text, true, &[]).0);
    }

    pub fn bad_value(&self) -> BadValue {
        match self.value {
            Some(Value::String(text)) => text.as_str().into(),
            Some(value) => BadValue::json(value),
            None => BadValue::json(&Value::Null),
        }
    }
}

pub(super) const NOT_NEGATIVE: &str = "must be greater than or equal to 0";
pub(super) const IMMUTABLE: &str = "field is immutable";
