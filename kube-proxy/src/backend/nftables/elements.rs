//! Which map elements a service needs. Pure.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::Family;
use super::layout::Chain;
use crate::state::{Endpoint, Protocol, Service, ServiceName, ServicePort, State};

/// An element of one of the table's maps and sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// `services`: an address of a service leads to a chain.
    Service(IpAddr, Protocol, u16, Chain),
    /// `endpoints`: where the n-th draw for that address goes.
    Endpoint(IpAddr, Protocol, u16, usize, SocketAddr),
    /// `nodeports`.
    NodePort(Protocol, u16, Chain),
    /// `nodeport-endpoints`.
    NodePortEndpoint(Protocol, u16, usize, SocketAddr),
    /// `no-endpoints`: rejected, or dropped where only this node has none.
    NoEndpoints(IpAddr, Protocol, u16, Refusal),
    /// `no-endpoint-nodeports`.
    NoEndpointNodePort(Protocol, u16, Refusal),
    /// `cluster-ips`: addresses whose other ports are rejected.
    ClusterIp(IpAddr),
    /// `hairpin`: a local pod that may reach itself through a service.
    Hairpin(IpAddr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The service has no endpoint anywhere.
    Reject,
    /// It has some, but the traffic policy keeps to this node's: a load balancer
    /// should try elsewhere.
    Drop,
}

impl Refusal {
    fn verdict(self) -> &'static str {
        match self {
            Self::Reject => "goto reject-chain",
            Self::Drop => "drop",
        }
    }
}

impl Element {
    /// The chain that this element's verdict needs.
    pub fn chain(&self) -> Option<Chain> {
        match self {
            Self::Service(.., chain) | Self::NodePort(.., chain) => Some(*chain),
            _ => None,
        }
    }

    /// The map or set it belongs to.
    pub fn set(&self) -> &'static str {
        match self {
            Self::Service(..) => "services",
            Self::Endpoint(..) => "endpoints",
            Self::NodePort(..) => "nodeports",
            Self::NodePortEndpoint(..) => "nodeport-endpoints",
            Self::NoEndpoints(..) => "no-endpoints",
            Self::NoEndpointNodePort(..) => "no-endpoint-nodeports",
            Self::ClusterIp(_) => "cluster-ips",
            Self::Hairpin(_) => "hairpin",
        }
    }

    /// Writes the key, and for a map `: value`.
    pub fn write(&self, out: &mut String) {
        let done = match self {
            Self::Service(ip, protocol, port, chain) => {
                write!(out, "{ip} . {} . {port} : goto {chain}", protocol.as_str())
            }
            Self::Endpoint(ip, protocol, port, n, to) => write!(
                out,
                "{ip} . {} . {port} . {n} : {} . {}",
                protocol.as_str(),
                to.ip(),
                to.port()
            ),
            Self::NodePort(protocol, port, chain) => {
                write!(out, "{} . {port} : goto {chain}", protocol.as_str())
            }
            Self::NodePortEndpoint(protocol, port, n, to) => {
                write!(
                    out,
                    "{} . {port} . {n} : {} . {}",
                    protocol.as_str(),
                    to.ip(),
                    to.port()
                )
            }
            Self::NoEndpoints(ip, protocol, port, refusal) => {
                write!(
                    out,
                    "{ip} . {} . {port} : {}",
                    protocol.as_str(),
                    refusal.verdict()
                )
            }
            Self::NoEndpointNodePort(protocol, port, refusal) => {
                write!(
                    out,
                    "{} . {port} : {}",
                    protocol.as_str(),
                    refusal.verdict()
                )
            }
            Self::ClusterIp(ip) => write!(out, "{ip}"),
            Self::Hairpin(ip) => write!(out, "{ip} . {ip}"),
        };
        debug_assert!(done.is_ok(), "writing to a String does not fail");
    }
}

/// The elements of one service; none when it is gone.
pub fn elements(family: Family, state: &State, name: &ServiceName) -> BTreeSet<Element> {
    let mut out = BTreeSet::new();
    let Some(service) = state.service(name) else {
        return out;
    };
    for ip in service.cluster_ips.iter().filter(|ip| family.is(**ip)) {
        out.insert(Element::ClusterIp(*ip));
    }
    for port in &service.ports {
        let mut endpoints = state.endpoints(name, port);
        endpoints.retain(|e| family.is(e.address.ip()));
        of_port(family, service, port, &endpoints, &mut out);
        out.extend(
            endpoints
                .iter()
                .filter(|e| e.local)
                .map(|e| Element::Hairpin(e.address.ip())),
        );
    }
    out
}

fn of_port(
    family: Family,
    service: &Service,
    port: &ServicePort,
    endpoints: &[Endpoint],
    out: &mut BTreeSet<Element>,
) {
    let (protocol, number) = (port.protocol, port.port);
    let everywhere = usable(endpoints, false);
    let internal = usable(endpoints, service.internal_local);
    let external = usable(endpoints, service.external_local);
    let refusal = if everywhere.is_empty() {
        Refusal::Reject
    } else {
        Refusal::Drop
    };

    for ip in service
        .cluster_ips
        .iter()
        .copied()
        .filter(|ip| family.is(*ip))
    {
        address(ip, protocol, number, &internal, false, refusal, out);
    }
    // Replies to outside traffic must come back this way, unless the policy keeps it
    // on this node, where the client's address can be kept.
    let masquerade = !service.external_local;
    for ip in service
        .external_ips
        .iter()
        .copied()
        .filter(|ip| family.is(*ip))
    {
        address(ip, protocol, number, &external, masquerade, refusal, out);
    }
    if let Some(node_port) = port.node_port {
        if external.is_empty() {
            out.insert(Element::NoEndpointNodePort(protocol, node_port, refusal));
        } else {
            let chain = Chain {
                node_port: true,
                masquerade,
                endpoints: external.len(),
            };
            out.insert(Element::NodePort(protocol, node_port, chain));
            for (n, to) in external.iter().enumerate() {
                out.insert(Element::NodePortEndpoint(protocol, node_port, n, *to));
            }
        }
    }
}

fn address(
    ip: IpAddr,
    protocol: Protocol,
    port: u16,
    endpoints: &[SocketAddr],
    masquerade: bool,
    refusal: Refusal,
    out: &mut BTreeSet<Element>,
) {
    if endpoints.is_empty() {
        out.insert(Element::NoEndpoints(ip, protocol, port, refusal));
        return;
    }
    let chain = Chain {
        node_port: false,
        masquerade,
        endpoints: endpoints.len(),
    };
    out.insert(Element::Service(ip, protocol, port, chain));
    for (n, to) in endpoints.iter().enumerate() {
        out.insert(Element::Endpoint(ip, protocol, port, n, *to));
    }
}

/// The endpoints to send to: the ready ones, or, when there is none, those that still
/// serve while they shut down.
fn usable(endpoints: &[Endpoint], local: bool) -> Vec<SocketAddr> {
    let candidates = || endpoints.iter().filter(|e| !local || e.local);
    let ready: Vec<_> = candidates()
        .filter(|e| e.ready)
        .map(|e| e.address)
        .collect();
    if !ready.is_empty() {
        return ready;
    }
    candidates()
        .filter(|e| e.serving_while_terminating)
        .map(|e| e.address)
        .collect()
}
