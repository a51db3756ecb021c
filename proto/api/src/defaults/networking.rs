//! Defaults of networking.k8s.io.

use serde_json::json;

use super::{Defaulter, Fields, is_given, set_empty, set_unset};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    (
        "io.k8s.api.extensions.v1beta1.HTTPIngressPath",
        ingress_path,
    ),
    (
        "io.k8s.api.networking.v1beta1.HTTPIngressPath",
        ingress_path,
    ),
    (
        "io.k8s.api.networking.v1.IngressClassParametersReference",
        class_parameters,
    ),
    ("io.k8s.api.networking.v1.NetworkPolicyPort", policy_port),
    ("io.k8s.api.networking.v1.NetworkPolicySpec", policy_spec),
];

fn class_parameters(parameters: &mut Fields) {
    set_unset(parameters, "scope", "Cluster");
}

/// Only before `networking.k8s.io/v1`, which wants it said.
fn ingress_path(path: &mut Fields) {
    set_unset(path, "pathType", "ImplementationSpecific");
}

fn policy_port(port: &mut Fields) {
    set_unset(port, "protocol", "TCP");
}

fn policy_spec(spec: &mut Fields) {
    // A policy always speaks of ingress; of egress only when it has egress rules.
    let types = if is_given(spec, "egress") {
        json!(["Ingress", "Egress"])
    } else {
        json!(["Ingress"])
    };
    set_empty(spec, "policyTypes", types);
}
