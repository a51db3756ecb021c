//! DynamicResources: a pod goes where the devices are that its claims ask for. Which devices
//! a claim gets when the pod has its node, [`allocator`] decides; writing it is not done here.

mod allocator;
mod attempt;
mod capacity;
mod constraint;
pub mod extended;
mod pools;
mod readiness;
mod selector;

use std::sync::Arc;
use std::time::Duration;

use client::{Object as _, ObjectKey};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceTaint, DeviceToleration, ResourceClaim,
};

use self::attempt::Attempt;
use self::extended::Mappings;
pub use self::readiness::{has_conditions, is_overdue, is_ready};
use self::selector::Selectors;

use crate::cache::devices::{DeviceEvent, Devices, allocation_of, is_reserved_for};
use crate::cache::{Cache, NodeInfo};
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection, Verdict};
use crate::model::PodInfo;
use crate::model::pod::ClaimSource;

pub const NAME: &str = "DynamicResources";

/// Feature gates.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools, reason = "each is a gate")]
pub struct Features {
    pub admin_access: bool,
    pub prioritized_list: bool,
    pub partitionable: bool,
    pub device_taints: bool,
    pub binding_conditions: bool,
    pub consumable_capacity: bool,
    pub extended_resources: bool,
    pub filter_timeout: bool,
}

impl Features {
    pub fn new(gate: &dyn Fn(&str) -> bool) -> Self {
        Self {
            admin_access: gate("DRAAdminAccess"),
            prioritized_list: gate("DRAPrioritizedList"),
            partitionable: gate("DRAPartitionableDevices"),
            device_taints: gate("DRADeviceTaints"),
            binding_conditions: gate("DRADeviceBindingConditions")
                && gate("DRAResourceClaimDeviceStatus"),
            consumable_capacity: gate("DRAConsumableCapacity"),
            extended_resources: gate("DRAExtendedResource"),
            filter_timeout: gate("DRASchedulerFilterTimeout"),
        }
    }
}

pub struct DynamicResources(Arc<Settings>);

pub struct Settings {
    pub features: Features,
    /// How long finding devices on one node may take.
    pub filter_timeout: Option<Duration>,
    /// How long devices may take to become ready (`BindingConditions`).
    pub binding_timeout: Duration,
    selectors: Selectors,
}

/// Whether a claim puts up with a taint of a device.
pub fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match text(&toleration.operator).as_str() {
            "" | "Equal" => text(&toleration.value) == text(&taint.value),
            "Exists" => true,
            _ => false,
        }
}

/// A claim of a pod.
#[derive(Debug, Clone)]
struct PodClaim {
    claim: Arc<ResourceClaim>,
    /// It is for the pod's extended resources.
    extended: bool,
}

impl PodClaim {
    fn allocation(&self) -> Option<&AllocationResult> {
        allocation_of(&self.claim)
    }

    /// It is not in the API yet.
    fn is_unwritten(&self) -> bool {
        self.extended && self.claim.name() == extended::UNNAMED
    }
}

/// The claims that a pod names; or why it cannot be scheduled for now.
fn claims_of(pod: &PodInfo, devices: &Devices) -> Result<Vec<Arc<ResourceClaim>>, String> {
    let mut claims = Vec::with_capacity(pod.claims.len());
    for named in &pod.claims {
        let (name, owned) = match &named.source {
            ClaimSource::Named(name) => (name, false),
            ClaimSource::Made(Some(name)) => (name, true),
            // It was seen that none is needed.
            ClaimSource::NotNeeded => continue,
            ClaimSource::Made(None) => {
                return Err(format!(
                    "pod \"{}\": ResourceClaim not created yet",
                    pod.key
                ));
            }
            ClaimSource::Unknown => {
                return Err(format!(
                    "pod \"{}\", spec.resourceClaim {:?}: none of the supported fields are set",
                    pod.key, named.name
                ));
            }
        };
        let key = ObjectKey::new(pod.key.namespace(), name);
        let Some(claim) = devices.claim(&key) else {
            return Err(format!("could not find *v1.ResourceClaim \"{key}\""));
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("resourceclaim {name:?} is being deleted"));
        }
        let owners = claim
            .metadata
            .owner_references
            .as_deref()
            .unwrap_or_default();
        let is_owner = || {
            let mut owners = owners.iter().filter(|o| o.controller == Some(true));
            owners.any(|o| o.uid == *pod.uid)
        };
        if owned && !is_owner() {
            return Err(format!(
                "ResourceClaim {key} was not created for Pod {} (Pod is not owner)",
                pod.key
            ));
        }
        claims.push(Arc::clone(claim));
    }
    Ok(claims)
}

fn unresolvable(reason: impl Into<std::borrow::Cow<'static, str>>) -> Rejection {
    Rejection::unresolvable(reason)
}

/// What has to be written before a pod can be bound.
#[derive(Debug)]
pub struct Promise {
    pub claims: Vec<Promised>,
    pub settings: Arc<Settings>,
}

#[derive(Debug)]
pub struct Promised {
    pub claim: Arc<ResourceClaim>,
    /// Under which UID it is remembered.
    pub uid: Box<str>,
    /// `None` when it has one.
    pub allocation: Option<Arc<AllocationResult>>,
    /// For extended resources: what the pod's status is to say.
    pub mappings: Option<Mappings>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}

impl DynamicResources {
    pub fn new(
        features: Features,
        filter_timeout: Option<Duration>,
        binding_timeout: Duration,
    ) -> Self {
        Self(Arc::new(Settings {
            features,
            filter_timeout,
            binding_timeout,
            selectors: Selectors::default(),
        }))
    }

    /// Reserve: what the pod's claims get on the node; `None` when there is nothing to write.
    pub fn promise(
        &self,
        pod: &Arc<PodInfo>,
        node: &NodeInfo,
        devices: &Devices,
    ) -> Result<Option<Promise>, String> {
        let text = |rejection: Rejection| rejection.reasons.join(", ");
        let Some(attempt) = Attempt::new(&self.0, pod, devices).map_err(text)? else {
            return Ok(None);
        };
        let found = attempt.look(node, devices).map_err(text)?;
        let mut results = found.results.into_iter();
        let (mut written, mut mappings) = found.extended.unzip();
        let mut claims = Vec::new();
        for one in attempt.claims {
            let uid = one.claim.uid().into();
            let allocated = one.allocation().is_some();
            let mut promised = Promised {
                claim: one.claim,
                uid,
                allocation: None,
                mappings: None,
            };
            if !allocated {
                match results.next() {
                    Some(result) => promised.allocation = Some(Arc::new(result)),
                    // The node has all that was asked for without devices.
                    None if one.extended => continue,
                    None => return Err("claim allocation not found for node".to_owned()),
                }
            }
            if one.extended {
                if let Some(written) = written.take() {
                    promised.claim = written.into();
                }
                promised.mappings = mappings.take();
            }
            claims.push(promised);
        }
        Ok((!claims.is_empty()).then(|| Promise {
            claims,
            settings: Arc::clone(&self.0),
        }))
    }
}

impl Promise {
    pub fn remember(&self, devices: &mut Devices) {
        for promised in &self.claims {
            if let Some(allocation) = &promised.allocation {
                devices.promise(&promised.uid, Arc::clone(allocation));
            }
        }
    }

    /// Forgets what has been written or will not be.
    pub fn forget(&self, devices: &mut Devices) {
        for promised in &self.claims {
            devices.settle(&promised.uid);
        }
    }
}

fn uses(pod: &PodInfo, claim: &ResourceClaim, devices: &Devices) -> Result<bool, String> {
    let claims = claims_of(pod, devices)?;
    Ok(claims.iter().any(|own| own.uid() == claim.uid()))
}

fn after_claim(
    pod: &PodInfo,
    old: Option<&ResourceClaim>,
    new: &ResourceClaim,
    devices: &Devices,
) -> Hint {
    let Ok(uses) = uses(pod, new, devices) else {
        return Hint::Skip;
    };
    let freed = old.is_some_and(|old| allocation_of(old).is_some()) && allocation_of(new).is_none();
    if freed {
        return Hint::Queue;
    }
    Hint::queue_if(uses && old.is_none_or(|old| old.status != new.status))
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        NAME
    }

    fn admit(&self, pod: &PodInfo, cluster: &Cache) -> Verdict {
        claims_of(pod, &cluster.devices)
            .map(drop)
            .map_err(unresolvable)
    }

    fn is_own(&self, pod: &PodInfo) -> bool {
        !pod.claims.is_empty() || !pod.extended.is_empty()
    }

    fn filter(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Filter {
        match Attempt::new(&self.0, pod, &cluster.devices) {
            Ok(Some(attempt)) => Filter::Own(Box::new(attempt)),
            Ok(None) => Filter::Skip,
            Err(rejection) => Filter::Reject(rejection),
        }
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, cluster: &Cache) -> Hint {
        match event {
            ClusterEvent::NodeAdded(_) => Hint::Queue,
            ClusterEvent::NodeUpdated { old, new } => Hint::queue_if(
                old.metadata.labels != new.metadata.labels
                    || old.status.allocatable != new.status.allocatable,
            ),
            ClusterEvent::Devices(DeviceEvent::Claim { old, new }) => {
                after_claim(pod, old.as_deref(), new, &cluster.devices)
            }
            ClusterEvent::Devices(_) => Hint::Queue,
            ClusterEvent::PodChanged { old } => {
                Hint::queue_if(old.claims != pod.claims && claims_of(pod, &cluster.devices).is_ok())
            }
            _ => Hint::Skip,
        }
    }
}

/// Whether PreBind has to write that the claim is for the pod.
pub fn needs_reservation(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    !is_reserved_for(claim, &pod.uid)
}

#[cfg(test)]
mod tests;
