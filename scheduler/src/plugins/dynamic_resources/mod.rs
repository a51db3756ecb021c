//! DynamicResources: a pod goes where the devices are that its claims ask for. Which devices
//! a claim gets when the pod has its node, [`allocator`] decides; writing it is not done here.

pub mod allocator;
mod capacity;
mod constraint;
pub mod extended;
mod pools;
mod selector;

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::placement;
use client::{Object as _, ObjectKey};
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceTaint, DeviceToleration, ResourceClaim,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use self::allocator::{AllocateError, Question};
use self::extended::Mappings;
use self::selector::Selectors;

use crate::cache::devices::{DeviceEvent, Devices, allocation_of, is_reserved_for};
use crate::cache::{Cache, NodeInfo};
use crate::framework::{
    ClusterEvent, Filter, Hint, Normalize, Own, Plugin, Rejection, Relief, Shift, Verdict,
};
use crate::model::PodInfo;
use crate::model::pod::ClaimSource;

pub const NAME: &str = "DynamicResources";
/// How many alternatives a request may have (`FirstAvailableDeviceRequestMaxSize`).
const MOST_ALTERNATIVES: i64 = 8;

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

/// Whether the devices of an allocated claim are ready; or why they never will be.
pub fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    let Some(allocation) = allocation_of(claim) else {
        return Ok(false);
    };
    let status = claim.status.as_ref().and_then(|s| s.devices.as_deref());
    let results = allocation
        .devices
        .as_ref()
        .and_then(|d| d.results.as_deref());
    for result in results.unwrap_or_default() {
        let wanted = result.binding_conditions.as_deref().unwrap_or_default();
        if wanted.is_empty() {
            continue;
        }
        let known = status.unwrap_or_default().iter().find(|d| {
            d.device == result.device && d.driver == result.driver && d.pool == result.pool
        });
        let Some(known) = known else {
            return Ok(false);
        };
        let conditions = known.conditions.as_deref().unwrap_or_default();
        let holds = |ty: &String| -> Option<&Condition> {
            conditions
                .iter()
                .find(|c| c.type_ == *ty && c.status == "True")
        };
        let failures = result.binding_failure_conditions.as_deref();
        if let Some(failed) = failures.unwrap_or_default().iter().find_map(holds) {
            return Err(format!(
                "device binding failed: claim={}, reason={}, message={:?}",
                claim.name(),
                failed.reason,
                failed.message
            ));
        }
        if !wanted.iter().all(|ty| holds(ty).is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether devices of an allocated claim have to become ready first.
pub fn has_conditions(claim: &ResourceClaim) -> bool {
    let devices = allocation_of(claim).and_then(|a| a.devices.as_ref());
    let mut results = devices
        .and_then(|d| d.results.as_ref())
        .into_iter()
        .flatten();
    results.any(|r| r.binding_conditions.as_ref().is_some_and(|c| !c.is_empty()))
}

/// Whether they have had long enough to.
pub fn is_overdue(claim: &ResourceClaim, timeout: Duration, now: jiff::Timestamp) -> bool {
    let since = allocation_of(claim).and_then(|a| a.allocation_timestamp.as_ref());
    has_conditions(claim)
        && since.is_some_and(|since| {
            u64::try_from((now - since.0).get_seconds()).is_ok_and(|s| s > timeout.as_secs())
                || now.duration_since(since.0)
                    > jiff::SignedDuration::try_from(timeout).unwrap_or_default()
        })
}

/// What one node has for a pod.
#[derive(Debug, Clone, Default)]
pub struct Allocations {
    /// For each claim that has to be allocated, in order.
    results: Vec<AllocationResult>,
    /// The claim for extended resources, as it is to be written for this node.
    extended: Option<(ResourceClaim, Mappings)>,
}

/// One pod's attempt.
struct Attempt {
    settings: Arc<Settings>,
    pod: Arc<PodInfo>,
    claims: Vec<PodClaim>,
    /// Where allocated claims can be used.
    selectors: Vec<Option<NodeSelector>>,
    found: RefCell<HashMap<usize, Allocations>>,
    /// Allocated claims that some node cannot use.
    unavailable: RefCell<BTreeSet<usize>>,
}

fn unresolvable(reason: impl Into<std::borrow::Cow<'static, str>>) -> Rejection {
    Rejection::unresolvable(reason)
}

impl Attempt {
    /// PreFilter; `None` when the pod has no claims.
    fn new(
        settings: &Arc<Settings>,
        pod: &Arc<PodInfo>,
        devices: &Devices,
    ) -> Result<Option<Self>, Rejection> {
        let own = claims_of(pod, devices).map_err(unresolvable)?.into_iter();
        let mut claims: Vec<PodClaim> = own
            .map(|claim| PodClaim {
                claim,
                extended: false,
            })
            .collect();
        if settings.features.extended_resources && extended::concerns(pod, devices) {
            let known = extended::existing(pod, devices).cloned();
            claims.push(PodClaim {
                claim: known.unwrap_or_else(|| extended::unwritten(pod).into()),
                extended: true,
            });
        }
        if claims.is_empty() {
            return Ok(None);
        }
        for one in &claims {
            if one.allocation().is_none() {
                check(one, devices, &settings.features)?;
            }
        }
        let selector = |one: &PodClaim| one.allocation().and_then(|a| a.node_selector.clone());
        Ok(Some(Self {
            settings: Arc::clone(settings),
            pod: Arc::clone(pod),
            selectors: claims.iter().map(selector).collect(),
            claims,
            found: RefCell::default(),
            unavailable: RefCell::default(),
        }))
    }

    /// Filter: what the node has for the pod.
    fn look(&self, node: &NodeInfo, devices: &Devices) -> Result<Allocations, Rejection> {
        let mut written = None;
        if let Some(one) = self.claims.iter().find(|one| one.extended) {
            let asks = one
                .claim
                .spec
                .devices
                .as_ref()
                .and_then(|d| d.requests.as_ref());
            if asks.is_some_and(|requests| !requests.is_empty()) {
                // An attempt before this one has left it; it has to go first.
                return Err(unresolvable("cannot schedule extended resource claim"));
            }
            let Some(provided) = extended::provided_as_devices(&self.pod, node, devices) else {
                return Err(unresolvable("cannot fit resource"));
            };
            if provided.is_empty() && self.claims.len() == 1 {
                return Ok(Allocations::default());
            }
            written = Some(extended::asking(&one.claim, &self.pod, &provided, devices));
        }
        let mut unavailable = Vec::new();
        let mut wanting = Vec::new();
        for (i, one) in self.claims.iter().enumerate() {
            let elsewhere = self.selectors[i].as_ref().is_some_and(|selector| {
                let mut terms = selector.node_selector_terms.iter();
                !terms.any(|term| placement::matches(term, &node.name, &node.labels))
            });
            if elsewhere {
                unavailable.push(i);
                continue;
            }
            if one.allocation().is_none() {
                wanting.push(match &written {
                    Some((claim, _)) if one.extended => Arc::new(claim.clone()),
                    _ => Arc::clone(&one.claim),
                });
            } else if self.settings.features.binding_conditions {
                let timeout = self.settings.binding_timeout;
                let overdue = || is_overdue(&one.claim, timeout, jiff::Timestamp::now());
                if is_ready(&one.claim).is_ok_and(|ready| ready || !overdue()) {
                    continue;
                }
                unavailable.push(i);
            }
        }
        let mut found = Allocations {
            results: Vec::new(),
            extended: written,
        };
        if !wanting.is_empty() {
            found.results = self.allocate(node, devices, &wanting)?;
        }
        if !unavailable.is_empty() {
            self.unavailable.borrow_mut().extend(unavailable);
            return Err(unresolvable("resourceclaim not available on the node"));
        }
        Ok(found)
    }

    fn allocate(
        &self,
        node: &NodeInfo,
        devices: &Devices,
        claims: &[Arc<ResourceClaim>],
    ) -> Result<Vec<AllocationResult>, Rejection> {
        let features = &self.settings.features;
        let timeout = self
            .settings
            .filter_timeout
            .filter(|_| features.filter_timeout);
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let question = Question {
            features,
            devices,
            node,
            selectors: &self.settings.selectors,
            expired: &|| deadline.is_some_and(|deadline| Instant::now() >= deadline),
            share_id: &share_id,
        };
        match allocator::allocate(&question, claims) {
            Ok(Some(results)) => Ok(results),
            Ok(None) => Err(unresolvable("cannot allocate all claims")),
            Err(AllocateError::Node(why)) => Err(unresolvable(why)),
            Err(AllocateError::Expired) => Err(Rejection::error(format!(
                "running \"{NAME}\" filter plugin: node {}: timed out trying to allocate devices",
                node.name
            ))),
            Err(AllocateError::Broken(why)) => Err(Rejection::error(format!(
                "running \"{NAME}\" filter plugin: {why}"
            ))),
        }
    }

    /// How good the alternatives are that the claims got: the first is the best.
    fn worth(&self, found: &Allocations) -> i64 {
        let mut fresh = found.results.iter();
        let mut score = 0;
        for one in &self.claims {
            let Some(allocation) = one.allocation().or_else(|| fresh.next()) else {
                continue;
            };
            let results = allocation
                .devices
                .as_ref()
                .and_then(|d| d.results.as_deref());
            let got = |name: &str| {
                let results = results.unwrap_or_default();
                results.iter().any(|result| result.request == name)
            };
            let asked = one
                .claim
                .spec
                .devices
                .as_ref()
                .and_then(|d| d.requests.as_deref());
            for request in asked.unwrap_or_default() {
                let alternatives = request.first_available.iter().flatten();
                for (place, alternative) in (0..).zip(alternatives) {
                    if got(&format!("{}/{}", request.name, alternative.name)) {
                        score += MOST_ALTERNATIVES - place;
                    }
                }
            }
        }
        score
    }

    fn has_alternatives(&self) -> bool {
        self.claims.iter().any(|one| {
            let asked = one
                .claim
                .spec
                .devices
                .as_ref()
                .and_then(|d| d.requests.as_deref());
            asked
                .unwrap_or_default()
                .iter()
                .any(|r| r.first_available.is_some())
        })
    }
}

/// A random UUID.
fn share_id() -> String {
    let random: u128 = rand::random();
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// Whether a claim that is not allocated can be, for all that can be said without a node.
fn check(one: &PodClaim, devices: &Devices, features: &Features) -> Result<(), Rejection> {
    let key = one.claim.key();
    if devices.pending(one.claim.uid()) {
        return Err(unresolvable(format!(
            "resource claim {key} is in the process of being allocated"
        )));
    }
    if one.extended {
        return Ok(());
    }
    let class = |class: &str, request: &str| {
        if class.is_empty() {
            return Err(Rejection::error(format!(
                "running PreFilter plugin \"{NAME}\": request {request}: unsupported request type"
            )));
        }
        if devices.class(class).is_none() {
            return Err(unresolvable(format!(
                "request {request}: device class {class} does not exist"
            )));
        }
        Ok(())
    };
    let asked = one
        .claim
        .spec
        .devices
        .as_ref()
        .and_then(|d| d.requests.as_deref());
    for request in asked.unwrap_or_default() {
        let name = &request.name;
        let alternatives = request.first_available.as_deref().unwrap_or_default();
        match &request.exactly {
            Some(exactly) => class(&exactly.device_class_name, name)?,
            None if alternatives.is_empty() => {
                return Err(unresolvable(format!(
                    "resource claim {key}, request {name}: unknown request type"
                )));
            }
            None if !features.prioritized_list => {
                return Err(unresolvable(format!(
                    "resource claim {key}, request {name}: has subrequests, but the DRAPrioritizedList feature is disabled"
                )));
            }
            None => {
                for alternative in alternatives {
                    let full = format!("{name}/{}", alternative.name);
                    class(&alternative.device_class_name, &full)?;
                }
            }
        }
    }
    Ok(())
}

impl Own for Attempt {
    fn judge(&self, node: &NodeInfo, _shifts: &[Shift], cluster: &Cache) -> Verdict {
        let found = self.look(node, &cluster.devices)?;
        self.found.borrow_mut().insert(node.slot, found);
        Ok(())
    }

    fn score(&self, slots: &[usize]) -> Option<Vec<i64>> {
        if !self.settings.features.prioritized_list || !self.has_alternatives() {
            return None;
        }
        let found = self.found.borrow();
        let worth = |slot| found.get(slot).map_or(0, |found| self.worth(found));
        let mut scores: Vec<i64> = slots.iter().map(worth).collect();
        Normalize::Highest.apply(&mut scores);
        Some(scores)
    }

    fn relief(&self) -> Relief {
        for i in &*self.unavailable.borrow() {
            let one = &self.claims[*i];
            let reserved = one
                .claim
                .status
                .as_ref()
                .and_then(|s| s.reserved_for.as_deref());
            let alone = reserved
                .unwrap_or_default()
                .iter()
                .all(|reserved| reserved.uid == *self.pod.uid);
            if !one.extended && alone {
                return Relief::Deallocate(Arc::clone(&one.claim));
            }
        }
        match self.claims.iter().find(|one| one.extended) {
            Some(one) if !one.is_unwritten() => Relief::Delete(Arc::clone(&one.claim)),
            _ => Relief::None,
        }
    }
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
