//! The byte budget of encodings: those made first go first.
//!
//! What must not be here: the encodings themselves, which stay with their objects.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::object::Object;

/// Knows which objects keep encodings and makes them let go when they are too many.
pub(super) struct Encodings {
    budget: usize,
    used: AtomicUsize,
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    oldest_first: VecDeque<Weak<Object>>,
    /// Sweep dead holders out when the queue has grown to this.
    sweep_at: usize,
}

impl Encodings {
    pub(super) fn new(budget: usize) -> Arc<Self> {
        Arc::new(Self {
            budget,
            used: AtomicUsize::new(0),
            holders: Mutex::default(),
        })
    }

    /// Counts an encoding that `object` has begun to keep; `first`: it kept none before.
    pub(super) fn keep(&self, object: &Arc<Object>, bytes: usize, first: bool) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        let mut holders = self.holders.lock();
        if first {
            holders.oldest_first.push_back(Arc::downgrade(object));
        }
        let mut evicted = Vec::new();
        while self.used.load(Ordering::Relaxed) > self.budget {
            let Some(holder) = holders.oldest_first.pop_front() else {
                break;
            };
            if let Some(holder) = holder.upgrade() {
                self.release(holder.forget_encodings());
                evicted.push(holder);
            }
        }
        if holders.oldest_first.len() > holders.sweep_at {
            holders.oldest_first.retain(|o| o.strong_count() > 0);
            holders.sweep_at = (2 * holders.oldest_first.len()).max(1024);
        }
        // An object may die here; that is for after the lock.
        drop(holders);
    }

    /// Counts encodings that are gone.
    pub(super) fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}
