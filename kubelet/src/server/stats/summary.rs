//! `/stats/summary`.

use std::collections::HashMap;

use grpc::cri;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::disk::{Disk, OwnVolume, Taken};
use super::{Container, Measured, Sandbox, Stats, blocking, value};
use crate::cgroups::{GroupUsage, Pressure, Waited};
use crate::cri::client::CriError;
use crate::pods::pod::PodExt;
use crate::sys;
use crate::sys::fs::FsUsage;
use crate::sys::net::Interface;
use crate::volumes::VolumeStats;

/// What upstream takes for the interface that matters.
const DEFAULT_INTERFACE: &str = "eth0";

fn time(nanoseconds: i64) -> String {
    let at = Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    shown(at)
}

fn shown(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

impl Stats {
    /// The summary that metrics-server and the HPA's predecessors read.
    ///
    /// # Errors
    /// When the runtime does not tell.
    pub async fn summary(&self, cpu_and_memory_only: bool) -> Result<Value, CriError> {
        let (containers, sandboxes) = futures::try_join!(self.containers(), self.sandboxes())?;
        let now = shown(Timestamp::now());
        let mut of_pod: HashMap<&str, Vec<&Container>> = HashMap::new();
        for container in &containers {
            of_pod.entry(&container.uid).or_default().push(container);
        }
        let (cgroups, measured) = (self.cgroups.clone(), sandboxes.clone());
        let measured = blocking(move || {
            let each = measured
                .iter()
                .map(|sandbox| Measured::pod(&cgroups, sandbox));
            each.collect::<Vec<_>>()
        });
        let measured = measured.await.unwrap_or_default();
        let mut pods = Vec::new();
        for (sandbox, measured) in sandboxes.iter().zip(&measured) {
            let containers = of_pod.get(&sandbox.uid[..]).map_or(&[][..], |list| list);
            let pod = self.pod(sandbox, measured, containers, cpu_and_memory_only, &now);
            pods.push(pod.await);
        }
        let node = self.node(cpu_and_memory_only, &now).await?;
        self.forget_rates();
        Ok(json!({"node": node, "pods": pods}))
    }

    async fn node(&self, cpu_and_memory_only: bool, now: &str) -> Result<Value, CriError> {
        let hierarchy = &self.cgroups.hierarchy;
        let used = sys::node::cpu_time_nanoseconds();
        let (total, working_set) = hierarchy.node_memory().unwrap_or_default();
        let started = sys::node::boot_time().unwrap_or(self.started);
        let available = total.saturating_sub(working_set);
        let mut node = json!({
            "nodeName": self.node_name,
            "startTime": shown(started),
            "cpu": {"time": now, "usageNanoCores": self.rate("", used), "usageCoreNanoSeconds": used},
            "memory": {"time": now, "availableBytes": available, "usageBytes": working_set, "workingSetBytes": working_set},
            "systemContainers": self.system_containers(now, cpu_and_memory_only),
        });
        if let Some(root) = hierarchy.usage("/") {
            if let Some(memory) = root.memory {
                let own = &mut node["memory"];
                own["usageBytes"] = memory.usage.into();
                own["rssBytes"] = memory.rss.into();
                own["pageFaults"] = memory.page_faults.into();
                own["majorPageFaults"] = memory.major_page_faults.into();
            }
            add_pressures(&mut node, &root, now, cpu_and_memory_only);
        }
        if cpu_and_memory_only {
            return Ok(node);
        }
        let (swap, swap_free) = sys::node::swap();
        node["swap"] = json!({"time": now, "swapAvailableBytes": swap_free, "swapUsageBytes": swap.saturating_sub(swap_free)});
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        if let Some(network) = network(&sys::net::interfaces(own).unwrap_or_default(), now) {
            node["network"] = network;
        }
        let root = self.root_fs();
        node["fs"] = file_system(&root, now, root.used, root.inodes_used());
        let images = self.runtime.image_fs_info().await?;
        let images = images.image_filesystems.into_iter().next();
        let images = match images {
            Some(images) => layers(&images, now),
            None => node["fs"].clone(),
        };
        node["runtime"] = json!({"imageFs": images, "containerFs": images});
        let (max, running) = sys::node::processes();
        node["rlimit"] = json!({"time": now, "maxpid": max, "curproc": running});
        Ok(node)
    }

    fn root_fs(&self) -> FsUsage {
        sys::fs::usage(self.root.path()).unwrap_or_default()
    }

    /// The pods together, and what else has a group of a name that is known.
    fn system_containers(&self, now: &str, cpu_and_memory_only: bool) -> Vec<Value> {
        let all = match self.cgroups.names.all() {
            "" => "/",
            all => all,
        };
        let groups = [
            ("pods", Some(all)),
            ("kubelet", self.system.kubelet.as_deref()),
            ("runtime", self.system.runtime.as_deref()),
            ("misc", self.system.misc.as_deref()),
        ];
        let told = groups.into_iter().filter_map(|(name, group)| {
            let group = group.filter(|group| !group.is_empty())?;
            let usage = self.cgroups.hierarchy.usage(group)?;
            let mut out = json!({"name": name, "startTime": shown(self.started)});
            self.add_group(&mut out, group, &usage, now, cpu_and_memory_only);
            Some(out)
        });
        told.collect()
    }

    fn add_group(
        &self,
        out: &mut Value,
        group: &str,
        usage: &GroupUsage,
        now: &str,
        cpu_and_memory_only: bool,
    ) {
        if let Some(cpu) = usage.cpu {
            out["cpu"] = json!({"time": now, "usageNanoCores": self.rate(group, cpu.total), "usageCoreNanoSeconds": cpu.total});
        }
        if let Some(memory) = usage.memory {
            out["memory"] = json!({"time": now, "usageBytes": memory.usage, "workingSetBytes": memory.working_set,
                "rssBytes": memory.rss, "pageFaults": memory.page_faults, "majorPageFaults": memory.major_page_faults});
            if let Some(limit) = memory.limit {
                out["memory"]["availableBytes"] = limit.saturating_sub(memory.working_set).into();
            }
            if !cpu_and_memory_only {
                out["swap"] = json!({"time": now, "swapUsageBytes": memory.swap});
                if let Some(limit) = memory.swap_limit {
                    out["swap"]["swapAvailableBytes"] = limit.saturating_sub(memory.swap).into();
                }
            }
        }
        add_pressures(out, usage, now, cpu_and_memory_only);
    }

    async fn pod(
        &self,
        sandbox: &Sandbox,
        measured: &Measured,
        containers: &[&Container],
        cpu_and_memory_only: bool,
        now: &str,
    ) -> Value {
        let pod = self.index.get(&sandbox.uid);
        let started = pod
            .as_ref()
            .and_then(|pod| pod.status_or_default().start_time);
        let started = started.map_or_else(|| time(sandbox.created), |at| shown(at.0));
        let mut out = json!({
            "podRef": {"name": sandbox.pod, "namespace": sandbox.namespace, "uid": sandbox.uid},
            "startTime": started,
        });
        match (&measured.usage, &sandbox.group) {
            (Some(usage), Some(group)) => {
                self.add_group(&mut out, group, usage, now, cpu_and_memory_only);
                if !cpu_and_memory_only {
                    out["process_stats"] = json!({"process_count": usage.processes});
                }
            }
            _ => add_sums(&mut out, containers, now),
        }
        let mut disk = Disk::default();
        if let Some(pod) = pod.filter(|_| !cpu_and_memory_only) {
            if let Some(network) = network(&measured.network, now) {
                out["network"] = network;
            }
            let volumes = self.volumes.stats(&pod).await;
            let volumes = volumes
                .iter()
                .map(|v| provided_volume(v, now, pod.namespace()));
            let mut volumes: Vec<Value> = volumes.collect();
            let (root, logs_root, known) =
                (self.root.clone(), self.logs_root.clone(), self.disk.clone());
            let counted = blocking(move || Disk::measure(&root, &logs_root, &pod, &known));
            disk = counted.await.unwrap_or_default();
            volumes.extend(disk.volumes.iter().map(|volume| own_volume(volume, now)));
            if !volumes.is_empty() {
                out["volume"] = volumes.into();
            }
            out["ephemeral-storage"] = self.ephemeral(&disk, containers, now);
        }
        let root = self.root_fs();
        let containers = containers.iter().map(|container| {
            let logs = disk.logs.get(&container.name);
            let mut out = of_container(container, cpu_and_memory_only);
            if let Some(logs) = logs {
                out["logs"] = file_system(&root, now, logs.bytes, logs.inodes);
            }
            out
        });
        out["containers"] = containers.collect();
        out
    }

    fn ephemeral(&self, disk: &Disk, containers: &[&Container], now: &str) -> Value {
        let layers = containers
            .iter()
            .filter_map(|c| c.stats.writable_layer.as_ref());
        let layers = layers.map(|layer| Taken {
            bytes: value(layer.used_bytes.as_ref()),
            inodes: value(layer.inodes_used.as_ref()),
        });
        let volumes = disk.volumes.iter().filter(|volume| volume.on_disk);
        let (mut bytes, mut inodes) = (0, 0);
        for taken in layers
            .chain(disk.logs.values().copied())
            .chain(volumes.map(|volume| volume.taken))
            .chain([disk.rest])
        {
            bytes += taken.bytes;
            inodes += taken.inodes;
        }
        file_system(&self.root_fs(), now, bytes, inodes)
    }
}

fn file_system(fs: &FsUsage, now: &str, used: u64, inodes_used: u64) -> Value {
    json!({"time": now, "availableBytes": fs.available, "capacityBytes": fs.capacity, "usedBytes": used,
        "inodesFree": fs.inodes_free, "inodes": fs.inodes, "inodesUsed": inodes_used})
}

/// What the runtime keeps somewhere, and the room there.
fn layers(own: &cri::FilesystemUsage, now: &str) -> Value {
    let at = own.fs_id.as_ref().map_or("", |id| id.mountpoint.as_str());
    let fs = sys::fs::usage(at.as_ref()).unwrap_or_default();
    let used = value(own.used_bytes.as_ref());
    file_system(&fs, now, used, value(own.inodes_used.as_ref()))
}

/// Where the kernel does not count pressure there is none, in upstream's words too.
fn add_pressures(out: &mut Value, usage: &GroupUsage, now: &str, cpu_and_memory_only: bool) {
    let pressure = &usage.pressure;
    for (name, pressure) in [("cpu", pressure.cpu), ("memory", pressure.memory)] {
        if let Some(own) = out.get_mut(name) {
            own["psi"] = of_pressure(&pressure.unwrap_or_default());
        }
    }
    if !cpu_and_memory_only {
        let io = pressure.io.unwrap_or_default();
        out["io"] = json!({"time": now, "psi": of_pressure(&io)});
    }
}

fn of_pressure(pressure: &Pressure) -> Value {
    let of = |waited: &Waited| json!({"total": waited.total, "avg10": waited.avg10, "avg60": waited.avg60, "avg300": waited.avg300});
    json!({"full": of(&pressure.full), "some": of(&pressure.some)})
}

/// As [`of_pressure`], in the runtime's words.
fn told_pressure(psi: Option<&cri::PsiStats>) -> Value {
    let psi = psi.cloned().unwrap_or_default();
    let of = |data: Option<&cri::PsiData>| {
        let data = data.cloned().unwrap_or_default();
        json!({"total": data.total, "avg10": data.avg10, "avg60": data.avg60, "avg300": data.avg300})
    };
    json!({"full": of(psi.full.as_ref()), "some": of(psi.some.as_ref())})
}

fn network(interfaces: &[Interface], now: &str) -> Option<Value> {
    let of = |interface: &Interface| {
        let (received, sent) = (interface.received, interface.sent);
        json!({"name": interface.name, "rxBytes": received.bytes, "rxErrors": received.errors,
            "txBytes": sent.bytes, "txErrors": sent.errors})
    };
    if interfaces.is_empty() {
        return None;
    }
    let default = interfaces.iter().find(|i| i.name == DEFAULT_INTERFACE);
    let mut out = default.map_or_else(|| json!({"name": ""}), of);
    out["time"] = now.into();
    out["interfaces"] = interfaces.iter().map(of).collect();
    Some(out)
}

/// A pod whose group is not known uses what its containers do.
fn add_sums(out: &mut Value, containers: &[&Container], now: &str) {
    let sum = |of: &dyn Fn(&cri::ContainerStats) -> u64| {
        containers.iter().map(|c| of(&c.stats)).sum::<u64>()
    };
    out["cpu"] = json!({"time": now,
        "usageNanoCores": sum(&|s| s.cpu.as_ref().map_or(0, |c| value(c.usage_nano_cores.as_ref()))),
        "usageCoreNanoSeconds": sum(&|s| s.cpu.as_ref().map_or(0, |c| value(c.usage_core_nano_seconds.as_ref())))});
    out["memory"] = json!({"time": now,
        "usageBytes": sum(&|s| s.memory.as_ref().map_or(0, |m| value(m.usage_bytes.as_ref()))),
        "workingSetBytes": sum(&|s| s.memory.as_ref().map_or(0, |m| value(m.working_set_bytes.as_ref()))),
        "rssBytes": sum(&|s| s.memory.as_ref().map_or(0, |m| value(m.rss_bytes.as_ref())))});
}

fn provided_volume(volume: &VolumeStats, now: &str, namespace: &str) -> Value {
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

fn own_volume(volume: &OwnVolume, now: &str) -> Value {
    let (fs, taken) = (&volume.file_system, volume.taken);
    let mut out = file_system(fs, now, taken.bytes, taken.inodes);
    out["name"] = volume.name.clone().into();
    out
}

fn of_container(container: &Container, cpu_and_memory_only: bool) -> Value {
    let stats = &container.stats;
    let mut out = json!({"name": container.name, "startTime": time(container.created)});
    if let Some(cpu) = &stats.cpu {
        out["cpu"] = json!({"time": time(cpu.timestamp), "usageNanoCores": value(cpu.usage_nano_cores.as_ref()),
            "usageCoreNanoSeconds": value(cpu.usage_core_nano_seconds.as_ref())});
        out["cpu"]["psi"] = told_pressure(cpu.psi.as_ref());
    }
    if let Some(memory) = &stats.memory {
        out["memory"] = json!({"time": time(memory.timestamp), "usageBytes": value(memory.usage_bytes.as_ref()),
            "workingSetBytes": value(memory.working_set_bytes.as_ref()), "rssBytes": value(memory.rss_bytes.as_ref()),
            "pageFaults": value(memory.page_faults.as_ref()), "majorPageFaults": value(memory.major_page_faults.as_ref())});
        if let Some(available) = &memory.available_bytes {
            out["memory"]["availableBytes"] = available.value.into();
        }
        out["memory"]["psi"] = told_pressure(memory.psi.as_ref());
    }
    if cpu_and_memory_only {
        return out;
    }
    if let Some(layer) = &stats.writable_layer {
        let at = time(layer.timestamp);
        out["rootfs"] = layers(layer, &at);
    }
    let at = |timestamp: Option<i64>| time(timestamp.unwrap_or(container.read_at()));
    let swap = stats.swap.as_ref();
    let swapped = |of: fn(&cri::SwapUsage) -> Option<&cri::UInt64Value>| value(swap.and_then(of));
    out["swap"] = json!({"time": at(swap.map(|swap| swap.timestamp)),
        "swapUsageBytes": swapped(|swap| swap.swap_usage_bytes.as_ref()),
        "swapAvailableBytes": swapped(|swap| swap.swap_available_bytes.as_ref())});
    let io = stats.io.as_ref();
    let psi = told_pressure(io.and_then(|io| io.psi.as_ref()));
    out["io"] = json!({"time": at(io.map(|io| io.timestamp)), "psi": psi});
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_told() {
        let mut out = json!({"cpu": {}});
        let mut usage = GroupUsage::default();
        add_pressures(&mut out, &usage, "now", true);
        assert_eq!(out["cpu"]["psi"]["full"]["total"], 0);
        assert!(out.get("io").is_none());
        let waited = Waited {
            total: 5,
            ..Waited::default()
        };
        usage.pressure.io = Some(Pressure {
            some: waited,
            full: waited,
        });
        add_pressures(&mut out, &usage, "now", false);
        assert_eq!(out["io"]["psi"]["some"]["total"], 5);
    }

    #[test]
    fn the_default_interface_stands_first() {
        let eth0 = Interface {
            name: "eth0".into(),
            ..Interface::default()
        };
        let told = network(&[eth0], "now").unwrap();
        assert_eq!(
            (&told["name"], &told["interfaces"][0]["rxBytes"]),
            (&json!("eth0"), &json!(0))
        );
        assert_eq!(network(&[], "now"), None);
    }
}
