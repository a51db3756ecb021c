//! `metav1.Condition`s in a status.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::{At, NOT_NEGATIVE};
use super::required;

/// The longest reason and the longest message, in bytes.
const REASON_LIMIT: usize = 1024;
const MESSAGE_LIMIT: usize = 32 * 1024;

pub(super) fn conditions(conditions: &At<'_>, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for condition in conditions.items() {
        let kind = condition.get("type");
        if !seen.insert(kind.text()) {
            kind.duplicate(errors);
        }
        kind.check(errors, format::qualified_name(kind.text()));
        condition
            .get("status")
            .one_of(errors, &["False", "True", "Unknown"]);
        let generation = condition.get("observedGeneration");
        if generation.int().is_some_and(|g| g < 0) {
            generation.invalid(errors, NOT_NEGATIVE);
        }
        if !condition.get("lastTransitionTime").is_set() {
            condition.get("lastTransitionTime").required(errors, "");
        }
        let reason = condition.get("reason");
        if required(&reason, errors) {
            if !is_reason(reason.text()) {
                reason.invalid(errors, "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')");
            }
            if reason.text().len() > REASON_LIMIT {
                errors.push(FieldError::too_long(&reason.path, REASON_LIMIT));
            }
        }
        let message = condition.get("message");
        if message.text().len() > MESSAGE_LIMIT {
            errors.push(FieldError::too_long(&message.path, MESSAGE_LIMIT));
        }
    }
}

fn is_reason(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b',' | b':'))
}
