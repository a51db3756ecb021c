//! Which devices there are, and who has them. Pure but for the clock, which is passed in.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use grpc::plugins::devices as pb;
use k8s_openapi::api::core::v1::{Container, Pod};
use prost::Message as _;
use tracing::warn;

use super::checkpoint::{Data, Entry};
use super::choose::{self, Choice, From, Ids};
use crate::pods::pod::{PodExt, is_sidecar};
use crate::resources::requests::{amounts, container_limits};
use crate::topology::Mask;

/// How long a resource is shown after its plugin has gone, so that the plugin can come back.
const GRACE: Duration = Duration::from_secs(5 * 60);
/// The node of devices that are of none.
const NO_NODE: i64 = -1;
const HEALTHY: &str = "Healthy";

/// One device, as its plugin tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    pub health: String,
    /// The NUMA nodes that it is near to.
    pub nodes: Vec<i64>,
}

/// Devices of one resource that a container has.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allocated {
    /// By NUMA node.
    pub by_node: BTreeMap<i64, Vec<String>>,
    /// What the container needs to use them.
    pub response: pb::ContainerAllocateResponse,
}

impl Allocated {
    pub fn ids(&self) -> Ids {
        self.by_node.values().flatten().cloned().collect()
    }

    /// Each device with its nodes.
    pub fn devices(&self) -> BTreeMap<&str, Vec<i64>> {
        let mut devices: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
        for (node, ids) in &self.by_node {
            for id in ids {
                let nodes = devices.entry(id).or_default();
                nodes.extend(Some(*node).filter(|node| *node != NO_NODE));
            }
        }
        devices
    }
}

/// What the node shows of devices.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// All, and those that can be given out, by resource.
    pub counts: BTreeMap<String, (i64, i64)>,
    /// Resources that nobody brings any more.
    pub removed: BTreeSet<String>,
}

/// By container and resource.
type PodDevices = BTreeMap<String, BTreeMap<String, Allocated>>;

#[derive(Debug, Default)]
pub struct Inventory {
    /// As told last, also of resources whose plugin has gone.
    all: BTreeMap<String, BTreeMap<String, Device>>,
    /// Of resources that are shown. Without their plugin none is healthy.
    healthy: BTreeMap<String, Ids>,
    unhealthy: BTreeMap<String, Ids>,
    /// Plugins that are or were there, with the time since when one has been gone.
    plugins: BTreeMap<String, Option<Instant>>,
    pods: BTreeMap<String, PodDevices>,
    /// The pod that is being admitted, and the devices of its init containers that later ones may
    /// have too.
    reusable: Option<(String, BTreeMap<String, Ids>)>,
}

/// Whether the container's share of this resource comes by a claim (KEP-5004).
fn by_claim(pod: &Pod, container: &str, resource: &str) -> bool {
    let status = pod.status.as_ref();
    let extended = status.and_then(|status| status.extended_resource_claim_status.as_ref());
    let mut mappings = extended
        .iter()
        .flat_map(|extended| &extended.request_mappings);
    mappings.any(|m| m.container_name == container && m.resource_name == resource)
}

impl Inventory {
    /// Takes in a plugin's list, and returns the pods whose devices are otherwise than before.
    pub fn told(&mut self, resource: &str, devices: Vec<pb::Device>) -> Vec<String> {
        let devices: BTreeMap<String, Device> = devices
            .into_iter()
            .map(|device| {
                let nodes = device.topology.unwrap_or_default().nodes;
                let known = Device {
                    health: device.health,
                    nodes: nodes.iter().map(|node| node.id).collect(),
                };
                (device.id, known)
            })
            .collect();
        let old = self.all.get(resource);
        // One that is new may have been away for a while.
        let news = |id: &&String| {
            let old = old.and_then(|old| old.get(*id));
            old.is_none_or(|old| old.health != devices[*id].health)
        };
        let news: Ids = devices.keys().filter(news).cloned().collect();
        let has_news = |containers: &PodDevices| {
            let mut mine = containers.values().filter_map(|c| c.get(resource));
            mine.any(|allocated| !allocated.ids().is_disjoint(&news))
        };
        let pods = self.pods.iter().filter(|(_, devices)| has_news(devices));
        let pods = pods.map(|(uid, _)| uid.clone()).collect();
        let ids = |healthy: bool| -> Ids {
            let some = devices
                .iter()
                .filter(|(_, d)| (d.health == HEALTHY) == healthy);
            some.map(|(id, _)| id.clone()).collect()
        };
        self.healthy.insert(resource.to_owned(), ids(true));
        self.unhealthy.insert(resource.to_owned(), ids(false));
        self.all.insert(resource.to_owned(), devices);
        pods
    }

    pub fn connected(&mut self, resource: &str) {
        self.plugins.insert(resource.to_owned(), None);
    }

    /// The plugin is gone: nobody knows how its devices are.
    pub fn gone(&mut self, resource: &str, now: Instant) {
        let Some(since) = self.plugins.get_mut(resource) else {
            return;
        };
        *since = Some(now);
        let healthy = self.healthy.entry(resource.to_owned()).or_default();
        let healthy = std::mem::take(healthy);
        let unhealthy = self.unhealthy.entry(resource.to_owned()).or_default();
        unhealthy.extend(healthy);
    }

    /// Whether the plugin has been heard of, and not for too long ago.
    pub fn has_plugin(&self, resource: &str) -> bool {
        self.plugins.contains_key(resource)
    }

    /// What is shown. Resources whose plugin has been gone for too long are shown as removed, once.
    pub fn capacity(&mut self, now: Instant) -> Capacity {
        let mut capacity = Capacity::default();
        for (resource, healthy) in &self.healthy {
            let present = self.plugins.get(resource).is_some_and(|since| {
                since.is_none_or(|since| now.saturating_duration_since(since) <= GRACE)
            });
            if !present {
                capacity.removed.insert(resource.clone());
                continue;
            }
            let count = |ids: Option<&Ids>| {
                ids.map_or(0, |ids| i64::try_from(ids.len()).unwrap_or(i64::MAX))
            };
            let (healthy, unhealthy) = (count(Some(healthy)), count(self.unhealthy.get(resource)));
            let counts = (healthy + unhealthy, healthy);
            capacity.counts.insert(resource.clone(), counts);
        }
        for resource in &capacity.removed {
            self.plugins.remove(resource);
            self.healthy.remove(resource);
            self.unhealthy.remove(resource);
        }
        capacity
    }

    /// Whether devices of it are given out here, or have been.
    fn is_ours(&self, resource: &str) -> bool {
        let has = |containers: &PodDevices| containers.values().any(|c| c.contains_key(resource));
        self.healthy.contains_key(resource) || self.pods.values().any(has)
    }

    /// How many of which resources a container asks for. Extended resources have no requests apart
    /// from limits.
    pub fn wanted(&self, pod: &Pod, container: &Container) -> Vec<(String, usize)> {
        let mut wanted = self.asked(container);
        wanted.retain(|(resource, _)| !by_claim(pod, &container.name, resource));
        wanted
    }

    /// With those that a claim brings.
    pub fn asked(&self, container: &Container) -> Vec<(String, usize)> {
        let limits = amounts(container_limits(container)).into_iter();
        let ours = limits.filter(|(resource, _)| self.is_ours(resource));
        ours.map(|(resource, n)| (resource, usize::try_from(n).unwrap_or_default()))
            .collect()
    }

    /// Those of these amounts that are devices.
    pub fn only_ours(&self, amounts: crate::resources::requests::Amounts) -> Vec<(String, usize)> {
        let ours = amounts.into_iter().filter(|(name, _)| self.is_ours(name));
        ours.map(|(resource, n)| (resource, usize::try_from(n).unwrap_or_default()))
            .collect()
    }

    pub fn in_use(&self, resource: &str) -> Ids {
        let containers = self.pods.values().flat_map(|pod| pod.values());
        let allocated = containers.filter_map(|resources| resources.get(resource));
        allocated.flat_map(Allocated::ids).collect()
    }

    /// How many devices of each resource containers have.
    pub fn given(&self) -> BTreeMap<&str, i64> {
        let containers = self.pods.values().flat_map(|pod| pod.values());
        let mut given = BTreeMap::new();
        for (resource, allocated) in containers.flatten() {
            let ids: &mut Ids = given.entry(resource.as_str()).or_default();
            // Init containers' may be had by others too.
            ids.extend(allocated.ids());
        }
        let count = |ids: Ids| i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let given = given.into_iter();
        given
            .map(|(resource, ids)| (resource, count(ids)))
            .collect()
    }

    pub fn of_container(&self, uid: &str, container: &str) -> Option<&BTreeMap<String, Allocated>> {
        self.pods.get(uid)?.get(container)
    }

    pub fn of_pod(&self, uid: &str, resource: &str) -> Ids {
        let containers = self.pods.get(uid).into_iter().flat_map(|pod| pod.values());
        let allocated = containers.filter_map(|resources| resources.get(resource));
        allocated.flat_map(Allocated::ids).collect()
    }

    pub fn has_pod(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    pub fn devices(&self, resource: &str) -> Option<&BTreeMap<String, Device>> {
        self.all.get(resource)
    }

    pub fn reusable(&self, uid: &str, resource: &str) -> Ids {
        let own = self.reusable.as_ref().filter(|(pod, _)| pod == uid);
        let own = own.and_then(|(_, resources)| resources.get(resource));
        own.cloned().unwrap_or_default()
    }

    /// Healthy devices that no container has.
    pub fn available(&self, resource: &str) -> Ids {
        let healthy = self.healthy.get(resource).cloned().unwrap_or_default();
        healthy
            .difference(&self.in_use(resource))
            .cloned()
            .collect()
    }

    /// Healthy ones of every resource, with their nodes.
    pub fn allocatable(&self) -> Vec<(&str, BTreeMap<&str, Vec<i64>>)> {
        let devices = |resource: &String, healthy: &Ids| {
            let all = self.all.get(resource);
            let all = all.into_iter().flatten();
            let healthy = all.filter(|(id, _)| healthy.contains(*id));
            healthy
                .map(|(id, device)| (id.as_str(), device.nodes.clone()))
                .collect()
        };
        let resources = self.healthy.iter();
        resources
            .filter(|(resource, _)| self.all.contains_key(*resource))
            .map(|(resource, healthy)| (resource.as_str(), devices(resource, healthy)))
            .collect()
    }

    /// Begins to give a container devices of a resource; `None` where it has what it asks for.
    /// `runs`: the kubelet has just started, and the container was running before.
    ///
    /// # Errors
    /// When it cannot have them: the text that the pod shows.
    pub fn choose(
        &self,
        uid: &str,
        container: &str,
        (resource, size): (&str, usize),
        affinity: Option<Mask>,
        runs: bool,
    ) -> Result<Option<Choice>, String> {
        let has = self.of_container(uid, container);
        let has = has.and_then(|resources| resources.get(resource));
        let has = has.map(Allocated::ids);
        if let Some(has) = has.as_ref().filter(|has| has.len() != size) {
            return Err(format!(
                "pod {uid:?} container {container:?} changed request for resource {resource:?} from {} to {size}",
                has.len()
            ));
        }
        // Its devices are with it, whatever their plugin is about.
        if runs {
            return Ok(None);
        }
        let Some(healthy) = self.healthy.get(resource) else {
            return Err(format!("cannot allocate unregistered device {resource}"));
        };
        if healthy.is_empty() {
            return Err(format!(
                "no healthy devices present; cannot allocate unhealthy devices {resource}"
            ));
        }
        if has.as_ref().is_some_and(|has| !has.is_subset(healthy)) {
            return Err(format!(
                "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
            ));
        }
        if has.is_some() || size == 0 {
            return Ok(None);
        }
        let (none, reusable) = (BTreeMap::new(), self.reusable(uid, resource));
        let from = From {
            devices: self.all.get(resource).unwrap_or(&none),
            healthy,
            in_use: &self.in_use(resource),
            reusable: &reusable,
            affinity,
        };
        choose::choose(resource, size, &from).map(Some)
    }

    /// The container has these devices from now on.
    pub fn give(
        &mut self,
        uid: &str,
        container: &str,
        resource: &str,
        ids: &Ids,
        response: pb::ContainerAllocateResponse,
    ) {
        let mut by_node: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for id in ids {
            let device = self.all.get(resource).and_then(|devices| devices.get(id));
            let nodes = device.map_or(&[][..], |device| &device.nodes);
            let nodes = if nodes.is_empty() { &[NO_NODE] } else { nodes };
            for node in nodes {
                by_node.entry(*node).or_default().push(id.clone());
            }
        }
        let containers = self.pods.entry(uid.to_owned()).or_default();
        let resources = containers.entry(container.to_owned()).or_default();
        resources.insert(resource.to_owned(), Allocated { by_node, response });
    }

    /// A container of the pod has all that it asks for. What an init container has, those after it
    /// may have too, until one that runs beside others takes it.
    pub fn settle(&mut self, pod: &Pod, container: &str) {
        let uid = pod.uid();
        let has = self.of_container(uid, container).cloned();
        let known = self.reusable.take().filter(|(pod, _)| pod == uid);
        let (_, mut reusable) = known.unwrap_or_default();
        let mut init = pod.init_containers().iter();
        let ends = init.any(|c| c.name == container && !is_sidecar(c));
        for (resource, allocated) in has.into_iter().flatten() {
            let ids = reusable.entry(resource).or_default();
            for id in allocated.ids() {
                match ends {
                    true => ids.insert(id),
                    false => ids.remove(&id),
                };
            }
        }
        self.reusable = Some((uid.to_owned(), reusable));
    }

    /// Takes the devices from all pods but these.
    pub fn retain(&mut self, active: &HashSet<String>) {
        self.pods.retain(|uid, _| active.contains(uid));
    }

    /// How a container's devices are, by resource: whether each is healthy.
    pub fn health(&self, uid: &str, container: &str) -> Vec<(&str, Vec<(String, bool)>)> {
        let is_healthy = |resource: &str, id: &String| {
            let device = self.all.get(resource).and_then(|devices| devices.get(id));
            device.is_none_or(|device| device.health == HEALTHY)
        };
        let resources = self.of_container(uid, container).into_iter().flatten();
        resources
            .filter(|(_, allocated)| !allocated.by_node.is_empty())
            .map(|(resource, allocated)| {
                let ids = allocated.ids().into_iter();
                let ids = ids.map(|id| {
                    let healthy = is_healthy(resource, &id);
                    (id, healthy)
                });
                (resource.as_str(), ids.collect())
            })
            .collect()
    }

    /// What is written down.
    pub fn save(&self) -> Data {
        let mut entries = Vec::new();
        for (pod_uid, containers) in &self.pods {
            for (container_name, resources) in containers {
                for (resource_name, allocated) in resources {
                    let ids = allocated.by_node.iter();
                    let ids = ids.map(|(node, ids)| (*node, Some(ids.clone())));
                    entries.push(Entry {
                        pod_uid: pod_uid.clone(),
                        container_name: container_name.clone(),
                        resource_name: resource_name.clone(),
                        device_ids: Some(ids.collect()),
                        alloc_resp: Some(BASE64.encode(allocated.response.encode_to_vec())),
                    });
                }
            }
        }
        let registered = self.healthy.iter();
        let registered =
            registered.map(|(name, ids)| (name.clone(), Some(ids.iter().cloned().collect())));
        Data {
            pod_device_entries: (!entries.is_empty()).then_some(entries),
            registered_devices: Some(registered.collect()),
        }
    }

    /// What the kubelet before knew. Nothing of a resource can be given until its plugin is back.
    pub fn restore(data: Data, now: Instant) -> Self {
        let mut inventory = Self::default();
        for entry in data.pod_device_entries.into_iter().flatten() {
            let bytes = BASE64.decode(entry.alloc_resp.unwrap_or_default());
            let response = bytes.map(|bytes| pb::ContainerAllocateResponse::decode(&*bytes));
            let Ok(Ok(response)) = response else {
                warn!(
                    pod = entry.pod_uid,
                    container = entry.container_name,
                    resource = entry.resource_name,
                    "what a container needs for its devices cannot be read"
                );
                continue;
            };
            let by_node = entry.device_ids.into_iter().flatten();
            let by_node = by_node.map(|(node, ids)| (node, ids.unwrap_or_default()));
            let by_node = by_node.collect();
            let containers = inventory.pods.entry(entry.pod_uid).or_default();
            let resources = containers.entry(entry.container_name).or_default();
            resources.insert(entry.resource_name, Allocated { by_node, response });
        }
        for resource in data
            .registered_devices
            .into_iter()
            .flatten()
            .map(|(r, _)| r)
        {
            inventory.healthy.insert(resource.clone(), Ids::new());
            inventory.unhealthy.insert(resource.clone(), Ids::new());
            inventory.plugins.insert(resource, Some(now));
        }
        inventory
    }
}

#[cfg(test)]
#[path = "inventory_tests.rs"]
mod tests;
