//! What a Service says that a proxy acts on.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

/// Names another proxy that serves the service (`service.kubernetes.io/service-proxy-name`).
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text {
            None | Some("" | "TCP") => Some(Self::Tcp),
            Some("UDP") => Some(Self::Udp),
            Some("SCTP") => Some(Self::Sctp),
            Some(_) => None,
        }
    }

    /// As nft and `/etc/protocols` name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Of both families; sorted.
    pub cluster_ips: Vec<IpAddr>,
    /// External and load balancer addresses; sorted.
    pub external_ips: Vec<IpAddr>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    pub ports: Vec<ServicePort>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

impl Service {
    /// `None` for a service that this proxy has nothing to do for: headless,
    /// ExternalName, or another proxy's.
    pub fn parse(service: &core::Service) -> Option<Self> {
        let spec = service.spec.as_ref()?;
        let labels = service.metadata.labels.as_ref();
        if labels.is_some_and(|l| l.contains_key(OTHER_PROXY_LABEL))
            || spec.type_.as_deref() == Some("ExternalName")
        {
            return None;
        }
        let listed = spec.cluster_ips.as_deref().unwrap_or_default();
        let first = spec.cluster_ip.iter().filter(|_| listed.is_empty());
        let cluster_ips = addresses(listed.iter().chain(first));
        if cluster_ips.is_empty() {
            return None;
        }
        let balancer = service
            .status
            .as_ref()
            .and_then(|s| s.load_balancer.as_ref());
        let ingress = balancer
            .and_then(|b| b.ingress.as_deref())
            .unwrap_or_default();
        // `ipMode: Proxy`: the balancer wants its traffic to go out to it.
        let vips = ingress
            .iter()
            .filter(|i| i.ip_mode.as_deref() != Some("Proxy"))
            .filter_map(|i| i.ip.as_ref());
        let external = spec.external_ips.as_deref().unwrap_or_default();
        let ports = spec.ports.as_deref().unwrap_or_default();
        Some(Self {
            cluster_ips,
            external_ips: addresses(external.iter().chain(vips)),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            ports: ports.iter().filter_map(ServicePort::parse).collect(),
        })
    }
}

impl ServicePort {
    fn parse(port: &core::ServicePort) -> Option<Self> {
        Some(Self {
            name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
            node_port: port
                .node_port
                .and_then(|p| u16::try_from(p).ok())
                .filter(|p| *p != 0),
        })
    }
}

/// `None` (headless) is no address and falls out here.
fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = texts.filter_map(|t| t.parse().ok()).collect();
    found.sort();
    found.dedup();
    found
}
