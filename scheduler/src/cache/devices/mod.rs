//! Claims of devices, their classes, and the slices that drivers publish devices in; and
//! which devices are taken. Synchronous.
//!
//! What has been allocated to a claim, and is not yet in the API, is remembered here: no
//! device is given away twice (`claimTracker` and its assume cache).

pub mod slice;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::{Object as _, ObjectKey};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceClass, DeviceRequestAllocationResult, ResourceClaim,
};
use meta::quantity::Quantity;

pub use slice::{DeviceId, Slice};

/// The extended resource of every class, with the class's name behind it.
pub const CLASS_RESOURCE_PREFIX: &str = "deviceclass.resource.kubernetes.io/";

/// Amounts of a device's capacity, by name.
pub type Capacities = BTreeMap<String, Quantity>;

/// What has happened to devices that may help a pod.
#[derive(Debug)]
pub enum DeviceEvent {
    Claim {
        old: Option<Arc<ResourceClaim>>,
        new: Arc<ResourceClaim>,
    },
    Class {
        added: bool,
    },
    Slice {
        added: bool,
    },
}

impl DeviceEvent {
    pub fn label(&self) -> &'static str {
        match self {
            Self::Claim { old: None, .. } => "ResourceClaimAdd",
            Self::Claim { .. } => "ResourceClaimUpdate",
            Self::Class { added: true } => "DeviceClassAdd",
            Self::Class { added: false } => "DeviceClassUpdate",
            Self::Slice { added: true } => "ResourceSliceAdd",
            Self::Slice { added: false } => "ResourceSliceUpdate",
        }
    }
}

/// Devices that claims have.
#[derive(Debug, Default)]
struct Taken {
    /// Those that one claim has for itself, and by how many allocations (one, but for
    /// moments and mistakes).
    whole: HashMap<DeviceId, usize>,
    /// Those that claims share, and how many do.
    shared: HashMap<DeviceId, usize>,
    /// What the shares use up.
    capacity: HashMap<DeviceId, Capacities>,
}

#[derive(Debug, Default)]
pub struct Devices {
    claims: HashMap<ObjectKey, Arc<ResourceClaim>>,
    classes: HashMap<Box<str>, Arc<DeviceClass>>,
    /// Classes by the extended resource that they stand for.
    extended: HashMap<Box<str>, Arc<DeviceClass>>,
    slices: HashMap<Box<str>, Arc<Slice>>,
    /// Names of slices of one node's devices, by the node.
    of_node: HashMap<Box<str>, Vec<Box<str>>>,
    /// Names of all other slices.
    of_many: Vec<Box<str>>,
    /// Allocations on their way to the API, by the claim's UID.
    pending: HashMap<Box<str>, Arc<AllocationResult>>,
    taken: Taken,
}

fn results(allocation: &AllocationResult) -> impl Iterator<Item = &DeviceRequestAllocationResult> {
    let devices = allocation.devices.as_ref();
    devices
        .and_then(|d| d.results.as_ref())
        .into_iter()
        .flatten()
}

/// A claim's allocation, if it has one.
pub fn allocation_of(claim: &ResourceClaim) -> Option<&AllocationResult> {
    claim.status.as_ref()?.allocation.as_ref()
}

pub fn is_reserved_for(claim: &ResourceClaim, uid: &str) -> bool {
    let reserved = claim.status.as_ref().and_then(|s| s.reserved_for.as_ref());
    reserved.is_some_and(|reserved| reserved.iter().any(|r| r.uid == uid))
}

/// As it is in the API; 0 when it is none.
pub fn quantity(quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Quantity {
    Quantity::try_from(quantity).unwrap_or_default()
}

impl Taken {
    fn count(&mut self, allocation: &AllocationResult, add: bool) {
        fn change(counts: &mut HashMap<DeviceId, usize>, id: &DeviceId, add: bool) {
            let count = counts.entry(id.clone()).or_default();
            *count = if add {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
            if *count == 0 {
                counts.remove(id);
            }
        }
        for result in results(allocation) {
            // Who looks after a device does not take it.
            if result.admin_access == Some(true) {
                continue;
            }
            let id = DeviceId::new(&result.driver, &result.pool, &result.device);
            if result.share_id.is_none() {
                change(&mut self.whole, &id, add);
                continue;
            }
            change(&mut self.shared, &id, add);
            let used = self.capacity.entry(id.clone()).or_default();
            for (name, amount) in result.consumed_capacity.iter().flatten() {
                let sum = used.entry(name.clone()).or_default();
                if add {
                    sum.add(&quantity(amount));
                } else {
                    sum.sub(&quantity(amount));
                }
            }
            if !self.shared.contains_key(&id) {
                self.capacity.remove(&id);
            }
        }
    }
}

impl Devices {
    pub fn claim(&self, key: &ObjectKey) -> Option<&Arc<ResourceClaim>> {
        self.claims.get(key)
    }

    pub fn claims(&self) -> impl Iterator<Item = &Arc<ResourceClaim>> {
        self.claims.values()
    }

    /// Keeps a version of a claim, unless a newer one is known. Returns the one before, and
    /// whether this one is kept.
    pub fn put_claim(&mut self, claim: &Arc<ResourceClaim>) -> (Option<Arc<ResourceClaim>>, bool) {
        let key = claim.key();
        let before = self.claims.get(&key).cloned();
        let version = |claim: &ResourceClaim| claim.resource_version().parse::<u64>().unwrap_or(0);
        if let Some(before) = &before {
            if before.uid() == claim.uid() && version(before) >= version(claim) {
                return (Some(Arc::clone(before)), false);
            }
            self.count(before, false);
        }
        self.count(claim, true);
        self.claims.insert(key, Arc::clone(claim));
        (before, true)
    }

    pub fn remove_claim(&mut self, key: &ObjectKey) {
        if let Some(claim) = self.claims.remove(key) {
            self.count(&claim, false);
        }
    }

    fn count(&mut self, claim: &ResourceClaim, add: bool) {
        let Some(allocation) = allocation_of(claim) else {
            return;
        };
        if add {
            // It is what was on its way.
            self.settle(claim.uid());
        }
        self.taken.count(allocation, add);
    }

    pub fn class(&self, name: &str) -> Option<&Arc<DeviceClass>> {
        self.classes.get(name)
    }

    /// The class that an extended resource stands for (KEP-5004).
    pub fn class_for(&self, resource: &str) -> Option<&Arc<DeviceClass>> {
        self.extended.get(resource)
    }

    pub fn put_class(&mut self, class: &Arc<DeviceClass>) {
        self.classes.insert(class.name().into(), Arc::clone(class));
        self.map_resources();
    }

    pub fn remove_class(&mut self, name: &str) {
        self.classes.remove(name);
        self.map_resources();
    }

    /// Of classes that stand for one resource the newest does, and of those that are as new
    /// the one whose name comes first.
    fn map_resources(&mut self) {
        self.extended.clear();
        let made = |class: &DeviceClass| class.metadata.creation_timestamp.as_ref().map(|t| t.0);
        for (name, class) in &self.classes {
            let implicit = format!("{CLASS_RESOURCE_PREFIX}{name}");
            self.extended.insert(implicit.into(), Arc::clone(class));
            let Some(resource) = class.spec.extended_resource_name.as_deref() else {
                continue;
            };
            let better = self
                .extended
                .get(resource)
                .is_none_or(|other| (made(class), other.name()) > (made(other), class.name()));
            if better {
                self.extended.insert(resource.into(), Arc::clone(class));
            }
        }
    }

    pub fn put_slice(&mut self, slice: Slice) {
        self.remove_slice(&slice.name.clone());
        let name = slice.name.clone();
        self.names_of(&slice).push(name.clone());
        self.slices.insert(name, Arc::new(slice));
    }

    pub fn remove_slice(&mut self, name: &str) {
        let Some(slice) = self.slices.remove(name) else {
            return;
        };
        self.names_of(&slice).retain(|n| &**n != name);
    }

    fn names_of(&mut self, slice: &Slice) -> &mut Vec<Box<str>> {
        match &slice.node_name {
            Some(node) if slice.shared_counters.is_empty() => {
                self.of_node.entry(node.clone()).or_default()
            }
            _ => &mut self.of_many,
        }
    }

    /// Slices that may have devices for a node.
    pub fn slices_for(&self, node: &str) -> impl Iterator<Item = &Arc<Slice>> {
        let own = self.of_node.get(node).into_iter().flatten();
        own.chain(&self.of_many)
            .filter_map(|name| self.slices.get(name))
    }

    pub fn slices(&self) -> impl Iterator<Item = &Arc<Slice>> {
        self.slices.values()
    }

    pub fn pending(&self, uid: &str) -> bool {
        self.pending.contains_key(uid)
    }

    /// Remembers what is going to be written.
    pub fn promise(&mut self, uid: &str, allocation: Arc<AllocationResult>) {
        self.settle(uid);
        self.taken.count(&allocation, true);
        self.pending.insert(uid.into(), allocation);
    }

    /// Forgets it: it has been written, or will not be.
    pub fn settle(&mut self, uid: &str) {
        if let Some(allocation) = self.pending.remove(uid) {
            self.taken.count(&allocation, false);
        }
    }

    /// Whether one claim has the device for itself.
    pub fn is_taken(&self, id: &DeviceId) -> bool {
        self.taken.whole.contains_key(id)
    }

    /// Whether claims have it, or parts of it.
    pub fn is_allocated(&self, id: &DeviceId) -> bool {
        self.is_taken(id) || self.taken.shared.contains_key(id)
    }

    /// What claims have of a device that is shared.
    pub fn capacity_taken(&self, id: &DeviceId) -> Option<&Capacities> {
        self.taken.capacity.get(id)
    }
}

#[cfg(test)]
mod tests;
