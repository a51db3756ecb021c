//! What a pod costs: itself, and what it asks for of compute resources until it has ended.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::scopes::Facts;
use super::{Measured, Meta, count};
use crate::resources::{self, Container, Counting, HUGE_PAGES, ResourceList, is_native};

const COUNT: &str = "count/pods";
const REQUESTS: &str = "requests.";
const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

/// The fields of a pod that decide what it costs.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub metadata: Meta,
    pub spec: Spec,
    pub status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub resources: Option<resources::Requirements>,
    pub overhead: ResourceList,
    pub active_deadline_seconds: Option<i64>,
    pub priority_class_name: String,
    pub affinity: Affinity,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Affinity {
    pod_affinity: Terms,
    pod_anti_affinity: Terms,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terms {
    required_during_scheduling_ignored_during_execution: Vec<Term>,
    preferred_during_scheduling_ignored_during_execution: Vec<Weighted>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Weighted {
    pod_affinity_term: Term,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term {
    namespaces: Vec<serde::de::IgnoredAny>,
    namespace_selector: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub phase: String,
    pub qos_class: String,
    pub container_statuses: Vec<resources::ContainerStatus>,
    pub init_container_statuses: Vec<resources::ContainerStatus>,
    pub conditions: Vec<resources::Condition>,
    pub extended_resource_claim_status: Option<ExtendedClaim>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtendedClaim {
    pub resource_claim_name: String,
}

impl Terms {
    fn cross_namespaces(&self) -> bool {
        let required = self
            .required_during_scheduling_ignored_during_execution
            .iter();
        let preferred = self
            .preferred_during_scheduling_ignored_during_execution
            .iter();
        required
            .chain(preferred.map(|w| &w.pod_affinity_term))
            .any(|t| !t.namespaces.is_empty() || t.namespace_selector.is_some())
    }
}

/// Whether pods are counted under a name.
pub(super) fn counts(name: &str) -> bool {
    const NAMES: [&str; 11] = [
        COUNT,
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
    ];
    NAMES.contains(&name)
        || name.starts_with(HUGE_PAGES)
        || name
            .strip_prefix(REQUESTS)
            .is_some_and(|n| n.starts_with(HUGE_PAGES))
        || is_extended_request(name)
}

/// `requests.` of a resource of somebody else's, or of a device class.
pub(super) fn is_extended_request(name: &str) -> bool {
    name.strip_prefix(REQUESTS)
        .is_some_and(|n| !is_native(name) || n.starts_with(DEVICE_CLASS))
}

fn is_extended(name: &str) -> bool {
    if name.starts_with(DEVICE_CLASS) {
        return true;
    }
    !is_native(name)
        && !name.starts_with(REQUESTS)
        && meta::validation::qualified_name(&format!("{REQUESTS}{name}")).is_empty()
}

/// The cost of requests and limits, of a pod or of one container.
fn compute(requests: &ResourceList, limits: &ResourceList) -> ResourceList {
    let mut cost = ResourceList::from([("pods".to_owned(), count(1))]);
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(request) = requests.get(name) {
            cost.insert(name.to_owned(), request.clone());
            cost.insert(format!("{REQUESTS}{name}"), request.clone());
        }
        if let Some(limit) = limits.get(name) {
            cost.insert(format!("limits.{name}"), limit.clone());
        }
    }
    for (name, request) in requests {
        if name.starts_with(HUGE_PAGES) {
            cost.insert(name.clone(), request.clone());
            cost.insert(format!("{REQUESTS}{name}"), request.clone());
        }
        if is_extended(name) {
            cost.insert(format!("{REQUESTS}{name}"), request.clone());
        }
    }
    cost
}

impl Pod {
    fn resources(&self) -> resources::Pod {
        let (spec, status) = (&self.spec, &self.status);
        resources::Pod {
            spec: resources::Spec {
                containers: spec.containers.clone(),
                init_containers: spec.init_containers.clone(),
                resources: spec.resources.clone(),
                overhead: spec.overhead.clone(),
            },
            status: resources::Status {
                container_statuses: status.container_statuses.clone(),
                init_container_statuses: status.init_container_statuses.clone(),
                conditions: status.conditions.clone(),
            },
        }
    }

    fn is_best_effort(&self, resources: &resources::Pod) -> bool {
        match self.status.qos_class.as_str() {
            "" => !resources.asks_for_compute(),
            class => class == "BestEffort",
        }
    }

    /// When it is no longer charged for; `None`: as long as it lives.
    fn ends(&self) -> Option<Timestamp> {
        if matches!(self.status.phase.as_str(), "Failed" | "Succeeded") {
            return Some(Timestamp::MIN);
        }
        // A node that is lost must not keep its pods in the quota for ever.
        let grace = self.metadata.deletion_grace_period_seconds?;
        let deleted = self.metadata.deletion_timestamp?;
        deleted.checked_add(SignedDuration::from_secs(grace)).ok()
    }

    /// The claim that was made for its extended resources.
    pub fn extended_claim(&self) -> Option<&str> {
        let status = self.status.extended_resource_claim_status.as_ref()?;
        Some(&status.resource_claim_name)
    }

    pub fn measure(&self) -> Measured {
        let resources = self.resources();
        let after = ResourceList::from([(COUNT.to_owned(), count(1))]);
        let mut usage = after.clone();
        resources::add(
            &mut usage,
            &compute(
                &resources.requests(Counting::Charged),
                &resources.limits(Counting::Charged),
            ),
        );
        Measured {
            usage,
            after,
            until: self.ends(),
            facts: Facts::Pod {
                terminating: self.spec.active_deadline_seconds.is_some_and(|s| s >= 0),
                best_effort: self.is_best_effort(&resources),
                priority_class: self.spec.priority_class_name.clone(),
                cross_namespaces: self.spec.affinity.pod_affinity.cross_namespaces()
                    || self.spec.affinity.pod_anti_affinity.cross_namespaces(),
            },
        }
    }
}

/// Compute resources that some of the pod's containers do not say, with these containers. A
/// quota on one of them refuses the pod.
pub fn lacks(pod: &Pod) -> BTreeMap<String, BTreeSet<String>> {
    let mut lacking = BTreeMap::<String, BTreeSet<String>>::new();
    if pod.resources().asks_as_a_whole() {
        return lacking;
    }
    for container in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
        let said = compute(&container.resources.requests, &container.resources.limits);
        for name in [
            "cpu",
            "memory",
            "requests.cpu",
            "requests.memory",
            "limits.cpu",
            "limits.memory",
        ] {
            if !said.contains_key(name) {
                let names = lacking.entry(name.to_owned()).or_default();
                names.insert(container.name.clone());
            }
        }
    }
    lacking
}
