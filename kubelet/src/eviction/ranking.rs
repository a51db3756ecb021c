//! Which pod goes first: the one that uses more than it asked for, then the one that matters least,
//! then the one that uses most beyond what it asked for. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::disks::{Disks, Parts};
use super::thresholds::{Resource, Signal};
use crate::pods::pod::PodExt;
use crate::resources::requests::{of, pod_requests};

/// Bytes and inodes that something takes on a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    pub bytes: i64,
    pub inodes: i64,
}

impl Taken {
    pub fn add(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// What one running container uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    pub name: String,
    /// Bytes of its working set.
    pub memory: Option<i64>,
    /// Its writable layer.
    pub layer: Option<Taken>,
    pub logs: Option<Taken>,
}

/// What a pod uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Bytes of its working set.
    pub memory: Option<i64>,
    pub processes: i64,
    pub containers: Vec<ContainerUsage>,
    /// By name, those that [lie on the node's disk](is_local).
    pub volumes: BTreeMap<String, Taken>,
    /// Files of the pod's own beside these: logs of no container, `/etc/hosts`.
    pub rest: Taken,
}

/// Whether a volume lies on the node's disk and ends with its pod.
pub fn is_local(volume: &Volume) -> bool {
    let on_disk = volume
        .empty_dir
        .as_ref()
        .is_some_and(|dir| dir.medium.as_deref().unwrap_or_default().is_empty());
    on_disk || volume.config_map.is_some()
}

impl PodUsage {
    /// What it takes of its disks.
    fn taken(&self, parts: Parts) -> Taken {
        let mut taken = Taken::default();
        for container in &self.containers {
            if let Some(layer) = container.layer.filter(|_| parts.layers) {
                taken.add(layer);
            }
            if let Some(logs) = container.logs.filter(|_| parts.files) {
                taken.add(logs);
            }
        }
        if parts.files {
            taken.add(self.volumes_taken());
        }
        taken
    }

    /// What its volumes take of the node's disk.
    pub fn volumes_taken(&self) -> Taken {
        let mut taken = Taken::default();
        self.volumes.values().for_each(|own| taken.add(*own));
        taken
    }
}

/// A pod that may have to go, and what it uses as far as is known.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub pod: Arc<Pod>,
    pub usage: Option<PodUsage>,
}

/// What the pod asked for, its runtime's overhead included where it asked for anything.
fn request(pod: &Pod, resource: &str) -> i64 {
    let own = pod_requests(pod, false).get(resource).copied();
    match own.unwrap_or_default() {
        0 => 0,
        own => own + of(pod.pod_spec().overhead.as_ref(), resource),
    }
}

/// How many there are is the order of the first two; the third counts among equals.
type Rank = (u8, i32, (bool, Reverse<i64>), String);

/// A pod of which nothing is known is taken for one that uses too much.
const UNKNOWN: u8 = 0;
const EXCEEDS: u8 = 1;
const WITHIN: u8 = 2;

fn rank_of(candidate: &Candidate, signal: Signal, disks: Disks) -> Rank {
    let pod = &*candidate.pod;
    let priority = pod.pod_spec().priority.unwrap_or_default();
    let Some(usage) = &candidate.usage else {
        let first = (false, Reverse(0));
        return (UNKNOWN, priority, first, pod.full_name());
    };
    let by_request = |used: i64, requested: i64, beyond: i64| {
        let class = if used > requested { EXCEEDS } else { WITHIN };
        (class, priority, (true, Reverse(beyond)), pod.full_name())
    };
    match signal.resource() {
        Resource::Memory => {
            let (used, requested) = (usage.memory.unwrap_or_default(), request(pod, "memory"));
            by_request(used, requested, used - requested)
        }
        // Nobody can ask for inodes; whoever asked for bytes is spared, as upstream has it.
        resource => {
            let taken = usage.taken(disks.parts(signal));
            let requested = request(pod, "ephemeral-storage");
            if resource == Resource::EphemeralStorage {
                by_request(taken.bytes, requested, taken.bytes - requested)
            } else {
                by_request(taken.inodes, 0, taken.inodes - requested)
            }
        }
    }
}

/// By processes, nobody asks for any.
fn rank_of_processes(candidate: &Candidate) -> Rank {
    let pod = &*candidate.pod;
    let priority = pod.pod_spec().priority.unwrap_or_default();
    let usage = candidate.usage.as_ref();
    let processes = usage.map_or(0, |usage| usage.processes);
    let last = (usage.is_some(), Reverse(processes));
    (UNKNOWN, priority, last, pod.full_name())
}

/// Sorts them: the first is the first to go.
pub fn rank(candidates: &mut [Candidate], signal: Signal, disks: Disks) {
    candidates.sort_by_cached_key(|candidate| match signal.resource() {
        Resource::Pids => rank_of_processes(candidate),
        _ => rank_of(candidate, signal, disks),
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn candidate(name: &str, priority: i32, requests: Value, usage: Option<PodUsage>) -> Candidate {
        let container = json!({"name": "c", "resources": {"requests": requests}});
        let spec = json!({"priority": priority, "containers": [container]});
        let pod = json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec});
        Candidate {
            pod: Arc::new(serde_json::from_value(pod).unwrap()),
            usage,
        }
    }

    fn order(mut candidates: Vec<Candidate>, signal: Signal, disks: Disks) -> String {
        // Whatever order they come in.
        candidates.reverse();
        rank(&mut candidates, signal, disks);
        let names: Vec<_> = candidates.iter().map(|c| c.pod.name()).collect();
        names.join(" ")
    }

    #[test]
    fn memory() {
        let using = |bytes| {
            Some(PodUsage {
                memory: Some(bytes),
                ..PodUsage::default()
            })
        };
        let asked = |bytes: i64| json!({"memory": bytes.to_string()});
        let candidates = vec![
            candidate("within-low", -5, asked(100), using(100)),
            candidate("within", 0, asked(200), using(100)),
            candidate("within-near", 0, asked(101), using(100)),
            candidate("over-high", 10, asked(0), using(1000)),
            candidate("over-little", 0, asked(1000), using(1001)),
            candidate("over-much", 0, asked(100), using(200)),
            candidate("unknown", 20, asked(100), None),
        ];
        assert_eq!(
            order(candidates, Signal::MemoryAvailable, Disks::One),
            "unknown over-much over-little over-high within-low within-near within"
        );
    }

    #[test]
    fn overhead_counts_where_something_was_asked_for() {
        let mut pod = candidate("p", 0, json!({"memory": "100"}), None);
        let overhead = json!({"memory": "10", "ephemeral-storage": "7"});
        let spec = Arc::make_mut(&mut pod.pod).spec.as_mut().unwrap();
        spec.overhead = serde_json::from_value(overhead).unwrap();
        assert_eq!(request(&pod.pod, "memory"), 110);
        assert_eq!(request(&pod.pod, "ephemeral-storage"), 0);
    }

    #[test]
    fn local_volumes() {
        let local = |source: Value| {
            let mut volume = json!({"name": "v"});
            let source = source.as_object().unwrap().clone();
            volume.as_object_mut().unwrap().extend(source);
            is_local(&serde_json::from_value(volume).unwrap())
        };
        assert!(local(json!({"emptyDir": {}})) && local(json!({"configMap": {"name": "c"}})));
        assert!(!local(json!({"emptyDir": {"medium": "Memory"}})));
        assert!(!local(json!({"hostPath": {"path": "/"}})) && !local(json!({"secret": {}})));
    }

    #[test]
    fn processes() {
        let using = |processes| {
            Some(PodUsage {
                processes,
                ..PodUsage::default()
            })
        };
        let none = || json!({});
        let candidates = vec![
            candidate("important", 5, none(), using(1000)),
            candidate("few", 0, none(), using(1)),
            candidate("many", 0, none(), using(10)),
            candidate("unknown", 0, none(), None),
        ];
        assert_eq!(
            order(candidates, Signal::PidAvailable, Disks::One),
            "unknown many few important"
        );
    }

    #[test]
    fn disks() {
        let taken = |bytes, inodes| Taken { bytes, inodes };
        let using = |layer: Taken, logs: Taken, volume: Taken| {
            let container = ContainerUsage {
                name: "c".into(),
                layer: Some(layer),
                logs: Some(logs),
                memory: None,
            };
            let volumes = [("v", volume), ("c", taken(1, 1))];
            Some(PodUsage {
                containers: vec![container],
                volumes: volumes.map(|(name, taken)| (name.to_owned(), taken)).into(),
                ..PodUsage::default()
            })
        };
        let none = Taken::default();
        let asked = json!({"ephemeral-storage": "1000"});
        let candidates = vec![
            candidate("layer", 0, json!({}), using(taken(500, 5), none, none)),
            candidate("logs", 0, json!({}), using(none, taken(400, 40), none)),
            candidate("volume", 0, json!({}), using(none, none, taken(300, 300))),
            candidate("asked", 0, asked, using(none, none, taken(900, 400))),
        ];
        for (signal, disks, want) in [
            (
                Signal::NodeFsAvailable,
                Disks::One,
                "layer logs volume asked",
            ),
            (
                Signal::NodeFsInodesFree,
                Disks::One,
                "volume logs layer asked",
            ),
            (
                Signal::NodeFsAvailable,
                Disks::ImagesApart,
                "logs volume layer asked",
            ),
            (
                Signal::ImageFsAvailable,
                Disks::ImagesApart,
                "layer logs volume asked",
            ),
            (
                Signal::ImageFsAvailable,
                Disks::Split,
                "layer logs volume asked",
            ),
            (
                Signal::ContainerFsAvailable,
                Disks::Split,
                "layer logs volume asked",
            ),
        ] {
            let order = order(candidates.clone(), signal, disks);
            assert_eq!(order, want, "{signal:?} {disks:?}");
        }
    }
}
