//! What the configuration says about devices, CPUs and memory: whether it makes sense.

use std::collections::HashSet;

use meta::Quantity;
use serde_json::{Value, json};

use crate::config::KubeletConfiguration;
use crate::cpus::CpuSet;
use crate::topology::Policy;

fn is_memory(kind: &str) -> bool {
    kind == "memory" || kind.starts_with("hugepages-")
}

/// # Errors
/// When it does not.
pub fn resources(c: &KubeletConfiguration) -> Result<(), String> {
    let wrong = |why: String| Err(format!("invalid configuration: {why}"));
    if Policy::parse(&c.topology_manager_policy).is_none() {
        return wrong(format!(
            "topologyManagerPolicy (--topology-manager-policy) {:?} must be one of: [\"none\" \"best-effort\" \
             \"restricted\" \"single-numa-node\"]",
            c.topology_manager_policy
        ));
    }
    if !matches!(c.topology_manager_scope.as_str(), "container" | "pod") {
        return wrong(format!(
            "topologyManagerScope (--topology-manager-scope) {:?} must be one of: \"container\", or \"pod\"",
            c.topology_manager_scope
        ));
    }
    if let Err(error) = c.reserved_system_cpus.parse::<CpuSet>() {
        return wrong(format!(
            "unable to parse reservedSystemCPUs (--reserved-cpus) {}, error: {error}",
            c.reserved_system_cpus
        ));
    }
    let mut seen = HashSet::new();
    for reservation in &c.reserved_memory {
        let node = reservation.numa_node;
        for (kind, amount) in &reservation.limits {
            if !is_memory(kind) {
                return wrong(format!(
                    "the limit type {kind:?} for NUMA node {node} is not supported, only [memory \
                     hugepages-<HugePageSize>] is accepted"
                ));
            }
            let amount = Quantity::try_from(amount).unwrap_or_default();
            if amount.value() == 0 {
                return wrong(format!(
                    "reserved memory may not be zero for NUMA node {node} and resource {kind:?}"
                ));
            }
            if !seen.insert((node, kind)) {
                return wrong(format!(
                    "the reserved memory has a duplicate value for NUMA node {node} and resource {kind:?}"
                ));
            }
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
    fn what_makes_sense() {
        let judge = |config: Value| {
            let config = serde_json::from_value::<KubeletConfiguration>(config).unwrap();
            resources(&config.complete()).err().unwrap_or_default()
        };
        let reserved = |text: &str| json!({"reservedMemory": reserved_memory(text).unwrap()});
        for (config, why) in [
            (json!({}), ""),
            (
                json!({"topologyManagerPolicy": "", "topologyManagerScope": ""}),
                "",
            ),
            (
                json!({"topologyManagerPolicy": "x"}),
                "topologyManagerPolicy",
            ),
            (
                json!({"topologyManagerScope": "node"}),
                "topologyManagerScope",
            ),
            (
                json!({"reservedSystemCPUs": "0-a"}),
                "unable to parse reservedSystemCPUs",
            ),
            (reserved("0:memory=1Gi,hugepages-2Mi=4Mi;1:memory=1Gi"), ""),
            (reserved("0:memory=0"), "may not be zero"),
            (reserved("0:memory=1Gi;0:memory=1Gi"), "duplicate value"),
        ] {
            let error = judge(config);
            assert!(
                error.contains(why) && error.is_empty() == why.is_empty(),
                "{error}"
            );
        }
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
