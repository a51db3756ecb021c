//! Defaults of resource.k8s.io.

use super::{Defaulter, Fields, set_empty, set_unset, text};
use serde_json::Value;

pub(super) const DEFAULTERS: &[(&str, Defaulter)] = &[
    ("io.k8s.api.resource.v1.Device", device),
    ("io.k8s.api.resource.v1.DeviceSubRequest", device_request),
    ("io.k8s.api.resource.v1.DeviceTaint", device_taint),
    ("io.k8s.api.resource.v1.ExactDeviceRequest", device_request),
    ("io.k8s.api.resource.v1alpha3.DeviceTaint", device_taint),
    ("io.k8s.api.resource.v1beta1.BasicDevice", device),
    ("io.k8s.api.resource.v1beta1.DeviceRequest", flat_request),
    (
        "io.k8s.api.resource.v1beta1.DeviceSubRequest",
        device_request,
    ),
    ("io.k8s.api.resource.v1beta1.DeviceTaint", device_taint),
    ("io.k8s.api.resource.v1beta2.Device", device),
    (
        "io.k8s.api.resource.v1beta2.DeviceSubRequest",
        device_request,
    ),
    ("io.k8s.api.resource.v1beta2.DeviceTaint", device_taint),
    (
        "io.k8s.api.resource.v1beta2.ExactDeviceRequest",
        device_request,
    ),
];

/// A request that names no class has alternatives, of which each says how many.
fn flat_request(request: &mut Fields) {
    if !text(request, "deviceClassName").is_empty() {
        device_request(request);
    }
}

fn device_request(request: &mut Fields) {
    set_empty(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" {
        set_empty(request, "count", 1);
    }
}

fn device(device: &mut Fields) {
    let mappings = device
        .get_mut("nodeAllocatableResourceMappings")
        .and_then(Value::as_object_mut);
    for mapping in mappings.into_iter().flat_map(|all| all.values_mut()) {
        if let Some(mapping) = mapping.as_object_mut() {
            set_unset(mapping, "allocationMultiplier", "1");
        }
    }
}

/// A taint without a time is as old as the request that brings it.
fn device_taint(taint: &mut Fields) {
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second());
    if let Ok(now) = now {
        set_unset(taint, "timeAdded", now.to_string());
    }
}
