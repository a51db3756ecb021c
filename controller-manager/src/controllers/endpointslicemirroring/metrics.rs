//! What endpointslice-mirroring-controller counts, under upstream's names.

use std::time::Instant;

use client::informer::Store;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use prometheus::{Histogram, IntCounterVec, exponential_buckets};

use super::mirrored;
use crate::metrics::{Meter, number};

pub struct Metrics {
    skipped: Histogram,
    /// In seconds.
    duration: Histogram,
    /// By `create`, `update` and `delete`.
    changes: IntCounterVec,
}

fn name(name: &str) -> String {
    format!("endpoint_slice_mirroring_controller_{name}")
}

impl Metrics {
    pub fn new(meter: &Meter) -> prometheus::Result<Self> {
        Ok(Self {
            skipped: meter.histogram(
                &name("addresses_skipped_per_sync"),
                "Addresses that were not mirrored in a sync.",
                exponential_buckets(2.0, 2.0, 15)?,
            )?,
            duration: meter.histogram(
                &name("endpoints_sync_duration"),
                "How long it took to look at Endpoints.",
                exponential_buckets(0.001, 2.0, 15)?,
            )?,
            changes: meter.counters(
                &name("changes"),
                "Changes of EndpointSlices.",
                &["operation"],
            )?,
        })
    }

    pub fn changed(&self, operation: &str) {
        self.changes.with_label_values(&[operation]).inc();
    }

    #[allow(clippy::cast_precision_loss, reason = "a number of addresses")]
    pub fn skipped(&self, addresses: usize) {
        self.skipped.observe(addresses as f64);
    }

    pub fn synced(&self, began: Instant) {
        self.duration.observe(began.elapsed().as_secs_f64());
    }
}

/// Counts the slices and endpoints that there are whenever it is asked for. A subset is
/// mirrored in one slice of each family: there are never more than there need be.
pub fn count_slices(meter: &Meter, slices: &Store<EndpointSlice>) -> prometheus::Result<()> {
    let endpoints = meter.gauge(&name("endpoints_desired"), "Endpoints that there are.")?;
    let actual = meter.gauge(
        &name("num_endpoint_slices"),
        "EndpointSlices that there are.",
    )?;
    let desired = meter.gauge(
        &name("desired_endpoint_slices"),
        "EndpointSlices that there would be if each was as full as may be.",
    )?;
    let slices = slices.clone();
    meter.before_gathering(move || {
        let all = slices.list();
        let ours: Vec<_> = all.iter().filter(|s| mirrored(s).is_some()).collect();
        let own = |slice: &&std::sync::Arc<EndpointSlice>| slice.endpoints.iter().flatten().count();
        endpoints.set(number(ours.iter().map(own).sum()));
        actual.set(number(ours.len()));
        desired.set(number(ours.len()));
    });
    Ok(())
}
