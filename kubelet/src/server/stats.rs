//! `/stats/summary`, `/metrics/resource`, `/metrics/cadvisor`: what the node and its pods use, as
//! the runtime and the kernel tell when asked.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use grpc::cri;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cgroups::Hierarchy;
use crate::cri::client::{CriClient, CriError};
use crate::cri::labels;
use crate::pods::index::PodIndex;
use crate::pods::pod::PodExt;
use crate::sys;
use crate::volumes::{VolumeStats, Volumes};

/// Reads usage when it is asked for; nothing is polled.
pub struct Stats {
    pub runtime: CriClient,
    pub cgroups: Hierarchy,
    pub index: Arc<PodIndex>,
    pub volumes: Arc<Volumes>,
    pub node_name: String,
    pub root_dir: PathBuf,
    pub started: Timestamp,
    /// When the node's CPU time was last read, and what it was: for the rate.
    last_cpu: Mutex<Option<(Timestamp, u64, u64)>>,
}

/// One container's usage with its names.
struct Container {
    uid: String,
    pod: String,
    namespace: String,
    name: String,
    image: String,
    created: i64,
    stats: cri::ContainerStats,
}

fn value(value: Option<&cri::UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

fn time(nanoseconds: i64) -> String {
    let at = Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Stats {
    pub fn new(
        runtime: CriClient,
        cgroups: Hierarchy,
        index: Arc<PodIndex>,
        volumes: Arc<Volumes>,
        node_name: String,
        root_dir: PathBuf,
    ) -> Self {
        Self {
            runtime,
            cgroups,
            index,
            volumes,
            node_name,
            root_dir,
            started: Timestamp::now(),
            last_cpu: Mutex::default(),
        }
    }

    async fn containers(&self) -> Result<Vec<Container>, CriError> {
        let of = crate::cri::client::Of {
            pod_uid: None,
            running: true,
        };
        let (stats, running) = futures::try_join!(
            self.runtime.container_stats(),
            self.runtime.list_containers(of)
        )?;
        let running: HashMap<&str, &cri::Container> =
            running.iter().map(|c| (c.id.as_str(), c)).collect();
        let with_names = stats.into_iter().filter_map(|stats| {
            let attributes = stats.attributes.as_ref()?;
            let container = running.get(attributes.id.as_str())?;
            let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
            Some(Container {
                uid: label(labels::POD_UID),
                pod: label(labels::POD_NAME),
                namespace: label(labels::POD_NAMESPACE),
                name: label(labels::CONTAINER_NAME),
                image: container
                    .image
                    .as_ref()
                    .map(|image| image.image.clone())
                    .unwrap_or_default(),
                created: container.created_at,
                stats,
            })
        });
        Ok(with_names.collect())
    }

    /// CPU time used since boot and the current rate, in nanoseconds.
    fn node_cpu(&self) -> (u64, u64) {
        let used = sys::node::cpu_time_nanoseconds();
        let now = Timestamp::now();
        let mut last = self.last_cpu.lock();
        let rate = match *last {
            Some((at, before, rate)) => {
                let elapsed = now.duration_since(at).as_nanos();
                if elapsed < 100_000_000 {
                    rate
                } else {
                    u64::try_from(i128::from(used.saturating_sub(before)) * 1_000_000_000 / elapsed)
                        .unwrap_or_default()
                }
            }
            None => 0,
        };
        *last = Some((now, used, rate));
        (used, rate)
    }

    /// The summary that metrics-server and the HPA's predecessors read.
    ///
    /// # Errors
    /// When the runtime does not tell.
    pub async fn summary(&self, cpu_and_memory_only: bool) -> Result<Value, CriError> {
        let containers = self.containers().await?;
        let now = time(i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default());
        let (cpu, rate) = self.node_cpu();
        let (total, working_set) = self.cgroups.node_memory().unwrap_or_default();
        let fs = sys::fs::usage(&self.root_dir).unwrap_or_default();
        let fs = json!({"time": now, "availableBytes": fs.available, "capacityBytes": fs.capacity, "usedBytes": fs.used,
            "inodesFree": fs.inodes_free, "inodes": fs.inodes, "inodesUsed": fs.inodes - fs.inodes_free.min(fs.inodes)});
        let available = total.saturating_sub(working_set);
        let mut node = json!({
            "nodeName": self.node_name,
            "startTime": time(i64::try_from(self.started.as_nanosecond()).unwrap_or_default()),
            "cpu": {"time": now, "usageNanoCores": rate, "usageCoreNanoSeconds": cpu},
            "memory": {"time": now, "availableBytes": available, "usageBytes": working_set, "workingSetBytes": working_set},
        });
        if !cpu_and_memory_only {
            node["fs"] = fs.clone();
            node["runtime"] = json!({"imageFs": fs});
            let (max, running) = sys::node::processes();
            node["rlimit"] = json!({"time": now, "maxpid": max, "curproc": running});
        }
        let mut pods: BTreeMap<&str, Vec<&Container>> = BTreeMap::new();
        for container in &containers {
            pods.entry(&container.uid).or_default().push(container);
        }
        let mut shown = Vec::new();
        for (uid, containers) in pods {
            let mut pod = self.pod(&containers, cpu_and_memory_only);
            if let Some(spec) = self.index.get(uid).filter(|_| !cpu_and_memory_only) {
                let volumes = self.volumes.stats(&spec).await;
                if !volumes.is_empty() {
                    let volumes = volumes.iter().map(|v| volume(v, &now, spec.namespace()));
                    pod["volume"] = volumes.collect();
                }
            }
            shown.push(pod);
        }
        Ok(json!({"node": node, "pods": shown}))
    }

    fn pod(&self, containers: &[&Container], cpu_and_memory_only: bool) -> Value {
        let first = containers[0];
        let sum = |of: &dyn Fn(&cri::ContainerStats) -> u64| {
            containers.iter().map(|c| of(&c.stats)).sum::<u64>()
        };
        let at = containers
            .iter()
            .filter_map(|c| c.stats.cpu.as_ref())
            .map(|cpu| cpu.timestamp)
            .max()
            .unwrap_or_default();
        let started = self
            .index
            .get(&first.uid)
            .and_then(|pod| pod.status_or_default().start_time);
        let started = started.map_or_else(
            || time(first.created),
            |time| time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        );
        let mut pod = json!({
            "podRef": {"name": first.pod, "namespace": first.namespace, "uid": first.uid},
            "startTime": started,
            "containers": containers.iter().map(|c| container(c, cpu_and_memory_only)).collect::<Vec<_>>(),
            "cpu": {
                "time": time(at),
                "usageNanoCores": sum(&|s| s.cpu.as_ref().map_or(0, |c| value(c.usage_nano_cores.as_ref()))),
                "usageCoreNanoSeconds": sum(&|s| s.cpu.as_ref().map_or(0, |c| value(c.usage_core_nano_seconds.as_ref()))),
            },
            "memory": {
                "time": time(at),
                "usageBytes": sum(&|s| s.memory.as_ref().map_or(0, |m| value(m.usage_bytes.as_ref()))),
                "workingSetBytes": sum(&|s| s.memory.as_ref().map_or(0, |m| value(m.working_set_bytes.as_ref()))),
                "rssBytes": sum(&|s| s.memory.as_ref().map_or(0, |m| value(m.rss_bytes.as_ref()))),
            },
        });
        if !cpu_and_memory_only {
            let used = sum(&|s| {
                s.writable_layer
                    .as_ref()
                    .map_or(0, |fs| value(fs.used_bytes.as_ref()))
            });
            pod["ephemeral-storage"] = json!({"time": time(at), "usedBytes": used});
        }
        pod
    }

    /// Prometheus text for metrics-server: `/metrics/resource`.
    ///
    /// # Errors
    /// When the runtime does not tell.
    pub async fn resource_metrics(&self) -> Result<String, CriError> {
        let containers = self.containers().await?;
        let (cpu, _) = self.node_cpu();
        let (_, working_set) = self.cgroups.node_memory().unwrap_or_default();
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

    /// The usual container metrics under cAdvisor's names: `/metrics/cadvisor`.
    ///
    /// # Errors
    /// When the runtime does not tell.
    pub async fn cadvisor_metrics(&self) -> Result<String, CriError> {
        let containers = self.containers().await?;
        let mut text = String::new();
        let mut family =
            |name: &str,
             help: &str,
             kind: &str,
             of: &dyn Fn(&cri::ContainerStats) -> Option<f64>| {
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
                for c in &containers {
                    let Some(value) = of(&c.stats) else { continue };
                    let id = c.stats.attributes.as_ref().map_or("", |a| a.id.as_str());
                    let _ = writeln!(
                        text,
                        "{name}{{container={:?},id={id:?},image={:?},name={id:?},namespace={:?},pod={:?}}} {value}",
                        c.name, c.image, c.namespace, c.pod
                    );
                }
            };
        let memory = |of: fn(&cri::MemoryUsage) -> Option<&cri::UInt64Value>| {
            move |s: &cri::ContainerStats| s.memory.as_ref().and_then(of).map(|v| v.value as f64)
        };
        family(
            "container_cpu_usage_seconds_total",
            "Cumulative cpu time consumed in seconds.",
            "counter",
            &|s| {
                s.cpu
                    .as_ref()
                    .and_then(|c| c.usage_core_nano_seconds.as_ref())
                    .map(|v| v.value as f64 / 1e9)
            },
        );
        family(
            "container_memory_working_set_bytes",
            "Current working set in bytes.",
            "gauge",
            &memory(|m| m.working_set_bytes.as_ref()),
        );
        family(
            "container_memory_usage_bytes",
            "Current memory usage in bytes, including all memory regardless of when it was accessed",
            "gauge",
            &memory(|m| m.usage_bytes.as_ref()),
        );
        family(
            "container_memory_rss",
            "Size of RSS in bytes.",
            "gauge",
            &memory(|m| m.rss_bytes.as_ref()),
        );
        family(
            "container_fs_usage_bytes",
            "Number of bytes that are consumed by the container on this filesystem.",
            "gauge",
            &|s| {
                s.writable_layer
                    .as_ref()
                    .and_then(|fs| fs.used_bytes.as_ref())
                    .map(|v| v.value as f64)
            },
        );
        Ok(text)
    }
}

fn volume(volume: &VolumeStats, now: &str, namespace: &str) -> Value {
    let usage = volume.usage;
    let mut out = json!({
        "time": now, "name": volume.name,
        "availableBytes": usage.available, "capacityBytes": usage.capacity, "usedBytes": usage.used,
        "inodesFree": usage.inodes_free, "inodes": usage.inodes, "inodesUsed": usage.inodes_used,
    });
    if let Some(claim) = &volume.claim {
        out["pvcRef"] = json!({"name": claim, "namespace": namespace});
    }
    out
}

fn container(container: &Container, cpu_and_memory_only: bool) -> Value {
    let stats = &container.stats;
    let mut out = json!({"name": container.name, "startTime": time(container.created)});
    if let Some(cpu) = &stats.cpu {
        out["cpu"] = json!({"time": time(cpu.timestamp), "usageNanoCores": value(cpu.usage_nano_cores.as_ref()),
            "usageCoreNanoSeconds": value(cpu.usage_core_nano_seconds.as_ref())});
    }
    if let Some(memory) = &stats.memory {
        out["memory"] = json!({"time": time(memory.timestamp), "usageBytes": value(memory.usage_bytes.as_ref()),
            "workingSetBytes": value(memory.working_set_bytes.as_ref()), "rssBytes": value(memory.rss_bytes.as_ref()),
            "pageFaults": value(memory.page_faults.as_ref()), "majorPageFaults": value(memory.major_page_faults.as_ref())});
        if let Some(available) = memory
            .available_bytes
            .as_ref()
            .filter(|available| available.value > 0)
        {
            out["memory"]["availableBytes"] = available.value.into();
        }
    }
    if let Some(fs) = stats
        .writable_layer
        .as_ref()
        .filter(|_| !cpu_and_memory_only)
    {
        out["rootfs"] = json!({"time": time(fs.timestamp), "usedBytes": value(fs.used_bytes.as_ref()),
            "inodesUsed": value(fs.inodes_used.as_ref())});
    }
    out
}
