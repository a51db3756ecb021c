//! What a service costs: itself, its node ports, its load balancer.

use serde::Deserialize;

use super::{Measured, Meta, count};
use crate::resources::ResourceList;

const NAMES: [&str; 4] = [
    "count/services",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    pub metadata: Meta,
    spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "type")]
    type_: String,
    ports: Vec<Port>,
    allocate_load_balancer_node_ports: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Port {
    node_port: i64,
}

pub(super) fn counts(name: &str) -> bool {
    NAMES.contains(&name)
}

impl Service {
    pub fn measure(&self) -> Measured {
        let all = self.spec.ports.len();
        let balanced = self.spec.type_ == "LoadBalancer";
        // Ports are not allocated yet when a service is checked: what is meant counts.
        let node_ports = match self.spec.type_.as_str() {
            "LoadBalancer" if self.spec.allocate_load_balancer_node_ports == Some(false) => {
                let ports = self.spec.ports.iter();
                ports.filter(|port| port.node_port != 0).count()
            }
            "NodePort" | "LoadBalancer" => all,
            _ => 0,
        };
        let costs = [1, 1, i64::from(balanced), node_ports as i64];
        let named = NAMES.iter().zip(costs);
        Measured::plain(ResourceList::from_iter(
            named.map(|(name, n)| ((*name).to_owned(), count(n))),
        ))
    }
}
