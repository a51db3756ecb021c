//! The proxier: informers write the state, one task brings the kernel after it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event, Informer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::nftables::{Family, Nft, Options, Programmed};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::state::{ServiceName, State, name_of};

/// After a refusal, the first of these; doubled up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What handlers and the sync task share.
pub struct Proxier {
    state: Mutex<State>,
    changed: Notify,
    health: Health,
    metrics: Metrics,
}

impl Proxier {
    pub fn new(node: &str, health: Health, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(node)),
            changed: Notify::new(),
            health,
            metrics,
        })
    }

    /// Hears of every service and slice.
    pub fn follow(
        self: &Arc<Self>,
        services: &Informer<Service>,
        slices: &Informer<EndpointSlice>,
    ) {
        let this = Arc::clone(self);
        services.add_handler(move |event: &Event<Service>| {
            this.change(|state| match event {
                Event::Added(service) | Event::Updated { new: service, .. } => {
                    state.apply_service(service);
                }
                Event::Deleted(service) => {
                    if let Some(name) = name_of(&service.metadata) {
                        state.delete_service(&name);
                    }
                }
            });
        });
        let this = Arc::clone(self);
        slices.add_handler(move |event: &Event<EndpointSlice>| {
            this.change(|state| match event {
                Event::Added(slice) => state.apply_slice(slice),
                Event::Updated { old, new } => {
                    // A slice that changes hands leaves its old service.
                    if old.metadata.labels != new.metadata.labels {
                        state.delete_slice(old);
                    }
                    state.apply_slice(new);
                }
                Event::Deleted(slice) => state.delete_slice(slice),
            });
        });
    }

    fn change(&self, apply: impl FnOnce(&mut State)) {
        apply(&mut self.state.lock());
        self.changed.notify_one();
    }

    /// Syncs until `stop`. The rules stay when the proxy goes: traffic must not stop for
    /// its restart.
    pub async fn run(
        self: Arc<Self>,
        options: Options,
        min_period: Duration,
        stop: CancellationToken,
    ) {
        let nft = Nft::default();
        let mut tables = [
            Programmed::new(Family::V4, options.clone()),
            Programmed::new(Family::V6, options),
        ];
        let mut retry = RETRY.0;
        let mut last = None;
        loop {
            let now = Timestamp::now();
            self.health.queued(now);
            self.metrics.last_queued.set(seconds(now));
            let failed = self.sync(&nft, &mut tables).await;
            last.replace(Instant::now());
            if failed {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(retry) => {}
                }
                retry = (retry * 2).min(RETRY.1);
                continue;
            }
            retry = RETRY.0;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.changed.notified() => {}
            }
            // Many changes that come together are one transaction; a single one that
            // comes after a pause is told at once.
            if let Some(ready) = last.map(|at| at + min_period) {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep_until(ready) => {}
                }
            }
        }
    }

    /// One sync of both families; true when one of them failed.
    async fn sync(&self, nft: &Nft, tables: &mut [Programmed]) -> bool {
        let timer = self.metrics.sync_duration.start_timer();
        let changes = self.state.lock().take_changes();
        let mut failed = false;
        for table in tables {
            failed |= self.sync_family(nft, table, &changes).await.is_err();
        }
        timer.observe_duration();
        if failed {
            // The other family has them already; telling it again says nothing.
            self.state.lock().restore_changes(changes);
            self.metrics.failures.inc();
        } else {
            let now = Timestamp::now();
            self.health.updated(now);
            self.metrics.last_sync.set(seconds(now));
        }
        failed
    }

    async fn sync_family(
        &self,
        nft: &Nft,
        table: &mut Programmed,
        changes: &BTreeSet<ServiceName>,
    ) -> Result<(), ()> {
        let plan = table.plan(&self.state.lock(), changes);
        if plan.is_full() {
            self.metrics.full_syncs.inc();
        } else {
            self.metrics.partial_syncs.inc();
        }
        if !plan.script.is_empty() {
            tracing::debug!(
                "{} bytes for nft, {} services changed",
                plan.script.len(),
                changes.len()
            );
            if let Err(error) = nft.run(&plan.script).await {
                tracing::error!("rules are not up to date: {:#}", anyhow::Error::from(error));
                table.failed();
                return Err(());
            }
        }
        table.committed(plan);
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds of today fit a double")]
fn seconds(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1000.0
}
