//! `/metrics/resource`: what metrics-server wants to know.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use grpc::cri;
use jiff::Timestamp;

use super::{Container, Stats, value};
use crate::cri::client::CriError;
use crate::sys;

impl Stats {
    /// Prometheus text for metrics-server: `/metrics/resource`.
    ///
    /// # Errors
    /// When the runtime does not tell.
    pub async fn resource_metrics(&self) -> Result<String, CriError> {
        let containers = self.containers().await?;
        let cpu = sys::node::cpu_time_nanoseconds();
        let (_, working_set) = self.cgroups.hierarchy.node_memory().unwrap_or_default();
        let now = Timestamp::now().as_millisecond();
        let mut text = String::new();
        let mut family = |name: &str, help: &str, kind: &str, samples: Vec<(String, f64, i64)>| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}");
            for (labels, value, at) in samples {
                let _ = writeln!(text, "{name}{labels} {value} {at}");
            }
        };
        let cpu_of = |s: &cri::ContainerStats| {
            s.cpu.as_ref().map_or(0.0, |c| {
                value(c.usage_core_nano_seconds.as_ref()) as f64 / 1e9
            })
        };
        let memory_of = |s: &cri::ContainerStats| {
            s.memory
                .as_ref()
                .map_or(0.0, |m| value(m.working_set_bytes.as_ref()) as f64)
        };
        let at_of =
            |s: &cri::ContainerStats| s.cpu.as_ref().map_or(now, |c| c.timestamp / 1_000_000);
        let names = |c: &Container| {
            format!(
                "{{container={:?},namespace={:?},pod={:?}}}",
                c.name, c.namespace, c.pod
            )
        };
        let each = |of: &dyn Fn(&cri::ContainerStats) -> f64| {
            containers
                .iter()
                .map(|c| (names(c), of(&c.stats), at_of(&c.stats)))
                .collect::<Vec<_>>()
        };
        let by_pod = |of: &dyn Fn(&cri::ContainerStats) -> f64| {
            let mut pods: BTreeMap<String, (f64, i64)> = BTreeMap::new();
            for c in &containers {
                let labels = format!("{{namespace={:?},pod={:?}}}", c.namespace, c.pod);
                let entry = pods.entry(labels).or_default();
                *entry = (entry.0 + of(&c.stats), entry.1.max(at_of(&c.stats)));
            }
            pods.into_iter()
                .map(|(labels, (sum, at))| (labels, sum, at))
                .collect::<Vec<_>>()
        };
        family(
            "container_cpu_usage_seconds_total",
            "Cumulative cpu time consumed by the container in core-seconds",
            "counter",
            each(&cpu_of),
        );
        family(
            "container_memory_working_set_bytes",
            "Current working set of the container in bytes",
            "gauge",
            each(&memory_of),
        );
        let starts = containers
            .iter()
            .map(|c| (names(c), c.created as f64 / 1e9, now))
            .collect();
        family(
            "container_start_time_seconds",
            "Start time of the container since unix epoch in seconds",
            "gauge",
            starts,
        );
        family(
            "node_cpu_usage_seconds_total",
            "Cumulative cpu time consumed by the node in core-seconds",
            "counter",
            vec![(String::new(), cpu as f64 / 1e9, now)],
        );
        family(
            "node_memory_working_set_bytes",
            "Current working set of the node in bytes",
            "gauge",
            vec![(String::new(), working_set as f64, now)],
        );
        family(
            "pod_cpu_usage_seconds_total",
            "Cumulative cpu time consumed by the pod in core-seconds",
            "counter",
            by_pod(&cpu_of),
        );
        family(
            "pod_memory_working_set_bytes",
            "Current working set of the pod in bytes",
            "gauge",
            by_pod(&memory_of),
        );
        let _ = writeln!(
            text,
            "# HELP resource_scrape_error [STABLE] 1 if there was an error while getting container metrics, 0 otherwise\n# TYPE resource_scrape_error gauge\nresource_scrape_error 0"
        );
        Ok(text)
    }
}
