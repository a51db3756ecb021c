//! TaintNodesByCondition: a new node takes no pods until it has been seen ready.

use serde_json::json;

use super::*;
use crate::authz::node::items;

pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(node) = object
            && attributes.is("", "nodes")
        {
            let taint = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
            let there = items(&node["spec"]["taints"])
                .any(|t| t["key"] == taint["key"] && t["effect"] == taint["effect"]);
            if !there {
                list_mut(&mut node["spec"], "taints").push(taint);
            }
        }
        ready(Ok(()))
    }
}
