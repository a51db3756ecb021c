//! Metrics of authentication's methods, under upstream's names. How often users were found at
//! all is counted where the request chain asks (`http/access_metrics.rs`).

use std::sync::Arc;
use std::time::Instant;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

/// Seconds: half an hour to a year.
const EXPIRATION_BUCKETS: &[f64] = &[
    0., 1800., 3600., 7200., 21600., 43200., 86400., 172800., 345600., 604800., 2592000., 7776000.,
    15552000., 31104000.,
];

/// What authentication counts.
pub struct Metrics {
    certificate_expiration: Histogram,
    cache_requests: IntCounterVec,
    cache_seconds: HistogramVec,
    cache_fetches: IntCounterVec,
    active_fetches: IntGaugeVec,
    /// Service account tokens of `TokenRequest` with an extended life.
    pub valid_tokens: IntCounter,
    /// Those that should have been replaced by now.
    pub stale_tokens: IntCounter,
    pub legacy_tokens: IntCounter,
    pub legacy_auto_tokens: IntCounter,
    pub legacy_manual_tokens: IntCounter,
    pub invalid_legacy_tokens: IntCounter,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let status = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["status"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let certificate_expiration = Histogram::with_opts(
            HistogramOpts::new(
                "apiserver_client_certificate_expiration_seconds",
                "Seconds that certificates with which clients came are still good for.",
            )
            .buckets(EXPIRATION_BUCKETS.to_vec()),
        )?;
        let cache_seconds = HistogramVec::new(
            HistogramOpts::new(
                "authentication_token_cache_request_duration_seconds",
                "Seconds that finding a token's user took, by whether it was remembered.",
            ),
            &["status"],
        )?;
        let active_fetches = IntGaugeVec::new(
            Opts::new(
                "authentication_token_cache_active_fetch_count",
                "Tokens that are being verified.",
            ),
            &["status"],
        )?;
        registry.register(Box::new(certificate_expiration.clone()))?;
        registry.register(Box::new(cache_seconds.clone()))?;
        registry.register(Box::new(active_fetches.clone()))?;
        Ok(Arc::new(Self {
            certificate_expiration,
            cache_requests: status(
                "authentication_token_cache_request_total",
                "Tokens that were looked up, by whether they were remembered.",
            )?,
            cache_seconds,
            cache_fetches: status(
                "authentication_token_cache_fetch_total",
                "Tokens that were verified anew.",
            )?,
            active_fetches,
            valid_tokens: counter(
                "serviceaccount_valid_tokens_total",
                "Uses of projected service account tokens that are fresh.",
            )?,
            stale_tokens: counter(
                "serviceaccount_stale_tokens_total",
                "Uses of projected service account tokens that should have been replaced.",
            )?,
            legacy_tokens: counter(
                "serviceaccount_legacy_tokens_total",
                "Uses of service account tokens that are kept in secrets.",
            )?,
            legacy_auto_tokens: counter(
                "serviceaccount_legacy_auto_token_uses_total",
                "Uses of such tokens whose secrets were made by the token controller.",
            )?,
            legacy_manual_tokens: counter(
                "serviceaccount_legacy_manual_token_uses_total",
                "Uses of such tokens whose secrets were made by somebody.",
            )?,
            invalid_legacy_tokens: counter(
                "serviceaccount_invalid_legacy_auto_token_uses_total",
                "Uses of such tokens that are marked invalid.",
            )?,
        }))
    }

    /// Metrics that nobody reads.
    #[cfg(test)]
    pub fn unregistered() -> Arc<Self> {
        Self::new(&Registry::new()).expect("an empty registry takes every metric")
    }

    /// A client came with a certificate that is good for so many seconds more.
    pub(super) fn certificate(&self, seconds_left: i64) {
        self.certificate_expiration.observe(seconds_left as f64);
    }

    /// A token is to be verified; the answer counts until it is dropped.
    pub(super) fn fetch(&self) -> impl Drop + '_ {
        struct Active(prometheus::IntGauge);
        impl Drop for Active {
            fn drop(&mut self) {
                self.0.dec();
            }
        }
        let gauge = self.active_fetches.with_label_values(&["in_flight"]);
        gauge.inc();
        Active(gauge)
    }

    pub(super) fn fetched(&self, ok: bool) {
        let status = if ok { "ok" } else { "error" };
        self.cache_fetches.with_label_values(&[status]).inc();
    }

    pub(super) fn token(&self, hit: bool, started: Instant) {
        let status = if hit { "hit" } else { "miss" };
        self.cache_requests.with_label_values(&[status]).inc();
        self.cache_seconds
            .with_label_values(&[status])
            .observe(started.elapsed().as_secs_f64());
    }
}
