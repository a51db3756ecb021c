//! The inventory file: which machines there are. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::ensure;
use ipnet::IpNet;
use serde::Deserialize;

use super::NAME;
use crate::provider::{Instance, NodeRef};

/// YAML: the machines of a cluster.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inventory {
    #[serde(default)]
    pub nodes: Vec<Machine>,
    /// Addresses to give to services of type LoadBalancer.
    #[serde(default)]
    pub load_balancer_pools: Vec<IpNet>,
    /// Says that the machine that the daemon runs on is the way to the nodes' pods, and
    /// that their routes are its kernel's. One machine then: not for several masters.
    #[serde(default)]
    pub routes: Option<RoutingTable>,
}

/// The kernel's table that routes are kept in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoutingTable {
    /// As `ip route` counts them; 254 is `main`.
    #[serde(default = "main_table")]
    pub table: u32,
}

fn main_table() -> u32 {
    254
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Machine {
    /// The node's name.
    pub name: String,
    /// What follows `baremetal://` in the node's provider ID; the name when left out.
    #[serde(default)]
    pub id: Option<String>,
    #[serde(default)]
    pub addresses: Vec<Address>,
    #[serde(default)]
    pub zone: String,
    #[serde(default)]
    pub region: String,
    #[serde(default)]
    pub instance_type: String,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Switched off for a while.
    #[serde(default)]
    pub shut_down: bool,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Address {
    #[serde(rename = "type")]
    pub kind: String,
    pub address: String,
}

const ADDRESS_TYPES: &[&str] = &[
    "ExternalDNS",
    "ExternalIP",
    "Hostname",
    "InternalDNS",
    "InternalIP",
];

impl Inventory {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let inventory: Self = serde_saphyr::from_str(text)?;
        let mut names = BTreeSet::new();
        let mut ids = BTreeSet::new();
        for machine in &inventory.nodes {
            let name = &machine.name;
            ensure!(!name.is_empty(), "a node has no name");
            ensure!(names.insert(name.as_str()), "node {name} is declared twice");
            ensure!(
                ids.insert(machine.id()),
                "node {name} has the id of another node"
            );
            for address in &machine.addresses {
                ensure!(
                    ADDRESS_TYPES.contains(&address.kind.as_str()),
                    "node {name}: address type {:?} is none of {ADDRESS_TYPES:?}",
                    address.kind
                );
            }
        }
        Ok(inventory)
    }

    /// The machine of a node: by provider ID once the node has one, by name before.
    pub fn instance(&self, node: &NodeRef) -> Option<Instance> {
        let machine = if node.provider_id.is_empty() {
            self.nodes.iter().find(|m| m.name == node.name)
        } else {
            let id = node.provider_id.strip_prefix("baremetal://")?;
            self.nodes.iter().find(|m| m.id() == id)
        }?;
        Some(Instance {
            provider_id: format!("{NAME}://{}", machine.id()),
            instance_type: machine.instance_type.clone(),
            zone: machine.zone.clone(),
            region: machine.region.clone(),
            addresses: machine
                .addresses
                .iter()
                .map(|a| (a.kind.clone(), a.address.clone()))
                .collect(),
            labels: machine.labels.clone(),
            shut_down: machine.shut_down,
        })
    }
}

impl Inventory {
    /// The name of the node with this address.
    pub fn node_at(&self, address: IpAddr) -> Option<&str> {
        let has = |machine: &&Machine| {
            let mut addresses = machine.addresses.iter();
            addresses.any(|a| a.address.parse() == Ok(address))
        };
        self.nodes.iter().find(has).map(|m| m.name.as_str())
    }
}

impl Machine {
    fn id(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
nodes:
- name: node1
  id: rack1-7
  addresses:
  - {type: InternalIP, address: 192.0.2.11}
  zone: a
  region: home
  instanceType: blade
- name: node2
";

    fn node(name: &str, provider_id: &str) -> NodeRef {
        NodeRef {
            name: name.into(),
            provider_id: provider_id.into(),
        }
    }

    #[test]
    fn a_machine_is_found_by_name_and_then_by_id() {
        let inventory = Inventory::parse(TEXT).unwrap();
        let found = inventory.instance(&node("node1", "")).unwrap();
        assert_eq!(found.provider_id, "baremetal://rack1-7");
        assert_eq!(
            found.addresses,
            [("InternalIP".to_owned(), "192.0.2.11".to_owned())]
        );
        let renamed = inventory.instance(&node("other", "baremetal://rack1-7"));
        assert_eq!(renamed, Some(found));
        assert_eq!(inventory.instance(&node("node1", "aws://rack1-7")), None);
        assert_eq!(inventory.instance(&node("node3", "")), None);
        assert!(
            inventory
                .instance(&node("node2", "baremetal://node2"))
                .is_some()
        );
    }

    #[test]
    fn a_node_is_found_by_its_address() {
        let inventory = Inventory::parse(TEXT).unwrap();
        let at = |ip: &str| inventory.node_at(ip.parse().unwrap());
        assert_eq!(at("192.0.2.11"), Some("node1"));
        assert_eq!(at("192.0.2.12"), None);
    }

    #[test]
    fn mistakes_are_named() {
        let twice = Inventory::parse("nodes: [{name: a}, {name: a}]").unwrap_err();
        assert_eq!(twice.to_string(), "node a is declared twice");
        assert!(Inventory::parse("nodes: [{name: a, zoen: b}]").is_err());
    }
}
