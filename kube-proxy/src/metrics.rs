//! The proxy's metrics, under upstream's names.

use component::metrics::Registry;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter};

#[derive(Debug, Clone)]
pub struct Metrics {
    pub sync_duration: Histogram,
    pub last_sync: Gauge,
    pub last_queued: Gauge,
    pub full_syncs: IntCounter,
    pub partial_syncs: IntCounter,
    pub failures: IntCounter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let buckets = prometheus::exponential_buckets(0.001, 2.0, 15)?;
        let metrics = Self {
            sync_duration: Histogram::with_opts(
                HistogramOpts::new(
                    "kubeproxy_sync_proxy_rules_duration_seconds",
                    "How long a sync of the rules took, in seconds.",
                )
                .buckets(buckets),
            )?,
            last_sync: Gauge::new(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "When the rules were last synced.",
            )?,
            last_queued: Gauge::new(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "When a sync of the rules was last asked for.",
            )?,
            full_syncs: IntCounter::new(
                "kubeproxy_sync_full_proxy_rules_total",
                "Syncs that made the whole table.",
            )?,
            partial_syncs: IntCounter::new(
                "kubeproxy_sync_partial_proxy_rules_total",
                "Syncs that changed what had changed.",
            )?,
            failures: IntCounter::new(
                "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
                "Syncs that nft refused.",
            )?,
        };
        registry.register(metrics.sync_duration.clone());
        registry.register(metrics.last_sync.clone());
        registry.register(metrics.last_queued.clone());
        registry.register(metrics.full_syncs.clone());
        registry.register(metrics.partial_syncs.clone());
        registry.register(metrics.failures.clone());
        Ok(metrics)
    }
}
