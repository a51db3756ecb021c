//! The rules of resizes: what is one, which of several comes first, and when one is done. Pure.

use std::cmp::Ordering;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;

use super::PodResources;
use crate::cri::limits::{quota_to_milli, shares_to_milli};
use crate::cri::observed::{ContainerStatus, PodStatus, State};
use crate::pods::pod::{PodExt, is_sidecar};
use crate::resources::qos::{QosClass, qos_class};
use crate::resources::requests::{Amounts, ResourceList, of, pod_requests};

/// Whether two lists say the same, however they write it.
fn same_list(a: Option<&ResourceList>, b: Option<&ResourceList>) -> bool {
    let parsed = |quantity: &Quantity| meta::Quantity::try_from(quantity).unwrap_or_default();
    let same = |(a, b): ((&String, &Quantity), (&String, &Quantity))| {
        a.0 == b.0 && (a.1 == b.1 || parsed(a.1) == parsed(b.1))
    };
    let count = |list: Option<&ResourceList>| list.map_or(0, ResourceList::len);
    count(a) == count(b)
        && a.into_iter()
            .flatten()
            .zip(b.into_iter().flatten())
            .all(same)
}

fn same(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    same_list(
        a.and_then(|r| r.requests.as_ref()),
        b.and_then(|r| r.requests.as_ref()),
    ) && same_list(
        a.and_then(|r| r.limits.as_ref()),
        b.and_then(|r| r.limits.as_ref()),
    )
}

fn pod_differs(pod: &Pod, resources: &PodResources) -> bool {
    !same(pod.pod_spec().resources.as_ref(), resources.pod.as_ref())
}

/// Whether the pod's own resources are others than these.
pub fn differs(pod: &Pod, resources: &PodResources) -> bool {
    let differs = |c: &Container| {
        let known = resources.containers.get(&c.name);
        known.is_some_and(|known| !same(Some(known), c.resources.as_ref()))
    };
    let mut containers = pod.containers().iter().chain(pod.init_containers());
    pod_differs(pod, resources) || containers.any(differs)
}

/// The pod with these resources in place of its own; `None` where they are the same.
pub fn with(pod: &Pod, resources: &PodResources) -> Option<Pod> {
    if !differs(pod, resources) {
        return None;
    }
    let mut other = pod.clone();
    let spec = other.spec.get_or_insert_default();
    if pod_differs(pod, resources) {
        spec.resources.clone_from(&resources.pod);
    }
    let init = spec.init_containers.iter_mut().flatten();
    for container in spec.containers.iter_mut().chain(init) {
        if let Some(known) = resources.containers.get(&container.name) {
            container.resources = Some(known.clone());
        }
    }
    Some(other)
}

/// One change that a pod asks for, as it is counted: resource, requirement, operation.
pub type Change = (&'static str, &'static str, &'static str);

/// What of CPU and memory a new version of a pod asks for otherwise. `None`: nothing. Changes of
/// the pod's own resources are not counted one by one.
pub fn asked(old: &Pod, new: &Pod) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    let all = |pod: &'_ Pod| -> Vec<Container> {
        let containers = pod.containers().iter().chain(pod.init_containers());
        containers.cloned().collect()
    };
    let before = all(old);
    for container in all(new) {
        let Some(before) = before.iter().find(|c| c.name == container.name) else {
            continue;
        };
        for resource in ["memory", "cpu"] {
            for requirement in ["requests", "limits"] {
                let amount = |c: &Container| {
                    let resources = c.resources.as_ref();
                    of(
                        resources.and_then(|r| match requirement {
                            "requests" => r.requests.as_ref(),
                            _ => r.limits.as_ref(),
                        }),
                        resource,
                    )
                };
                let operation = match (amount(before), amount(&container)) {
                    (old, new) if old == new => continue,
                    (0, _) => "add",
                    (_, 0) => "remove",
                    (old, new) if new < old => "decrease",
                    _ => "increase",
                };
                changes.push((resource, requirement, operation));
            }
        }
    }
    let own = |pod: &'_ Pod| pod.pod_spec().resources.clone();
    let own_changed = !same(own(old).as_ref(), own(new).as_ref());
    (own_changed || !changes.is_empty()).then_some(changes)
}

/// Whether `a` requests less CPU or less memory than `b`.
pub fn less(a: &Amounts, b: &Amounts) -> bool {
    let amount = |list: &Amounts, name: &str| list.get(name).copied().unwrap_or_default();
    ["cpu", "memory"]
        .iter()
        .any(|name| amount(a, name) < amount(b, name))
}

/// A resize that waits: the pod, as it wants to be and as it was granted, and since when.
pub struct Waiting<'a> {
    pub wanted: &'a Pod,
    pub granted: &'a Pod,
    pub since: Option<Timestamp>,
}

/// Who comes first: those that ask for no more than they have, then by priority, then those that
/// were promised what they have, then those that have waited longest.
pub fn order(a: &Waiting<'_>, b: &Waiting<'_>) -> Ordering {
    let grows = |w: &Waiting<'_>| {
        less(
            &pod_requests(w.granted, true),
            &pod_requests(w.wanted, true),
        )
    };
    let priority = |w: &Waiting<'_>| w.wanted.pod_spec().priority.unwrap_or_default();
    let promised = |w: &Waiting<'_>| qos_class(w.wanted) == QosClass::Guaranteed;
    let since = |w: &Waiting<'_>| w.since.unwrap_or(Timestamp::MAX);
    grows(a)
        .cmp(&grows(b))
        .then_with(|| priority(b).cmp(&priority(a)))
        .then_with(|| promised(b).cmp(&promised(a)))
        .then_with(|| since(a).cmp(&since(b)))
}

/// What a container is given of CPU (thousandths) and memory (bytes). Zero is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Given {
    pub memory_limit: i64,
    pub memory_request: i64,
    pub cpu_limit: i64,
    pub cpu_request: i64,
}

impl Given {
    /// Of a container's resources; where it has no limit, its pod's applies.
    pub fn of(
        pod: Option<&ResourceRequirements>,
        container: Option<&ResourceRequirements>,
    ) -> Self {
        let limit = |name| match of(container.and_then(|r| r.limits.as_ref()), name) {
            0 => of(pod.and_then(|r| r.limits.as_ref()), name),
            own => own,
        };
        let request = |name| of(container.and_then(|r| r.requests.as_ref()), name);
        Self {
            memory_limit: limit("memory"),
            memory_request: request("memory"),
            cpu_limit: limit("cpu"),
            cpu_request: request("cpu"),
        }
    }

    /// What the container is to have.
    pub fn wanted(pod: &Pod, container: &Container) -> Self {
        Self::of(
            pod.pod_spec().resources.as_ref(),
            container.resources.as_ref(),
        )
    }

    /// What it was given last, as it was written down; or else as the runtime tells, so that
    /// nothing restarts because a record is missing.
    pub fn last(given: &PodResources, status: &ContainerStatus, wanted: Self) -> Self {
        if let Some(known) = given.containers.get(&status.name) {
            return Self::of(given.pod.as_ref(), Some(known));
        }
        let Some(seen) = &status.resources else {
            return Self::default();
        };
        let or = |seen: i64, close_enough: bool, wanted: i64| match seen {
            _ if close_enough => wanted,
            seen => seen.max(0),
        };
        let shares = crate::cri::limits::cpu_shares(wanted.cpu_request);
        Self {
            memory_limit: seen.memory_limit_in_bytes.max(0),
            memory_request: wanted.memory_request,
            cpu_limit: or(
                quota_to_milli(seen.cpu_quota, seen.cpu_period),
                // The kernel knows no smaller quota.
                wanted.cpu_limit > 0 && wanted.cpu_limit <= 10 && seen.cpu_quota == 1000,
                wanted.cpu_limit,
            ),
            cpu_request: or(
                shares_to_milli(seen.cpu_shares),
                seen.cpu_shares == shares,
                wanted.cpu_request,
            ),
        }
    }
}

/// Whether a running container, or the pod as a whole, has not been given yet what was granted.
pub fn in_progress(granted: &Pod, observed: &PodStatus) -> bool {
    let sidecars = granted.init_containers().iter().filter(|c| is_sidecar(c));
    let behind = |container: &Container| {
        observed
            .newest(&container.name)
            .filter(|status| status.state == State::Running)
            .is_some_and(|status| {
                let wanted = Given::wanted(granted, container);
                wanted != Given::last(&observed.given, status, wanted)
            })
    };
    if sidecars.chain(granted.containers()).any(behind) {
        return true;
    }
    match (&granted.pod_spec().resources, &observed.given.pod) {
        (Some(wanted), Some(given)) => {
            Given::of(None, Some(wanted)) != Given::of(None, Some(given))
        }
        _ => false,
    }
}

/// The pod with the requests that its containers really use, where what they were granted is less:
/// as long as a decrease is not done, nobody else can have the difference.
pub fn in_use(granted: &Pod) -> Option<Pod> {
    let status = granted.status.as_ref()?;
    let statuses = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .flatten();
    let mut used: Option<Pod> = None;
    for status in statuses {
        let lists = [
            status.resources.as_ref().and_then(|r| r.requests.as_ref()),
            status.allocated_resources.as_ref(),
        ];
        for name in ["cpu", "memory"] {
            let spec = used.as_ref().unwrap_or(granted).pod_spec();
            let init = spec.init_containers.iter().flatten();
            let container = spec
                .containers
                .iter()
                .chain(init)
                .find(|c| c.name == status.name);
            let requests = container.and_then(|c| c.resources.as_ref()?.requests.as_ref());
            let own = of(requests, name);
            let Some(most) = lists
                .into_iter()
                .flatten()
                .filter(|list| of(Some(*list), name) > own)
                .find_map(|list| list.get(name).cloned())
            else {
                continue;
            };
            let spec = used
                .get_or_insert_with(|| granted.clone())
                .spec
                .get_or_insert_default();
            let init = spec.init_containers.iter_mut().flatten();
            for container in spec.containers.iter_mut().chain(init) {
                if container.name == status.name {
                    let resources = container.resources.get_or_insert_default();
                    let requests = resources.requests.get_or_insert_default();
                    requests.insert(name.into(), most.clone());
                }
            }
        }
    }
    used
}

/// The text of an event about a resize: what it is, and the resources that it is about.
pub fn message(what: &str, pod: &Pod, generation: Option<i64>, error: &str) -> String {
    #[derive(Serialize)]
    struct One<'a> {
        name: &'a str,
        resources: Lists<'a>,
    }
    #[derive(Serialize)]
    struct Lists<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        limits: Option<&'a ResourceList>,
        #[serde(skip_serializing_if = "Option::is_none")]
        requests: Option<&'a ResourceList>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Summary<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_containers: Vec<One<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        containers: Vec<One<'a>>,
        generation: i64,
        #[serde(skip_serializing_if = "str::is_empty")]
        error: &'a str,
    }
    fn list(of: &[Container]) -> Vec<One<'_>> {
        of.iter()
            .map(|c| One {
                name: &c.name,
                resources: Lists {
                    limits: c.resources.as_ref().and_then(|r| r.limits.as_ref()),
                    requests: c.resources.as_ref().and_then(|r| r.requests.as_ref()),
                },
            })
            .collect()
    }
    let summary = Summary {
        init_containers: list(pod.init_containers()),
        containers: list(pod.containers()),
        generation: generation.unwrap_or_default(),
        error,
    };
    match serde_json::to_string(&summary) {
        Ok(text) => format!("{what}: {text}"),
        Err(_) => what.to_owned(),
    }
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
