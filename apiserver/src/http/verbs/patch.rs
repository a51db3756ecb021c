//! PATCH, of all four types.

use std::sync::Arc;

use http::{Response, header};
use meta::{ErrorList, FieldError, GroupKind, Path, Status};
use serde_json::{Value, json};

use super::super::body::Body;
use super::super::chain::Chain;
use super::super::context::RequestContext;
use super::super::encode::View;
use super::super::negotiate::{self, Offer};
use super::body::{self as input, Expected};
use super::write::{Writer, answer, check_name, code, expected, may_create, to_stored, write};
use crate::registry::convert::convert;
use crate::registry::managed::FieldManager;
use crate::registry::object_meta::meta;
use crate::registry::options::{FieldValidation, PatchType, WriteOptions};
use crate::registry::store::{Store, Update};

/// A patch as it was sent.
pub(super) struct Patch {
    pub(super) kind: PatchType,
    /// As a tree that no schema has seen; or why it is no patch, which is said only of what
    /// is there to be patched.
    content: Result<Value, Status>,
    /// It may change who owns which fields.
    names_managers: bool,
    /// Server-side apply takes fields from others.
    force: bool,
    /// What is wrong with the patch itself: members that occur twice, or that are unknown.
    strict_errors: Vec<String>,
    validation: FieldValidation,
}

fn strict_errors(kind: PatchType, body: &[u8], content: &Value) -> Vec<String> {
    let subject = if kind == PatchType::Json {
        "json patch "
    } else {
        ""
    };
    let mut errors: Vec<String> = codec::decode::duplicates(body)
        .iter()
        .map(|path| format!("{subject}duplicate field {path:?}"))
        .collect();
    if kind == PatchType::Json {
        const MEMBERS: [&str; 4] = ["op", "path", "from", "value"];
        for (i, operation) in content.as_array().into_iter().flatten().enumerate() {
            let members = operation.as_object().into_iter().flatten();
            let unknown = members.filter(|(name, _)| !MEMBERS.contains(&name.as_str()));
            errors.extend(unknown.map(|(name, _)| {
                let path = format!("[{i}].{name}");
                format!("{subject}unknown field {path:?}")
            }));
        }
    }
    errors
}

impl Patch {
    pub(super) async fn read(
        request: &mut RequestContext,
    ) -> Result<(Patch, WriteOptions), Status> {
        let content_type = negotiate::header(&request.headers, header::CONTENT_TYPE);
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let kind = PatchType::ALL
            .into_iter()
            .find(|p| p.media_type() == essence)
            .ok_or_else(negotiate::unsupported_patch)?;
        let body = request.read_body().await?;
        let options = WriteOptions::for_patch(&request.query, kind)?;
        let validation = options.field_validation;
        let (content, strict_errors) = match kind {
            PatchType::Apply => input::applied(&body).map_or_else(
                |error| (Err(error), Vec::new()),
                |(content, errors)| (Ok(content), errors),
            ),
            _ => {
                let content = input::patch(kind, &body, validation);
                let errors = match &content {
                    Ok(content) => strict_errors(kind, &body, content),
                    Err(_) => Vec::new(),
                };
                (content, errors)
            }
        };
        let patch = Patch {
            kind,
            strict_errors,
            names_managers: names_managers(kind, &body, content.as_ref().ok()),
            force: options.force == Some(true),
            content,
            validation,
        };
        Ok((patch, options))
    }

    /// What the patch is applied to: the object, without the managers of its fields where the
    /// patch has nothing to do with them. They are many, and stay what they are.
    pub(super) fn subject(&self, current: &Value) -> Value {
        let Value::Object(members) = current else {
            return current.clone();
        };
        if self.names_managers {
            return current.clone();
        }
        let without = |(key, value): (&String, &Value)| {
            let value = match (key.as_str(), value) {
                ("metadata", Value::Object(metadata)) => metadata
                    .iter()
                    .filter(|(key, _)| *key != "managedFields")
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
                _ => value.clone(),
            };
            (key.clone(), value)
        };
        Value::Object(members.iter().map(without).collect())
    }

    /// The patched object, checked against the schema and defaulted.
    pub(super) fn apply(
        &self,
        current: Value,
        expected: Expected,
        request: &RequestContext,
    ) -> Result<Value, Status> {
        let message = expected.message()?;
        let content = self.content.as_ref().map_err(Status::clone)?;
        let mut object = current;
        let stored = message.holds_raw.then(|| object.clone());
        codec::tree::expand_raw(message, &mut object);
        codec::tree::expand_field_sets(message, &mut object);
        codec::tree::drop_empty_bytes(message, &mut object);
        let applied = match self.kind {
            PatchType::Json => {
                codec::tree::complete(message, &mut object);
                patch::json::apply(&mut object, content)
            }
            PatchType::Merge => patch::merge::apply(&mut object, content.clone()),
            // What is applied is merged by its managers.
            PatchType::Strategic | PatchType::Apply => {
                let patched =
                    patch::strategic::apply(object, content.clone(), message).map_err(failed)?;
                object = patched;
                Ok(())
            }
        };
        applied.map_err(failed)?;

        if matches!(self.kind, PatchType::Json | PatchType::Merge) && object.is_object() {
            input::check_patched_type(expected, &object)
                .map_err(|detail| self.invalid(&object.to_string(), detail))?;
        }
        let mut strict_errors = self.strict_errors.clone();
        if matches!(self.kind, PatchType::Json | PatchType::Merge)
            && let Some(unknown) = input::members_of_no_version(&object)
        {
            // Upstream reads it as an object of no version, in which no member is known.
            strict_errors.extend(unknown);
            input::note_strict_errors(&strict_errors, self.validation, &request.warnings)
                .map_err(|detail| self.invalid(&codec::json::compacted(&object), detail))?;
            return Ok(json!({}));
        }
        let settled = match strict_errors.is_empty() {
            true => codec::decode::canonical(message, object),
            false => Err(object),
        };
        let mut object = match settled {
            Ok(object) => object,
            Err(mut object) => {
                if self.kind == PatchType::Strategic {
                    codec::decode::unstructured(message, &mut object)
                        .map_err(|detail| self.invalid("", detail))?;
                }
                let text = match self.kind {
                    PatchType::Json | PatchType::Merge => codec::json::compacted(&object),
                    PatchType::Strategic | PatchType::Apply => codec::json::text(&object),
                };
                let strictness = input::strictness(self.validation);
                let decoded = codec::decode::json(message, text.as_bytes(), strictness)
                    .map_err(|e| self.invalid(&text, e.to_string()))?;
                strict_errors.extend(decoded.strict_errors);
                input::note_strict_errors(&strict_errors, self.validation, &request.warnings)
                    .map_err(|detail| self.invalid(&text, detail))?;
                decoded.value
            }
        };
        // These two patch the object's text, of which they leave what they do not change.
        if let (Some(stored), PatchType::Json | PatchType::Merge) = (&stored, self.kind) {
            codec::tree::keep_raw(message, &mut object, stored);
        }
        if let Some(members) = object.as_object_mut() {
            members.insert("apiVersion".into(), expected.api_version().into());
            members.insert("kind".into(), expected.kind.into());
        }
        api::defaults::apply(message, &mut object);
        Ok(object)
    }

    /// What came of the patch is no object of its type.
    fn invalid(&self, patched: &str, detail: String) -> Status {
        let value = match (self.kind, &self.content) {
            (PatchType::Strategic, Ok(content)) => input::go_map(content),
            _ => patched.to_owned(),
        };
        let field = Path::new("patch");
        let errs = ErrorList::from(vec![FieldError::invalid(&field, value, detail)]);
        Status::invalid(&GroupKind::new("", ""), "", &errs)
    }

    /// Server-side apply: what is there with what is applied, defaulted.
    pub(super) fn merge(
        &self,
        fields: &FieldManager<'_>,
        current: Option<&Value>,
        expected: Expected,
        request: &RequestContext,
    ) -> Result<Value, Status> {
        let now = jiff::Timestamp::now();
        let content = self.content.as_ref().map_err(Status::clone)?;
        let mut object = fields.apply(current, content, self.force, now)?;
        match self.validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => {
                for error in &self.strict_errors {
                    request.warnings.add(error.clone());
                }
            }
            FieldValidation::Strict => {
                if !self.strict_errors.is_empty() {
                    return Err(Status::bad_request(format!(
                        "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  {}",
                        self.strict_errors.join("\n  ")
                    )));
                }
            }
        }
        api::defaults::apply(expected.message()?, &mut object);
        Ok(object)
    }
}

/// Whether a patch may have to do with `managedFields`: it says the word, or works on all of
/// the object or its metadata.
fn names_managers(kind: PatchType, body: &[u8], content: Option<&Value>) -> bool {
    const WORD: &[u8] = b"managedFields";
    if body.windows(WORD.len()).any(|w| w == WORD) {
        return true;
    }
    kind == PatchType::Json
        && content
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .any(|operation| {
                ["path", "from"]
                    .iter()
                    .any(|key| matches!(operation[key].as_str(), Some("" | "/metadata")))
            })
}

/// Why a patch does not apply, as a status.
fn failed(error: patch::Error) -> Status {
    match error {
        patch::Error::Malformed(message) => Status::bad_request(message),
        e @ patch::Error::TooManyOperations { .. } => Status::request_entity_too_large(e),
        patch::Error::Inapplicable(message) => Status::generic_server_response(
            422,
            "",
            &meta::GroupResource::default(),
            "",
            &message,
            0,
            false,
        ),
        // Upstream has no reason for these.
        patch::Error::Schema(message) => Status {
            code: 500,
            message,
            ..Status::default()
        },
    }
}

pub(super) async fn patch(
    chain: &Chain,
    store: &Arc<Store>,
    view: View,
    request: &mut RequestContext,
) -> Result<Response<Body>, Status> {
    let (patch, options) = Patch::read(request).await?;
    let accepted = negotiate::output(&request.headers, &request.query, Offer::Objects)?;
    let request = &*request;
    let writer = Writer::new(request, &options);
    let fields = writer.fields(view);
    let change = |current: Option<&Value>| {
        let object = match (patch.kind, current) {
            (PatchType::Apply, current) => {
                patch.merge(&fields, current, expected(view), request)?
            }
            (_, Some(current)) => {
                let current = patch.subject(current);
                let current = convert(current, view.stored, view.served);
                patch.apply(current, expected(view), request)?
            }
            (_, None) => {
                return Err(Status::not_found(
                    &store.group_resource(),
                    &request.info.name,
                ));
            }
        };
        // What names a uid and is not there is a conflict, be its name missing.
        if current.is_some() || meta(&object).uid().is_empty() {
            check_name(&object, request)?;
        }
        Ok(to_stored(view, object))
    };
    let apply = patch.kind == PatchType::Apply;
    let update = Update {
        change: &change,
        verb: &request.info.verb,
        uid: None,
        force_create: apply,
        noted: apply,
        may_create: &|| may_create(chain, request),
    };
    let written = store
        .update(&write(view, request, &options, &writer), &update)
        .await?;
    let code = code(written.created);
    answer(view, request, &accepted, code, written)
}
