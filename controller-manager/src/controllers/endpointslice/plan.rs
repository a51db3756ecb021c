//! Which EndpointSlices a Service needs, with as few writes as possible: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meta::GroupVersionKind;

use super::hints;
use super::topology::{Given, Notice, Zones};
use crate::kinds::Pod;

pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
pub const LAST_CHANGE_TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// What our slices say in [`MANAGED_BY`].
pub const MANAGER: &str = "endpointslice-controller.k8s.io";

/// What is known of a Service. The Service has a selector.
pub struct Observed<'a> {
    pub service: &'a Service,
    /// Those that the selector matches.
    pub pods: &'a [Arc<Pod>],
    /// The zone of a node, if it is labelled with one; `None` if there is no such node.
    pub zone_of: &'a dyn Fn(&str) -> Option<Option<String>>,
    /// Ours, without those being deleted.
    pub slices: &'a [Arc<EndpointSlice>],
    /// When the change happened that this sync answers.
    pub trigger_time: Option<Timestamp>,
    /// From `--max-endpoints-per-slice`.
    pub max_per_slice: usize,
    /// What the nodes say of zones.
    pub zones: &'a Zones,
    /// What zones have of the Service's endpoints.
    pub given: &'a Given,
}

/// What to write, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    /// By name.
    pub delete: Vec<String>,
    /// Pods that had to be left out; the sync is to be repeated.
    pub errors: Vec<String>,
    /// What zones have after this.
    pub given: Given,
    /// What is to be told of it.
    pub notices: Vec<Notice>,
}

/// Makes the plan.
pub fn plan(observed: &Observed) -> Plan {
    let types = address_types(observed.service);
    let mut plan = Plan {
        given: observed.given.clone(),
        ..Plan::default()
    };
    let slices = observed.slices.iter();
    let unsupported: Vec<_> = slices
        .filter(|s| !types.contains(&&*s.address_type))
        .collect();
    for slice in &unsupported {
        plan.given.take(&slice.address_type);
    }
    for address_type in &types {
        let slices = observed
            .slices
            .iter()
            .filter(|s| s.address_type == *address_type);
        let slices: Vec<_> = slices.cloned().collect();
        reconcile(observed, address_type, &slices, &mut plan);
    }
    let unsupported = unsupported.into_iter();
    plan.delete.extend(unsupported.map(|s| name(s).to_owned()));
    plan
}

fn name(slice: &EndpointSlice) -> &str {
    slice.metadata.name.as_deref().unwrap_or_default()
}

/// The slice's endpoints; absent is the same as empty.
pub fn endpoints(slice: &EndpointSlice) -> &[Endpoint] {
    slice.endpoints.as_deref().unwrap_or_default()
}

/// The address families of the Service.
fn address_types(service: &Service) -> BTreeSet<&'static str> {
    let spec = service.spec.clone().unwrap_or_default();
    let families = spec.ip_families.iter().flatten();
    let types: BTreeSet<_> = families
        .filter_map(|f| match f.as_str() {
            "IPv4" => Some("IPv4"),
            "IPv6" => Some("IPv6"),
            _ => None,
        })
        .collect();
    if !types.is_empty() {
        return types;
    }
    match spec.cluster_ip.as_deref() {
        Some(ip) if has_cluster_ip(service) => {
            [if ip.contains(':') { "IPv6" } else { "IPv4" }].into()
        }
        _ => ["IPv4", "IPv6"].into(),
    }
}

/// Whether the Service has an address of its own; otherwise it is headless.
pub fn has_cluster_ip(service: &Service) -> bool {
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref());
    ip.is_some_and(|ip| !ip.is_empty() && ip != "None")
}

/// Whether a pod has addresses to publish at all.
pub fn should_be_in_endpoints(pod: &Pod, include_terminating: bool) -> bool {
    let has_address = !pod.status.pod_ip.is_empty() || !pod.status.pod_ips.is_empty();
    has_address && !pod.is_terminal() && (include_terminating || !pod.is_deleting())
}

/// Whether the pod's host name is to be resolved under the Service's name.
pub fn publishes_hostname(pod: &Pod, service: &Service) -> bool {
    !pod.spec.hostname.is_empty()
        && Some(&*pod.spec.subdomain) == service.metadata.name.as_deref()
        && Some(&*pod.metadata.namespace) == service.metadata.namespace.as_deref()
}

/// The number of the pod's port that a Service port leads to, if the pod has it.
pub fn find_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port
        .target_port
        .as_ref()
        .unwrap_or(&IntOrString::Int(port.port))
    {
        IntOrString::Int(n) => Some(*n),
        IntOrString::String(name) => {
            let sidecars = pod.spec.init_containers.iter().filter(|c| c.is_sidecar());
            let mut ports = pod
                .spec
                .containers
                .iter()
                .chain(sidecars)
                .flat_map(|c| &c.ports);
            ports
                .find(|p| *p.name == **name && &*p.protocol == protocol)
                .map(|p| p.container_port)
        }
    }
}

/// Identity of an endpoint: what may not change while it stays in its slice.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointId {
    namespace: String,
    name: String,
    addresses: Vec<String>,
    hostname: String,
}

pub fn id(endpoint: &Endpoint) -> EndpointId {
    let target = endpoint.target_ref.clone().unwrap_or_default();
    let mut addresses = endpoint.addresses.clone();
    addresses.sort();
    EndpointId {
        namespace: target.namespace.unwrap_or_default(),
        name: target.name.unwrap_or_default(),
        addresses,
        hostname: endpoint.hostname.clone().unwrap_or_default(),
    }
}

/// Whether two endpoints of the same identity are equal.
pub fn same_beyond_id(a: &Endpoint, b: &Endpoint) -> bool {
    let target = |e: &Endpoint| {
        e.target_ref.clone().map(|t| ObjectReference {
            resource_version: None,
            ..t
        })
    };
    a.node_name == b.node_name
        && a.zone == b.zone
        && a.conditions == b.conditions
        && target(a) == target(b)
}

/// Endpoints by identity.
pub type Endpoints = BTreeMap<EndpointId, Endpoint>;

/// Ports in an order that does not depend on who wrote them: pods with the same ports share slices.
pub type PortMap = Vec<(String, Option<i32>, String, Option<String>)>;

/// The order-independent form of a slice's ports.
pub fn port_map(ports: &[EndpointPort]) -> PortMap {
    let mut map: PortMap = ports
        .iter()
        .map(|p| {
            let name = p.name.clone().unwrap_or_default();
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            (name, p.port, protocol, p.app_protocol.clone())
        })
        .collect();
    map.sort();
    map
}

/// What a set of slices with the same ports must hold.
#[derive(Default)]
struct Desired {
    ports: Vec<EndpointPort>,
    endpoints: Endpoints,
}

fn reconcile(
    observed: &Observed,
    address_type: &str,
    existing: &[Arc<EndpointSlice>],
    plan: &mut Plan,
) {
    let service = observed.service;
    let (owned, foreign): (Vec<_>, Vec<_>) =
        existing.iter().cloned().partition(|s| owned_by(s, service));
    let mut by_ports: BTreeMap<PortMap, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in owned {
        let key = port_map(slice.ports.as_deref().unwrap_or_default());
        by_ports.entry(key).or_default().push(slice);
    }
    let mut changes = Changes {
        delete: foreign,
        ..Changes::default()
    };
    for (key, desired) in desired(observed, address_type, &mut plan.errors) {
        let slices = by_ports.remove(&key).unwrap_or_default();
        reconcile_ports(observed, address_type, desired, slices, &mut changes);
    }
    changes.delete.extend(by_ports.into_values().flatten());

    // A Service always has a slice, so that it can be told from one not looked at yet.
    if existing.len() == changes.delete.len() && changes.create.is_empty() {
        let placeholder = new_slice(service, address_type, Vec::new());
        match &changes.delete[..] {
            [only] if is_same_placeholder(only, &placeholder) => changes.delete.clear(),
            _ => changes.create.push(placeholder),
        }
    }
    hints::apply(observed, address_type, existing, &mut changes, plan);
    changes.reuse(service, address_type);
    changes.annotate(observed.trigger_time);
    if service.metadata.deletion_timestamp.is_none() {
        plan.create.append(&mut changes.create);
    }
    plan.update.append(&mut changes.update);
    plan.delete
        .extend(changes.delete.iter().map(|s| name(s).to_owned()));
}

/// What changes among the slices of one address type.
#[derive(Default)]
pub(super) struct Changes {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
}

impl Changes {
    /// Those of the slices that stay as they are.
    pub fn untouched<'a>(&self, existing: &'a [Arc<EndpointSlice>]) -> Vec<&'a Arc<EndpointSlice>> {
        let written = self.update.iter().chain(self.delete.iter().map(|s| &**s));
        let touched: BTreeSet<&str> = written.map(name).collect();
        let untouched = existing.iter().filter(|s| !touched.contains(name(s)));
        untouched.collect()
    }

    /// The endpoints of what is written.
    pub fn written(&mut self) -> impl Iterator<Item = &mut Endpoint> {
        let slices = self.create.iter_mut().chain(&mut self.update);
        slices.flat_map(|s| s.endpoints.iter_mut().flatten())
    }

    /// Overwrites slices that would be deleted with those that would be created.
    fn reuse(&mut self, service: &Service, address_type: &str) {
        let mut kept = Vec::new();
        for slice in std::mem::take(&mut self.delete) {
            let fits = slice.address_type == address_type && owned_by(&slice, service);
            match self.create.pop_if(|_| fits) {
                Some(mut new) => {
                    new.metadata.name = slice.metadata.name.clone();
                    self.update.push(new);
                }
                None => kept.push(slice),
            }
        }
        self.delete = kept;
    }

    fn annotate(&mut self, trigger_time: Option<Timestamp>) {
        for slice in self.create.iter_mut().chain(&mut self.update) {
            let annotations = slice.metadata.annotations.get_or_insert_default();
            match trigger_time {
                Some(time) => {
                    annotations.insert(LAST_CHANGE_TRIGGER_TIME.to_owned(), time.to_string());
                }
                None => {
                    annotations.remove(LAST_CHANGE_TRIGGER_TIME);
                }
            }
        }
    }
}

fn owned_by(slice: &EndpointSlice, service: &Service) -> bool {
    slice.metadata.owner_references.iter().flatten().any(|o| {
        Some(&o.uid) == service.metadata.uid.as_ref()
            && o.kind == "Service"
            && o.api_version == "v1"
    })
}

fn is_same_placeholder(a: &EndpointSlice, b: &EndpointSlice) -> bool {
    a.metadata.labels == b.metadata.labels
        && a.address_type == b.address_type
        && endpoints(a).is_empty()
        && a.ports.as_deref().unwrap_or_default().is_empty()
}

fn desired(
    observed: &Observed,
    address_type: &str,
    errors: &mut Vec<String>,
) -> BTreeMap<PortMap, Desired> {
    let service = observed.service;
    let (namespace, service_name) = (
        service.metadata.namespace.as_deref().unwrap_or_default(),
        service.metadata.name.as_deref().unwrap_or_default(),
    );
    let publish_not_ready = publishes_not_ready(service);
    let mut by_ports: BTreeMap<PortMap, Desired> = BTreeMap::new();
    for pod in observed.pods {
        if !should_be_in_endpoints(pod, true) {
            continue;
        }
        let ports = endpoint_ports(service, pod);
        let desired = by_ports.entry(port_map(&ports)).or_default();
        desired.ports = ports;
        let zone = (observed.zone_of)(&pod.spec.node_name);
        if zone.is_none() && !publish_not_ready {
            // The pod's own message and, upstream too, the one that the event tells.
            let (pod, node) = (&pod.metadata.name, &pod.spec.node_name);
            let message = format!(
                "skipping Pod {pod} for Service {namespace}/{service_name}: Node {node} Not Found"
            );
            if !errors.contains(&message) {
                errors.push(message);
            }
            continue;
        }
        let endpoint = endpoint(pod, zone.flatten(), service, address_type);
        if !endpoint.addresses.is_empty() {
            desired.endpoints.insert(id(&endpoint), endpoint);
        }
    }
    by_ports
}

pub fn publishes_not_ready(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

/// A pod's addresses of one family, in canonical form.
fn addresses(pod: &Pod, address_type: &str) -> Vec<String> {
    let ips = pod
        .status
        .pod_ips
        .iter()
        .filter_map(|ip| ip.ip.parse::<IpAddr>().ok());
    ips.filter(|ip| ip.is_ipv6() == (address_type == "IPv6"))
        .map(|ip| ip.to_string())
        .collect()
}

fn endpoint(pod: &Pod, zone: Option<String>, service: &Service, address_type: &str) -> Endpoint {
    let serving = pod.is_ready();
    let terminating = pod.is_deleting();
    Endpoint {
        addresses: addresses(pod, address_type),
        conditions: Some(EndpointConditions {
            ready: Some(publishes_not_ready(service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: publishes_hostname(pod, service).then(|| pod.spec.hostname.to_string()),
        node_name: Some(pod.spec.node_name.to_string()).filter(|n| !n.is_empty()),
        target_ref: Some(target_ref(pod)),
        zone,
        ..Endpoint::default()
    }
}

/// The reference from an endpoint to its pod.
pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.metadata.namespace.to_string()),
        name: Some(pod.metadata.name.to_string()),
        uid: Some(pod.metadata.uid.to_string()),
        ..ObjectReference::default()
    }
}

fn endpoint_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(find_port(pod, port)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

/// Keeps endpoints where they are. New ones fill slices that change anyway, then the one
/// unchanged slice that they fit best, then new slices.
fn reconcile_ports(
    observed: &Observed,
    address_type: &str,
    mut desired: Desired,
    slices: Vec<Arc<EndpointSlice>>,
    changes: &mut Changes,
) {
    let max = observed.max_per_slice;
    let service = observed.service;
    let mut unchanged = Vec::new();
    let mut updated = Vec::new();
    for slice in slices {
        let mut differs = false;
        let kept: Vec<Endpoint> = endpoints(&slice)
            .iter()
            .filter_map(|old| {
                let new = desired.endpoints.remove(&id(old))?;
                differs |= !same_beyond_id(&new, old);
                Some(new)
            })
            .collect();
        differs |= kept.len() != endpoints(&slice).len();
        let (labels, relabelled) = labels(slice.metadata.labels.as_ref(), service);
        if kept.is_empty() && differs {
            changes.delete.push(slice);
        } else if differs || relabelled {
            let mut slice = EndpointSlice::clone(&slice);
            if differs {
                slice.endpoints = Some(kept);
            }
            slice.metadata.labels = Some(labels);
            updated.push(slice);
        } else {
            unchanged.push(slice);
        }
    }
    updated.sort_by_key(|s| std::cmp::Reverse(endpoints(s).len()));
    for slice in &mut updated {
        fill(slice, &mut desired.endpoints, max);
    }
    while !desired.endpoints.is_empty() {
        let fitting = best_fit(&unchanged, desired.endpoints.len(), max);
        let mut slice = match fitting {
            Some(i) => EndpointSlice::clone(&unchanged.swap_remove(i)),
            None => new_slice(service, address_type, desired.ports.clone()),
        };
        let is_new = fitting.is_none();
        fill(&mut slice, &mut desired.endpoints, max);
        if is_new {
            changes.create.push(slice);
        } else {
            updated.push(slice);
        }
    }
    changes.update.append(&mut updated);
}

fn fill(slice: &mut EndpointSlice, from: &mut Endpoints, max: usize) {
    let endpoints = slice.endpoints.get_or_insert_default();
    while endpoints.len() < max
        && let Some((_, endpoint)) = from.pop_first()
    {
        endpoints.push(endpoint);
    }
}

/// The slice that would be fullest with so many more, if any can take them all.
fn best_fit(slices: &[Arc<EndpointSlice>], count: usize, max: usize) -> Option<usize> {
    if count >= max {
        return None;
    }
    let fits = slices.iter().enumerate().filter(|(_, s)| {
        let total = endpoints(s).len() + count;
        total <= max && total > 0
    });
    fits.max_by_key(|(i, s)| (endpoints(s).len(), std::cmp::Reverse(*i)))
        .map(|(i, _)| i)
}

fn new_slice(service: &Service, address_type: &str, ports: Vec<EndpointPort>) -> EndpointSlice {
    let kind = GroupVersionKind::new("", "v1", "Service");
    let service_name = service.metadata.name.as_deref().unwrap_or_default();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{service_name}-")),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(None, service).0),
            owner_references: Some(vec![meta::owner::new_controller_ref(
                &service.metadata,
                &kind,
            )]),
            ..ObjectMeta::default()
        },
        address_type: address_type.to_owned(),
        endpoints: Some(Vec::new()),
        ports: Some(ports),
    }
}

/// The labels of the Service's slices: the Service's own and three of ours. Also whether the
/// Service's labels differ from those that `current` has.
fn labels(
    current: Option<&BTreeMap<String, String>>,
    service: &Service,
) -> (BTreeMap<String, String>, bool) {
    let plain = |labels: Option<&BTreeMap<String, String>>| {
        let mut labels = labels.cloned().unwrap_or_default();
        labels.retain(|k, _| !matches!(k.as_str(), SERVICE_NAME | MANAGED_BY | HEADLESS));
        labels
    };
    let mut labels = plain(service.metadata.labels.as_ref());
    let changed = labels != plain(current);
    if !has_cluster_ip(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let service_name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), service_name);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    (labels, changed)
}
