//! endpointslice-mirroring-controller: what people write as Endpoints, for Services without a
//! selector, as EndpointSlices.

mod metrics;
pub mod plan;

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Backoff, Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, optional};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;

use self::metrics::Metrics;
use self::plan::{MANAGER, mirrors};
use crate::context::{Context, Run};
use crate::controllers::endpointslice::plan::{MANAGED_BY, SERVICE_NAME};
use crate::controllers::endpointslice::tracker::SliceTracker;
use crate::events::{Recorder, reference};

struct Controller {
    endpoints: Store<Endpoints>,
    services: Store<Service>,
    slices: Index<EndpointSlice>,
    api: Api<EndpointSlice>,
    events: Recorder,
    tracker: Mutex<SliceTracker>,
    max_per_subset: usize,
    queue: Queue<ObjectKey>,
    batch: Duration,
    metrics: Metrics,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("endpointslicemirroring-controller")?;
    let endpoints = ctx.informer::<Endpoints>();
    let services = ctx.informer::<Service>();
    let slices = ctx.informer::<EndpointSlice>();
    let options = &ctx.options.endpointslicemirroring;
    let backoff = Backoff {
        base: Duration::from_secs(1),
        max: Duration::from_secs(100),
        ..Backoff::default()
    };
    let controller = Arc::new(Controller {
        endpoints: endpoints.store().clone(),
        services: services.store().clone(),
        slices: slices.add_index("mirrored", |s| {
            mirrored(s).map(|k| k.to_string()).into_iter().collect()
        }),
        api: Api::all(&client),
        events: ctx.recorder("endpoint-slice-mirroring-controller"),
        tracker: Mutex::default(),
        max_per_subset: options.mirroring_max_endpoints_per_subset.get(),
        queue: ctx.queue_with("endpoint_slice_mirroring", backoff),
        batch: options.mirroring_endpointslice_updates_batch_period.get(),
        metrics: Metrics::new(&ctx.meter)?,
    });
    metrics::count_slices(&ctx.meter, slices.store())?;
    let queue = controller.queue.clone();
    endpoints.add_handler(move |change| {
        if mirrors(change.object()) || change.previous().is_some_and(|old| mirrors(old)) {
            queue.add(change.key());
        }
    });
    let queue = controller.queue.clone();
    services.add_handler(move |change| {
        let ours = match change {
            Change::Updated { old, new } => has_selector(old) != has_selector(new),
            Change::Added(service) | Change::Deleted(service) => !has_selector(service),
        };
        if ours {
            queue.add(change.key());
        }
    });
    let c = Arc::clone(&controller);
    slices.add_handler(move |change| c.slice_changed(change));
    let workers = options.mirroring_concurrent_service_endpoint_syncs.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        endpoints.wait_synced().await;
        services.wait_synced().await;
        slices.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move {
                    let began = Instant::now();
                    let result = controller.sync(&key).await;
                    controller.metrics.synced(began);
                    result
                }
            })
            .await;
    })))
}

/// Whether the Service's endpoints are found by pods' labels; an empty selector finds none, and
/// is one all the same.
fn has_selector(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|s| s.selector.as_ref()).is_some()
}

fn label<'a>(slice: &'a EndpointSlice, key: &str) -> &'a str {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|l| l.get(key)).map_or("", String::as_str)
}

/// The Endpoints, and Service, that a slice says it belongs to.
fn owner(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = label(slice, SERVICE_NAME);
    (!name.is_empty()).then(|| ObjectKey::new(slice.namespace(), name))
}

fn is_ours(slice: &EndpointSlice) -> bool {
    label(slice, MANAGED_BY) == MANAGER
}

/// The Endpoints that a slice of ours mirrors.
fn mirrored(slice: &EndpointSlice) -> Option<ObjectKey> {
    owner(slice).filter(|_| is_ours(slice))
}

impl Controller {
    fn enqueue(&self, slice: &EndpointSlice) {
        if let Some(key) = owner(slice) {
            self.queue.add_after(key, self.batch);
        }
    }

    fn slice_changed(&self, change: &Change<EndpointSlice>) {
        let ours_and_new = |slice: &EndpointSlice| {
            mirrored(slice).is_some_and(|key| self.tracker.lock().should_sync(&key, slice))
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
                let by_others =
                    mirrored(slice).is_some_and(|key| self.tracker.lock().deleted(&key, slice));
                if by_others {
                    self.enqueue(slice);
                }
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let slices = self.slices.get(key.as_str());
        let api = self.api.within(key.namespace());
        let endpoints = self.endpoints.get_key(key).filter(|e| mirrors(e));
        let service = self.services.get_key(key).filter(|s| !has_selector(s));
        let Some(endpoints) = endpoints.filter(|_| service.is_some()) else {
            self.tracker.lock().forget_service(key);
            for slice in slices {
                optional(api.delete(slice.name(), &DeleteOptions::new()).await)?;
            }
            return Ok(Requeue::No);
        };
        if self
            .tracker
            .lock()
            .is_stale(key, slices.iter().map(|s| &**s))
        {
            tracing::debug!(endpoints = %key, "the cache is behind our own writes, trying again");
            return Ok(Requeue::Backoff);
        }
        let plan = plan::plan(&endpoints, &slices, self.max_per_subset);
        self.metrics.skipped(plan.skipped);
        self.tell(&endpoints, &plan);
        for slice in &plan.create {
            match api.create(slice).await {
                Ok(created) => {
                    self.metrics.changed("create");
                    self.tracker.lock().written(key, &created);
                }
                Err(e) if e.is_namespace_terminating() => return Ok(Requeue::No),
                Err(e) => return Err(e),
            }
        }
        for slice in &plan.update {
            let updated = api.replace(slice).await?;
            self.metrics.changed("update");
            self.tracker.lock().written(key, &updated);
        }
        for slice in &plan.delete {
            optional(api.delete(slice.name(), &DeleteOptions::new()).await)?;
            self.metrics.changed("delete");
            self.tracker.lock().expect_deletion(key, slice);
        }
        Ok(Requeue::No)
    }

    /// Events about what cannot be mirrored.
    fn tell(&self, endpoints: &Endpoints, plan: &plan::Plan) {
        let about = reference(endpoints);
        if plan.invalid > 0 {
            let message = format!(
                "Skipped {} invalid IP addresses when mirroring to EndpointSlices",
                plan.invalid
            );
            self.events.event(&about, true, "InvalidIPAddress", message);
        }
        if plan.skipped > plan.invalid {
            let message = format!(
                "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were skipped",
                self.max_per_subset, plan.skipped
            );
            self.events
                .event(&about, true, "TooManyAddressesToMirror", message);
        }
    }
}
