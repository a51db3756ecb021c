//! Endpoints shared out among zones by how many CPUs the nodes of each have (KEP-2433, for
//! Services that ask for it by annotation): how many each zone should have, who gives and who
//! receives where endpoints are elsewhere, and when it is not to be had. Pure, with what is
//! remembered of it between syncs.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::ObjectKey;
use client::informer::Event as Change;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{EndpointHints, EndpointSlice, ForZone};
use meta::quantity::Quantity;

use super::hints::is_ready;
use super::plan::{Changes, endpoints};
use crate::kinds::Node;

/// The older one counts where both are.
const ANNOTATIONS: [&str; 2] = [
    "service.kubernetes.io/topology-aware-hints",
    "service.kubernetes.io/topology-mode",
];
/// Nodes with one of these take no part.
const EXCLUDED: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];
/// By how much more than its share of the traffic an endpoint may have to bear.
const OVERLOAD: f64 = 0.2;

/// Whether the Service asks for it.
pub fn is_wanted(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let mode = annotations.and_then(|all| ANNOTATIONS.iter().find_map(|key| all.get(*key)));
    mode.is_some_and(|mode| mode == "Auto" || mode == "auto")
}

/// Whether a node's change is one of zones. A change of its CPUs alone waits for the next.
pub fn matters(change: &Change<Node>) -> bool {
    match change {
        Change::Updated { old, new } => {
            old.is_ready() != new.is_ready() || old.zone() != new.zone()
        }
        Change::Added(_) | Change::Deleted(_) => true,
    }
}

/// What is known of the zones that nodes are in.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Zones {
    /// There has been no node yet.
    #[default]
    Unseen,
    /// A node does not say its zone or its CPUs, or all are in one zone.
    Unclear,
    /// Which part of all CPUs each of them has; at least two.
    Known(BTreeMap<String, f64>),
}

/// How many endpoints a zone should have.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Allocation {
    desired: f64,
    /// More would leave another zone with fewer than it needs.
    most: usize,
}

type Allocations<'a> = BTreeMap<&'a str, Allocation>;

/// How many endpoints are meant for each zone.
pub type Spread = BTreeMap<String, usize>;

/// How many endpoints a zone with so much of the CPUs needs at least.
fn least(part: f64, endpoints: usize) -> usize {
    (part * endpoints as f64 * (1.0 / (1.0 + OVERLOAD))).ceil() as usize
}

impl Zones {
    /// What the nodes say. One that takes part and says too little spoils it for all.
    pub fn of(nodes: &[Arc<Node>]) -> Self {
        let mut by_zone: BTreeMap<&str, Quantity> = BTreeMap::new();
        let mut total = Quantity::ZERO;
        for node in nodes {
            let excluded = |key: &&str| node.metadata.labels.contains_key(*key);
            if EXCLUDED.iter().any(excluded) || !node.is_ready() {
                continue;
            }
            let cpu = &node.status.allocatable.cpu;
            let Some(zone) = node.zone().filter(|_| !cpu.is_zero()) else {
                return Self::Unclear;
            };
            total.add(cpu);
            by_zone.entry(zone).or_insert(Quantity::ZERO).add(cpu);
        }
        if by_zone.len() < 2 || total.is_zero() {
            return Self::Unclear;
        }
        let total = total.milli_value() as f64;
        let parts = by_zone.into_iter();
        let part = |cpu: Quantity| cpu.milli_value() as f64 / total;
        Self::Known(
            parts
                .map(|(zone, cpu)| (zone.to_owned(), part(cpu)))
                .collect(),
        )
    }

    /// How many of so many endpoints each zone should have, or why that cannot be.
    fn allocate(&self, endpoints: usize) -> Result<Allocations<'_>, String> {
        let parts = match self {
            Self::Unseen => return Err("Nodes only ready in one zone".to_owned()),
            Self::Unclear => {
                let why = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
                return Err(why.to_owned());
            }
            Self::Known(parts) => parts,
        };
        let counts = format!("({endpoints} endpoints, {} zones)", parts.len());
        if parts.len() > endpoints {
            return Err(format!("Insufficient number of endpoints {counts}"));
        }
        let needed = parts.values().map(|part| least(*part, endpoints)).sum();
        let Some(spare) = endpoints.checked_sub(needed) else {
            let why = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
            return Err(format!("{why} {counts}"));
        };
        let allocation = |part: f64| {
            let least = least(part, endpoints);
            Allocation {
                desired: (part * endpoints as f64).max(least as f64),
                most: least + spare,
            }
        };
        let all = parts.iter();
        Ok(all
            .map(|(zone, part)| (zone.as_str(), allocation(*part)))
            .collect())
    }

    /// Whether a zone has fewer endpoints than it needs.
    fn overload(&self, spread: &Spread) -> bool {
        if spread.is_empty() {
            return false;
        }
        let Self::Known(parts) = self else {
            return true;
        };
        let total = spread.values().sum();
        parts.iter().any(|(zone, part)| {
            spread
                .get(zone)
                .is_none_or(|has| *has < least(*part, total))
        })
    }
}

/// What zones have of one Service's endpoints.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    by_type: BTreeMap<String, Spread>,
    /// Whether it was told, and nothing has been taken since.
    told: bool,
}

impl Given {
    /// Endpoints of an address type have been given. Returns whether that is to be told.
    pub fn give(&mut self, address_type: &str, spread: Spread) -> bool {
        self.by_type.insert(address_type.to_owned(), spread);
        !std::mem::replace(&mut self.told, true)
    }

    /// Those of an address type are nobody's any more. Returns whether it had been told.
    pub fn take(&mut self, address_type: &str) -> bool {
        self.by_type.remove(address_type);
        std::mem::replace(&mut self.told, false)
    }
}

/// What is remembered of zones and of what they have been given.
#[derive(Default)]
pub struct Topology {
    zones: Arc<Zones>,
    services: HashMap<ObjectKey, Given>,
}

impl Topology {
    pub fn zones(&self) -> Arc<Zones> {
        Arc::clone(&self.zones)
    }

    /// Remembers zones. Returns the Services of which one has too few endpoints.
    pub fn set_zones(&mut self, zones: Zones) -> Vec<ObjectKey> {
        if *self.zones != zones {
            self.zones = Arc::new(zones);
        }
        let services = self.services.iter();
        let overloaded = services.filter(|(_, given)| self.is_overloaded(given));
        overloaded.map(|(key, _)| key.clone()).collect()
    }

    fn is_overloaded(&self, given: &Given) -> bool {
        given.by_type.values().any(|s| self.zones.overload(s))
    }

    pub fn given(&self, service: &ObjectKey) -> Given {
        self.services.get(service).cloned().unwrap_or_default()
    }

    /// Remembers what was given by what was known of zones. Returns whether they have changed
    /// meanwhile, and one has too few endpoints.
    pub fn set_given(&mut self, service: &ObjectKey, given: Given, by: &Arc<Zones>) -> bool {
        let late = !Arc::ptr_eq(by, &self.zones) && self.is_overloaded(&given);
        if given.by_type.is_empty() {
            self.services.remove(service);
        } else {
            self.services.insert(service.clone(), given);
        }
        late
    }

    pub fn forget_service(&mut self, service: &ObjectKey) {
        self.services.remove(service);
    }
}

/// That endpoints have been shared out, or not; in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub enabled: bool,
    pub message: String,
}

impl Notice {
    pub fn enabled(address_type: &str) -> Self {
        let message = format!("Topology Aware Hints has been enabled, addressType: {address_type}");
        Self {
            enabled: true,
            message,
        }
    }

    pub fn disabled(why: &str, address_type: &str) -> Self {
        Self {
            enabled: false,
            message: format!("{why}, addressType: {address_type}"),
        }
    }

    pub fn reason(&self) -> &'static str {
        match self.enabled {
            true => "TopologyAwareHintsEnabled",
            false => "TopologyAwareHintsDisabled",
        }
    }
}

/// Gives every ready endpoint to a zone: to its own, unless another needs it more. Slices that
/// can stay as they are do. Returns how many each zone has then, or why it cannot be; hints are
/// to be removed in that case.
pub(super) fn share_out(
    zones: &Zones,
    existing: &[Arc<EndpointSlice>],
    changes: &mut Changes,
) -> Result<Spread, String> {
    let untouched = changes.untouched(existing);
    let written = changes.create.iter().chain(&changes.update);
    let slices = written.chain(untouched.iter().map(|s| &***s));
    let ready = slices.flat_map(endpoints).filter(|e| is_ready(e)).count();
    let allocations = zones.allocate(ready)?;
    let mut spread = Spread::new();
    for slice in untouched {
        match kept(slice, &spread, &allocations) {
            Some(own) => own.into_iter().for_each(|(zone, count)| {
                *spread.entry(zone.to_owned()).or_default() += count;
            }),
            None => changes.update.push(EndpointSlice::clone(slice)),
        }
    }
    for endpoint in changes.written().filter(|e| is_ready(e)) {
        let Some(zone) = endpoint.zone.clone().filter(|zone| !zone.is_empty()) else {
            return Err("One or more endpoints do not have a zone specified".to_owned());
        };
        endpoint.hints = Some(hint(&zone));
        *spread.entry(zone).or_default() += 1;
    }
    let (mut giving, mut receiving) = moves(&allocations, &spread);
    for endpoint in changes.written().filter(|e| is_ready(e)) {
        let Some(from) = endpoint.zone.as_deref() else {
            continue;
        };
        let Some(to) = receiving.keys().next().copied() else {
            break;
        };
        if !one_less(&mut giving, from) {
            continue;
        }
        one_less(&mut receiving, to);
        *spread.entry(to.to_owned()).or_default() += 1;
        one_less(&mut spread, from);
        endpoint.hints = Some(hint(to));
    }
    Ok(spread)
}

fn hint(zone: &str) -> EndpointHints {
    EndpointHints {
        for_zones: Some(vec![ForZone {
            name: zone.to_owned(),
        }]),
        for_nodes: None,
    }
}

/// How many endpoints each zone has of a slice that can stay as it is; nothing if it cannot.
/// `spread` is what zones have of others.
fn kept<'s>(
    slice: &'s EndpointSlice,
    spread: &Spread,
    allocations: &Allocations,
) -> Option<BTreeMap<&'s str, usize>> {
    let mut own: BTreeMap<&str, usize> = BTreeMap::new();
    for endpoint in endpoints(slice).iter().filter(|e| is_ready(e)) {
        let hints = endpoint.hints.as_ref()?;
        for zone in hints.for_zones.as_ref().filter(|all| !all.is_empty())? {
            *own.entry(&zone.name).or_default() += 1;
        }
    }
    let fits = own.iter().all(|(zone, count)| {
        let others = spread.get(*zone).copied().unwrap_or_default();
        let allocation = allocations.get(zone);
        allocation.is_some_and(|allocation| others + count <= allocation.most)
    });
    fits.then_some(own)
}

/// How many endpoints zones give to others, and how many zones receive. One stays where its
/// zone has less than half of it over, and where less than a whole one is both over and needed.
fn moves<'a>(
    allocations: &Allocations<'a>,
    spread: &Spread,
) -> (BTreeMap<&'a str, usize>, BTreeMap<&'a str, usize>) {
    let (mut over, mut under) = (BTreeMap::new(), BTreeMap::new());
    for (zone, allocation) in allocations {
        let has = spread.get(*zone).copied().unwrap_or_default() as f64;
        if has > allocation.desired {
            over.insert(*zone, has - allocation.desired);
        } else {
            under.insert(*zone, allocation.desired - has);
        }
    }
    let (mut giving, mut receiving) = (BTreeMap::new(), BTreeMap::new());
    while let (Some((from, surplus)), Some((to, need))) =
        (greatest(&mut over), greatest(&mut under))
        && surplus.max(*need) >= 1.0
        && surplus.min(*need) >= 0.5
    {
        *surplus -= 1.0;
        *need -= 1.0;
        *giving.entry(from).or_default() += 1;
        *receiving.entry(to).or_default() += 1;
    }
    (giving, receiving)
}

/// The first of those zones that have most.
fn greatest<'m, 'a>(zones: &'m mut BTreeMap<&'a str, f64>) -> Option<(&'a str, &'m mut f64)> {
    let all = zones.iter_mut().map(|(zone, much)| (*zone, much));
    all.reduce(|best, other| if *other.1 > *best.1 { other } else { best })
}

/// Counts one down, to nothing at all; returns whether there was one.
fn one_less<K: Borrow<str> + Ord>(counts: &mut BTreeMap<K, usize>, zone: &str) -> bool {
    let Some(count) = counts.get_mut(zone) else {
        return false;
    };
    *count -= 1;
    if *count == 0 {
        counts.remove(zone);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(zone: &str, cpu: &str, ready: bool, more: &Value) -> Arc<Node> {
        let status = if ready { "True" } else { "False" };
        let mut node = json!({
            "metadata": {"name": "n", "labels": {"topology.kubernetes.io/zone": zone}},
            "status": {
                "allocatable": {"cpu": cpu, "memory": "1Gi"},
                "conditions": [{"type": "Ready", "status": status}],
            },
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            node["metadata"]["labels"][key] = value.clone();
        }
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn plain(zone: &str, cpu: &str) -> Arc<Node> {
        node(zone, cpu, true, &json!({}))
    }

    fn known(parts: &[(&str, f64)]) -> Zones {
        let parts = parts.iter();
        Zones::Known(
            parts
                .map(|(zone, part)| ((*zone).to_owned(), *part))
                .collect(),
        )
    }

    #[test]
    fn zones_have_the_cpus_of_nodes_that_take_part() {
        let control = json!({"node-role.kubernetes.io/control-plane": ""});
        let nodes = [
            plain("a", "1"),
            plain("a", "500m"),
            plain("b", "500m"),
            node("b", "8", false, &json!({})),
            node("", "8", true, &control),
        ];
        assert_eq!(Zones::of(&nodes), known(&[("a", 0.75), ("b", 0.25)]));
        assert_eq!(Zones::of(&nodes[..2]), Zones::Unclear);
        assert_eq!(Zones::of(&[]), Zones::Unclear);
        for spoiler in [plain("", "1"), plain("c", "0")] {
            let nodes = [plain("a", "1"), plain("b", "1"), spoiler];
            assert_eq!(Zones::of(&nodes), Zones::Unclear);
        }
    }

    #[test]
    fn what_a_zone_should_have() {
        let zones = known(&[("a", 0.5), ("b", 0.3), ("c", 0.2)]);
        let all = zones.allocate(10).unwrap();
        // 5, 3 and 2 divided by 1.2, rounded up, are 5, 3 and 2: nothing is to spare.
        let seen: Vec<_> = all.values().map(|a| (a.desired, a.most)).collect();
        assert_eq!(seen, [(5.0, 5), (3.0, 3), (2.0, 2)]);
        let all = zones.allocate(100).unwrap();
        let seen: Vec<_> = all.values().map(|a| (a.desired, a.most)).collect();
        assert_eq!(seen, [(50.0, 58), (30.0, 41), (20.0, 33)]);
    }

    #[test]
    fn why_it_cannot_be() {
        let zones = known(&[("a", 0.5), ("b", 0.3), ("c", 0.2)]);
        let why = |zones: &Zones, endpoints| zones.allocate(endpoints).unwrap_err();
        assert_eq!(why(&Zones::Unseen, 5), "Nodes only ready in one zone");
        assert!(why(&Zones::Unclear, 5).starts_with("Insufficient Node information"));
        assert_eq!(
            why(&zones, 2),
            "Insufficient number of endpoints (2 endpoints, 3 zones)"
        );
        assert_eq!(
            why(&zones, 5),
            "Unable to allocate minimum required endpoints to each zone without exceeding \
             overload threshold (5 endpoints, 3 zones)"
        );
    }

    fn spread(counts: &[(&str, usize)]) -> Spread {
        let counts = counts.iter();
        counts.map(|(zone, n)| ((*zone).to_owned(), *n)).collect()
    }

    #[test]
    fn zones_with_too_few_endpoints() {
        let zones = known(&[("a", 0.5), ("b", 0.5)]);
        assert!(!zones.overload(&spread(&[])));
        assert!(!zones.overload(&spread(&[("a", 5), ("b", 7)])));
        assert!(zones.overload(&spread(&[("a", 4), ("b", 8)])));
        assert!(zones.overload(&spread(&[("a", 4)])));
        assert!(zones.overload(&spread(&[("a", 2), ("b", 2), ("gone", 2)])));
        assert!(Zones::Unclear.overload(&spread(&[("a", 1)])));
    }

    #[test]
    fn who_gives_and_who_receives() {
        let of = |desired: &[(&'static str, f64)], has: &[(&str, usize)]| {
            let all = desired.iter();
            let all = all.map(|(zone, desired)| {
                let (desired, most) = (*desired, 0);
                (*zone, Allocation { desired, most })
            });
            let (giving, receiving) = moves(&all.collect(), &spread(has));
            let list = |all: BTreeMap<&'static str, usize>| all.into_iter().collect::<Vec<_>>();
            (list(giving), list(receiving))
        };
        let near = of(&[("a", 1.3), ("b", 0.7)], &[("a", 1), ("b", 1)]);
        assert_eq!(near, (vec![], vec![]));
        // b lacks 1.4 and then 0.4, which is too little; c 0.6 while a has 1 over.
        let all = of(&[("a", 2.0), ("b", 1.4), ("c", 0.6)], &[("a", 4)]);
        assert_eq!(all, (vec![("a", 2)], vec![("b", 1), ("c", 1)]));
        // Both have less than one to give or to receive.
        let halves = of(&[("a", 1.4), ("b", 0.6)], &[("a", 2)]);
        assert_eq!(halves, (vec![], vec![]));
        // The one that has most over gives first.
        let two = of(&[("a", 1.2), ("b", 1.6), ("c", 1.2)], &[("a", 2), ("b", 2)]);
        assert_eq!(two, (vec![("a", 1)], vec![("c", 1)]));
    }

    #[test]
    fn services_are_looked_at_again_when_zones_change() {
        let mut topology = Topology::default();
        topology.set_zones(known(&[("a", 0.5), ("b", 0.5)]));
        let both = ["s", "t"].map(|name| ObjectKey::new("d", name));
        let [key, other] = &both;
        let by = topology.zones();
        let mut given = topology.given(key);
        assert!(given.give("IPv4", spread(&[("a", 3), ("b", 3)])));
        assert!(!given.give("IPv6", spread(&[("a", 3), ("b", 3)])));
        assert!(!topology.set_given(key, given.clone(), &by));
        topology.set_given(other, Given::default(), &by);
        let thirds = known(&[("a", 0.4), ("b", 0.3), ("c", 0.3)]);
        assert_eq!(topology.set_zones(thirds), both[..1]);
        // Somebody was about to give by what was known before.
        assert!(topology.set_given(key, given.clone(), &by));
        assert!(given.take("IPv4"));
        assert!(!given.take("IPv6"));
        topology.set_given(key, given, &by);
        assert!(topology.set_zones(Zones::Unclear).is_empty());
    }
}
