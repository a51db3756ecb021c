//! How much of a device a request takes where several may share it (KEP-5075).

use std::collections::BTreeMap;

use meta::quantity::{Format, Quantity};

use crate::cache::devices::Capacities;
use crate::cache::devices::slice::{Capacity, Policy};

/// Whether there is room for what is asked for beside what is taken; `None` when something is
/// asked for that the device does not have.
pub fn fits(
    wanted: Option<&Capacities>,
    capacity: &BTreeMap<String, Capacity>,
    taken: Option<&Capacities>,
    promised: Option<&Capacities>,
) -> Option<bool> {
    let mut names = wanted.into_iter().flat_map(|wanted| wanted.keys());
    if !names.all(|name| capacity.contains_key(name)) {
        return None;
    }
    Some(capacity.iter().all(|(name, capacity)| {
        let mut sum = consumed(wanted.and_then(|wanted| wanted.get(name)), capacity);
        if capacity
            .policy
            .as_ref()
            .is_some_and(|policy| violates(&sum, policy))
        {
            return false;
        }
        for others in [taken, promised].into_iter().flatten() {
            if let Some(amount) = others.get(name) {
                sum.add(amount);
            }
        }
        sum <= capacity.value
    }))
}

/// What a request takes of each capacity of a device.
pub fn consumption(
    wanted: Option<&Capacities>,
    capacity: &BTreeMap<String, Capacity>,
) -> Capacities {
    let of = |(name, capacity): (&String, &Capacity)| {
        let wanted = wanted.and_then(|wanted| wanted.get(name));
        (name.clone(), consumed(wanted, capacity))
    };
    capacity.iter().map(of).collect()
}

/// What is asked for, rounded up to what may be; all of it when nothing is said.
fn consumed(wanted: Option<&Quantity>, capacity: &Capacity) -> Quantity {
    let policy = capacity.policy.as_ref();
    let Some(wanted) = wanted else {
        let default = policy.and_then(|policy| policy.default.as_ref());
        return default.unwrap_or(&capacity.value).clone();
    };
    let Some(policy) = policy else {
        return wanted.clone();
    };
    if let Some(range) = &policy.range {
        if *wanted < range.min {
            return range.min.clone();
        }
        let Some(step) = range.step.as_ref().map(Quantity::value).filter(|s| *s > 0) else {
            return wanted.clone();
        };
        let min = range.min.value();
        let above = wanted.value().saturating_sub(min);
        let steps = above / step + i64::from(above % step != 0);
        let rounded = steps.saturating_mul(step).saturating_add(min);
        return Quantity::new(rounded, Format::BinarySI);
    }
    let larger = policy.values.iter().find(|value| wanted <= *value);
    larger.unwrap_or(wanted).clone()
}

fn violates(amount: &Quantity, policy: &Policy) -> bool {
    if policy.default.as_ref() == Some(amount) {
        return false;
    }
    if let Some(range) = &policy.range {
        if range.max.as_ref().is_some_and(|max| amount > max) {
            return true;
        }
        let step = range.step.as_ref().map(Quantity::value).filter(|s| *s > 0);
        return step.is_some_and(|step| (amount.value() - range.min.value()) % step != 0);
    }
    !policy.values.is_empty() && !policy.values.contains(amount)
}
