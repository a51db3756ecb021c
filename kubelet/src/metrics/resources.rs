//! How containers are given devices, CPUs and memory, and who asks about it.

use prometheus::{DEFAULT_BUCKETS, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use prometheus::{IntGaugeVec, exponential_buckets};

use super::Add;

pub struct ResourceMetrics {
    pub device_registrations: IntCounterVec,
    pub device_allocations: HistogramVec,

    /// By scope (container, pod) and what it is aligned to.
    pub aligned: IntCounterVec,
    pub aligned_failures: IntCounterVec,
    pub admissions: IntCounter,
    pub admission_errors: IntCounter,
    /// Milliseconds.
    pub admission_duration: Histogram,

    pub cpu_pinnings: IntCounter,
    pub cpu_pinning_errors: IntCounter,
    /// Thousandths of a CPU.
    pub cpus_shared: IntGauge,
    pub cpus_exclusive: IntGauge,
    pub cpus_per_numa: IntGaugeVec,

    pub memory_pinnings: IntCounter,
    pub memory_pinning_errors: IntCounter,

    /// By version of the API.
    pub asked: IntCounterVec,
    pub asked_list: IntCounterVec,
    pub asked_get: IntCounterVec,
    pub asked_allocatable: IntCounterVec,
    pub get_errors: IntCounterVec,
}

impl ResourceMetrics {
    pub(super) fn new(add: &Add<'_>) -> prometheus::Result<Self> {
        let resource = &["resource_name"];
        let alignment = &["scope", "boundary"];
        let asked = |what: &str, help: &str| {
            let name = format!("kubelet_pod_resources_endpoint_{what}");
            add.counters(&name, help, &["server_api_version"])
        };
        let all = Self {
            device_registrations: add.counters(
                "kubelet_device_plugin_registration_total",
                "Number of times that device plugins have registered, by their resource.",
                resource,
            )?,
            device_allocations: add.histograms(
                "kubelet_device_plugin_alloc_duration_seconds",
                "Seconds that device plugins took to say what a container needs for its devices.",
                DEFAULT_BUCKETS,
                resource,
            )?,
            aligned: add.counters(
                "kubelet_container_aligned_compute_resources_count",
                "Number of times that what containers were given was aligned, by what to.",
                alignment,
            )?,
            aligned_failures: add.counters(
                "kubelet_container_aligned_compute_resources_failure_count",
                "Number of times that what containers ask for could not be aligned, by what to.",
                alignment,
            )?,
            admissions: add.counter(
                "kubelet_topology_manager_admission_requests_total",
                "Number of pods whose resources were to be aligned.",
            )?,
            admission_errors: add.counter(
                "kubelet_topology_manager_admission_errors_total",
                "Number of pods whose resources could not be aligned.",
            )?,
            admission_duration: add.histogram(
                "kubelet_topology_manager_admission_duration_ms",
                "Milliseconds that giving pods their resources took.",
                &exponential_buckets(0.05, 2.0, 15)?,
            )?,
            cpu_pinnings: add.counter(
                "kubelet_cpu_manager_pinning_requests_total",
                "Number of containers that asked for CPUs of their own.",
            )?,
            cpu_pinning_errors: add.counter(
                "kubelet_cpu_manager_pinning_errors_total",
                "Number of containers that could not have CPUs of their own.",
            )?,
            cpus_shared: add.gauge(
                "kubelet_cpu_manager_shared_pool_size_millicores",
                "CPUs that containers share, in thousandths.",
            )?,
            cpus_exclusive: add.gauge(
                "kubelet_cpu_manager_exclusive_cpu_allocation_count",
                "Number of CPUs that belong to a container alone.",
            )?,
            cpus_per_numa: add.gauges(
                "kubelet_cpu_manager_allocation_per_numa",
                "Number of CPUs that belong to a container alone, by their NUMA node.",
                &["numa_node"],
            )?,
            memory_pinnings: add.counter(
                "kubelet_memory_manager_pinning_requests_total",
                "Number of containers that asked for memory of certain NUMA nodes.",
            )?,
            memory_pinning_errors: add.counter(
                "kubelet_memory_manager_pinning_errors_total",
                "Number of containers that could not have memory of certain NUMA nodes.",
            )?,
            asked: asked(
                "requests_total",
                "Number of questions about pods' resources.",
            )?,
            asked_list: asked(
                "requests_list",
                "Number of questions about all pods' resources.",
            )?,
            asked_get: asked(
                "requests_get",
                "Number of questions about a pod's resources.",
            )?,
            asked_allocatable: asked(
                "requests_get_allocatable",
                "Number of questions about what pods can be given.",
            )?,
            get_errors: asked(
                "errors_get",
                "Number of questions about a pod's resources that had no answer.",
            )?,
        };
        // Those that are looked for before anything has happened.
        for (scope, boundary) in [
            ("container", "numa_node"),
            ("pod", "numa_node"),
            ("container", "physical_cpu"),
        ] {
            for counters in [&all.aligned, &all.aligned_failures] {
                counters.with_label_values(&[scope, boundary]);
            }
        }
        all.aligned
            .with_label_values(&["container", "uncore_cache"]);
        Ok(all)
    }
}
