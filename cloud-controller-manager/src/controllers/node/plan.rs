//! What a node should say about the machine it runs on. Pure.

use k8s_openapi::api::core::v1::{Node, NodeAddress, Taint};

use crate::provider::Instance;

/// Set by the kubelet under `--cloud-provider=external`; no pod is scheduled until it goes.
pub const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
/// The address that the kubelet was told to use (`--node-ip`); comma-separated for two families.
const PROVIDED_NODE_IP: &str = "alpha.kubernetes.io/provided-node-ip";

/// Old labels and the stable ones that they must equal
/// (`labelReconcileInfo` of upstream's node controller).
const MIRRORED_LABELS: &[(&str, &str)] = &[
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    (
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
    ),
];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    #[error("failed to get node address from cloud provider that matches ip: {0}")]
    NoSuchAddress(String),
}

pub fn is_uninitialized(node: &Node) -> bool {
    taints(node).iter().any(|t| t.key == UNINITIALIZED)
}

fn taints(node: &Node) -> &[Taint] {
    node.spec
        .as_ref()
        .and_then(|s| s.taints.as_deref())
        .unwrap_or_default()
}

/// The node with everything that the cloud knows of it, and without the taint.
pub fn initialized(node: &Node, instance: &Instance) -> Result<Node, PlanError> {
    // A node IP that the cloud does not know keeps the node tainted.
    addresses(node, instance)?;
    let mut node = node.clone();
    let spec = node.spec.get_or_insert_default();
    if spec.provider_id.as_deref().unwrap_or_default().is_empty()
        && !instance.provider_id.is_empty()
    {
        spec.provider_id = Some(instance.provider_id.clone());
    }
    if let Some(taints) = &mut spec.taints {
        taints.retain(|t| t.key != UNINITIALIZED);
        if taints.is_empty() {
            spec.taints = None;
        }
    }
    let labels = node.metadata.labels.get_or_insert_default();
    for (value, names) in [
        (
            &instance.instance_type,
            [
                "beta.kubernetes.io/instance-type",
                "node.kubernetes.io/instance-type",
            ],
        ),
        (
            &instance.zone,
            [
                "failure-domain.beta.kubernetes.io/zone",
                "topology.kubernetes.io/zone",
            ],
        ),
        (
            &instance.region,
            [
                "failure-domain.beta.kubernetes.io/region",
                "topology.kubernetes.io/region",
            ],
        ),
    ] {
        if !value.is_empty() {
            for name in names {
                labels.insert(name.to_owned(), value.clone());
            }
        }
    }
    for (name, value) in &instance.labels {
        // Kubernetes' own names are not a cloud's to give.
        if !is_kubernetes_label(name) {
            labels.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    Ok(node)
}

fn is_kubernetes_label(name: &str) -> bool {
    name.split_once('/').is_some_and(|(prefix, _)| {
        ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|own| prefix == *own || prefix.strip_suffix(own).is_some_and(|p| p.ends_with('.')))
    })
}

/// The addresses that the node's status should have; `None` when it has them, or when
/// the cloud knows none.
pub fn addresses(node: &Node, instance: &Instance) -> Result<Option<Vec<NodeAddress>>, PlanError> {
    if instance.addresses.is_empty() {
        return Ok(None);
    }
    let status = node.status.as_ref();
    let present = status
        .and_then(|s| s.addresses.as_deref())
        .unwrap_or_default();
    let mut wanted: Vec<NodeAddress> = instance
        .addresses
        .iter()
        .map(|(type_, address)| NodeAddress {
            type_: type_.clone(),
            address: address.clone(),
        })
        .collect();
    if !wanted.iter().any(|a| a.type_ == "Hostname") {
        wanted.extend(present.iter().filter(|a| a.type_ == "Hostname").cloned());
    }
    let annotations = node.metadata.annotations.as_ref();
    if let Some(provided) = annotations.and_then(|a| a.get(PROVIDED_NODE_IP)) {
        for ip in provided.split(',').rev() {
            prefer(&mut wanted, ip.trim())?;
        }
    }
    Ok((wanted != present).then_some(wanted))
}

/// Puts the address of that IP before the others of its type and drops those of the
/// same type and family that are not it.
fn prefer(addresses: &mut Vec<NodeAddress>, ip: &str) -> Result<(), PlanError> {
    let Some(chosen) = addresses.iter().find(|a| a.address == ip).cloned() else {
        return Err(PlanError::NoSuchAddress(ip.to_owned()));
    };
    let six = ip.contains(':');
    let is_ip = |a: &NodeAddress| matches!(a.type_.as_str(), "InternalIP" | "ExternalIP");
    addresses.retain(|a| !(a.type_ == chosen.type_ && is_ip(a) && a.address.contains(':') == six));
    addresses.insert(0, chosen);
    Ok(())
}

/// The labels whose old and new names have drifted apart, with the values to set.
pub fn label_repairs(node: &Node) -> Vec<(&'static str, String)> {
    let labels = node.metadata.labels.as_ref();
    let value = |name: &str| labels.and_then(|l| l.get(name));
    MIRRORED_LABELS
        .iter()
        .filter_map(|(old, stable)| {
            let right = value(stable)?;
            (value(old) != Some(right)).then(|| (*old, right.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(extra: Value) -> Node {
        let mut node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "node1", "labels": {"kubernetes.io/os": "linux"}},
            "spec": {"taints": [
                {"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"},
                {"key": "own", "effect": "NoSchedule"},
            ]},
            "status": {"addresses": [{"type": "Hostname", "address": "node1"}]},
        });
        for (key, value) in extra.as_object().unwrap() {
            node["metadata"][key] = value.clone();
        }
        serde_json::from_value(node).unwrap()
    }

    fn instance() -> Instance {
        Instance {
            provider_id: "baremetal://node1".into(),
            zone: "a".into(),
            addresses: vec![
                ("InternalIP".into(), "192.0.2.1".into()),
                ("InternalIP".into(), "192.0.2.2".into()),
            ],
            labels: [
                ("rack".to_owned(), "7".to_owned()),
                ("x.k8s.io/y".to_owned(), "no".to_owned()),
            ]
            .into(),
            ..Instance::default()
        }
    }

    #[test]
    fn a_node_is_initialized() {
        let node = initialized(&node(json!({})), &instance()).unwrap();
        let spec = node.spec.unwrap();
        assert_eq!(spec.provider_id.as_deref(), Some("baremetal://node1"));
        let taints: Vec<_> = spec.taints.unwrap().into_iter().map(|t| t.key).collect();
        assert_eq!(taints, ["own"]);
        let labels = node.metadata.labels.unwrap();
        assert_eq!(labels["topology.kubernetes.io/zone"], "a");
        assert_eq!(labels["failure-domain.beta.kubernetes.io/zone"], "a");
        assert_eq!(labels["rack"], "7");
        assert!(!labels.contains_key("x.k8s.io/y"));
    }

    #[test]
    fn the_provided_node_ip_comes_first_and_alone() {
        let node = node(json!({"annotations": {PROVIDED_NODE_IP: "192.0.2.2"}}));
        let found = addresses(&node, &instance()).unwrap().unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|a| (a.type_.as_str(), a.address.as_str()))
            .collect();
        assert_eq!(found, [("InternalIP", "192.0.2.2"), ("Hostname", "node1")]);
    }

    #[test]
    fn an_unknown_node_ip_keeps_the_taint() {
        let node = node(json!({"annotations": {PROVIDED_NODE_IP: "198.51.100.1"}}));
        let error = PlanError::NoSuchAddress("198.51.100.1".into());
        assert_eq!(initialized(&node, &instance()), Err(error));
    }

    #[test]
    fn old_labels_follow_the_stable_ones() {
        assert_eq!(
            label_repairs(&node(json!({}))),
            [("beta.kubernetes.io/os", "linux".to_owned())]
        );
    }
}
