//! Until when a leader may write: a process that was stopped and goes on does not know yet that
//! another leads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by all clients that are made from one another. Open until the first
/// [`Fence::open_until`].
#[derive(Debug)]
pub(crate) struct Fence {
    /// What times are counted from.
    start: Instant,
    /// Milliseconds.
    until: AtomicU64,
}

impl Default for Fence {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            until: AtomicU64::new(u64::MAX),
        }
    }
}

impl Fence {
    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Open from now on until `term` after `from`.
    pub fn open_until(&self, from: Instant, term: Duration) {
        let until = self.millis(from + term);
        self.until.store(until, Ordering::Relaxed);
    }

    /// Leads no more, and not because of a loss: what is written now is written as by anybody.
    pub fn remove(&self) {
        self.until.store(u64::MAX, Ordering::Relaxed);
    }

    pub fn is_open(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until == u64::MAX || self.millis(Instant::now()) < until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_ends() {
        let fence = Fence::default();
        assert!(fence.is_open());
        let now = Instant::now();
        fence.open_until(now, Duration::from_secs(3600));
        assert!(fence.is_open());
        fence.open_until(now, Duration::ZERO);
        assert!(!fence.is_open());
        fence.remove();
        assert!(fence.is_open());
    }
}
