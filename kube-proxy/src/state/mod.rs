//! What the proxy knows: services and endpoint slices, and which services have changed
//! since the last sync. Synchronous and pure; `apply`, `delete` and `take_changes` are
//! called by one task.
//!
//! What must not be here: nftables, the API client.

mod endpoints;
mod service;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

pub use endpoints::{Endpoint, Slice};
pub use service::{Protocol, Service, ServicePort};

/// `namespace/name` of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    pub namespace: String,
    pub name: String,
}

impl std::fmt::Display for ServiceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The change tracker: upstream's `ServiceChangeTracker` and `EndpointsChangeTracker` in one.
#[derive(Debug)]
pub struct State {
    /// This node's name: which endpoints are local.
    node: String,
    services: HashMap<ServiceName, Service>,
    /// Slices of each service, by slice name.
    slices: HashMap<ServiceName, BTreeMap<String, Slice>>,
    changed: BTreeSet<ServiceName>,
}

impl State {
    pub fn new(node: impl Into<String>) -> Self {
        Self {
            node: node.into(),
            services: HashMap::new(),
            slices: HashMap::new(),
            changed: BTreeSet::new(),
        }
    }

    pub fn apply_service(&mut self, service: &core::Service) {
        let Some(name) = name_of(&service.metadata) else {
            return;
        };
        match Service::parse(service) {
            Some(parsed) => {
                if self.services.get(&name) != Some(&parsed) {
                    self.services.insert(name.clone(), parsed);
                    self.changed.insert(name);
                }
            }
            // It has become headless, external, or somebody else's to proxy.
            None => self.delete_service(&name),
        }
    }

    pub fn delete_service(&mut self, name: &ServiceName) {
        if self.services.remove(name).is_some() {
            self.changed.insert(name.clone());
        }
    }

    pub fn apply_slice(&mut self, slice: &discovery::EndpointSlice) {
        let (Some(service), Some(name)) =
            (endpoints::service_of(slice), slice.metadata.name.clone())
        else {
            return;
        };
        let parsed = Slice::parse(slice, &self.node);
        let slices = self.slices.entry(service.clone()).or_default();
        if slices.get(&name) != Some(&parsed) {
            slices.insert(name, parsed);
            self.changed.insert(service);
        }
    }

    pub fn delete_slice(&mut self, slice: &discovery::EndpointSlice) {
        let (Some(service), Some(name)) =
            (endpoints::service_of(slice), slice.metadata.name.as_ref())
        else {
            return;
        };
        let Some(slices) = self.slices.get_mut(&service) else {
            return;
        };
        if slices.remove(name).is_some() {
            if slices.is_empty() {
                self.slices.remove(&service);
            }
            self.changed.insert(service);
        }
    }

    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.keys()
    }

    /// The endpoints of one port of a service, sorted and without repetitions.
    pub fn endpoints(&self, name: &ServiceName, port: &ServicePort) -> Vec<Endpoint> {
        let slices = self.slices.get(name);
        let mut found: Vec<Endpoint> = slices
            .into_iter()
            .flat_map(|slices| slices.values())
            .flat_map(|slice| slice.endpoints(&port.name, port.protocol))
            .collect();
        found.sort();
        // While a pod moves between slices both may name it.
        found.dedup_by(|a, b| a.address == b.address);
        found
    }

    /// The services that changed since the last call, those that are gone included.
    pub fn take_changes(&mut self) -> BTreeSet<ServiceName> {
        std::mem::take(&mut self.changed)
    }

    /// Puts changes back after a sync that failed.
    pub fn restore_changes(&mut self, changes: BTreeSet<ServiceName>) {
        self.changed.extend(changes);
    }
}

pub fn name_of(
    meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> Option<ServiceName> {
    Some(ServiceName {
        namespace: meta.namespace.clone()?,
        name: meta.name.clone()?,
    })
}

#[cfg(test)]
mod tests;
