//! What schedulers are measured with: the workloads of upstream's `scheduler_perf`, by the objects
//! that they consist of.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::nodes::node;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    Basic,
    NodeAffinity,
    PodAffinity,
    PodAntiAffinity,
    PreferredPodAffinity,
    PreferredPodAntiAffinity,
    TopologySpread,
    PreferredTopologySpread,
    Preemption,
    Unschedulable,
    Daemonset,
    /// Each pod has a bound claim of a CSI driver that attaches so many volumes to a node.
    Volumes,
    /// While a node, a Service and a pod that fits nowhere come and go.
    Churn,
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";
pub const NAMESPACE: &str = "bench";
pub const ZONES: usize = 10;
const DRIVER: &str = "csi.example";
/// How many volumes the driver attaches to a node.
const ATTACHABLE: usize = 39;

impl Workload {
    pub fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |v| v.get_name().to_owned())
    }

    /// The i-th of the pods that are measured.
    pub fn pod(self, i: usize, nodes: usize) -> Value {
        let mut spec = json!({
            "containers": [{"name": "c", "image": "registry.example/pause:1",
                "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}],
            "terminationGracePeriodSeconds": 0,
        });
        let selector = json!({"matchLabels": {"app": "bench"}});
        let term = |key: &str| json!({"labelSelector": selector, "topologyKey": key});
        let preferred = |key: &str| {
            json!({"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": term(key)},
            ]})
        };
        let required =
            |key: &str| json!({"requiredDuringSchedulingIgnoredDuringExecution": [term(key)]});
        let spread = |when: &str| {
            json!([{"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": when,
                "labelSelector": selector}])
        };
        match self {
            Self::Basic | Self::Churn => {}
            Self::Volumes => {
                spec["volumes"] = json!([{"name": "v",
                    "persistentVolumeClaim": {"claimName": format!("claim-{i:06}")}}]);
            }
            Self::NodeAffinity => {
                spec["affinity"]["nodeAffinity"] = json!({
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchExpressions": [{"key": ZONE, "operator": "In",
                            "values": ["zone-0", "zone-1"]}]},
                    ]},
                });
            }
            Self::PodAffinity => spec["affinity"]["podAffinity"] = required(ZONE),
            Self::PodAntiAffinity => spec["affinity"]["podAntiAffinity"] = required(HOST),
            Self::PreferredPodAffinity => spec["affinity"]["podAffinity"] = preferred(HOST),
            Self::PreferredPodAntiAffinity => {
                spec["affinity"]["podAntiAffinity"] = preferred(HOST);
            }
            Self::TopologySpread => {
                spec["topologySpreadConstraints"] = spread("DoNotSchedule");
            }
            Self::PreferredTopologySpread => {
                spec["topologySpreadConstraints"] = spread("ScheduleAnyway");
            }
            Self::Preemption => {
                spec["priorityClassName"] = "p1000".into();
                spec["containers"][0]["resources"]["requests"] = json!({"cpu": "30"});
            }
            Self::Unschedulable => {
                spec["containers"][0]["resources"]["requests"] = json!({"cpu": "64"});
            }
            Self::Daemonset => {
                let name = format!("sim-{:05}", i % nodes);
                spec["affinity"]["nodeAffinity"] = json!({
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In",
                            "values": [name]}]},
                    ]},
                });
            }
        }
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("p-{i:06}"), "namespace": NAMESPACE,
                "labels": {"app": "bench"}},
            "spec": spec,
        })
    }

    /// How many pods are measured: no more than can have a node to themselves, where each
    /// needs one.
    pub fn pods(self, wanted: usize, nodes: usize) -> usize {
        match self {
            Self::PodAntiAffinity | Self::Preemption => wanted.min(nodes * 9 / 10),
            _ => wanted,
        }
    }

    /// What stays for all turns, with the collection that it is made in.
    pub fn lasting(self, pods: usize, nodes: usize) -> Vec<(String, Value)> {
        if self != Self::Volumes {
            return Vec::new();
        }
        let drivers = (0..nodes).map(|i| {
            let name = format!("sim-{i:05}");
            let node = json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": name},
                "spec": {"drivers": [{"name": DRIVER, "nodeID": name,
                    "allocatable": {"count": ATTACHABLE}}]},
            });
            ("/apis/storage.k8s.io/v1/csinodes".to_owned(), node)
        });
        let volumes = (0..pods).map(|i| {
            let volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume",
                "metadata": {"name": format!("volume-{i:06}")},
                "spec": {
                    "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "csi": {"driver": DRIVER, "volumeHandle": format!("handle-{i}")},
                    "claimRef": {"namespace": NAMESPACE, "name": format!("claim-{i:06}")},
                },
            });
            ("/api/v1/persistentvolumes".to_owned(), volume)
        });
        let claims = (0..pods).map(|i| {
            let claim = json!({
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {
                    "name": format!("claim-{i:06}"), "namespace": NAMESPACE,
                    "annotations": {"pv.kubernetes.io/bind-completed": "yes"},
                },
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                    "resources": {"requests": {"storage": "1Gi"}},
                    "volumeName": format!("volume-{i:06}"),
                },
            });
            let path = format!("/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims");
            (path, claim)
        });
        drivers.chain(volumes).chain(claims).collect()
    }

    /// Pods that are there before, each on a node.
    pub fn before(self, nodes: usize) -> Vec<Value> {
        let count = if self == Self::Preemption {
            nodes * 4
        } else {
            0
        };
        let pods = (0..count).map(|i| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("old-{i:06}"), "namespace": NAMESPACE},
                "spec": {
                    "nodeName": format!("sim-{:05}", i % nodes),
                    "priorityClassName": "p10",
                    "terminationGracePeriodSeconds": 0,
                    "containers": [{"name": "c", "image": "registry.example/pause:1",
                        "resources": {"requests": {"cpu": "8"}}}],
                },
            })
        });
        pods.collect()
    }
}

/// The name of all that [`churned`] holds.
pub const CHURNED: &str = "churned";

/// What comes and goes, with the collection that it is in.
pub fn churned() -> [(String, Value); 3] {
    let mut new = node(0, ZONES);
    new["metadata"]["name"] = CHURNED.into();
    new["metadata"]["labels"][HOST] = CHURNED.into();
    let mut pod = Workload::Unschedulable.pod(0, 0);
    pod["metadata"] = json!({"name": CHURNED, "namespace": NAMESPACE});
    pod["spec"]["priorityClassName"] = "p1000".into();
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": CHURNED, "namespace": NAMESPACE},
        "spec": {"selector": {"app": "bench"}, "ports": [{"port": 80}]},
    });
    [
        ("/api/v1/nodes".to_owned(), new),
        (format!("/api/v1/namespaces/{NAMESPACE}/pods"), pod),
        (format!("/api/v1/namespaces/{NAMESPACE}/services"), service),
    ]
}

/// Prints what a workload consists of.
#[derive(Debug, Clone, Args)]
pub struct Options {
    pub workload: Workload,
    #[arg(long, default_value_t = 1000)]
    pub nodes: usize,
    /// Pods that are to be scheduled.
    #[arg(long, default_value_t = 2000)]
    pub pods: usize,
}

/// Prints one object a line: first what is there before the pods that are to be scheduled. They are
/// as an API server would have them: with UIDs, and priorities for their classes.
pub fn print(options: &Options) {
    let (workload, nodes) = (options.workload, options.nodes);
    let pods = workload.pods(options.pods, nodes);
    let all = (0..nodes)
        .map(|i| node(i, ZONES))
        .chain(workload.lasting(pods, nodes).into_iter().map(|(_, o)| o))
        .chain(workload.before(nodes))
        .chain((0..pods).map(|i| workload.pod(i, nodes)));
    for mut object in all {
        object["metadata"]["uid"] = object["metadata"]["name"].clone();
        let class = object["spec"]["priorityClassName"]
            .as_str()
            .unwrap_or_default();
        if let Some(priority) = class.strip_prefix('p').and_then(|p| p.parse::<i64>().ok()) {
            object["spec"]["priority"] = priority.into();
        }
        println!("{object}");
    }
}
