//! The selectors of an access review: what they must hold to (KEP-4601).
//!
//! What must not be here: deciding.

use meta::validation as format;
use meta::{ErrorList, FieldError, Path, fields, labels};
use serde_json::Value;

/// Checks `fieldSelector` and `labelSelector` of a review's resource attributes.
pub fn validate(attributes: &Value, path: &Path, errors: &mut ErrorList) {
    for (name, labels) in [("fieldSelector", false), ("labelSelector", true)] {
        if let Some(selector) = attributes.get(name).filter(|s| !s.is_null()) {
            one(selector, &path.child(name), labels, errors);
        }
    }
}

fn one(selector: &Value, path: &Path, labels: bool, errors: &mut ErrorList) {
    let raw = selector["rawSelector"].as_str().unwrap_or_default();
    let requirements = selector["requirements"].as_array();
    let requirements = requirements.map(Vec::as_slice).unwrap_or_default();
    if !raw.is_empty() && !requirements.is_empty() {
        errors.push(FieldError::invalid(
            &path.child("rawSelector"),
            raw,
            "may not specified at the same time as requirements",
        ));
    }
    if raw.is_empty() && requirements.is_empty() {
        errors.push(FieldError::required(
            &path.child("requirements"),
            format!("when {path} is specified, requirements or rawSelector is required"),
        ));
    }
    for (i, requirement) in requirements.iter().enumerate() {
        let at = path.child("requirements").index(i);
        self::requirement(requirement, &at, labels, errors);
    }
}

/// What the authorizer is asked with, as far as it is understood; what is not leaves the question
/// broader, and is told.
#[derive(Debug, Default)]
pub struct Understood {
    pub fields: fields::Selector,
    /// Upstream's words.
    pub ignored: Vec<String>,
}

impl Understood {
    pub fn of(attributes: &Value) -> Understood {
        let mut understood = Understood::default();
        let read = |name: &str| {
            let selector = &attributes[name];
            let requirements = selector["requirements"].as_array();
            (
                selector["rawSelector"].as_str().unwrap_or_default(),
                requirements.map(Vec::as_slice).unwrap_or_default(),
            )
        };
        let (raw, requirements) = read("fieldSelector");
        let mut all = requirements.len();
        let mut kept = 0;
        if requirements.is_empty() {
            all = usize::from(!raw.is_empty());
            if let Ok(selector) = fields::Selector::parse(raw) {
                kept = all;
                understood.fields = selector;
            }
        }
        for requirement in requirements.iter().filter_map(field_requirement) {
            kept += 1;
            understood.fields = understood.fields.and(requirement);
        }
        understood.tell("fieldSelector", kept, all);

        let (raw, requirements) = read("labelSelector");
        let (kept, all) = match requirements.len() {
            0 => (
                usize::from(labels::Selector::parse(raw).is_ok()),
                usize::from(!raw.is_empty()),
            ),
            all => (requirements.iter().filter(|r| is_of_labels(r)).count(), all),
        };
        understood.tell("labelSelector", kept, all);
        understood
    }

    fn tell(&mut self, name: &str, kept: usize, all: usize) {
        let how = match kept {
            kept if kept >= all => return,
            0 => "ignored",
            _ => "partially ignored",
        };
        self.ignored.push(format!(
            "spec.resourceAttributes.{name} {how} due to parse error"
        ));
    }
}

/// A requirement of one value, which is all that field selectors know.
fn field_requirement(requirement: &Value) -> Option<fields::Selector> {
    let key = requirement["key"].as_str().unwrap_or_default();
    let [value] = requirement["values"].as_array()?.as_slice() else {
        return None;
    };
    let value = value.as_str().unwrap_or_default();
    match requirement["operator"].as_str()? {
        "In" => Some(fields::Selector::equals(key, value)),
        "NotIn" => Some(fields::Selector::not_equals(key, value)),
        _ => None,
    }
}

fn is_of_labels(requirement: &Value) -> bool {
    let operator = requirement["operator"].as_str().unwrap_or_default();
    let values = requirement["values"].as_array().into_iter().flatten();
    matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist")
        && values
            .filter_map(Value::as_str)
            .all(|value| format::label_value(value).is_empty())
}

fn requirement(requirement: &Value, path: &Path, labels: bool, errors: &mut ErrorList) {
    let text = |field: &str| requirement[field].as_str().unwrap_or_default();
    let count = requirement["values"].as_array().map_or(0, Vec::len);
    let values = path.child("values");
    match text("operator") {
        "In" | "NotIn" if count == 0 => errors.push(FieldError::required(
            &values,
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if count > 0 => errors.push(FieldError::forbidden(
            &values,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        // An operator that nobody knows selects nothing out, which is not an error here.
        _ => {}
    }
    let key = path.child("key");
    if labels {
        for message in format::qualified_name(text("key")) {
            errors.push(FieldError::invalid(&key, text("key"), message));
        }
        let given = requirement["values"].as_array().into_iter().flatten();
        for (i, value) in given.filter_map(Value::as_str).enumerate() {
            for message in format::label_value(value) {
                errors.push(FieldError::invalid(&values.index(i), value, message));
            }
        }
    } else if text("key").is_empty() {
        errors.push(FieldError::required(&key, "must be specified"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_is_raw_or_has_requirements() {
        let check = |attributes: Value| {
            let mut errors = ErrorList::default();
            validate(&attributes, &Path::new("a"), &mut errors);
            errors.len()
        };
        assert_eq!(check(json!({})), 0);
        assert_eq!(check(json!({"labelSelector": {"rawSelector": "a=b"}})), 0);
        assert_eq!(check(json!({"labelSelector": {}, "fieldSelector": {}})), 2);
        let both = json!({"rawSelector": "a", "requirements": [{"key": "a", "operator": "In"}]});
        assert_eq!(check(json!({"fieldSelector": both})), 2);
    }
}
