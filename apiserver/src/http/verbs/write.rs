//! POST, PUT and PATCH.

use std::sync::Arc;

use http::{Response, StatusCode, header};
use meta::{ErrorList, FieldError, GroupKind, Path, Status};
use serde_json::Value;

use super::super::authorization;
use super::super::body::{self, Body};
use super::super::chain::Chain;
use super::super::context::RequestContext;
use super::super::encode::{self, ListMeta, View};
use super::super::negotiate::{self, Accepted, Offer};
use super::body::{self as input, Expected};
use super::read::{self, Shape, meta_version, namespace};
use super::table;
use crate::authz::Attributes;
use crate::registry::as_read;
use crate::registry::convert::{bare_metadata, convert};
use crate::registry::managed::{self, FieldManager, Spoken};
use crate::registry::object_meta::meta;
use crate::registry::options::{FieldValidation, PatchType, WriteOptions};
use crate::registry::rest::{Reply, Rest, Target};
use crate::registry::store::{Change, Store, Update, Write, Written};

/// What was written as the answer: as it lies in storage, where that is what is asked for.
fn answer(
    view: View,
    request: &RequestContext,
    accepted: &Accepted,
    code: StatusCode,
    written: Written,
) -> Result<Response<Body>, Status> {
    let (media, pretty) = (accepted.media, accepted.pretty);
    match (&written.stored, read::shape(accepted, request, false)?) {
        (Some(stored), Shape::Objects) => {
            let bytes = view.object(stored, media, pretty);
            let bytes = bytes.map_err(Status::internal)?;
            Ok(body::bytes(code, media.name(), bytes, &request.headers))
        }
        _ => respond(view, request, accepted, code, written.object),
    }
}

/// A tree of the stored version as the answer of a write.
pub(super) fn respond(
    view: View,
    request: &RequestContext,
    accepted: &Accepted,
    code: StatusCode,
    mut object: Value,
) -> Result<Response<Body>, Status> {
    as_read::settle(view.stored, &mut object);
    let object = convert(object, view.stored, view.served);
    let (media, pretty) = (accepted.media, accepted.pretty);
    let bytes = match read::shape(accepted, request, false)? {
        Shape::Objects => encode::tree(
            &view.api_version(),
            view.served.kind,
            &object,
            media,
            pretty,
        ),
        Shape::Partial { beta } => {
            let partial = serde_json::json!({"metadata": bare_metadata(view.served, &object)});
            let kind = "PartialObjectMetadata";
            encode::tree(meta_version(beta), kind, &partial, media, pretty)
        }
        Shape::Table { beta, include } => {
            let row = table::row(view.served, &object, include, jiff::Timestamp::now());
            let list = ListMeta {
                resource_version: meta(&object).resource_version().to_owned(),
                ..ListMeta::default()
            };
            let table = table::table(view.served, &list, vec![row], true);
            encode::tree(meta_version(beta), "Table", &table, media, pretty)
        }
    }
    .map_err(Status::internal)?;
    Ok(body::bytes(code, media.name(), bytes, &request.headers))
}

/// The object as it is stored. Another version than the client's has defaults of its own.
fn to_stored(view: View, object: Value) -> Value {
    let mut object = convert(object, view.served, view.stored);
    if !std::ptr::eq(view.served, view.stored) {
        api::defaults::apply(view.stored.message, &mut object);
    }
    object
}

fn expected(view: View) -> Expected {
    Expected {
        group: view.served.group,
        version: view.served.version,
        kind: view.served.kind,
    }
}

/// Who comes to own what a request writes.
struct Writer {
    manager: String,
    /// Empty where the object itself is written.
    subresource: String,
}

impl Writer {
    fn new(request: &RequestContext, options: &WriteOptions) -> Writer {
        let agent = negotiate::header(&request.headers, header::USER_AGENT);
        Writer {
            manager: managed::manager_of(&options.field_manager, agent),
            subresource: request.info.subresource.clone(),
        }
    }

    fn of(&self, served: Spoken, stored: Option<&'static schema::Resource>) -> FieldManager<'_> {
        FieldManager {
            served,
            stored,
            subresource: &self.subresource,
            manager: &self.manager,
        }
    }

    fn fields(&self, view: View) -> FieldManager<'_> {
        self.of(view.served.into(), Some(view.stored))
    }
}

fn write<'a>(
    view: View,
    request: &'a RequestContext,
    options: &WriteOptions,
    writer: &'a Writer,
) -> Write<'a> {
    Write {
        user: &request.user,
        group: view.served.group,
        namespace: namespace(view, request),
        name: &request.info.name,
        subresource: &request.info.subresource,
        dry_run: options.dry_run,
        warnings: &request.warnings,
        fields: Some(writer.fields(view)),
    }
}

pub(super) async fn create(
    store: &Arc<Store>,
    view: View,
    request: &mut RequestContext,
) -> Result<Response<Body>, Status> {
    let accepted = negotiate::output(&request.headers, &request.query, Offer::Objects)?;
    let media = negotiate::input(&request.headers)?;
    let body = request.read_body().await?;
    let options = WriteOptions::from_query(&request.query, "CreateOptions")?;
    let object = input::object(
        media,
        &body,
        expected(view),
        options.field_validation,
        &request.warnings,
    )?;
    let object = to_stored(view, object);
    let writer = Writer::new(request, &options);
    let written = store
        .create(&write(view, request, &options, &writer), object)
        .await?;
    answer(view, request, &accepted, StatusCode::CREATED, written)
}

/// The object that an update is for must be the one that the path names.
fn check_name(object: &Value, request: &RequestContext) -> Result<(), Status> {
    let (name, url) = (meta(object).name(), &request.info.name);
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({url} based on URL) was undeterminable: name must be provided"
        )));
    }
    if name != url {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({url})"
        )));
    }
    let (own, asked) = (meta(object).namespace(), &request.info.namespace);
    let is_namespace = request.info.resource == "namespaces" && request.info.group.is_empty();
    if !own.is_empty() && !asked.is_empty() && own != asked && !is_namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Whether the user may create what a PUT would create.
fn may_create(chain: &Chain, request: &RequestContext) -> Result<(), Status> {
    let base = authorization::attributes(&request.info, &request.user, "");
    let attributes = Attributes {
        verb: "create",
        ..base
    };
    authorization::authorize(&*chain.authorizer, &attributes)
}

fn code(created: bool) -> StatusCode {
    if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    }
}

pub(super) async fn update(
    chain: &Chain,
    store: &Arc<Store>,
    view: View,
    request: &mut RequestContext,
) -> Result<Response<Body>, Status> {
    let accepted = negotiate::output(&request.headers, &request.query, Offer::Objects)?;
    let body = request.read_body().await?;
    let options = WriteOptions::from_query(&request.query, "UpdateOptions")?;
    let media = negotiate::input(&request.headers)?;
    let object = input::object(
        media,
        &body,
        expected(view),
        options.field_validation,
        &request.warnings,
    )?;
    check_name(&object, request)?;
    let uid = meta(&object).uid().to_owned();
    let object = to_stored(view, object);
    let request = &*request;
    let update = Update {
        change: &|_: Option<&Value>| Ok(object.clone()),
        uid: (!uid.is_empty()).then_some(&uid),
        force_create: false,
        noted: false,
        may_create: &|| may_create(chain, request),
    };
    let writer = Writer::new(request, &options);
    let written = store
        .update(&write(view, request, &options, &writer), &update)
        .await?;
    let code = code(written.created);
    answer(view, request, &accepted, code, written)
}

/// A patch as it was sent.
struct Patch {
    kind: PatchType,
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
    async fn read(request: &mut RequestContext) -> Result<(Patch, WriteOptions), Status> {
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
    fn subject(&self, current: &Value) -> Value {
        let Value::Object(members) = current else {
            return current.clone();
        };
        if self.names_managers {
            let mut current = current.clone();
            codec::tree::expand_managed_fields(&mut current);
            return current;
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
    fn apply(
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
    fn merge(
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
        check_name(&object, request)?;
        Ok(to_stored(view, object))
    };
    let apply = patch.kind == PatchType::Apply;
    let update = Update {
        change: &change,
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

/// Any verb on an endpoint that is not simply a stored object.
pub(super) async fn rest(
    resource: &'static schema::Resource,
    rest: &dyn Rest,
    speaks: (&'static str, &'static str, &'static str),
    request: &mut RequestContext,
) -> Result<Response<Body>, Status> {
    let accepted = negotiate::output(&request.headers, &request.query, Offer::Plain)?;
    let expected = Expected {
        group: speaks.0,
        version: speaks.1,
        kind: speaks.2,
    };
    let spoken = Spoken {
        group: speaks.0,
        version: speaks.1,
        kind: speaks.2,
        plural: resource.plural,
    };
    let (reply, code) = match request.info.verb.as_str() {
        "get" => {
            let options = WriteOptions::default();
            let writer = Writer::new(request, &options);
            let target = target(resource, request, &options, writer.of(spoken, None));
            (Reply::Object(rest.get(target).await?), StatusCode::OK)
        }
        "create" => {
            let media = negotiate::input(&request.headers)?;
            let body = request.read_body().await?;
            let options = WriteOptions::from_query(&request.query, "CreateOptions")?;
            let mut object = input::object(
                media,
                &body,
                expected,
                options.field_validation,
                &request.warnings,
            )?;
            let writer = Writer::new(request, &options);
            let target = target(resource, request, &options, writer.of(spoken, None));
            // What is asked and not kept is answered with its managers all the same.
            target
                .fields
                .note(None, &mut object, jiff::Timestamp::now());
            (rest.create(target, object).await?, StatusCode::CREATED)
        }
        "update" => {
            let body = request.read_body().await?;
            let options = WriteOptions::from_query(&request.query, "UpdateOptions")?;
            let media = negotiate::input(&request.headers)?;
            let object = input::object(
                media,
                &body,
                expected,
                options.field_validation,
                &request.warnings,
            )?;
            check_name(&object, request)?;
            let writer = Writer::new(request, &options);
            let target = target(resource, request, &options, writer.of(spoken, None));
            let change: &Change<'_> = &|_| Ok(object.clone());
            (
                Reply::Object(rest.update(target, change).await?),
                StatusCode::OK,
            )
        }
        "patch" => {
            let (patch, options) = Patch::read(request).await?;
            let request = &*request;
            let writer = Writer::new(request, &options);
            let fields = writer.of(spoken, None);
            let target = Target {
                apply: patch.kind == PatchType::Apply,
                ..target(resource, request, &options, fields)
            };
            let change = |current: Option<&Value>| match patch.kind {
                PatchType::Apply => patch.merge(&fields, current, expected, request),
                _ => {
                    let current = current.map(|c| patch.subject(c)).unwrap_or_default();
                    patch.apply(current, expected, request)
                }
            };
            (
                Reply::Object(rest.update(target, &change).await?),
                StatusCode::OK,
            )
        }
        _ => return Err(super::method_not_allowed()),
    };
    match reply {
        Reply::Status(status) => Ok(body::status(&status, &request.headers, accepted.pretty)),
        Reply::Object(object) => {
            let (media, pretty) = (accepted.media, accepted.pretty);
            let bytes = encode::tree(
                &expected.api_version(),
                expected.kind,
                &object,
                media,
                pretty,
            )
            .map_err(Status::internal)?;
            Ok(body::bytes(code, media.name(), bytes, &request.headers))
        }
    }
}

fn target<'a>(
    resource: &'static schema::Resource,
    request: &'a RequestContext,
    options: &WriteOptions,
    fields: FieldManager<'a>,
) -> Target<'a> {
    Target {
        resource,
        namespace: &request.info.namespace,
        name: &request.info.name,
        user: &request.user,
        dry_run: options.dry_run,
        warnings: &request.warnings,
        fields,
        apply: false,
    }
}
