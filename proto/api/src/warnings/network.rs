//! Services, what leads to them and from where: fields that are ignored, addresses that are badly written.

use meta::field::Path;
use serde_json::Value;

use super::{Warnings, addresses, annotations, items, list, text};

fn is_filled(list: &Value) -> bool {
    list.as_array().is_some_and(|items| !items.is_empty())
}

pub(super) fn service(warnings: &mut Warnings, service: &Value) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let (spec, path) = (&service["spec"], Path::new("spec"));
    let (kind, cluster_ip) = (text(spec, "type"), text(spec, "clusterIP"));
    let external_name = kind == "ExternalName";
    let headless = kind == "ClusterIP" && cluster_ip == "None";
    let external_ips = is_filled(&spec["externalIPs"]);
    let balancer_ip = text(spec, "loadBalancerIP");

    if annotations(service).get(HINTS).is_some() {
        warnings.say(format!(
            "annotation {HINTS} is deprecated, please use {MODE} instead"
        ));
    }
    if !matches!(cluster_ip, "" | "None") {
        ips(warnings, spec, &path, "clusterIPs");
    }
    if headless {
        for (field, given) in [
            ("loadBalancerIP", !balancer_ip.is_empty()),
            ("externalIPs", external_ips),
            ("SessionAffinity", spec["sessionAffinity"] == "ClientIP"),
        ] {
            if given {
                warnings.say(format!("spec.{field} is ignored for headless services"));
            }
        }
    }
    ips(warnings, spec, &path, "externalIPs");
    if external_ips && !headless && !external_name {
        warnings.say(
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
        );
    }
    addresses::ip(warnings, &path.child("loadBalancerIP"), balancer_ip);
    for (range, at) in list(spec, &path, "loadBalancerSourceRanges") {
        addresses::cidr(warnings, &at, range.as_str().unwrap_or_default());
    }
    if external_name && external_ips {
        warnings.say("spec.externalIPs is ignored when spec.type is \"ExternalName\"");
    }
    if !external_name && !text(spec, "externalName").is_empty() {
        warnings.say("spec.externalName is ignored when spec.type is not \"ExternalName\"");
    }
    if spec["trafficDistribution"] == "PreferClose" {
        warnings
            .say("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"");
    }
}

/// A list of addresses.
pub(super) fn ips(warnings: &mut Warnings, of: &Value, path: &Path, name: &'static str) {
    for (address, at) in list(of, path, name) {
        addresses::ip(warnings, &at, address.as_str().unwrap_or_default());
    }
}

/// A list of objects that have an address.
fn ips_within(warnings: &mut Warnings, of: &Value, path: &Path, name: &'static str) {
    for (item, at) in list(of, path, name) {
        addresses::ip(warnings, &at.child("ip"), text(item, "ip"));
    }
}

/// What a cloud says in a status of how to reach a service or an ingress.
pub(super) fn balancer(warnings: &mut Warnings, object: &Value) {
    let path = Path::new("status").child("loadBalancer");
    let balancer = &object["status"]["loadBalancer"];
    for (ingress, at) in list(balancer, &path, "ingress") {
        addresses::ip(warnings, &at, text(ingress, "ip"));
    }
}

pub(super) fn pod_addresses(warnings: &mut Warnings, pod: &Value) {
    for name in ["podIPs", "hostIPs"] {
        ips_within(warnings, &pod["status"], &Path::new("status"), name);
    }
}

pub(super) fn endpoints(warnings: &mut Warnings, endpoints: &Value) {
    // What our own controller writes is right, and it writes a lot.
    const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
    if endpoints["metadata"]["labels"][MANAGED_BY] == "endpoint-controller" {
        return;
    }
    for (subset, at) in items(&endpoints["subsets"], &Path::new("subsets")) {
        for name in ["addresses", "notReadyAddresses"] {
            ips_within(warnings, subset, &at, name);
        }
    }
}

pub(super) fn address_type(warnings: &mut Warnings, slice: &Value) {
    if slice["addressType"] == "FQDN" {
        warnings.say("spec.addressType: FQDN endpoints are deprecated");
    }
}

pub(super) fn endpoint_slice(warnings: &mut Warnings, slice: &Value) {
    // The same.
    const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
    if matches!(
        text(&slice["metadata"]["labels"], MANAGED_BY),
        "endpointslice-controller.k8s.io" | "endpointslicemirroring-controller.k8s.io"
    ) {
        return;
    }
    for (endpoint, at) in items(&slice["endpoints"], &Path::new("endpoints")) {
        ips(warnings, endpoint, &at, "addresses");
    }
}

pub(super) fn ingress(warnings: &mut Warnings, ingress: &Value) {
    const CLASS: &str = "kubernetes.io/ingress.class";
    let annotated = annotations(ingress).get(CLASS).is_some();
    if annotated && ingress["spec"]["ingressClassName"].is_null() {
        warnings.say(format!(
            "annotation \"{CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"
        ));
    }
}

pub(super) fn node(warnings: &mut Warnings, spec: &Value) {
    if !spec["configSource"].is_null() {
        warnings.say("spec.configSource: the feature is removed");
    }
    if !text(spec, "externalID").is_empty() {
        warnings.say("spec.externalID: this field is deprecated, and is unused by Kubernetes");
    }
    for (cidr, at) in list(spec, &Path::new("spec"), "podCIDRs") {
        addresses::cidr(warnings, &at, cidr.as_str().unwrap_or_default());
    }
}

pub(super) fn policy(warnings: &mut Warnings, spec: &Value) {
    let path = Path::new("spec");
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (rule, at) in list(spec, &path, direction) {
            for (peer, at) in list(rule, &at, peers) {
                let (block, at) = (&peer["ipBlock"], at.child("ipBlock"));
                addresses::cidr(warnings, &at.child("cidr"), text(block, "cidr"));
                for (except, at) in list(block, &at, "except") {
                    addresses::cidr(warnings, &at, except.as_str().unwrap_or_default());
                }
            }
        }
    }
}
