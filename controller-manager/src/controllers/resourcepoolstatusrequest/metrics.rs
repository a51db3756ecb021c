//! Requests that were answered, under upstream's names.

use std::time::Instant;

use prometheus::{HistogramVec, IntCounterVec, exponential_buckets};

use crate::metrics::Meter;

const PREFIX: &str = "resourcepoolstatusrequest_controller";

pub struct Processed {
    total: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
}

impl Processed {
    pub fn new(meter: &Meter) -> prometheus::Result<Self> {
        Ok(Self {
            total: meter.counters(
                &format!("{PREFIX}_requests_processed_total"),
                "Requests that were answered, or could not be.",
                &["driver_name"],
            )?,
            errors: meter.counters(
                &format!("{PREFIX}_request_processing_errors_total"),
                "Answers that could not be written.",
                &["driver_name"],
            )?,
            duration: meter.histograms(
                &format!("{PREFIX}_request_processing_duration_seconds"),
                "How long an answer took.",
                exponential_buckets(0.001, 2.0, 15)?,
                &["driver_name"],
            )?,
        })
    }

    pub fn done(&self, driver: &str, began: Instant, written: bool) {
        self.total.with_label_values(&[driver]).inc();
        if !written {
            self.errors.with_label_values(&[driver]).inc();
        }
        let duration = self.duration.with_label_values(&[driver]);
        duration.observe(began.elapsed().as_secs_f64());
    }
}
