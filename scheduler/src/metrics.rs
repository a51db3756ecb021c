//! The scheduler's metrics, under upstream's names.

use std::time::Duration;

use component::metrics::Registry;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    exponential_buckets,
};

use crate::queue::{Counts, Taken};

#[derive(Debug, Clone)]
pub struct Metrics {
    /// By result (`scheduled`, `unschedulable`, `error`) and profile.
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    algorithm_duration: Histogram,
    /// By extension point, status and profile.
    extension_points: HistogramVec,
    /// From first seen to bound, by the number of attempts it took.
    sli_duration: HistogramVec,
    attempts_per_pod: Histogram,
    after_flush: IntCounter,
    pub preemptions: IntCounter,
    victims: Histogram,
    pub incoming: IntCounterVec,
    pub unschedulable: IntGaugeVec,
    /// By what they do: `binding`.
    pub goroutines: IntGaugeVec,
    pub event_handling: HistogramVec,
    /// Claims made for extended resources, by `success` or `failure`.
    pub claims_made: IntCounterVec,
    /// Devices that had to become ready, by profile, driver and what came of it.
    pub device_bindings: IntCounterVec,
    pub device_waits: HistogramVec,
    evictions: HistogramVec,
    eviction_rounds: IntCounterVec,
    pending: IntGaugeVec,
    cache_size: IntGaugeVec,
    pub groups: GroupMetrics,
}

/// Of groups of pods, where there are any.
#[derive(Debug, Clone)]
pub struct GroupMetrics {
    /// By result (`scheduled`, `unschedulable`, `waiting_on_preemption`, `error`) and profile.
    attempts: IntCounterVec,
    duration: HistogramVec,
    algorithm: Histogram,
}

impl GroupMetrics {
    fn new() -> prometheus::Result<Self> {
        let seconds = exponential_buckets(0.001, 2.0, 15)?;
        let labels = &["result", "profile"];
        Ok(Self {
            attempts: IntCounterVec::new(
                Opts::new(
                    "scheduler_podgroup_schedule_attempts_total",
                    "Attempts to schedule a group of pods, by their result.",
                ),
                labels,
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "scheduler_podgroup_scheduling_attempt_duration_seconds",
                    "How long an attempt to schedule a group of pods took.",
                )
                .buckets(seconds.clone()),
                labels,
            )?,
            algorithm: Histogram::with_opts(
                HistogramOpts::new(
                    "scheduler_podgroup_scheduling_algorithm_duration_seconds",
                    "How long it took to decide about a group of pods.",
                )
                .buckets(seconds),
            )?,
        })
    }

    pub fn register(&self, registry: &Registry) {
        registry.register(self.attempts.clone());
        registry.register(self.duration.clone());
        registry.register(self.algorithm.clone());
    }

    pub fn algorithm(&self, took: Duration) {
        self.algorithm.observe(took.as_secs_f64());
    }

    pub fn attempted(&self, profile: &str, result: &str, took: Duration) {
        let labels = [result, profile];
        self.attempts.with_label_values(&labels).inc();
        let duration = self.duration.with_label_values(&labels);
        duration.observe(took.as_secs_f64());
    }
}

impl Metrics {
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let seconds = exponential_buckets(0.001, 2.0, 15)?;
        let counter = |name: &str, help: &str| IntCounter::new(name, help);
        let counters = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))
        };
        let histograms = |name: &str, help: &str, buckets: Vec<f64>, labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)
        };
        let metrics = Self {
            attempts: counters(
                "scheduler_schedule_attempts_total",
                "Attempts to schedule a pod, by their result.",
                &["result", "profile"],
            )?,
            attempt_duration: histograms(
                "scheduler_scheduling_attempt_duration_seconds",
                "How long an attempt took, binding included.",
                seconds.clone(),
                &["result", "profile"],
            )?,
            algorithm_duration: histogram(
                "scheduler_scheduling_algorithm_duration_seconds",
                "How long it took to decide.",
                seconds,
            )?,
            extension_points: histograms(
                "scheduler_framework_extension_point_duration_seconds",
                "How long it took to run an extension point's plugins: Filter is all of a decision, whose plugins are asked only of what has changed; PreBind; Bind.",
                exponential_buckets(0.0001, 2.0, 12)?,
                &["extension_point", "status", "profile"],
            )?,
            sli_duration: histograms(
                "scheduler_pod_scheduling_sli_duration_seconds",
                "From a pod being seen to its binding, by the attempts it took.",
                exponential_buckets(0.01, 2.0, 20)?,
                &["attempts"],
            )?,
            attempts_per_pod: histogram(
                "scheduler_pod_scheduling_attempts",
                "Attempts that it took to schedule a pod.",
                exponential_buckets(1.0, 2.0, 5)?,
            )?,
            after_flush: counter(
                "scheduler_pod_scheduled_after_flush_total",
                "Pods that were scheduled after waiting for so long that no event was waited for.",
            )?,
            preemptions: counter(
                "scheduler_preemption_attempts_total",
                "How often preemption was tried.",
            )?,
            victims: histogram(
                "scheduler_preemption_victims",
                "Pods that were chosen to leave for another.",
                exponential_buckets(1.0, 2.0, 7)?,
            )?,
            incoming: counters(
                "scheduler_queue_incoming_pods_total",
                "Pods put into a queue, by the queue and what made them come.",
                &["queue", "event"],
            )?,
            unschedulable: gauges(
                "scheduler_unschedulable_pods",
                "Pods that wait, by each plugin that rejected them.",
                &["plugin", "profile"],
            )?,
            goroutines: gauges(
                "scheduler_goroutines",
                "Tasks that run, by what they do.",
                &["operation"],
            )?,
            event_handling: histograms(
                "scheduler_event_handling_duration_seconds",
                "How long it took to see whom an event helps.",
                exponential_buckets(0.0001, 2.0, 12)?,
                &["event"],
            )?,
            claims_made: counters(
                "scheduler_resourceclaim_creates_total",
                "Claims that were made for extended resources.",
                &["status"],
            )?,
            device_bindings: counters(
                "scheduler_dra_bindingconditions_allocations_total",
                "Allocated devices that had to become ready, once for each attempt.",
                &["profile", "driver", "status"],
            )?,
            device_waits: histograms(
                "scheduler_dra_bindingconditions_wait_duration_seconds",
                "How long pods waited for their devices to become ready.",
                exponential_buckets(0.1, 2.0, 14)?,
                &["profile", "driver", "status"],
            )?,
            evictions: histograms(
                "scheduler_preemption_goroutines_duration_seconds",
                "How long it took to tell the victims of a preemption.",
                exponential_buckets(0.01, 2.0, 20)?,
                &["result"],
            )?,
            eviction_rounds: counters(
                "scheduler_preemption_goroutines_execution_total",
                "How often victims of a preemption were told.",
                &["result"],
            )?,
            pending: gauges(
                "scheduler_pending_pods",
                "Pods that wait, by where in the queue.",
                &["queue"],
            )?,
            cache_size: gauges(
                "scheduler_cache_size",
                "Nodes, pods on them, and pods sent to them, as the scheduler sees them.",
                &["type"],
            )?,
            groups: GroupMetrics::new()?,
        };
        registry.register(metrics.attempts.clone());
        registry.register(metrics.attempt_duration.clone());
        registry.register(metrics.algorithm_duration.clone());
        registry.register(metrics.extension_points.clone());
        registry.register(metrics.sli_duration.clone());
        registry.register(metrics.attempts_per_pod.clone());
        registry.register(metrics.after_flush.clone());
        registry.register(metrics.preemptions.clone());
        registry.register(metrics.victims.clone());
        registry.register(metrics.incoming.clone());
        registry.register(metrics.unschedulable.clone());
        registry.register(metrics.goroutines.clone());
        registry.register(metrics.event_handling.clone());
        registry.register(metrics.claims_made.clone());
        registry.register(metrics.device_bindings.clone());
        registry.register(metrics.device_waits.clone());
        registry.register(metrics.evictions.clone());
        registry.register(metrics.eviction_rounds.clone());
        registry.register(metrics.pending.clone());
        registry.register(metrics.cache_size.clone());
        Ok(metrics)
    }

    pub fn pending(&self, counts: Counts) {
        for (queue, count) in [
            ("active", counts.active),
            ("backoff", counts.backoff),
            ("unschedulable", counts.unschedulable),
            ("gated", counts.gated),
        ] {
            self.pending.with_label_values(&[queue]).set(number(count));
        }
    }

    pub fn cache_size(&self, nodes: usize, pods: usize, assumed: usize) {
        for (what, count) in [("nodes", nodes), ("pods", pods), ("assumed_pods", assumed)] {
            self.cache_size
                .with_label_values(&[what])
                .set(number(count));
        }
    }

    pub fn algorithm(&self, took: Duration) {
        self.algorithm_duration.observe(took.as_secs_f64());
    }

    /// The plugins of an extension point have run.
    pub fn ran(&self, point: &str, succeeded: bool, profile: &str, took: Duration) {
        let status = if succeeded { "Success" } else { "Error" };
        let labels = [point, status, profile];
        let duration = self.extension_points.with_label_values(&labels);
        duration.observe(took.as_secs_f64());
    }

    /// So many pods have been chosen to leave for another.
    pub fn preempts(&self, victims: usize) {
        #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
        self.victims.observe(victims as f64);
    }

    /// The victims of a preemption have been told, or not all of them.
    pub fn evicted(&self, all: bool, took: Duration) {
        let result = if all { "success" } else { "error" };
        self.eviction_rounds.with_label_values(&[result]).inc();
        let evictions = self.evictions.with_label_values(&[result]);
        evictions.observe(took.as_secs_f64());
    }

    /// Devices that had to become ready have, or have not.
    pub fn waited_for_devices(
        &self,
        profile: &str,
        drivers: &[(&str, bool)],
        status: &str,
        took: Duration,
    ) {
        for (driver, conditional) in drivers {
            let labels = [profile, driver, status];
            let waits = self.device_waits.with_label_values(&labels);
            waits.observe(took.as_secs_f64());
            if *conditional {
                self.device_bindings.with_label_values(&labels).inc();
            }
        }
    }

    pub fn attempted(&self, profile: &str, result: &str, seconds: f64) {
        self.attempts.with_label_values(&[result, profile]).inc();
        self.attempt_duration
            .with_label_values(&[result, profile])
            .observe(seconds);
    }

    /// A pod has got its node.
    pub fn scheduled(&self, taken: &Taken) {
        let attempts = if taken.attempts < 15 {
            taken.attempts.to_string()
        } else {
            "15+".to_owned()
        };
        self.sli_duration
            .with_label_values(&[attempts.as_str()])
            .observe(taken.first_seen.elapsed().as_secs_f64());
        self.attempts_per_pod.observe(taken.attempts.into());
        if taken.flushed {
            self.after_flush.inc();
        }
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
