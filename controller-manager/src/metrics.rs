//! How controllers make their metrics. Which ones, each controller's own folder says.

use std::time::Instant;

use client::Error;
use component::metrics::Registry;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Result, exponential_buckets,
};

/// Makes and registers metrics. Cheap to clone.
#[derive(Clone)]
pub struct Meter(Registry);

impl Meter {
    pub fn new(registry: &Registry) -> Self {
        Self(registry.clone())
    }

    pub fn counter(&self, name: &str, help: &str) -> Result<IntCounter> {
        let counter = IntCounter::new(name, help)?;
        self.0.register(counter.clone());
        Ok(counter)
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(counters.clone());
        Ok(counters)
    }

    pub fn gauge(&self, name: &str, help: &str) -> Result<IntGauge> {
        let gauge = IntGauge::new(name, help)?;
        self.0.register(gauge.clone());
        Ok(gauge)
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(gauges.clone());
        Ok(gauges)
    }

    pub fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        let gauges = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(gauges.clone());
        Ok(gauges)
    }

    pub fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram> {
        let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
        self.0.register(histogram.clone());
        Ok(histogram)
    }

    pub fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: Vec<f64>,
        labels: &[&str],
    ) -> Result<HistogramVec> {
        let opts = HistogramOpts::new(name, help).buckets(buckets);
        let histograms = HistogramVec::new(opts, labels)?;
        self.0.register(histograms.clone());
        Ok(histograms)
    }

    /// Has gauges brought up to date whenever they are asked for.
    pub fn before_gathering(&self, update: impl Fn() + Send + Sync + 'static) {
        self.0.before_gathering(update);
    }
}

/// For gauges.
pub fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Pods that were deleted for taints, and how long after they were due.
#[derive(Clone)]
pub struct Deletions {
    total: IntCounter,
    duration: Histogram,
}

impl Deletions {
    /// `controller` is what names begin with.
    pub fn new(meter: &Meter, controller: &str) -> Result<Self> {
        let buckets = [
            0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0, 180.0, 240.0,
        ];
        Ok(Self {
            total: meter.counter(
                &format!("{controller}_pod_deletions_total"),
                "Pods that were deleted for the taints of what they use.",
            )?,
            duration: meter.histogram(
                &format!("{controller}_pod_deletion_duration_seconds"),
                "From when a pod was due to its deletion.",
                buckets.to_vec(),
            )?,
        })
    }

    pub fn happened(&self, due: jiff::Timestamp) {
        self.total.inc();
        let late = jiff::Timestamp::now().duration_since(due);
        self.duration.observe(late.as_secs_f64().max(0.0));
    }
}

/// What those who publish something count, by the code that the API server answered with.
#[derive(Clone)]
pub struct Syncs {
    total: IntCounterVec,
    duration: HistogramVec,
}

impl Syncs {
    /// `publisher` is what names begin with.
    pub fn new(meter: &Meter, publisher: &str) -> Result<Self> {
        Ok(Self {
            total: meter.counters(
                &format!("{publisher}_sync_total"),
                "Looks at what is to be published.",
                &["code"],
            )?,
            duration: meter.histograms(
                &format!("{publisher}_sync_duration_seconds"),
                "How long a look took.",
                exponential_buckets(0.001, 2.0, 15)?,
                &["code"],
            )?,
        })
    }

    pub fn done(&self, began: Instant, failure: Option<&Error>) {
        let code = match failure {
            None => "200".to_owned(),
            Some(Error::Status(status)) if status.code != 0 => status.code.to_string(),
            Some(_) => "500".to_owned(),
        };
        self.total.with_label_values(&[&code]).inc();
        let duration = self.duration.with_label_values(&[&code]);
        duration.observe(began.elapsed().as_secs_f64());
    }
}
