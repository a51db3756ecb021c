//! How certificates live, under upstream's names. They are there only for those that this kubelet
//! keeps itself.

use std::sync::Arc;

use jiff::Timestamp;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, Registry};

use super::manager::Current;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;
/// Upstream's years have twelve months of thirty days here.
const AGES: [f64; 10] = [
    MINUTE,
    HOUR,
    4.0 * HOUR,
    DAY,
    7.0 * DAY,
    30.0 * DAY,
    90.0 * DAY,
    180.0 * DAY,
    360.0 * DAY,
    1440.0 * DAY,
];

/// What a manager counts.
pub struct ManagerMetrics {
    pub renew_errors: IntCounter,
    /// Seconds that a certificate had lived when the next one came.
    pub rotation_age: Option<Histogram>,
}

impl ManagerMetrics {
    /// # Errors
    /// When they are registered already.
    pub fn client(registry: &Registry, current: &Current) -> prometheus::Result<Self> {
        ttl(
            registry,
            current,
            "kubelet_certificate_manager_client_ttl_seconds",
            "Seconds until the kubelet's client certificate expires (negative: since it has); infinite where there is \
             none.",
        )?;
        Ok(Self {
            renew_errors: counter(
                registry,
                "kubelet_certificate_manager_client_expiration_renew_errors",
            )?,
            rotation_age: None,
        })
    }

    /// # Errors
    /// When they are registered already.
    pub fn serving(registry: &Registry, current: &Current) -> prometheus::Result<Self> {
        ttl(
            registry,
            current,
            "kubelet_certificate_manager_server_ttl_seconds",
            "Seconds until the kubelet's serving certificate expires (negative: since it has); infinite where there is \
             none.",
        )?;
        let ages = Histogram::with_opts(
            HistogramOpts::new(
                "kubelet_certificate_manager_server_rotation_seconds",
                "Seconds that the previous certificate had lived when it was replaced.",
            )
            .buckets(AGES.to_vec()),
        )?;
        registry.register(Box::new(ages.clone()))?;
        Ok(Self {
            renew_errors: counter(registry, "kubelet_server_expiration_renew_errors")?,
            rotation_age: Some(ages),
        })
    }
}

fn counter(registry: &Registry, name: &str) -> prometheus::Result<IntCounter> {
    let counter = IntCounter::new(name, "Number of certificates that could not be renewed.")?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// Worked out when somebody asks.
struct Ttl {
    gauge: Gauge,
    current: Current,
}

fn ttl(registry: &Registry, current: &Current, name: &str, help: &str) -> prometheus::Result<()> {
    let gauge = Gauge::new(name, help)?;
    let current = current.clone();
    registry.register(Box::new(Ttl { gauge, current }))
}

impl Collector for Ttl {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Timestamp::now();
        let left = self.current.get(now).map_or(f64::INFINITY, |pair: Arc<_>| {
            now.until(pair.leaf.not_after)
                .map_or(f64::INFINITY, |left| left.get_seconds() as f64)
        });
        self.gauge.set(left);
        self.gauge.collect()
    }
}
