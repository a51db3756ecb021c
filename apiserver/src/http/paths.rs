//! Paths that name no resource: health, version, metrics, what other rooms mount
//! (discovery, OpenAPI), and at `/` the list of them all.

use std::collections::BTreeSet;
use std::sync::Arc;

use component::aside::aside;
use component::metrics::Slis;
use component::zpages::ZPages;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::body::{self, Body};
use super::chain::Paths;
use super::context::RequestContext;
use super::negotiate;
use crate::health::Health;

/// The paths of one room.
pub struct Mount {
    /// As the list at `/` has them.
    pub paths: Vec<String>,
    /// Answers; `None` for paths that are not the room's own.
    pub serve: Box<Serve>,
}

type Serve = dyn Fn(&RequestContext) -> Option<Response<Body>> + Send + Sync;

/// Everything that is served beside resources.
pub struct NonResource {
    pub health: Health,
    pub metrics: Arc<component::metrics::Registry>,
    pub slis: Slis,
    pub pages: ZPages,
    pub mounts: Vec<Mount>,
}

impl NonResource {
    /// Every path, sorted (`metav1.RootPaths`).
    fn index(&self) -> Value {
        let health = [
            ("/healthz", &self.health.healthz),
            ("/livez", &self.health.livez),
            ("/readyz", &self.health.readyz),
        ];
        let mut paths: BTreeSet<String> = [
            "/flagz",
            "/metrics",
            "/metrics/slis",
            "/statusz",
            "/version",
        ]
        .map(str::to_owned)
        .into();
        for (path, checks) in health {
            paths.insert(path.to_owned());
            paths.extend(checks.names().iter().map(|name| format!("{path}/{name}")));
        }
        paths.extend(self.mounts.iter().flat_map(|mount| mount.paths.clone()));
        json!({"paths": paths})
    }

    fn health(&self, request: &RequestContext) -> Option<Response<Body>> {
        let path = request.info.path.as_str();
        let first = path.trim_start_matches('/').split('/').next()?;
        let checks = match first {
            "healthz" => &self.health.healthz,
            "livez" => &self.health.livez,
            "readyz" => &self.health.readyz,
            _ => return None,
        };
        let query = request.uri.query().unwrap_or_default();
        let response = checks.respond(first, path, query);
        Some(response.map(body::full))
    }
}

fn accept(request: &RequestContext) -> &str {
    let accept = request.headers.get(http::header::ACCEPT);
    accept.and_then(|a| a.to_str().ok()).unwrap_or_default()
}

impl Paths for NonResource {
    fn serve(&self, request: &RequestContext) -> Option<Response<Body>> {
        if let Some(response) = self.health(request) {
            return Some(response);
        }
        match request.info.path.as_str() {
            "/version" | "/version/" if request.method == Method::GET => {
                if let Err(status) = negotiate::json_only(&request.headers) {
                    return Some(body::status(&status, &request.headers, false));
                }
                let info =
                    serde_json::to_vec_pretty(&component::version::INFO).expect("strings are JSON");
                Some(body::bytes(
                    StatusCode::OK,
                    "application/json",
                    info.into(),
                    &request.headers,
                ))
            }
            "/" | "" => {
                let index = serde_json::to_vec_pretty(&self.index()).expect("strings are JSON");
                Some(body::bytes(
                    StatusCode::OK,
                    "application/json",
                    index.into(),
                    &request.headers,
                ))
            }
            "/statusz" => {
                let page = self.pages.statusz(accept(request), jiff::Timestamp::now());
                Some(page.map(body::full))
            }
            "/flagz" => {
                let page = self.pages.flagz(accept(request));
                Some(page.map(body::full))
            }
            "/metrics" | "/metrics/slis" => {
                let (text, content_type) = match request.info.path.as_str() {
                    "/metrics" => self.metrics.render(),
                    _ => self.slis.render(),
                };
                Some(body::bytes(
                    StatusCode::OK,
                    content_type,
                    text.into(),
                    &request.headers,
                ))
            }
            path => {
                // The API's description is megabytes, made when somebody asks for it.
                let is_long = path.starts_with("/openapi/");
                let mut mounts = self.mounts.iter();
                aside(is_long, || mounts.find_map(|mount| (mount.serve)(request)))
            }
        }
    }
}
