//! What NodeResourcesFit and NodeResourcesBalancedAllocation have in common: the resources
//! that they score by, and how much of them there is.

use crate::cache::Resources;

/// `ResourceSpec`: a resource and its weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighted {
    pub name: String,
    pub weight: i64,
}

pub fn cpu_and_memory() -> Vec<Weighted> {
    ["cpu", "memory"]
        .map(|name| Weighted {
            name: name.to_owned(),
            weight: 1,
        })
        .to_vec()
}

pub fn amount(of: &Resources, name: &str) -> i64 {
    match name {
        "cpu" => of.milli_cpu,
        "memory" => of.memory,
        "ephemeral-storage" => of.ephemeral_storage,
        name => of.scalar(name),
    }
}

/// Whether it is a resource of nodes that few pods ask for.
pub fn is_scalar(name: &str) -> bool {
    !matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

/// Of one resource of one node: what pods have taken, and all there is. `None` when it does
/// not count: the node has none of it, or the pod wants none of what few want.
pub fn taken_and_all(
    name: &str,
    wanted: i64,
    taken: &Resources,
    allocatable: &Resources,
) -> Option<(i64, i64)> {
    if wanted == 0 && is_scalar(name) {
        return None;
    }
    let all = amount(allocatable, name);
    (all != 0).then(|| (amount(taken, name), all))
}
