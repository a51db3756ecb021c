//! Defaults of resource.k8s.io.

use super::{Defaulter, Fields, set_empty, text};

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    ("io.k8s.api.resource.v1.DeviceSubRequest", device_request),
    ("io.k8s.api.resource.v1.ExactDeviceRequest", device_request),
];

fn device_request(request: &mut Fields) {
    set_empty(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        set_empty(request, "count", 1);
    }
}
