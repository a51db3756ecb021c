//! What watches send: upstream's `apiserver_watch_events_total` and `_sizes`.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts,
    Registry as Prometheus, exponential_buckets,
};
use schema::Resource;

const LABELS: &[&str] = &["group", "version", "resource"];

pub(super) struct Watches {
    total: IntCounterVec,
    sizes: HistogramVec,
}

/// The series of one watch.
#[derive(Clone)]
pub struct Events {
    total: IntCounter,
    sizes: Histogram,
}

impl Watches {
    pub(super) fn new(registry: &Prometheus) -> prometheus::Result<Self> {
        let total = IntCounterVec::new(
            Opts::new("apiserver_watch_events_total", "Events sent to watchers."),
            LABELS,
        )?;
        let sizes = HistogramVec::new(
            HistogramOpts::new(
                "apiserver_watch_events_sizes",
                "Sizes of the events sent to watchers, in bytes.",
            )
            .buckets(exponential_buckets(1024.0, 2.0, 8)?),
            LABELS,
        )?;
        registry.register(Box::new(total.clone()))?;
        registry.register(Box::new(sizes.clone()))?;
        Ok(Self { total, sizes })
    }

    pub(super) fn of(&self, resource: &Resource) -> Events {
        let labels = [resource.group, resource.version, resource.plural];
        Events {
            total: self.total.with_label_values(&labels),
            sizes: self.sizes.with_label_values(&labels),
        }
    }
}

impl Events {
    /// An event of so many bytes goes out.
    pub fn sent(&self, bytes: usize) {
        self.total.inc();
        self.sizes.observe(bytes as f64);
    }
}
