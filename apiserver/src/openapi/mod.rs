//! OpenAPI: what the API looks like, for kubectl's `explain`, `apply` and `diff` and for
//! every other generic client. Rendered from the schema on request and kept by nobody:
//! clients keep it, under the hash that the index and the ETag carry.
//!
//! What must not be here: facts about kinds (the schema), which are served (`discovery/`).

mod descriptions;
mod gnostic;
mod models;
mod operations;
mod parameters;
mod v2;
mod v3;
mod writer;

use std::collections::HashMap;

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use crate::authn::oidc_discovery;
use crate::discovery::Version;
use operations::{Answer, Operation, PathItem};

const JSON: &str = "application/json";
const V2_PROTO: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// Not a valid media type, but what kubectl has always asked for.
const V2_PROTO_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V3_PROTO: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
/// As [`V2_PROTO_OLD`].
const V3_PROTO_OLD: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Answers requests for OpenAPI documents.
pub struct OpenApi {
    versions: Vec<Version>,
    /// Hashes of the documents rendered so far, by name: all that is kept of them.
    tags: Mutex<HashMap<String, String>>,
    now: fn() -> Timestamp,
}

/// A v3 document, by what follows `/openapi/v3/` in its path.
enum Document<'a> {
    Core,
    Groups,
    Group(&'static str),
    Version(&'a Version),
    Plain(fn() -> PathItem),
}

fn version_info() -> PathItem {
    operations::single(
        "/version/",
        "getCodeVersion".into(),
        "version".into(),
        "get the version information for this server",
        Answer::Model("io.k8s.apimachinery.pkg.version.Info"),
        &[JSON],
        &[JSON],
    )
}

fn key_set() -> PathItem {
    operations::single(
        "/openid/v1/jwks/",
        "getServiceAccountIssuerOpenIDKeyset".into(),
        "openid".into(),
        "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        Answer::Text,
        &[],
        &[oidc_discovery::JWKS_TYPE],
    )
}

fn issuer() -> PathItem {
    operations::single(
        "/.well-known/openid-configuration/",
        "getServiceAccountIssuerOpenIDConfiguration".into(),
        "WellKnown".into(),
        "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
        Answer::Text,
        &[],
        &[JSON],
    )
}

/// Makes the description of one path.
type Describe = fn() -> PathItem;

const PLAIN: [(&str, Describe); 3] = [
    (".well-known/openid-configuration", issuer),
    ("openid/v1/jwks", key_set),
    ("version", version_info),
];

impl Document<'_> {
    fn render<S: v3::Sink>(&self) -> Vec<u8> {
        let (paths, version) = match self {
            Document::Core => (vec![operations::document("/api/", Some(""), None)], None),
            Document::Groups => (vec![operations::document("/apis/", None, None)], None),
            Document::Group(group) => {
                let path = format!("/apis/{group}/");
                (vec![operations::document(&path, Some(group), None)], None)
            }
            Document::Version(version) => (
                operations::of_version(version),
                Some((version.group, version.version)),
            ),
            Document::Plain(path) => (vec![path()], None),
        };
        v3::render::<S>(&paths, version)
    }
}

impl OpenApi {
    pub fn new(versions: Vec<Version>, now: fn() -> Timestamp) -> Self {
        Self {
            versions,
            tags: Mutex::default(),
            now,
        }
    }

    /// The answer to a GET; `None` when the path is none of ours.
    pub fn get(&self, path: &str, query: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
        match path {
            "/openapi/v2" => Some(self.v2(headers)),
            "/openapi/v3" | "/openapi/v3/" => Some(self.index(headers)),
            _ => {
                let name = path.strip_prefix("/openapi/v3/")?;
                let document = self.document(name)?;
                Some(self.v3(name, document, query, headers))
            }
        }
    }

    fn groups(&self) -> impl Iterator<Item = &'static str> {
        let mut groups: Vec<&'static str> = self.versions.iter().map(|v| v.group).collect();
        groups.dedup();
        groups.into_iter().filter(|group| !group.is_empty())
    }

    fn document(&self, name: &str) -> Option<Document<'_>> {
        if let Some((_, paths)) = PLAIN.iter().find(|(plain, _)| *plain == name) {
            return Some(Document::Plain(*paths));
        }
        let find = |group: &str, version: &str| {
            let mut all = self.versions.iter();
            all.find(|v| v.group == group && v.version == version)
        };
        match name.split('/').collect::<Vec<_>>()[..] {
            ["api"] => Some(Document::Core),
            ["apis"] => Some(Document::Groups),
            ["api", version] => find("", version).map(Document::Version),
            ["apis", group] => self.groups().find(|g| *g == group).map(Document::Group),
            ["apis", group, version] if !group.is_empty() => {
                find(group, version).map(Document::Version)
            }
            _ => None,
        }
    }

    /// The hash of a document, which is rendered for it the first time.
    fn tag(&self, name: &str, render: impl FnOnce() -> Vec<u8>) -> String {
        if let Some(tag) = self.tags.lock().get(name) {
            return tag.clone();
        }
        let tag = hex(&Sha512::digest(render()));
        self.tags.lock().insert(name.to_owned(), tag.clone());
        tag
    }

    fn index(&self, headers: &HeaderMap) -> Response<Bytes> {
        let mut names: Vec<String> = PLAIN.iter().map(|(name, _)| (*name).to_owned()).collect();
        names.extend(["api".to_owned(), "apis".to_owned()]);
        names.extend(self.groups().map(|group| format!("apis/{group}")));
        names.extend(self.versions.iter().map(|v| match v.group {
            "" => format!("api/{}", v.version),
            group => format!("apis/{group}/{}", v.version),
        }));
        let paths: Map<String, Value> = names
            .into_iter()
            .filter_map(|name| {
                let document = self.document(&name)?;
                let tag = self.tag(&name, || document.render::<writer::JsonV3>());
                let url = url(&name, &tag);
                Some((name, json!({"serverRelativeURL": url})))
            })
            .collect();
        let body = json!({"paths": paths}).to_string().into_bytes();
        let tag = hex(&Sha512::digest(&body));
        not_modified(&tag, headers).unwrap_or_else(|| content(JSON, &tag, body))
    }

    fn v3(
        &self,
        name: &str,
        document: Document<'_>,
        query: &str,
        headers: &HeaderMap,
    ) -> Response<Bytes> {
        let Some(media) = accepted(headers, &[JSON, V3_PROTO_OLD, V3_PROTO]) else {
            return status(StatusCode::NOT_ACCEPTABLE);
        };
        // Both forms carry the hash of the JSON, as the index has it.
        let json = || document.render::<writer::JsonV3>();
        let mut rendered = None;
        let tag = self.tag(name, || rendered.insert(json()).clone());
        let asked = query.split('&').find_map(|p| p.strip_prefix("hash="));
        let asked = asked.filter(|hash| !hash.is_empty());
        if asked.is_some_and(|hash| hash != tag) {
            let mut response = status(StatusCode::MOVED_PERMANENTLY);
            if let Ok(url) = HeaderValue::from_str(&url(name, &tag)) {
                response.headers_mut().insert(LOCATION, url);
            }
            return response;
        }
        let mut response = not_modified(&tag, headers).unwrap_or_else(|| match media {
            JSON => content(JSON, &tag, rendered.unwrap_or_else(json)),
            _ => content(V3_PROTO, &tag, document.render::<gnostic::v3::ProtoSink>()),
        });
        if asked.is_some() {
            let out = response.headers_mut();
            out.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            let expires = ((self.now)() + YEAR)
                .strftime("%a, %d %b %Y %H:%M:%S UTC")
                .to_string();
            if let Ok(expires) = HeaderValue::from_str(&expires) {
                out.insert(EXPIRES, expires);
            }
        }
        response
    }

    fn v2(&self, headers: &HeaderMap) -> Response<Bytes> {
        let offers = [JSON, V2_PROTO_OLD, V2_PROTO];
        let Some(media) = accepted(headers, &offers) else {
            return status(StatusCode::NOT_ACCEPTABLE);
        };
        let mut rendered = None;
        let render = || self.render_v2(media);
        let tag = self.tag(media, || rendered.insert(render()).clone());
        let media = if media == JSON { JSON } else { V2_PROTO };
        not_modified(&tag, headers)
            .unwrap_or_else(|| content(media, &tag, rendered.unwrap_or_else(render)))
    }

    fn render_v2(&self, media: &str) -> Vec<u8> {
        if media == JSON {
            let mut sink = writer::JsonV2::default();
            self.write_v2(&mut sink);
            sink.finish()
        } else {
            let mut sink = gnostic::v2::ProtoSink::default();
            self.write_v2(&mut sink);
            sink.finish()
        }
    }

    fn write_v2(&self, sink: &mut impl v2::Sink) {
        let documents = [
            operations::document("/api/", Some(""), None),
            operations::document("/apis/", None, None),
        ];
        let groups = self
            .groups()
            .map(|group| operations::document(&format!("/apis/{group}/"), Some(group), None));
        let resources = self.versions.iter().flat_map(operations::of_version);
        let plain = PLAIN.iter().map(|(_, path)| path());
        let all = documents
            .into_iter()
            .chain(groups)
            .chain(resources)
            .chain(plain);
        v2::render(all, sink);
    }
}

fn url(name: &str, tag: &str) -> String {
    format!("/openapi/v3/{name}?hash={tag}")
}

fn info() -> Value {
    let version = format!(
        "{}.{}",
        component::version::MAJOR,
        component::version::MINOR
    );
    json!({"title": "Kubernetes", "version": version})
}

fn security_schemes() -> Value {
    json!({"BearerToken": {
        "type": "apiKey",
        "name": "authorization",
        "in": "header",
        "description": "Bearer Token authentication",
    }})
}

/// What an operation does to which kind.
fn extend(out: &mut Value, operation: &Operation) {
    if let Some((action, kind)) = &operation.action {
        out["x-kubernetes-action"] = (*action).into();
        out["x-kubernetes-group-version-kind"] = json!({
            "group": kind.group,
            "kind": kind.kind,
            "version": kind.version,
        });
    }
}

/// The first of the client's choices that is offered.
fn accepted(headers: &HeaderMap, offers: &[&'static str]) -> Option<&'static str> {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok());
    let accept = accept.filter(|a| !a.is_empty()).unwrap_or("*/*");
    let mut clauses: Vec<(&str, f32)> = accept
        .split(',')
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let quality = parts.find_map(|p| p.strip_prefix("q="));
            (media, quality.and_then(|q| q.parse().ok()).unwrap_or(1.0))
        })
        .collect();
    clauses.sort_by(|a, b| b.1.total_cmp(&a.1));
    clauses.iter().find_map(|(media, _)| {
        offers
            .iter()
            .find(|offer| matches!(*media, "*/*" | "application/*") || **offer == *media)
            .copied()
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02X}");
        out
    })
}

fn status(code: StatusCode) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = code;
    response
}

fn tagged(mut response: Response<Bytes>, tag: &str) -> Response<Bytes> {
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        headers.insert(ETAG, tag);
    }
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn not_modified(tag: &str, headers: &HeaderMap) -> Option<Response<Bytes>> {
    let known = headers.get(IF_NONE_MATCH)?.to_str().ok()?;
    let same = known.split(',').any(|t| t.trim().trim_matches('"') == tag);
    same.then(|| tagged(status(StatusCode::NOT_MODIFIED), tag))
}

fn content(media: &'static str, tag: &str, body: Vec<u8>) -> Response<Bytes> {
    let mut response = tagged(Response::new(body.into()), tag);
    let media = HeaderValue::from_static(media);
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

#[cfg(test)]
mod tests;
