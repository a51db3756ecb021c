//! namespace-controller: empties namespaces that are being deleted, then lets them go.
//!
//! Pods go first, and nothing else before they are gone: what they still need while they stop
//! (policies, secrets) must outlive them (KEP-5080).

mod content;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use client::workqueue::{Backoff, Queue, Requeue};
use client::{Api, Client, Error, ObjectKey, optional};
use k8s_openapi::api::core::v1::Namespace;

use crate::context::{Context, Run, now};

/// Objects that are being created when the deletion begins get this long to appear.
const GRACE_PERIOD: Duration = Duration::from_secs(5);
const FINALIZER: &str = "kubernetes";

/// Why a namespace is not empty yet.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("{0}")]
    Api(#[from] Error),
    #[error("{0}")]
    Content(String),
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    // Deleting a namespace takes a request per resource: upstream multiplies the limits too.
    let client = ctx.client("namespace-controller")?;
    let (qps, burst) = ctx.options.rate_limit();
    let client = client.with_rate_limit(qps * 20.0, burst * 100);
    let namespaces = ctx.informer::<Namespace>();
    let backoff = Backoff {
        max: Duration::from_secs(60),
        ..Backoff::default()
    };
    let queue: Queue<ObjectKey> = ctx.queue_with("namespace", backoff);
    let added = queue.clone();
    namespaces.add_handler(move |change| {
        if change
            .current()
            .is_some_and(|n| n.metadata.deletion_timestamp.is_some())
        {
            added.add_after(change.key(), GRACE_PERIOD);
        }
    });
    let workers = ctx.options.namespace.concurrent_namespace_syncs.get();
    let stop = ctx.stop.clone();
    let controller = Arc::new(Controller {
        api: Api::all(&client),
        client,
    });
    Ok(Some(Box::pin(async move {
        namespaces.wait_synced().await;
        queue
            .run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.sync(&key).await }
            })
            .await;
    })))
}

struct Controller {
    client: Client,
    api: Api<Namespace>,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, SyncError> {
        // What the cache says of a namespace may be of an earlier one of that name.
        let Some(mut namespace) = optional(self.api.get(key.name()).await)? else {
            return Ok(Requeue::No);
        };
        let Some(deleted) = namespace.metadata.deletion_timestamp.clone() else {
            return Ok(Requeue::No);
        };
        let status = namespace.status.get_or_insert_default();
        if status.phase.as_deref() != Some("Terminating") {
            status.phase = Some("Terminating".to_owned());
            namespace = self.api.replace_status(&namespace).await?;
        }
        let finalizers = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref());
        if finalizers.is_none_or(Vec::is_empty) {
            return Ok(Requeue::No);
        }

        let round = content::delete_all(&self.client, key.name(), deleted.0).await?;
        let mut conditions = namespace
            .status
            .as_ref()
            .and_then(|s| s.conditions.clone())
            .unwrap_or_default();
        if plan::update_conditions(&mut conditions, &round.findings, now()) {
            namespace.status.get_or_insert_default().conditions = Some(conditions);
            match self.api.replace_status(&namespace).await {
                Ok(updated) => namespace = updated,
                // The conditions are for people; the next round writes them.
                Err(err) => {
                    tracing::warn!(namespace = key.name(), %err, "cannot update conditions")
                }
            }
        }
        let errors = round.errors();
        if !errors.is_empty() {
            return Err(SyncError::Content(errors.join(", ")));
        }
        if let Some(estimate) = round.estimate {
            return Ok(Requeue::After(plan::look_again(estimate)));
        }
        self.finalize(namespace).await?;
        Ok(Requeue::No)
    }

    async fn finalize(&self, mut namespace: Namespace) -> Result<(), Error> {
        let uid = namespace.metadata.uid.clone();
        let name = namespace.metadata.name.clone().unwrap_or_default();
        loop {
            if let Some(finalizers) = namespace.spec.as_mut().and_then(|s| s.finalizers.as_mut()) {
                finalizers.retain(|f| f != FINALIZER);
            }
            match self.api.replace_subresource("finalize", &namespace).await {
                Err(e) if e.is_conflict() => {}
                other => return optional(other).map(drop),
            }
            match optional(self.api.get(&name).await)? {
                Some(live) if live.metadata.uid == uid => namespace = live,
                _ => return Ok(()),
            }
        }
    }
}
