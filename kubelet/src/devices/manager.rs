//! *Apply*: keeps the inventory as plugins tell, and asks them for what containers need.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use grpc::plugins::devices as pb;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, ResourceHealth, ResourceStatus};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::checkpoint::{self, Data};
use super::choose::{Choice, Ids};
use super::inventory::{Capacity, Inventory};
use super::plugin::Plugin;
use super::{Options, hints, options};
use crate::metrics::Metrics;
use crate::pods::active::ActivePods;
use crate::pods::pod::{PodExt, PodUid};
use crate::resources::requests::{ResourceList, of, quantity};
use crate::topology::{Affinities, Hints};

/// Everything that the manager takes.
pub struct Setup {
    /// `device-plugins` below the kubelet's root directory.
    pub dir: PathBuf,
    pub active: ActivePods,
    /// Containers that ran when the kubelet started, by pod and name.
    pub running: HashSet<(String, String)>,
    /// The machine's NUMA nodes.
    pub nodes: Vec<u32>,
    pub affinities: Arc<Affinities>,
    pub metrics: Arc<Metrics>,
    /// Hears of pods whose devices are otherwise than before.
    pub changed: Box<dyn Fn(Vec<PodUid>) + Send + Sync>,
    pub node_changed: Arc<Notify>,
}

/// The node's devices.
pub struct Devices {
    setup: Setup,
    pub(super) metrics: Arc<Metrics>,
    inventory: Mutex<Inventory>,
    plugins: Mutex<HashMap<String, Plugin>>,
    /// Devices are given to one container after the other.
    allocating: tokio::sync::Mutex<()>,
    failure: Mutex<Option<String>>,
    /// Nothing has been written down here before: this node is new.
    fresh: bool,
}

impl Devices {
    /// Reads what the kubelet before has written down. What cannot be read is not known: its pods
    /// go on, and are given devices anew when they start again.
    pub fn open(setup: Setup) -> Arc<Self> {
        let now = Instant::now();
        let text = crate::checkpoint::read(&setup.dir.join(checkpoint::FILE));
        let data = text.map_err(|error| error.to_string()).and_then(|text| {
            let data = text.map(|text| Data::parse(&text));
            data.unwrap_or_else(|| Ok(Data::default()))
        });
        let data = data.unwrap_or_else(|error| {
            warn!(error, "cannot read which devices pods have");
            Data::default()
        });
        let mut entries = std::fs::read_dir(&setup.dir).into_iter().flatten();
        Arc::new(Self {
            fresh: entries.next().is_none(),
            metrics: setup.metrics.clone(),
            inventory: Mutex::new(Inventory::restore(data, now)),
            plugins: Mutex::default(),
            allocating: tokio::sync::Mutex::default(),
            failure: Mutex::default(),
            setup,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.setup.dir
    }

    /// Whether the node has been made anew, so that what it is said to have it has no more.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Whether the pod ran when the kubelet started.
    pub fn ran(&self, uid: &str) -> bool {
        self.setup.running.iter().any(|(pod, _)| pod == uid)
    }

    pub(super) fn fail(&self, why: String) {
        *self.failure.lock() = Some(why);
    }

    /// Why no plugin can register.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Takes a plugin in, in place of another one of its resource.
    ///
    /// # Errors
    /// When it does not answer.
    pub(super) async fn connect(
        self: &Arc<Self>,
        resource: &str,
        socket: &str,
    ) -> Result<(), String> {
        let plugin = Plugin::connect(socket).await?;
        let old = self
            .plugins
            .lock()
            .insert(resource.to_owned(), plugin.clone());
        if let Some(old) = old {
            old.replaced.cancel();
        }
        self.inventory.lock().connected(resource);
        let (devices, resource) = (self.clone(), resource.to_owned());
        tokio::spawn(async move {
            let told = |list| devices.told(&resource, list);
            let why = plugin.watch(told).await;
            if !plugin.replaced.is_cancelled() {
                info!(resource, why, "a device plugin has gone");
                devices.disconnect(&resource);
            }
        });
        Ok(())
    }

    pub(super) fn disconnect(&self, resource: &str) {
        let plugin = self.plugins.lock().remove(resource);
        if let Some(plugin) = plugin {
            plugin.replaced.cancel();
            self.inventory.lock().gone(resource, Instant::now());
            self.setup.node_changed.notify_one();
        }
    }

    fn told(&self, resource: &str, list: Vec<pb::Device>) {
        let mut inventory = self.inventory.lock();
        let pods = inventory.told(resource, list);
        self.write(&inventory);
        drop(inventory);
        self.setup.node_changed.notify_one();
        if !pods.is_empty() {
            let pods = pods.iter().map(|uid| uid.as_str().into());
            (self.setup.changed)(pods.collect());
        }
    }

    fn write(&self, inventory: &Inventory) {
        let path = self.setup.dir.join(checkpoint::FILE);
        let text = inventory.save().text().map_err(std::io::Error::from);
        let written = text.and_then(|text| crate::checkpoint::write(&path, &text));
        if let Err(error) = written {
            // It holds as long as this kubelet runs.
            warn!(path = %path.display(), %error, "cannot write down which devices pods have");
        }
    }

    /// What the node shows.
    pub fn capacity(&self) -> Capacity {
        let mut inventory = self.inventory.lock();
        let capacity = inventory.capacity(Instant::now());
        if !capacity.removed.is_empty() {
            self.write(&inventory);
        }
        capacity
    }

    /// What a pod is judged by: at least the devices that pods have been given, whatever their
    /// plugins are about now.
    pub fn at_least_given(&self, pod: &Pod, allocatable: &mut ResourceList) {
        let inventory = self.inventory.lock();
        if !inventory.has_pod(pod.uid()) {
            return;
        }
        for (resource, count) in inventory.given() {
            if of(Some(allocatable), resource) < count {
                let amount = quantity(resource, count);
                allocatable.insert(resource.to_owned(), amount);
            }
        }
    }

    /// Whether any container of the pod asks for devices.
    pub fn wants(&self, pod: &Pod) -> bool {
        let inventory = self.inventory.lock();
        let containers = pod.init_containers().iter().chain(pod.containers());
        containers
            .into_iter()
            .any(|container| !inventory.wanted(pod, container).is_empty())
    }

    /// Takes devices from pods that are no more.
    pub fn give_back(&self) {
        if let Some(active) = self.setup.active.uids() {
            self.inventory.lock().retain(&active);
        }
    }

    /// Where the pod's devices could be had, or one container's.
    pub fn hints(&self, pod: &Pod, container: Option<&Container>) -> Hints {
        self.give_back();
        let (inventory, nodes) = (self.inventory.lock(), &self.setup.nodes);
        match container {
            Some(container) => hints::of_container(&inventory, nodes, pod, container),
            None => hints::of_pod(&inventory, nodes, pod),
        }
    }

    /// Gives a container its devices; what it has it keeps. Init containers come first, in order.
    /// `starting`: the kubelet has just started; what runs already has its devices with it.
    ///
    /// # Errors
    /// When it cannot have them: the text that the pod shows.
    pub async fn allocate(
        &self,
        pod: &Pod,
        container: &Container,
        starting: bool,
    ) -> Result<(), String> {
        let _turn = self.allocating.lock().await;
        let wanted = self.inventory.lock().wanted(pod, container);
        if !wanted.is_empty() {
            self.give_back();
        }
        let own = (pod.uid().to_owned(), container.name.clone());
        let runs = starting && self.setup.running.contains(&own);
        let mut given = false;
        for (resource, size) in wanted {
            given |= self
                .allocate_some(pod, container, (&resource, size), runs)
                .await?;
        }
        let mut inventory = self.inventory.lock();
        if given {
            self.write(&inventory);
        }
        inventory.settle(pod, &container.name);
        Ok(())
    }

    /// Whether there was anything to give.
    async fn allocate_some(
        &self,
        pod: &Pod,
        container: &Container,
        (resource, size): (&str, usize),
        runs: bool,
    ) -> Result<bool, String> {
        let (uid, name) = (pod.uid(), container.name.as_str());
        let affinity = self.setup.affinities.get(uid, name).affinity;
        let wanted = (resource, size);
        let choice = self
            .inventory
            .lock()
            .choose(uid, name, wanted, affinity, runs)?;
        let ids = match choice {
            None => return Ok(false),
            Some(Choice::Done(ids)) => ids,
            Some(Choice::Ask(question)) => {
                let preferred = match self.plugin(resource) {
                    Some(plugin) => plugin.preferred(&question).await?,
                    None => Ids::new(),
                };
                question.answered(&preferred)?
            }
        };
        let begun = Instant::now();
        let Some(plugin) = self.plugin(resource) else {
            return Err(match self.inventory.lock().has_plugin(resource) {
                true => format!("endpoint {resource} has been stopped"),
                false => format!("unknown Device Plugin {resource}"),
            });
        };
        let response = plugin.allocate(&ids).await;
        let took = &self.metrics.resources.device_allocations;
        took.with_label_values(&[resource])
            .observe(begun.elapsed().as_secs_f64());
        let response = response?;
        let mut inventory = self.inventory.lock();
        inventory.give(uid, name, resource, &ids, response);
        Ok(true)
    }

    fn plugin(&self, resource: &str) -> Option<Plugin> {
        self.plugins.lock().get(resource).cloned()
    }

    /// Tells plugins that the container is about to start, and returns what it needs for its
    /// devices.
    ///
    /// # Errors
    /// When it must not start.
    pub async fn options(&self, pod: &Pod, container: &Container) -> Result<Options, String> {
        let (uid, name) = (pod.uid(), container.name.as_str());
        let mut missing = false;
        let asked = self.inventory.lock().asked(container);
        for (resource, _) in asked.into_iter().filter(|(_, size)| *size > 0) {
            let has = {
                let inventory = self.inventory.lock();
                if !inventory.has_plugin(&resource) {
                    return Err(format!(
                        "endpoint not found in cache for a registered resource: {resource}"
                    ));
                }
                let has = inventory.of_container(uid, name);
                has.and_then(|has| has.get(&resource)).map(|has| has.ids())
            };
            if let Some(plugin) = self.plugin(&resource).filter(Plugin::wants_pre_start) {
                let has = has.as_ref().ok_or_else(|| {
                    format!(
                        "no devices found allocated in local cache for pod {uid}, container {name}, resource {resource}"
                    )
                })?;
                plugin.pre_start(has).await?;
            }
            missing |= has.is_none() && self.setup.active.is_active(pod);
        }
        if missing {
            self.allocate(pod, container, false).await?;
        }
        let inventory = self.inventory.lock();
        let has = inventory.of_container(uid, name);
        Ok(options(
            has.into_iter().flatten().map(|(_, has)| &has.response),
        ))
    }

    /// Shows how the devices of the pod's containers are (KEP-4680).
    pub fn show_health(&self, pod: &Pod, status: &mut PodStatus) {
        let inventory = self.inventory.lock();
        for shown in status.container_statuses.iter_mut().flatten() {
            for (resource, devices) in inventory.health(pod.uid(), &shown.name) {
                let health = |healthy| if healthy { "Healthy" } else { "Unhealthy" };
                let resources = devices.into_iter().map(|(id, healthy)| ResourceHealth {
                    health: Some(health(healthy).into()),
                    message: None,
                    resource_id: id,
                });
                let status = ResourceStatus {
                    name: resource.to_owned(),
                    resources: Some(resources.collect()),
                };
                let list = shown.allocated_resources_status.get_or_insert_default();
                match list.iter_mut().find(|other| other.name == resource) {
                    Some(other) => *other = status,
                    None => list.push(status),
                }
            }
        }
    }

    /// A container's devices with their nodes, by resource.
    pub fn of_container(&self, uid: &str, name: &str) -> Vec<(String, BTreeMap<String, Vec<i64>>)> {
        let inventory = self.inventory.lock();
        let has = inventory.of_container(uid, name).into_iter().flatten();
        has.map(|(resource, has)| {
            let devices = has.devices().into_iter();
            let devices = devices.map(|(id, nodes)| (id.to_owned(), nodes));
            (resource.clone(), devices.collect())
        })
        .collect()
    }

    /// All healthy devices with their nodes, by resource.
    pub fn allocatable(&self) -> Vec<(String, BTreeMap<String, Vec<i64>>)> {
        let inventory = self.inventory.lock();
        let all = inventory.allocatable().into_iter();
        all.map(|(resource, devices)| {
            let devices = devices.into_iter();
            let devices = devices.map(|(id, nodes)| (id.to_owned(), nodes));
            (resource.to_owned(), devices.collect())
        })
        .collect()
    }
}

#[cfg(test)]
mod tests;
