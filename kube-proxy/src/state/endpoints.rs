//! What an EndpointSlice says that a proxy acts on.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1 as discovery;

use super::{Protocol, ServiceName};

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// One address and port behind a service port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub ready: bool,
    /// Shutting down, but still answering: used when nobody is ready (KEP-1669).
    pub serving_while_terminating: bool,
    /// On this node.
    pub local: bool,
}

/// A slice's endpoints; its ports are common to all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    ports: Vec<(String, Protocol, u16)>,
    backends: Vec<Backend>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Backend {
    ip: IpAddr,
    ready: bool,
    serving_while_terminating: bool,
    local: bool,
}

/// The service that a slice belongs to; `None` for a slice of none.
pub fn service_of(slice: &discovery::EndpointSlice) -> Option<ServiceName> {
    Some(ServiceName {
        namespace: slice.metadata.namespace.clone()?,
        name: slice
            .metadata
            .labels
            .as_ref()?
            .get(SERVICE_NAME_LABEL)?
            .clone(),
    })
}

impl Slice {
    pub fn parse(slice: &discovery::EndpointSlice, node: &str) -> Self {
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let number = u16::try_from(port.port?).ok()?;
            let protocol = Protocol::parse(port.protocol.as_deref())?;
            Some((port.name.clone().unwrap_or_default(), protocol, number))
        });
        // All addresses of one endpoint are the same pod; the first is the one to use.
        let backends = slice.endpoints.iter().flatten().filter_map(|endpoint| {
            let conditions = endpoint.conditions.as_ref();
            // Unknown readiness counts as ready (the API's own rule).
            let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
            let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
            let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
            Some(Backend {
                ip: endpoint.addresses.first()?.parse().ok()?,
                ready,
                serving_while_terminating: serving && terminating,
                local: endpoint.node_name.as_deref() == Some(node),
            })
        });
        Self {
            ports: ports.collect(),
            backends: backends.collect(),
        }
    }

    /// The endpoints behind the port of that name and protocol.
    pub fn endpoints(&self, port: &str, protocol: Protocol) -> impl Iterator<Item = Endpoint> {
        let number = self
            .ports
            .iter()
            .find(|(name, p, _)| name == port && *p == protocol)
            .map(|(_, _, number)| *number);
        number.into_iter().flat_map(|number| {
            self.backends.iter().map(move |backend| Endpoint {
                address: SocketAddr::new(backend.ip, number),
                ready: backend.ready,
                serving_while_terminating: backend.serving_while_terminating,
                local: backend.local,
            })
        })
    }
}
