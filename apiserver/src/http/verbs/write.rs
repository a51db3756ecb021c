//! POST and PUT, and what they share with PATCH.

use std::sync::Arc;

use http::{Response, StatusCode, header};
use meta::Status;
use serde_json::{Value, json};

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
use crate::registry::options::WriteOptions;
use crate::registry::store::{Store, Update, Write, Written};

/// What was written as the answer: as it lies in storage, where that is what is asked for.
pub(super) fn answer(
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
            let partial = json!({"metadata": bare_metadata(view.served, &object)});
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

/// The object as it is stored. What only the stored version has defaults for is judged without
/// them: readers get them.
pub(super) fn to_stored(view: View, object: Value) -> Value {
    convert(object, view.served, view.stored)
}

pub(super) fn expected(view: View) -> Expected {
    Expected {
        group: view.served.group,
        version: view.served.version,
        kind: view.served.kind,
    }
}

/// Who comes to own what a request writes.
pub(super) struct Writer {
    manager: String,
    /// Empty where the object itself is written.
    subresource: String,
}

impl Writer {
    pub(super) fn new(request: &RequestContext, options: &WriteOptions) -> Writer {
        let agent = negotiate::header(&request.headers, header::USER_AGENT);
        Writer {
            manager: managed::manager_of(&options.field_manager, agent),
            subresource: request.info.subresource.clone(),
        }
    }

    pub(super) fn of(
        &self,
        served: Spoken,
        stored: Option<&'static schema::Resource>,
    ) -> FieldManager<'_> {
        FieldManager {
            served,
            stored,
            subresource: &self.subresource,
            manager: &self.manager,
        }
    }

    pub(super) fn fields(&self, view: View) -> FieldManager<'_> {
        self.of(view.served.into(), Some(view.stored))
    }
}

pub(super) fn write<'a>(
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
    let (object, options) = input::to_create(request, expected(view)).await?;
    let object = to_stored(view, object);
    let writer = Writer::new(request, &options);
    let written = store
        .create(&write(view, request, &options, &writer), object)
        .await?;
    answer(view, request, &accepted, StatusCode::CREATED, written)
}

/// The object that an update is for must be the one that the path names.
pub(super) fn check_name(object: &Value, request: &RequestContext) -> Result<(), Status> {
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
pub(super) fn may_create(chain: &Chain, request: &RequestContext) -> Result<(), Status> {
    let base = authorization::attributes(&request.info, &request.user, "");
    let attributes = Attributes {
        verb: "create",
        ..base
    };
    authorization::authorize(&*chain.authorizer, &attributes)
}

pub(super) fn code(created: bool) -> StatusCode {
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
    let (object, options) = input::to_update(request, expected(view)).await?;
    check_name(&object, request)?;
    let uid = meta(&object).uid().to_owned();
    let object = to_stored(view, object);
    let request = &*request;
    let update = Update {
        change: &|_: Option<&Value>| Ok(object.clone()),
        verb: &request.info.verb,
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
