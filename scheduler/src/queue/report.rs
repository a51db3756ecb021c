//! What metrics ask of the queue.

use std::collections::HashMap;

use super::{Place, Queue};
use crate::model::PodInfo;
use crate::profile::Rejectors;

/// How many pods are where, for `scheduler_pending_pods`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub active: usize,
    pub backoff: usize,
    pub unschedulable: usize,
    pub gated: usize,
}

impl Queue {
    /// Takes the counts of pods that have come in since the last time.
    pub fn take_incoming(&mut self) -> HashMap<(&'static str, &'static str), u64> {
        std::mem::take(&mut self.incoming)
    }

    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for queued in self.pods.values() {
            match queued.place {
                Place::Active => counts.active += 1,
                Place::BackingOff { .. } | Place::Paused { .. } => counts.backoff += 1,
                Place::Unschedulable { .. } => counts.unschedulable += 1,
                Place::Gated => counts.gated += 1,
                Place::InFlight => {}
            }
        }
        counts
    }

    /// Unschedulable pods and who rejected them, for `scheduler_unschedulable_pods`.
    pub fn rejected(&self) -> impl Iterator<Item = (&PodInfo, Rejectors, usize)> {
        let waiting = self.groups.iter();
        let held = self.held.iter().map(|(group, (keys, _))| (group, keys));
        waiting.chain(held).filter_map(|((_, rejectors, _), keys)| {
            let one = self.pods.get(keys.iter().next()?)?;
            Some((&*one.pod, *rejectors, keys.len()))
        })
    }
}
