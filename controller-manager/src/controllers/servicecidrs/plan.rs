//! What a ServiceCIDR's status says and when it may go: pure.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::workload::protection::{self, Protection};

pub const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
const READY: &str = "Ready";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// What addresses of Services say in [`MANAGED_BY`].
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// API servers hand out addresses of a range for a moment after its deletion: until the last of
/// them has seen it.
const GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(10);

/// What to do about a ServiceCIDR.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    Nothing,
    /// It may go after this.
    Wait(SignedDuration),
    /// It may go.
    Release,
    /// It stays.
    Keep {
        /// It lacks the finalizer.
        protect: bool,
        /// The condition to write, if it is not there.
        condition: Option<Condition>,
    },
}

/// Makes the plan. `all` are the ServiceCIDRs, this one among them.
pub fn plan(
    cidr: &ServiceCIDR,
    all: &[Arc<ServiceCIDR>],
    addresses: impl FnOnce() -> Vec<Arc<IPAddress>>,
    now: Timestamp,
) -> Plan {
    let Some(deleted) = &cidr.metadata.deletion_timestamp else {
        let condition = ready("True", "", "Kubernetes Service CIDR is ready", now);
        let protect = protection::state(&cidr.metadata, FINALIZER) == Protection::Missing;
        return match changed(cidr, condition) {
            None if !protect => Plan::Nothing,
            condition => Plan::Keep { protect, condition },
        };
    };
    if !may_go(cidr, all, addresses) {
        let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        let condition = changed(cidr, ready("False", "Terminating", message, now));
        return Plan::Keep {
            protect: false,
            condition,
        };
    }
    let left = GRACE_PERIOD - now.duration_since(deleted.0);
    if left.is_positive() {
        return Plan::Wait(left);
    }
    match protection::state(&cidr.metadata, FINALIZER) {
        Protection::Ending => Plan::Release,
        _ => Plan::Nothing,
    }
}

fn ready(status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: None,
    }
}

/// The condition, unless the object has it.
fn changed(cidr: &ServiceCIDR, new: Condition) -> Option<Condition> {
    let conditions = cidr
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let mut same = conditions.filter(|c| {
        c.type_ == new.type_
            && c.status == new.status
            && c.reason == new.reason
            && c.message == new.message
    });
    same.next().is_none().then_some(new)
}

fn ranges(cidr: &ServiceCIDR) -> impl Iterator<Item = IpNet> {
    let cidrs = cidr.spec.iter().flat_map(|s| s.cidrs.iter().flatten());
    cidrs.filter_map(|c| c.parse().ok())
}

/// Whether the ranges of two have addresses in common.
pub fn overlap(a: &ServiceCIDR, b: &ServiceCIDR) -> bool {
    ranges(a).any(|x| ranges(b).any(|y| x.contains(&y) || y.contains(&x)))
}

fn service_address(address: &IPAddress) -> Option<IpAddr> {
    let labels = address.metadata.labels.as_ref()?;
    if labels.get(MANAGED_BY).map(String::as_str) != Some(ALLOCATOR) {
        return None;
    }
    address.metadata.name.as_ref()?.parse().ok()
}

/// Whether an address that a Service has is of the range. The ends of an IPv4 range, and the
/// first address of an IPv6 one, belong to nobody.
pub fn holds(cidr: &ServiceCIDR, address: &IPAddress) -> bool {
    service_address(address).is_some_and(|ip| contains(cidr, ip))
}

fn contains(cidr: &ServiceCIDR, ip: IpAddr) -> bool {
    ranges(cidr).any(|net| {
        let end = ip == net.network() || (ip.is_ipv4() && ip == net.broadcast());
        net.contains(&ip) && !end
    })
}

/// Whether nothing needs the range: others contain all of it, or no Service has an address that
/// no other holds. Others that are being deleted do not count: two of them would wait for each
/// other, and then go together.
fn may_go(
    cidr: &ServiceCIDR,
    all: &[Arc<ServiceCIDR>],
    addresses: impl FnOnce() -> Vec<Arc<IPAddress>>,
) -> bool {
    let others = || all.iter().filter(|o| o.metadata.name != cidr.metadata.name);
    let live = || others().filter(|o| o.metadata.deletion_timestamp.is_none());
    let has_parent = |net: IpNet| live().any(|o| ranges(o).any(|parent| parent.contains(&net)));
    if ranges(cidr).all(has_parent) {
        return true;
    }
    let addresses = addresses();
    let mut ips = addresses.iter().filter_map(|a| service_address(a));
    !ips.any(|ip| contains(cidr, ip) && !live().any(|o| contains(o, ip)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cidr(name: &str, range: &str, metadata: Value) -> Arc<ServiceCIDR> {
        let mut object = json!({"metadata": metadata, "spec": {"cidrs": [range]}});
        object["metadata"]["name"] = json!(name);
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn address(ip: &str) -> Arc<IPAddress> {
        let labels = json!({MANAGED_BY: ALLOCATOR});
        let object = json!({"metadata": {"name": ip, "labels": labels}});
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn a_new_range_is_protected_and_ready() {
        let new = cidr("a", "10.0.0.0/24", json!({}));
        let now = at("2024-01-01T00:00:00Z");
        let Plan::Keep { protect, condition } = plan(&new, &[], Vec::new, now) else {
            panic!("it stays");
        };
        let condition = condition.unwrap();
        assert!(protect && condition.status == "True");
        let mut done = ServiceCIDR::clone(&new);
        done.metadata.finalizers = Some(vec![FINALIZER.to_owned()]);
        done.status.get_or_insert_default().conditions = Some(vec![condition]);
        assert_eq!(plan(&done, &[], Vec::new, now), Plan::Nothing);
    }

    #[test]
    fn a_range_waits_for_its_addresses() {
        let going = json!({"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": [FINALIZER]});
        let old = cidr("a", "10.0.0.0/24", going.clone());
        let narrow = cidr("b", "10.0.0.0/28", json!({}));
        let wide = cidr("c", "10.0.0.0/16", json!({}));
        let dying = cidr("d", "10.0.0.0/16", going);
        let soon = at("2024-01-01T00:00:03Z");
        let late = at("2024-01-01T00:00:10Z");
        let with = |others: &[&Arc<ServiceCIDR>], ips: &[&str], now| {
            let mut all: Vec<_> = others.iter().map(|o| Arc::clone(o)).collect();
            all.push(Arc::clone(&old));
            let addresses = ips.iter().map(|ip| address(ip)).collect();
            plan(&old, &all, || addresses, now)
        };
        let waits = Plan::Wait(SignedDuration::from_secs(7));
        assert_eq!(with(&[], &[], soon), waits);
        assert_eq!(with(&[], &["10.1.0.1"], late), Plan::Release);
        assert_eq!(with(&[&narrow], &["10.0.0.3"], late), Plan::Release);
        assert_eq!(with(&[&wide], &["10.0.0.99"], late), Plan::Release);
        for others in [&[][..], &[&narrow], &[&dying]] {
            let Plan::Keep { protect, condition } = with(others, &["10.0.0.99"], late) else {
                panic!("it is used");
            };
            assert!(!protect && condition.unwrap().reason == "Terminating");
        }
    }
}
