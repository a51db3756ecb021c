//! resourcequota-controller: recounts what namespaces use of their quotas, and writes it down.
//! The API server adds what is created; only here is anything given back.
//!
//! Resources are watched from when a quota counts them until none does: a cluster without
//! quotas pays nothing.

mod counted;
mod monitors;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use api::quota::Quota;
use client::informer::{Event, Index, Informer};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, optional};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ResourceQuota;
use serde::Deserialize as _;

use self::monitors::{Change, Counter, Monitors};
use self::plan::{Queued, plan, queued};
use crate::context::{Context, Run};

/// How often the set of watched resources is looked over.
const MONITOR_PERIOD: Duration = Duration::from_secs(30);

struct Controller {
    api: Api<ResourceQuota>,
    quotas: Informer<ResourceQuota>,
    by_namespace: Index<ResourceQuota>,
    monitors: Monitors,
    /// Quotas to be counted again.
    primary: Queue<ObjectKey>,
    /// Quotas that nobody has counted yet: until then nothing may be created under them.
    priority: Queue<ObjectKey>,
}

/// Why a quota could not be brought up to date.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("{0}")]
    Api(#[from] Error),
    #[error("the quota cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("not synced yet: {0}")]
    NotSynced(String),
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("resourcequota-controller")?;
    let quotas = ctx.informer::<ResourceQuota>();
    let by_namespace = quotas.add_index("namespace", |q: &ResourceQuota| {
        q.metadata.namespace.iter().cloned().collect()
    });
    let controller = Arc::new_cyclic(|controller: &std::sync::Weak<Controller>| {
        let controller = controller.clone();
        let replenish = move |counter: &Counter, namespace: &str, change: Change| {
            if let Some(controller) = controller.upgrade() {
                controller.replenish(counter, namespace, change, Timestamp::now());
            }
        };
        Controller {
            api: Api::all(&client),
            monitors: Monitors::new(&client, &ctx.stop, Arc::new(replenish)),
            by_namespace,
            quotas: quotas.clone(),
            primary: ctx.queue("resourcequota_primary"),
            priority: ctx.queue("resourcequota_priority"),
        }
    });
    let seen = Arc::clone(&controller);
    quotas.add_handler(move |event| seen.see(event));

    let flags = &ctx.options.resourcequota;
    let workers = flags.concurrent_resource_quota_syncs.get();
    let period = flags.resource_quota_sync_period.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        controller.quotas.wait_synced().await;
        let queues = [&controller.primary, &controller.priority];
        let work = queues.map(|queue| {
            let controller = Arc::clone(&controller);
            queue.run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.sync(&key).await }
            })
        });
        tokio::join!(
            futures::future::join_all(work),
            stop.run_until_cancelled(controller.count_all_every(period)),
            stop.run_until_cancelled(controller.look_over_monitors()),
        );
    })))
}

/// The quota as `api::quota` reads it.
fn read(quota: &ResourceQuota) -> Result<Quota, serde_json::Error> {
    Quota::deserialize(serde_json::to_value(quota)?)
}

/// Whether a quota is so new that watches may not agree on what was there before it.
fn is_young(quota: &ResourceQuota, now: Timestamp) -> bool {
    const YOUNG: SignedDuration = SignedDuration::from_secs(10);
    let created = quota.metadata.creation_timestamp.as_ref();
    created.is_none_or(|created| now.duration_since(created.0) < YOUNG)
}

impl Controller {
    /// Only what is asked for matters: the status is our own doing, or the API server's.
    fn see(&self, event: &Event<ResourceQuota>) {
        let Some(Ok(quota)) = event.current().map(|q| read(q)) else {
            return;
        };
        if let Event::Updated { old, .. } = event
            && read(old).is_ok_and(|old| old.spec.hard == quota.spec.hard)
        {
            return;
        }
        self.enqueue(event.key(), &quota);
    }

    fn enqueue(&self, key: ObjectKey, quota: &Quota) {
        match queued(quota, |name| self.monitors.can_count(name)) {
            Queued::Priority => self.priority.add(key),
            Queued::Primary => self.primary.add(key),
        }
    }

    /// Quotas that count what has changed are counted again. What has come the API server has
    /// charged for; but a quota may have been counted before its own creation, or that of what
    /// was there first, was seen here.
    fn replenish(&self, counter: &Counter, namespace: &str, change: Change, now: Timestamp) {
        for quota in self.by_namespace.get(namespace) {
            if change == Change::Came && !is_young(&quota, now) {
                continue;
            }
            let hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
            let mut names = hard.into_iter().flat_map(|hard| hard.keys());
            if names.any(|name| self.monitors.counts(counter, name)) {
                self.primary.add(quota.key());
            }
        }
    }

    async fn count_all_every(&self, period: Duration) {
        if period.is_zero() {
            tracing::info!("periodic quota controller resync disabled");
            return std::future::pending().await;
        }
        let mut ticks = tokio::time::interval(period);
        loop {
            ticks.tick().await;
            for key in self.quotas.store().keys() {
                self.primary.add(key);
            }
        }
    }

    /// Ends watches that no quota needs any more, and begins those that a quota has been
    /// waiting for because the resource was not served.
    async fn look_over_monitors(&self) {
        let mut ticks = tokio::time::interval(MONITOR_PERIOD);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            let quotas = self.quotas.store().list();
            let hard = |q: &Arc<ResourceQuota>| {
                let hard = q.spec.as_ref().and_then(|s| s.hard.clone());
                hard.into_iter().flat_map(|hard| hard.into_keys())
            };
            let mut names: Vec<String> = quotas.iter().flat_map(hard).collect();
            names.sort();
            names.dedup();
            if self.monitors.look_over(&names).await {
                for quota in &quotas {
                    if let Ok(read) = read(quota) {
                        self.enqueue(quota.key(), &read);
                    }
                }
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, SyncError> {
        let Some(stored) = self.quotas.store().get_key(key) else {
            return Ok(Requeue::No);
        };
        let quota = read(&stored)?;
        let names: Vec<String> = quota.spec.hard.keys().cloned().collect();
        let unsynced = self.monitors.need(&names).await;
        let usage = self.monitors.usage(&quota, &unsynced, Timestamp::now());
        if let Some(status) = plan(&quota, usage) {
            let mut changed = ResourceQuota::clone(&stored);
            changed.status = Some(status);
            let api = self.api.within(key.namespace());
            match optional(api.replace_status(&changed).await) {
                Err(e) if e.is_conflict() => return Ok(Requeue::Backoff),
                done => done?,
            };
        }
        match unsynced.is_empty() {
            true => Ok(Requeue::No),
            false => {
                let names: Vec<String> = unsynced.iter().map(ToString::to_string).collect();
                Err(SyncError::NotSynced(names.join(", ")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn quotas_age() {
        let at = |s: i64| Timestamp::from_second(1_800_000_000 + s).unwrap();
        let mut quota = ResourceQuota::default();
        quota.metadata.creation_timestamp = Some(Time(at(0)));
        assert!(is_young(&quota, at(9)));
        assert!(!is_young(&quota, at(10)));
        // The API server's clock may be ahead of ours.
        assert!(is_young(&quota, at(-5)));
    }
}
