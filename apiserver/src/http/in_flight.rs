//! Flow control: how many requests are worked on at the same time
//! (`--max-requests-inflight`, `--max-mutating-requests-inflight`).
//!
//! Watches and other long-running requests are not counted; `system:masters` are always let in.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::request_info::RequestInfo;
use crate::authn::{MASTERS, User};

/// What clients are told to wait, in seconds.
pub const RETRY_AFTER: u32 = 1;

#[derive(Debug)]
pub struct InFlight {
    /// `None`: no limit.
    read_only: Option<Arc<Semaphore>>,
    mutating: Option<Arc<Semaphore>>,
}

/// A place among those that are being worked on.
#[derive(Debug)]
pub enum Admission {
    Counted { _permit: OwnedSemaphorePermit },
    Uncounted,
    Refused,
}

impl InFlight {
    /// 0 means no limit.
    pub fn new(read_only: usize, mutating: usize) -> InFlight {
        let semaphore = |n| (n > 0).then(|| Arc::new(Semaphore::new(n)));
        InFlight {
            read_only: semaphore(read_only),
            mutating: semaphore(mutating),
        }
    }

    pub fn admit(&self, info: &RequestInfo, user: &User) -> Admission {
        if info.is_long_running() {
            return Admission::Uncounted;
        }
        let limit = if info.is_read_only() {
            &self.read_only
        } else {
            &self.mutating
        };
        let Some(limit) = limit else {
            return Admission::Uncounted;
        };
        match limit.clone().try_acquire_owned() {
            Ok(permit) => Admission::Counted { _permit: permit },
            Err(_) if user.in_group(MASTERS) => Admission::Uncounted,
            Err(_) => Admission::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::Query;
    use super::*;

    fn info(method: &str, query: &str) -> RequestInfo {
        RequestInfo::new(
            &method.parse().unwrap(),
            "/api/v1/pods",
            &Query::parse(query),
        )
    }

    #[test]
    fn the_second_of_one_waits_unless_it_is_a_master_or_a_watch() {
        let limits = InFlight::new(1, 1);
        let somebody = User::default();
        let first = limits.admit(&info("GET", ""), &somebody);
        assert!(matches!(first, Admission::Counted { .. }));
        assert!(matches!(
            limits.admit(&info("GET", ""), &somebody),
            Admission::Refused
        ));
        assert!(matches!(
            limits.admit(&info("POST", ""), &somebody),
            Admission::Counted { .. }
        ));
        assert!(matches!(
            limits.admit(&info("GET", "watch=1"), &somebody),
            Admission::Uncounted
        ));
        let master = User {
            groups: vec![MASTERS.into()],
            ..User::default()
        };
        assert!(matches!(
            limits.admit(&info("GET", ""), &master),
            Admission::Uncounted
        ));
        drop(first);
        assert!(matches!(
            limits.admit(&info("GET", ""), &somebody),
            Admission::Counted { .. }
        ));
    }
}
