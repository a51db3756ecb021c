//! Objects that are made up for the request that asks for them, in the form it wants.

use http::{Response, StatusCode};
use meta::Status;
use schema::Resource;
use serde_json::{Value, json};

use super::super::body::{self, Body};
use super::super::context::RequestContext;
use super::super::encode::{self, ListMeta};
use super::super::negotiate::{self, Offer};
use super::read::{self, Shape, meta_version};
use super::table;
use crate::registry::convert::api_version;

/// One object.
pub fn object(
    resource: &'static Resource,
    object: &Value,
    request: &RequestContext,
) -> Result<Response<Body>, Status> {
    answer(resource, object, &[object], false, request)
}

/// A list of objects.
pub fn list(
    resource: &'static Resource,
    objects: &[&Value],
    request: &RequestContext,
) -> Result<Response<Body>, Status> {
    let list = json!({"metadata": {}, "items": objects});
    answer(resource, &list, objects, true, request)
}

fn answer(
    resource: &'static Resource,
    whole: &Value,
    objects: &[&Value],
    is_list: bool,
    request: &RequestContext,
) -> Result<Response<Body>, Status> {
    let offer = if is_list {
        Offer::Collection
    } else {
        Offer::Objects
    };
    let accepted = negotiate::output(&request.headers, &request.query, offer)?;
    let suffix = if is_list { "List" } else { "" };
    let (version, kind, tree) = match read::shape(&accepted, request, is_list)? {
        Shape::Objects => {
            let kind = format!("{}{suffix}", resource.kind);
            (api_version(resource), kind, whole.clone())
        }
        Shape::Partial { beta } => {
            let metadata = |o: &&Value| json!({"metadata": o["metadata"]});
            let tree = match is_list {
                true => json!({
                    "metadata": {},
                    "items": objects.iter().map(metadata).collect::<Vec<_>>(),
                }),
                false => metadata(&whole),
            };
            let kind = format!("PartialObjectMetadata{suffix}");
            (meta_version(beta).to_owned(), kind, tree)
        }
        Shape::Table { beta, include } => {
            let now = jiff::Timestamp::now();
            let row = |o: &&Value| table::row(resource, o, include, now);
            let rows = objects.iter().map(row).collect();
            let tree = table::table(resource, &ListMeta::default(), rows, true);
            (meta_version(beta).to_owned(), "Table".to_owned(), tree)
        }
    };
    let (media, pretty) = (accepted.media, accepted.pretty);
    let bytes = encode::tree(&version, &kind, &tree, media, pretty).map_err(Status::internal)?;
    let name = media.name();
    Ok(body::bytes(StatusCode::OK, name, bytes, &request.headers))
}
