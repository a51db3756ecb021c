//! The client's own metrics, under upstream's names.

use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Requests of all clients that it is given to. Cheap to clone.
#[derive(Clone)]
pub struct ClientMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    retries: IntCounterVec,
    limited: HistogramVec,
}

impl ClientMetrics {
    /// Registers the metrics. Give the result to [`Client::with_metrics`](crate::Client::with_metrics).
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            HistogramVec::new(
                HistogramOpts::new(name, help).buckets(buckets),
                &["verb", "host"],
            )
        };
        let metrics = Self {
            requests: IntCounterVec::new(
                Opts::new(
                    "rest_client_requests_total",
                    "Number of HTTP requests, partitioned by status code, method, and host.",
                ),
                &["code", "method", "host"],
            )?,
            duration: histogram(
                "rest_client_request_duration_seconds",
                "Seconds until the head of an answer, by verb and host.",
                vec![
                    0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
                ],
            )?,
            retries: IntCounterVec::new(
                Opts::new(
                    "rest_client_request_retries_total",
                    "Number of request retries, partitioned by status code, verb, and host.",
                ),
                &["code", "verb", "host"],
            )?,
            limited: histogram(
                "rest_client_rate_limiter_duration_seconds",
                "Seconds that the client's own rate limit held a request back, by verb and host.",
                vec![
                    0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
                ],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.retries.clone()))?;
        registry.register(Box::new(metrics.limited.clone()))?;
        Ok(metrics)
    }

    /// `code` is a status code, or `<error>` if there was no answer.
    pub(crate) fn answered(&self, code: &str, method: &str, host: &str, took: Duration) {
        self.requests.with_label_values(&[code, method, host]).inc();
        self.duration
            .with_label_values(&[method, host])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn retried(&self, code: &str, method: &str, host: &str) {
        self.retries.with_label_values(&[code, method, host]).inc();
    }

    pub(crate) fn held_back(&self, method: &str, host: &str, waited: Duration) {
        self.limited
            .with_label_values(&[method, host])
            .observe(waited.as_secs_f64());
    }
}
