//! Metrics: one registry per daemon, passed in, rendered at `/metrics`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder};

use crate::features::{FeatureGates, GATES, Stage};
use crate::version;

type Hook = Box<dyn Fn() + Send + Sync>;
type Page = Box<dyn Fn() -> String + Send + Sync>;

/// A daemon's metrics. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: prometheus::Registry,
    hooks: Arc<RwLock<Vec<Hook>>>,
    disabled: Arc<RwLock<BTreeSet<String>>>,
    pages: Arc<RwLock<BTreeMap<&'static str, Page>>>,
}

impl Registry {
    /// With what every daemon has: its process and `kubernetes_build_info`.
    pub fn new() -> Self {
        let registry = Self {
            inner: prometheus::Registry::new(),
            hooks: Arc::default(),
            disabled: Arc::default(),
            pages: Arc::default(),
        };
        registry.register(prometheus::process_collector::ProcessCollector::for_self());
        registry.report_process();
        registry.report_disabled();
        let info = &version::INFO;
        let opts = Opts::new(
            "kubernetes_build_info",
            "Which build this is; the value is 1.",
        );
        let labels = [
            "major",
            "minor",
            "git_version",
            "git_commit",
            "git_tree_state",
            "build_date",
            "go_version",
            "compiler",
            "platform",
        ];
        if let Ok(build) = IntGaugeVec::new(opts, &labels) {
            build
                .with_label_values(&[
                    info.major,
                    info.minor,
                    info.git_version,
                    info.git_commit,
                    info.git_tree_state,
                    info.build_date,
                    info.go_version,
                    info.compiler,
                    info.platform,
                ])
                .set(1);
            registry.register(build);
        }
        let opts = Opts::new(
            "version_info",
            "Which versions this is, behaves as and is compatible with; the value is 1.",
        );
        let labels = ["binary", "component", "emulation", "min_compat"];
        if let Ok(versions) = IntGaugeVec::new(opts, &labels) {
            let dotted = |major: &str, minor: &str| format!("{major}.{minor}");
            let emulation = dotted(info.emulation_major, info.emulation_minor);
            let oldest = dotted(info.min_compatibility_major, info.min_compatibility_minor);
            let binary = info.git_version.trim_start_matches('v');
            versions
                .with_label_values(&[binary, "kube", &emulation, &oldest])
                .set(1);
            registry.register(versions);
        }
        registry
    }

    /// What Go's client library tells of a process beside what Rust's does.
    fn report_process(&self) {
        let network = |direction: &str| {
            let name = format!("process_network_{direction}_bytes_total");
            let help = format!("Bytes that the process' network namespace did {direction}.");
            prometheus::IntCounter::new(name, help)
        };
        let limit = IntGauge::new(
            "process_virtual_memory_max_bytes",
            "Most virtual memory that the process may have.",
        );
        let (Ok(received), Ok(sent), Ok(limit)) = (network("receive"), network("transmit"), limit)
        else {
            return;
        };
        self.register(received.clone());
        self.register(sent.clone());
        self.register(limit.clone());
        self.before_gathering(move || {
            if let Some((now_received, now_sent)) = network_bytes() {
                received.inc_by(now_received.saturating_sub(received.get()));
                sent.inc_by(now_sent.saturating_sub(sent.get()));
            }
            limit.set(address_space_limit());
        });
    }

    /// Adds a metric. Two of one name are a mistake in the code: the second is logged
    /// and left out.
    pub fn register(&self, collector: impl Collector + 'static) {
        if let Err(error) = self.inner.register(Box::new(collector)) {
            tracing::error!("a metric is not registered: {error}");
        }
    }

    /// The registry for code that takes prometheus' own.
    pub fn inner(&self) -> &prometheus::Registry {
        &self.inner
    }

    /// Upstream's `leader_election_master_status` of a lease's name.
    pub fn leader_status(&self, name: &str) -> prometheus::Result<IntGauge> {
        let opts = Opts::new(
            "leader_election_master_status",
            "Whether this process is the leader (1) or stands by (0), by the lease's name.",
        );
        let status = IntGaugeVec::new(opts, &["name"])?;
        self.register(status.clone());
        Ok(status.with_label_values(&[name]))
    }

    /// Reports every gate as upstream's `kubernetes_feature_enabled`.
    pub fn report_features(&self, gates: &FeatureGates) {
        let opts = Opts::new(
            "kubernetes_feature_enabled",
            "Whether a feature is enabled, by its name and stage.",
        );
        let Ok(enabled) = IntGaugeVec::new(opts, &["name", "stage"]) else {
            return;
        };
        for gate in GATES {
            let stage = match gate.stage {
                Stage::Alpha => "ALPHA",
                Stage::Beta => "BETA",
                Stage::Ga => "",
                Stage::Deprecated => "DEPRECATED",
            };
            let value = i64::from(gates.enabled(gate.name));
            enabled.with_label_values(&[gate.name, stage]).set(value);
        }
        self.register(enabled);
    }

    /// Called before metrics are gathered, for gauges that are worked out only then.
    pub fn before_gathering(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.hooks.write().push(Box::new(hook));
    }

    /// The body of `/metrics` in Prometheus' text format, and its content type.
    pub fn render(&self) -> (String, &'static str) {
        for hook in self.hooks.read().iter() {
            hook();
        }
        let mut families = self.inner.gather();
        let disabled = self.disabled.read();
        families.retain(|family| !disabled.contains(family.name()));
        text(&families)
    }

    /// Shows metrics apart from the others, at a path such as `/metrics/resources`, in
    /// Prometheus' text format.
    pub fn add_page(
        &self,
        path: &'static str,
        gather: impl Fn() -> String + Send + Sync + 'static,
    ) {
        self.pages.write().insert(path, Box::new(gather));
    }

    /// The body of such a page, and its content type.
    pub fn render_page(&self, path: &str) -> Option<(String, &'static str)> {
        let pages = self.pages.read();
        pages
            .get(path)
            .map(|page| (page(), prometheus::TEXT_FORMAT))
    }

    /// Leaves metrics out of `/metrics`, by their names (`--disabled-metrics`).
    pub fn disable(&self, names: impl IntoIterator<Item = String>) {
        let names = names.into_iter().filter(|name| !name.is_empty());
        self.disabled.write().extend(names);
    }

    /// Tells how many are left out.
    fn report_disabled(&self) {
        let total = prometheus::IntCounter::new(
            "disabled_metrics_total",
            "Metrics that are disabled by a flag.",
        );
        if let Ok(total) = total {
            self.register(total.clone());
            let disabled = self.disabled.clone();
            self.before_gathering(move || {
                let count = disabled.read().len() as u64;
                total.inc_by(count.saturating_sub(total.get()));
            });
        }
    }
}

/// The metrics of `/metrics/slis`, apart from the others so that they can be scraped often
/// (KEP-3466). Cheap to clone.
#[derive(Clone)]
pub struct Slis {
    registry: prometheus::Registry,
    state: IntGaugeVec,
    total: IntCounterVec,
}

impl Slis {
    pub fn new() -> prometheus::Result<Self> {
        let slis = Self {
            registry: prometheus::Registry::new(),
            state: IntGaugeVec::new(
                Opts::new("kubernetes_healthcheck", "What a health check found last."),
                &["name", "type"],
            )?,
            total: IntCounterVec::new(
                Opts::new("kubernetes_healthchecks_total", "What health checks found."),
                &["name", "type", "status"],
            )?,
        };
        slis.registry.register(Box::new(slis.state.clone()))?;
        slis.registry.register(Box::new(slis.total.clone()))?;
        Ok(slis)
    }

    /// `endpoint`: `healthz`, `livez` or `readyz`.
    pub(crate) fn observe(&self, check: &str, endpoint: &str, passed: bool) {
        let state = self.state.with_label_values(&[check, endpoint]);
        state.set(passed.into());
        let status = if passed { "success" } else { "error" };
        let labels = [check, endpoint, status];
        self.total.with_label_values(&labels).inc();
    }

    /// The body of `/metrics/slis`, and its content type.
    pub fn render(&self) -> (String, &'static str) {
        text(&self.registry.gather())
    }
}

fn text(families: &[MetricFamily]) -> (String, &'static str) {
    let mut body = Vec::new();
    if let Err(error) = TextEncoder::new().encode(families, &mut body) {
        tracing::error!("metrics cannot be rendered: {error}");
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    (body, prometheus::TEXT_FORMAT)
}

/// Bytes received and sent by the network namespace (`IpExt` of `/proc/self/net/netstat`).
fn network_bytes() -> Option<(u64, u64)> {
    parse_netstat(&std::fs::read_to_string("/proc/self/net/netstat").ok()?)
}

/// The table has a line of names and one of values.
fn parse_netstat(text: &str) -> Option<(u64, u64)> {
    let mut lines = text.lines().filter_map(|l| l.strip_prefix("IpExt: "));
    let names = lines.next()?.split(' ');
    let values: Vec<&str> = lines.next()?.split(' ').collect();
    let at = |wanted: &str| {
        let index = names.clone().position(|name| name == wanted)?;
        values.get(index)?.parse().ok()
    };
    Some((at("InOctets")?, at("OutOctets")?))
}

/// Bytes; the greatest number where there is no limit.
fn address_space_limit() -> i64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max address space"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(i64::MAX)
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_the_network_are_found_by_name() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nIpExt: X InOctets OutOctets\nIpExt: 7 8 9\n";
        assert_eq!(parse_netstat(text), Some((8, 9)));
        assert_eq!(parse_netstat("IpExt: X\n"), None);
    }

    #[test]
    fn what_every_daemon_has_is_rendered() {
        let registry = Registry::new();
        let gauge = prometheus::IntGauge::new("x", "y").unwrap();
        registry.register(gauge.clone());
        registry.before_gathering(move || gauge.inc());
        registry.report_features(&FeatureGates::default());
        registry.render();
        let (text, _) = registry.render();
        assert!(text.contains("\nx 2\n"), "{text}");
        assert!(text.contains("\ndisabled_metrics_total 0\n"), "{text}");
        registry.disable(["x".to_owned(), String::new()]);
        let (text, _) = registry.render();
        assert!(!text.contains("\nx "), "{text}");
        assert!(text.contains("\ndisabled_metrics_total 1\n"), "{text}");
        assert!(
            text.contains(
                "kubernetes_feature_enabled{name=\"APIServerIdentity\",stage=\"BETA\"} 1"
            ),
            "{text}"
        );
        assert!(text.contains("kubernetes_build_info{"), "{text}");
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
