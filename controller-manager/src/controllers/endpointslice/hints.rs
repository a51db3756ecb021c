//! Hints on endpoints: which zone or node should use them (`spec.trafficDistribution`, KEP-4444
//! and KEP-3015).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForNode, ForZone};

use super::plan::{Changes, endpoints};

/// Where traffic should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preference {
    None,
    SameZone,
    SameNode,
}

fn preference(service: &Service) -> Preference {
    let spec = service.spec.as_ref();
    match spec.and_then(|s| s.traffic_distribution.as_deref()) {
        Some("PreferClose" | "PreferSameZone") => Preference::SameZone,
        Some("PreferSameNode") => Preference::SameNode,
        _ => Preference::None,
    }
}

fn hints(endpoint: &Endpoint, preference: Preference) -> Option<EndpointHints> {
    let zone = endpoint
        .zone
        .clone()
        .filter(|_| preference != Preference::None);
    let node = endpoint
        .node_name
        .clone()
        .filter(|_| preference == Preference::SameNode);
    (zone.is_some() || node.is_some()).then(|| EndpointHints {
        for_zones: zone.map(|name| vec![ForZone { name }]),
        for_nodes: node.map(|name| vec![ForNode { name }]),
    })
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready) == Some(true)
}

/// Whether the endpoint's hints are what they should be. Those of endpoints that are not ready
/// are nobody's concern as long as there is a preference.
fn is_right(endpoint: &Endpoint, preference: Preference) -> bool {
    if preference == Preference::None {
        return endpoint.hints.is_none();
    }
    !is_ready(endpoint) || endpoint.hints == hints(endpoint, preference)
}

/// Sets hints in the slices that are written, and has slices written whose hints are wrong.
pub(super) fn apply(service: &Service, existing: &[Arc<EndpointSlice>], changes: &mut Changes) {
    let preference = preference(service);
    for slice in existing {
        let name = &slice.metadata.name;
        let changes_anyway = changes.update.iter().any(|s| s.metadata.name == *name)
            || changes.delete.iter().any(|s| s.metadata.name == *name);
        if !changes_anyway && !endpoints(slice).iter().all(|e| is_right(e, preference)) {
            changes.update.push(EndpointSlice::clone(slice));
        }
    }
    let slices = changes.create.iter_mut().chain(&mut changes.update);
    for endpoint in slices.flat_map(|s| s.endpoints.iter_mut().flatten()) {
        if !is_right(endpoint, preference) {
            endpoint.hints = hints(endpoint, preference);
        }
    }
}
