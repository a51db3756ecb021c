//! The node's status, field by field, from what this machine and its runtime are. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use grpc::cri;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeFeatures, NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::facts::Facts;
use crate::devices::Capacity;
use crate::eviction::thresholds::{Kept, Value};
use crate::pods::admission::is_extended;
use crate::resources::requests::{Amounts, ResourceList, amounts, quantity};
use crate::shutdown;
use crate::sys::node::Machine;

/// What the node's configuration says about it.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    pub name: String,
    pub hostname: String,
    /// `--node-ip`; where it is empty, `default_ips` count.
    pub node_ips: Vec<IpAddr>,
    pub default_ips: Vec<IpAddr>,
    pub external_cloud_provider: bool,
    pub port: u16,
    pub max_pods: i64,
    pub pods_per_core: i64,
    pub max_images: i32,
    pub system_reserved: ResourceList,
    pub kube_reserved: ResourceList,
    /// What evictions keep free.
    pub kept: Kept,
    /// See [`declared`](super::declared).
    pub declared_features: Option<Vec<String>>,
}

/// What was seen just now.
pub struct Seen<'a> {
    pub facts: &'a Facts,
    /// Extended resources that plugins bring.
    pub devices: &'a Capacity,
    pub images: &'a [cri::Image],
    pub now: Timestamp,
}

/// Capacity and allocatable.
pub fn resources(
    machine: &Machine,
    root_fs_bytes: u64,
    settings: &NodeSettings,
) -> (ResourceList, ResourceList) {
    let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    let mut capacity = ResourceList::new();
    let mut set =
        |name: &str, amount: i64| capacity.insert(name.to_owned(), quantity(name, amount));
    set("cpu", signed(machine.cpus) * 1000);
    set("memory", signed(machine.memory));
    set("ephemeral-storage", signed(root_fs_bytes));
    let per_core = signed(machine.cpus) * settings.pods_per_core;
    set(
        "pods",
        if settings.pods_per_core > 0 {
            per_core.min(settings.max_pods)
        } else {
            settings.max_pods
        },
    );
    let mut huge_bytes = 0;
    for pages in &machine.hugepage_sizes {
        let bytes = signed(pages.count * pages.kib * 1024);
        huge_bytes += bytes;
        set(&pages.resource_name(), bytes);
    }

    let mut allocatable = amounts(Some(&capacity));
    for list in [&settings.system_reserved, &settings.kube_reserved] {
        for (name, reserved) in amounts(Some(list)) {
            allocatable
                .entry(name)
                .and_modify(|amount| *amount -= reserved);
        }
    }
    let keep = |value: &Option<Value>, of| {
        let value = value.as_ref();
        value.map_or(0, |value| value.of(signed(of)).value())
    };
    let memory = keep(&settings.kept.memory, machine.memory) + huge_bytes;
    allocatable
        .entry("memory".into())
        .and_modify(|amount| *amount -= memory);
    let disk = keep(&settings.kept.node_fs, root_fs_bytes);
    allocatable
        .entry("ephemeral-storage".into())
        .and_modify(|amount| *amount -= disk);
    let allocatable = allocatable.into_iter().map(|(name, amount)| {
        let amount = quantity(&name, amount.max(0));
        (name, amount)
    });
    (capacity, allocatable.collect())
}

/// What the node keeps of each resource, for the system and so that nobody has to be evicted.
pub fn kept(machine: &Machine, settings: &NodeSettings) -> Amounts {
    let mut kept = Amounts::new();
    for list in [&settings.system_reserved, &settings.kube_reserved] {
        for (name, reserved) in amounts(Some(list)) {
            *kept.entry(name).or_default() += reserved;
        }
    }
    let memory = i64::try_from(machine.memory).unwrap_or(i64::MAX);
    let free = settings.kept.memory.as_ref();
    let free = free.map_or(0, |free| free.of(memory).value());
    *kept.entry("memory".into()).or_default() += free;
    kept.retain(|_, amount| *amount > 0);
    kept
}

/// The node's own addresses, the primary first.
pub fn host_ips(settings: &NodeSettings) -> Vec<String> {
    let specified: Vec<_> = settings
        .node_ips
        .iter()
        .filter(|ip| !ip.is_unspecified())
        .collect();
    let ips = if specified.is_empty() {
        settings.default_ips.iter().collect()
    } else {
        specified
    };
    ips.into_iter().map(IpAddr::to_string).collect()
}

/// The status to show, over the one that is shown. What others write is left alone.
pub fn status(
    old: &NodeStatus,
    machine: &Machine,
    settings: &NodeSettings,
    seen: &Seen<'_>,
) -> NodeStatus {
    let facts = seen.facts;
    let mut status = old.clone();
    addresses(&mut status, settings);
    capacity(&mut status, facts, seen.devices);
    status.node_info = Some(NodeSystemInfo {
        architecture: machine.architecture.into(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: format!("{}://{}", facts.runtime_name, facts.runtime_version),
        kernel_version: machine.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: concat!("v", env!("CARGO_PKG_VERSION")).into(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".into(),
        os_image: machine.os_image.clone(),
        swap: (machine.swap > 0).then(|| NodeSwapStatus {
            capacity: i64::try_from(machine.swap).ok(),
        }),
        system_uuid: machine.system_uuid.clone(),
    });
    status.daemon_endpoints = Some(NodeDaemonEndpoints {
        kubelet_endpoint: Some(DaemonEndpoint {
            port: settings.port.into(),
        }),
    });
    status.images = images(seen.images, settings.max_images);
    status.runtime_handlers = (!facts.handlers.is_empty()).then(|| facts.handlers.clone());
    status.features = facts.features.clone();
    status.declared_features = settings.declared_features.clone();
    let in_use = &facts.volumes_in_use;
    status.volumes_in_use = (!in_use.is_empty()).then(|| in_use.clone());
    conditions(&mut status, facts, seen.now);
    status
}

/// Extended resources that others advertise stay, and all of them can be given out.
fn capacity(status: &mut NodeStatus, facts: &Facts, devices: &Capacity) {
    let capacity = status.capacity.get_or_insert_default();
    capacity.extend(facts.capacity.clone());
    for (name, (all, _)) in &devices.counts {
        capacity.insert(name.clone(), quantity(name, *all));
    }
    // Shown as none, not removed: it has been a resource of this node.
    for name in &devices.removed {
        capacity.insert(name.clone(), quantity(name, 0));
    }
    let allocatable = status.allocatable.get_or_insert_default();
    allocatable.retain(|name, _| !is_extended(name));
    let extended = capacity.iter().filter(|(name, _)| is_extended(name));
    allocatable.extend(extended.map(|(name, amount)| (name.clone(), amount.clone())));
    allocatable.extend(facts.allocatable.clone());
    for (name, (_, healthy)) in &devices.counts {
        allocatable.insert(name.clone(), quantity(name, *healthy));
    }
}

fn addresses(status: &mut NodeStatus, settings: &NodeSettings) {
    let address = |kind: &str, address: String| NodeAddress {
        type_: kind.into(),
        address,
    };
    let hostname = address("Hostname", settings.hostname.clone());
    if settings.external_cloud_provider {
        // The provider knows better; until it has spoken, what the operator said will do.
        if status
            .addresses
            .as_ref()
            .is_some_and(|addresses| !addresses.is_empty())
        {
            return;
        }
        if settings.node_ips.is_empty() {
            status.addresses = Some(vec![hostname]);
            return;
        }
    }
    let ips = host_ips(settings)
        .into_iter()
        .map(|ip| address("InternalIP", ip));
    status.addresses = Some(ips.chain([hostname]).collect());
}

/// The largest images, each with its names by digest and tag.
fn images(images: &[cri::Image], max: i32) -> Option<Vec<ContainerImage>> {
    const MAX_NAMES: usize = 5;
    let mut sorted: Vec<_> = images.iter().collect();
    sorted.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    let list: Vec<_> = sorted
        .into_iter()
        .take(max)
        .map(|image| ContainerImage {
            names: Some(
                image
                    .repo_digests
                    .iter()
                    .chain(&image.repo_tags)
                    .take(MAX_NAMES)
                    .cloned()
                    .collect(),
            ),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect();
    (!list.is_empty()).then_some(list)
}

fn conditions(status: &mut NodeStatus, facts: &Facts, now: Timestamp) {
    let pressure = facts.pressure;
    let mut errors = facts.runtime_errors.clone();
    errors.extend(facts.network_error.clone());
    errors.extend(facts.shutting_down.then(|| shutdown::NOT_READY.to_owned()));
    let missing: Vec<_> = ["cpu", "memory", "pods", "ephemeral-storage"]
        .into_iter()
        .filter(|name| !facts.capacity.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        errors.push(format!(
            "missing node capacity for resources: {}",
            missing.join(", ")
        ));
    }
    let not_ready = match &errors[..] {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    };
    let memory = if pressure.memory {
        (
            "True",
            "KubeletHasInsufficientMemory",
            "kubelet has insufficient memory available",
        )
    } else {
        (
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        )
    };
    let disk = if pressure.disk {
        (
            "True",
            "KubeletHasDiskPressure",
            "kubelet has disk pressure",
        )
    } else {
        (
            "False",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        )
    };
    let pid = if pressure.pid {
        (
            "True",
            "KubeletHasInsufficientPID",
            "kubelet has insufficient PID available",
        )
    } else {
        (
            "False",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        )
    };
    let ready = match &not_ready {
        None => ("True", "KubeletReady", "kubelet is posting ready status"),
        Some(why) => ("False", "KubeletNotReady", why.as_str()),
    };
    for (kind, (state, reason, message)) in [
        ("MemoryPressure", memory),
        ("DiskPressure", disk),
        ("PIDPressure", pid),
        ("Ready", ready),
    ] {
        let list = status.conditions.get_or_insert_default();
        let known = list.iter().find(|condition| condition.type_ == kind);
        let since = known
            .filter(|known| known.status == state)
            .and_then(|known| known.last_transition_time.clone());
        let condition = NodeCondition {
            type_: kind.into(),
            status: state.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        };
        match list.iter_mut().find(|condition| condition.type_ == kind) {
            Some(known) => *known = condition,
            None => list.push(condition),
        }
    }
}

/// Whether the two differ in more than when they were looked at.
pub fn differs(a: &NodeStatus, b: &NodeStatus) -> bool {
    let without_times = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            // Kept to the second on the way.
            condition.last_transition_time = None;
        }
        status
            .conditions
            .iter_mut()
            .for_each(|list| list.sort_by(|a, b| a.type_.cmp(&b.type_)));
        status
    };
    without_times(a) != without_times(b)
}

/// The runtime's handlers, by name.
pub fn handlers(response: &cri::StatusResponse) -> Vec<NodeRuntimeHandler> {
    let mut handlers: Vec<_> = response
        .runtime_handlers
        .iter()
        .map(|handler| NodeRuntimeHandler {
            name: Some(handler.name.clone()),
            features: handler.features.map(|features| NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
                user_namespaces: Some(features.user_namespaces),
            }),
        })
        .collect();
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    handlers
}

/// What the runtime can do beside its handlers.
pub fn features(response: &cri::StatusResponse) -> Option<NodeFeatures> {
    let features = response.features.as_ref()?;
    Some(NodeFeatures {
        supplemental_groups_policy: Some(features.supplemental_groups_policy),
    })
}

/// Labels of every Linux node, and those of `--node-labels` over them.
pub fn labels(
    machine: &Machine,
    settings: &NodeSettings,
    own: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let defaults = [
        ("kubernetes.io/hostname", settings.hostname.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", machine.architecture),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", machine.architecture),
    ];
    let mut labels: BTreeMap<_, _> = defaults
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    labels.extend(own.clone());
    labels
}

/// Where a cloud controller manager learns which address the operator wants.
pub const PROVIDED_NODE_IP: &str = "alpha.kubernetes.io/provided-node-ip";

/// The annotations that say how this node is run; `None` removes one.
pub fn annotations(
    settings: &NodeSettings,
    attach_detach: bool,
) -> Vec<(&'static str, Option<String>)> {
    let ips: Vec<_> = settings
        .node_ips
        .iter()
        .filter(|ip| !ip.is_unspecified())
        .map(IpAddr::to_string)
        .collect();
    let provided = (settings.external_cloud_provider && !ips.is_empty()).then(|| ips.join(","));
    vec![
        (
            "volumes.kubernetes.io/controller-managed-attach-detach",
            attach_detach.then(|| "true".into()),
        ),
        (PROVIDED_NODE_IP, provided),
    ]
}

/// Whether the node's boot id is another one than was shown.
pub fn rebooted(node: &Node, machine: &Machine) -> bool {
    let shown = node
        .status
        .as_ref()
        .and_then(|status| status.node_info.as_ref())
        .map(|info| info.boot_id.as_str());
    shown.is_some_and(|shown| !shown.is_empty() && shown != machine.boot_id)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    fn settings() -> NodeSettings {
        NodeSettings {
            name: "n".into(),
            hostname: "n".into(),
            node_ips: vec!["10.0.0.1".parse().unwrap()],
            default_ips: vec![],
            external_cloud_provider: false,
            port: 10250,
            max_pods: 110,
            pods_per_core: 0,
            max_images: 1,
            system_reserved: [("cpu".to_owned(), Quantity("500m".into()))].into(),
            kube_reserved: ResourceList::new(),
            kept: Kept {
                memory: Some(Value::Quantity("100Mi".parse().unwrap())),
                node_fs: Some(Value::Share(0.1)),
            },
            declared_features: None,
        }
    }

    fn machine() -> Machine {
        Machine {
            cpus: 4,
            memory: 1 << 30,
            architecture: "amd64",
            ..Default::default()
        }
    }

    #[test]
    fn allocatable_is_what_is_left() {
        let (capacity, allocatable) = resources(&machine(), 1000 << 20, &settings());
        let text = |list: &ResourceList, name: &str| list[name].0.clone();
        assert_eq!(
            [text(&capacity, "cpu"), text(&allocatable, "cpu")],
            ["4", "3500m"]
        );
        assert_eq!(
            [text(&capacity, "memory"), text(&allocatable, "memory")],
            ["1Gi", "924Mi"]
        );
        assert_eq!(
            [
                text(&capacity, "ephemeral-storage"),
                text(&allocatable, "ephemeral-storage")
            ],
            // To the byte what upstream's nodes show.
            ["1000Mi", "943718399"]
        );
        assert_eq!(text(&allocatable, "pods"), "110");
    }

    #[test]
    fn a_status_and_its_changes() {
        let (capacity, allocatable) = resources(&machine(), 1 << 30, &settings());
        let mut facts = Facts {
            capacity,
            allocatable,
            runtime_name: "containerd".into(),
            runtime_version: "2.1".into(),
            ..Default::default()
        };
        let images = [
            cri::Image {
                id: "a".into(),
                size: 1,
                ..Default::default()
            },
            cri::Image {
                id: "b".into(),
                size: 2,
                repo_tags: vec!["b:1".into()],
                ..Default::default()
            },
        ];
        let at = |second| Timestamp::from_second(second).unwrap();
        let see = |facts: &Facts, old: &NodeStatus, now| {
            status(
                old,
                &machine(),
                &settings(),
                &Seen {
                    facts,
                    devices: &Capacity::default(),
                    images: &images,
                    now: at(now),
                },
            )
        };
        let first = see(&facts, &NodeStatus::default(), 1);
        let kinds: Vec<_> = first
            .conditions
            .iter()
            .flatten()
            .map(|c| format!("{}={}", c.type_, c.status))
            .collect();
        assert_eq!(
            kinds,
            [
                "MemoryPressure=False",
                "DiskPressure=False",
                "PIDPressure=False",
                "Ready=True"
            ]
        );
        assert_eq!(
            first.images.as_ref().unwrap()[0].names.as_ref().unwrap(),
            &["b:1"]
        );
        let later = see(&facts, &first, 2);
        assert!(!differs(&first, &later));
        assert_eq!(
            later.conditions.as_ref().unwrap()[3].last_transition_time,
            Some(Time(at(1)))
        );
        facts.shutting_down = true;
        let down = see(&facts, &later, 3);
        assert_eq!(
            down.conditions.as_ref().unwrap()[3].message.as_deref(),
            Some("node is shutting down")
        );
        facts.shutting_down = false;
        facts.network_error = Some("container runtime network not ready: x".into());
        let broken = see(&facts, &later, 3);
        assert!(differs(&later, &broken));
        assert_eq!(
            broken.conditions.as_ref().unwrap()[3].message.as_deref(),
            Some("container runtime network not ready: x")
        );
        assert_eq!(
            broken.conditions.as_ref().unwrap()[3].last_transition_time,
            Some(Time(at(3)))
        );
    }

    #[test]
    fn devices_are_counted() {
        let show = |status: &mut NodeStatus, counts: &[(&str, i64, i64)], removed: &[&str]| {
            let counts = counts.iter();
            let devices = Capacity {
                counts: counts
                    .map(|(name, all, healthy)| ((*name).to_owned(), (*all, *healthy)))
                    .collect(),
                removed: removed.iter().map(|name| (*name).to_owned()).collect(),
            };
            capacity(status, &Facts::default(), &devices);
            let shown = |list: &Option<ResourceList>| {
                let list = list.iter().flatten();
                let list: Vec<String> = list.map(|(k, v)| format!("{k}={}", v.0)).collect();
                list.join(" ")
            };
            (shown(&status.capacity), shown(&status.allocatable))
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let mut status = NodeStatus::default();
        let others = ResourceList::from([("o.io/x".to_owned(), Quantity("5".into()))]);
        status.capacity = Some(others);
        let shown = show(&mut status, &[("d.io/gpu", 3, 2)], &[]);
        assert_eq!(shown, pair("d.io/gpu=3 o.io/x=5", "d.io/gpu=2 o.io/x=5"));
        let shown = show(&mut status, &[("d.io/gpu", 3, 0)], &[]);
        assert_eq!(shown, pair("d.io/gpu=3 o.io/x=5", "d.io/gpu=0 o.io/x=5"));
        let shown = show(&mut status, &[], &["d.io/gpu"]);
        assert_eq!(shown, pair("d.io/gpu=0 o.io/x=5", "d.io/gpu=0 o.io/x=5"));
        status.capacity.get_or_insert_default().remove("o.io/x");
        let shown = show(&mut status, &[], &[]);
        assert_eq!(shown, pair("d.io/gpu=0", "d.io/gpu=0"));
    }

    #[test]
    fn what_is_kept() {
        let machine = machine();
        let kept = kept(&machine, &settings());
        let want = [("cpu".to_owned(), 500), ("memory".to_owned(), 100 << 20)];
        assert_eq!(kept, want.into());
    }

    #[test]
    fn an_external_providers_addresses_stay() {
        let settings = NodeSettings {
            external_cloud_provider: true,
            ..settings()
        };
        let mut status = NodeStatus::default();
        addresses(&mut status, &settings);
        assert_eq!(status.addresses.as_ref().unwrap().len(), 2);
        status.addresses = Some(vec![NodeAddress {
            type_: "ExternalIP".into(),
            address: "9.9.9.9".into(),
        }]);
        addresses(&mut status, &settings);
        assert_eq!(status.addresses.unwrap()[0].address, "9.9.9.9");
        assert_eq!(
            annotations(&settings, true)[1].1.as_deref(),
            Some("10.0.0.1")
        );
    }
}
