//! The kubelet's metrics, under upstream's names and labels. What they count is told by the rooms;
//! what is worked out only when somebody asks is set by the node's API.

mod resources;

use std::time::{Duration, Instant};

use component::metrics::Registry;
use prometheus::core::Collector;
use prometheus::{
    DEFAULT_BUCKETS, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, exponential_buckets,
};

pub use resources::ResourceMetrics;

/// What operators look at. Every field is registered.
pub struct Metrics {
    /// `/metrics`.
    pub registry: Registry,
    /// `/metrics/probes`, which has a series per probe and is scraped apart.
    pub probe_registry: prometheus::Registry,

    pub running_pods: IntGauge,
    pub running_containers: IntGaugeVec,
    pub desired_pods: IntGaugeVec,
    pub active_pods: IntGaugeVec,
    pub mirror_pods: IntGauge,
    pub orphaned_runtime_pods: IntCounter,

    pub pod_start: Histogram,
    pub pod_start_total: HistogramVec,
    pub pod_worker: HistogramVec,
    pub pod_worker_start: Histogram,

    pub started_pods: IntCounter,
    pub started_pods_errors: IntCounter,
    pub started_containers: IntCounterVec,
    pub started_containers_errors: IntCounterVec,
    pub image_volumes_requested: IntCounter,
    pub image_volumes_mounted: IntCounter,
    pub image_volumes_errors: IntCounter,
    /// In-place resizes of pods (KEP-1287).
    pub resizes: ResizeMetrics,
    pub run_sandbox: HistogramVec,
    pub run_sandbox_errors: IntCounterVec,
    /// By the resource that was lacking.
    pub preemptions: IntCounterVec,
    /// By the signal that fell below its threshold, or the limit that was exceeded.
    pub evictions: IntCounterVec,
    /// Seconds since the epoch.
    pub shutdown_start: IntGauge,
    pub shutdown_end: IntGauge,
    pub eviction_stats_age: HistogramVec,
    pub images_collected: IntCounterVec,
    /// Of drivers and the like.
    pub plugins: PluginMetrics,
    /// Devices, CPUs and memory that containers are given.
    pub resources: ResourceMetrics,

    runtime_operations: IntCounterVec,
    runtime_operations_errors: IntCounterVec,
    runtime_operations_duration: HistogramVec,

    pub pleg_relist: Histogram,
    pub pleg_interval: Histogram,
    pub pleg_last_seen: Gauge,

    http_requests: IntCounterVec,
    websockets: IntCounterVec,
    http_requests_duration: HistogramVec,

    probes: IntCounterVec,
    probe_duration: HistogramVec,
}

/// Seconds; as fine as a pod's start is usually judged.
const POD_START_BUCKETS: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0,
    300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];
const HTTP_LABELS: [&str; 4] = ["method", "path", "server_type", "long_running"];
const PROBE_LABELS: [&str; 6] = [
    "probe_type",
    "result",
    "container",
    "pod",
    "namespace",
    "pod_uid",
];
/// Every way that a probe can come out.
const PROBE_RESULTS: [&str; 3] = ["successful", "failed", "unknown"];

/// Whose probe it is: the labels of its series.
#[derive(Debug, Clone, Copy)]
pub struct ProbeOf<'a> {
    pub probe_type: &'a str,
    pub container: &'a str,
    pub pod: &'a str,
    pub namespace: &'a str,
    pub pod_uid: &'a str,
}

/// How pods are resized in place.
pub struct ResizeMetrics {
    pub requested: IntCounterVec,
    pub duration: HistogramVec,
    pub pending: IntGaugeVec,
    pub in_progress: IntGauge,
    pub infeasible: IntCounterVec,
    pub deferred_accepted: IntCounterVec,
}

/// Milliseconds.
const RESIZE_BUCKETS: [f64; 14] = [
    10.0, 50.0, 100.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 3e4, 6e4, 1.2e5, 3e5, 6e5,
];

impl ResizeMetrics {
    fn new(add: &Add<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            requested: add.counters(
                "kubelet_container_requested_resizes_total",
                "Number of changes asked for of running containers' requests and limits.",
                &["resource", "requirement", "operation"],
            )?,
            duration: add.histograms(
                "kubelet_pod_resize_duration_milliseconds",
                "Milliseconds that giving a pod other resources took.",
                &RESIZE_BUCKETS,
                &["success"],
            )?,
            pending: add.gauges(
                "kubelet_pod_pending_resizes",
                "Number of pods whose resize has not been granted, by the reason.",
                &["reason"],
            )?,
            in_progress: add.gauge(
                "kubelet_pod_in_progress_resizes",
                "Number of pods whose resize is granted and not done yet.",
            )?,
            infeasible: add.counters(
                "kubelet_pod_infeasible_resizes_total",
                "Number of resizes that this node can never grant, by the reason.",
                &["reason_detail"],
            )?,
            deferred_accepted: add.counters(
                "kubelet_pod_deferred_accepted_resizes_total",
                "Number of resizes that were granted after they had been deferred.",
                &["retry_trigger"],
            )?,
        })
    }
}

/// What plugins do for the kubelet.
pub struct PluginMetrics {
    pub total: IntGaugeVec,
    pub dra_operations: HistogramVec,
    pub dra_calls: HistogramVec,
    pub dra_claims: IntGaugeVec,
    pub csi_calls: HistogramVec,
    /// Capacity, available, used; inodes, those free, those used.
    pub volumes: [IntGaugeVec; 6],
}

/// Seconds.
const CSI_BUCKETS: [f64; 13] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 25.0, 50.0, 120.0, 300.0, 600.0,
];

/// A gRPC status by its name, as Go has it.
pub fn grpc_code(code: tonic::Code) -> String {
    match code {
        tonic::Code::Ok => "OK".into(),
        tonic::Code::Cancelled => "Canceled".into(),
        code => format!("{code:?}"),
    }
}

impl PluginMetrics {
    fn new(add: &Add<'_>) -> prometheus::Result<Self> {
        // From a tenth of a second to forty, evenly by ratio.
        let dra_buckets = exponential_buckets(0.1, 400f64.powf(1.0 / 14.0), 15)?;
        let volume = |what: &str, help: &str| {
            let labels = ["namespace", "persistentvolumeclaim"];
            add.gauges(&format!("kubelet_volume_stats_{what}"), help, &labels)
        };
        Ok(Self {
            total: add.gauges(
                "plugin_manager_total_plugins",
                "Plugins by their sockets: those that are there, and those that have registered.",
                &["socket_path", "state"],
            )?,
            dra_operations: add.histograms(
                "dra_operations_duration_seconds",
                "Seconds that preparing all of a pod's claims took, or giving them up.",
                &dra_buckets,
                &["operation_name", "is_error"],
            )?,
            dra_calls: add.histograms(
                "dra_grpc_operations_duration_seconds",
                "Seconds that calls of DRA drivers took.",
                &dra_buckets,
                &["driver_name", "method_name", "grpc_status_code"],
            )?,
            dra_claims: add.gauges(
                "dra_resource_claims_in_use",
                "Number of prepared ResourceClaims by driver; of any driver under the name <any>.",
                &["driver_name"],
            )?,
            csi_calls: add.histograms(
                "csi_operations_seconds",
                "Seconds that calls of CSI drivers took.",
                &CSI_BUCKETS,
                &["driver_name", "method_name", "grpc_status_code", "migrated"],
            )?,
            volumes: [
                volume("capacity_bytes", "Capacity in bytes of the volume")?,
                volume("available_bytes", "Number of available bytes in the volume")?,
                volume("used_bytes", "Number of used bytes in the volume")?,
                volume("inodes", "Maximum number of inodes in the volume")?,
                volume("inodes_free", "Number of free inodes in the volume")?,
                volume("inodes_used", "Number of used inodes in the volume")?,
            ],
        })
    }
}

impl Metrics {
    /// Makes and registers all of them, and those that never change.
    ///
    /// # Errors
    /// When two have one name: a mistake in this file.
    pub fn new(node_name: &str, cgroup_v2: bool) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let probe_registry = prometheus::Registry::new();
        let add = Add(registry.inner());
        let add_probe = Add(&probe_registry);

        let node = add.gauges(
            "kubelet_node_name",
            "The node's name, as a label; the value is 1.",
            &["node"],
        )?;
        node.with_label_values(&[node_name]).set(1);
        add.gauge(
            "kubelet_cgroup_version",
            "Version of the control groups on this node.",
        )?
        .set(if cgroup_v2 { 2 } else { 1 });
        let provider = add.gauges(
            "kubelet_metrics_provider",
            "Where containers' usage is read from; the value is 1.",
            &["provider"],
        )?;
        provider.with_label_values(&["cri"]).set(1);

        let http = "by method, path, server, and whether it is open for long.";
        Ok(Self {
            running_pods: add.gauge(
                "kubelet_running_pods",
                "Number of pods whose sandbox is ready.",
            )?,
            running_containers: add.gauges(
                "kubelet_running_containers",
                "Number of containers in the runtime, by their state.",
                &["container_state"],
            )?,
            desired_pods: add.gauges(
                "kubelet_desired_pods",
                "Number of pods that this node is asked to run.",
                &["static"],
            )?,
            active_pods: add.gauges(
                "kubelet_active_pods",
                "Number of pods that may have containers running.",
                &["static"],
            )?,
            mirror_pods: add.gauge(
                "kubelet_mirror_pods",
                "Number of static pods that the API server shows.",
            )?,
            orphaned_runtime_pods: add.counter(
                "kubelet_orphaned_runtime_pods_total",
                "Number of pods found in the runtime that nobody asked for.",
            )?,
            pod_start: add.histogram(
                "kubelet_pod_start_duration_seconds",
                "Seconds from when the kubelet first saw a pod until it ran.",
                &POD_START_BUCKETS,
            )?,
            pod_start_total: add.histograms(
                "kubelet_pod_start_total_duration_seconds",
                "Seconds from a pod's creation until it ran, with pulling images and initialization.",
                &POD_START_BUCKETS,
                &[],
            )?,
            pod_worker: add.histograms(
                "kubelet_pod_worker_duration_seconds",
                "Seconds that one piece of work on a pod took, by its kind.",
                DEFAULT_BUCKETS,
                &["operation_type"],
            )?,
            pod_worker_start: add.histogram(
                "kubelet_pod_worker_start_duration_seconds",
                "Seconds from when the kubelet first saw a pod until work on it began.",
                DEFAULT_BUCKETS,
            )?,
            started_pods: add.counter(
                "kubelet_started_pods_total",
                "Number of pod sandboxes whose start was tried.",
            )?,
            started_pods_errors: add.counter(
                "kubelet_started_pods_errors_total",
                "Number of pod sandboxes that could not be started.",
            )?,
            started_containers: add.counters(
                "kubelet_started_containers_total",
                "Number of containers whose start was tried, by their kind.",
                &["container_type"],
            )?,
            started_containers_errors: add.counters(
                "kubelet_started_containers_errors_total",
                "Number of containers that could not be started, by their kind and the reason.",
                &["container_type", "code"],
            )?,
            image_volumes_requested: add.counter(
                "kubelet_image_volume_requested_total",
                "Number of image volumes that containers asked for.",
            )?,
            image_volumes_mounted: add.counter(
                "kubelet_image_volume_mounted_succeed_total",
                "Number of image volumes that were mounted into containers.",
            )?,
            image_volumes_errors: add.counter(
                "kubelet_image_volume_mounted_errors_total",
                "Number of image volumes that the runtime could not mount.",
            )?,
            resizes: ResizeMetrics::new(&add)?,
            run_sandbox: add.histograms(
                "kubelet_run_podsandbox_duration_seconds",
                "Seconds that starting a sandbox took, by its runtime handler.",
                DEFAULT_BUCKETS,
                &["runtime_handler"],
            )?,
            run_sandbox_errors: add.counters(
                "kubelet_run_podsandbox_errors_total",
                "Number of sandboxes that could not be started, by their runtime handler.",
                &["runtime_handler"],
            )?,
            preemptions: add.counters(
                "kubelet_preemptions",
                "Number of pods that were ended to make room for critical ones, by the resource that was lacking.",
                &["preemption_signal"],
            )?,
            evictions: add.counters(
                "kubelet_evictions",
                "Number of pods that the kubelet evicted, by the signal that told it to.",
                &["eviction_signal"],
            )?,
            eviction_stats_age: add.histograms(
                "kubelet_eviction_stats_age_seconds",
                "Seconds from a measurement until a pod was chosen because of it, by the signal.",
                DEFAULT_BUCKETS,
                &["eviction_signal"],
            )?,
            shutdown_start: add.gauge(
                "kubelet_graceful_shutdown_start_time_seconds",
                "When pods began to be ended the last time that the node went down, in seconds since the epoch.",
            )?,
            shutdown_end: add.gauge(
                "kubelet_graceful_shutdown_end_time_seconds",
                "When pods had been ended the last time that the node went down, in seconds since the epoch.",
            )?,
            images_collected: add.counters(
                "kubelet_image_garbage_collected_total",
                "Number of images that were removed for want of use, or of space.",
                &["reason"],
            )?,
            plugins: PluginMetrics::new(&add)?,
            resources: ResourceMetrics::new(&add)?,
            runtime_operations: add.counters(
                "kubelet_runtime_operations_total",
                "Number of calls of the container runtime.",
                &["operation_type"],
            )?,
            runtime_operations_errors: add.counters(
                "kubelet_runtime_operations_errors_total",
                "Number of calls of the container runtime that failed.",
                &["operation_type"],
            )?,
            runtime_operations_duration: add.histograms(
                "kubelet_runtime_operations_duration_seconds",
                "Seconds that calls of the container runtime took.",
                &exponential_buckets(0.005, 2.5, 14)?,
                &["operation_type"],
            )?,
            pleg_relist: add.histogram(
                "kubelet_pleg_relist_duration_seconds",
                "Seconds that a look at everything in the runtime took.",
                DEFAULT_BUCKETS,
            )?,
            pleg_interval: add.histogram(
                "kubelet_pleg_relist_interval_seconds",
                "Seconds between two looks at everything in the runtime.",
                DEFAULT_BUCKETS,
            )?,
            pleg_last_seen: add.register(Gauge::new(
                "kubelet_pleg_last_seen_seconds",
                "When the runtime was last looked at with success, in seconds since 1970.",
            )?)?,
            websockets: add.counters(
                "kubelet_websocket_streaming_requests_total",
                "Requests for exec, attach and portforward over WebSockets that the kubelet serves.",
                &["subresource"],
            )?,
            http_requests: add.counters(
                "kubelet_http_requests_total",
                &format!("Number of requests, {http}"),
                &HTTP_LABELS,
            )?,
            http_requests_duration: add.histograms(
                "kubelet_http_requests_duration_seconds",
                &format!("Seconds until a request's answer began, {http}"),
                DEFAULT_BUCKETS,
                &HTTP_LABELS,
            )?,
            probes: add_probe.counters(
                "prober_probe_total",
                "Number of probes of a container, by their result.",
                &PROBE_LABELS,
            )?,
            probe_duration: add_probe.histograms(
                "prober_probe_duration_seconds",
                "Seconds that probes took.",
                DEFAULT_BUCKETS,
                &["probe_type", "container", "pod", "namespace"],
            )?,
            registry,
            probe_registry,
        })
    }

    /// A stream over a WebSocket is served, for `exec`, `attach` or `portforward`.
    pub fn websocket(&self, subresource: &str) {
        self.websockets.with_label_values(&[subresource]).inc();
    }

    /// Counts a call of the runtime. `since` is none for those whose length says nothing.
    pub fn runtime_called(&self, operation: &str, since: Option<Instant>, failed: bool) {
        let of = &[operation];
        self.runtime_operations.with_label_values(of).inc();
        if let Some(since) = since {
            let took = since.elapsed().as_secs_f64();
            self.runtime_operations_duration
                .with_label_values(of)
                .observe(took);
        }
        if failed {
            self.runtime_operations_errors.with_label_values(of).inc();
        }
    }

    /// Counts a request of the node's API. `server` is `readwrite` or `readonly`.
    pub fn requested(&self, method: &http::Method, path: &str, server: &str, took: Duration) {
        let path = path_label(path);
        let long = matches!(path, "exec" | "attach" | "portForward").to_string();
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "TRACE" | "OPTIONS") => known,
            _ => "other",
        };
        let labels = &[method, path, server, &long];
        self.http_requests.with_label_values(labels).inc();
        self.http_requests_duration
            .with_label_values(labels)
            .observe(took.as_secs_f64());
    }

    /// Counts a probe that came out well (`Some(true)`), badly, or not at all.
    pub fn probed(&self, of: ProbeOf<'_>, success: Option<bool>, took: Duration) {
        let result = match success {
            Some(true) => PROBE_RESULTS[0],
            Some(false) => PROBE_RESULTS[1],
            None => PROBE_RESULTS[2],
        };
        self.probes.with_label_values(&of.with(result)).inc();
        if success != Some(false) {
            self.probe_duration
                .with_label_values(&of.without_result())
                .observe(took.as_secs_f64());
        }
    }

    /// Removes the series of a probe that is over.
    pub fn probe_over(&self, of: ProbeOf<'_>) {
        // A result that never came out has no series.
        for result in PROBE_RESULTS {
            let _ = self.probes.remove_label_values(&of.with(result));
        }
        let _ = self
            .probe_duration
            .remove_label_values(&of.without_result());
    }
}

impl<'a> ProbeOf<'a> {
    fn with(&self, result: &'a str) -> [&'a str; 6] {
        [
            self.probe_type,
            result,
            self.container,
            self.pod,
            self.namespace,
            self.pod_uid,
        ]
    }

    fn without_result(&self) -> [&'a str; 4] {
        [self.probe_type, self.container, self.pod, self.namespace]
    }
}

/// A path without what would make each request a series of its own.
fn path_label(path: &str) -> &str {
    const TWO: [&str; 4] = [
        "metrics/cadvisor",
        "metrics/probes",
        "metrics/resource",
        "stats/summary",
    ];
    const ONE: [&str; 16] = [
        "pods",
        "runningpods",
        "healthz",
        "metrics",
        "configz",
        "containerLogs",
        "exec",
        "attach",
        "portForward",
        "run",
        "logs",
        "stats",
        "checkpoint",
        "debug",
        "flagz",
        "statusz",
    ];
    let path = path.trim_start_matches('/');
    if let Some(known) = TWO
        .iter()
        .find(|known| path.trim_end_matches('/') == **known)
    {
        return known;
    }
    let first = path.split('/').next().unwrap_or_default();
    ONE.iter()
        .find(|known| first == **known)
        .map_or("other", |known| known)
}

/// Makes metrics and registers them at once.
struct Add<'a>(&'a prometheus::Registry);

impl Add<'_> {
    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> prometheus::Result<M> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::new(name, help)?)
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts)?)
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: &[&str],
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(HistogramVec::new(opts, labels)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_leaves_no_series_behind() {
        let metrics = Metrics::new("node", true).unwrap();
        let of = ProbeOf {
            probe_type: "Liveness",
            container: "c",
            pod: "p",
            namespace: "n",
            pod_uid: "u",
        };
        metrics.probed(of, Some(true), Duration::ZERO);
        metrics.probed(of, Some(false), Duration::ZERO);
        let names = || -> Vec<String> {
            let families = metrics.probe_registry.gather();
            families.iter().map(|f| f.name().to_owned()).collect()
        };
        assert_eq!(
            names(),
            ["prober_probe_duration_seconds", "prober_probe_total"]
        );
        metrics.probe_over(of);
        assert!(names().is_empty());
    }

    #[test]
    fn paths_are_few() {
        for (path, label) in [
            ("/metrics/probes", "metrics/probes"),
            ("/metrics", "metrics"),
            ("/exec/ns/pod/c", "exec"),
            ("/favicon.ico", "other"),
        ] {
            assert_eq!(path_label(path), label);
        }
    }

    #[test]
    fn what_never_changes_is_told() {
        let (text, _) = Metrics::new("a-node", true).unwrap().registry.render();
        for line in [
            r#"kubelet_node_name{node="a-node"} 1"#,
            "kubelet_cgroup_version 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
