//! Storage's metrics, under upstream's names and labels.
//!
//! What must not be here: `/metrics` itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::calls::Calls;

const REQUEST_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2., 3., 4., 5., 6., 8., 10., 15.,
    20., 30., 45., 60.,
];
const WAIT_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2., 3.,
];
const LEASE_BUCKETS: &[f64] = &[10., 50., 100., 500., 1000., 2500., 5000.];
/// Revisions are shown modulo this: a float64 holds no more digits exactly.
const REVISION_DIGITS: u64 = 1_000_000_000_000_000;

/// Everything that etcd and the cache count.
pub struct Metrics {
    pub calls: Calls,
    root: String,
    /// Group and resource by storage prefix, so that requests are counted by what they are for.
    names: RwLock<HashMap<String, (String, String)>>,
    request_duration: HistogramVec,
    requests: IntCounterVec,
    request_errors: IntCounterVec,
    request_retries: IntCounterVec,
    lease_objects: Histogram,
    size: IntGaugeVec,
    events_received: IntCounterVec,
    bookmarks: IntCounterVec,
    decode_errors: IntCounterVec,
    storage_objects: IntGaugeVec,
    resource_objects: IntGaugeVec,
    size_estimate: IntGaugeVec,
    lists_from_storage: IntCounterVec,
    storage_fetched: IntCounterVec,
    storage_evaluated: IntCounterVec,
    storage_returned: IntCounterVec,
    init_events: IntCounterVec,
    lists: IntCounterVec,
    lists_fetched: IntCounterVec,
    lists_returned: IntCounterVec,
    initializations: IntCounterVec,
    cache_events_received: IntCounterVec,
    cache_events_dispatched: IntCounterVec,
    cache_revision: IntGaugeVec,
    terminated_watchers: IntCounterVec,
    read_wait: HistogramVec,
    consistent_reads: IntCounterVec,
    /// `--etcd-count-metric-poll-period` is not 0.
    counts_objects: bool,
}

const RESOURCE: &[&str] = &["group", "resource"];

impl Metrics {
    /// Registers them; `prefix` is `--etcd-prefix`. Objects need not be counted.
    pub fn new(
        registry: &Registry,
        prefix: &str,
        counts_objects: bool,
    ) -> prometheus::Result<Arc<Self>> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let histogram = HistogramVec::new(options, labels)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let lease_objects = Histogram::with_opts(
            HistogramOpts::new(
                "etcd_lease_object_counts",
                "Objects that shared one etcd lease.",
            )
            .buckets(LEASE_BUCKETS.to_vec()),
        )?;
        registry.register(Box::new(lease_objects.clone()))?;
        let operation = &["operation", "group", "resource"];
        Ok(Arc::new(Self {
            calls: Calls::new(registry)?,
            root: super::keys::Keys::new(prefix).root().to_owned(),
            names: RwLock::default(),
            counts_objects,
            lease_objects,
            request_duration: histogram(
                "etcd_request_duration_seconds",
                "Seconds that a request to etcd took, retries included.",
                REQUEST_BUCKETS,
                operation,
            )?,
            requests: counter("etcd_requests_total", "Requests to etcd.", operation)?,
            request_errors: counter(
                "etcd_request_errors_total",
                "Requests that etcd failed.",
                operation,
            )?,
            request_retries: counter(
                "etcd_request_retry_total",
                "Requests to etcd that were sent again, by the error before.",
                &["error"],
            )?,
            size: gauge(
                "apiserver_storage_size_bytes",
                "Size of the database file that etcd has allocated.",
                &["storage_cluster_id"],
            )?,
            events_received: counter(
                "apiserver_storage_events_received_total",
                "Changes received from etcd.",
                RESOURCE,
            )?,
            bookmarks: counter(
                "etcd_bookmark_total",
                "Times that etcd told how far it was without a change; its one watch tells it of every resource.",
                RESOURCE,
            )?,
            decode_errors: counter(
                "apiserver_storage_decode_errors_total",
                "Stored objects that could not be read.",
                RESOURCE,
            )?,
            storage_objects: gauge(
                "apiserver_storage_objects",
                "Stored objects.",
                &["resource"],
            )?,
            resource_objects: gauge("apiserver_resource_objects", "Stored objects.", RESOURCE)?,
            size_estimate: gauge(
                "apiserver_resource_size_estimate_bytes",
                "Size of the stored objects.",
                RESOURCE,
            )?,
            lists_from_storage: counter(
                "apiserver_storage_list_total",
                "LIST requests answered from etcd.",
                RESOURCE,
            )?,
            storage_fetched: counter(
                "apiserver_storage_list_fetched_objects_total",
                "Objects read from etcd for LIST requests.",
                RESOURCE,
            )?,
            storage_evaluated: counter(
                "apiserver_storage_list_evaluated_objects_total",
                "Objects of those that were held against the request's selectors.",
                RESOURCE,
            )?,
            storage_returned: counter(
                "apiserver_storage_list_returned_objects_total",
                "Objects returned by LIST requests answered from etcd.",
                RESOURCE,
            )?,
            init_events: counter(
                "apiserver_init_events_total",
                "Events that watches began with: the state, or what had been missed.",
                RESOURCE,
            )?,
            lists: counter(
                "apiserver_cache_list_total",
                "LIST requests answered from the watch cache.",
                &["group", "resource", "index"],
            )?,
            lists_fetched: counter(
                "apiserver_cache_list_fetched_objects_total",
                "Objects looked at for LIST requests answered from the watch cache.",
                &["group", "resource", "index"],
            )?,
            lists_returned: counter(
                "apiserver_cache_list_returned_objects_total",
                "Objects returned by LIST requests answered from the watch cache.",
                RESOURCE,
            )?,
            initializations: counter(
                "apiserver_watch_cache_initializations_total",
                "How often the watch cache was filled.",
                RESOURCE,
            )?,
            cache_events_received: counter(
                "apiserver_watch_cache_events_received_total",
                "Changes that the watch cache took in.",
                RESOURCE,
            )?,
            cache_events_dispatched: counter(
                "apiserver_watch_cache_events_dispatched_total",
                "Changes that the watch cache handed to watchers.",
                RESOURCE,
            )?,
            cache_revision: gauge(
                "apiserver_watch_cache_resource_version",
                "Revision of the watch cache, its 15 lowest digits.",
                RESOURCE,
            )?,
            terminated_watchers: counter(
                "apiserver_terminated_watchers_total",
                "Watchers cut off because they did not read fast enough.",
                RESOURCE,
            )?,
            read_wait: histogram(
                "apiserver_watch_cache_read_wait_seconds",
                "Seconds that reads waited for the watch cache to catch up.",
                WAIT_BUCKETS,
                RESOURCE,
            )?,
            consistent_reads: counter(
                "apiserver_watch_cache_consistent_read_total",
                "Consistent reads, by whether the cache caught up and whether etcd was asked instead.",
                &["group", "resource", "success", "fallback"],
            )?,
        }))
    }

    /// Metrics that nobody reads.
    #[cfg(test)]
    pub fn unregistered() -> Arc<Self> {
        Self::new(&Registry::new(), "", true).expect("an empty registry takes every metric")
    }

    /// The counters of one resource; requests for its keys count under its name from now on.
    pub(super) fn of(&self, prefix: &str, group: &str, resource: &str) -> ResourceMetrics {
        let names = (group.to_owned(), resource.to_owned());
        self.names.write().insert(prefix.to_owned(), names);
        let labels = &[group, resource];
        let full = if group.is_empty() {
            resource.to_owned()
        } else {
            format!("{resource}.{group}")
        };
        ResourceMetrics {
            events_received: self.events_received.with_label_values(labels),
            bookmarks: self.bookmarks.with_label_values(labels),
            decode_errors: self.decode_errors.with_label_values(labels),
            objects: self.counts_objects.then(|| {
                let full = self.storage_objects.with_label_values(&[full]);
                (full, self.resource_objects.with_label_values(labels))
            }),
            size_estimate: self.size_estimate.with_label_values(labels),
            lists_from_storage: self.lists_from_storage.with_label_values(labels),
            storage_fetched: self.storage_fetched.with_label_values(labels),
            storage_evaluated: self.storage_evaluated.with_label_values(labels),
            storage_returned: self.storage_returned.with_label_values(labels),
            init_events: self.init_events.with_label_values(labels),
            lists: self.lists.with_label_values(&[group, resource, ""]),
            lists_fetched: self.lists_fetched.with_label_values(&[group, resource, ""]),
            lists_returned: self.lists_returned.with_label_values(labels),
            initializations: self.initializations.with_label_values(labels),
            cache_events_received: self.cache_events_received.with_label_values(labels),
            cache_events_dispatched: self.cache_events_dispatched.with_label_values(labels),
            cache_revision: self.cache_revision.with_label_values(labels),
            terminated_watchers: self.terminated_watchers.with_label_values(labels),
            read_wait: self.read_wait.with_label_values(labels),
            consistent: self
                .consistent_reads
                .with_label_values(&[group, resource, "true", "false"]),
            inconsistent: self
                .consistent_reads
                .with_label_values(&[group, resource, "false", "true"]),
        }
    }

    pub(super) fn request(&self, operation: &str, key: &str, took: Duration, failed: bool) {
        let names = self.names.read();
        let (group, resource) = self.name(&names, key);
        let labels = &[operation, group, resource];
        self.request_duration
            .with_label_values(labels)
            .observe(took.as_secs_f64());
        self.requests.with_label_values(labels).inc();
        if failed {
            self.request_errors.with_label_values(labels).inc();
        }
    }

    /// The names of the resource that a key belongs to: its prefix is one segment or two.
    fn name<'a>(
        &self,
        names: &'a HashMap<String, (String, String)>,
        key: &'a str,
    ) -> (&'a str, &'a str) {
        let rest = key.strip_prefix(&self.root).unwrap_or(key);
        let mut ends = rest.match_indices('/').map(|(i, _)| i);
        let first = ends.next().map_or(rest, |i| &rest[..i]);
        let second = ends.next().map_or(rest, |i| &rest[..i]);
        match names.get(second).or_else(|| names.get(first)) {
            Some((group, resource)) => (group, resource),
            None => ("", first),
        }
    }

    pub(super) fn request_retry(&self, code: tonic::Code) {
        self.request_retries
            .with_label_values(&[format!("{code:?}")])
            .inc();
    }

    pub(super) fn lease_objects(&self, objects: u32) {
        self.lease_objects.observe(objects.into());
    }

    /// The size of a member's database file; `cluster` numbers the members as upstream does
    /// (`etcd-0`).
    pub fn storage_size(&self, cluster: &str, bytes: i64) {
        self.size.with_label_values(&[cluster]).set(bytes);
    }
}

/// One resource's counters, looked up once.
pub(super) struct ResourceMetrics {
    pub(super) events_received: IntCounter,
    pub(super) bookmarks: IntCounter,
    pub(super) decode_errors: IntCounter,
    /// Under both names, unless they are not counted.
    objects: Option<(IntGauge, IntGauge)>,
    pub(super) size_estimate: IntGauge,
    pub(super) lists_from_storage: IntCounter,
    pub(super) storage_fetched: IntCounter,
    pub(super) storage_evaluated: IntCounter,
    pub(super) storage_returned: IntCounter,
    pub(super) init_events: IntCounter,
    lists: IntCounter,
    lists_fetched: IntCounter,
    lists_returned: IntCounter,
    pub(super) initializations: IntCounter,
    pub(super) cache_events_received: IntCounter,
    pub(super) cache_events_dispatched: IntCounter,
    cache_revision: IntGauge,
    pub(super) terminated_watchers: IntCounter,
    read_wait: Histogram,
    consistent: IntCounter,
    inconsistent: IntCounter,
}

impl ResourceMetrics {
    pub(super) fn objects(&self, count: usize) {
        if let Some((storage, resource)) = &self.objects {
            storage.set(count as i64);
            resource.set(count as i64);
        }
    }

    pub(super) fn list(&self, fetched: usize, returned: usize) {
        self.lists.inc();
        self.lists_fetched.inc_by(fetched as u64);
        self.lists_returned.inc_by(returned as u64);
    }

    pub(super) fn revision(&self, revision: u64) {
        self.cache_revision.set((revision % REVISION_DIGITS) as i64);
    }

    pub(super) fn waited(&self, time: Duration) {
        self.read_wait.observe(time.as_secs_f64());
    }

    pub(super) fn consistent_read(&self, success: bool) {
        if success {
            self.consistent.inc();
        } else {
            self.inconsistent.inc();
        }
    }
}
