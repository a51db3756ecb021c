//! PodTopologyLabels: a pod that gets a node gets its zone and region as labels
//! (KEP-4742).

use std::sync::Arc;

use super::chain::Deps;
use super::*;
use crate::lookup::Lookup;

const LABELS: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
];

pub struct PodTopologyLabels {
    lookup: Arc<dyn Lookup>,
}

impl PodTopologyLabels {
    pub fn new(deps: &Deps) -> Self {
        Self {
            lookup: deps.lookup.clone(),
        }
    }

    fn admit(&self, a: &Attributes<'_>, object: &mut Value) {
        let node = match (a.resource.plural, a.subresource) {
            ("pods", "") if a.resource.group.is_empty() => text(object, "/spec/nodeName"),
            ("pods", "binding") | ("bindings", "")
                if a.resource.group.is_empty() && text(object, "/target/kind") == "Node" =>
            {
                text(object, "/target/name")
            }
            _ => "",
        };
        if node.is_empty() {
            return;
        }
        // A pod may be put on a node before there is one; then it has no zone to be told.
        let Some(node) = self.lookup.get("", "nodes", "", node) else {
            return;
        };
        for label in LABELS {
            let value = &node["metadata"]["labels"][label];
            if value.is_string() {
                if !object["metadata"].is_object() {
                    object["metadata"] = Value::Object(Default::default());
                }
                if !object["metadata"]["labels"].is_object() {
                    object["metadata"]["labels"] = Value::Object(Default::default());
                }
                object["metadata"]["labels"][label] = value.clone();
            }
        }
    }
}

impl Plugin for PodTopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, operation: Operation) -> bool {
        operation == Operation::Create
    }

    fn mutate<'a>(
        &'a self,
        attributes: &'a Attributes<'a>,
        object: Option<&'a mut Value>,
    ) -> BoxFuture<'a, Result<(), Status>> {
        if let Some(object) = object {
            self.admit(attributes, object);
        }
        ready(Ok(()))
    }
}
