//! What claims ask for: requests, their alternatives and constraints, and whether they make
//! sense.

use std::sync::Arc;

use client::Object as _;
use k8s_openapi::api::resource::v1::{
    CapacityRequirements, DeviceClass, DeviceRequest, DeviceSelector, DeviceToleration,
    ResourceClaim,
};

use super::{AllocateError, At, MOST_DEVICES, Next, Search, broken};
use crate::cache::devices::{Capacities, quantity};
use crate::plugins::dynamic_resources::constraint::Constraint;
use crate::plugins::dynamic_resources::pools::{Pool, State};

/// A request, or one of the alternatives of one.
pub struct Request<'a> {
    pub name: &'a str,
    /// The request that it is an alternative of.
    pub parent: Option<&'a str>,
    pub class: Arc<DeviceClass>,
    pub all: bool,
    pub admin: bool,
    pub selectors: &'a [DeviceSelector],
    pub tolerations: &'a [DeviceToleration],
    pub capacity: Option<Capacities>,
    /// How many devices it takes.
    pub number: usize,
    /// Which ones, if it asks for all.
    pub candidates: Vec<At>,
}

impl Request<'_> {
    pub fn full_name(&self) -> String {
        match self.parent {
            Some(parent) => format!("{parent}/{}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The request's name, and the alternative's if it is one.
    pub fn names(&self) -> (&str, Option<&str>) {
        match self.parent {
            Some(parent) => (parent, Some(self.name)),
            None => (self.name, None),
        }
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
    capacity: Option<&'a CapacityRequirements>,
}

fn requests(claim: &ResourceClaim) -> &[DeviceRequest] {
    let devices = claim.spec.devices.as_ref();
    devices
        .and_then(|d| d.requests.as_deref())
        .unwrap_or_default()
}

impl<'a> Search<'a> {
    /// Reads a claim, and sees whether what it asks for makes sense.
    pub fn prepare(&mut self, index: usize, claim: &'a ResourceClaim) -> Result<(), AllocateError> {
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
}
