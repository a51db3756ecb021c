//! How the machine is put together: which CPUs share a core, a cache, a socket and memory; read
//! from `/sys`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::node::{HugePages, hugepages, meminfo_kib};
use crate::cpus::CpuSet;

/// A node of memory with its CPUs. A machine that has no such thing is one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumaNode {
    pub id: u32,
    /// Bytes.
    pub memory: u64,
    pub hugepages: Vec<HugePages>,
    /// Of every node from this one, in their order, as the firmware tells.
    pub distances: Vec<u64>,
}

/// Where one CPU is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    pub numa: u32,
    pub socket: u32,
    /// The lowest CPU of its core, which tells cores apart on the whole machine.
    pub core: u32,
    /// The cache that it shares with some CPUs of its node; its socket's number where all do.
    pub uncore: u32,
}

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// By their number.
    pub nodes: Vec<NumaNode>,
    /// Those that are online.
    pub cpus: BTreeMap<u32, Cpu>,
}

impl Layout {
    /// Reads what there is. `memory` is the machine's, in bytes.
    pub fn read(memory: u64) -> Self {
        Self::below(Path::new("/sys/devices/system"), memory)
    }

    fn below(system: &Path, memory: u64) -> Self {
        let text = |path: &str| {
            let text = fs::read_to_string(system.join(path)).unwrap_or_default();
            text.trim().to_owned()
        };
        let list = |path: &str| text(path).parse::<CpuSet>().unwrap_or_default();
        let online = list("cpu/online");
        let mut layout = Self::default();
        let entries = fs::read_dir(system.join("node")).into_iter().flatten();
        let ids: BTreeSet<u32> = entries
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_prefix("node")?.parse().ok()
            })
            .collect();
        let mut numa_of: BTreeMap<u32, u32> = BTreeMap::new();
        for id in &ids {
            let cpus = list(&format!("node/node{id}/cpulist"));
            numa_of.extend(cpus.iter().map(|cpu| (cpu, *id)));
            // Its lines begin with the node: `Node 0 MemTotal: 1 kB`.
            let info = text(&format!("node/node{id}/meminfo"));
            let info = info.replace(&format!("Node {id} "), "");
            let distances = text(&format!("node/node{id}/distance"));
            let distances = distances.split_whitespace();
            layout.nodes.push(NumaNode {
                id: *id,
                memory: meminfo_kib(&info, "MemTotal") * 1024,
                hugepages: hugepages(&system.join(format!("node/node{id}/hugepages"))),
                distances: distances.filter_map(|d| d.parse().ok()).collect(),
            });
        }
        if layout.nodes.is_empty() {
            layout.nodes.push(NumaNode {
                memory,
                hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
                distances: vec![10],
                ..NumaNode::default()
            });
        }
        for cpu in online.iter() {
            let socket = text(&format!("cpu/cpu{cpu}/topology/physical_package_id"));
            let siblings = list(&format!("cpu/cpu{cpu}/topology/thread_siblings_list"));
            let place = Cpu {
                numa: numa_of.get(&cpu).copied().unwrap_or_default(),
                // Some machines say -1.
                socket: socket.parse().unwrap_or_default(),
                core: siblings
                    .iter()
                    .find(|sibling| online.contains(*sibling))
                    .unwrap_or(cpu),
                uncore: 0,
            };
            layout.cpus.insert(cpu, place);
        }
        let shared: Vec<(u32, u32)> = layout
            .cpus
            .iter()
            .map(|(cpu, place)| {
                let neighbours = layout.cpus.values().filter(|o| o.numa == place.numa);
                let cache = last_cache(system, *cpu, neighbours.count());
                (*cpu, cache.unwrap_or(place.socket))
            })
            .collect();
        for (cpu, uncore) in shared {
            if let Some(place) = layout.cpus.get_mut(&cpu) {
                place.uncore = uncore;
            }
        }
        layout
    }
}

/// The cache above the second level that a CPU shares with some of the CPUs of its node; `None`
/// where there is none, or all of them share it.
fn last_cache(system: &Path, cpu: u32, of_node: usize) -> Option<u32> {
    let caches = fs::read_dir(system.join(format!("cpu/cpu{cpu}/cache"))).ok()?;
    caches.flatten().find_map(|entry| {
        let text = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let level: u32 = text("level").trim().parse().ok()?;
        let cpus: CpuSet = text("shared_cpu_list").trim().parse().ok()?;
        let id = text("id").trim().parse().ok()?;
        (level > 2 && cpus.len() != of_node).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_two_nodes() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("cpu/online", "0-7\n");
        for cpu in 0..8u32 {
            let (core, node) = (cpu % 4, (cpu % 4) / 2);
            let siblings = format!("{core},{}\n", core + 4);
            write(
                &format!("cpu/cpu{cpu}/topology/thread_siblings_list"),
                &siblings,
            );
            write(
                &format!("cpu/cpu{cpu}/topology/physical_package_id"),
                &format!("{node}\n"),
            );
            // Every core of the second node has its own last cache.
            let shared = if node == 0 {
                "0-1,4-5".into()
            } else {
                siblings
            };
            write(&format!("cpu/cpu{cpu}/cache/index3/level"), "3\n");
            write(
                &format!("cpu/cpu{cpu}/cache/index3/shared_cpu_list"),
                &shared,
            );
            write(
                &format!("cpu/cpu{cpu}/cache/index3/id"),
                &format!("{}\n", 10 + core),
            );
        }
        for (node, cpus) in [(0, "0-1,4-5"), (1, "2-3,6-7")] {
            write(&format!("node/node{node}/cpulist"), cpus);
            write(
                &format!("node/node{node}/meminfo"),
                &format!("Node {node} MemTotal:       100 kB\nNode {node} MemFree: 1 kB\n"),
            );
            write(&format!("node/node{node}/distance"), "10 21\n");
            let pages = format!("node/node{node}/hugepages/hugepages-2048kB/nr_hugepages");
            write(&pages, "3\n");
        }
        let layout = Layout::below(root.path(), 0);
        assert_eq!(layout.nodes.len(), 2);
        assert_eq!(layout.nodes[1].memory, 100 << 10);
        assert_eq!(layout.nodes[1].distances, [10, 21]);
        assert_eq!(layout.nodes[1].hugepages[0].count, 3);
        let place = |numa, socket, core, uncore| Cpu {
            numa,
            socket,
            core,
            uncore,
        };
        assert_eq!(layout.cpus[&5], place(0, 0, 1, 0));
        assert_eq!(layout.cpus[&7], place(1, 1, 3, 13));
    }

    #[test]
    fn this_machine() {
        let layout = Layout::read(1 << 30);
        assert!(!layout.nodes.is_empty() && !layout.cpus.is_empty());
    }
}
