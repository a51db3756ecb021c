//! Which EndpointSlices mirror an Endpoints object: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::GroupVersionKind;
use meta::owner::new_controller_ref;

use crate::controllers::endpoints::plan::repack;
use crate::controllers::endpointslice::plan as slices;
use crate::controllers::endpointslice::plan::{
    LAST_CHANGE_TRIGGER_TIME, MANAGED_BY, PortMap, SERVICE_NAME, id, port_map, same_beyond_id,
};

/// What our slices say in [`MANAGED_BY`].
pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What to write, and what had to be left out.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    pub delete: Vec<Arc<EndpointSlice>>,
    /// Addresses that are none.
    pub invalid: usize,
    /// Those and what is beyond the limit.
    pub skipped: usize,
}

/// Whether the object wants to be mirrored: it does not say no, and is no lock.
pub fn mirrors(endpoints: &Endpoints) -> bool {
    let metadata = &endpoints.metadata;
    let label = metadata.labels.as_ref().and_then(|l| l.get(SKIP_MIRROR));
    let annotations = metadata.annotations.as_ref();
    label.map(String::as_str) != Some("true")
        && !annotations.is_some_and(|a| a.contains_key(LEADER))
}

/// Slices are told apart by the family of their addresses and by their ports.
type Group = (&'static str, PortMap);

#[derive(Default)]
struct Desired {
    ports: Vec<EndpointPort>,
    endpoints: slices::Endpoints,
}

/// Makes the plan. `existing` are our slices of the object; each subset gets one slice per
/// family, with at most `max_per_subset` addresses.
pub fn plan(endpoints: &Endpoints, existing: &[Arc<EndpointSlice>], max_per_subset: usize) -> Plan {
    let mut plan = Plan::default();
    let desired = desired(endpoints, max_per_subset, &mut plan);
    let mut groups: BTreeMap<Group, Vec<Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in existing {
        let ports = port_map(slice.ports.as_deref().unwrap_or_default());
        match family(&slice.address_type) {
            Some(family) => {
                let group = groups.entry((family, ports)).or_default();
                group.push(Arc::clone(slice));
            }
            None => plan.delete.push(Arc::clone(slice)),
        }
    }
    for (group, wanted) in desired {
        let mut has = groups.remove(&group).unwrap_or_default();
        if wanted.endpoints.is_empty() {
            plan.delete.append(&mut has);
            continue;
        }
        let mut has = has.into_iter();
        let first = has.next();
        plan.delete.extend(has);
        if first
            .as_ref()
            .is_some_and(|s| is_right(s, &wanted, endpoints))
        {
            continue;
        }
        let mut slice = new_slice(endpoints, group.0, wanted.ports);
        let most = wanted.endpoints.into_values().take(max_per_subset);
        slice.endpoints = Some(most.collect());
        match first {
            Some(first) => plan.update.push(named(slice, &first)),
            None => plan.create.push(slice),
        }
    }
    plan.delete.extend(groups.into_values().flatten());
    reuse(&mut plan);
    if endpoints.metadata.deletion_timestamp.is_some() {
        plan.create.clear();
    }
    plan
}

fn family(address_type: &str) -> Option<&'static str> {
    ["IPv4", "IPv6"].into_iter().find(|f| *f == address_type)
}

/// Overwrites slices that would be deleted with those that would be created.
fn reuse(plan: &mut Plan) {
    let mut create = Vec::new();
    for slice in std::mem::take(&mut plan.create) {
        let fits = |s: &Arc<EndpointSlice>| s.address_type == slice.address_type;
        match plan.delete.iter().position(fits) {
            Some(i) => {
                let old = plan.delete.remove(i);
                plan.update.push(named(slice, &old));
            }
            None => create.push(slice),
        }
    }
    plan.create = create;
}

fn named(mut slice: EndpointSlice, existing: &EndpointSlice) -> EndpointSlice {
    slice.metadata.generate_name = None;
    slice.metadata.name = existing.metadata.name.clone();
    slice
}

fn desired(
    endpoints: &Endpoints,
    max_per_subset: usize,
    plan: &mut Plan,
) -> BTreeMap<Group, Desired> {
    let mut desired: BTreeMap<Group, Desired> = BTreeMap::new();
    for subset in repack(endpoints.subsets.iter().flatten()) {
        let ports: Vec<_> = subset
            .ports
            .iter()
            .flatten()
            .map(|p| EndpointPort {
                name: Some(p.name.clone().unwrap_or_default()),
                port: Some(p.port),
                protocol: p.protocol.clone(),
                app_protocol: p.app_protocol.clone(),
            })
            .collect();
        let key = port_map(&ports);
        for family in ["IPv4", "IPv6"] {
            let group = desired.entry((family, key.clone())).or_default();
            group.ports = ports.clone();
        }
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let not_ready = subset.not_ready_addresses.iter().flatten();
        let (mut total, mut added) = (0, 0);
        for (address, ready) in ready.chain(not_ready.map(|a| (a, false))) {
            total += 1;
            if added >= max_per_subset {
                continue;
            }
            let Some((family, endpoint)) = endpoint(address, ready) else {
                plan.invalid += 1;
                continue;
            };
            let group = desired.entry((family, key.clone())).or_default();
            group.endpoints.insert(id(&endpoint), endpoint);
            added += 1;
        }
        plan.skipped += total - added;
    }
    desired
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Option<(&'static str, Endpoint)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    let ip = ip.to_canonical();
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        target_ref: address.target_ref.clone(),
        node_name: address.node_name.clone(),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        ..Endpoint::default()
    };
    Some((if ip.is_ipv4() { "IPv4" } else { "IPv6" }, endpoint))
}

fn labels(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    let name = endpoints.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name);
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn annotations(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|k, _| !matches!(k.as_str(), LAST_CHANGE_TRIGGER_TIME | LAST_APPLIED));
    annotations
}

fn is_right(slice: &EndpointSlice, desired: &Desired, endpoints: &Endpoints) -> bool {
    let metadata = &slice.metadata;
    let has = slices::endpoints(slice);
    let same = |e: &Endpoint| {
        let wanted = desired.endpoints.get(&id(e));
        wanted.is_some_and(|wanted| same_beyond_id(wanted, e))
    };
    // The owner was deleted and made again: the garbage collector would take the slice.
    let orphaned = metadata.owner_references.iter().flatten().any(|o| {
        o.kind == "Endpoints"
            && Some(&o.name) == endpoints.metadata.name.as_ref()
            && Some(&o.uid) != endpoints.metadata.uid.as_ref()
    });
    !orphaned
        && has.len() == desired.endpoints.len()
        && has.iter().all(same)
        && metadata.labels.clone().unwrap_or_default() == labels(endpoints)
        && metadata.annotations.clone().unwrap_or_default() == annotations(endpoints)
}

fn new_slice(endpoints: &Endpoints, family: &str, ports: Vec<EndpointPort>) -> EndpointSlice {
    let kind = GroupVersionKind::new("", "v1", "Endpoints");
    let name = endpoints.metadata.name.as_deref().unwrap_or_default();
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels(endpoints)),
            annotations: Some(annotations(endpoints)),
            owner_references: Some(vec![new_controller_ref(&endpoints.metadata, &kind)]),
            ..ObjectMeta::default()
        },
        address_type: family.to_owned(),
        endpoints: None,
        ports: Some(ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoints(subsets: Value) -> Endpoints {
        serde_json::from_value(json!({
            "metadata": {"name": "e", "namespace": "n", "uid": "u", "labels": {"a": "b"},
                "annotations": {"x": "y", LAST_APPLIED: "{}"}},
            "subsets": subsets,
        }))
        .unwrap()
    }

    fn stored(mut slice: EndpointSlice, name: &str) -> Arc<EndpointSlice> {
        slice.metadata.name = Some(name.to_owned());
        Arc::new(slice)
    }

    #[test]
    fn mirrors_each_family_and_keeps_what_is_right() {
        let subsets = json!([{"ports": [{"port": 80, "protocol": "TCP"}],
            "addresses": [{"ip": "10.1.2.3"}, {"ip": "fd00::1"}, {"ip": "nonsense"}],
            "notReadyAddresses": [{"ip": "10.1.2.4"}]}]);
        let object = endpoints(subsets);
        let made = plan(&object, &[], 1000);
        assert_eq!((made.invalid, made.skipped), (1, 1));
        let families: Vec<_> = made.create.iter().map(|s| &*s.address_type).collect();
        assert_eq!(families, ["IPv4", "IPv6"]);
        let v4 = made.create[0].endpoints.as_ref().unwrap();
        let ready = |e: &Endpoint| e.conditions.as_ref().unwrap().ready.unwrap();
        assert_eq!(v4.iter().map(ready).collect::<Vec<_>>(), [true, false]);
        let annotations = made.create[0].metadata.annotations.as_ref().unwrap();
        assert_eq!(annotations.keys().collect::<Vec<_>>(), ["x"]);

        let mut slices = made.create.into_iter();
        let existing = [
            stored(slices.next().unwrap(), "four"),
            stored(slices.next().unwrap(), "six"),
        ];
        let again = plan(&object, &existing, 1000);
        assert!(again.create.is_empty() && again.update.is_empty() && again.delete.is_empty());

        let moved = endpoints(json!([{"ports": [{"port": 81, "protocol": "TCP"}],
            "addresses": [{"ip": "10.1.2.3"}]}]));
        let reused = plan(&moved, &existing, 1000);
        let name = |s: &EndpointSlice| s.metadata.name.clone().unwrap();
        assert_eq!(reused.update.iter().map(name).collect::<Vec<_>>(), ["four"]);
        let gone: Vec<_> = reused.delete.iter().map(|s| name(s)).collect();
        assert_eq!(gone, ["six"]);
        assert!(reused.create.is_empty());
    }

    #[test]
    fn a_subset_has_a_limit() {
        let object = endpoints(json!([{"ports": [{"port": 1}],
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}]}]));
        let made = plan(&object, &[], 2);
        assert_eq!(made.create[0].endpoints.as_ref().unwrap().len(), 2);
        assert_eq!((made.invalid, made.skipped), (0, 1));
    }

    #[test]
    fn locks_and_opted_out_objects_are_left_alone() {
        let mut object = endpoints(json!([]));
        assert!(mirrors(&object));
        let labels = object.metadata.labels.get_or_insert_default();
        labels.insert(SKIP_MIRROR.to_owned(), "true".to_owned());
        assert!(!mirrors(&object));
        object.metadata.labels = None;
        let annotations = object.metadata.annotations.get_or_insert_default();
        annotations.insert(LEADER.to_owned(), "{}".to_owned());
        assert!(!mirrors(&object));
    }
}
