//! GET and LIST.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use meta::Status;
use schema::Resource;
use serde_json::{Value, json};

use super::super::body::{self, Body};
use super::super::context::RequestContext;
use super::super::encode::{self, ListMeta, View};
use super::super::negotiate::{self, Accepted, Media, Offer};
use super::super::request_info::RequestInfo;
use super::pieces::{self, Item, Pieces};
use super::table::{self, Include};
use crate::registry::options::ListOptions;
use crate::registry::store::{Listed, Store};
use crate::storage::cache::Object;

/// How objects are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Objects,
    /// `as=Table`, of `v1` or `v1beta1`.
    Table {
        beta: bool,
        include: Include,
    },
    /// `as=PartialObjectMetadata` or its list.
    Partial {
        beta: bool,
    },
}

/// `is_list`: an object asked for as a list of metadata, or the other way round, is 406.
pub(super) fn shape(
    accepted: &Accepted,
    request: &RequestContext,
    is_list: bool,
) -> Result<Shape, Status> {
    let Some(convert) = &accepted.convert else {
        return Ok(Shape::Objects);
    };
    let beta = convert.version == "v1beta1";
    let refuse = |message: String| {
        let mut status = Status::not_acceptable::<&str>(&[]);
        status.message = message;
        Err(status)
    };
    match convert.kind.as_str() {
        "Table" => Ok(Shape::Table {
            beta,
            include: Include::parse(request.query.get("includeObject").unwrap_or_default(), beta)?,
        }),
        "PartialObjectMetadata" if is_list => refuse(format!(
            "you requested PartialObjectMetadata, but the requested object is a list ({}List)",
            go_type(&request.info)
        )),
        "PartialObjectMetadataList" if !is_list => refuse(format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
            go_type(&request.info)
        )),
        _ => Ok(Shape::Partial { beta }),
    }
}

/// What upstream calls the type of the objects: it says so in a message that clients see.
fn go_type(info: &RequestInfo) -> String {
    let of = |r: &&Resource| {
        let named = (r.group, r.version, r.plural);
        named == (&*info.group, &*info.version, &*info.resource)
    };
    let kind = schema::resources().iter().find(of).map_or("", |r| r.kind);
    let package = match info.group.as_str() {
        "" | "events.k8s.io" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        group => group.split('.').next().unwrap_or_default(),
    };
    format!("*{package}.{kind}")
}

pub fn meta_version(beta: bool) -> &'static str {
    if beta {
        "meta.k8s.io/v1beta1"
    } else {
        "meta.k8s.io/v1"
    }
}

pub(super) async fn get(
    store: &Arc<Store>,
    view: View,
    request: &RequestContext,
) -> Result<Response<Body>, Status> {
    let accepted = negotiate::output(&request.headers, &request.query, Offer::Objects)?;
    let info = &request.info;
    let version = request.query.text("resourceVersion");
    let object = store
        .get(namespace(view, request), &info.name, &version)
        .await?;
    // In upstream's order: what is asked for must be there before it is shown in some way.
    let shape = shape(&accepted, request, false)?;
    let bytes = one(view, &object, shape, &accepted)?;
    Ok(body::bytes(
        StatusCode::OK,
        accepted.media.name(),
        bytes,
        &request.headers,
    ))
}

/// The namespace under which objects are stored: a namespace itself is in none.
pub(super) fn namespace(view: View, request: &RequestContext) -> &str {
    if view.stored.namespaced {
        &request.info.namespace
    } else {
        ""
    }
}

/// One object's body.
pub(super) fn one(
    view: View,
    object: &Arc<Object>,
    shape: Shape,
    accepted: &Accepted,
) -> Result<Bytes, Status> {
    let (media, pretty) = (accepted.media, accepted.pretty);
    match shape {
        Shape::Objects => view.object(object, media, pretty),
        Shape::Partial { beta } => {
            let raw = view.partial(object).map_err(Status::internal)?;
            encode::message(
                meta_version(beta),
                "PartialObjectMetadata",
                &raw,
                media,
                pretty,
            )
        }
        Shape::Table { beta, include } => {
            let rows = table::rows(view, std::slice::from_ref(object), include)?;
            let meta = ListMeta {
                resource_version: object.revision().to_string(),
                ..ListMeta::default()
            };
            let table = table::table(view.served, &meta, rows, true);
            encode::tree(meta_version(beta), "Table", &table, media, pretty)
        }
    }
    .map_err(Status::internal)
}

/// What is said of a list; how many objects remain, where it goes on.
pub(super) fn meta_of(listed: &Listed) -> ListMeta {
    let more = !listed.continue_token.is_empty();
    ListMeta {
        resource_version: listed.list.revision.to_string(),
        remaining: listed.list.remaining.filter(|_| more),
        continue_token: listed.continue_token.clone(),
    }
}

pub(super) async fn list(
    store: &Arc<Store>,
    view: View,
    request: &RequestContext,
) -> Result<Response<Body>, Status> {
    let accepted = negotiate::output(&request.headers, &request.query, Offer::Collection)?;
    let options = ListOptions::from_query(&request.query, false)?;
    let info = &request.info;
    let selection = store.select(view.served, namespace(view, request), &info.name, &options)?;
    let listed = store.list(&selection, &options).await?;
    let shape = shape(&accepted, request, true)?;
    let meta = meta_of(&listed);
    let objects = listed.list.objects;
    if pieces::is_long(&objects) {
        let item = match shape {
            Shape::Objects => Item::Object,
            Shape::Partial { beta } => Item::Partial { beta },
            Shape::Table { include, .. } => Item::Row(include),
        };
        let (version, kind) = match shape {
            Shape::Table { beta, .. } => (meta_version(beta).to_owned(), "Table".to_owned()),
            Shape::Partial { beta } => (
                meta_version(beta).to_owned(),
                "PartialObjectMetadataList".to_owned(),
            ),
            _ => (view.api_version(), format!("{}List", view.served.kind)),
        };
        let media = accepted.media;
        let pieces = Pieces::new(view, (&version, &kind), &meta, objects, item, media)?;
        let pieces = if accepted.pretty {
            pieces.pretty()
        } else {
            pieces
        };
        let gzip = negotiate::accepts_gzip(&request.headers);
        let pieces = if gzip { pieces.compressed() } else { pieces };
        return Ok(body::pieces(media.name(), pieces, gzip));
    }
    let bytes = many(view, &objects, &meta, shape, &accepted)?;
    Ok(body::bytes(
        StatusCode::OK,
        accepted.media.name(),
        bytes,
        &request.headers,
    ))
}

/// A list's body.
pub(super) fn many(
    view: View,
    objects: &[Arc<Object>],
    meta: &ListMeta,
    shape: Shape,
    accepted: &Accepted,
) -> Result<Bytes, Status> {
    let (media, pretty) = (accepted.media, accepted.pretty);
    match shape {
        Shape::Objects => view.list(objects, meta, media, pretty),
        Shape::Partial { beta } => {
            let mut items = Vec::with_capacity(objects.len());
            for object in objects {
                let raw = view.partial(object).map_err(Status::internal)?;
                let item = match media {
                    Media::Protobuf => raw,
                    // Unlike those of other lists, these items say what they are.
                    _ => encode::message_json(meta_version(beta), "PartialObjectMetadata", &raw)
                        .map_err(Status::internal)?,
                };
                items.push(item);
            }
            let kind = "PartialObjectMetadataList";
            if items.is_empty() && media != Media::Protobuf {
                // Upstream appends to a list that it has not made.
                let list = json!({"metadata": meta.to_value(), "items": Value::Null});
                return encode::tree(meta_version(beta), kind, &list, media, pretty)
                    .map_err(Status::internal);
            }
            encode::items(meta_version(beta), kind, meta, &items, media, pretty)
        }
        Shape::Table { beta, include } => {
            let rows = table::rows(view, objects, include)?;
            let table = table::table(view.served, meta, rows, true);
            encode::tree(meta_version(beta), "Table", &table, media, pretty)
        }
    }
    .map_err(Status::internal)
}
