//! What the node and its pods use, as the runtime and the kernel tell when asked: nothing is polled.
//! `/stats/summary`, `/metrics/resource` and `/metrics/cadvisor` are below, in a file each.

mod cadvisor;
mod disk;
mod resource;
mod summary;

use std::collections::HashMap;
use std::sync::Arc;

use grpc::cri;
use jiff::Timestamp;
use parking_lot::Mutex;

use self::disk::Known;
use crate::cgroups::{GroupUsage, PodCgroups};
use crate::cri::client::{CriClient, CriError, Of};
use crate::cri::labels;
use crate::pods::dirs::Root;
use crate::pods::index::PodIndex;
use crate::sys::net::{self, Interface};
use crate::sys::node::Machine;
use crate::volumes::Volumes;

/// Groups of what is no pod, where the configuration names them.
#[derive(Debug, Clone, Default)]
pub struct SystemGroups {
    pub kubelet: Option<String>,
    pub runtime: Option<String>,
    pub misc: Option<String>,
}

/// Where the numbers come from.
pub struct Sources {
    pub runtime: CriClient,
    pub cgroups: PodCgroups,
    pub system: SystemGroups,
    pub index: Arc<PodIndex>,
    pub volumes: Arc<Volumes>,
    pub node_name: String,
    pub machine: Machine,
    pub root: Root,
    /// `podLogsDir`.
    pub logs_root: String,
}

/// Reads usage when it is asked for.
pub struct Stats {
    sources: Sources,
    started: Timestamp,
    /// When a group's CPU time was last read, what it was, and the rate since the time before.
    rates: Mutex<HashMap<String, (Timestamp, u64, u64)>>,
    disk: Arc<Mutex<Known>>,
}

impl std::ops::Deref for Stats {
    type Target = Sources;

    fn deref(&self) -> &Sources {
        &self.sources
    }
}

/// One container's usage with its names.
struct Container {
    id: String,
    uid: String,
    pod: String,
    namespace: String,
    name: String,
    image: String,
    created: i64,
    stats: cri::ContainerStats,
}

impl Container {
    /// When the runtime has looked, in nanoseconds since 1970.
    fn read_at(&self) -> i64 {
        self.stats
            .cpu
            .as_ref()
            .map_or(self.created, |cpu| cpu.timestamp)
    }
}

/// A pod that has a sandbox.
#[derive(Debug, Clone)]
struct Sandbox {
    id: String,
    uid: String,
    pod: String,
    namespace: String,
    created: i64,
    /// The pod's group, where it is known.
    group: Option<String>,
}

fn value(value: Option<&cri::UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

/// As the pod has it, where the runtime remembers.
fn image(image: &cri::ImageSpec) -> String {
    let told = Some(&image.user_specified_image).filter(|told| !told.is_empty());
    told.unwrap_or(&image.image).clone()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

impl Stats {
    pub fn new(sources: Sources) -> Self {
        Self {
            sources,
            started: Timestamp::now(),
            rates: Mutex::default(),
            disk: Arc::default(),
        }
    }

    async fn containers(&self) -> Result<Vec<Container>, CriError> {
        let of = Of {
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
                id: attributes.id.clone(),
                uid: label(labels::POD_UID),
                pod: label(labels::POD_NAME),
                namespace: label(labels::POD_NAMESPACE),
                name: label(labels::CONTAINER_NAME),
                image: container.image.as_ref().map(image).unwrap_or_default(),
                created: container.created_at,
                stats,
            })
        });
        Ok(with_names.collect())
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>, CriError> {
        let of = Of {
            pod_uid: None,
            running: true,
        };
        let sandboxes = self.runtime.list_sandboxes(of).await?.into_iter();
        let seen = sandboxes.map(|sandbox| {
            let label = |key: &str| sandbox.labels.get(key).cloned().unwrap_or_default();
            let uid = label(labels::POD_UID);
            let pod = self.index.get(&uid);
            Sandbox {
                pod: label(labels::POD_NAME),
                namespace: label(labels::POD_NAMESPACE),
                created: sandbox.created_at,
                group: pod.map(|pod| self.cgroups.parent(&pod)),
                id: sandbox.id.clone(),
                uid,
            }
        });
        Ok(seen.collect())
    }

    /// The current rate of something that has used so much CPU time, both in nanoseconds.
    fn rate(&self, of: &str, used: u64) -> u64 {
        /// Within less, what comes and goes would be taken for the rate.
        const SHORTEST: i128 = 100_000_000;
        let now = Timestamp::now();
        let mut rates = self.rates.lock();
        let rate = match rates.get(of) {
            Some((at, before, rate)) => {
                let elapsed = now.duration_since(*at).as_nanos();
                if elapsed < SHORTEST {
                    return *rate;
                }
                let more = i128::from(used.saturating_sub(*before));
                u64::try_from(more * 1_000_000_000 / elapsed).unwrap_or_default()
            }
            None => 0,
        };
        rates.insert(of.to_owned(), (now, used, rate));
        rate
    }

    /// Forgets the rates of groups that nobody has asked about for long.
    fn forget_rates(&self) {
        const LONG: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);
        let now = Timestamp::now();
        let mut rates = self.rates.lock();
        rates.retain(|_, (at, _, _)| now.duration_since(*at) < LONG);
    }
}

/// What a group uses, and what went through the network of a process in it.
#[derive(Debug, Default)]
struct Measured {
    usage: Option<GroupUsage>,
    network: Vec<Interface>,
}

impl Measured {
    /// Of a pod. Blocks on many small files.
    fn pod(cgroups: &PodCgroups, sandbox: &Sandbox) -> Self {
        let Some(group) = &sandbox.group else {
            return Self::default();
        };
        Self {
            usage: cgroups.hierarchy.usage(group),
            network: network(cgroups, group, &sandbox.id),
        }
    }
}

/// A pod's network is that of its sandbox, whose group has the sandbox's id for a name.
fn network(cgroups: &PodCgroups, group: &str, sandbox: &str) -> Vec<Interface> {
    let process = cgroups.hierarchy.a_process(&format!("{group}/{sandbox}"));
    let interfaces = process.and_then(|pid| net::interfaces(pid).ok());
    interfaces.unwrap_or_default()
}
