//! Hints on endpoints: which zone or node should use them (`spec.trafficDistribution`, KEP-4444
//! and KEP-3015; by annotation, see [`topology`]).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForNode, ForZone};

use super::plan::{Changes, Observed, Plan, endpoints};
use super::topology::{self, Notice};

/// Where traffic should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preference {
    None,
    SameZone,
    SameNode,
}

/// What the Service says of where its traffic should go; nothing if its endpoints are to be
/// shared out among zones, which comes first.
pub fn distribution(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    let distribution = spec.traffic_distribution.as_deref();
    distribution.filter(|_| !topology::is_wanted(service))
}

fn preference(service: &Service) -> Preference {
    match distribution(service) {
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

pub(super) fn is_ready(endpoint: &Endpoint) -> bool {
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
pub(super) fn apply(
    observed: &Observed,
    address_type: &str,
    existing: &[Arc<EndpointSlice>],
    changes: &mut Changes,
    plan: &mut Plan,
) {
    let service = observed.service;
    if topology::is_wanted(service) {
        match topology::share_out(observed.zones, existing, changes) {
            Ok(spread) => {
                if plan.given.give(address_type, spread) {
                    plan.notices.push(Notice::enabled(address_type));
                }
                return;
            }
            Err(why) => {
                plan.notices.push(Notice::disabled(&why, address_type));
                plan.given.take(address_type);
            }
        }
    } else if plan.given.take(address_type) {
        let why = "Topology Aware Hints has been disabled";
        plan.notices.push(Notice::disabled(why, address_type));
    }
    let preference = preference(service);
    for slice in changes.untouched(existing) {
        if !endpoints(slice).iter().all(|e| is_right(e, preference)) {
            changes.update.push(EndpointSlice::clone(slice));
        }
    }
    for endpoint in changes.written() {
        if !is_right(endpoint, preference) {
            endpoint.hints = hints(endpoint, preference);
        }
    }
}
