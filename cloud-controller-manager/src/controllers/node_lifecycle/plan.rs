//! What becomes of a node whose machine may be gone. Pure.

use k8s_openapi::api::core::v1::Node;

use crate::provider::Instance;

/// On a node whose machine is switched off.
pub const SHUTDOWN: &str = "node.cloudprovider.kubernetes.io/shutdown";

#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Nothing,
    /// The machine is gone for good.
    Delete,
    AddShutdownTaint,
    RemoveShutdownTaint,
}

pub fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// A ready node needs no question to the cloud: `instance` is `None` then, and
/// `Some(None)` when the cloud has no such machine.
pub fn action(node: &Node, instance: Option<Option<&Instance>>) -> Action {
    let taints = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.as_deref())
        .unwrap_or_default();
    let tainted = taints.iter().any(|t| t.key == SHUTDOWN);
    match instance {
        None if tainted => Action::RemoveShutdownTaint,
        None => Action::Nothing,
        Some(None) => Action::Delete,
        Some(Some(machine)) if machine.shut_down && !tainted => Action::AddShutdownTaint,
        Some(Some(_)) => Action::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NodeSpec, Taint};

    fn node(tainted: bool) -> Node {
        let taint = Taint {
            key: SHUTDOWN.into(),
            effect: "NoSchedule".into(),
            ..Taint::default()
        };
        let taints = tainted.then(|| vec![taint]);
        Node {
            spec: Some(NodeSpec {
                taints,
                ..NodeSpec::default()
            }),
            ..Node::default()
        }
    }

    #[test]
    fn only_a_machine_that_is_gone_takes_its_node_along() {
        let off = Instance {
            shut_down: true,
            ..Instance::default()
        };
        let on = Instance::default();
        assert_eq!(action(&node(false), None), Action::Nothing);
        assert_eq!(action(&node(true), None), Action::RemoveShutdownTaint);
        assert_eq!(action(&node(false), Some(None)), Action::Delete);
        assert_eq!(
            action(&node(false), Some(Some(&off))),
            Action::AddShutdownTaint
        );
        assert_eq!(action(&node(true), Some(Some(&off))), Action::Nothing);
        assert_eq!(action(&node(false), Some(Some(&on))), Action::Nothing);
    }
}
