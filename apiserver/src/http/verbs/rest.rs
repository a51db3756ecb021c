//! Endpoints that are not simply stored objects: subresources that speak another kind, and kinds
//! that are asked and not kept.

use http::{Response, StatusCode};
use meta::Status;
use serde_json::{Value, json};

use super::super::body::{self, Body};
use super::super::context::RequestContext;
use super::super::encode::{self, ListMeta};
use super::super::negotiate::{self, Accepted, Offer};
use super::body::{self as input, Expected};
use super::patch::Patch;
use super::read::{self, Shape, meta_version};
use super::table;
use super::write::{Writer, check_name};
use crate::registry::columns;
use crate::registry::managed::{FieldManager, Spoken};
use crate::registry::object_meta::meta;
use crate::registry::options::{PatchType, WriteOptions};
use crate::registry::rest::{Reply, Rest, Target};
use crate::registry::store::{Change, warn_duplicate_owners};

/// Any verb.
pub(super) async fn answer(
    resource: &'static schema::Resource,
    rest: &dyn Rest,
    speaks: (&'static str, &'static str, &'static str),
    request: &mut RequestContext,
) -> Result<Response<Body>, Status> {
    let expected = Expected {
        group: speaks.0,
        version: speaks.1,
        kind: speaks.2,
    };
    let offer = match columns::printed(expected.group, expected.kind) {
        Some(_) => Offer::Objects,
        None => Offer::Metadata,
    };
    let accepted = negotiate::output(&request.headers, &request.query, offer)?;
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
            let (mut object, options) = input::to_create(request, expected).await?;
            let writer = Writer::new(request, &options);
            let target = target(resource, request, &options, writer.of(spoken, None));
            // What is asked and not kept is answered with its managers all the same.
            target
                .fields
                .note(None, &mut object, jiff::Timestamp::now());
            (rest.create(target, object).await?, StatusCode::CREATED)
        }
        "update" => {
            let (mut object, options) = input::to_update(request, expected).await?;
            check_name(&object, request)?;
            warn_duplicate_owners(&mut object, &request.warnings, false);
            let writer = Writer::new(request, &options);
            let target = Target {
                uid: meta(&object).uid(),
                ..target(resource, request, &options, writer.of(spoken, None))
            };
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
            let change = |current: Option<&Value>| {
                let mut object = match patch.kind {
                    PatchType::Apply => patch.merge(&fields, current, expected, request)?,
                    _ => {
                        let current = current.map(|c| patch.subject(c)).unwrap_or_default();
                        patch.apply(current, expected, request)?
                    }
                };
                check_name(&object, request)?;
                warn_duplicate_owners(&mut object, &request.warnings, true);
                Ok(object)
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
            let (version, kind, tree) = shown(expected, object, &accepted, request)?;
            let (media, pretty) = (accepted.media, accepted.pretty);
            let bytes =
                encode::tree(&version, kind, &tree, media, pretty).map_err(Status::internal)?;
            Ok(body::bytes(code, media.name(), bytes, &request.headers))
        }
    }
}

/// What an endpoint answers with, as the client wants to see it: API version, kind and tree.
fn shown(
    spoken: Expected,
    object: Value,
    accepted: &Accepted,
    request: &RequestContext,
) -> Result<(String, &'static str, Value), Status> {
    Ok(match read::shape(accepted, request, false)? {
        Shape::Objects => (spoken.api_version(), spoken.kind, object),
        Shape::Partial { beta } => {
            let partial = json!({"metadata": object["metadata"]});
            (meta_version(beta).into(), "PartialObjectMetadata", partial)
        }
        Shape::Table { beta, include } => {
            let columns = columns::printed(spoken.group, spoken.kind).unwrap_or_default();
            let now = jiff::Timestamp::now();
            let row = table::row_of_kind(columns, spoken.message()?, &object, include, now);
            let list = ListMeta {
                resource_version: meta(&object).resource_version().to_owned(),
                ..ListMeta::default()
            };
            let table = table::table_of(columns, &list, vec![row]);
            (meta_version(beta).into(), "Table", table)
        }
    })
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
        uid: "",
    }
}
