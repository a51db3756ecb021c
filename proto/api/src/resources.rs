//! Resource lists (`cpu`, `memory`, `example.com/gpu` …) and what a pod asks for in all.
//!
//! Quotas and limit ranges count with these. What must not be here: what a node has left
//! (the scheduler's own columns).

use std::collections::BTreeMap;

use meta::Quantity;
use serde::Deserialize;
use serde_json::Value;

/// Amounts by the resource's name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// Reads a resource list of a tree. What is no quantity is left out: validation names it.
pub fn resource_list(value: &Value) -> ResourceList {
    let entries = value.as_object().into_iter().flatten();
    entries
        .filter_map(|(name, v)| Some((name.clone(), Quantity::deserialize(v).ok()?)))
        .collect()
}

/// Adds each amount to the one of the same name.
pub fn add(sum: &mut ResourceList, more: &ResourceList) {
    for (name, quantity) in more {
        match sum.get_mut(name) {
            Some(present) => present.add(quantity),
            None => {
                sum.insert(name.clone(), quantity.clone());
            }
        }
    }
}

/// Raises each amount to the one of the same name.
pub fn raise(floor: &mut ResourceList, more: &ResourceList) {
    for (name, quantity) in more {
        if floor.get(name).is_none_or(|present| quantity > present) {
            floor.insert(name.clone(), quantity.clone());
        }
    }
}

/// `requests` and `limits`, of a container or a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Requirements {
    pub requests: ResourceList,
    pub limits: ResourceList,
}

/// The fields of a pod that say what it asks for, and what it has been given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub spec: Spec,
    pub status: Status,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub resources: Option<Requirements>,
    pub overhead: ResourceList,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    pub restart_policy: String,
    pub resources: Requirements,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub container_statuses: Vec<ContainerStatus>,
    pub init_container_statuses: Vec<ContainerStatus>,
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub resources: Option<Requirements>,
    pub allocated_resources: ResourceList,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    pub reason: String,
}

/// What is counted of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// What it asks for: its containers, in the light of what it may ask for as a whole.
    Asked,
    /// What it is charged for: while a resize is under way the larger of what is asked for
    /// and what it holds, and the overhead of its runtime.
    Charged,
}

/// Whether a pod may ask for this resource as a whole (`spec.resources`).
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE_PAGES)
}

pub const HUGE_PAGES: &str = "hugepages-";

/// A resource that Kubernetes itself knows, unlike `example.com/gpu`.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

impl Pod {
    /// Whether the pod asks for anything as a whole.
    pub fn asks_as_a_whole(&self) -> bool {
        let whole = self.spec.resources.iter();
        whole
            .flat_map(|r| r.requests.keys().chain(r.limits.keys()))
            .any(|name| is_pod_level(name))
    }

    /// Whether anything at all is asked for of cpu and memory: otherwise its quality of service
    /// is BestEffort.
    pub fn asks_for_compute(&self) -> bool {
        let asks = |r: &Requirements| {
            let all = r.requests.iter().chain(&r.limits);
            all.filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory"))
                .any(|(_, quantity)| quantity.sign() > 0)
        };
        match &self.spec.resources {
            Some(whole) => asks(whole),
            None => {
                let all = self.spec.containers.iter();
                all.chain(&self.spec.init_containers)
                    .any(|c| asks(&c.resources))
            }
        }
    }

    /// The sum of its requests (KEP-753 says how init containers count).
    pub fn requests(&self, counting: Counting) -> ResourceList {
        let mut sum = self.aggregate(|c| match self.held(c, counting) {
            None => c.resources.requests.clone(),
            Some(status) => self.effective_requests(c, status),
        });
        if let Some(whole) = &self.spec.resources {
            cover(&mut sum, &whole.requests, counting);
        }
        if counting == Counting::Charged {
            add(&mut sum, &self.spec.overhead);
        }
        sum
    }

    /// The sum of its limits.
    pub fn limits(&self, counting: Counting) -> ResourceList {
        let mut sum = self.aggregate(|c| match self.held(c, counting) {
            None => c.resources.limits.clone(),
            Some(status) => self.effective_limits(c, status),
        });
        if let Some(whole) = &self.spec.resources {
            cover(&mut sum, &whole.limits, counting);
        }
        if counting == Counting::Charged {
            for (name, overhead) in &self.spec.overhead {
                if let Some(limit) = sum.get_mut(name).filter(|limit| !limit.is_zero()) {
                    limit.add(overhead);
                }
            }
        }
        sum
    }

    /// What the node says that a container holds, where that counts.
    fn held(&self, container: &Container, counting: Counting) -> Option<&ContainerStatus> {
        if counting == Counting::Asked {
            return None;
        }
        let is = |s: &&ContainerStatus| s.name == container.name;
        // Of init containers only sidecars can be resized.
        let found = match self.status.container_statuses.iter().find(is) {
            None if container.restart_policy == "Always" => {
                self.status.init_container_statuses.iter().find(is)
            }
            found => found,
        };
        found.filter(|s| s.resources.is_some())
    }

    /// The node has said that it will never be able to do the resize.
    fn is_infeasible(&self) -> bool {
        let mut conditions = self.status.conditions.iter();
        conditions
            .find(|c| c.type_ == "PodResizePending")
            .is_some_and(|c| c.reason == "Infeasible")
    }

    fn effective_requests(&self, container: &Container, status: &ContainerStatus) -> ResourceList {
        let mut most = ResourceList::new();
        if !self.is_infeasible() {
            raise(&mut most, &container.resources.requests);
        }
        if let Some(actual) = &status.resources {
            raise(&mut most, &actual.requests);
        }
        raise(&mut most, &status.allocated_resources);
        most
    }

    fn effective_limits(&self, container: &Container, status: &ContainerStatus) -> ResourceList {
        let mut most = ResourceList::new();
        if !self.is_infeasible() {
            raise(&mut most, &container.resources.limits);
        }
        if let Some(actual) = &status.resources {
            raise(&mut most, &actual.limits);
        }
        most
    }

    /// Containers run beside each other; init containers one after the other, before them, and
    /// beside the sidecars that were started until then.
    fn aggregate(&self, of: impl Fn(&Container) -> ResourceList) -> ResourceList {
        let mut running = ResourceList::new();
        for container in &self.spec.containers {
            add(&mut running, &of(container));
        }
        let (mut sidecars, mut starting) = (ResourceList::new(), ResourceList::new());
        for container in &self.spec.init_containers {
            if container.restart_policy == "Always" {
                let own = of(container);
                add(&mut running, &own);
                add(&mut sidecars, &own);
                raise(&mut starting, &sidecars);
            } else {
                let mut own = of(container);
                add(&mut own, &sidecars);
                raise(&mut starting, &own);
            }
        }
        raise(&mut running, &starting);
        running
    }
}

/// What the pod asks for as a whole stands for the sum of its containers.
fn cover(sum: &mut ResourceList, whole: &ResourceList, counting: Counting) {
    for (name, quantity) in whole {
        // Limit ranges do not know of huge pages here.
        let counts = match counting {
            Counting::Asked => matches!(name.as_str(), "cpu" | "memory"),
            Counting::Charged => is_pod_level(name),
        };
        if counts {
            sum.insert(name.clone(), quantity.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: Value) -> Pod {
        Pod::deserialize(&value).unwrap()
    }

    fn text(list: &ResourceList) -> String {
        let all: Vec<String> = list.iter().map(|(k, v)| format!("{k}={v}")).collect();
        all.join(",")
    }

    fn container(cpu: &str, restart: Option<&str>) -> Value {
        json!({"name": format!("c{cpu}"), "restartPolicy": restart.unwrap_or(""),
               "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    #[test]
    fn init_containers_and_sidecars() {
        let p = pod(json!({"spec": {
            "containers": [container("1", None), container("500m", None)],
            "initContainers": [container("1", Some("Always")), container("2", None)],
        }}));
        // 1 + 2 while starting, 1 + 1.5 when running.
        assert_eq!(text(&p.requests(Counting::Asked)), "cpu=3");
        let p = pod(json!({"spec": {
            "containers": [container("4", None)],
            "initContainers": [container("2", None), container("1", Some("Always"))],
        }}));
        assert_eq!(text(&p.limits(Counting::Asked)), "cpu=5");
    }

    #[test]
    fn the_whole_pod_and_its_overhead() {
        let p = pod(json!({"spec": {
            "containers": [container("1", None)],
            "resources": {"requests": {"cpu": "3", "hugepages-2Mi": "4Mi"}, "limits": {"memory": "1Gi"}},
            "overhead": {"cpu": "250m", "memory": "10Mi"},
        }}));
        assert_eq!(text(&p.requests(Counting::Asked)), "cpu=3");
        assert_eq!(
            text(&p.requests(Counting::Charged)),
            "cpu=3250m,hugepages-2Mi=4Mi,memory=10Mi"
        );
        assert_eq!(
            text(&p.limits(Counting::Charged)),
            "cpu=1250m,memory=1034Mi"
        );
        assert!(p.asks_as_a_whole());
    }

    #[test]
    fn a_resize_is_charged_for_the_larger_amount() {
        let mut value = json!({
            "spec": {"containers": [container("2", None)]},
            "status": {"containerStatuses": [{
                "name": "c2",
                "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "4"}},
                "allocatedResources": {"cpu": "1500m"},
            }]},
        });
        let p = pod(value.clone());
        assert_eq!(text(&p.requests(Counting::Charged)), "cpu=2");
        assert_eq!(text(&p.limits(Counting::Charged)), "cpu=4");
        assert_eq!(text(&p.limits(Counting::Asked)), "cpu=2");
        value["status"]["conditions"] =
            json!([{"type": "PodResizePending", "reason": "Infeasible"}]);
        let p = pod(value);
        assert_eq!(text(&p.requests(Counting::Charged)), "cpu=1500m");
    }
}
