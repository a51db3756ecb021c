//! Metrics of the allocators of Services' addresses and ports, under upstream's names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// A choice of the user's own, or the allocator's.
pub const STATIC: &str = "static";
pub const DYNAMIC: &str = "dynamic";

pub struct Metrics {
    addresses: IntGaugeVec,
    addresses_left: IntGaugeVec,
    address_allocations: IntCounterVec,
    address_errors: IntCounterVec,
    address_seconds: HistogramVec,
    ports: IntGauge,
    ports_left: IntGauge,
    port_allocations: IntCounterVec,
    port_errors: IntCounterVec,
    address_repairs: IntCounterVec,
    address_repair_errors: IntCounter,
    port_repairs: IntCounterVec,
    port_repair_errors: IntCounter,
}

impl Metrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> prometheus::Result<Arc<Self>> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let name = format!("kube_apiserver_{name}");
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let by_range = |name: &str, help: &str| {
            let name = format!("kube_apiserver_{name}");
            let gauge = IntGaugeVec::new(Opts::new(name, help), &["cidr"])?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("kube_apiserver_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let repairs = |name: &str, help: &str| {
            let counter =
                IntCounterVec::new(Opts::new(format!("apiserver_{name}"), help), &["type"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let failures = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("apiserver_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let address_seconds = HistogramVec::new(
            HistogramOpts::new(
                "kube_apiserver_clusterip_allocator_allocation_duration_seconds",
                "Seconds that taking an address took.",
            ),
            &["cidr"],
        )?;
        registry.register(Box::new(address_seconds.clone()))?;
        Ok(Arc::new(Self {
            addresses: by_range("clusterip_allocator_allocated_ips", "Addresses in use.")?,
            addresses_left: by_range("clusterip_allocator_available_ips", "Addresses left.")?,
            address_allocations: counter(
                "clusterip_allocator_allocation_total",
                "Addresses taken.",
                &["cidr", "scope"],
            )?,
            address_errors: counter(
                "clusterip_allocator_allocation_errors_total",
                "Addresses that could not be taken.",
                &["cidr", "scope"],
            )?,
            address_seconds,
            ports: gauge("nodeport_allocator_allocated_ports", "Node ports in use.")?,
            ports_left: gauge("nodeport_allocator_available_ports", "Node ports left.")?,
            port_allocations: counter(
                "nodeport_allocator_allocation_total",
                "Node ports taken.",
                &["scope"],
            )?,
            port_errors: counter(
                "nodeport_allocator_allocation_errors_total",
                "Node ports that could not be taken.",
                &["scope"],
            )?,
            address_repairs: repairs(
                "clusterip_repair_ip_errors_total",
                "Addresses that the repair found to be wrong, by what was wrong with them.",
            )?,
            address_repair_errors: failures(
                "clusterip_repair_reconcile_errors_total",
                "Repairs of addresses that failed.",
            )?,
            port_repairs: repairs(
                "nodeport_repair_port_errors_total",
                "Node ports that the repair found to be wrong, by what was wrong with them.",
            )?,
            port_repair_errors: failures(
                "nodeport_repair_reconcile_errors_total",
                "Repairs of node ports that failed.",
            )?,
        }))
    }

    pub fn address(&self, range: &str, scope: &str, ok: bool, started: Instant) {
        let counter = match ok {
            true => &self.address_allocations,
            false => &self.address_errors,
        };
        counter.with_label_values(&[range, scope]).inc();
        self.address_seconds
            .with_label_values(&[range])
            .observe(started.elapsed().as_secs_f64());
    }

    /// One more in use, or one less, until they are counted again.
    pub fn changed(&self, range: &str, by: i64) {
        self.addresses.with_label_values(&[range]).add(by);
        self.addresses_left.with_label_values(&[range]).sub(by);
    }

    /// What a range has in use and left.
    pub fn addresses(&self, range: &str, used: u64, usable: u64) {
        let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.addresses.with_label_values(&[range]).set(count(used));
        let left = count(usable.saturating_sub(used));
        self.addresses_left.with_label_values(&[range]).set(left);
    }

    pub fn port(&self, scope: &str, ok: bool) {
        let counter = match ok {
            true => &self.port_allocations,
            false => &self.port_errors,
        };
        counter.with_label_values(&[scope]).inc();
    }

    /// The repair found an address to be wrong: `leak`, `repair`, `outOfRange`, `full`, `unknown`.
    pub fn address_repaired(&self, wrong: &str) {
        self.address_repairs.with_label_values(&[wrong]).inc();
    }

    pub fn address_repair_failed(&self) {
        self.address_repair_errors.inc();
    }

    /// The repair gave back node ports that nobody has.
    pub fn ports_leaked(&self, count: usize) {
        let leaks = self.port_repairs.with_label_values(&["leak"]);
        leaks.inc_by(count as u64);
    }

    pub fn port_repair_failed(&self) {
        self.port_repair_errors.inc();
    }

    pub fn ports(&self, used: usize, all: u16) {
        self.ports.set(used as i64);
        self.ports_left.set(i64::from(all) - used as i64);
    }
}

/// How often the addresses in use are counted.
pub const COUNT_EVERY: Duration = Duration::from_secs(30);
