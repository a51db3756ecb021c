//! Where a pod's devices could be had, for the topology manager. Pure.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::choose::Ids;
use super::inventory::{Device, Inventory};
use crate::pods::pod::PodExt;
use crate::resources::requests::pod_limits;
use crate::topology::{Hint, Hints, Mask};

/// Of one container. `nodes` are the machine's.
pub fn of_container(
    inventory: &Inventory,
    nodes: &[u32],
    pod: &Pod,
    container: &Container,
) -> Hints {
    let has = |resource: &str| {
        let has = inventory.of_container(pod.uid(), &container.name);
        let has = has.and_then(|resources| resources.get(resource));
        has.map(|allocated| allocated.ids()).unwrap_or_default()
    };
    let asked = inventory.asked(container);
    hints(inventory, nodes, asked, has, |resource| {
        inventory.reusable(pod.uid(), resource)
    })
}

/// Of the pod as a whole.
pub fn of_pod(inventory: &Inventory, nodes: &[u32], pod: &Pod) -> Hints {
    let has = |resource: &str| inventory.of_pod(pod.uid(), resource);
    let asked = inventory.only_ours(pod_limits(pod, false));
    hints(inventory, nodes, asked, has, |_| Ids::new())
}

fn hints(
    inventory: &Inventory,
    nodes: &[u32],
    asked: Vec<(String, usize)>,
    has: impl Fn(&str) -> Ids,
    reusable: impl Fn(&str) -> Ids,
) -> Hints {
    let of = |resource: &str, size: usize| -> Option<Vec<Hint>> {
        let devices = inventory.devices(resource)?;
        let nodes = nodes_with(devices, nodes)?;
        let has = has(resource);
        let (available, reusable) = match has.is_empty() {
            true => (inventory.available(resource), reusable(resource)),
            // It keeps what it has.
            false if has.len() == size => (has, Ids::new()),
            false => return Some(Vec::new()),
        };
        let at_hand = available.union(&reusable).count();
        if at_hand < size {
            return Some(Vec::new());
        }
        let is_near = |id: &String, mask: Mask| {
            let device = devices.get(id);
            device.is_some_and(|device| near(device, mask))
        };
        let mut narrowest = nodes.len();
        let mut hints: Vec<Mask> = Vec::new();
        for mask in Mask::subsets(&nodes) {
            let in_mask = devices.values().filter(|device| near(device, mask));
            if in_mask.count() >= size {
                narrowest = narrowest.min(mask.count());
            }
            let placed = |id: &&String| devices.get(*id).is_some_and(|d| !d.nodes.is_empty());
            let reused: Vec<&String> = reusable.iter().filter(placed).collect();
            if !reused.iter().all(|id| is_near(id, mask)) {
                continue;
            }
            let free = available.iter().filter(|id| is_near(id, mask)).count();
            if reused.len() + free >= size {
                hints.push(mask);
            }
        }
        let hints = hints.into_iter().map(|mask| Hint {
            affinity: Some(mask),
            preferred: mask.count() == narrowest,
        });
        Some(hints.collect())
    };
    asked
        .into_iter()
        .map(|(resource, size)| {
            let hints = of(&resource, size);
            (resource, hints)
        })
        .collect()
}

fn near(device: &Device, mask: Mask) -> bool {
    let near = |node: &i64| u32::try_from(*node).is_ok_and(|node| mask.contains(node));
    device.nodes.iter().any(near)
}

/// The machine's nodes that devices are near to. `None` where no device says where it is: then it
/// does not matter. All, where they name nodes that there are not.
fn nodes_with(
    devices: &std::collections::BTreeMap<String, Device>,
    all: &[u32],
) -> Option<Vec<u32>> {
    if devices.values().all(|device| device.nodes.is_empty()) {
        return None;
    }
    let with = |node: &&u32| {
        devices
            .values()
            .any(|device| near(device, Mask::of([**node])))
    };
    let with: Vec<u32> = all.iter().filter(with).copied().collect();
    Some(if with.is_empty() { all.to_vec() } else { with })
}
