//! The scheduler's metrics, under upstream's names.

use component::metrics::Registry;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, exponential_buckets,
};

use crate::queue::Counts;

#[derive(Debug, Clone)]
pub struct Metrics {
    /// By result (`scheduled`, `unschedulable`, `error`) and profile.
    pub attempts: IntCounterVec,
    pub attempt_duration: HistogramVec,
    /// From first seen to bound, by the number of attempts it took.
    pub sli_duration: HistogramVec,
    pending: IntGaugeVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let buckets = exponential_buckets(0.001, 2.0, 15)?;
        let metrics = Self {
            attempts: IntCounterVec::new(
                Opts::new(
                    "scheduler_schedule_attempts_total",
                    "Attempts to schedule a pod, by their result.",
                ),
                &["profile", "result"],
            )?,
            attempt_duration: HistogramVec::new(
                HistogramOpts::new(
                    "scheduler_scheduling_attempt_duration_seconds",
                    "How long an attempt took, binding included.",
                )
                .buckets(buckets),
                &["profile", "result"],
            )?,
            sli_duration: HistogramVec::new(
                HistogramOpts::new(
                    "scheduler_pod_scheduling_sli_duration_seconds",
                    "From a pod being seen to its binding, by the attempts it took.",
                )
                .buckets(exponential_buckets(0.01, 2.0, 20)?),
                &["attempts"],
            )?,
            pending: IntGaugeVec::new(
                Opts::new(
                    "scheduler_pending_pods",
                    "Pods that wait, by where in the queue.",
                ),
                &["queue"],
            )?,
        };
        registry.register(metrics.attempts.clone());
        registry.register(metrics.attempt_duration.clone());
        registry.register(metrics.sli_duration.clone());
        registry.register(metrics.pending.clone());
        Ok(metrics)
    }

    pub fn pending(&self, counts: Counts) {
        for (queue, count) in [
            ("active", counts.active),
            ("backoff", counts.backoff),
            ("unschedulable", counts.unschedulable),
            ("gated", counts.gated),
        ] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.pending.with_label_values(&[queue]).set(count);
        }
    }

    pub fn attempted(&self, profile: &str, result: &str, seconds: f64) {
        self.attempts.with_label_values(&[profile, result]).inc();
        self.attempt_duration
            .with_label_values(&[profile, result])
            .observe(seconds);
    }
}
