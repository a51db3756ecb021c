//! What a client sent, as trees: bodies of every media type, checked against the schema.
//!
//! What must not be here: what the trees are for.

use std::num::IntErrorKind;

use codec::decode::{Decoded, Strictness, TypeMeta};
use meta::Status;
use schema::Message;
use serde_json::Value;

use super::super::context::RequestContext;
use super::super::negotiate::{self, Media};
use crate::registry::options::{FieldValidation, PatchType, WriteOptions};
use crate::registry::store::Warnings;

/// The kind that an endpoint takes.
#[derive(Debug, Clone, Copy)]
pub struct Expected {
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
}

impl Expected {
    pub fn api_version(&self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    pub fn message(&self) -> Result<&'static Message, Status> {
        schema::kind(self.group, self.version, self.kind).ok_or_else(|| {
            Status::internal(format!(
                "no kind {:?} in version {:?}",
                self.kind,
                self.api_version()
            ))
        })
    }
}

pub fn strictness(validation: FieldValidation) -> Strictness {
    match validation {
        FieldValidation::Ignore => Strictness::Ignore,
        FieldValidation::Warn => Strictness::Warn,
        FieldValidation::Strict => Strictness::Strict,
    }
}

/// What a POST asks to create, and how. What is looked at first is refused first, as upstream
/// has it.
pub async fn to_create(
    request: &mut RequestContext,
    expected: Expected,
) -> Result<(Value, WriteOptions), Status> {
    let media = negotiate::input(&request.headers)?;
    let body = request.read_body().await?;
    let options = WriteOptions::from_query(&request.query, "CreateOptions")?;
    let validation = options.field_validation;
    let object = object(media, &body, expected, validation, &request.warnings)?;
    Ok((object, options))
}

/// What a PUT asks to write, and how.
pub async fn to_update(
    request: &mut RequestContext,
    expected: Expected,
) -> Result<(Value, WriteOptions), Status> {
    let body = request.read_body().await?;
    let options = WriteOptions::from_query(&request.query, "UpdateOptions")?;
    let media = negotiate::input(&request.headers)?;
    let validation = options.field_validation;
    let object = object(media, &body, expected, validation, &request.warnings)?;
    Ok((object, options))
}

/// Reads an object of the expected kind, defaults applied. Unknown fields become warnings
/// or an error, as the request wants.
fn object(
    media: Media,
    body: &[u8],
    expected: Expected,
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<Value, Status> {
    let message = expected.message()?;
    let json;
    let (type_meta, decoded) = match media {
        Media::Protobuf => {
            protobuf(body, message).map_err(|e| unrecognized(expected, body, &e.to_string()))?
        }
        Media::Json | Media::Yaml => {
            let text = match media {
                Media::Yaml => {
                    json = codec::decode::yaml_to_json(body)
                        .map_err(|e| unrecognized(expected, body, &e.to_string()))?
                        .0;
                    &json
                }
                _ => body,
            };
            let type_meta = codec::decode::type_meta(text).map_err(|e| {
                let problem = format!("couldn't get version/kind; json parse error: {e}");
                unrecognized(expected, body, &problem)
            })?;
            let strictness = strictness(validation);
            let decoded = match media {
                Media::Yaml => codec::decode::yaml(message, body, strictness),
                _ => codec::decode::json(message, text, strictness),
            };
            (type_meta, decoded)
        }
    };
    check_type(expected, &type_meta, body)?;
    let decoded = decoded.map_err(|e| cannot_handle(expected, &e.to_string()))?;
    note_strict_errors(&decoded.strict_errors, validation, warnings)
        .map_err(|e| cannot_handle(expected, &e))?;
    let mut value = decoded.value;
    template_generation(expected, &value).map_err(|e| cannot_handle(expected, &e))?;
    if let Some(members) = value.as_object_mut() {
        members.insert("apiVersion".into(), expected.api_version().into());
        members.insert("kind".into(), expected.kind.into());
    }
    api::defaults::apply(message, &mut value);
    Ok(value)
}

type Opened = (TypeMeta, Result<Decoded, codec::Error>);

fn protobuf(body: &[u8], message: &'static Message) -> codec::Result<Opened> {
    let unknown = codec::envelope::decode(body)?;
    let type_meta = TypeMeta {
        api_version: unknown.api_version.to_owned(),
        kind: unknown.kind.to_owned(),
    };
    let decoded = codec::tree::from_proto(message, unknown.raw).map(|value| Decoded {
        value,
        strict_errors: Vec::new(),
    });
    Ok((type_meta, decoded))
}

/// Warns of unknown and duplicate fields, or refuses them.
pub fn note_strict_errors(
    errors: &[String],
    validation: FieldValidation,
    warnings: &Warnings,
) -> Result<(), String> {
    match validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => {
            for error in errors {
                warnings.add(error.clone());
            }
        }
        FieldValidation::Strict => {
            if let Some(error) = codec::decode::strict_error(errors) {
                return Err(error);
            }
        }
    }
    Ok(())
}

/// An object that says it is something must be what the endpoint takes.
fn check_type(expected: Expected, found: &TypeMeta, body: &[u8]) -> Result<(), Status> {
    if found.api_version.matches('/').count() > 1 {
        let problem = format!("unexpected GroupVersion string: {}", found.api_version);
        return Err(unrecognized(expected, body, &problem));
    }
    let version = expected.api_version();
    let found_version = match found.api_version.as_str() {
        "" => version.as_str(),
        v => v,
    };
    let kind = match found.kind.as_str() {
        "" => expected.kind,
        kind => kind,
    };
    let (_, short) = found_version.split_once('/').unwrap_or(("", found_version));
    if let Err(problem) = convertible(expected, found_version, kind) {
        return Err(Status::bad_request(format!(
            "{kind} in version {short:?} cannot be handled as a {}: {problem}",
            expected.kind
        )));
    }
    if found_version != version && !takes(expected, found_version) {
        return Err(Status::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({version})"
        )));
    }
    Ok(())
}

/// Whether an endpoint takes another version of its kind, too.
fn takes(expected: Expected, found_version: &str) -> bool {
    // Evictions are older than the version in which they are spoken of.
    (expected.group, expected.kind) == ("policy", "Eviction") && found_version == "policy/v1beta1"
}

/// Whether upstream could make the expected kind of what was found, and if not, why.
fn convertible(expected: Expected, found_version: &str, kind: &str) -> Result<(), String> {
    let (group, short) = found_version.split_once('/').unwrap_or(("", found_version));
    if schema::kind(group, short, kind).is_none() {
        return Err(format!(
            "no kind {kind:?} is registered for version {found_version:?} in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        ));
    }
    if kind != expected.kind {
        return Err(format!(
            "converting ({short}.{kind}) to ({}.{}): unknown conversion",
            internal_package(expected.group),
            expected.kind
        ));
    }
    Ok(())
}

/// A patch may not make something else of an object, but it may leave open what it is.
pub fn check_patched_type(expected: Expected, object: &Value) -> Result<(), String> {
    let text = |key: &str| object[key].as_str().filter(|text| !text.is_empty());
    let version = expected.api_version();
    convertible(
        expected,
        text("apiVersion").unwrap_or(&version),
        text("kind").unwrap_or(expected.kind),
    )
}

/// Of an object that says no API version: its members as unknown fields.
pub fn members_of_no_version(object: &Value) -> Option<Vec<String>> {
    let members = object.as_object()?;
    let version = members.get("apiVersion").and_then(Value::as_str);
    if version.is_some_and(|version| !version.is_empty()) {
        return None;
    }
    let unknown = members
        .keys()
        .filter(|name| !matches!(name.as_str(), "apiVersion" | "kind"));
    Some(
        unknown
            .map(|name| format!("unknown field {name:?}"))
            .collect(),
    )
}

/// A tree as Go prints a map.
pub fn go_map(value: &Value) -> String {
    let mut text = String::new();
    put_go_map(value, &mut text);
    text
}

fn put_go_map(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                put_go_map(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push_str("map[");
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(key, _)| *key);
            for (i, (key, value)) in sorted.into_iter().enumerate() {
                out.push_str(if i > 0 { " " } else { "" });
                out.push_str(key);
                out.push(':');
                put_go_map(value, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

/// What upstream calls the package of a group's internal types.
fn internal_package(group: &str) -> &str {
    match group {
        "" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        "meta.k8s.io" => "v1",
        group => group.split('.').next().unwrap_or(group),
    }
}

/// A DaemonSet's annotation that is a number within upstream's server.
fn template_generation(expected: Expected, value: &Value) -> Result<(), String> {
    if (expected.group, expected.kind) != ("apps", "DaemonSet") {
        return Ok(());
    }
    let annotations = &value["metadata"]["annotations"];
    let Some(text) = annotations["deprecated.daemonset.template.generation"].as_str() else {
        return Ok(());
    };
    match text.parse::<i64>() {
        Ok(_) => Ok(()),
        Err(e) => {
            let why = match e.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Err(format!("strconv.ParseInt: parsing {text:?}: {why}"))
        }
    }
}

fn cannot_handle(expected: Expected, error: &str) -> Status {
    let kind = expected.kind;
    Status::bad_request(format!(
        "{kind} in version {:?} cannot be handled as a {kind}: {error}",
        expected.version
    ))
}

fn unrecognized(expected: Expected, body: &[u8], error: &str) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {error} ({})",
        expected.kind,
        summary(body)
    ))
}

/// The beginning of a body, as text when it looks like JSON.
fn summary(body: &[u8]) -> String {
    const MOST: usize = 30;
    let start = &body[..body.len().min(MOST)];
    let mut text = match body.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(start).into_owned(),
        Some(_) => start.iter().map(|b| format!("{b:02x}")).collect(),
    };
    if body.len() > MOST {
        text.push_str(" ...");
    }
    text
}

/// JSON or YAML text as a tree that no schema has seen: patches.
pub fn untyped(media: Media, body: &[u8]) -> Result<Value, String> {
    match media {
        Media::Yaml => {
            let (json, _) = codec::decode::yaml_to_json(body).map_err(|e| e.to_string())?;
            codec::decode::untyped(&json).map_err(|e| e.to_string())
        }
        _ => codec::decode::untyped(body).map_err(|e| e.to_string()),
    }
}

/// A patch that is no apply, as a tree that no schema has seen.
pub fn patch(kind: PatchType, body: &[u8], validation: FieldValidation) -> Result<Value, Status> {
    let ignore = validation == FieldValidation::Ignore;
    let refused = |error: String| {
        Status::bad_request(match (kind, ignore) {
            (PatchType::Merge, true) => "Invalid JSON Patch".to_owned(),
            (PatchType::Merge, false) | (PatchType::Json, false) => {
                format!("error decoding patch: {error}")
            }
            _ => error,
        })
    };
    let content = codec::decode::untyped(body).map_err(|e| refused(e.to_string()))?;
    let wrong = |found: &Value, wanted: &str| {
        let found = json_word(found);
        Err(refused(format!(
            "json: cannot unmarshal {found} into Go {wanted}"
        )))
    };
    match (kind, &content) {
        (PatchType::Json, Value::Null) => return Ok(Value::Array(Vec::new())),
        (PatchType::Json, Value::Array(operations)) => {
            for operation in operations {
                match operation {
                    Value::Null => {}
                    Value::Object(members) if !ignore => {
                        for name in ["op", "path", "from"] {
                            match members.get(name) {
                                None | Some(Value::Null | Value::String(_)) => {}
                                Some(found) => {
                                    let field = format!("struct field jsonPatchOp.{name}");
                                    return wrong(found, &format!("{field} of type string"));
                                }
                            }
                        }
                    }
                    Value::Object(_) => {}
                    other if ignore => return wrong(other, "value of type jsonpatch.Operation"),
                    other => return wrong(other, "value of type handlers.jsonPatchOp"),
                }
            }
        }
        (PatchType::Json, other) if ignore => {
            return wrong(other, "value of type jsonpatch.Patch");
        }
        (PatchType::Json, other) => {
            return wrong(other, "value of type []handlers.jsonPatchOp");
        }
        (PatchType::Strategic, Value::Null) => return Ok(Value::Object(Default::default())),
        (_, Value::Object(_)) => {}
        (PatchType::Merge, _) if ignore || content.is_null() => {}
        (_, other) => return wrong(other, "value of type map[string]interface {}"),
    }
    Ok(content)
}

/// What encoding/json calls a value that is not what was wanted.
fn json_word(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What is applied, as a tree that no schema has seen, and the keys that it has twice.
pub fn applied(body: &[u8]) -> Result<(Value, Vec<String>), Status> {
    if let Some(value) = codec::decode::plain_json(body) {
        return Ok((value, Vec::new()));
    }
    let bad = |e: String| Status::bad_request(format!("error decoding YAML: {e}"));
    let (json, duplicates) = codec::decode::yaml_to_json(body)
        .map_err(|e| bad(format!("error converting YAML to JSON: {e}")))?;
    let value = codec::decode::untyped(&json).map_err(|e| bad(e.to_string()))?;
    let found = match value {
        Value::Object(_) => return Ok((value, duplicates)),
        Value::Null => return Ok((Value::Object(Default::default()), duplicates)),
        other => json_word(&other),
    };
    Err(bad(format!(
        "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
    )))
}

/// `DeleteOptions` of whichever group version the client chose.
pub fn delete_options(media: Media, body: &[u8]) -> Result<Value, Status> {
    let bad = |e: String| Status::bad_request(e);
    let message = schema::kind("meta.k8s.io", "v1", "DeleteOptions")
        .or_else(|| schema::kind("", "v1", "DeleteOptions"))
        .ok_or_else(|| Status::internal("no DeleteOptions"))?;
    let (kind, version, value) = match media {
        Media::Protobuf => {
            let (type_meta, decoded) = protobuf(body, message).map_err(|e| bad(e.to_string()))?;
            (
                type_meta.kind,
                type_meta.api_version,
                decoded.map_err(|e| bad(e.to_string()))?.value,
            )
        }
        _ => {
            let value = untyped(media, body).map_err(|e| {
                bad(match media {
                    Media::Json => format!("couldn't get version/kind; json parse error: {e}"),
                    _ => e,
                })
            })?;
            let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
            let (kind, version) = (text("kind"), text("apiVersion"));
            let text = value.to_string();
            let decoded = codec::decode::json(message, text.as_bytes(), Strictness::Ignore)
                .map_err(|e| bad(e.to_string()))?;
            (kind, version, decoded.value)
        }
    };
    if !kind.is_empty() && kind != "DeleteOptions" {
        return Err(Status::bad_request(format!(
            "no kind {kind:?} is registered for version {version:?} in scheme \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""
        )));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const POD: Expected = Expected {
        group: "",
        version: "v1",
        kind: "Pod",
    };

    fn read(body: &str, validation: FieldValidation) -> Result<(Value, Vec<String>), String> {
        let warnings = Warnings::default();
        object(Media::Json, body.as_bytes(), POD, validation, &warnings)
            .map(|v| (v, warnings.take()))
            .map_err(|e| e.message)
    }

    #[test]
    fn unknown_fields_are_warned_of_or_refused() {
        let body = r#"{"metadata":{"name":"a"},"spec":{"foo":1}}"#;
        let (value, warnings) = read(body, FieldValidation::Warn).unwrap();
        assert_eq!(warnings, [r#"unknown field "spec.foo""#]);
        assert_eq!(value["kind"], "Pod");
        assert!(value["spec"].get("foo").is_none());
        assert_eq!(
            read(body, FieldValidation::Strict).unwrap_err(),
            r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo""#
        );
        assert!(read(body, FieldValidation::Ignore).unwrap().1.is_empty());
    }

    #[test]
    fn a_patch_may_not_change_the_kind() {
        let check = |version: &str, kind: &str| {
            let object = serde_json::json!({"apiVersion": version, "kind": kind});
            check_patched_type(POD, &object)
        };
        assert_eq!(check("v1", "Pod"), Ok(()));
        assert_eq!(check("", ""), Ok(()));
        assert_eq!(
            check("v1", "Secret").unwrap_err(),
            "converting (v1.Secret) to (core.Pod): unknown conversion"
        );
        assert!(
            check("v2", "Pod")
                .unwrap_err()
                .starts_with("no kind \"Pod\" is registered")
        );
    }

    #[test]
    fn what_is_no_patch_is_refused_in_upstreams_words() {
        use FieldValidation::{Ignore, Warn};
        use PatchType::{Json, Merge, Strategic};
        let decoding = |rest: &str| format!("error decoding patch: json: cannot unmarshal {rest}");
        let cannot = |rest: &str| format!("json: cannot unmarshal {rest}");
        let map = "into Go value of type map[string]interface {}";
        for (kind, validation, body, want) in [
            (
                Json,
                Warn,
                "{}",
                decoding("object into Go value of type []handlers.jsonPatchOp"),
            ),
            (
                Json,
                Warn,
                "[1]",
                decoding("number into Go value of type handlers.jsonPatchOp"),
            ),
            (
                Json,
                Warn,
                r#"[{"op":"add","path":5}]"#,
                decoding("number into Go struct field jsonPatchOp.path of type string"),
            ),
            (
                Json,
                Ignore,
                "{}",
                cannot("object into Go value of type jsonpatch.Patch"),
            ),
            (
                Json,
                Ignore,
                "[[]]",
                cannot("array into Go value of type jsonpatch.Operation"),
            ),
            (
                Json,
                Warn,
                "[",
                "error decoding patch: unexpected end of JSON input".into(),
            ),
            (Json, Ignore, "[", "unexpected end of JSON input".into()),
            (Merge, Warn, "[]", decoding(&format!("array {map}"))),
            (Merge, Ignore, "{", "Invalid JSON Patch".into()),
            (Strategic, Warn, "\"x\"", cannot(&format!("string {map}"))),
            (Strategic, Ignore, "[]", cannot(&format!("array {map}"))),
        ] {
            let refused = patch(kind, body.as_bytes(), validation).unwrap_err();
            assert_eq!((refused.code, refused.message), (400, want), "{body}");
        }
        let read = |kind, body: &str| patch(kind, body.as_bytes(), Warn).unwrap();
        assert_eq!(read(Json, "null"), json!([]));
        assert_eq!(read(Json, "[null]"), json!([null]));
        assert_eq!(read(Strategic, "null"), json!({}));
        assert_eq!(read(Merge, "null"), json!(null));
    }

    #[test]
    fn evictions_may_be_of_the_older_version() {
        let eviction = Expected {
            group: "policy",
            version: "v1",
            kind: "Eviction",
        };
        let read = |version: &str| {
            let body = format!(r#"{{"apiVersion":"{version}","kind":"Eviction"}}"#);
            let warnings = Warnings::default();
            let warn = FieldValidation::Warn;
            object(Media::Json, body.as_bytes(), eviction, warn, &warnings)
                .map(|object| object["apiVersion"].clone())
                .map_err(|e| e.code)
        };
        assert_eq!(read("policy/v1beta1"), Ok(json!("policy/v1")));
        assert_eq!(read("policy/v1"), Ok(json!("policy/v1")));
        assert_eq!(read("policy/v2"), Err(400));
    }

    #[test]
    fn maps_are_printed_as_go_does() {
        let value = serde_json::json!({"b": [1, null], "a": {"x": "y", "t": true}});
        assert_eq!(go_map(&value), "map[a:map[t:true x:y] b:[1 <nil>]]");
    }

    #[test]
    fn what_is_something_else_is_refused() {
        let err = |body| read(body, FieldValidation::Warn).unwrap_err();
        assert_eq!(
            err(r#"{"kind":"Deployment","apiVersion":"apps/v1"}"#),
            r#"Deployment in version "v1" cannot be handled as a Pod: converting (v1.Deployment) to (core.Pod): unknown conversion"#
        );
        assert!(
            err(r#"{"kind":"Nothing","apiVersion":"v1"}"#)
                .contains("no kind \"Nothing\" is registered")
        );
        assert!(err("{").starts_with("the object provided is unrecognized (must be of type Pod)"));
    }
}
