//! resourcepoolstatusrequest-controller: answers, once, how many devices of a driver's pools there
//! are and how many are in use (KEP-5677), and deletes requests some time after that.

mod metrics;
mod plan;

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::informer::Store;
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, optional};
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use k8s_openapi::api::resource::v1alpha3::ResourcePoolStatusRequest;

use self::metrics::Processed;
use crate::context::{Context, Run, now};

/// How often a request is looked at again before it is given up until somebody changes it.
const RETRIES: u32 = 5;
/// Between looks for requests that have been there for long enough.
const PERIOD: Duration = Duration::from_secs(10 * 60);

struct Controller {
    requests: Store<ResourcePoolStatusRequest>,
    slices: Store<ResourceSlice>,
    claims: Store<ResourceClaim>,
    api: Api<ResourcePoolStatusRequest>,
    queue: Queue<ObjectKey>,
    processed: Processed,
}

/// Why a request has no answer yet.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Incomplete(#[from] plan::Incomplete),
    #[error("failed to update status: {0}")]
    Write(#[from] Error),
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("resourcepoolstatusrequest-controller")?;
    let requests = ctx.informer::<ResourcePoolStatusRequest>();
    let slices = ctx.informer::<ResourceSlice>();
    let claims = ctx.informer::<ResourceClaim>();
    let controller = Arc::new(Controller {
        requests: requests.store().clone(),
        slices: slices.store().clone(),
        claims: claims.store().clone(),
        api: Api::all(&client),
        // Upstream's has no name, and so no metrics.
        queue: Queue::new(),
        processed: Processed::new(&ctx.meter)?,
    });
    let queue = controller.queue.clone();
    requests.add_handler(move |change| {
        if change.current().is_some_and(|r| r.status.is_none()) {
            queue.add(change.key());
        }
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        requests.wait_synced().await;
        slices.wait_synced().await;
        claims.wait_synced().await;
        let (queue, cleaner) = (controller.queue.clone(), Arc::clone(&controller));
        let cleaning = async {
            loop {
                cleaner.clean().await;
                tokio::time::sleep(PERIOD).await;
            }
        };
        tokio::join!(
            stop.run_until_cancelled(cleaning),
            queue.run(1, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.sync_or_give_up(&key).await }
            }),
        );
    })))
}

impl Controller {
    async fn sync_or_give_up(&self, key: &ObjectKey) -> Result<Requeue, Failure> {
        match self.sync(key).await {
            Err(error) if self.queue.failures(key) >= RETRIES => {
                tracing::error!(request = %key, %error, "Dropping request out of the queue after max retries");
                Ok(Requeue::No)
            }
            other => other.map(|()| Requeue::No),
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), Failure> {
        let began = Instant::now();
        let request = self.requests.get_key(key);
        let Some(request) = request.filter(|request| request.status.is_none()) else {
            return Ok(());
        };
        // A driver that is about to publish its slices may have done so when it comes again.
        let spec = &request.spec;
        let status = plan::status(spec, &self.slices.list(), &self.claims.list(), now())?;
        let answered = ResourcePoolStatusRequest {
            status: Some(status),
            ..ResourcePoolStatusRequest::clone(&request)
        };
        let written = self.api.replace_status(&answered).await;
        self.processed.done(&spec.driver, began, written.is_ok());
        optional(written)?;
        Ok(())
    }

    async fn clean(&self) {
        let old = |request: &ResourcePoolStatusRequest| plan::is_old(request, Timestamp::now());
        for request in self.requests.filter(old) {
            let options = DeleteOptions::with_uid(request.uid());
            if let Err(error) = optional(self.api.delete(request.name(), &options).await) {
                let request = request.name();
                tracing::error!(request, %error, "Failed to delete expired ResourcePoolStatusRequest");
            }
        }
    }
}
