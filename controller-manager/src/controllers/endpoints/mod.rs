//! endpoints-controller: the Endpoints object of each Service with a selector.

pub mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, optional};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use parking_lot::Mutex;

use self::plan::Plan;
use crate::context::{Context, Run, enqueue_all};
use crate::controllers::endpointslice::affected;
use crate::controllers::endpointslice::tracker::TriggerTimes;
use crate::events::{Recorder, reference};
use crate::kinds::Pod;
use crate::workload::index;
use crate::workload::written::Written;

struct Controller {
    services: Store<Service>,
    endpoints: Store<Endpoints>,
    pods: Index<Pod>,
    api: Api<Endpoints>,
    events: Recorder,
    times: Mutex<TriggerTimes>,
    written: Written,
    queue: Queue<ObjectKey>,
    batch: Duration,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("endpoint-controller")?;
    let services = ctx.informer::<Service>();
    let endpoints = ctx.informer::<Endpoints>();
    let pods = ctx.pods();
    let options = &ctx.options.endpoints;
    let controller = Arc::new(Controller {
        services: services.store().clone(),
        endpoints: endpoints.store().clone(),
        pods: index::by_namespace(&pods),
        api: Api::all(&client),
        events: ctx.recorder("endpoint-controller"),
        times: Mutex::default(),
        written: Written::default(),
        queue: ctx.queue("endpoint"),
        batch: options.endpoint_updates_batch_period.get(),
    });
    enqueue_all(&services, &controller.queue);
    let c = Arc::clone(&controller);
    let by_namespace = index::by_namespace(&services);
    pods.add_handler(move |change| {
        for key in affected::services(&by_namespace, change) {
            c.queue.add_after(key, c.batch);
        }
    });
    let c = Arc::clone(&controller);
    endpoints.add_handler(move |change| {
        if let Change::Deleted(_) = change {
            c.queue.add(change.key());
        }
    });
    let workers = options.concurrent_endpoint_syncs.get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        services.wait_synced().await;
        endpoints.wait_synced().await;
        pods.wait_synced().await;
        // Those whose Service went while nobody looked.
        for object in endpoints.store().list() {
            let annotations = object.metadata.annotations.as_ref();
            if !annotations
                .is_some_and(|a| a.contains_key("control-plane.alpha.kubernetes.io/leader"))
            {
                controller.queue.add(object.key());
            }
        }
        let queue = controller.queue.clone();
        queue
            .run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.sync(&key).await }
            })
            .await;
    })))
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let api = self.api.within(key.namespace());
        let Some(service) = self.services.get_key(key) else {
            if self.endpoints.get_key(key).is_some() {
                optional(api.delete(key.name(), &DeleteOptions::new()).await)?;
            }
            self.times.lock().forget_service(key);
            self.written.forget(key);
            return Ok(Requeue::No);
        };
        let Some(selector) = affected::selector(&service) else {
            return Ok(Requeue::No);
        };
        let pods = affected::select(&self.pods, key.namespace(), &selector);
        let trigger_time = self
            .times
            .lock()
            .trigger(key, &service, pods.iter().map(|p| &**p));
        let current = self.endpoints.get_key(key);
        if current
            .as_ref()
            .is_some_and(|c| self.written.is_ahead_of(&**c))
        {
            return Ok(Requeue::Backoff);
        }
        match plan::plan(&service, &pods, current.as_deref(), trigger_time) {
            Plan::Nothing => {}
            Plan::Create(new) => match api.create(&new).await {
                Ok(made) => self.written.note(&made),
                Err(e) if e.is_namespace_terminating() => return Ok(Requeue::No),
                Err(e) => {
                    let message = format!("Failed to create endpoint for service {key}: {e}");
                    self.events
                        .event(&reference(&*new), true, "FailedToCreateEndpoint", message);
                    return Err(e);
                }
            },
            Plan::Update(new) => match api.replace(&new).await {
                Ok(made) => self.written.note(&made),
                Err(e) => {
                    let message = format!("Failed to update endpoint {key}: {e}");
                    self.events
                        .event(&reference(&*new), true, "FailedToUpdateEndpoint", message);
                    return Err(e);
                }
            },
        }
        Ok(Requeue::No)
    }
}
