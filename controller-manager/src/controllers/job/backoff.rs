//! How long a Job waits before it replaces failed pods: longer with every failure since the
//! last success.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::kinds::Pod;

const INITIAL: SignedDuration = SignedDuration::from_secs(10);
const MAX: SignedDuration = SignedDuration::from_secs(600);

/// Failures since the last success, and the last of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    last: Option<Timestamp>,
}

impl Backoff {
    /// After these pods have ended.
    #[must_use]
    pub fn after(self, succeeded: &[Arc<Pod>], failed: &[Arc<Pod>]) -> Self {
        let last = |pods: &[Arc<Pod>]| pods.iter().filter_map(|p| p.finished_at()).max();
        let base = if succeeded.is_empty() {
            self
        } else {
            Self::default()
        };
        let success = last(succeeded);
        let later: Vec<Timestamp> = failed
            .iter()
            .filter_map(|p| p.finished_at())
            .filter(|t| Some(*t) > success)
            .collect();
        Self {
            failures: base.failures + later.len() as u32,
            last: later.into_iter().max().or(base.last),
        }
    }

    /// How long to wait still; zero if not at all.
    pub fn remaining(self, now: Timestamp) -> Duration {
        let Some(last) = self.last else {
            return Duration::ZERO;
        };
        remaining(self.failures, last, now)
    }
}

/// After so many failures, the last of them then.
pub fn remaining(failures: u32, last: Timestamp, now: Timestamp) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let doubled = INITIAL.checked_mul(
        1i32.checked_shl(failures - 1)
            .filter(|n| *n > 0)
            .unwrap_or(i32::MAX),
    );
    let delay = doubled.map_or(MAX, |d| d.min(MAX));
    Duration::try_from(delay - now.duration_since(last)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    fn pod(end: i64) -> Arc<Pod> {
        let status = json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"finishedAt": at(end)}}}]});
        Arc::new(serde_json::from_value(json!({"status": status})).unwrap())
    }

    #[test]
    fn failures_add_up_until_a_success() {
        let b = Backoff::default().after(&[], &[pod(0)]);
        assert_eq!(b.remaining(at(4)).as_secs(), 6);
        let b = b.after(&[], &[pod(10), pod(20)]);
        assert_eq!(b.remaining(at(20)).as_secs(), 40);
        assert_eq!(b.remaining(at(61)), Duration::ZERO);
        let b = b.after(&[pod(30)], &[pod(25), pod(35)]);
        assert_eq!(b.remaining(at(35)).as_secs(), 10);
        assert_eq!(b.after(&[pod(40)], &[]), Backoff::default());
        assert_eq!(remaining(40, at(0), at(0)).as_secs(), 600);
    }
}
