//! The Endpoints object of a Service: pure.
//!
//! Endpoints is the predecessor of EndpointSlice; `kubectl get endpoints` and old clients read it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controllers::endpointslice::plan as slices;
use crate::kinds::Pod;

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// More addresses than this are left out.
const MAX_CAPACITY: usize = 1000;

/// What to do about the Endpoints object.
#[derive(Debug, PartialEq)]
pub enum Plan {
    Nothing,
    Create(Box<Endpoints>),
    Update(Box<Endpoints>),
}

/// Makes the plan. The Service has a selector; `pods` are those that it matches.
pub fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    current: Option<&Endpoints>,
    trigger_time: Option<Timestamp>,
) -> Plan {
    let subsets = subsets(service, pods);
    let service_labels = service.metadata.labels.clone().unwrap_or_default();
    if let Some(current) = current {
        let repacked = repack(current.subsets.iter().flatten());
        if repacked == subsets && labels_right(current, &service_labels) && capacity_right(current)
        {
            return Plan::Nothing;
        }
    }
    let mut new = current.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        subsets: None,
    });
    let mut labels = service_labels;
    if slices::has_cluster_ip(service) {
        labels.remove(slices::HEADLESS);
    } else {
        labels.insert(slices::HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    new.metadata.labels = Some(labels);

    let mut subsets = subsets;
    let truncated = truncate(&mut subsets);
    new.subsets = Some(subsets);
    let annotations = new.metadata.annotations.get_or_insert_default();
    let mut set = |key: &str, value: Option<String>| match value {
        Some(value) => annotations.insert(key.to_owned(), value),
        None => annotations.remove(key),
    };
    set(
        slices::LAST_CHANGE_TRIGGER_TIME,
        trigger_time.map(|t| t.to_string()),
    );
    set(OVER_CAPACITY, truncated.then(|| "truncated".to_owned()));
    match current {
        Some(_) => Plan::Update(Box::new(new)),
        None => Plan::Create(Box::new(new)),
    }
}

fn labels_right(current: &Endpoints, service: &BTreeMap<String, String>) -> bool {
    let labels = current.metadata.labels.clone().unwrap_or_default();
    if labels.get(MANAGED_BY).map(String::as_str) != Some(MANAGER) {
        return false;
    }
    let own = labels
        .iter()
        .filter(|(k, _)| k.as_str() != MANAGED_BY && k.as_str() != slices::HEADLESS);
    own.eq(service.iter())
}

fn capacity_right(current: &Endpoints) -> bool {
    let subsets = current.subsets.iter().flatten();
    let count: usize = subsets.map(|s| ready(s).len() + not_ready(s).len()).sum();
    let annotations = current.metadata.annotations.as_ref();
    count <= MAX_CAPACITY && !annotations.is_some_and(|a| a.contains_key(OVER_CAPACITY))
}

fn ready(s: &EndpointSubset) -> &[EndpointAddress] {
    s.addresses.as_deref().unwrap_or_default()
}

fn not_ready(s: &EndpointSubset) -> &[EndpointAddress] {
    s.not_ready_addresses.as_deref().unwrap_or_default()
}

/// The pod's address of the Service's first family.
fn address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    let spec = service.spec.clone().unwrap_or_default();
    let family = spec.ip_families.iter().flatten().next();
    let ipv6 = match family {
        Some(family) => family == "IPv6",
        None if slices::has_cluster_ip(service) => {
            spec.cluster_ip.is_some_and(|ip| ip.contains(':'))
        }
        None => pod.status.pod_ip.contains(':'),
    };
    let mut ips = pod
        .status
        .pod_ips
        .iter()
        .filter_map(|ip| ip.ip.parse::<IpAddr>().ok());
    let ip = ips.find(|ip| ip.is_ipv6() == ipv6)?;
    Some(EndpointAddress {
        ip: ip.to_string(),
        hostname: slices::publishes_hostname(pod, service).then(|| pod.spec.hostname.to_string()),
        node_name: Some(pod.spec.node_name.to_string()),
        target_ref: Some(slices::target_ref(pod)),
    })
}

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let not_ready_too = slices::publishes_not_ready(service);
    let ports = service
        .spec
        .as_ref()
        .and_then(|s| s.ports.clone())
        .unwrap_or_default();
    let mut single = Vec::new();
    for pod in pods
        .iter()
        .filter(|p| slices::should_be_in_endpoints(p, not_ready_too))
    {
        let Some(address) = address(service, pod) else {
            continue;
        };
        let mut add = |ports: Vec<EndpointPort>| {
            let addresses = Some(vec![address.clone()]);
            let is_ready = not_ready_too || pod.is_ready();
            single.push(EndpointSubset {
                addresses: addresses.clone().filter(|_| is_ready),
                not_ready_addresses: addresses.filter(|_| !is_ready),
                ports: Some(ports),
            });
        };
        if ports.is_empty() {
            if !slices::has_cluster_ip(service) {
                add(Vec::new());
            }
            continue;
        }
        for port in &ports {
            if let Some(number) = slices::find_port(pod, port) {
                add(vec![EndpointPort {
                    name: port.name.clone().filter(|n| !n.is_empty()),
                    port: number,
                    protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                    app_protocol: port.app_protocol.clone(),
                }]);
            }
        }
    }
    repack(single.iter())
}

type PortKey = (String, i32, String, Option<String>);
type AddressKey = (String, String);

/// Brings subsets into one form: addresses with the same ports share a subset, everything is
/// sorted, and an address that is ready and not ready for a port is not ready.
pub fn repack<'a>(subsets: impl Iterator<Item = &'a EndpointSubset>) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<AddressKey, EndpointAddress> = BTreeMap::new();
    let mut by_port: BTreeMap<Option<PortKey>, BTreeMap<AddressKey, bool>> = BTreeMap::new();
    for subset in subsets {
        let mut ports: Vec<Option<PortKey>> = subset
            .ports
            .iter()
            .flatten()
            .map(|p| {
                let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
                Some((
                    p.name.clone().unwrap_or_default(),
                    p.port,
                    protocol,
                    p.app_protocol.clone(),
                ))
            })
            .collect();
        if ports.is_empty() {
            ports.push(None);
        }
        let all = ready(subset).iter().map(|a| (a, true));
        let all = all.chain(not_ready(subset).iter().map(|a| (a, false)));
        for (address, is_ready) in all {
            let uid = address
                .target_ref
                .as_ref()
                .and_then(|t| t.uid.clone())
                .unwrap_or_default();
            let key = (address.ip.clone(), uid);
            addresses
                .entry(key.clone())
                .or_insert_with(|| address.clone());
            for port in &ports {
                let known = by_port.entry(port.clone()).or_default();
                let state = known.entry(key.clone()).or_insert(is_ready);
                *state &= is_ready;
            }
        }
    }
    let mut by_addresses: BTreeMap<BTreeMap<AddressKey, bool>, Vec<PortKey>> = BTreeMap::new();
    for (port, addresses) in by_port {
        by_addresses.entry(addresses).or_default().extend(port);
    }
    by_addresses
        .into_iter()
        .map(|(states, ports)| {
            let pick = |want: bool| {
                let keys = states.iter().filter(|(_, ready)| **ready == want);
                let found: Vec<_> = keys
                    .filter_map(|(k, _)| addresses.get(k).cloned())
                    .collect();
                Some(found).filter(|f| !f.is_empty())
            };
            let port = |(name, port, protocol, app_protocol): PortKey| EndpointPort {
                name: Some(name).filter(|n| !n.is_empty()),
                port,
                protocol: Some(protocol),
                app_protocol,
            };
            EndpointSubset {
                addresses: pick(true),
                not_ready_addresses: pick(false),
                ports: Some(ports.into_iter().map(port).collect::<Vec<_>>())
                    .filter(|p| !p.is_empty()),
            }
        })
        .collect()
}

/// Cuts down to [`MAX_CAPACITY`] addresses, ready ones first, in proportion over the subsets.
/// Returns whether anything was cut.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let total_ready: usize = subsets.iter().map(|s| ready(s).len()).sum();
    let total_not_ready: usize = subsets.iter().map(|s| not_ready(s).len()).sum();
    if total_ready + total_not_ready <= MAX_CAPACITY {
        return false;
    }
    let cut_ready = total_ready > MAX_CAPACITY;
    let (total, max) = if cut_ready {
        (total_ready, MAX_CAPACITY)
    } else {
        (total_not_ready, MAX_CAPACITY - total_ready)
    };
    let mut left = max;
    for subset in subsets {
        let list = if cut_ready {
            subset.not_ready_addresses = None;
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        if let Some(list) = list {
            let share = (list.len() * max).div_ceil(total).min(left);
            list.truncate(share);
            left -= list.len();
        }
    }
    true
}
