//! The API's verbs over HTTP: finds the endpoint that a path names and lets the registry
//! do what the verb says.
//!
//! What must not be here: what happens to objects (`registry/`), the filters before it.

mod body;
pub mod computed;
mod connect;
mod delete;
mod deprecated;
mod patch;
mod pieces;
mod read;
mod rest;
pub mod table;
mod watch;
mod write;

pub use read::meta_version;
pub use watch::FanOut;

use std::collections::HashMap;
use std::sync::Arc;

use component::aside::{Aside, LONG};
use futures::future::BoxFuture;
use http::{Method, Response};
use meta::{GroupResource, Status};
use schema::{Resource, Subresource};

use super::body::Body;
use super::chain::Chain;
use super::context::RequestContext;
use super::encode::View;
use crate::registry::rest::Rest;
use crate::registry::store::Store;

/// Requests that become a stream or a tunnel to somewhere else: `log`, `exec`, `proxy`, …
pub trait Connect: Send + Sync + 'static {
    fn connect<'a>(
        &'a self,
        request: &'a mut RequestContext,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>>;
}

/// Endpoints beyond stored objects, by group, plural and subresource.
/// Filled by the composition.
#[derive(Default)]
pub struct Endpoints {
    pub rest: HashMap<(&'static str, &'static str, &'static str), Arc<dyn Rest>>,
    pub connect: HashMap<(&'static str, &'static str, &'static str), Arc<dyn Connect>>,
}

/// What a resource path leads to.
pub(super) enum Endpoint {
    /// A stored resource, or a subresource that writes a part of it.
    Stored {
        store: Arc<Store>,
        view: View,
    },
    Rest {
        rest: Arc<dyn Rest>,
        /// The kind that is spoken: group, version, kind.
        speaks: (&'static str, &'static str, &'static str),
    },
    Connect(Arc<dyn Connect>),
}

/// Finds the endpoint and checks that it knows the method.
pub(super) fn find(
    chain: &Chain,
    request: &RequestContext,
) -> Result<(&'static Resource, Endpoint), Status> {
    let info = &request.info;
    let resource = chain
        .registry
        .resource(&info.group, &info.version, &info.resource)
        .filter(|r| r.namespaced || info.namespace.is_empty() || r.plural == "namespaces")
        .ok_or_else(Status::path_not_found)?;
    // Upstream has no such paths any more.
    if info.verb == "proxy" || (info.parts.len() > 3 && info.subresource != "proxy") {
        return Err(Status::path_not_found());
    }
    // Across all namespaces objects can be listed and watched, and nothing else.
    if resource.namespaced && info.namespace.is_empty() {
        if info.parts.len() > 1 || !resource.verbs.contains(&"list") {
            return Err(Status::path_not_found());
        }
        if !lists(info) {
            return Err(method_not_allowed());
        }
    }
    let subresource = match info.subresource.as_str() {
        "" => None,
        name => Some(
            resource
                .subresources
                .iter()
                .find(|s| s.name == name)
                .ok_or_else(Status::path_not_found)?,
        ),
    };
    let key: (&str, &str, &str) = (resource.group, resource.plural, &info.subresource);
    let connect = chain.endpoints.connect.get(&key);
    if let Some(connect) = connect.filter(|_| subresource.is_some()) {
        return Ok((resource, Endpoint::Connect(connect.clone())));
    }
    check_verb(resource, subresource, request)?;
    if let Some(deprecation) = deprecated::find(resource) {
        request.warnings.add(deprecation.warning(resource));
        let subresource = subresource.map_or("", |s| s.name);
        let removed = deprecation.removed();
        chain.metrics.deprecated(resource, subresource, removed);
    }
    if let Some(connect) = connect {
        return Ok((resource, Endpoint::Connect(connect.clone())));
    }
    if let Some(rest) = chain.endpoints.rest.get(&key).cloned() {
        let speaks = subresource.map_or((resource.group, resource.version, resource.kind), |s| {
            (s.group, s.version, s.kind)
        });
        return Ok((resource, Endpoint::Rest { rest, speaks }));
    }
    if subresource.is_some_and(|s| s.kind != resource.kind) {
        return Err(Status::path_not_found());
    }
    let problems = meta::validation::path_segment_name(&info.name);
    if !info.name.is_empty() && !problems.is_empty() {
        return Err(Status::bad_request(format!(
            "Name parameter invalid: {:?}: {}",
            info.name,
            problems.join(";")
        )));
    }
    let store = chain
        .registry
        .store_of(resource)
        .cloned()
        .ok_or_else(Status::path_not_found)?;
    let view = View {
        stored: store.resource,
        served: resource,
    };
    Ok((resource, Endpoint::Stored { store, view }))
}

fn lists(info: &super::request_info::RequestInfo) -> bool {
    matches!(info.verb.as_str(), "list" | "watch")
}

fn check_verb(
    resource: &'static Resource,
    subresource: Option<&'static Subresource>,
    request: &RequestContext,
) -> Result<(), Status> {
    let info = &request.info;
    let verb = match info.verb.as_str() {
        // The legacy path of a watch.
        "watch" if info.verb_in_path && request.method != Method::GET => "",
        verb => verb,
    };
    let verbs = subresource.map_or(resource.verbs, |s| s.verbs);
    // What is created has no name yet in its path, what is written over has one.
    let named = info.parts.len() > 1;
    // Of what is only created no path leads to one.
    let is_kept = |verb: &&&str| matches!(**verb, "get" | "update" | "patch" | "delete");
    if named && subresource.is_none() && verbs.iter().find(is_kept).is_none() {
        return Err(Status::path_not_found());
    }
    let misplaced = match verb {
        "create" => named && subresource.is_none(),
        "update" | "patch" => !named,
        _ => request.method == Method::HEAD,
    };
    if verbs.contains(&verb) && !misplaced {
        return Ok(());
    }
    Err(method_not_allowed())
}

/// 405 as the router says it.
pub fn method_not_allowed() -> Status {
    let mut status = Status::path_not_found();
    status.code = 405;
    status.reason = meta::Reason::MethodNotAllowed;
    status.message = "the server does not allow this method on the requested resource".to_owned();
    status
}

/// Serves a resource request.
pub async fn serve(chain: &Chain, request: &mut RequestContext) -> Result<Response<Body>, Status> {
    let (resource, endpoint) = find(chain, request)?;
    match endpoint {
        Endpoint::Connect(connect) => {
            connect::admit(chain, resource, request).await?;
            connect.connect(request).await
        }
        Endpoint::Rest { rest: it, speaks } => {
            let is_long = request.is_long().await;
            Aside::new(rest::answer(resource, &*it, speaks, request), is_long).await
        }
        Endpoint::Stored { store, view } => {
            let info = &request.info;
            let size = store.size_of(&info.namespace, &info.name);
            let is_long = request.is_long().await || size.is_some_and(|size| size > LONG);
            Aside::new(stored(chain, &store, view, request), is_long)
                .await
                .map_err(|status| as_asked(view, status))
        }
    }
}

async fn stored(
    chain: &Chain,
    store: &Arc<Store>,
    view: View,
    request: &mut RequestContext,
) -> Result<Response<Body>, Status> {
    match request.info.verb.as_str() {
        "get" => read::get(store, view, request).await,
        "list" => read::list(store, view, request).await,
        "watch" => watch::watch(chain, store, view, request).await,
        "create" => write::create(store, view, request).await,
        "update" => write::update(chain, store, view, request).await,
        "patch" => patch::patch(chain, store, view, request).await,
        "delete" => delete::one(store, view, request).await,
        "deletecollection" => delete::collection(store, view, request).await,
        _ => Err(method_not_allowed()),
    }
}

/// A refusal speaks of the resource that was asked for: events are of two groups.
fn as_asked(view: View, mut status: Status) -> Status {
    let (stored, served) = (view.stored, view.served);
    let Some(details) = &mut status.details else {
        return status;
    };
    let spoken = (details.group.as_str(), details.kind.as_str());
    if stored.group == served.group || spoken != (stored.group, stored.plural) {
        return status;
    }
    details.group = served.group.to_owned();
    let named = |of: &Resource| {
        let resource = GroupResource::new(of.group, of.plural);
        format!("{resource} {:?}", details.name)
    };
    status.message = status.message.replacen(&named(stored), &named(served), 1);
    status
}
