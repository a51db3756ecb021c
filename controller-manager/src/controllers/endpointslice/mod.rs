//! endpointslice-controller: the addresses behind each Service with a selector.

pub mod affected;
mod hints;
mod metrics;
pub mod plan;
#[cfg(test)]
mod tests;
mod topology;
pub mod tracker;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Backoff, Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, optional};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use meta::labels::Selector;
use parking_lot::Mutex;

use self::metrics::Metrics;
use self::plan::{MANAGED_BY, MANAGER, Observed, Plan, SERVICE_NAME};
use self::topology::{Topology, Zones};
use self::tracker::{SliceTracker, TriggerTimes};
use crate::context::{Context, Run, enqueue_all};
use crate::events::{Recorder, reference};
use crate::kinds::{Node, Pod};
use crate::workload::index;

/// Changes of slices by other hands are looked at after this, together.
const SLICE_CHANGE_DELAY: Duration = Duration::from_secs(1);

struct Controller {
    services: Store<Service>,
    nodes: Store<Node>,
    pods: Index<Pod>,
    slices: Index<EndpointSlice>,
    api: Api<EndpointSlice>,
    events: Recorder,
    memory: Mutex<Memory>,
    max_per_slice: usize,
    queue: Queue<ObjectKey>,
    /// Has something in it when the zones are to be looked at again.
    zones: Queue<()>,
    batch: Duration,
    metrics: Metrics,
}

#[derive(Default)]
struct Memory {
    tracker: SliceTracker,
    times: TriggerTimes,
    topology: Topology,
}

/// Why a sync failed.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("EndpointSlice informer cache is out of date")]
    Stale,
    #[error("{0}")]
    Api(#[from] Error),
    #[error("{0}")]
    Skipped(String),
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("endpointslice-controller")?;
    let services = ctx.informer::<Service>();
    let nodes = ctx.informer::<Node>();
    let pods = ctx.pods();
    let slices = ctx.informer::<EndpointSlice>();
    let options = &ctx.options.endpointslice;
    let backoff = Backoff {
        base: Duration::from_secs(1),
        ..Backoff::default()
    };
    let controller = Arc::new(Controller {
        services: services.store().clone(),
        nodes: nodes.store().clone(),
        pods: index::by_namespace(&pods),
        slices: slices.add_index("service", |s| {
            service_key(s).map(|k| k.to_string()).into_iter().collect()
        }),
        api: Api::all(&client),
        events: ctx.recorder("endpoint-slice-controller"),
        memory: Mutex::default(),
        max_per_slice: options.max_endpoints_per_slice.get(),
        queue: ctx.queue_with("endpoint_slice", backoff),
        zones: Queue::new(),
        batch: options.endpointslice_updates_batch_period.get(),
        metrics: Metrics::new(&ctx.meter)?,
    });
    metrics::count_slices(
        &ctx.meter,
        services.store(),
        slices.store(),
        controller.max_per_slice,
    )?;
    enqueue_all(&services, &controller.queue);
    let c = Arc::clone(&controller);
    let by_namespace = index::by_namespace(&services);
    pods.add_handler(move |change| {
        for key in affected::services(&by_namespace, change) {
            c.queue.add_after(key, c.batch);
        }
    });
    let c = Arc::clone(&controller);
    slices.add_handler(move |change| c.slice_changed(change));
    let c = Arc::clone(&controller);
    nodes.add_handler(move |change| {
        if topology::matters(change) {
            c.zones.add(());
        }
    });
    let workers = options.concurrent_service_endpoint_syncs.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        services.wait_synced().await;
        nodes.wait_synced().await;
        pods.wait_synced().await;
        slices.wait_synced().await;
        // Before any Service, or hints would go that are right.
        if !controller.nodes.list().is_empty() {
            controller.look_at_zones();
        }
        let (queue, zones) = (controller.queue.clone(), controller.zones.clone());
        let c = Arc::clone(&controller);
        let looking = zones.run(1, &stop, move |()| {
            c.look_at_zones();
            std::future::ready(Ok::<_, Infallible>(Requeue::No))
        });
        let syncing = queue.run(workers, &stop, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.sync(&key).await }
        });
        tokio::join!(looking, syncing);
    })))
}

fn label<'a>(slice: &'a EndpointSlice, key: &str) -> &'a str {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|l| l.get(key)).map_or("", String::as_str)
}

/// The Service that a slice says it belongs to.
fn service_key(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = label(slice, SERVICE_NAME);
    (!name.is_empty()).then(|| ObjectKey::new(slice.namespace(), name))
}

fn is_ours(slice: &EndpointSlice) -> bool {
    label(slice, MANAGED_BY) == MANAGER
}

impl Controller {
    fn enqueue(&self, slice: &EndpointSlice) {
        if let Some(key) = service_key(slice) {
            self.queue
                .add_after(key, SLICE_CHANGE_DELAY.max(self.batch));
        }
    }

    /// Takes in where the nodes are now. Services come again of which a zone has too few
    /// endpoints then.
    fn look_at_zones(&self) {
        let zones = Zones::of(&self.nodes.list());
        let overloaded = self.memory.lock().topology.set_zones(zones);
        for key in overloaded {
            self.queue.add(key);
        }
    }

    fn slice_changed(&self, change: &Change<EndpointSlice>) {
        let ours_and_new = |slice: &EndpointSlice| {
            let key = service_key(slice);
            is_ours(slice)
                && key.is_some_and(|key| self.memory.lock().tracker.should_sync(&key, slice))
        };
        match change {
            Change::Added(slice) if ours_and_new(slice) => self.enqueue(slice),
            Change::Added(_) => {}
            Change::Updated { old, new } => {
                if label(old, SERVICE_NAME) != label(new, SERVICE_NAME) {
                    self.enqueue(old);
                    self.enqueue(new);
                } else if is_ours(old) != is_ours(new) || ours_and_new(new) {
                    self.enqueue(new);
                }
            }
            Change::Deleted(slice) => {
                let key = service_key(slice).filter(|_| is_ours(slice));
                if let Some(key) = key
                    && self.memory.lock().tracker.deleted(&key, slice)
                {
                    self.enqueue(slice);
                }
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, SyncError> {
        let Some(service) = self.services.get_key(key) else {
            let mut memory = self.memory.lock();
            memory.tracker.forget_service(key);
            memory.times.forget_service(key);
            memory.topology.forget_service(key);
            return Ok(Requeue::No);
        };
        let Some(selector) = affected::selector(&service) else {
            return Ok(Requeue::No);
        };
        let result = self.reconcile(key, &service, &selector).await;
        self.metrics.synced(match &result {
            Ok(()) => "success",
            Err(SyncError::Stale) => "stale",
            Err(_) => "error",
        });
        if let Err(error @ (SyncError::Api(_) | SyncError::Skipped(_))) = &result {
            let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
            self.events.event(
                &reference(&*service),
                true,
                "FailedToUpdateEndpointSlices",
                message,
            );
        }
        match result {
            Err(SyncError::Stale) => {
                tracing::debug!(service = %key, "the cache is behind our own writes, trying again");
                Ok(Requeue::Backoff)
            }
            other => other.map(|()| Requeue::No),
        }
    }

    async fn reconcile(
        &self,
        key: &ObjectKey,
        service: &Service,
        selector: &Selector,
    ) -> Result<(), SyncError> {
        let pods = affected::select(&self.pods, service.namespace(), selector);
        let ours = |s: &Arc<EndpointSlice>| is_ours(s) && s.metadata.deletion_timestamp.is_none();
        let slices: Vec<_> = self
            .slices
            .get(key.as_str())
            .into_iter()
            .filter(ours)
            .collect();
        let (trigger_time, zones, given) = {
            let mut memory = self.memory.lock();
            if memory.tracker.is_stale(key, slices.iter().map(|s| &**s)) {
                return Err(SyncError::Stale);
            }
            let pods = pods.iter().map(|p| &**p);
            let trigger_time = memory.times.trigger(key, service, pods);
            let topology = &memory.topology;
            (trigger_time, topology.zones(), topology.given(key))
        };
        let mut plan = plan::plan(&Observed {
            service,
            pods: &pods,
            zone_of: &|node| index::zone_of(self.nodes.get("", node).as_deref()),
            slices: &slices,
            trigger_time,
            max_per_slice: self.max_per_slice,
            zones: &zones,
            given: &given,
        });
        self.metrics.planned(service, &slices, &plan);
        let given = std::mem::take(&mut plan.given);
        if self.memory.lock().topology.set_given(key, given, &zones) {
            self.queue.add(key.clone());
        }
        let notices = std::mem::take(&mut plan.notices);
        let written = self.write(key, service, &slices, plan).await;
        for notice in notices {
            let warning = !notice.enabled;
            let about = reference(service);
            self.events
                .event(&about, warning, notice.reason(), notice.message);
        }
        written
    }

    async fn write(
        &self,
        key: &ObjectKey,
        service: &Service,
        slices: &[Arc<EndpointSlice>],
        plan: Plan,
    ) -> Result<(), SyncError> {
        let api = self.api.within(service.namespace());
        for slice in plan.create {
            match api.create(&slice).await {
                Ok(created) => {
                    self.metrics.changed("create");
                    self.memory.lock().tracker.written(key, &created);
                }
                Err(e) if e.is_namespace_terminating() => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
        for slice in plan.update {
            let updated = api.replace(&slice).await?;
            self.metrics.changed("update");
            self.memory.lock().tracker.written(key, &updated);
        }
        for name in plan.delete {
            optional(api.delete(&name, &DeleteOptions::new()).await)?;
            self.metrics.changed("delete");
            if let Some(slice) = slices.iter().find(|s| s.name() == name) {
                self.memory.lock().tracker.expect_deletion(key, slice);
            }
        }
        if plan.errors.is_empty() {
            return Ok(());
        }
        Err(SyncError::Skipped(plan.errors.join(", ")))
    }
}
