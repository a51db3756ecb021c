//! The nftables backend: few flat maps, changed in increments.
//!
//! A packet is looked up once in a verdict map by destination, protocol and port. The
//! verdict leads to a chain that all services with that number of endpoints share; it
//! draws a number and looks up `destination . protocol . port . number` in the
//! endpoints map. So a service costs one map element per address and endpoint, and
//! no chain or rule of its own.
//!
//! `elements` says which elements a service needs, `layout` what stands around them,
//! `transaction` what must be told to nft to get from what is there to what is wanted;
//! all three are pure. `nft` runs it. What was written is remembered, never listed.

mod elements;
mod layout;
mod nft;
mod transaction;

use std::collections::{BTreeSet, HashMap};

pub use layout::Options;
pub use nft::Nft;

use crate::state::{ServiceName, State};
use elements::{Element, elements};

/// An address family: a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// The table's family, which is also how expressions name the header.
    fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }

    fn address_type(self) -> &'static str {
        match self {
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
        }
    }

    fn is(self, ip: std::net::IpAddr) -> bool {
        ip.is_ipv4() == (self == Self::V4)
    }
}

/// Most services have fewer endpoints. One that has more makes the table anew, with
/// chains for twice as many.
const FEW_ENDPOINTS: usize = 16;

/// What the table of one family holds by now.
#[derive(Debug)]
pub struct Programmed {
    family: Family,
    options: Options,
    /// False until the first transaction has gone through, and after one that failed:
    /// then the table is made anew.
    valid: bool,
    services: HashMap<ServiceName, BTreeSet<Element>>,
    /// There are chains for services of up to so many endpoints.
    largest: usize,
    /// How many services need each element that several may share (a pod's hairpin).
    shared: HashMap<Element, usize>,
}

/// A transaction that has been planned, and what holds once it has gone through.
#[derive(Debug)]
pub struct Plan {
    /// Input of `nft -f`; empty when there is nothing to do.
    pub script: String,
    services: Vec<(ServiceName, BTreeSet<Element>)>,
    largest: usize,
    shared: HashMap<Element, usize>,
    full: bool,
}

impl Plan {
    /// Makes the table anew.
    pub fn is_full(&self) -> bool {
        self.full
    }
}

/// What removes the tables of both families, whoever made them.
pub fn cleanup() -> String {
    [Family::V4, Family::V6]
        .into_iter()
        .map(layout::removal)
        .collect()
}

impl Programmed {
    pub fn new(family: Family, options: Options) -> Self {
        Self {
            family,
            options,
            valid: false,
            services: HashMap::new(),
            largest: FEW_ENDPOINTS,
            shared: HashMap::new(),
        }
    }

    /// Plans the transaction for `changed` services; for all of them when the table
    /// has to be made anew.
    pub fn plan(&self, state: &State, changed: &BTreeSet<ServiceName>) -> Plan {
        if self.valid {
            let plan = self.plan_for(state, changed.clone(), false);
            if plan.largest <= self.largest {
                return plan;
            }
        }
        self.plan_for(state, state.names().cloned().collect(), true)
    }

    fn plan_for(&self, state: &State, names: BTreeSet<ServiceName>, full: bool) -> Plan {
        let nothing = BTreeSet::new();
        let mut services = Vec::with_capacity(names.len());
        let mut shared = if full {
            HashMap::new()
        } else {
            self.shared.clone()
        };
        let mut change = transaction::Change::default();
        for name in names {
            let wanted = elements(self.family, state, &name);
            let present = if full {
                &nothing
            } else {
                self.services.get(&name).unwrap_or(&nothing)
            };
            change.service(present, &wanted, &mut shared);
            services.push((name, wanted));
        }
        let chains = services
            .iter()
            .flat_map(|(_, e)| e)
            .filter_map(Element::chain);
        let needed = chains.map(|chain| chain.endpoints).max().unwrap_or(0);
        let largest = if needed > self.largest {
            needed.next_power_of_two()
        } else {
            self.largest
        };
        let mut script = String::new();
        if full {
            layout::table(self.family, &self.options, &mut script);
            layout::chains(self.family, largest, &self.options, &mut script);
        }
        change.write(self.family, &mut script);
        Plan {
            script,
            services,
            largest,
            shared,
            full,
        }
    }

    /// Notes that a plan has gone through.
    pub fn committed(&mut self, plan: Plan) {
        if plan.full {
            self.services.clear();
            self.valid = true;
        }
        for (name, elements) in plan.services {
            if elements.is_empty() {
                self.services.remove(&name);
            } else {
                self.services.insert(name, elements);
            }
        }
        self.largest = plan.largest;
        self.shared = plan.shared;
    }

    /// Notes that a plan did not go through: what the table holds is not known.
    pub fn failed(&mut self) {
        self.valid = false;
    }
}

#[cfg(test)]
mod tests;
