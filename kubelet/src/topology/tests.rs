//! Pods on a machine of two NUMA nodes with two cores each and a plugin's devices on both.

use std::collections::BTreeMap;
use std::path::Path;

use component::features::FeatureGates;
use grpc::pod_resources::v1::pod_resources_lister_client::PodResourcesListerClient;
use grpc::pod_resources::{v1, v1alpha1};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::MemoryReservation;
use crate::cpus::{self, CpuSet};
use crate::devices::fake::{Plugin, device, play_with, register};
use crate::devices::{self, serve};
use crate::dra::{Claims, Dra, Drivers};
use crate::memory;
use crate::pod_resources::PodResources;
use crate::pods::active::ActivePods;
use crate::status::StatusManager;
use crate::sys::numa::{Cpu, Layout, NumaNode};

const GIB: u64 = 1 << 30;

fn layout() -> Layout {
    let node = |id| NumaNode {
        id,
        memory: 5 * GIB,
        ..NumaNode::default()
    };
    let cpu = |cpu: u32| Cpu {
        numa: cpu % 4 / 2,
        socket: 0,
        core: cpu % 4,
        uncore: 0,
    };
    Layout {
        nodes: [0, 1].map(node).into(),
        cpus: (0..8).map(|id| (id, cpu(id))).collect(),
    }
}

struct Kubelet {
    topology: Arc<Topology>,
    active: ActivePods,
    plugin: Plugin,
    metrics: Arc<Metrics>,
    root: tempfile::TempDir,
    stop: CancellationToken,
}

impl Kubelet {
    async fn start(policy: Policy, scope: Scope, options: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let active = ActivePods {
            index: Arc::default(),
            status: Arc::new(StatusManager::new(Arc::default())),
        };
        active.index.set_complete();
        let metrics = Arc::new(Metrics::new("n", true).unwrap());
        let (affinities, node_changed) = (Arc::<Affinities>::default(), Arc::new(Notify::new()));
        let devices = Devices::open(devices::Setup {
            dir: root.path().join("device-plugins"),
            active: active.clone(),
            running: Default::default(),
            nodes: vec![0, 1],
            affinities: affinities.clone(),
            metrics: metrics.clone(),
            changed: Box::new(|_| {}),
            node_changed: node_changed.clone(),
        });
        let stop = CancellationToken::new();
        serve(&devices, stop.clone()).unwrap();
        // Two devices on the second node, one on the first.
        let placed = [("a", 0), ("b", 1), ("c", 1)].map(|(id, node)| {
            let mut device = device(id, "Healthy");
            let nodes = vec![grpc::plugins::devices::NumaNode { id: node }];
            device.topology = Some(grpc::plugins::devices::TopologyInfo { nodes });
            device
        });
        let plugin = play_with(devices.dir(), "gpu.sock", placed.into(), None);
        register(devices.dir(), "v1beta1", "gpu.sock", "d.io/gpu")
            .await
            .unwrap();
        while devices.capacity().counts.get("d.io/gpu") != Some(&(3, 3)) {
            node_changed.notified().await;
        }
        let layout = layout();
        let options = options
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        let cpus = Cpus::open(cpus::Setup {
            policy: "static",
            options: &options.collect(),
            gates: &FeatureGates::default(),
            layout: &layout,
            reserved: 500,
            named: CpuSet::default(),
            single_numa_node: policy == Policy::SingleNumaNode,
            root: root.path().to_owned(),
            active: active.clone(),
            metrics: metrics.clone(),
        });
        let reserved: Vec<MemoryReservation> = serde_json::from_value(json!([
            {"numaNode": 0, "limits": {"memory": "1Gi"}},
            {"numaNode": 1, "limits": {"memory": "1Gi"}},
        ]))
        .unwrap();
        let memory = Memory::open(memory::Setup {
            policy: "Static",
            machine: &layout.nodes,
            reserved: &reserved,
            kept: [("memory".to_owned(), 2 << 30)].into(),
            root: root.path().to_owned(),
            active: active.clone(),
            metrics: metrics.clone(),
        });
        let topology = Topology {
            policy,
            scope,
            options: TopologyOptions::parse(&BTreeMap::new()).unwrap(),
            numa: Numa::new(&layout.nodes),
            devices,
            cpus: cpus.unwrap(),
            memory: memory.unwrap(),
            affinities,
            metrics: metrics.clone(),
            placing: tokio::sync::Mutex::default(),
        };
        Self {
            topology: Arc::new(topology),
            active,
            plugin,
            metrics,
            root,
            stop,
        }
    }

    /// Containers with their CPUs, GiB and devices.
    fn pod(&self, uid: &str, containers: &[(&str, u32, u32)]) -> Arc<Pod> {
        let container = |(i, (cpus, gib, gpus)): (usize, &(&str, u32, u32))| {
            let mut limits = json!({"cpu": cpus, "memory": format!("{gib}Gi")});
            if *gpus > 0 {
                limits["d.io/gpu"] = json!(gpus);
            }
            json!({"name": format!("c{i}"), "resources": {"limits": limits, "requests": limits}})
        };
        let containers: Vec<_> = containers.iter().enumerate().map(container).collect();
        let metadata = json!({"name": uid, "namespace": "ns", "uid": uid});
        let pod = json!({"metadata": metadata, "spec": {"containers": containers}});
        let pod: Arc<Pod> = Arc::new(serde_json::from_value(pod).unwrap());
        self.active.index.set(pod.clone());
        pod
    }

    async fn admit(&self, pod: &Arc<Pod>) -> Result<(), Rejection> {
        let admitted = self.topology.admit(pod, false).await;
        if admitted.is_err() {
            self.active.index.remove(pod);
        }
        admitted.map_err(Rejection::from)
    }

    /// What each container of the pod has: CPUs, nodes of its memory, devices.
    fn has(&self, pod: &Pod) -> Vec<String> {
        let of = |container: &Container| {
            let (uid, name) = (pod.uid(), container.name.as_str());
            let devices = self.topology.devices.of_container(uid, name).into_iter();
            let devices: Vec<String> = devices.flat_map(|(_, ids)| ids.into_keys()).collect();
            let cpus = self.topology.cpus.exclusive(uid, name).unwrap_or_default();
            let memory = self.topology.memory.nodes_of(uid, name);
            format!("cpus {cpus} memory {memory} devices {}", devices.join(","))
        };
        pod.containers().iter().map(of).collect()
    }
}

fn reason(rejected: Result<(), Rejection>) -> String {
    rejected.map_or_else(
        |r| format!("{}: {}", r.reason, r.message),
        |()| "admitted".into(),
    )
}

const APART: &str = "TopologyAffinityError: Resources cannot be allocated with Topology locality";

#[tokio::test]
async fn all_of_a_container_comes_from_one_node() {
    let kubelet = Kubelet::start(Policy::SingleNumaNode, Scope::Container, &[]).await;
    // Two devices are on the second node only, and so is the rest.
    let first = kubelet.pod("first", &[("2", 1, 2)]);
    kubelet.admit(&first).await.unwrap();
    assert_eq!(kubelet.has(&first), ["cpus 2,6 memory 1 devices b,c"]);
    // One of each node: two containers may be apart.
    let second = kubelet.pod("second", &[("2", 1, 1), ("1", 3, 0)]);
    kubelet.admit(&second).await.unwrap();
    assert_eq!(
        kubelet.has(&second),
        ["cpus 1,5 memory 0 devices a", "cpus 4 memory 0 devices "]
    );
    let apart = kubelet.pod("apart", &[("3", 1, 0)]);
    assert_eq!(reason(kubelet.admit(&apart).await), APART);
    // Of what is nowhere there are no hints: it is found out when it is to be given.
    let large = kubelet.pod("large", &[("2", 4, 0)]);
    assert_eq!(
        reason(kubelet.admit(&large).await),
        "UnexpectedAdmissionError: Allocate failed due to [memorymanager] failed to find NUMA nodes to extend the \
         current topology hint, which is unexpected"
    );
    // Who has gone leaves room.
    kubelet.active.index.remove(&first);
    let third = kubelet.pod("third", &[("3", 4, 1)]);
    kubelet.admit(&third).await.unwrap();
    assert_eq!(kubelet.has(&third), ["cpus 2-3,6 memory 1 devices b"]);
    // Once more is no other.
    kubelet.admit(&third).await.unwrap();
    let metrics = &kubelet.metrics.resources;
    assert_eq!(
        (metrics.admissions.get(), metrics.admission_errors.get()),
        (6, 2)
    );
    assert_eq!(metrics.cpus_exclusive.get(), 6);
    assert_eq!(metrics.cpus_shared.get(), 1000);
    let aligned = metrics
        .aligned
        .with_label_values(&["container", "numa_node"]);
    assert_eq!(aligned.get(), 5);
    drop(kubelet.plugin);
}

#[tokio::test]
async fn a_pod_as_a_whole() {
    let kubelet = Kubelet::start(Policy::SingleNumaNode, Scope::Pod, &[]).await;
    let both = kubelet.pod("both", &[("1", 1, 1), ("1", 1, 1)]);
    kubelet.admit(&both).await.unwrap();
    assert_eq!(
        kubelet.has(&both),
        ["cpus 2 memory 1 devices b", "cpus 6 memory 1 devices c"]
    );
    let apart = kubelet.pod("apart", &[("2", 1, 1), ("2", 1, 0)]);
    assert_eq!(reason(kubelet.admit(&apart).await), APART);
}

#[tokio::test]
async fn as_near_as_can_be() {
    let options = &[("full-pcpus-only", "true")];
    let kubelet = Kubelet::start(Policy::BestEffort, Scope::Container, options).await;
    let wide = kubelet.pod("wide", &[("2", 1, 3)]);
    kubelet.admit(&wide).await.unwrap();
    assert_eq!(kubelet.has(&wide), ["cpus 1,5 memory 0,1 devices a,b,c"]);
    for (cpus, gpus, why) in [
        (
            "3",
            0,
            "SMTAlignmentError: SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2",
        ),
        (
            "6",
            0,
            "SMTAlignmentError: SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 4, requested CPUs = 6, CPUs per core = 2",
        ),
        (
            "2",
            1,
            "UnexpectedAdmissionError: Allocate failed due to requested number of devices unavailable for d.io/gpu. Requested: 1, Available: 0, which is unexpected",
        ),
    ] {
        let pod = kubelet.pod("pod", &[(cpus, 1, gpus)]);
        assert_eq!(reason(kubelet.admit(&pod).await), why);
    }
}

#[tokio::test]
async fn whoever_asks_is_told() {
    let kubelet = Kubelet::start(Policy::Restricted, Scope::Container, &[]).await;
    let pod = kubelet.pod("pod", &[("2", 1, 1), ("500m", 1, 0)]);
    kubelet.admit(&pod).await.unwrap();
    let drivers = Drivers::new(
        None,
        "n",
        crate::dra::WIPE_AFTER,
        None,
        kubelet.metrics.clone(),
        &kubelet.stop,
    );
    let claims = Arc::new(Mutex::new(Claims::open(kubelet.root.path()).unwrap()));
    let dra = Dra::new(claims, drivers, None, false, None, kubelet.metrics.clone());
    let served = PodResources::new(kubelet.active.clone(), kubelet.topology.clone(), dra.into());
    let dir = kubelet.root.path().join("pod-resources");
    served.serve(&dir, kubelet.stop.clone()).unwrap();
    let channel = |dir: &Path| {
        let socket = dir.join("kubelet.sock");
        grpc::connect_unix(&socket.to_string_lossy()).unwrap()
    };
    let mut client = PodResourcesListerClient::new(channel(&dir));
    let list = client.list(v1::ListPodResourcesRequest {}).await.unwrap();
    let list = list.into_inner().pod_resources;
    let request = v1::GetPodResourcesRequest {
        pod_name: "pod".into(),
        pod_namespace: "ns".into(),
    };
    let got = client
        .get(request)
        .await
        .unwrap()
        .into_inner()
        .pod_resources;
    assert_eq!(list, [got.unwrap()]);
    let containers = &list[0].containers;
    assert_eq!(containers[0].cpu_ids, [1, 5]);
    let topology = |id| {
        Some(v1::TopologyInfo {
            nodes: vec![v1::NumaNode { id }],
        })
    };
    assert_eq!(
        containers[0].devices,
        [v1::ContainerDevices {
            resource_name: "d.io/gpu".into(),
            device_ids: vec!["a".into()],
            topology: topology(0),
        }]
    );
    assert_eq!(
        containers[0].memory,
        [v1::ContainerMemory {
            memory_type: "memory".into(),
            size: GIB,
            topology: topology(0),
        }]
    );
    assert!(containers[1].cpu_ids.is_empty() && containers[1].devices.is_empty());
    let missing = v1::GetPodResourcesRequest {
        pod_name: "other".into(),
        pod_namespace: "ns".into(),
    };
    let error = client.get(missing).await.unwrap_err();
    assert_eq!(error.message(), "pod other in namespace ns not found");
    let request = v1::AllocatableResourcesRequest {};
    let all = client.get_allocatable_resources(request).await.unwrap();
    let all = all.into_inner();
    assert_eq!((all.devices.len(), all.memory.len()), (3, 2));
    assert_eq!(all.cpu_ids, [1, 2, 3, 4, 5, 6, 7]);

    use v1alpha1::pod_resources_lister_client::PodResourcesListerClient as Old;
    let old = Old::new(channel(&dir))
        .list(v1alpha1::ListPodResourcesRequest {})
        .await;
    let old = old.unwrap().into_inner().pod_resources;
    assert_eq!(old[0].containers[0].devices[0].device_ids, ["a"]);
    // Nobody may ask without end.
    let refused = async {
        loop {
            if let Err(status) = client.list(v1::ListPodResourcesRequest {}).await {
                return status;
            }
        }
    };
    assert_eq!(refused.await.code(), tonic::Code::ResourceExhausted);
    assert_eq!(
        kubelet
            .metrics
            .resources
            .get_errors
            .with_label_values(&["v1"])
            .get(),
        1
    );
}
