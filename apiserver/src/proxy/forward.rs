//! `nodes/proxy`, `pods/proxy` and `services/proxy`: HTTP to whatever listens there.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use meta::{GroupResource, Status};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::backend::{Backend, Outgoing, wants_upgrade};
use super::kubelet::Kubelets;
use super::links::Links;
use super::tls::{ClientTls, Files};
use crate::http::body::Body;
use crate::http::context::RequestContext;
use crate::http::verbs::Connect;
use crate::registry::store::Store;
use crate::storage::cache::{At, ListQuery, Selector};

pub struct NodeProxy {
    pub kubelets: Arc<Kubelets>,
}

pub struct PodProxy {
    pub pods: Arc<Store>,
}

pub struct ServiceProxy {
    pub services: Arc<Store>,
    pub slices: Arc<Store>,
}

/// `[<scheme>:]<name>[:<port>]`, as the name part of a proxy path may be.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Address<'a> {
    fn parse(text: &'a str) -> Option<Address<'a>> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        matches!(scheme, "" | "http" | "https").then_some(Address {
            https: scheme == "https",
            name,
            port,
        })
    }
}

// The parts of a path are decoded: what would not be a path must be encoded again.
const UNSAFE: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<');
const ENCODED: &AsciiSet = &UNSAFE.add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');

/// The path behind `…/proxy`: nothing, or what begins with a slash.
fn rest(request: &RequestContext) -> String {
    let parts = &request.info.parts;
    // `/proxy/` as a verb in the path has no subresource between name and rest.
    let skip = if request.info.verb == "proxy" { 2 } else { 3 };
    let joined = parts.get(skip..).unwrap_or_default().join("/");
    let slash = if request.info.path.ends_with('/') {
        "/"
    } else {
        ""
    };
    match joined.as_str() {
        "" => slash.to_owned(),
        joined => format!("/{joined}{slash}"),
    }
}

fn encoded(path: &str) -> String {
    utf8_percent_encode(path, ENCODED).to_string()
}

/// Whom the client asks.
fn host(request: &RequestContext) -> Option<HeaderValue> {
    let authority = request.uri.authority();
    authority
        .and_then(|authority| HeaderValue::from_str(authority.as_str()).ok())
        .or_else(|| request.headers.get(header::HOST).cloned())
}

/// Pages name their links from the root, so a place's root must end with a slash.
fn to_the_root(request: &RequestContext) -> Response<Body> {
    let query = request.uri.query().map(|query| format!("?{query}"));
    let location = format!(
        "{}/{}",
        encoded(&request.info.path),
        query.unwrap_or_default()
    );
    let mut response = Response::new(crate::http::body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

async fn forward(backend: Backend, request: &mut RequestContext) -> Result<Response<Body>, Status> {
    let rest = rest(request);
    let path = &request.info.path;
    let upgrades = request.upgrade.is_some() && wants_upgrade(&request.headers);
    if rest.is_empty() && !upgrades && matches!(request.method, Method::GET | Method::HEAD) {
        return Ok(to_the_root(request));
    }
    let prefix = path.strip_suffix(rest.as_str()).unwrap_or(path).to_owned();
    let host = host(request);
    let links = Links {
        prefix,
        backend: backend.authority(),
        host: host
            .as_ref()
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
    };
    let forwarded_uri = HeaderValue::from_str(&encoded(path));
    let mut target = encoded(if rest.is_empty() { "/" } else { &rest });
    if let Some(query) = request.uri.query() {
        target = format!("{target}?{query}");
    }
    let mut headers = std::mem::take(&mut request.headers);
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    if let Ok(uri) = forwarded_uri {
        headers.insert(HeaderName::from_static("x-forwarded-uri"), uri);
    }
    let forwarded = HeaderName::from_static("x-forwarded-for");
    if let Ok(peer) = HeaderValue::from_str(&request.peer.to_string()) {
        headers.append(forwarded, peer);
    }
    let outgoing = Outgoing {
        method: request.method.clone(),
        target,
        headers,
        body: request.body.take(),
        upgrade: request.upgrade.take(),
    };
    let response = backend.send(outgoing).await?;
    Ok(match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => response,
        _ => links.lead(response),
    })
}

impl Connect for NodeProxy {
    fn connect<'a>(
        &'a self,
        request: &'a mut RequestContext,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>> {
        Box::pin(async move {
            let name = request.info.name.clone();
            let invalid = || Status::bad_request(format!("invalid node request {name:?}"));
            let address = Address::parse(&name).ok_or_else(invalid)?;
            let mut backend = self.kubelets.of(address.name).await?.backend;
            let host = (backend.host.as_str(), backend.port);
            let found = tokio::net::lookup_host(host).await;
            let found: Vec<IpAddr> = found
                .map_err(|e| Status::bad_request(e.to_string()))?
                .map(|found| found.ip())
                .collect();
            if found.is_empty() {
                return Err(Status::bad_request("no addresses for hostname"));
            }
            if !found.into_iter().all(is_allowed) {
                return Err(not_allowed());
            }
            if !address.port.is_empty() {
                let port: u16 = address.port.parse().map_err(|_| invalid())?;
                if port != backend.port {
                    backend.port = port;
                    backend.tls = backend.tls.filter(|_| address.https);
                }
            }
            forward(backend, request).await
        })
    }
}

impl Connect for PodProxy {
    fn connect<'a>(
        &'a self,
        request: &'a mut RequestContext,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>> {
        Box::pin(async move {
            let name = request.info.name.clone();
            let invalid = || Status::bad_request(format!("invalid pod request {name:?}"));
            let address = Address::parse(&name).ok_or_else(invalid)?;
            let pod = self
                .pods
                .get_tree(&request.info.namespace, address.name)
                .await?;
            let host = pod["status"]["podIP"].as_str().unwrap_or_default();
            if !host.parse().is_ok_and(is_allowed) {
                return Err(not_allowed());
            }
            let port: u16 = match address.port {
                "" => first_port(&pod).unwrap_or(if address.https { 443 } else { 80 }),
                port => port.parse().map_err(|_| invalid())?,
            };
            let tls = Arc::new(ClientTls::new(Files::default()));
            let backend = Backend {
                host: host.to_owned(),
                port,
                tls: address.https.then_some(tls),
                unverified: None,
            };
            forward(backend, request).await
        })
    }
}

/// Whether the server lets itself be sent there: not to itself, and to nobody's neighbours.
fn is_allowed(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link_local || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

fn not_allowed() -> Status {
    Status::bad_request("address not allowed")
}

/// The first port that a pod's containers declare.
fn first_port(pod: &Value) -> Option<u16> {
    pod["spec"]["containers"]
        .as_array()?
        .iter()
        .filter_map(|c| c["ports"].as_array())
        .flatten()
        .find_map(|p| p["containerPort"].as_u64())
        .and_then(|p| u16::try_from(p).ok())
}

impl Connect for ServiceProxy {
    fn connect<'a>(
        &'a self,
        request: &'a mut RequestContext,
    ) -> BoxFuture<'a, Result<Response<Body>, Status>> {
        Box::pin(async move {
            let name = request.info.name.clone();
            let address = Address::parse(&name)
                .ok_or_else(|| Status::bad_request(format!("invalid service request {name:?}")))?;
            let namespace = request.info.namespace.clone();
            let service = self.services.get_tree(&namespace, address.name).await?;
            let port_name = service_port(&service, address.port).ok_or_else(|| {
                Status::service_unavailable(format!(
                    "no service port {:?} found for service {:?}",
                    address.port, address.name
                ))
            })?;
            let (host, port) = self
                .endpoint(&namespace, address.name, &port_name)
                .await?
                .ok_or_else(|| {
                    Status::service_unavailable(format!(
                        "no endpoints available for service {name:?}"
                    ))
                })?;
            let tls = Arc::new(ClientTls::new(Files::default()));
            let backend = Backend {
                host,
                port,
                tls: address.https.then_some(tls),
                unverified: None,
            };
            forward(backend, request).await
        })
    }
}

/// The name of the port that is asked for: by name, by number, or the only one.
fn service_port(service: &Value, asked: &str) -> Option<String> {
    let ports = service["spec"]["ports"].as_array()?;
    let found = match asked {
        "" if ports.len() == 1 => ports.first(),
        "" => ports
            .iter()
            .find(|p| p["name"].as_str().is_none_or(str::is_empty)),
        asked => ports.iter().find(|p| {
            p["name"] == asked || p["port"].as_u64().is_some_and(|n| n.to_string() == asked)
        }),
    }?;
    Some(found["name"].as_str().unwrap_or_default().to_owned())
}

impl ServiceProxy {
    /// A ready endpoint, another one each time.
    async fn endpoint(
        &self,
        namespace: &str,
        service: &str,
        port_name: &str,
    ) -> Result<Option<(String, u16)>, Status> {
        let selector = Selector {
            namespace: namespace.to_owned(),
            labels: meta::labels::Selector::parse(&format!("kubernetes.io/service-name={service}"))
                .map_err(Status::internal)?,
            ..Selector::default()
        };
        let query = ListQuery {
            selector: &selector,
            at: At::Any,
            limit: 0,
            start: "",
        };
        let list = self
            .slices
            .cache
            .list(&query)
            .await
            .map_err(Status::internal)?;
        if list.objects.is_empty() {
            return Err(Status::not_found(
                &GroupResource::new("", "services"),
                service,
            ));
        }
        let mut found = Vec::new();
        for object in &list.objects {
            let slice = self.slices.tree(object.bytes(), object.revision())?;
            found.extend(ready(&slice, port_name));
        }
        if found.is_empty() {
            return Ok(None);
        }
        let at = rand::random::<u64>() as usize % found.len();
        Ok(Some(found.swap_remove(at)))
    }
}

/// The ready endpoints of a slice that have the port.
fn ready(slice: &Value, port_name: &str) -> Vec<(String, u16)> {
    let port = slice["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|p| p["name"].as_str().unwrap_or_default() == port_name)
        .and_then(|p| p["port"].as_u64())
        .and_then(|p| u16::try_from(p).ok());
    let Some(port) = port else {
        return Vec::new();
    };
    slice["endpoints"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|e| e["conditions"]["ready"] != false)
        .filter_map(|e| Some((e["addresses"][0].as_str()?.to_owned(), port)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_carry_scheme_and_port() {
        let parse = |t| Address::parse(t).map(|a| (a.https, a.name, a.port));
        assert_eq!(parse("web"), Some((false, "web", "")));
        assert_eq!(parse("web:http"), Some((false, "web", "http")));
        assert_eq!(parse("https:web:443"), Some((true, "web", "443")));
        assert_eq!(parse("ftp:web:21"), None);
    }

    #[test]
    fn the_server_is_not_sent_to_itself() {
        let allowed = |address: &str| is_allowed(address.parse().unwrap());
        assert!(allowed("10.0.0.1") && allowed("fd00::1"));
        for address in ["127.0.0.1", "::1", "0.0.0.0", "169.254.169.254", "fe80::1"] {
            assert!(!allowed(address), "{address}");
        }
        assert!(!allowed("224.0.0.1") && !allowed("255.255.255.255"));
    }

    #[test]
    fn ports_and_endpoints_are_chosen() {
        let service =
            json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
        assert_eq!(service_port(&service, "81").as_deref(), Some("b"));
        assert_eq!(service_port(&service, "a").as_deref(), Some("a"));
        assert_eq!(service_port(&service, ""), None);
        let slice = json!({"ports": [{"name": "a", "port": 8080}], "endpoints": [
            {"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
        ]});
        assert_eq!(ready(&slice, "a"), [("10.0.0.1".to_owned(), 8080)]);
        assert!(ready(&slice, "x").is_empty());
    }
}
