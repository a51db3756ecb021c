//! `/metrics/cadvisor`: what groups use, under the names and labels that cAdvisor has given it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use jiff::Timestamp;

use super::{Container, Sandbox, Stats, blocking, network, value};
use crate::cgroups::{CgroupName, GroupUsage, PodCgroups, Pressure};
use crate::cri::client::CriError;
use crate::resources::qos::QosClass;
use crate::sys::net::{self, Interface};
use crate::sys::node::Machine;

/// One group: who it is, and what it uses.
#[derive(Debug, Default)]
struct Group {
    id: String,
    container: String,
    image: String,
    name: String,
    namespace: String,
    pod: String,
    /// Nanoseconds since 1970.
    created: i64,
    /// Bytes of a container's own layer, and where it lies.
    layer: Option<(String, u64)>,
    usage: GroupUsage,
    network: Vec<Interface>,
}

/// Nanoseconds, as seconds.
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// The text format, where labels are escaped.
#[derive(Default)]
struct Page {
    text: String,
    /// Milliseconds: when all of it was read.
    at: i64,
}

/// More labels of a sample, and its value.
type Sample = (Vec<(&'static str, String)>, f64);

fn plain(value: f64) -> Vec<Sample> {
    vec![(Vec::new(), value)]
}

fn maybe(value: Option<f64>) -> Vec<Sample> {
    value.map(plain).unwrap_or_default()
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &BTreeMap<&str, &str>, value: f64, at: bool) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                format!("{name}=\"{}\"", value.replace('\n', "\\n"))
            })
            .collect();
        let at = if at {
            format!(" {}", self.at)
        } else {
            String::new()
        };
        let _ = writeln!(self.text, "{name}{{{}}} {value}{at}", labels.join(","));
    }

    fn family(
        &mut self,
        (name, kind, help): (&str, &str, &str),
        groups: &[Group],
        of: impl Fn(&Group) -> Vec<Sample>,
    ) {
        let mut headed = false;
        for group in groups {
            for (more, value) in of(group) {
                if !headed {
                    self.head(name, kind, help);
                    headed = true;
                }
                let own = [
                    ("container", &group.container),
                    ("id", &group.id),
                    ("image", &group.image),
                    ("name", &group.name),
                    ("namespace", &group.namespace),
                    ("pod", &group.pod),
                ];
                let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
                labels.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
                labels.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
                self.sample(name, &labels, value, true);
            }
        }
    }
}

impl Stats {
    /// # Errors
    /// When the runtime does not tell.
    pub async fn cadvisor_metrics(&self) -> Result<String, CriError> {
        let (containers, sandboxes) = futures::try_join!(self.containers(), self.sandboxes())?;
        let (cgroups, started) = (self.cgroups.clone(), self.started);
        let groups = blocking(move || groups(&cgroups, started, &sandboxes, &containers));
        let mut page = Page {
            text: String::new(),
            at: Timestamp::now().as_millisecond(),
        };
        write_all(&mut page, &groups.await.unwrap_or_default());
        write_machine(&mut page, &self.machine);
        page.head(
            "container_scrape_error",
            "gauge",
            "1 if there was an error while getting container metrics, 0 otherwise",
        );
        let _ = writeln!(page.text, "container_scrape_error 0");
        page.head(
            "machine_scrape_error",
            "gauge",
            "1 if there was an error while getting machine metrics, 0 otherwise.",
        );
        let _ = writeln!(page.text, "machine_scrape_error 0");
        Ok(page.text)
    }
}

/// All groups that are known, the root first. Blocks on many small files.
fn groups(
    cgroups: &PodCgroups,
    started: Timestamp,
    sandboxes: &[Sandbox],
    containers: &[Container],
) -> Vec<Group> {
    let hierarchy = &cgroups.hierarchy;
    let mut all = Vec::new();
    let mut add = |group: Group| {
        if let Some(usage) = hierarchy.usage(&group.id) {
            all.push(Group { usage, ..group });
        }
    };
    let booted = crate::sys::node::boot_time().unwrap_or(started);
    let since = |at: Timestamp| i64::try_from(at.as_nanosecond()).unwrap_or_default();
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    add(Group {
        id: "/".into(),
        created: since(booted),
        network: net::interfaces(own).unwrap_or_default(),
        ..Group::default()
    });
    for id in shared(&cgroups.names, cgroups.per_qos) {
        add(Group {
            id,
            created: since(started),
            ..Group::default()
        });
    }
    let mut of_pod: HashMap<&str, Vec<&Container>> = HashMap::new();
    for container in containers {
        of_pod.entry(&container.uid).or_default().push(container);
    }
    for sandbox in sandboxes {
        let Some(parent) = &sandbox.group else {
            continue;
        };
        let pod = |id: String, created: i64| Group {
            id,
            created,
            namespace: sandbox.namespace.clone(),
            pod: sandbox.pod.clone(),
            ..Group::default()
        };
        if cgroups.per_qos {
            add(pod(parent.clone(), sandbox.created));
        }
        add(Group {
            name: sandbox.id.clone(),
            network: network(cgroups, parent, &sandbox.id),
            ..pod(format!("{parent}/{}", sandbox.id), sandbox.created)
        });
        for container in of_pod.get(&sandbox.uid[..]).into_iter().flatten() {
            let layer = container.stats.writable_layer.as_ref().map(|layer| {
                let at = layer.fs_id.as_ref().map(|id| id.mountpoint.clone());
                (at.unwrap_or_default(), value(layer.used_bytes.as_ref()))
            });
            add(Group {
                container: container.name.clone(),
                image: container.image.clone(),
                name: container.id.clone(),
                layer,
                ..pod(format!("{parent}/{}", container.id), container.created)
            });
        }
    }
    all
}

/// The groups that pods share.
fn shared(names: &CgroupName, per_qos: bool) -> Vec<String> {
    if !per_qos {
        return Vec::new();
    }
    let classes = [QosClass::Burstable, QosClass::BestEffort];
    let classes = classes.into_iter().map(|class| names.class(class));
    std::iter::once(names.all().to_owned())
        .chain(classes)
        .collect()
}

/// `8:0` as `/dev/sda`.
fn device(number: &str) -> String {
    let path = format!("/sys/dev/block/{number}/uevent");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(String::new, |name| format!("/dev/{name}"))
}

fn write_all(page: &mut Page, groups: &[Group]) {
    let at = page.at as f64 / 1000.0;
    page.family(
        (
            "container_last_seen",
            "gauge",
            "Last time a container was seen by the exporter",
        ),
        groups,
        |_| plain(at.floor()),
    );
    page.family(
        (
            "container_start_time_seconds",
            "gauge",
            "Start time of the container since unix epoch in seconds.",
        ),
        groups,
        |group| plain((group.created / 1_000_000_000) as f64),
    );
    write_cpu(page, groups);
    write_memory(page, groups);
    write_network(page, groups);
    write_disks(page, groups);
    write_processes(page, groups);
    write_pressures(page, groups);
}

fn write_cpu(page: &mut Page, groups: &[Group]) {
    const COUNTER: &str = "counter";
    let mut cpu = |name: &str, help: &str, of: fn(&crate::cgroups::CpuUsage) -> f64| {
        page.family((name, COUNTER, help), groups, |group| {
            maybe(group.usage.cpu.as_ref().map(of))
        });
    };
    cpu(
        "container_cpu_user_seconds_total",
        "Cumulative user cpu time consumed in seconds.",
        |c| seconds(c.user),
    );
    cpu(
        "container_cpu_system_seconds_total",
        "Cumulative system cpu time consumed in seconds.",
        |c| seconds(c.system),
    );
    let total = (
        "container_cpu_usage_seconds_total",
        COUNTER,
        "Cumulative cpu time consumed in seconds.",
    );
    page.family(total, groups, |group| {
        let cpu = group.usage.cpu.iter();
        cpu.map(|cpu| (vec![("cpu", "total".to_owned())], seconds(cpu.total)))
            .collect()
    });
    // Only where there is a quota is anything throttled.
    let mut cfs = |name: &str, help: &str, of: fn(&crate::cgroups::CpuUsage) -> f64| {
        page.family((name, COUNTER, help), groups, |group| {
            let cpu = group
                .usage
                .cpu
                .as_ref()
                .filter(|_| group.usage.quota.is_some());
            maybe(cpu.map(of))
        });
    };
    cfs(
        "container_cpu_cfs_periods_total",
        "Number of elapsed enforcement period intervals.",
        |c| c.periods as f64,
    );
    cfs(
        "container_cpu_cfs_throttled_periods_total",
        "Number of throttled period intervals.",
        |c| c.throttled_periods as f64,
    );
    cfs(
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        |c| seconds(c.throttled),
    );
    let mut spec = |name: &str, help: &str, of: fn(&GroupUsage) -> Option<f64>| {
        page.family((name, "gauge", help), groups, |group| {
            maybe(of(&group.usage))
        });
    };
    spec(
        "container_spec_cpu_period",
        "CPU period of the container.",
        |u| u.period.map(|n| n as f64),
    );
    spec(
        "container_spec_cpu_quota",
        "CPU quota of the container.",
        |u| u.quota.map(|n| n as f64),
    );
    spec(
        "container_spec_cpu_shares",
        "CPU share of the container.",
        |u| u.shares.map(|n| n as f64),
    );
}

fn write_memory(page: &mut Page, groups: &[Group]) {
    type Of = fn(&crate::cgroups::MemoryUsage) -> Option<f64>;
    let all: [(&str, &str, &str, Of); 12] = [
        (
            "container_memory_usage_bytes",
            "gauge",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            |m| Some(m.usage as f64),
        ),
        (
            "container_memory_working_set_bytes",
            "gauge",
            "Current working set in bytes.",
            |m| Some(m.working_set as f64),
        ),
        (
            "container_memory_rss",
            "gauge",
            "Size of RSS in bytes.",
            |m| Some(m.rss as f64),
        ),
        (
            "container_memory_cache",
            "gauge",
            "Number of bytes of page cache memory.",
            |m| Some(m.cache as f64),
        ),
        (
            "container_memory_swap",
            "gauge",
            "Container swap usage in bytes.",
            |m| Some(m.swap as f64),
        ),
        (
            "container_memory_mapped_file",
            "gauge",
            "Size of memory mapped files in bytes.",
            |m| Some(m.mapped_file as f64),
        ),
        (
            "container_memory_failcnt",
            "counter",
            "Number of memory usage hits limits",
            |m| Some(m.failures as f64),
        ),
        (
            "container_memory_max_usage_bytes",
            "gauge",
            "Maximum memory usage recorded in bytes",
            |m| m.max_usage.map(|n| n as f64),
        ),
        (
            "container_oom_events_total",
            "counter",
            "Count of out of memory events observed for the container",
            |m| Some(m.oom_kills as f64),
        ),
        (
            "container_spec_memory_limit_bytes",
            "gauge",
            "Memory limit for the container.",
            |m| Some(m.limit.unwrap_or(0) as f64),
        ),
        (
            "container_spec_memory_reservation_limit_bytes",
            "gauge",
            "Memory reservation limit for the container.",
            |_| Some(0.0),
        ),
        (
            "container_spec_memory_swap_limit_bytes",
            "gauge",
            "Memory swap limit for the container.",
            |m| Some(m.swap_limit.unwrap_or(0) as f64),
        ),
    ];
    for (name, kind, help, of) in all {
        page.family((name, kind, help), groups, |group| {
            maybe(group.usage.memory.as_ref().and_then(of))
        });
    }
    let failures = (
        "container_memory_failures_total",
        "counter",
        "Cumulative count of memory allocation failures.",
    );
    page.family(failures, groups, |group| {
        let Some(memory) = group.usage.memory else {
            return Vec::new();
        };
        // What is below counts in either.
        let kinds = [
            ("pgfault", memory.page_faults),
            ("pgmajfault", memory.major_page_faults),
        ];
        let samples = kinds.into_iter().flat_map(|(kind, count)| {
            ["container", "hierarchy"].map(|scope| {
                let labels = vec![
                    ("failure_type", kind.to_owned()),
                    ("scope", scope.to_owned()),
                ];
                (labels, count as f64)
            })
        });
        samples.collect()
    });
}

fn write_network(page: &mut Page, groups: &[Group]) {
    type Of = fn(&Interface) -> u64;
    let all: [(&str, &str, Of); 8] = [
        (
            "container_network_receive_bytes_total",
            "Cumulative count of bytes received",
            |i| i.received.bytes,
        ),
        (
            "container_network_receive_packets_total",
            "Cumulative count of packets received",
            |i| i.received.packets,
        ),
        (
            "container_network_receive_packets_dropped_total",
            "Cumulative count of packets dropped while receiving",
            |i| i.received.dropped,
        ),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |i| i.received.errors,
        ),
        (
            "container_network_transmit_bytes_total",
            "Cumulative count of bytes transmitted",
            |i| i.sent.bytes,
        ),
        (
            "container_network_transmit_packets_total",
            "Cumulative count of packets transmitted",
            |i| i.sent.packets,
        ),
        (
            "container_network_transmit_packets_dropped_total",
            "Cumulative count of packets dropped while transmitting",
            |i| i.sent.dropped,
        ),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |i| i.sent.errors,
        ),
    ];
    for (name, help, of) in all {
        page.family((name, "counter", help), groups, |group| {
            let interfaces = group.network.iter();
            let samples = interfaces.map(|i| (vec![("interface", i.name.clone())], of(i) as f64));
            samples.collect()
        });
    }
}

fn write_disks(page: &mut Page, groups: &[Group]) {
    type Of = fn(&crate::cgroups::DeviceIo) -> u64;
    let numbers = groups.iter().flat_map(|group| &group.usage.io);
    let names: HashMap<String, String> = numbers
        .map(|io| (io.device.clone(), device(&io.device)))
        .collect();
    let all: [(&str, &str, Of); 4] = [
        (
            "container_fs_reads_bytes_total",
            "Cumulative count of bytes read",
            |io| io.read_bytes,
        ),
        (
            "container_fs_writes_bytes_total",
            "Cumulative count of bytes written",
            |io| io.written_bytes,
        ),
        (
            "container_fs_reads_total",
            "Cumulative count of reads completed",
            |io| io.reads,
        ),
        (
            "container_fs_writes_total",
            "Cumulative count of writes completed",
            |io| io.writes,
        ),
    ];
    for (name, help, of) in all {
        page.family((name, "counter", help), groups, |group| {
            let devices = group.usage.io.iter();
            let samples = devices.map(|io| {
                let device = names.get(&io.device).cloned().unwrap_or_default();
                (vec![("device", device)], of(io) as f64)
            });
            samples.collect()
        });
    }
    let usage = (
        "container_fs_usage_bytes",
        "gauge",
        "Number of bytes that are consumed by the container on this filesystem.",
    );
    page.family(usage, groups, |group| {
        let layer = group.layer.iter();
        layer
            .map(|(at, bytes)| (vec![("device", at.clone())], *bytes as f64))
            .collect()
    });
}

fn write_processes(page: &mut Page, groups: &[Group]) {
    let mut gauge = |name: &str, help: &str, of: fn(&GroupUsage) -> Option<u64>| {
        page.family((name, "gauge", help), groups, |group| {
            maybe(of(&group.usage).map(|n| n as f64))
        });
    };
    gauge(
        "container_processes",
        "Number of processes running inside the container.",
        |u| Some(u.processes),
    );
    gauge(
        "container_threads",
        "Number of threads running inside the container",
        |u| Some(u.threads),
    );
    gauge(
        "container_threads_max",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        |u| Some(u.threads_max.unwrap_or(0)),
    );
}

fn write_pressures(page: &mut Page, groups: &[Group]) {
    type Of = fn(&GroupUsage) -> Option<Pressure>;
    let all: [(&str, Of); 3] = [
        ("cpu", |u| u.pressure.cpu),
        ("memory", |u| u.pressure.memory),
        ("io", |u| u.pressure.io),
    ];
    for (what, of) in all {
        for (how, is_full) in [("waiting", false), ("stalled", true)] {
            let name = format!("container_pressure_{what}_{how}_seconds_total");
            let help =
                format!("Total time duration tasks in the container have been {how} for {what}.");
            page.family((&name, "counter", &help), groups, |group| {
                let waited = of(&group.usage).map(|p| if is_full { p.full } else { p.some });
                maybe(waited.map(|waited| waited.total as f64 / 1e6))
            });
        }
    }
}

fn write_machine(page: &mut Page, machine: &Machine) {
    let labels = BTreeMap::from([
        ("boot_id", machine.boot_id.as_str()),
        ("machine_id", machine.machine_id.as_str()),
        ("system_uuid", machine.system_uuid.as_str()),
    ]);
    for (name, help, amount) in [
        (
            "machine_cpu_cores",
            "Number of logical CPU cores.",
            machine.cpus,
        ),
        (
            "machine_memory_bytes",
            "Amount of memory installed on the machine.",
            machine.memory,
        ),
        (
            "machine_swap_bytes",
            "Amount of swap memory available on the machine.",
            machine.swap,
        ),
    ] {
        page.head(name, "gauge", help);
        page.sample(name, &labels, amount as f64, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::{CpuUsage, MemoryUsage};

    #[test]
    fn series_have_upstreams_labels() {
        let group = Group {
            id: "/kubepods/podu/c1".into(),
            container: "c".into(),
            image: "a\"b".into(),
            name: "c1".into(),
            namespace: "n".into(),
            pod: "p".into(),
            usage: GroupUsage {
                cpu: Some(CpuUsage {
                    total: 1_500_000_000,
                    ..CpuUsage::default()
                }),
                memory: Some(MemoryUsage::default()),
                ..GroupUsage::default()
            },
            ..Group::default()
        };
        let mut page = Page {
            text: String::new(),
            at: 7,
        };
        write_all(&mut page, &[group]);
        let line = "container_cpu_usage_seconds_total{container=\"c\",cpu=\"total\",id=\"/kubepods/podu/c1\",image=\"a\\\"b\",name=\"c1\",namespace=\"n\",pod=\"p\"} 1.5 7\n";
        assert!(page.text.contains(line), "{}", page.text);
        assert!(!page.text.contains("cfs_periods"), "there is no quota");
        assert!(page.text.contains("failure_type=\"pgmajfault\""));
    }
}
