//! What horizontal-pod-autoscaler-controller counts, under upstream's names.

use std::time::Instant;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, exponential_buckets};

use crate::metrics::Meter;

/// By what is done (`scale_up`, `scale_down`, `none`) and why not (`internal`, `none`): specs
/// that could be wrong the API server does not let in.
pub struct Monitor {
    reconciliations: IntCounterVec,
    reconciliation_duration: HistogramVec,
    /// Also by the metric's type.
    computations: IntCounterVec,
    computation_duration: HistogramVec,
    pub scalers: IntGauge,
    /// By namespace and name.
    desired: IntGaugeVec,
}

fn action(from: i32, to: i32) -> &'static str {
    match to.cmp(&from) {
        std::cmp::Ordering::Greater => "scale_up",
        std::cmp::Ordering::Less => "scale_down",
        std::cmp::Ordering::Equal => "none",
    }
}

impl Monitor {
    pub fn new(meter: &Meter) -> prometheus::Result<Self> {
        let name = |name: &str| format!("horizontal_pod_autoscaler_controller_{name}");
        let buckets = || exponential_buckets(0.001, 2.0, 15);
        let metric = ["action", "error", "metric_type"];
        Ok(Self {
            reconciliations: meter.counters(
                &name("reconciliations_total"),
                "How often autoscalers were looked at.",
                &metric[..2],
            )?,
            reconciliation_duration: meter.histograms(
                &name("reconciliation_duration_seconds"),
                "How long it took to look at one.",
                buckets()?,
                &metric[..2],
            )?,
            computations: meter.counters(
                &name("metric_computation_total"),
                "How often it was computed what a metric proposes.",
                &metric,
            )?,
            computation_duration: meter.histograms(
                &name("metric_computation_duration_seconds"),
                "How long it took to compute.",
                buckets()?,
                &metric,
            )?,
            scalers: meter.gauge(
                &name("num_horizontal_pod_autoscalers"),
                "Autoscalers that there are.",
            )?,
            desired: meter.gauges(
                &name("desired_replicas"),
                "How many pods an autoscaler's target is to have.",
                &["namespace", "hpa_name"],
            )?,
        })
    }

    /// The target has been scaled, if `scaled` says from how many to how many.
    pub fn reconciled(&self, scaled: Option<(i32, i32)>, ok: bool, began: Instant) {
        let action = scaled.map_or("none", |(from, to)| action(from, to));
        let labels = [action, if ok { "none" } else { "internal" }];
        self.reconciliations.with_label_values(&labels).inc();
        let duration = self.reconciliation_duration.with_label_values(&labels);
        duration.observe(began.elapsed().as_secs_f64());
    }

    /// A metric proposes so many instead of `from`; `None` when it could not be read.
    pub fn computed(&self, kind: &str, from: i32, proposed: Option<i32>, began: Instant) {
        let (action, error) = match proposed {
            Some(to) => (action(from, to), "none"),
            None => ("none", "internal"),
        };
        let labels = [action, error, kind];
        self.computations.with_label_values(&labels).inc();
        let duration = self.computation_duration.with_label_values(&labels);
        duration.observe(began.elapsed().as_secs_f64());
    }

    pub fn desires(&self, namespace: &str, name: &str, replicas: i32) {
        let desired = self.desired.with_label_values(&[namespace, name]);
        desired.set(replicas.into());
    }

    /// The autoscaler is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        // One that never desired anything is not there.
        let _ = self.desired.remove_label_values(&[namespace, name]);
    }
}
