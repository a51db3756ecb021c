//! What a pod takes of the node's disk: its logs, its volumes that end with it, its hosts file.
//! Volumes can be many files to count, and are not counted more often than once a minute.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

use crate::cri::logs;
use crate::pods::dirs::Root;
use crate::pods::pod::PodExt;
use crate::sys;
use crate::sys::fs::FsUsage;

/// Upstream's `volumeStatsAggPeriod`.
const FRESH: Duration = Duration::from_secs(60);
/// Plugins whose volumes are directories of the pod's own.
const OWN: [&str; 5] = [
    "configmap",
    "downward-api",
    "empty-dir",
    "projected",
    "secret",
];

/// By the pod's uid: when its volumes were counted, and what they took.
pub type Known = HashMap<String, (Instant, Vec<OwnVolume>)>;

/// Bytes and inodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    pub bytes: u64,
    pub inodes: u64,
}

/// A directory of the pod's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnVolume {
    pub name: String,
    pub taken: Taken,
    /// The file system that it is in.
    pub file_system: FsUsage,
    /// It lies on the node's disk: memory is not the disk's.
    pub on_disk: bool,
}

/// One pod's part.
#[derive(Debug, Default)]
pub struct Disk {
    /// By container.
    pub logs: HashMap<String, Taken>,
    /// What is no container's: the hosts file.
    pub rest: Taken,
    pub volumes: Vec<OwnVolume>,
}

fn taken(path: &Path) -> Option<Taken> {
    let (bytes, inodes) = sys::fs::taken(path).ok()?;
    Some(Taken { bytes, inodes })
}

impl Disk {
    /// Everything but containers' layers, which the runtime knows. Blocks.
    pub fn measure(root: &Root, logs_root: &str, pod: &Pod, known: &Mutex<Known>) -> Self {
        let dir = root.pod(pod.uid());
        let directory = logs::pod_directory(logs_root, pod);
        let containers = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let logs = containers.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name, taken(&entry.path())?))
        });
        let fresh = |(at, _): &&(Instant, Vec<OwnVolume>)| at.elapsed() < FRESH;
        let counted = known
            .lock()
            .get(pod.uid())
            .filter(fresh)
            .map(|(_, v)| v.clone());
        let volumes = counted.unwrap_or_else(|| {
            let volumes = own_volumes(&dir.volumes(), root.path());
            let entry = (Instant::now(), volumes.clone());
            let mut known = known.lock();
            known.retain(|_, (at, _)| at.elapsed() < 2 * FRESH);
            known.insert(pod.uid().to_owned(), entry);
            volumes
        });
        Self {
            logs: logs.collect(),
            rest: taken(&dir.hosts()).unwrap_or_default(),
            volumes,
        }
    }
}

fn own_volumes(directory: &Path, root: &Path) -> Vec<OwnVolume> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| path.metadata().map(|m| m.dev()).ok();
    let disk = device(root);
    let mut all = Vec::new();
    for plugin in OWN {
        let directory = directory.join(format!("kubernetes.io~{plugin}"));
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        all.extend(entries.filter_map(|entry| {
            let path = entry.path();
            Some(OwnVolume {
                name: entry.file_name().into_string().ok()?,
                taken: taken(&path)?,
                file_system: sys::fs::usage(&path).ok()?,
                on_disk: device(&path) == disk,
            })
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn logs_and_volumes_are_counted() {
        let root = tempfile::tempdir().unwrap();
        let logs = tempfile::tempdir().unwrap();
        let pod = json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let root = Root::new(root.path());
        let volume = root.pod("u").volume("empty-dir", "v");
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::write(volume.join("file"), vec![1; 5000]).unwrap();
        let container = logs.path().join("n_p_u/c");
        std::fs::create_dir_all(&container).unwrap();
        std::fs::write(container.join("0.log"), vec![1; 5000]).unwrap();
        let known = Mutex::new(Known::new());
        let logs_root = logs.path().to_str().unwrap();
        let measure = || Disk::measure(&root, logs_root, &pod, &known);
        let disk = measure();
        assert_eq!(disk.logs["c"].inodes, 2);
        assert_eq!(disk.volumes[0].taken.inodes, 2);
        assert!(disk.volumes[0].on_disk && disk.volumes[0].taken.bytes >= 5000);
        std::fs::write(volume.join("another"), "x").unwrap();
        assert_eq!(measure().volumes[0].taken.inodes, 2, "for a minute");
    }
}
