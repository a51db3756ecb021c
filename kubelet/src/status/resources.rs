//! What a status says of resources: what containers and pods have, beside what they were granted
//! (KEP-1287, KEP-2837). Pure.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};

use crate::cgroups::Limits;
use crate::cri::limits::{quota_to_milli, shares_to_milli};
use crate::cri::observed::{ContainerStatus as Observed, State};
use crate::pods::pod::PodExt;
use crate::resources::requests::{ResourceList, as_list, of, pod_limits, pod_requests, quantity};

/// The kernel knows no smaller limit (thousandths of a CPU): below it, what was asked for is shown.
const LEAST_LIMIT: i64 = 10;
/// Nor a smaller request.
const LEAST_REQUEST: i64 = 2;

/// What a running container has, as far as the runtime tells; else what it was given or shown
/// with. Of one that does not run, what it was granted.
pub fn of_container(
    spec: &Container,
    seen: &Observed,
    given: Option<&ResourceRequirements>,
    old: Option<&ContainerStatus>,
    id: &str,
) -> ResourceRequirements {
    let mut resources = spec.resources.clone().unwrap_or_default();
    if seen.state != State::Running {
        return resources;
    }
    let told = |amount: i64| (amount > 0).then_some(amount);
    let mut limit = [None, None];
    let mut cpu_request = None;
    if let Some(actual) = &seen.resources {
        let quota = quota_to_milli(actual.cpu_quota, actual.cpu_period);
        limit = [told(quota), told(actual.memory_limit_in_bytes)];
        cpu_request = told(actual.cpu_shares).map(shares_to_milli);
    }
    if let Some(given) = given.filter(|_| limit == [None, None] && cpu_request.is_none()) {
        let amount = |name| told(of(given.limits.as_ref(), name));
        limit = [amount("cpu"), amount("memory")];
        cpu_request = told(of(given.requests.as_ref(), "cpu"));
    }
    let memory_request = given.and_then(|given| told(of(given.requests.as_ref(), "memory")));
    let shown = old
        .filter(|old| old.container_id.as_deref() == Some(id))
        .filter(|old| {
            let state = old.state.as_ref();
            state.is_some_and(|state| state.running.is_some())
        })
        .and_then(|old| old.resources.as_ref());
    if let Some(limits) = &mut resources.limits {
        let shown = shown.and_then(|shown| shown.limits.as_ref());
        put(limits, "cpu", limit[0], LEAST_LIMIT, shown);
        put(limits, "memory", limit[1], 0, shown);
    }
    if let Some(requests) = &mut resources.requests {
        let shown = shown.and_then(|shown| shown.requests.as_ref());
        put(requests, "cpu", cpu_request, LEAST_REQUEST, shown);
        put(requests, "memory", memory_request, 0, shown);
    }
    resources
}

/// Replaces one amount by what it is in truth, or was shown to be.
fn put(
    list: &mut ResourceList,
    name: &str,
    actual: Option<i64>,
    least: i64,
    shown: Option<&ResourceList>,
) {
    match actual {
        Some(actual) if actual > least || of(Some(list), name) > least => {
            // What is the same is written as it was asked for.
            if of(Some(list), name) != actual {
                list.insert(name.into(), quantity(name, actual));
            }
        }
        Some(_) => {}
        None => {
            if let Some(shown) = shown.and_then(|shown| shown.get(name)) {
                list.insert(name.into(), shown.clone());
            }
        }
    }
}

/// What the pod as a whole was granted.
pub fn allocated(pod: &Pod) -> Option<ResourceList> {
    some(as_list(&pod_requests(pod, true)))
}

/// What the pod as a whole has: of one that runs, what its group says.
pub fn of_pod(pod: &Pod, group: Option<&Limits>) -> ResourceRequirements {
    let own = pod.pod_spec().resources.clone().unwrap_or_default();
    let Some(group) = group else {
        return ResourceRequirements {
            requests: some(as_list(&pod_requests(pod, true))),
            limits: some(as_list(&pod_limits(pod, true))),
            claims: own.claims,
        };
    };
    let mut requests = own.requests.unwrap_or_default();
    let mut limits = own.limits.unwrap_or_default();
    let shares = group.cpu_shares.filter(|shares| *shares > 0);
    match shares.map(shares_to_milli) {
        Some(milli) => put(&mut requests, "cpu", Some(milli), LEAST_REQUEST, None),
        None => fill(&mut requests, "cpu", &as_list(&pod_requests(pod, true))),
    }
    let all = as_list(&pod_requests(pod, true));
    fill(&mut requests, "memory", &all);
    let (quota, period) = group.cpu_quota.unwrap_or((-1, 0));
    let quota = quota_to_milli(quota, period);
    let positive = |amount: i64| (amount > 0).then_some(amount);
    put(&mut limits, "cpu", positive(quota), LEAST_LIMIT, None);
    let memory = group.memory.and_then(positive);
    put(&mut limits, "memory", memory, 0, None);
    ResourceRequirements {
        requests: some(requests),
        limits: some(limits),
        claims: own.claims,
    }
}

fn fill(list: &mut ResourceList, name: &str, from: &ResourceList) {
    if let (false, Some(quantity)) = (list.contains_key(name), from.get(name)) {
        list.insert(name.to_owned(), quantity.clone());
    }
}

fn some(list: ResourceList) -> Option<ResourceList> {
    (!list.is_empty()).then_some(list)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_resources() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "200m"}}},
        ]}}))
        .unwrap();
        let granted = of_pod(&pod, None);
        assert_eq!(granted.requests.as_ref(), allocated(&pod).as_ref());
        // Being resized, it has less than it was granted.
        let group = Limits {
            cpu_shares: Some(51),
            cpu_quota: Some((10_000, 100_000)),
            memory: Some(-1),
            pids: None,
        };
        let has = serde_json::to_value(of_pod(&pod, Some(&group))).unwrap();
        assert_eq!(
            has,
            json!({"requests": {"cpu": "50m", "memory": "1Gi"}, "limits": {"cpu": "100m"}})
        );
    }

    #[test]
    fn a_containers_resources() {
        let spec: Container = serde_json::from_value(json!({"name": "c", "resources": {
            "requests": {"cpu": "200m", "memory": "64Mi"}, "limits": {"cpu": "0.2", "memory": "128Mi"}}}))
        .unwrap();
        let linux = grpc::cri::LinuxContainerResources {
            cpu_shares: 102,
            cpu_quota: 20_000,
            cpu_period: 100_000,
            memory_limit_in_bytes: 64 << 20,
            ..Default::default()
        };
        let status = grpc::cri::ContainerStatus {
            state: grpc::cri::ContainerState::ContainerRunning.into(),
            resources: Some(grpc::cri::ContainerResources { linux: Some(linux) }),
            ..Default::default()
        };
        let mut seen = crate::cri::observed::container_status(status, None);
        let given: ResourceRequirements =
            serde_json::from_value(json!({"requests": {"memory": "32Mi"}})).unwrap();
        let of = |seen: &Observed| {
            serde_json::to_value(of_container(&spec, seen, Some(&given), None, "id")).unwrap()
        };
        assert_eq!(
            of(&seen),
            json!({"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "0.2", "memory": "64Mi"}})
        );
        seen.state = State::Exited;
        assert_eq!(
            of(&seen),
            serde_json::to_value(&spec.resources).unwrap(),
            "it will be started with what it was granted"
        );
    }
}
