//! *Observe*: what the node has left, and what pods use of it, measured anew whenever it is asked
//! for. The only thing remembered is what volumes took, which can be many files to count.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use grpc::cri;
use k8s_openapi::api::core::v1::Pod;
use tracing::{info, warn};

use super::disks::{Devices, Disks};
use super::plan::{Observations, Observed};
use super::ranking::{Candidate, ContainerUsage, PodUsage, Taken, is_local};
use super::thresholds::{Resource, Signal};
use crate::cgroups::PodCgroups;
use crate::cri::client::{CriClient, CriError, FilesAt, Of};
use crate::cri::{labels, logs};
use crate::pods::dirs::Root;
use crate::pods::pod::{PodExt, PodUid};
use crate::sys;

/// Where things lie that are measured.
#[derive(Clone)]
pub struct Sources {
    pub runtime: CriClient,
    pub cgroups: PodCgroups,
    pub root: Root,
    /// `podLogsDir`.
    pub logs_root: String,
}

/// Measures.
pub struct Meter {
    sources: Sources,
    /// Where the runtime keeps images, and layers of containers.
    images: PathBuf,
    containers: PathBuf,
    disks: Disks,
    volumes: Volumes,
}

/// When each pod's volumes were last measured, and what they took.
type Volumes = HashMap<PodUid, (Instant, BTreeMap<String, Taken>)>;

impl Meter {
    /// Asks the runtime where it keeps its files, every so often, until it tells.
    pub async fn find(sources: Sources, every: Duration) -> Self {
        let mut told = false;
        loop {
            let found = match sources.runtime.image_fs().await {
                Ok(Some(files)) => {
                    let sources = sources.clone();
                    let meter = blocking(move || Self::new(sources, files)).await;
                    meter.map_err(|error| error.to_string())
                }
                Ok(None) => Err("it does not tell".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            match found {
                Ok(meter) => {
                    let images = meter.images.display();
                    info!(disks = ?meter.disks, %images, "watching what the node has left");
                    return meter;
                }
                Err(error) if !told => {
                    warn!(error, "waiting to know where the runtime keeps its images");
                    told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(every).await;
        }
    }

    fn new(sources: Sources, files: FilesAt) -> io::Result<Self> {
        let (images, containers) = (PathBuf::from(files.images), PathBuf::from(files.containers));
        let device = |path: &Path| path.metadata().map(|metadata| metadata.dev());
        let devices = Devices {
            node: device(sources.root.path())?,
            images: device(&images)?,
            containers: device(&containers)?,
        };
        Ok(Self {
            sources,
            images,
            containers,
            disks: devices.disks(),
            volumes: Volumes::new(),
        })
    }

    pub fn disks(&self) -> Disks {
        self.disks
    }

    /// What the node has left. What cannot be measured is left out.
    pub async fn node(&self) -> Observations {
        let sources = self.sources.clone();
        let (images, containers) = (self.images.clone(), self.containers.clone());
        blocking(move || node(&sources.cgroups, sources.root.path(), &images, &containers)).await
    }

    /// What pods use; nothing is known of one without a running container where `containers` are
    /// asked for. Volumes are counted anew where the last count is older than `age`, if any.
    ///
    /// # Errors
    /// When the runtime does not tell.
    pub async fn pods(
        &mut self,
        pods: Vec<Arc<Pod>>,
        containers: bool,
        age: Option<Duration>,
    ) -> Result<Vec<Candidate>, CriError> {
        let mut running = match containers {
            true => self.running().await?,
            false => HashMap::new(),
        };
        let mut known = std::mem::take(&mut self.volumes);
        let sources = self.sources.clone();
        let (candidates, known) = blocking(move || {
            let candidates = pods.into_iter().map(|pod| {
                let own = running.remove(pod.uid());
                if containers && own.is_none() {
                    return Candidate { pod, usage: None };
                }
                let volumes = age.map(|age| volumes(&sources.root, &pod, &mut known, age));
                let mut usage = PodUsage {
                    volumes: volumes.unwrap_or_default(),
                    ..PodUsage::default()
                };
                if let Some(own) = own {
                    usage.containers = own;
                    complete(&mut usage, &pod, &sources);
                }
                let usage = Some(usage);
                Candidate { pod, usage }
            });
            let candidates: Vec<_> = candidates.collect();
            (candidates, known)
        })
        .await;
        self.volumes = known;
        Ok(candidates)
    }

    /// Forgets what is not to be kept.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.volumes.retain(|uid, _| keep(uid));
    }

    /// The running containers' usage as the runtime tells it, by pod.
    async fn running(&self) -> Result<HashMap<String, Vec<ContainerUsage>>, CriError> {
        let client = &self.sources.runtime;
        let of = Of {
            pod_uid: None,
            running: true,
        };
        let (stats, running) =
            futures::try_join!(client.container_stats(), client.list_containers(of))?;
        let mut stats: HashMap<String, cri::ContainerStats> = stats
            .into_iter()
            .filter_map(|stats| Some((stats.attributes.as_ref()?.id.clone(), stats)))
            .collect();
        let mut pods: HashMap<String, Vec<ContainerUsage>> = HashMap::new();
        for container in running {
            let label = |key| container.labels.get(key).cloned().unwrap_or_default();
            if let Some(stats) = stats.remove(&container.id) {
                let usage = of_container(label(labels::CONTAINER_NAME), &stats);
                pods.entry(label(labels::POD_UID)).or_default().push(usage);
            }
        }
        Ok(pods)
    }
}

/// File operations, which may take their time.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The process ends.
            Err(_) => std::future::pending().await,
        },
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn node(cgroups: &PodCgroups, root: &Path, images: &Path, containers: &Path) -> Observations {
    let mut all = Observations::new();
    let at = Instant::now();
    let mut observe = |signal: Signal, available: u64, capacity: u64| {
        let observed = Observed {
            available: signed(available),
            capacity: signed(capacity),
            at,
        };
        // A file system that makes inodes as it needs them has none to run out of.
        if capacity > 0 || signal.resource() != Resource::Inodes {
            all.insert(signal, observed);
        }
    };
    if let Some((total, used)) = cgroups.hierarchy.node_memory() {
        observe(Signal::MemoryAvailable, total.saturating_sub(used), total);
    }
    if let Some((limit, used)) = cgroups.memory_of_all() {
        let left = limit.saturating_sub(used);
        observe(Signal::AllocatableMemoryAvailable, left, limit);
    }
    use Signal::*;
    for (path, bytes, inodes) in [
        (root, NodeFsAvailable, NodeFsInodesFree),
        (images, ImageFsAvailable, ImageFsInodesFree),
        (containers, ContainerFsAvailable, ContainerFsInodesFree),
    ] {
        if let Ok(usage) = sys::fs::usage(path) {
            observe(bytes, usage.available, usage.capacity);
            observe(inodes, usage.inodes_free, usage.inodes);
        }
    }
    let (max, running) = sys::node::processes();
    if max > 0 {
        observe(PidAvailable, max.saturating_sub(running), max);
    }
    all
}

fn of_container(name: String, stats: &cri::ContainerStats) -> ContainerUsage {
    let value = |value: &Option<cri::UInt64Value>| value.as_ref().map(|value| signed(value.value));
    let memory = stats.memory.as_ref();
    let layer = stats.writable_layer.as_ref();
    ContainerUsage {
        name,
        memory: memory.and_then(|memory| value(&memory.working_set_bytes)),
        layer: layer.and_then(|layer| {
            Some(Taken {
                bytes: value(&layer.used_bytes)?,
                inodes: value(&layer.inodes_used).unwrap_or_default(),
            })
        }),
        logs: None,
    }
}

/// Adds what the runtime does not tell of a pod whose containers run.
fn complete(usage: &mut PodUsage, pod: &Pod, sources: &Sources) {
    let cgroups = &sources.cgroups;
    let sum = usage.containers.iter().filter_map(|c| c.memory).sum();
    usage.memory = Some(cgroups.working_set(pod).map_or(sum, signed));
    usage.processes = i64::try_from(cgroups.processes(pod)).unwrap_or(i64::MAX);
    let logs = PathBuf::from(logs::pod_directory(&sources.logs_root, pod));
    for container in &mut usage.containers {
        container.logs = files_in(&logs.join(&container.name));
    }
    usage.rest = files_in(&logs).unwrap_or_default();
    if let Ok(hosts) = taken(&sources.root.pod(pod.uid()).hosts()) {
        usage.rest.add(hosts);
    }
}

/// The files right in a directory; `None` where there is none.
fn files_in(directory: &Path) -> Option<Taken> {
    let mut all = Taken::default();
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if let Some(own) = (!is_dir).then(|| taken(&entry.path()).ok()).flatten() {
            all.add(own);
        }
    }
    Some(all)
}

fn taken(path: &Path) -> io::Result<Taken> {
    let (bytes, inodes) = sys::fs::taken(path)?;
    Ok(Taken {
        bytes: signed(bytes),
        inodes: signed(inodes),
    })
}

/// What a pod's volumes take of the node's disk. The kernel holds those in memory to their limits.
fn volumes(root: &Root, pod: &Pod, known: &mut Volumes, age: Duration) -> BTreeMap<String, Taken> {
    if let Some((at, volumes)) = known.get(pod.uid())
        && at.elapsed() < age
    {
        return volumes.clone();
    }
    let dir = root.pod(pod.uid());
    let local = pod.pod_spec().volumes.iter().flatten();
    let local = local.filter(|volume| is_local(volume));
    let volumes: BTreeMap<_, _> = local
        .filter_map(|volume| {
            let plugin = match volume.empty_dir {
                Some(_) => "empty-dir",
                None => "configmap",
            };
            // One that no container mounts is not there.
            let taken = taken(&dir.volume(plugin, &volume.name)).ok()?;
            Some((volume.name.clone(), taken))
        })
        .collect();
    known.insert(pod.uid().into(), (Instant::now(), volumes.clone()));
    volumes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn volumes_are_counted_as_often_as_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let root = Root::new(root.path());
        let volumes_of_pod = json!([{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory"}}, {"name": "c", "configMap": {"name": "c"}}]);
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [], "volumes": volumes_of_pod}});
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let dir = root.pod("u");
        for (plugin, name) in [("empty-dir", "a"), ("empty-dir", "m"), ("configmap", "c")] {
            std::fs::create_dir_all(dir.volume(plugin, name)).unwrap();
        }
        let mut known = Volumes::new();
        let mut inodes = |age: u64| {
            let volumes = volumes(&root, &pod, &mut known, Duration::from_secs(age));
            let each = volumes
                .iter()
                .map(|(name, taken)| format!("{name}{}", taken.inodes));
            each.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(inodes(60), "a1 c1");
        std::fs::write(dir.volume("empty-dir", "a").join("file"), "x").unwrap();
        assert_eq!(inodes(60), "a1 c1");
        assert_eq!(inodes(0), "a2 c1");
    }
}
