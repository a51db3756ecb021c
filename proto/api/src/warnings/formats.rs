//! Formats in the schemas of custom resources that nothing checks.

use std::collections::HashSet;

use meta::gofmt::quote;
use serde_json::Value;

use super::{Warnings, text};

/// Formats of strings, as they are compared: without dashes.
const OF_STRINGS: &[&str] = &[
    "bsonobjectid",
    "byte",
    "cidr",
    "creditcard",
    "date",
    "datetime",
    "duration",
    "email",
    "hexcolor",
    "hostname",
    "ipv4",
    "ipv6",
    "isbn",
    "isbn10",
    "isbn13",
    "k8slongname",
    "k8sshortname",
    "mac",
    "password",
    "rgbcolor",
    "ssn",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

/// What is unknown and was not in `old`.
pub(super) fn unknown(warnings: &mut Warnings, definition: &Value, old: Option<&Value>) {
    let before: HashSet<&str> = old.into_iter().flat_map(in_versions).collect();
    for format in in_versions(definition) {
        if !before.contains(format) {
            warnings.say(format!("unrecognized format {}", quote(format)));
        }
    }
}

fn in_versions(definition: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    for version in definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        in_schema(&version["schema"]["openAPIV3Schema"], &mut found);
    }
    found
}

fn is_known(of: &str, format: &str) -> bool {
    match of {
        "" | "string" => OF_STRINGS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

fn in_schema<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    let format = text(schema, "format");
    if !format.is_empty() && !is_known(text(schema, "type"), format) {
        found.push(format);
    }
    // Some of these are a schema or a list of them, some a map; what is neither is a flag.
    for field in [
        "items",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "properties",
        "additionalProperties",
        "patternProperties",
        "additionalItems",
        "definitions",
        "dependencies",
    ] {
        let within = &schema[field];
        let is_map = matches!(
            field,
            "properties" | "patternProperties" | "definitions" | "dependencies"
        );
        match within {
            Value::Array(schemas) => schemas.iter().for_each(|s| in_schema(s, found)),
            Value::Object(schemas) if is_map => {
                schemas.values().for_each(|s| in_schema(s, found));
            }
            Value::Object(_) => in_schema(within, found),
            _ => {}
        }
    }
}
