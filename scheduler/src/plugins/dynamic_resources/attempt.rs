//! One pod's attempt: what each node has for its claims.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use api::placement;
use client::Object as _;
use k8s_openapi::api::core::v1::NodeSelector;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use super::allocator::{self, AllocateError, Question};
use super::extended::{self, Mappings};
use super::readiness::{is_overdue, is_ready};
use super::{Features, NAME, PodClaim, Settings, claims_of, unresolvable};
use crate::cache::devices::Devices;
use crate::cache::{Cache, NodeInfo};
use crate::framework::{Normalize, Own, Rejection, Relief, Shift, Verdict};
use crate::model::PodInfo;

/// How many alternatives a request may have (`FirstAvailableDeviceRequestMaxSize`).
const MOST_ALTERNATIVES: i64 = 8;

/// What one node has for a pod.
#[derive(Debug, Clone, Default)]
pub struct Allocations {
    /// For each claim that has to be allocated, in order.
    pub results: Vec<AllocationResult>,
    /// The claim for extended resources, as it is to be written for this node.
    pub extended: Option<(ResourceClaim, Mappings)>,
}

/// One pod's attempt.
pub struct Attempt {
    settings: Arc<Settings>,
    pod: Arc<PodInfo>,
    pub claims: Vec<PodClaim>,
    /// Where allocated claims can be used.
    selectors: Vec<Option<NodeSelector>>,
    found: RefCell<HashMap<usize, Allocations>>,
    /// Allocated claims that some node cannot use.
    unavailable: RefCell<BTreeSet<usize>>,
}

impl Attempt {
    /// PreFilter; `None` when the pod has no claims.
    pub fn new(
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
    pub fn look(&self, node: &NodeInfo, devices: &Devices) -> Result<Allocations, Rejection> {
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
