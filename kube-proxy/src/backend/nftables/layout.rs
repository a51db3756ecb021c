//! What stands around the maps: the table, its base chains, and the shared chains that
//! draw an endpoint. Pure text for `nft -f`.
//!
//! Table and base chains carry upstream's names, so that an upstream kube-proxy that
//! takes the node over replaces them, as this one replaces upstream's.

use std::fmt::{self, Write};

use ipnet::IpNet;

use super::Family;

/// Upstream's name.
pub const TABLE: &str = "kube-proxy";

/// Flags and configuration that change the rules.
#[derive(Debug, Clone)]
pub struct Options {
    /// `nftables.masqueradeBit`: which bit of the packet mark asks for masquerading.
    pub masquerade_bit: u8,
    pub masquerade_all: bool,
    /// `clusterCIDR`: sources outside of it are no pods (detect-local-mode ClusterCIDR).
    pub cluster_cidrs: Vec<IpNet>,
    /// `nodePortAddresses`: empty for every address of the node but loopback.
    pub node_port_addresses: Vec<IpNet>,
}

impl Options {
    fn mark(&self) -> u32 {
        1 << self.masquerade_bit
    }
}

/// A chain that sends to one of `endpoints` endpoints, drawn at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    /// Looks in `nodeport-endpoints`, where the key has no address.
    pub node_port: bool,
    /// Marks the packet for masquerading first.
    pub masquerade: bool,
    pub endpoints: usize,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.node_port {
            "nodeport"
        } else {
            "service"
        };
        let masquerade = if self.masquerade { "-masquerade" } else { "" };
        write!(f, "{kind}{masquerade}-{}", self.endpoints)
    }
}

/// Removes the table; `add` first, since `delete` fails where there is none.
pub fn removal(family: Family) -> String {
    let ip = family.as_str();
    format!("add table {ip} {TABLE}\ndelete table {ip} {TABLE}\n")
}

/// Drops what is there and makes the table with empty maps.
pub fn table(family: Family, options: &Options, out: &mut String) {
    let text = Table { family, options };
    let done = write!(out, "{text}");
    debug_assert!(done.is_ok(), "writing to a String does not fail");
}

struct Table<'a> {
    family: Family,
    options: &'a Options,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.family.as_str();
        let address = self.family.address_type();
        let mark = format!("{:#x}", self.options.mark());
        let loopback = match self.family {
            Family::V4 => "127.0.0.0/8",
            Family::V6 => "::1",
        };
        let of_family = |nets: &[IpNet]| -> Vec<String> {
            let nets = nets.iter().filter(|n| self.family.is(n.addr()));
            nets.map(ToString::to_string).collect()
        };
        let cluster = of_family(&self.options.cluster_cidrs);
        let masquerade_cluster_ips = if self.options.masquerade_all {
            format!("\n    {ip} daddr @cluster-ips meta mark set meta mark or {mark}")
        } else if cluster.is_empty() {
            String::new()
        } else {
            let outside = format!("{ip} saddr != {{ {} }}", cluster.join(", "));
            format!("\n    {ip} daddr @cluster-ips {outside} meta mark set meta mark or {mark}")
        };
        let node = of_family(&self.options.node_port_addresses);
        let to_node = if node.is_empty() {
            format!("fib daddr type local {ip} daddr != {loopback}")
        } else {
            format!("fib daddr type local {ip} daddr {{ {} }}", node.join(", "))
        };
        f.write_str(&removal(self.family))?;
        writeln!(
            f,
            r#"table {ip} {TABLE} {{
  comment "rules for kube-proxy"
  map services {{
    type {address} . inet_proto . inet_service : verdict
  }}
  map endpoints {{
    typeof {ip} daddr . meta l4proto . th dport . numgen random mod 65536 : {ip} daddr . th dport
  }}
  map nodeports {{
    type inet_proto . inet_service : verdict
  }}
  map nodeport-endpoints {{
    typeof meta l4proto . th dport . numgen random mod 65536 : {ip} daddr . th dport
  }}
  map no-endpoints {{
    type {address} . inet_proto . inet_service : verdict
  }}
  map no-endpoint-nodeports {{
    type inet_proto . inet_service : verdict
  }}
  set cluster-ips {{
    type {address}
  }}
  set hairpin {{
    type {address} . {address}
  }}
  chain reject-chain {{
    reject
  }}
  chain dispatch {{{masquerade_cluster_ips}
    {ip} daddr . meta l4proto . th dport vmap @services
    {to_node} meta l4proto . th dport vmap @nodeports
  }}
  chain refuse {{
    {ip} daddr . meta l4proto . th dport vmap @no-endpoints
    {ip} daddr @cluster-ips reject
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump dispatch
  }}
  chain nat-output {{
    type nat hook output priority -100; policy accept;
    jump dispatch
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    meta mark and {mark} != 0 meta mark set meta mark xor {mark} masquerade fully-random
    ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random
  }}
  chain filter-input {{
    type filter hook input priority -110; policy accept;
    ct state new {to_node} meta l4proto . th dport vmap @no-endpoint-nodeports
    ct state new jump refuse
  }}
  chain filter-forward {{
    type filter hook forward priority -110; policy accept;
    ct state new jump refuse
  }}
  chain filter-output {{
    type filter hook output priority -90; policy accept;
    ct state new jump refuse
  }}
}}"#
        )
    }
}

/// Makes the shared chains for every number of endpoints up to `largest`. They are made
/// with the table, since nft up to 1.0.6 takes no further rule that looks into a map
/// of these types (it reads the key's and the value's `th dport` back as a conflict).
pub fn chains(family: Family, largest: usize, options: &Options, out: &mut String) {
    for endpoints in 1..=largest {
        for (node_port, masquerade) in [(false, false), (false, true), (true, false), (true, true)]
        {
            chain(
                family,
                Chain {
                    node_port,
                    masquerade,
                    endpoints,
                },
                options,
                out,
            );
        }
    }
}

fn chain(family: Family, chain: Chain, options: &Options, out: &mut String) {
    let ip = family.as_str();
    let mark = if chain.masquerade {
        format!("meta mark set meta mark or {:#x} ", options.mark())
    } else {
        String::new()
    };
    let (key, map) = if chain.node_port {
        (String::new(), "nodeport-endpoints")
    } else {
        (format!("{ip} daddr . "), "endpoints")
    };
    let n = chain.endpoints;
    let done = writeln!(
        out,
        "add chain {ip} {TABLE} {chain}\n\
         add rule {ip} {TABLE} {chain} {mark}meta l4proto {{ tcp, udp, sctp }} \
         dnat {ip} to {key}meta l4proto . th dport . numgen random mod {n} map @{map}"
    );
    debug_assert!(done.is_ok(), "writing to a String does not fail");
}
