//! Counters that devices which are parts of one draw from (KEP-4815).

use std::collections::HashMap;
use std::sync::Arc;

use super::{At, Search};
use crate::cache::devices::Capacities;
use crate::cache::devices::slice::Device;

impl Search<'_> {
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
    pub fn draw_counters(&mut self, at: At) -> bool {
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

    pub fn return_counters(&mut self, at: At) {
        let slice = Arc::clone(self.slice(at));
        let left = self.counters_left(at.pool);
        change(left, &slice.devices[at.device], false);
    }
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
