//! Leases for objects that expire (events), shared between objects as upstream shares them:
//! a lease is reused for 5% of its time to live, at most a minute, and for 1000 objects.
//!
//! What must not be here: which objects expire.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

const REUSE_SECONDS: u64 = 60;
/// A twentieth: 5%.
const REUSE_FRACTION: u64 = 20;
const OBJECTS: u32 = 1000;

/// The lease last granted for each time to live.
#[derive(Default)]
pub(super) struct Leases {
    granted: Mutex<HashMap<u64, Granted>>,
}

struct Granted {
    id: i64,
    expires: Instant,
    objects: u32,
}

impl Leases {
    /// A lease that lives at least `ttl` from now, and little longer; `grant` asks etcd for one
    /// of so many seconds. Waiters for the same lease ask once.
    pub(super) async fn get<E, F>(
        &self,
        ttl: Duration,
        grant: impl FnOnce(u64) -> F,
        mut on_retire: impl FnMut(u32),
    ) -> Result<i64, E>
    where
        F: Future<Output = Result<i64, E>>,
    {
        let ttl = ttl.as_secs().max(1);
        let reuse = (ttl / REUSE_FRACTION).min(REUSE_SECONDS);
        let mut granted = self.granted.lock().await;
        let now = Instant::now();
        if let Some(lease) = granted.get_mut(&ttl) {
            let long_enough = now + Duration::from_secs(ttl) < lease.expires;
            if long_enough && lease.objects < OBJECTS {
                lease.objects += 1;
                return Ok(lease.id);
            }
            on_retire(lease.objects);
        }
        let id = grant(ttl + reuse).await?;
        granted.retain(|_, lease| lease.expires > now);
        granted.insert(
            ttl,
            Granted {
                id,
                expires: now + Duration::from_secs(ttl + reuse),
                objects: 1,
            },
        );
        Ok(id)
    }

    /// etcd does not know the lease any more.
    pub(super) async fn forget(&self, id: i64) {
        self.granted.lock().await.retain(|_, lease| lease.id != id);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    async fn lease(leases: &Leases, next: &Cell<i64>, ttl: u64) -> i64 {
        leases
            .get(
                Duration::from_secs(ttl),
                |_| async {
                    next.set(next.get() + 1);
                    Ok::<_, ()>(next.get())
                },
                |_| {},
            )
            .await
            .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_shared_for_a_minute_and_a_thousand_objects() {
        let leases = Leases::default();
        let next = Cell::new(0);
        for _ in 0..1000 {
            assert_eq!(lease(&leases, &next, 3600).await, 1);
        }
        assert_eq!(lease(&leases, &next, 3600).await, 2);
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(lease(&leases, &next, 3600).await, 2);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(lease(&leases, &next, 3600).await, 3);
        leases.forget(3).await;
        assert_eq!(lease(&leases, &next, 3600).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn short_leases_are_not_shared() {
        let leases = Leases::default();
        let next = Cell::new(0);
        assert_eq!(lease(&leases, &next, 15).await, 1);
        assert_eq!(lease(&leases, &next, 15).await, 2);
    }
}
