//! What containers can be given of the node: devices, CPUs and memory, and who places them.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use client::Client;
use component::features::FeatureGates;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::config::KubeletConfiguration;
use crate::cpus::{self, CpuSet, Cpus};
use crate::cri::client::{CriClient, Of};
use crate::cri::labels;
use crate::devices::{self, Devices};
use crate::dra::{self, Claims, Dra, Drivers, Health};
use crate::event::Event;
use crate::memory::{self, Memory};
use crate::metrics::Metrics;
use crate::node_status::setters::{self, NodeSettings};
use crate::pods::active::ActivePods;
use crate::pods::dirs::Root;
use crate::sys::node::Machine;
use crate::sys::numa::Layout;
use crate::topology::{Affinities, Numa, Policy, Scope, Topology, TopologyOptions};

/// Everything that placing takes.
pub struct Setup<'a> {
    pub config: &'a KubeletConfiguration,
    pub gates: &'a FeatureGates,
    pub root: &'a Root,
    pub machine: &'a Machine,
    pub node: &'a NodeSettings,
    pub runtime: &'a CriClient,
    pub active: ActivePods,
    pub metrics: &'a Arc<Metrics>,
    pub told: &'a mpsc::UnboundedSender<Event>,
    pub node_changed: &'a Arc<Notify>,
}

/// # Errors
/// When a policy does not fit the machine, or what the kubelet before has written down.
pub async fn open(setup: Setup<'_>) -> anyhow::Result<Arc<Topology>> {
    let (config, metrics) = (setup.config, setup.metrics);
    let layout = Layout::read(setup.machine.memory);
    let policy = Policy::parse(&config.topology_manager_policy).context("unknown policy")?;
    let fails = |what: &'static str| {
        move |why: String| anyhow::anyhow!("failed to initialize {what}: {why}")
    };
    let options = TopologyOptions::parse(&config.topology_manager_policy_options);
    let options = options.map_err(fails("topology manager"))?;
    if policy != Policy::None && layout.nodes.len() > options.max_nodes {
        let most = options.max_nodes;
        anyhow::bail!("unsupported on machines with more than {most} NUMA Nodes");
    }
    let named: CpuSet = config.reserved_system_cpus.parse()?;
    let online: CpuSet = layout.cpus.keys().copied().collect();
    if !named.is_subset(&online) {
        anyhow::bail!("reserved-cpus: {named} is not a subset of online-cpus: {online}");
    }
    let root = PathBuf::from(setup.root.path());
    let kept = setters::kept(setup.machine, setup.node);
    let cpus = Cpus::open(cpus::Setup {
        policy: &config.cpu_manager_policy,
        options: &config.cpu_manager_policy_options,
        gates: setup.gates,
        layout: &layout,
        reserved: kept.get("cpu").copied().unwrap_or_default(),
        named,
        single_numa_node: policy == Policy::SingleNumaNode,
        root: root.clone(),
        active: setup.active.clone(),
        metrics: metrics.clone(),
    });
    let is_memory = |kind: &String| kind == "memory" || kind.starts_with("hugepages-");
    let kept: BTreeMap<String, i64> = kept.into_iter().filter(|(k, _)| is_memory(k)).collect();
    let memory = Memory::open(memory::Setup {
        policy: &config.memory_manager_policy,
        machine: &layout.nodes,
        reserved: &config.reserved_memory,
        kept,
        root: root.clone(),
        active: setup.active.clone(),
        metrics: metrics.clone(),
    });
    let affinities = Arc::new(Affinities::default());
    let told = setup.told.clone();
    let devices = Devices::open(devices::Setup {
        dir: root.join("device-plugins"),
        active: setup.active,
        running: running(setup.runtime).await,
        nodes: layout.nodes.iter().map(|node| node.id).collect(),
        affinities: affinities.clone(),
        metrics: metrics.clone(),
        changed: Box::new(move |pods| {
            let _ = told.send(Event::Objects(pods));
        }),
        node_changed: setup.node_changed.clone(),
    });
    Ok(Arc::new(Topology {
        policy,
        scope: match config.topology_manager_scope.as_str() {
            "pod" => Scope::Pod,
            _ => Scope::Container,
        },
        options,
        numa: Numa::new(&layout.nodes),
        devices,
        cpus: cpus.map_err(fails("cpu manager"))?,
        memory: memory.map_err(fails("memory manager"))?,
        affinities,
        metrics: metrics.clone(),
        placing: tokio::sync::Mutex::default(),
    }))
}

/// The claims of pods and the drivers that know what they mean.
///
/// # Errors
/// When what the kubelet before has written down cannot be read.
pub fn dynamic(
    root: &Root,
    gates: &FeatureGates,
    api: &Option<Client>,
    node: &NodeSettings,
    metrics: &Arc<Metrics>,
    told: &mpsc::UnboundedSender<Event>,
    stop: &CancellationToken,
) -> anyhow::Result<(Arc<Dra>, Drivers)> {
    let claims = Arc::new(Mutex::new(Claims::open(root.path())?));
    let health = gates
        .enabled("ResourceHealthStatus")
        .then(Arc::<Health>::default);
    let changed = |health: &Arc<Health>| {
        let (claims, told) = (claims.clone(), told.clone());
        let changed: dra::Changed = Box::new(move |driver, devices| {
            let users = Dra::users(&claims.lock(), driver, devices);
            let _ = told.send(Event::Objects(users));
        });
        (health.clone(), changed)
    };
    let drivers = Drivers::new(
        api.clone(),
        &node.name,
        dra::WIPE_AFTER,
        health.as_ref().map(changed),
        metrics.clone(),
        stop,
    );
    if gates.enabled("DynamicResourceAllocation") {
        drivers.wipe_all();
    }
    let messages = gates.enabled("ResourceHealthStatusMessage");
    let dra = Dra::new(
        claims,
        drivers.clone(),
        health,
        messages,
        api.clone(),
        metrics.clone(),
    );
    Ok((Arc::new(dra), drivers))
}

/// Containers that run now, by pod and name. Where the runtime does not say, none.
async fn running(runtime: &CriClient) -> HashSet<(String, String)> {
    let of = Of {
        pod_uid: None,
        running: true,
    };
    let containers = runtime.list_containers(of).await.unwrap_or_default();
    let label = |labels: &BTreeMap<String, String>, key| labels.get(key).cloned();
    let containers = containers.into_iter().map(|container| {
        let labels = container.labels;
        let uid = label(&labels, labels::POD_UID)?;
        Some((uid, label(&labels, labels::CONTAINER_NAME)?))
    });
    containers.flatten().collect()
}
