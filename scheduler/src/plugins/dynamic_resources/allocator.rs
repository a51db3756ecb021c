//! Finds devices for claims on one node: candidates are tried one after the other, and the
//! first solution is taken (the structured allocator of upstream). Pure; how long it may
//! take is asked of the caller.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::Object as _;
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceClass,
    DeviceRequest, DeviceRequestAllocationResult, DeviceSelector, DeviceToleration, ResourceClaim,
};

use super::capacity;
use super::constraint::Constraint;
use super::pools::{self, Pool, State};
use super::selector::Selectors;
use super::{Features, tolerates};
use crate::cache::NodeInfo;
use crate::cache::devices::slice::Device;
use crate::cache::devices::{Capacities, DeviceId, Devices, Slice, quantity};

/// The most devices that one claim may have (`AllocationResultsMaxSize`).
const MOST_DEVICES: usize = 32;

/// What is asked of the allocator, beside the claims.
pub struct Question<'a> {
    pub features: &'a Features,
    pub devices: &'a Devices,
    pub node: &'a NodeInfo,
    pub selectors: &'a Selectors,
    /// Whether it has taken too long.
    pub expired: &'a dyn Fn() -> bool,
    /// Draws the ID of a share.
    pub share_id: &'a dyn Fn() -> String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllocateError {
    /// Not on this node, and why.
    Node(String),
    Expired,
    /// On no node: something is wrong with the claim or a class.
    Broken(String),
}

/// A request, or one of the alternatives of one.
struct Request<'a> {
    name: &'a str,
    /// The request that it is an alternative of.
    parent: Option<&'a str>,
    class: Arc<DeviceClass>,
    all: bool,
    admin: bool,
    selectors: &'a [DeviceSelector],
    tolerations: &'a [DeviceToleration],
    capacity: Option<Capacities>,
    /// How many devices it takes.
    number: usize,
    /// Which ones, if it asks for all.
    candidates: Vec<At>,
}

impl Request<'_> {
    fn full_name(&self) -> String {
        match self.parent {
            Some(parent) => format!("{parent}/{}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The request's name, and the alternative's if it is one.
    fn names(&self) -> (&str, Option<&str>) {
        match self.parent {
            Some(parent) => (parent, Some(self.name)),
            None => (self.name, None),
        }
    }
}

/// A device by its place in the pools; also where to go on looking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
struct At {
    pool: usize,
    slice: usize,
    device: usize,
}

/// Which device of which request is next.
#[derive(Debug, Clone, Copy, Default)]
struct Next {
    claim: usize,
    request: usize,
    alternative: usize,
    device: usize,
}

/// A device that a claim is to have.
struct Given {
    at: At,
    request: usize,
    alternative: usize,
    share: Option<(String, Capacities)>,
}

/// Why the search does not go on here.
enum Halt {
    /// The claim has too many devices this way: no other device helps, another alternative
    /// may.
    TooMany,
    Error(AllocateError),
}

struct Search<'a> {
    question: &'a Question<'a>,
    claims: &'a [Arc<ResourceClaim>],
    pools: Vec<Pool>,
    /// By claim, request and alternative.
    requests: Vec<Vec<Vec<Request<'a>>>>,
    /// The alternative that was taken, by claim and request.
    selected: Vec<Vec<usize>>,
    constraints: Vec<Vec<Constraint>>,
    given: Vec<Vec<Given>>,
    /// Devices that this search gives, and to which of its claims.
    in_use: HashMap<DeviceId, HashSet<usize>>,
    /// Capacities of shared devices that it gives.
    promised: HashMap<DeviceId, Vec<Capacities>>,
    /// Counters that are left, by pool.
    counters: HashMap<usize, HashMap<Box<str>, Capacities>>,
    /// Whether a device is one that a request selects.
    selects: HashMap<(usize, usize, usize, At), bool>,
}

fn requests(claim: &ResourceClaim) -> &[DeviceRequest] {
    let devices = claim.spec.devices.as_ref();
    devices
        .and_then(|d| d.requests.as_deref())
        .unwrap_or_default()
}

fn broken<T>(text: String) -> Result<T, AllocateError> {
    Err(AllocateError::Broken(text))
}

/// Allocations for all claims; `None` when the node does not have what they ask for.
pub fn allocate(
    question: &Question<'_>,
    claims: &[Arc<ResourceClaim>],
) -> Result<Option<Vec<AllocationResult>>, AllocateError> {
    let mut search = Search {
        question,
        claims,
        pools: pools::gather(question.devices, question.node, question.features),
        requests: Vec::new(),
        selected: Vec::new(),
        constraints: Vec::new(),
        given: claims.iter().map(|_| Vec::new()).collect(),
        in_use: HashMap::new(),
        promised: HashMap::new(),
        counters: HashMap::new(),
        selects: HashMap::new(),
    };
    for (index, claim) in claims.iter().enumerate() {
        search.prepare(index, claim)?;
    }
    match search.step(Next::default(), false, At::default()) {
        Ok(true) => search.results().map(Some),
        Ok(false) | Err(Halt::TooMany) => {
            if search.pools.iter().any(|pool| pool.state == State::Invalid) {
                let why = "invalid resource pools were encountered".to_owned();
                return Err(AllocateError::Node(why));
            }
            Ok(None)
        }
        Err(Halt::Error(error)) => Err(error),
    }
}

impl<'a> Search<'a> {
    fn slice(&self, at: At) -> &Arc<Slice> {
        &self.pools[at.pool].slices[at.slice]
    }

    fn device(&self, at: At) -> &Device {
        &self.slice(at).devices[at.device]
    }

    fn request(&self, next: Next) -> &Request<'a> {
        &self.requests[next.claim][next.request][next.alternative]
    }

    /// Reads a claim, and sees whether what it asks for makes sense.
    fn prepare(&mut self, index: usize, claim: &'a ResourceClaim) -> Result<(), AllocateError> {
        let key = claim.key();
        let features = self.question.features;
        self.requests.push(Vec::new());
        let mut fewest = 0;
        for (at, request) in requests(claim).iter().enumerate() {
            self.requests[index].push(Vec::new());
            let name = request.name.as_str();
            let alternatives = request.first_available.as_deref().unwrap_or_default();
            if !features.prioritized_list && !alternatives.is_empty() {
                return broken(format!(
                    "claim {key}, request {name}: has subrequests, but the DRAPrioritizedList feature is disabled"
                ));
            }
            let mut fewest_here = usize::MAX;
            let one = request.exactly.as_ref().filter(|_| alternatives.is_empty());
            let exactly = one.map(|r| Asked {
                name,
                parent: None,
                class: &r.device_class_name,
                mode: r.allocation_mode.as_deref().unwrap_or_default(),
                count: r.count.unwrap_or(0),
                admin: r.admin_access,
                selectors: r.selectors.as_deref().unwrap_or_default(),
                tolerations: r.tolerations.as_deref().unwrap_or_default(),
                capacity: r.capacity.as_ref(),
            });
            let others = alternatives.iter().map(|r| Asked {
                name: &r.name,
                parent: Some(name),
                class: &r.device_class_name,
                mode: r.allocation_mode.as_deref().unwrap_or_default(),
                count: r.count.unwrap_or(0),
                admin: None,
                selectors: r.selectors.as_deref().unwrap_or_default(),
                tolerations: r.tolerations.as_deref().unwrap_or_default(),
                capacity: r.capacity.as_ref(),
            });
            for asked in exactly.into_iter().chain(others) {
                self.read(index, at, claim, &asked)?;
                let read = self.requests[index][at].last();
                fewest_here = fewest_here.min(read.map_or(0, |r| r.number));
            }
            fewest += if fewest_here == usize::MAX {
                0
            } else {
                fewest_here
            };
        }
        if fewest > MOST_DEVICES {
            return broken(format!(
                "claim {key}: number of requested devices {fewest} exceeds the claim limit of {MOST_DEVICES}"
            ));
        }
        let devices = claim.spec.devices.as_ref();
        let given = devices
            .and_then(|d| d.constraints.as_deref())
            .unwrap_or_default();
        let mut constraints = Vec::with_capacity(given.len());
        for (i, constraint) in given.iter().enumerate() {
            match Constraint::new(constraint) {
                Some(constraint) => constraints.push(constraint),
                None => {
                    return broken(format!(
                        "claim {key}, constraint #{i}: empty constraint (unsupported constraint type?)"
                    ));
                }
            }
        }
        self.constraints.push(constraints);
        self.selected.push(vec![0; requests(claim).len()]);
        Ok(())
    }

    fn read(
        &mut self,
        claim_index: usize,
        request_index: usize,
        claim: &'a ResourceClaim,
        asked: &Asked<'a>,
    ) -> Result<(), AllocateError> {
        let (key, name) = (claim.key(), asked.name);
        let features = self.question.features;
        if !features.consumable_capacity && asked.capacity.is_some() {
            let what = if asked.parent.is_some() {
                "subrequest"
            } else {
                "request"
            };
            return broken(format!(
                "claim {key}, {what} {name}: has capacity requests, but the DRAConsumableCapacity feature is disabled"
            ));
        }
        for (i, selector) in asked.selectors.iter().enumerate() {
            if selector.cel.is_none() {
                return broken(format!(
                    "claim {key}, request {name}, selector #{i}: CEL expression empty (unsupported selector type?)"
                ));
            }
        }
        if !features.admin_access && asked.admin.is_some() {
            return broken(format!(
                "claim {key}, request {name}: admin access is requested, but the feature is disabled"
            ));
        }
        if asked.class.is_empty() {
            return broken(format!(
                "claim {key}, request {name}: missing device class name (unsupported request type?)"
            ));
        }
        let Some(class) = self.question.devices.class(asked.class) else {
            return broken(format!(
                "claim {key}, request {name}: could not retrieve device class {class}: deviceclass.resource.k8s.io {class:?} not found",
                class = asked.class
            ));
        };
        let requested = asked
            .capacity
            .and_then(|capacity| capacity.requests.as_ref());
        self.requests[claim_index][request_index].push(Request {
            name,
            parent: asked.parent,
            class: Arc::clone(class),
            all: asked.mode == "All",
            admin: asked.admin == Some(true),
            selectors: asked.selectors,
            tolerations: asked.tolerations,
            capacity: requested.map(|requested| {
                let amount = |(name, q): (&String, _)| (name.clone(), quantity(q));
                requested.iter().map(amount).collect()
            }),
            number: usize::try_from(asked.count).unwrap_or(0),
            candidates: Vec::new(),
        });
        match asked.mode {
            "ExactCount" => Ok(()),
            "All" => self.find_all(claim_index, request_index, &key.to_string()),
            other => broken(format!(
                "claim {key}, request {name}: unsupported count mode {other}"
            )),
        }
    }

    /// Which devices a request for all is about.
    fn find_all(&mut self, claim: usize, request: usize, key: &str) -> Result<(), AllocateError> {
        let alternative = self.requests[claim][request].len() - 1;
        let next = Next {
            claim,
            request,
            alternative,
            device: 0,
        };
        let name = self.request(next).name;
        let mut candidates = Vec::new();
        for pool in 0..self.pools.len() {
            let state = match self.pools[pool].state {
                State::Usable => None,
                State::Incomplete => Some("being updated"),
                State::Invalid => Some("invalid"),
            };
            if let Some(state) = state {
                let Pool {
                    driver, name: pool, ..
                } = &self.pools[pool];
                return broken(format!(
                    "claim {key}, request {name}: asks for all devices, but resource pool {driver}/{pool} is currently {state}"
                ));
            }
            for slice in 0..self.pools[pool].slices.len() {
                for device in 0..self.pools[pool].slices[slice].devices.len() {
                    let at = At {
                        pool,
                        slice,
                        device,
                    };
                    if self.is_selected(next, at)? && self.has_room(next, at) {
                        candidates.push(at);
                    }
                }
            }
        }
        let request = &mut self.requests[claim][request][alternative];
        request.number = candidates.len();
        request.candidates = candidates;
        Ok(())
    }

    /// Finds the next device, and all after it. `alternative`: one of the alternatives of a
    /// request has been chosen already. Within a request, devices are only tried in their
    /// order: which is given first makes no difference.
    fn step(&mut self, next: Next, alternative: bool, from: At) -> Result<bool, Halt> {
        if (self.question.expired)() {
            return Err(Halt::Error(AllocateError::Expired));
        }
        if next.claim >= self.claims.len() {
            return Ok(true);
        }
        if next.request >= self.requests[next.claim].len() {
            let next = Next {
                claim: next.claim + 1,
                ..Next::default()
            };
            return match self.step(next, false, At::default()) {
                // A claim before this one may leave it an alternative that takes fewer.
                Err(Halt::TooMany) => Ok(false),
                outcome => outcome,
            };
        }
        let alternatives = &self.requests[next.claim][next.request];
        if !alternative && alternatives.first().is_some_and(|r| r.parent.is_some()) {
            return self.choose(next);
        }
        if alternatives.is_empty() {
            return Ok(false);
        }
        let request = self.request(next);
        let (all, number) = (request.all, request.number);
        if all && number == 0 {
            return Ok(false);
        }
        if next.device >= number {
            let next = Next {
                claim: next.claim,
                request: next.request + 1,
                ..Next::default()
            };
            return self.step(next, false, At::default());
        }
        if self.given[next.claim].len() + number - next.device > MOST_DEVICES {
            return Err(Halt::TooMany);
        }
        let following = Next {
            device: next.device + 1,
            ..next
        };
        if all {
            let at = self.request(next).candidates[next.device];
            if !self.give(next, at, true).map_err(Halt::Error)? {
                return Ok(false);
            }
            let done = self.step(following, alternative, At::default());
            if !matches!(done, Ok(true)) {
                self.take_back(next);
            }
            return done;
        }
        for pool in from.pool..self.pools.len() {
            if self.pools[pool].state != State::Usable {
                continue;
            }
            let same_pool = pool == from.pool;
            let first = if same_pool { from.slice } else { 0 };
            for slice in first..self.pools[pool].slices.len() {
                let same_slice = same_pool && slice == from.slice;
                let first = if same_slice { from.device } else { 0 };
                for device in first..self.pools[pool].slices[slice].devices.len() {
                    let at = At {
                        pool,
                        slice,
                        device,
                    };
                    if !self.is_free(next, at)
                        || !self.is_selected(next, at).map_err(Halt::Error)?
                        || !self.has_room(next, at)
                        || !self.give(next, at, false).map_err(Halt::Error)?
                    {
                        continue;
                    }
                    let from = At {
                        device: device + 1,
                        ..at
                    };
                    let done = self.step(following, alternative, from);
                    if matches!(done, Ok(true)) {
                        return done;
                    }
                    self.take_back(next);
                    done?;
                }
            }
        }
        Ok(false)
    }

    /// Takes the first alternative that works.
    fn choose(&mut self, next: Next) -> Result<bool, Halt> {
        let mut too_many = true;
        for alternative in 0..self.requests[next.claim][next.request].len() {
            let next = Next {
                alternative,
                ..next
            };
            match self.step(next, true, At::default()) {
                Err(Halt::TooMany) => {}
                Ok(true) => {
                    self.selected[next.claim][next.request] = alternative;
                    return Ok(true);
                }
                Ok(false) => too_many = false,
                error @ Err(Halt::Error(_)) => return error,
            }
        }
        if too_many {
            Err(Halt::TooMany)
        } else {
            Ok(false)
        }
    }

    /// Whether nobody has the device for himself.
    fn is_free(&self, next: Next, at: At) -> bool {
        let id = &self.device(at).id;
        let users = self.in_use.get(id);
        if self.request(next).admin {
            return users.is_none_or(|users| !users.contains(&next.claim));
        }
        !self.question.devices.is_taken(id) && users.is_none_or(HashSet::is_empty)
    }

    fn is_selected(&mut self, next: Next, at: At) -> Result<bool, AllocateError> {
        let device = self.device(at);
        let conditions = device.binding_conditions.as_ref();
        if !self.question.features.binding_conditions && conditions.is_some_and(|c| !c.is_empty()) {
            return Ok(false);
        }
        let key = (next.claim, next.request, next.alternative, at);
        if let Some(known) = self.selects.get(&key) {
            return Ok(*known);
        }
        let request = self.request(next);
        let class = request.class.spec.selectors.as_deref().unwrap_or_default();
        let selectors = self.question.selectors;
        let whose = || format!("class {}", request.class.name());
        let mut selected = selectors.select(class, device, whose)?;
        if selected {
            let whose = || format!("claim {}", self.claims[next.claim].key());
            selected = selectors.select(request.selectors, device, whose)?;
        }
        if selected && self.slice(at).per_device == Some(true) {
            selected = device.reach.includes(self.question.node);
        }
        self.selects.insert(key, selected);
        Ok(selected)
    }

    /// Whether the device has left what the request asks of its capacities.
    fn has_room(&self, next: Next, at: At) -> bool {
        if !self.question.features.consumable_capacity {
            return true;
        }
        let device = self.device(at);
        let mut promised: Option<Capacities> = None;
        for amounts in self.promised.get(&device.id).into_iter().flatten() {
            let sum = promised.get_or_insert_default();
            for (name, amount) in amounts {
                sum.entry(name.clone()).or_default().add(amount);
            }
        }
        let taken = self.question.devices.capacity_taken(&device.id);
        let wanted = self.request(next).capacity.as_ref();
        capacity::fits(wanted, &device.capacity, taken, promised.as_ref()) == Some(true)
    }

    /// Gives a selected device to the claim, if nothing speaks against it.
    fn give(&mut self, next: Next, at: At, must: bool) -> Result<bool, AllocateError> {
        let features = self.question.features;
        let device = self.device(at);
        let shared = features.consumable_capacity && device.shared;
        if !(self.is_free(next, at) || (shared && self.request(next).admin))
            || (!features.partitionable && !device.consumes.is_empty())
            || (features.device_taints && self.is_tainted(next, at))
            || !self.has_room(next, at)
        {
            return Ok(false);
        }
        let id = device.id.clone();
        // Who shares a device that others share already uses no more of the counters.
        let paid = shared && self.is_shared_already(&id);
        let drawn = !(device.consumes.is_empty() || paid);
        if drawn && !self.draw_counters(at) {
            return Ok(false);
        }
        let request = &self.requests[next.claim][next.request][next.alternative];
        let (name, sub) = request.names();
        let constraints = &mut self.constraints[next.claim];
        let device = &self.pools[at.pool].slices[at.slice].devices[at.device];
        let violated = constraints
            .iter_mut()
            .position(|c| !c.add(name, sub, device));
        if let Some(violated) = violated {
            for constraint in &mut constraints[..violated] {
                constraint.remove(name, sub);
            }
            if must {
                return broken(format!(
                    "claim {}, request {}: cannot add device {id} because a claim constraint would not be satisfied",
                    self.claims[next.claim].key(),
                    request.name,
                ));
            }
            if drawn {
                self.return_counters(at);
            }
            return Ok(false);
        }
        let mut share = None;
        if shared {
            let used = capacity::consumption(request.capacity.as_ref(), &device.capacity);
            self.promised.entry(id).or_default().push(used.clone());
            share = Some(((self.question.share_id)(), used));
        } else {
            self.in_use.entry(id).or_default().insert(next.claim);
        }
        self.given[next.claim].push(Given {
            at,
            request: next.request,
            alternative: next.alternative,
            share,
        });
        Ok(true)
    }

    /// Takes back what the claim was given last.
    fn take_back(&mut self, next: Next) {
        let Some(given) = self.given[next.claim].pop() else {
            return;
        };
        let request = &self.requests[next.claim][given.request][given.alternative];
        let (name, sub) = request.names();
        for constraint in &mut self.constraints[next.claim] {
            constraint.remove(name, sub);
        }
        let device = self.device(given.at);
        let (id, counts) = (device.id.clone(), !device.consumes.is_empty());
        if given.share.is_some() {
            if let Some(promised) = self.promised.get_mut(&id) {
                promised.pop();
                if promised.is_empty() {
                    self.promised.remove(&id);
                }
            }
            // The first of those who share it has paid for it.
            if counts && !self.is_shared_already(&id) {
                self.return_counters(given.at);
            }
            return;
        }
        if let Some(users) = self.in_use.get_mut(&id) {
            users.remove(&next.claim);
        }
        if counts {
            self.return_counters(given.at);
        }
    }

    fn is_shared_already(&self, id: &DeviceId) -> bool {
        self.promised.contains_key(id) || self.question.devices.capacity_taken(id).is_some()
    }

    fn is_tainted(&self, next: Next, at: At) -> bool {
        let tolerations = self.request(next).tolerations;
        self.device(at).taints.iter().any(|taint| {
            matches!(&*taint.effect, "NoSchedule" | "NoExecute")
                && !tolerations.iter().any(|t| tolerates(t, taint))
        })
    }

    /// Counters of a pool that nobody has used yet.
    fn counters_left(&mut self, pool: usize) -> &mut HashMap<Box<str>, Capacities> {
        let Self {
            counters,
            pools,
            question,
            ..
        } = self;
        counters.entry(pool).or_insert_with(|| {
            let pool = &pools[pool];
            let mut left = pool.counters.clone();
            let slices = pool.slices.iter().chain(&pool.others);
            for device in slices.flat_map(|slice| &slice.devices) {
                if question.devices.is_allocated(&device.id) {
                    change(&mut left, device, true);
                }
            }
            left
        })
    }

    /// Whether the counters suffice for the device, which uses them if they do.
    fn draw_counters(&mut self, at: At) -> bool {
        let slice = Arc::clone(self.slice(at));
        let left = self.counters_left(at.pool);
        change(left, &slice.devices[at.device], true);
        let mut amounts = left.values().flat_map(|counters| counters.values());
        if amounts.any(|amount| amount.is_negative()) {
            change(left, &slice.devices[at.device], false);
            return false;
        }
        true
    }

    fn return_counters(&mut self, at: At) {
        let slice = Arc::clone(self.slice(at));
        let left = self.counters_left(at.pool);
        change(left, &slice.devices[at.device], false);
    }

    fn results(&self) -> Result<Vec<AllocationResult>, AllocateError> {
        let claims = self.claims.iter().enumerate();
        claims
            .map(|(index, claim)| self.result(index, claim))
            .collect()
    }

    fn result(
        &self,
        index: usize,
        claim: &ResourceClaim,
    ) -> Result<AllocationResult, AllocateError> {
        let given = &self.given[index];
        let bound = self.question.features.binding_conditions;
        let results: Vec<DeviceRequestAllocationResult> = given
            .iter()
            .map(|given| {
                let device = self.device(given.at);
                let request = &self.requests[index][given.request][given.alternative];
                let used = given.share.as_ref().map(|(_, used)| used);
                let used = used.filter(|used| !used.is_empty());
                let tolerations = request.tolerations;
                DeviceRequestAllocationResult {
                    request: request.full_name(),
                    driver: device.id.driver.to_string(),
                    pool: device.id.pool.to_string(),
                    device: device.id.device.to_string(),
                    admin_access: request.admin.then_some(true),
                    tolerations: (!tolerations.is_empty()).then(|| tolerations.to_vec()),
                    share_id: given.share.as_ref().map(|(id, _)| id.clone()),
                    consumed_capacity: used.map(|used| {
                        let used = used.iter();
                        used.map(|(name, q)| (name.clone(), q.into())).collect()
                    }),
                    binding_conditions: device.binding_conditions.clone().filter(|_| bound),
                    binding_failure_conditions: device
                        .binding_failure_conditions
                        .clone()
                        .filter(|_| bound),
                }
            })
            .collect();
        let config = self.config(index, claim);
        Ok(AllocationResult {
            allocation_timestamp: None,
            devices: Some(DeviceAllocationResult {
                config: (!config.is_empty()).then_some(config),
                results: (!results.is_empty()).then_some(results),
            }),
            node_selector: self.node_selector(index, claim)?,
        })
    }

    /// What drivers are to be told: by the classes, each once, and by the claim.
    fn config(&self, index: usize, claim: &ResourceClaim) -> Vec<DeviceAllocationConfiguration> {
        let mut config: Vec<DeviceAllocationConfiguration> = Vec::new();
        let mut of_class: HashMap<&str, std::ops::Range<usize>> = HashMap::new();
        let taken = |request: usize| {
            let alternative = self.selected[index][request];
            self.requests[index][request].get(alternative)
        };
        for request in (0..self.requests[index].len()).filter_map(taken) {
            if let Some(known) = of_class.get(request.class.name()) {
                for one in &mut config[known.clone()] {
                    one.requests
                        .get_or_insert_default()
                        .push(request.full_name());
                }
                continue;
            }
            let first = config.len();
            for one in request.class.spec.config.iter().flatten() {
                config.push(DeviceAllocationConfiguration {
                    source: "FromClass".to_owned(),
                    requests: Some(vec![request.full_name()]),
                    opaque: one.opaque.clone(),
                });
            }
            of_class.insert(request.class.name(), first..config.len());
        }
        let devices = claim.spec.devices.as_ref();
        for one in devices
            .and_then(|d| d.config.as_ref())
            .into_iter()
            .flatten()
        {
            let about = one.requests.as_deref().unwrap_or_default();
            let names = |name: &str| about.iter().any(|about| about == name);
            let times = if about.is_empty() {
                1
            } else {
                let concerned = (0..self.requests[index].len()).filter_map(taken);
                concerned
                    .filter(|r| names(r.names().0) || (r.parent.is_some() && names(&r.full_name())))
                    .count()
            };
            let one = DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: one.requests.clone(),
                opaque: one.opaque.clone(),
            };
            config.extend(std::iter::repeat_n(one, times));
        }
        config
    }

    /// Which nodes can use what was given; `None` when all can.
    fn node_selector(
        &self,
        index: usize,
        claim: &ResourceClaim,
    ) -> Result<Option<NodeSelector>, AllocateError> {
        let mut term = NodeSelectorTerm::default();
        for given in &self.given[index] {
            let (slice, device) = (self.slice(given.at), self.device(given.at));
            let reach = match slice.per_device {
                Some(true) => &device.reach,
                _ => &slice.reach,
            };
            if reach.node.is_some() || device.binds_to_node {
                let this = NodeSelectorRequirement {
                    key: "metadata.name".to_owned(),
                    operator: "In".to_owned(),
                    values: Some(vec![self.question.node.name.to_string()]),
                };
                return Ok(Some(NodeSelector {
                    node_selector_terms: vec![NodeSelectorTerm {
                        match_fields: Some(vec![this]),
                        match_expressions: None,
                    }],
                }));
            }
            let terms = reach.selector.iter().flat_map(|s| &s.node_selector_terms);
            let terms: Vec<&NodeSelectorTerm> = terms.collect();
            if let [one] = &*terms {
                extend(&mut term.match_fields, one.match_fields.as_deref());
                extend(
                    &mut term.match_expressions,
                    one.match_expressions.as_deref(),
                );
            } else if terms.len() > 1 {
                return broken(format!(
                    "create NodeSelector for claim {}: unsupported ResourceSlice.NodeSelector with {} terms",
                    claim.name(),
                    terms.len()
                ));
            }
        }
        let some = term.match_fields.is_some() || term.match_expressions.is_some();
        Ok(some.then(|| NodeSelector {
            node_selector_terms: vec![term],
        }))
    }
}

/// A request as it is written.
struct Asked<'a> {
    name: &'a str,
    parent: Option<&'a str>,
    class: &'a str,
    mode: &'a str,
    count: i64,
    admin: Option<bool>,
    selectors: &'a [DeviceSelector],
    tolerations: &'a [DeviceToleration],
    capacity: Option<&'a k8s_openapi::api::resource::v1::CapacityRequirements>,
}

/// Lets a device use counters, or give them back.
fn change(left: &mut HashMap<Box<str>, Capacities>, device: &Device, uses: bool) {
    for (set, used) in &device.consumes {
        let Some(left) = left.get_mut(set) else {
            continue;
        };
        for (name, amount) in used {
            match left.get_mut(name) {
                Some(left) if uses => left.sub(amount),
                Some(left) => left.add(amount),
                None => {}
            }
        }
    }
}

/// Adds requirements that are not there yet.
fn extend(
    all: &mut Option<Vec<NodeSelectorRequirement>>,
    more: Option<&[NodeSelectorRequirement]>,
) {
    let set = |r: &NodeSelectorRequirement| -> HashSet<String> {
        r.values.iter().flatten().cloned().collect()
    };
    for requirement in more.unwrap_or_default() {
        let all = all.get_or_insert_default();
        let known = all.iter().any(|other| {
            other.key == requirement.key
                && other.operator == requirement.operator
                && set(other) == set(requirement)
        });
        if !known {
            all.push(requirement.clone());
        }
    }
}
