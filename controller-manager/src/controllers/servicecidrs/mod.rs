//! service-cidr-controller: says when a ServiceCIDR can be allocated from, and keeps one that is
//! being deleted until no Service has an address that only it holds (KEP-1880).

pub mod plan;

use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event as Change, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, Patch, PatchOptions, optional};
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::json;

use self::plan::{FINALIZER, Plan};
use crate::context::{Context, Run, enqueue_all, now, retry_conflicts};
use crate::events::{Recorder, reference};

struct Controller {
    cidrs: Store<ServiceCIDR>,
    addresses: Store<IPAddress>,
    api: Api<ServiceCIDR>,
    events: Recorder,
    queue: Queue<ObjectKey>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("service-cidrs-controller")?;
    let cidrs = ctx.informer::<ServiceCIDR>();
    let addresses = ctx.informer::<IPAddress>();
    let controller = Arc::new(Controller {
        cidrs: cidrs.store().clone(),
        addresses: addresses.store().clone(),
        api: Api::all(&client),
        events: ctx.recorder("service-cidr-controller"),
        queue: ctx.queue("ipaddresses"),
    });
    enqueue_all(&cidrs, &controller.queue);
    let c = Arc::clone(&controller);
    cidrs.add_handler(move |change| {
        // A new range may take over what another one, being deleted, waits for.
        if let Change::Added(new) = change {
            let overlapping = c.cidrs.filter(|other| plan::overlap(new, other));
            overlapping.iter().for_each(|o| c.queue.add(o.key()));
        }
    });
    let c = Arc::clone(&controller);
    addresses.add_handler(move |change| {
        let address = match change {
            Change::Added(address) | Change::Deleted(address) => address,
            Change::Updated { .. } => return,
        };
        let holders = c.cidrs.filter(|cidr| plan::holds(cidr, address));
        holders.iter().for_each(|h| c.queue.add(h.key()));
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        cidrs.wait_synced().await;
        addresses.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(5, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            })
            .await;
    })))
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(cidr) = self.cidrs.get_key(key) else {
            return Ok(Requeue::No);
        };
        let plan = plan::plan(&cidr, &self.cidrs.list(), || self.addresses.list(), now());
        match plan {
            Plan::Nothing => {}
            Plan::Wait(left) => {
                return Ok(Requeue::After(Duration::try_from(left).unwrap_or_default()));
            }
            Plan::Release => {
                let patch = json!({"$deleteFromPrimitiveList/finalizers": [FINALIZER]});
                self.patch_metadata(&cidr, patch).await?;
            }
            Plan::Keep { protect, condition } => {
                if protect {
                    self.patch_metadata(&cidr, json!({"finalizers": [FINALIZER]}))
                        .await?;
                }
                if let Some(condition) = condition {
                    self.tell(&cidr, &condition).await?;
                }
            }
        }
        Ok(Requeue::No)
    }

    async fn patch_metadata(
        &self,
        cidr: &ServiceCIDR,
        metadata: serde_json::Value,
    ) -> Result<(), Error> {
        let patch = Patch::Strategic(json!({ "metadata": metadata }));
        let options = PatchOptions::default();
        optional(self.api.patch(cidr.name(), &patch, &options).await).map(drop)
    }

    async fn tell(&self, cidr: &ServiceCIDR, condition: &Condition) -> Result<(), Error> {
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        let options = PatchOptions::default();
        let result = self.api.patch_status(cidr.name(), &patch, &options).await;
        if result.is_err() && condition.status == "True" {
            let message = "The ServiceCIDR Status can not be set to Ready=True";
            self.events.event(
                &reference(cidr),
                true,
                "KubernetesServiceCIDRError",
                message,
            );
        }
        optional(result).map(drop)
    }
}
