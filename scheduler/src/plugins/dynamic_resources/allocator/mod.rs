//! Finds devices for claims on one node: candidates are tried one after the other, and the
//! first solution is taken (the structured allocator of upstream). Pure; how long it may
//! take is asked of the caller.
//!
//! Here is the search itself. What it searches for is read in [`request`], what may be given
//! is seen and noted in [`device`] and [`counters`], and what was found is written out in
//! [`result`].

mod counters;
mod device;
mod request;
mod result;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};

use self::request::Request;
use super::Features;
use super::constraint::Constraint;
use super::pools::{self, Pool, State};
use super::selector::Selectors;
use crate::cache::NodeInfo;
use crate::cache::devices::slice::Device;
use crate::cache::devices::{Capacities, DeviceId, Devices, Slice};

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
}
