//! Requests and limits of a whole pod (KEP-753 for sidecars, KEP-2837 for pod-level ones).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use meta::quantity::Format;

use crate::pods::pod::{PodExt, is_sidecar};

/// Quantities by resource name, as objects carry them.
pub type ResourceList = BTreeMap<String, Quantity>;

/// Amounts by resource name: thousandths of a CPU for `cpu`, whole units for the rest.
pub type Amounts = BTreeMap<String, i64>;

/// The quantity in whole units, rounded up. What cannot be read counts as nothing: the API server
/// has validated it, and a static pod's manifest is checked when it is read.
pub fn value(quantity: &Quantity) -> i64 {
    meta::Quantity::try_from(quantity)
        .map(|q| q.value())
        .unwrap_or_default()
}

/// The quantity in thousandths, rounded up.
pub fn milli_value(quantity: &Quantity) -> i64 {
    meta::Quantity::try_from(quantity)
        .map(|q| q.milli_value())
        .unwrap_or_default()
}

fn amount(name: &str, quantity: &Quantity) -> i64 {
    if name == "cpu" {
        milli_value(quantity)
    } else {
        value(quantity)
    }
}

/// The list's amounts.
pub fn amounts(list: Option<&ResourceList>) -> Amounts {
    list.into_iter()
        .flatten()
        .map(|(name, quantity)| (name.clone(), amount(name, quantity)))
        .collect()
}

/// One resource of one list, in the unit of [`Amounts`]; zero where it is not listed.
pub fn of(list: Option<&ResourceList>, name: &str) -> i64 {
    list.and_then(|list| list.get(name))
        .map(|quantity| amount(name, quantity))
        .unwrap_or_default()
}

pub fn container_requests(container: &Container) -> Option<&ResourceList> {
    container.resources.as_ref()?.requests.as_ref()
}

pub fn container_limits(container: &Container) -> Option<&ResourceList> {
    container.resources.as_ref()?.limits.as_ref()
}

fn pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Whether the pod has resources of its own, which its containers share.
pub fn has_pod_level(pod: &Pod) -> bool {
    let own = pod.pod_spec().resources.iter();
    let lists = own.flat_map(|own| [&own.requests, &own.limits]);
    let mut names = lists.flatten().flat_map(BTreeMap::keys);
    names.any(|name| pod_level(name))
}

/// What the whole pod requests; `overhead` adds the runtime class's.
pub fn pod_requests(pod: &Pod, overhead: bool) -> Amounts {
    let own = pod
        .pod_spec()
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref());
    aggregate(pod, container_requests, own, overhead)
}

/// What the whole pod may use at most, as far as its containers have limits.
pub fn pod_limits(pod: &Pod, overhead: bool) -> Amounts {
    let own = pod
        .pod_spec()
        .resources
        .as_ref()
        .and_then(|r| r.limits.as_ref());
    aggregate(pod, container_limits, own, overhead)
}

fn aggregate(
    pod: &Pod,
    of_container: impl Fn(&Container) -> Option<&ResourceList>,
    own: Option<&ResourceList>,
    overhead: bool,
) -> Amounts {
    let mut total = Amounts::new();
    for container in pod.containers() {
        add(&mut total, &amounts(of_container(container)));
    }
    // Init containers run one at a time, beside the sidecars started before them.
    let mut sidecars = Amounts::new();
    let mut init_peak = Amounts::new();
    for container in pod.init_containers() {
        let mut needed = amounts(of_container(container));
        if is_sidecar(container) {
            add(&mut total, &needed);
            add(&mut sidecars, &needed);
            needed.clone_from(&sidecars);
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut init_peak, &needed);
    }
    raise(&mut total, &init_peak);
    for (name, quantity) in own
        .into_iter()
        .flatten()
        .filter(|(name, _)| pod_level(name))
    {
        total.insert(name.clone(), amount(name, quantity));
    }
    if overhead {
        let overhead = amounts(pod.pod_spec().overhead.as_ref());
        for (name, more) in overhead {
            let sum = total.entry(name).or_default();
            *sum = sum.saturating_add(more);
        }
    }
    total
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let sum = total.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
}

fn raise(total: &mut Amounts, floor: &Amounts) {
    for (name, amount) in floor {
        let entry = total.entry(name.clone()).or_default();
        *entry = (*entry).max(*amount);
    }
}

/// Amounts as an object carries them, in canonical form.
pub fn as_list(amounts: &Amounts) -> ResourceList {
    amounts
        .iter()
        .map(|(name, amount)| (name.clone(), quantity(name, *amount)))
        .collect()
}

/// One amount in canonical form: CPUs in decimal, the rest with binary suffixes.
pub fn quantity(name: &str, amount: i64) -> Quantity {
    let binary = matches!(name, "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    match name {
        "cpu" => meta::Quantity::from_milli(amount, Format::DecimalSI).into(),
        _ if binary => meta::Quantity::new(amount, Format::BinarySI).into(),
        _ => meta::Quantity::new(amount, Format::DecimalSI).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container(cpu: &str, memory: &str) -> serde_json::Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}})
    }

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn sidecars_add_init_containers_peak() {
        let mut sidecar = container("100m", "10Mi");
        sidecar["restartPolicy"] = json!("Always");
        let p = pod(json!({
            "initContainers": [container("3", "1Mi"), sidecar, container("1", "100Mi")],
            "containers": [container("200m", "20Mi"), container("200m", "20Mi")],
            "overhead": {"cpu": "1"},
        }));
        let requests = pod_requests(&p, false);
        assert_eq!(requests["cpu"], 3000);
        assert_eq!(requests["memory"], 110 << 20);
        assert_eq!(pod_requests(&p, true)["cpu"], 4000);
        assert!(pod_limits(&p, false).is_empty());
    }

    #[test]
    fn the_pods_own_requests_win() {
        let p = pod(
            json!({"containers": [container("1", "1Gi")], "resources": {"requests": {"cpu": "5"}}}),
        );
        assert_eq!(
            pod_requests(&p, false),
            Amounts::from([("cpu".into(), 5000), ("memory".into(), 1 << 30)])
        );
    }

    #[test]
    fn canonical_quantities() {
        for (name, amount, want) in [
            ("cpu", 1500, "1500m"),
            ("cpu", 2000, "2"),
            ("memory", 100 << 20, "100Mi"),
            ("memory", 1000, "1k"),
            ("memory", 0, "0"),
            ("pods", 110, "110"),
        ] {
            assert_eq!(quantity(name, amount).0, want);
        }
    }
}
