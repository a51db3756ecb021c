//! What a service costs: itself, its node ports, its load balancer.

use serde::Deserialize;

use super::{Measured, count};
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
    /// The type, where it makes a difference in cost.
    pub fn charged_type(&self) -> &str {
        match self.spec.type_.as_str() {
            costly @ ("NodePort" | "LoadBalancer") => costly,
            _ => "",
        }
    }

    pub fn measure(&self) -> Measured {
        let all = self.spec.ports.len();
        let balanced = self.spec.type_ == "LoadBalancer";
        // Ports are not allocated yet when a service is checked: what is meant counts.
        let node_ports = match self.charged_type() {
            "" => 0,
            "LoadBalancer" if self.spec.allocate_load_balancer_node_ports == Some(false) => {
                let ports = self.spec.ports.iter();
                ports.filter(|port| port.node_port != 0).count()
            }
            _ => all,
        };
        let costs = [1, 1, i64::from(balanced), node_ports as i64];
        let named = NAMES.iter().zip(costs);
        Measured::plain(ResourceList::from_iter(
            named.map(|(name, n)| ((*name).to_owned(), count(n))),
        ))
    }
}
