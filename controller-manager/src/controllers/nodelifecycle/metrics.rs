//! What node-lifecycle-controller counts of zones, under upstream's names.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use prometheus::{GaugeVec, Histogram, IntCounterVec, IntGaugeVec, exponential_buckets};

use crate::metrics::{Meter, number};

pub struct Metrics {
    /// In percent.
    health: GaugeVec,
    size: IntGaugeVec,
    unhealthy: IntGaugeVec,
    evictions: IntCounterVec,
    /// Seconds that it took to look at all nodes, and at one.
    pub all: Histogram,
    pub one: Histogram,
    /// Zones that there were.
    zones: Mutex<Vec<String>>,
}

impl Metrics {
    pub fn new(meter: &Meter) -> prometheus::Result<Self> {
        let zone = ["zone"];
        Ok(Self {
            health: meter.float_gauges(
                "node_collector_zone_health",
                "How much of a zone is ready, in percent.",
                &zone,
            )?,
            size: meter.gauges(
                "node_collector_zone_size",
                "How many nodes a zone has.",
                &zone,
            )?,
            unhealthy: meter.gauges(
                "node_collector_unhealthy_nodes_in_zone",
                "How many nodes of a zone are not ready.",
                &zone,
            )?,
            evictions: meter.counters(
                "node_collector_evictions_total",
                "How often nodes of a zone were tainted, for their pods to leave.",
                &zone,
            )?,
            all: meter.histogram(
                "node_collector_update_all_nodes_health_duration_seconds",
                "How long it took to look at all nodes.",
                exponential_buckets(0.01, 4.0, 8)?,
            )?,
            one: meter.histogram(
                "node_collector_update_node_health_duration_seconds",
                "How long it took to look at a node.",
                exponential_buckets(0.001, 4.0, 8)?,
            )?,
            zones: Mutex::default(),
        })
    }

    /// How many nodes of each zone are ready, and how many are not.
    #[allow(clippy::cast_precision_loss, reason = "a number of nodes")]
    pub fn seen(&self, counts: &BTreeMap<String, (usize, usize)>) {
        let mut zones = self.zones.lock();
        for zone in zones.iter().filter(|zone| !counts.contains_key(*zone)) {
            let zone = [zone.as_str()];
            self.size.with_label_values(&zone).set(0);
            self.health.with_label_values(&zone).set(100.0);
            self.unhealthy.with_label_values(&zone).set(0);
        }
        for (zone, (ready, not)) in counts {
            let zone = [zone.as_str()];
            let all = ready + not;
            self.size.with_label_values(&zone).set(number(all));
            let health = 100.0 * *ready as f64 / all.max(1) as f64;
            self.health.with_label_values(&zone).set(health);
            self.unhealthy.with_label_values(&zone).set(number(*not));
            // A zone without evictions is told of, too.
            self.evictions.with_label_values(&zone).inc_by(0);
        }
        *zones = counts.keys().cloned().collect();
    }

    pub fn evicted(&self, zone: &str) {
        self.evictions.with_label_values(&[zone]).inc();
    }
}
