//! Brings allocations and Services together again: what a Service has is marked as taken,
//! and what has been taken without a Service for a while is given back. A server that dies
//! between allocating and writing leaves nothing worse behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::object_meta::meta;
use super::super::store::Store;
use super::addresses::{self, Addresses, AllocationError};
use super::fields;
use super::ports::NodePorts;
use crate::health::Step;
use crate::storage::cache::Selector;

const EVERY: Duration = Duration::from_secs(3 * 60);
/// How many times in a row a port must be seen without an owner. The Service may be about to be
/// written.
const SIGHTINGS: u32 = 3;
/// Addresses are objects that know their age: one of less than this may be about to get its
/// Service.
const GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Counts sightings; forgets what is no longer seen. Says what has been seen often enough.
fn count<T: Ord + Clone>(seen: &mut BTreeMap<T, u32>, now: &BTreeSet<T>) -> BTreeSet<T> {
    seen.retain(|key, _| now.contains(key));
    for key in now {
        *seen.entry(key.clone()).or_default() += 1;
    }
    seen.iter()
        .filter(|(_, times)| **times >= SIGHTINGS)
        .map(|(key, _)| key.clone())
        .collect()
}

/// Runs for ever; says when it has seen everything once.
pub async fn repair(
    services: Arc<Store>,
    addresses: Arc<Addresses>,
    ports: Arc<NodePorts>,
    repaired: Step,
) {
    let mut stray_ports = BTreeMap::new();
    let mut leaked_ports = BTreeSet::new();
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let all = addresses::list(&services, &Selector::default()).await;
        let in_use: BTreeSet<u16> = all.iter().flat_map(fields::node_ports).collect();
        let metrics = &addresses.metrics;
        match ports.reconcile(&in_use, &leaked_ports).await {
            Ok(unclaimed) => {
                metrics.ports_leaked(leaked_ports.difference(&in_use).count());
                leaked_ports = count(&mut stray_ports, &unclaimed);
            }
            Err(e) => {
                metrics.port_repair_failed();
                tracing::warn!(error = %e, "repairing node ports");
            }
        }
        for name in strays(&all, &addresses.all().await, Timestamp::now()) {
            metrics.address_repaired("leak");
            if let Err(e) = addresses.delete(&name).await {
                metrics.address_repair_failed();
                tracing::warn!(address = name, error = %e, "repairing cluster addresses");
            }
        }
        restore(&all, &addresses).await;
        repaired.done();
    }
}

/// Addresses that no Service has, and that have waited long enough for one.
fn strays(services: &[Value], objects: &[Value], now: Timestamp) -> BTreeSet<String> {
    let owned: BTreeSet<(String, String, IpAddr)> = services
        .iter()
        .flat_map(|s| {
            let m = meta(s);
            let (namespace, name) = (m.namespace().to_owned(), m.name().to_owned());
            fields::addresses(s)
                .into_iter()
                .map(move |ip| (namespace.clone(), name.clone(), ip))
        })
        .collect();
    objects
        .iter()
        .filter_map(|object| {
            let parent = &object["spec"]["parentRef"];
            let text = |key: &str| parent[key].as_str().unwrap_or_default().to_owned();
            let name = meta(object).name();
            let key = (text("namespace"), text("name"), name.parse().ok()?);
            let created = object["metadata"]["creationTimestamp"].as_str()?;
            let created: Timestamp = created.parse().ok()?;
            (!owned.contains(&key) && now.duration_since(created) > GRACE).then(|| name.to_owned())
        })
        .collect()
}

/// Makes the IPAddress of Services that have none, such as those from before there were any.
async fn restore(services: &[Value], addresses: &Addresses) {
    let known: BTreeSet<String> = addresses
        .all()
        .await
        .iter()
        .map(|o| meta(o).name().to_owned())
        .collect();
    for service in services {
        for ip in fields::addresses(service) {
            if known.contains(&ip.to_string()) {
                continue;
            }
            match addresses.create(ip, service).await {
                Ok(()) => addresses.metrics.address_repaired("repair"),
                Err(AllocationError::Taken) => {}
                Err(e) => {
                    addresses.metrics.address_repaired(match &e {
                        AllocationError::OutOfRange(..) | AllocationError::NoRange(_) => {
                            "outOfRange"
                        }
                        AllocationError::Full => "full",
                        _ => "unknown",
                    });
                    addresses.metrics.address_repair_failed();
                    tracing::warn!(%ip, error = %e, "repairing cluster addresses");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_stays_without_an_owner_is_leaked() {
        let mut seen = BTreeMap::new();
        let stray = BTreeSet::from([1, 2]);
        assert!(count(&mut seen, &stray).is_empty());
        assert!(count(&mut seen, &stray).is_empty());
        assert_eq!(count(&mut seen, &BTreeSet::from([1])), BTreeSet::from([1]));
        assert!(count(&mut seen, &stray).contains(&1));
        assert!(!count(&mut seen, &BTreeSet::from([2])).contains(&2));
    }

    #[test]
    fn an_address_belongs_to_its_service() {
        let service = json!({"metadata": {"namespace": "a", "name": "s"},
                             "spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}});
        let object = |ip: &str, name: &str, created: &str| {
            json!({"metadata": {"name": ip, "creationTimestamp": created},
                   "spec": {"parentRef": {"namespace": "a", "name": name}}})
        };
        let objects = [
            object("10.0.0.1", "s", "2026-01-01T00:00:00Z"),
            object("10.0.0.2", "s", "2026-01-01T00:00:00Z"),
            object("10.0.0.3", "t", "2026-01-01T00:00:29Z"),
            object("10.0.0.4", "t", "2026-01-01T00:00:31Z"),
        ];
        let now = "2026-01-01T00:01:30Z".parse().unwrap();
        let found = strays(&[service], &objects, now);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            ["10.0.0.2", "10.0.0.3"]
        );
    }
}
