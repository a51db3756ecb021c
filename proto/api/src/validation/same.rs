//! Whether an update leaves a part of an object as it is, in upstream's sense.
//!
//! What must not be here: the comparison (`crate::same`), which parts those are.

use schema::Message;
use serde_json::Value;

use super::at::At;
use crate::same::{self as values, By};

/// Whether two values of a message of the schema (`io.k8s.api.core.v1.PodSpec`) mean the same.
pub(super) fn same(model: &str, a: Option<&Value>, b: Option<&Value>) -> bool {
    a == b || values::same(message(model), a, b, By::Meaning)
}

/// The fields of a message of the schema in which two differ.
pub(super) fn differing(model: &str, a: &At<'_>, b: &At<'_>) -> Vec<&'static str> {
    values::differing(message(model), a.value(), b.value(), By::Meaning)
}

fn message(model: &str) -> &'static Message {
    schema::message(model).expect("validation names messages of the schema")
}
