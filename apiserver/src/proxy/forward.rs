//! `nodes/proxy`, `pods/proxy` and `services/proxy`: HTTP to whatever listens there.

use std::net::IpAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use meta::{GroupResource, Status};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::backend::{Backend, Outgoing, remove_named, wants_upgrade};
use super::kubelet::Kubelets;
use super::links::Links;
use super::sniff;
use super::tls::{ClientTls, Files};
use crate::http::body::Body;
use crate::http::context::RequestContext;
use crate::http::verbs::Connect;
use crate::registry::store::Store;

pub struct NodeProxy {
    pub kubelets: Arc<Kubelets>,
}

pub struct PodProxy {
    pub pods: Arc<Store>,
}

pub struct ServiceProxy {
    pub services: Arc<Store>,
    pub endpoints: Arc<Store>,
    pub pods: Arc<Store>,
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
    if !upgrades {
        remove_named(&mut headers);
    }
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
        _ => sniff::with_type(links.lead(response)).await,
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
            let port_name = self.port_name(&namespace, &address).await?;
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

/// Addresses that serve a port, and the port's number.
type Serving<'a> = (Vec<&'a Value>, u16);

impl ServiceProxy {
    /// What the port that is asked for is called: numbers are those of the Service.
    async fn port_name(&self, namespace: &str, address: &Address<'_>) -> Result<String, Status> {
        let Ok(number) = address.port.parse::<i64>() else {
            return Ok(address.port.to_owned());
        };
        let service = self.services.get_tree(namespace, address.name).await?;
        let ports = service["spec"]["ports"].as_array();
        let found = ports.into_iter().flatten().find(|p| p["port"] == number);
        let found = found.ok_or_else(|| {
            Status::service_unavailable(format!(
                "no service port {number} found for service {:?}",
                address.name
            ))
        })?;
        Ok(found["name"].as_str().unwrap_or_default().to_owned())
    }

    /// A ready address of a pod, another one each time.
    ///
    /// Endpoints are written by users too: were they believed, the server would connect to any
    /// address for them. So there must be a pod that has the address.
    async fn endpoint(
        &self,
        namespace: &str,
        service: &str,
        port_name: &str,
    ) -> Result<Option<(String, u16)>, Status> {
        let endpoints = self.endpoints.get_tree(namespace, service).await;
        let endpoints = endpoints.map_err(|status| match status.code {
            404 => Status::not_found(&GroupResource::new("", "services"), service),
            _ => status,
        })?;
        for (mut addresses, port) in serving(&endpoints, port_name) {
            while !addresses.is_empty() {
                let at = rand::random::<u64>() as usize % addresses.len();
                if let Some(ip) = self.of_pod(namespace, addresses.swap_remove(at)).await {
                    return Ok(Some((ip, port)));
                }
            }
        }
        Ok(None)
    }

    /// The address, if the pod that it is said to be of has it.
    async fn of_pod(&self, namespace: &str, address: &Value) -> Option<String> {
        let (ip, target) = (address["ip"].as_str()?, &address["targetRef"]);
        if target["namespace"] != namespace {
            return None;
        }
        let pod = self
            .pods
            .get_tree(namespace, target["name"].as_str()?)
            .await;
        let pod = pod.ok()?;
        let mut ips = pod["status"]["podIPs"].as_array()?.iter();
        ips.any(|has| has["ip"] == ip).then(|| ip.to_owned())
    }
}

/// Where the port is served, subset by subset.
fn serving<'a>(endpoints: &'a Value, port_name: &str) -> Vec<Serving<'a>> {
    let subsets = endpoints["subsets"].as_array().into_iter().flatten();
    let serving = subsets.filter_map(|subset| {
        let mut ports = subset["ports"].as_array()?.iter();
        let port = ports.find(|p| p["name"].as_str().unwrap_or_default() == port_name)?;
        let port = u16::try_from(port["port"].as_u64()?).ok()?;
        Some((subset["addresses"].as_array()?.iter().collect(), port))
    });
    serving.collect()
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
    fn a_port_is_served_where_its_name_is() {
        let endpoints = json!({"subsets": [
            {"notReadyAddresses": [{"ip": "10.0.0.9"}], "ports": [{"name": "a", "port": 8080}]},
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
                "ports": [{"name": "b", "port": 9}, {"name": "a", "port": 8081}]},
            {"addresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 80}]},
        ]});
        let served = |port| json!(serving(&endpoints, port));
        let two = json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]);
        assert_eq!(served("a"), json!([[two, 8081]]));
        assert_eq!(served(""), json!([[[{"ip": "10.0.0.3"}], 80]]));
        assert_eq!(served("x"), json!([]));
    }
}
