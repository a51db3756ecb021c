//! DELETE of one object and of a collection.

use std::sync::Arc;

use http::{Response, StatusCode};
use meta::Status;

use super::super::body::{self, Body};
use super::super::context::RequestContext;
use super::super::encode::View;
use super::super::negotiate::{self, Accepted, Offer};
use super::body as input;
use super::read::{self, namespace};
use super::write::respond;
use crate::registry::options::{DeleteOptions, ListOptions};
use crate::registry::store::{Store, Write};

/// `DeleteOptions`, from the body or, when there is none, from the query.
async fn options(request: &mut RequestContext) -> Result<DeleteOptions, Status> {
    let body = request.read_body().await?;
    if body.is_empty() {
        return DeleteOptions::from_query(&request.query);
    }
    let media = negotiate::input(&request.headers)?;
    DeleteOptions::from_value(input::delete_options(media, &body)?)
}

fn write<'a>(view: View, request: &'a RequestContext, options: &DeleteOptions) -> Write<'a> {
    Write {
        user: &request.user,
        group: view.served.group,
        namespace: namespace(view, request),
        name: &request.info.name,
        subresource: &request.info.subresource,
        dry_run: options.dry_run,
        warnings: &request.warnings,
        fields: None,
    }
}

pub(super) async fn one(
    store: &Arc<Store>,
    view: View,
    request: &mut RequestContext,
) -> Result<Response<Body>, Status> {
    let accepted = negotiate::output(&request.headers, &request.query, Offer::Objects)?;
    let options = options(request).await?;
    warn_of_orphans(view, &options, request);
    let deleted = store
        .delete(&write(view, request, &options), &options)
        .await?;
    let code = if !deleted.gone && options.orphan_dependents == Some(false) {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    // What now waits for something is shown; so is what its kind always shows.
    if deleted.marked || store.strategy.returns_deleted() {
        return respond(view, request, &accepted, code, deleted.object);
    }
    let mut answer = store.deleted_status(&deleted.object);
    answer.details_mut().group = view.served.group.to_owned();
    Ok(status(request, &accepted, answer, code))
}

/// Who deletes Jobs without a word about their pods may not know that these stay.
fn warn_of_orphans(view: View, options: &DeleteOptions, request: &RequestContext) {
    if view.stored.group == "batch"
        && view.stored.plural == "jobs"
        && options.propagation.is_none()
        && options.orphan_dependents.is_none()
    {
        request.warnings.add(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
        );
    }
}

fn status(
    request: &RequestContext,
    accepted: &Accepted,
    status: Status,
    code: StatusCode,
) -> Response<Body> {
    let mut response = body::status(&status, &request.headers, accepted.pretty);
    *response.status_mut() = code;
    response
}

pub(super) async fn collection(
    store: &Arc<Store>,
    view: View,
    request: &mut RequestContext,
) -> Result<Response<Body>, Status> {
    let accepted = negotiate::output(&request.headers, &request.query, Offer::Objects)?;
    let list = ListOptions::from_query(&request.query, false)?;
    let options = options(request).await?;
    warn_of_orphans(view, &options, request);
    let selection = store.select(
        view.served,
        namespace(view, request),
        &request.info.name,
        &list,
    )?;
    let listed = store.list(&selection, &list).await?;
    let keys = listed
        .list
        .objects
        .iter()
        .map(|o| (o.namespace().to_owned(), o.name().to_owned()))
        .collect();
    let write = write(view, request, &options);
    store.delete_collection(&write, &options, keys).await?;
    let meta = read::meta_of(&listed);
    let shape = read::shape(&accepted, request, true)?;
    let bytes = read::many(view, &listed.list.objects, &meta, shape, &accepted)?;
    Ok(body::bytes(
        StatusCode::OK,
        accepted.media.name(),
        bytes,
        &request.headers,
    ))
}
