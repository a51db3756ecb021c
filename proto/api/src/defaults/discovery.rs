//! Defaults of discovery.k8s.io.

use super::{Defaulter, Fields, set_unset};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    ("io.k8s.api.discovery.v1.EndpointPort", endpoint_port),
    ("io.k8s.api.discovery.v1beta1.EndpointPort", endpoint_port),
];

fn endpoint_port(port: &mut Fields) {
    set_unset(port, "name", "");
    set_unset(port, "protocol", "TCP");
}
