//! What is reserved for the system: CPUs, memory of NUMA nodes, amounts of resources.

use std::collections::{BTreeMap, HashSet};

use meta::Quantity;
use meta::gofmt::Quoted;
use serde_json::{Value, json};

use super::{Context, Errors};
use crate::cpus::CpuSet;

pub fn judge(context: &Context<'_>, errors: &mut Errors) {
    let c = context.config;
    let cpus = &c.reserved_system_cpus;
    if !cpus.is_empty() {
        errors.wrong_if(
            !c.system_reserved_cgroup.is_empty() || !c.kube_reserved_cgroup.is_empty(),
            "can't use reservedSystemCPUs (--reserved-cpus) with systemReservedCgroup (--system-reserved-cgroup) or \
             kubeReservedCgroup (--kube-reserved-cgroup)",
        );
        if let Err(error) = cpus.parse::<CpuSet>() {
            errors.wrong(format!(
                "unable to parse reservedSystemCPUs (--reserved-cpus) {cpus}, error: {error}"
            ));
        }
    }
    let mut seen = HashSet::new();
    for reservation in &c.reserved_memory {
        let node = reservation.numa_node;
        for (kind, amount) in &reservation.limits {
            let quoted = Quoted(kind);
            errors.wrong_if(
                !is_memory(kind),
                format!(
                    "the limit type {quoted} for NUMA node {node} is not supported, only [memory \
                     hugepages-<HugePageSize>] is accepted"
                ),
            );
            let amount = Quantity::try_from(amount).unwrap_or_default();
            errors.wrong_if(
                amount.value() == 0,
                format!(
                    "reserved memory may not be zero for NUMA node {node} and resource {quoted}"
                ),
            );
            errors.wrong_if(
                !seen.insert((node, kind)),
                format!(
                    "the reserved memory has a duplicate value for NUMA node {node} and resource {quoted}"
                ),
            );
        }
    }
}

fn is_memory(kind: &str) -> bool {
    kind == "memory" || kind.starts_with("hugepages-")
}

/// `systemReserved` and `kubeReserved`: amounts of what can be reserved.
///
/// # Errors
/// For another resource, and for what is no amount.
pub fn resource_list(reserved: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, amount) in reserved {
        let quoted = Quoted(name);
        if !matches!(
            name.as_str(),
            "cpu" | "memory" | "ephemeral-storage" | "pid"
        ) {
            return Err(format!("cannot reserve {quoted} resource"));
        }
        let parsed = amount.parse::<Quantity>().map_err(|error| {
            let amount = Quoted(amount);
            format!("failed to parse quantity {amount} for {quoted} resource: {error}")
        })?;
        if parsed < Quantity::default() {
            return Err(format!(
                "resource quantity for {quoted} cannot be negative: {amount}"
            ));
        }
    }
    Ok(())
}

/// `--reserved-memory`: `0:memory=1Gi,hugepages-2Mi=1Gi;1:memory=2Gi`.
///
/// # Errors
/// When it is written otherwise.
pub fn reserved_memory(text: &str) -> Result<Vec<Value>, String> {
    let one = |reservation: &str| {
        let format = || {
            format!(
                "the reserved memory has incorrect format, expected numaNodeID:type=quantity[,type=quantity...], got {reservation}"
            )
        };
        let (node, limits) = reservation.split_once(':').ok_or_else(format)?;
        let node: u32 = node.parse().map_err(|_| {
            format!("failed to convert the NUMA node ID, expected integer, got {node}")
        })?;
        let mut list = serde_json::Map::new();
        for limit in limits.split(',') {
            let (kind, amount) = limit.split_once('=').ok_or_else(|| {
                format!(
                    "the reserved limit has incorrect value, expected type=quantity, got {limit}"
                )
            })?;
            if !is_memory(kind) {
                return Err(format!(
                    "memory type conversion error, unknown type: {kind:?}"
                ));
            }
            if amount.parse::<Quantity>().is_err() {
                return Err(format!("failed to parse the quantity: {amount}"));
            }
            list.insert(kind.to_owned(), json!(amount));
        }
        Ok(json!({"numaNode": node, "limits": list}))
    };
    let all = text.split(';').filter(|_| !text.is_empty());
    all.map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        let judge = |name: &str, amount: &str| {
            let list = BTreeMap::from([(name.to_owned(), amount.to_owned())]);
            resource_list(&list).err().unwrap_or_default()
        };
        assert_eq!(judge("pid", "100"), "");
        assert_eq!(judge("foo", "1"), "cannot reserve \"foo\" resource");
        assert!(
            judge("cpu", "abc")
                .starts_with("failed to parse quantity \"abc\" for \"cpu\" resource: ")
        );
        assert_eq!(
            judge("memory", "-1Gi"),
            "resource quantity for \"memory\" cannot be negative: -1Gi"
        );
    }

    #[test]
    fn the_flag() {
        let limits = json!({"memory": "1Gi", "hugepages-2Mi": "2Mi"});
        assert_eq!(
            reserved_memory("1:memory=1Gi,hugepages-2Mi=2Mi").unwrap(),
            [json!({"numaNode": 1, "limits": limits})]
        );
        assert!(reserved_memory("").unwrap().is_empty());
        for wrong in ["1", "a:memory=1Gi", "1:memory", "1:cpu=1", "1:memory=x"] {
            assert!(reserved_memory(wrong).is_err(), "{wrong}");
        }
    }
}
