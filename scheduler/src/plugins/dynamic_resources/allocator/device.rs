//! Whether a device may be given for a request, and what is noted when it is.

use std::collections::HashSet;

use client::Object as _;

use super::{AllocateError, At, Given, Next, Search, broken};
use crate::cache::devices::{Capacities, DeviceId};
use crate::plugins::dynamic_resources::{capacity, tolerates};

impl Search<'_> {
    /// Whether nobody has the device for himself.
    pub fn is_free(&self, next: Next, at: At) -> bool {
        let id = &self.device(at).id;
        let users = self.in_use.get(id);
        if self.request(next).admin {
            return users.is_none_or(|users| !users.contains(&next.claim));
        }
        !self.question.devices.is_taken(id) && users.is_none_or(HashSet::is_empty)
    }

    pub fn is_selected(&mut self, next: Next, at: At) -> Result<bool, AllocateError> {
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
    pub fn has_room(&self, next: Next, at: At) -> bool {
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
    pub fn give(&mut self, next: Next, at: At, must: bool) -> Result<bool, AllocateError> {
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
    pub fn take_back(&mut self, next: Next) {
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
}
