//! Whether this node takes a pod that was bound to it. The scheduler has decided before; this is
//! for pods that were bound without it, and for what it could not know. Pure.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::{Pod, Taint};

use super::node_fit;
use super::pod::{PodExt, PodUid};
use super::preemption::{self, Shortage};
use crate::eviction::{self, Pressure};
use crate::resources::qos::{QosClass, qos_class};
use crate::resources::requests::{Amounts, ResourceList, amounts, pod_requests};
use crate::shutdown;

/// Why a pod is not taken: the reason and message of its failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

/// What the decision depends on.
pub struct Input<'a> {
    pub node_name: &'a str,
    pub taints: &'a [Taint],
    /// What the node is short of.
    pub pressure: Pressure,
    pub shutting_down: bool,
    /// The runtime can confine a process to the groups that its pod names.
    pub strict_groups: bool,
    pub labels: &'a BTreeMap<String, String>,
    pub allocatable: &'a ResourceList,
    /// The pods that run here, or are to.
    pub active: &'a [&'a Pod],
    /// `allowedUnsafeSysctls`: names, or prefixes ending in `*`.
    pub unsafe_sysctls: &'a [String],
}

/// Sysctls that are confined to a pod and harmless to others.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

const OS_LABEL: &str = "kubernetes.io/os";

/// Who has to end before a pod can run here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    pub victims: Vec<PodUid>,
    /// The resource that is lacking first.
    pub signal: String,
}

/// The first of what is looked at: whatever the pod asks for, it has to pass.
///
/// # Errors
/// When it does not.
pub fn at_first(pod: &Pod, input: &Input<'_>) -> Result<(), Rejection> {
    pressure(pod, input.pressure)?;
    sysctls(pod, input)
}

/// What the node can give, with the extended resources that it shows.
pub fn with_extended(own: &ResourceList, shown: Option<&ResourceList>) -> ResourceList {
    let extended = shown.into_iter().flatten();
    let extended = extended.filter(|(name, _)| is_extended(name));
    let extended = extended.map(|(name, amount)| (name.clone(), amount.clone()));
    own.clone().into_iter().chain(extended).collect()
}

/// Whether the pod can run here, and after whom. A critical pod gets its resources from others.
///
/// # Errors
/// When it cannot.
pub fn admit(pod: &Pod, input: &Input<'_>) -> Result<Room, Rejection> {
    at_first(pod, input)?;
    let rejected = |reason: &str, message: &str| {
        Err(Rejection {
            reason: reason.into(),
            message: message.into(),
        })
    };
    let predicate =
        |reason: &str, why: &str| rejected(reason, &format!("Predicate {reason} failed: {why}"));
    let spec = pod.pod_spec();
    let os = pod.metadata.labels.as_ref().and_then(|l| l.get(OS_LABEL));
    if os.is_some_and(|os| os != "linux") {
        return rejected(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    if spec.os.as_ref().is_some_and(|os| os.name != "linux") {
        return rejected(
            "PodOSNotSupported",
            "Failed to admit pod as the OS field doesn't match node OS",
        );
    }
    let groups = spec
        .security_context
        .as_ref()
        .and_then(|context| context.supplemental_groups_policy.as_deref());
    if groups == Some("Strict") && !input.strict_groups {
        return rejected(
            "SupplementalGroupsPolicyNotSupported",
            "SupplementalGroupsPolicy=Strict is not supported in this node",
        );
    }
    let lacking = lacking(pod, input);
    if let Some(first) = lacking.first().filter(|_| !pod.is_critical()) {
        return Err(first.rejection());
    }
    // Static pods may come before the node is known.
    let known = !(pod.is_static() && input.labels.is_empty());
    if known && !node_fit::selects(pod, input.node_name, input.labels) {
        return predicate(
            "NodeAffinity",
            "node(s) didn't match Pod's node affinity/selector",
        );
    }
    let taken: HashSet<_> = input
        .active
        .iter()
        .flat_map(|pod| host_ports(pod))
        .collect();
    if host_ports(pod).any(|port| taken.iter().any(|other| conflict(&port, other))) {
        return predicate(
            "NodePorts",
            "node(s) didn't have free ports for the requested pod ports",
        );
    }
    // Nothing keeps a static pod off its node but the node itself.
    if !pod.is_static() && node_fit::drives_away(pod, input.taints) {
        return predicate(
            "TaintToleration",
            "node(s) had taints that the pod didn't tolerate",
        );
    }
    if input.shutting_down {
        let (reason, message) = shutdown::REJECTED;
        return rejected(reason, message);
    }
    make_room(pod, input, &lacking)
}

/// A node that is short of something takes critical pods only; and one that is short of memory
/// alone, those that have asked for theirs, which others must make room for.
fn pressure(pod: &Pod, pressure: Pressure) -> Result<(), Rejection> {
    let conditions = pressure.conditions();
    if conditions.is_empty() || pod.is_critical() {
        return Ok(());
    }
    let of_memory = conditions == ["MemoryPressure"];
    let asked = qos_class(pod) != QosClass::BestEffort;
    if of_memory && (asked || node_fit::tolerates_memory_pressure(pod)) {
        return Ok(());
    }
    Err(Rejection {
        reason: eviction::REASON.into(),
        message: format!("The node had condition: [{}]. ", conditions.join(" ")),
    })
}

fn make_room(pod: &Pod, input: &Input<'_>, lacking: &[Lacking]) -> Result<Room, Rejection> {
    let Some(first) = lacking.first() else {
        return Ok(Room::default());
    };
    let signal = first.name.clone();
    let short: Vec<Shortage> = lacking.iter().map(Lacking::shortage).collect();
    let victims = preemption::victims(pod, input.active, &short);
    let victims = victims.map_err(|error| Rejection {
        reason: "UnexpectedAdmissionError".into(),
        message: format!(
            "Unexpected error while attempting to recover from admission failure: {error}"
        ),
    })?;
    let victims = victims.iter().map(|pod| pod.uid().into()).collect();
    Ok(Room { victims, signal })
}

/// A resource of which there is not enough.
struct Lacking {
    name: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Lacking {
    fn rejection(&self) -> Rejection {
        let Self {
            name,
            requested,
            used,
            capacity,
        } = self;
        Rejection {
            reason: format!("OutOf{name}"),
            message: format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        }
    }

    fn shortage(&self) -> Shortage {
        Shortage {
            resource: self.name.clone(),
            amount: self.requested - (self.capacity - self.used),
        }
    }
}

fn lacking(pod: &Pod, input: &Input<'_>) -> Vec<Lacking> {
    let mut all = Vec::new();
    let allocatable = amounts(Some(input.allocatable));
    let mut used = Amounts::new();
    for other in input.active {
        for (name, amount) in pod_requests(other, true) {
            *used.entry(name).or_default() += amount;
        }
    }
    let out_of = |name: &str, requested: i64, used: i64, capacity: i64| Lacking {
        name: name.to_owned(),
        requested,
        used,
        capacity,
    };
    if let Some(capacity) = allocatable.get("pods") {
        let count = i64::try_from(input.active.len()).unwrap_or(i64::MAX);
        if count + 1 > *capacity {
            all.push(out_of("pods", 1, count, *capacity));
        }
    }
    for (name, requested) in pod_requests(pod, true) {
        // What a claim brings is not taken from what plugins do.
        if by_claim(pod, &name) {
            continue;
        }
        let used = used.get(&name).copied().unwrap_or_default();
        let capacity = match allocatable.get(&name) {
            Some(capacity) => *capacity,
            // Nothing on the node hands it out: whoever advertises it counts it elsewhere.
            None if is_extended(&name) => continue,
            None => 0,
        };
        if requested > 0 && requested + used > capacity {
            all.push(out_of(&name, requested, used, capacity));
        }
    }
    all
}

/// Whether the pod has this extended resource by a claim (KEP-5004).
fn by_claim(pod: &Pod, resource: &str) -> bool {
    let status = pod.status.as_ref();
    let extended = status.and_then(|status| status.extended_resource_claim_status.as_ref());
    let mut mappings = extended
        .iter()
        .flat_map(|extended| &extended.request_mappings);
    mappings.any(|mapping| mapping.resource_name == resource)
}

/// Whether a resource is one that a device plugin or a cluster's operator brought
/// (`helper.IsExtendedResourceName`).
pub fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native && !name.starts_with("requests.")
}

fn sysctls(pod: &Pod, input: &Input<'_>) -> Result<(), Rejection> {
    let wanted = pod
        .pod_spec()
        .security_context
        .iter()
        .flat_map(|sc| sc.sysctls.iter().flatten());
    for sysctl in wanted {
        let name = sysctl.name.replace('/', ".");
        let allowed = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *pattern == name,
        };
        if !SAFE_SYSCTLS.contains(&name.as_str()) && !input.unsafe_sysctls.iter().any(allowed) {
            return Err(Rejection {
                reason: "SysctlForbidden".into(),
                message: format!("forbidden sysctl: {name:?} not allowlisted"),
            });
        }
        let confined = if name.starts_with("net.") {
            !pod.host_network()
        } else {
            pod.pod_spec().host_ipc != Some(true)
        };
        if !confined {
            return Err(Rejection {
                reason: "SysctlForbidden".into(),
                message: format!(
                    "forbidden sysctl: {name:?} not allowed with host net or ipc enabled"
                ),
            });
        }
    }
    Ok(())
}

type HostPort = (String, String, i32);

fn host_ports(pod: &Pod) -> impl Iterator<Item = HostPort> {
    let ports = pod
        .containers()
        .iter()
        .flat_map(|c| c.ports.iter().flatten());
    ports
        .filter(|port| port.host_port.is_some_and(|port| port > 0))
        .map(|port| {
            let ip = port
                .host_ip
                .clone()
                .filter(|ip| !ip.is_empty())
                .unwrap_or_else(|| "0.0.0.0".into());
            (
                ip,
                port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port.host_port.unwrap_or_default(),
            )
        })
}

fn conflict(a: &HostPort, b: &HostPort) -> bool {
    let overlap = a.0 == b.0 || a.0 == "0.0.0.0" || b.0 == "0.0.0.0";
    overlap && a.1 == b.1 && a.2 == b.2
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn verdict(spec: serde_json::Value) -> String {
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        let allocatable: ResourceList = [("cpu", "2"), ("memory", "1Gi"), ("pods", "2")]
            .map(|(name, amount)| (name.to_owned(), Quantity(amount.into())))
            .into();
        let other = pod(
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}],
            "resources": {"requests": {"cpu": "1500m"}}}]}),
        );
        let taint = json!([{"key": "k", "effect": "NoExecute"}]);
        let taints: Vec<Taint> = serde_json::from_value(taint).unwrap();
        let tainted = spec.get("tainted").is_some();
        let input = Input {
            node_name: "n1",
            taints: if tainted { &taints } else { &[] },
            pressure: Pressure::default(),
            shutting_down: false,
            strict_groups: false,
            labels: &labels,
            allocatable: &allocatable,
            active: &[&other],
            unsafe_sysctls: &["net.core.*".into()],
        };
        admit(&pod(spec), &input)
            .err()
            .map(|r| r.reason)
            .unwrap_or_default()
    }

    #[test]
    fn extended_resources() {
        let list = |amounts: &[(&str, &str)]| -> ResourceList {
            let amounts = amounts.iter();
            amounts
                .map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).into())))
                .collect()
        };
        let shown = list(&[("cpu", "9"), ("d.io/gpu", "1"), ("hugepages-2Mi", "1Gi")]);
        let own = list(&[("cpu", "2")]);
        let allocatable = with_extended(&own, Some(&shown));
        assert_eq!(allocatable, list(&[("cpu", "2"), ("d.io/gpu", "1")]));
        let input = Input {
            node_name: "n1",
            taints: &[],
            pressure: Pressure::default(),
            shutting_down: false,
            strict_groups: false,
            labels: &BTreeMap::new(),
            allocatable: &allocatable,
            active: &[],
            unsafe_sysctls: &[],
        };
        let requests = json!({"d.io/gpu": 2, "d.io/unknown": 7});
        let container = json!({"name": "c", "resources": {"requests": requests}});
        let mut asks = pod(json!({"containers": [container]}));
        let short = |pod: &Pod| -> Vec<String> {
            lacking(pod, &input).into_iter().map(|l| l.name).collect()
        };
        assert_eq!(short(&asks), ["d.io/gpu"]);
        let mapping = json!({"containerName": "c", "resourceName": "d.io/gpu", "requestName": "r"});
        let status = json!({"resourceClaimName": "x", "requestMappings": [mapping]});
        let status = json!({"extendedResourceClaimStatus": status});
        asks.status = serde_json::from_value(status).unwrap();
        assert!(short(&asks).is_empty(), "a claim brings them");
    }

    #[test]
    fn under_pressure() {
        let memory = Pressure {
            memory: true,
            ..Pressure::default()
        };
        let disk = Pressure {
            disk: true,
            ..Pressure::default()
        };
        let both = Pressure {
            disk: true,
            ..memory
        };
        let away = |spec: &serde_json::Value, short| {
            let verdict = pressure(&pod(spec.clone()), short);
            verdict.err().map_or_else(String::new, |r| r.message)
        };
        let c = json!([{"name": "c"}]);
        let best_effort = json!({"containers": c});
        let burstable =
            json!({"containers": [{"name": "c", "resources": {"requests": {"memory": "1"}}}]});
        let critical = json!({"priority": 2_000_000_000, "containers": c});
        let tolerating = |what: &str| {
            let key = format!("node.kubernetes.io/{what}-pressure");
            json!({"tolerations": [{"key": key, "operator": "Exists"}], "containers": c})
        };
        let (of_memory, of_disk) = (tolerating("memory"), tolerating("disk"));
        let because = |of: &str| format!("The node had condition: [{of}]. ");
        for (spec, when_memory, when_disk) in [
            (
                &best_effort,
                because("MemoryPressure"),
                because("DiskPressure"),
            ),
            (&burstable, String::new(), because("DiskPressure")),
            (&of_memory, String::new(), because("DiskPressure")),
            (&of_disk, because("MemoryPressure"), because("DiskPressure")),
            (&critical, String::new(), String::new()),
        ] {
            assert_eq!(away(spec, Pressure::default()), "");
            assert_eq!(away(spec, memory), when_memory, "{spec}");
            assert_eq!(away(spec, disk), when_disk, "{spec}");
        }
        assert_eq!(
            away(&of_memory, both),
            because("MemoryPressure DiskPressure")
        );
        assert_eq!(
            away(&burstable, both),
            because("MemoryPressure DiskPressure")
        );
    }

    #[test]
    fn verdicts() {
        let c = json!([{"name": "c"}]);
        let sysctl = |name: &str| json!({"containers": c, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
        for (spec, want) in [
            (json!({"containers": c}), ""),
            (
                json!({"containers": c, "nodeSelector": {"disk": "ssd"}}),
                "",
            ),
            (
                json!({"containers": c, "nodeSelector": {"disk": "hdd"}}),
                "NodeAffinity",
            ),
            (
                json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}}}]}),
                "OutOfcpu",
            ),
            (
                json!({"containers": [{"name": "c", "resources": {"requests": {"x.io/gpu": "1"}}}]}),
                "",
            ),
            (
                json!({"containers": [{"name": "c", "resources": {"requests": {"hugepages-2Mi": "2Mi"}}}]}),
                "OutOfhugepages-2Mi",
            ),
            (
                json!({"containers": [{"name": "c", "ports": [{"containerPort": 9, "hostPort": 80}]}]}),
                "NodePorts",
            ),
            (
                json!({"containers": c, "os": {"name": "windows"}}),
                "PodOSNotSupported",
            ),
            (
                json!({"containers": c, "securityContext": {"supplementalGroupsPolicy": "Strict"}}),
                "SupplementalGroupsPolicyNotSupported",
            ),
            (json!({"containers": c, "tainted": true}), "TaintToleration"),
            (
                json!({"containers": c, "tainted": true, "tolerations": [{"key": "k", "operator": "Exists"}]}),
                "",
            ),
            (
                json!({"priority": 2_000_000_000, "containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}}}]}),
                "",
            ),
            (
                json!({"priority": 2_000_000_000, "containers": [{"name": "c", "resources": {"requests": {"cpu": "6"}}}]}),
                "UnexpectedAdmissionError",
            ),
            (
                json!({"priority": 2_000_000_000, "tainted": true, "containers": [{"name": "c", "resources": {"requests": {"cpu": "6"}}}]}),
                "TaintToleration",
            ),
            (sysctl("kernel.shm_rmid_forced"), ""),
            (sysctl("net/core/somaxconn"), ""),
            (sysctl("kernel.msgmax"), "SysctlForbidden"),
        ] {
            assert_eq!(verdict(spec.clone()), want, "{spec}");
        }
    }
}
