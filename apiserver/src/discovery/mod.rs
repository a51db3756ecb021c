//! Discovery: what the server serves, at `/api` and `/apis`, one by one or aggregated.
//!
//! [`served`] decides what is served, `documents.rs` describes it; this file answers
//! requests for it.
//! What must not be here: the schema's facts, OpenAPI (`openapi/`).

mod documents;
mod served;

use std::net::IpAddr;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use meta::Status;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::http::negotiate::{self, Media};
pub use served::{Version, served};

const AGGREGATED_GROUP: &str = "apidiscovery.k8s.io";
const AGGREGATED_VERSION: &str = "v2";
const AGGREGATED_KIND: &str = "APIGroupDiscoveryList";
const AGGREGATED_MODEL: &str = "io.k8s.api.apidiscovery.v2.APIGroupDiscoveryList";
const META_MODEL: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// Where clients reach the server.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// `host:port` for everyone.
    pub external: String,
    /// For clients inside a range (the services' network): the range and `host:port`.
    pub internal: Vec<(ipnet::IpNet, String)>,
}

impl Addresses {
    fn for_client(&self, client: IpAddr) -> Value {
        let internal = self
            .internal
            .iter()
            .filter(|(net, _)| net.contains(&client));
        std::iter::once(("0.0.0.0/0".to_owned(), &self.external))
            .chain(internal.map(|(net, address)| (net.to_string(), address)))
            .map(|(cidr, address)| json!({"clientCIDR": cidr, "serverAddress": address}))
            .collect()
    }
}

/// Answers requests for discovery documents.
pub struct Discovery {
    versions: Vec<Version>,
    addresses: Addresses,
    /// ETags of the aggregated documents, of the core group and of the others.
    tags: [OnceLock<String>; 2],
}

impl Discovery {
    pub fn new(versions: Vec<Version>, addresses: Addresses) -> Self {
        Self {
            versions,
            addresses,
            tags: Default::default(),
        }
    }

    /// The paths that have a document.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec!["/api".to_owned(), "/apis".to_owned(), "/apis/".to_owned()];
        for version in &self.versions {
            if version.group.is_empty() {
                paths.push(format!("/api/{}", version.version));
            } else {
                paths.push(format!("/apis/{}", version.group));
                paths.push(format!("/apis/{}/{}", version.group, version.version));
            }
        }
        paths
    }

    /// The answer to a GET; `None` when the path is no discovery document (it may still be
    /// a resource).
    pub fn get(
        &self,
        path: &str,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Option<Result<Response<Bytes>, Status>> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let find = |group: &str, version: &str| {
            self.versions
                .iter()
                .find(|v| v.group == group && v.version == version)
        };
        let (api_version, kind, tree) = match parts.as_slice() {
            ["api"] | ["apis"] => {
                let core = parts[0] == "api";
                if let Some(media) = wants_aggregated(headers) {
                    return Some(self.aggregated(core, media, headers));
                }
                if core {
                    let addresses = self.addresses.for_client(client);
                    let tree = json!({"versions": ["v1"], "serverAddressByClientCIDRs": addresses});
                    // Without an API version since release 1.1, and so forever.
                    ("", "APIVersions", tree)
                } else {
                    ("v1", "APIGroupList", documents::group_list(&self.versions))
                }
            }
            ["api", version] => {
                let tree = documents::resource_list(find("", version)?);
                ("", "APIResourceList", tree)
            }
            ["apis", group] if !group.is_empty() => {
                let tree = documents::api_group(&self.versions, group)?;
                ("v1", "APIGroup", tree)
            }
            ["apis", group, version] if !group.is_empty() => {
                let tree = documents::resource_list(find(group, version)?);
                ("v1", "APIResourceList", tree)
            }
            _ => return None,
        };
        Some(plain(api_version, kind, tree, headers))
    }

    fn aggregated(
        &self,
        core: bool,
        media: Media,
        headers: &HeaderMap,
    ) -> Result<Response<Bytes>, Status> {
        let render = || documents::aggregated(&self.versions, core);
        let mut rendered = None;
        let tag = self.tags[usize::from(core)].get_or_init(|| {
            let tree = rendered.insert(render());
            match encode(AGGREGATED_MODEL, "", "", tree.clone(), Media::Json) {
                Ok(json) => quoted_hash(&json),
                Err(error) => {
                    tracing::error!(message = error.message, "discovery has no ETag");
                    String::new()
                }
            }
        });
        let mut response = Response::new(Bytes::new());
        let out = response.headers_mut();
        if let Ok(tag) = HeaderValue::from_str(tag) {
            out.insert(ETAG, tag);
        }
        out.insert(VARY, HeaderValue::from_static("Accept"));
        out.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
        if headers
            .get(IF_NONE_MATCH)
            .is_some_and(|known| known == tag.as_str())
        {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        let content_type = format!(
            "{};g={AGGREGATED_GROUP};v={AGGREGATED_VERSION};as={AGGREGATED_KIND}",
            media.name()
        );
        if let Ok(content_type) = HeaderValue::from_str(&content_type) {
            out.insert(CONTENT_TYPE, content_type);
        }
        let tree = rendered.unwrap_or_else(render);
        let api_version = format!("{AGGREGATED_GROUP}/{AGGREGATED_VERSION}");
        let body = encode(AGGREGATED_MODEL, &api_version, AGGREGATED_KIND, tree, media)?;
        *response.body_mut() = body.into();
        Ok(response)
    }
}

/// The form in which the client wants all of it at once; `None`: one by one.
fn wants_aggregated(headers: &HeaderMap) -> Option<Media> {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok())?;
    let accepted = negotiate::accept(accept, |_, convert| {
        convert.is_none_or(|c| {
            (c.group.as_str(), c.version.as_str(), c.kind.as_str())
                == (AGGREGATED_GROUP, AGGREGATED_VERSION, AGGREGATED_KIND)
        })
    })?;
    accepted.convert.map(|_| accepted.media)
}

fn quoted_hash(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut out = String::from("\"");
    for byte in Sha512::digest(bytes) {
        let _ = write!(out, "{byte:02X}");
    }
    out.push('"');
    out
}

fn plain(
    api_version: &str,
    kind: &str,
    tree: Value,
    headers: &HeaderMap,
) -> Result<Response<Bytes>, Status> {
    let accept = headers.get(ACCEPT).and_then(|v| v.to_str().ok());
    let accepted = negotiate::accept(accept.unwrap_or_default(), |_, c| c.is_none())
        .ok_or_else(|| Status::not_acceptable(&Media::ALL.map(Media::name)))?;
    let model = format!("{META_MODEL}.{kind}");
    let body = encode(&model, api_version, kind, tree, accepted.media)?;
    let mut response = Response::new(body.into());
    let content_type = HeaderValue::from_static(accepted.media.name());
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// A document in a wire form, by its message's OpenAPI model name. `api_version` and `kind`
/// are left out where they are empty.
fn encode(
    model: &str,
    api_version: &str,
    kind: &str,
    mut tree: Value,
    media: Media,
) -> Result<Vec<u8>, Status> {
    let message = schema::message(model)
        .ok_or_else(|| Status::internal(format!("the schema has no message {model}")))?;
    let mut out = Vec::new();
    if media == Media::Protobuf {
        codec::tree::to_proto(message, &tree, &mut out).map_err(Status::internal)?;
        return Ok(codec::envelope::encode(api_version, kind, &out));
    }
    for (key, value) in [("kind", kind), ("apiVersion", api_version)] {
        if !value.is_empty() {
            tree[key] = value.into();
        }
    }
    codec::tree::to_json(message, &tree, &mut out).map_err(Status::internal)?;
    if media == Media::Yaml {
        let value: Value = serde_json::from_slice(&out).map_err(Status::internal)?;
        let mut yaml = Vec::new();
        codec::write_yaml(&value, &mut yaml);
        return Ok(yaml);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
