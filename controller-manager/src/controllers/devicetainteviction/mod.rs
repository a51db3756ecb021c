//! device-taint-eviction-controller: deletes pods whose devices have `NoExecute` taints that
//! their claims do not tolerate (KEP-5055). Taints come from ResourceSlices; those of
//! DeviceTaintRules, which are off by default, are not looked at.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, Patch, PatchOptions, optional};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{Context, Run, now};
use crate::controllers::resourceclaim::{claim_keys, may_use};
use crate::events::Recorder;
use crate::kinds::Pod;
use crate::metrics::Deletions;
use crate::workload::pods::condition_patch;

const REASON: &str = "DeviceTaintManagerEviction";

struct Controller {
    pods: Store<Pod>,
    claims: Store<ResourceClaim>,
    slices: Index<ResourceSlice>,
    api: Api<Pod>,
    events: Recorder,
    /// Pods that will have to go.
    scheduled: Mutex<HashMap<ObjectKey, Timestamp>>,
    queue: Queue<ObjectKey>,
    deletions: Deletions,
}

/// Slices are found by driver and pool.
fn pool(driver: &str, pool: &str) -> String {
    format!("{driver}/{pool}")
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("device-taint-eviction-controller")?;
    let pods = ctx.pods();
    let claims = ctx.informer::<ResourceClaim>();
    let slices = ctx.informer::<ResourceSlice>();
    let claims_by_pool = claims.add_index("pool", |claim| {
        let allocation = claim.status.as_ref().and_then(|s| s.allocation.as_ref());
        let devices = allocation.and_then(|a| a.devices.as_ref());
        let results = devices.iter().flat_map(|d| d.results.iter().flatten());
        results.map(|r| pool(&r.driver, &r.pool)).collect()
    });
    let controller = Arc::new(Controller {
        pods: pods.store().clone(),
        claims: claims.store().clone(),
        slices: slices.add_index("pool", |slice| {
            vec![pool(&slice.spec.driver, &slice.spec.pool.name)]
        }),
        api: Api::all(&client),
        events: ctx.recorder("device-taint-eviction-controller"),
        scheduled: Mutex::default(),
        queue: ctx.queue("device_taint_eviction"),
        deletions: Deletions::new(&ctx.meter, "device_taint_eviction_controller")?,
    });
    let queue = controller.queue.clone();
    pods.add_handler(move |change| {
        if !change.object().spec.resource_claims.is_empty() {
            queue.add(change.key());
        }
    });
    let queue = controller.queue.clone();
    let users = move |claim: &ResourceClaim| {
        let users = claim
            .status
            .iter()
            .flat_map(|s| s.reserved_for.iter().flatten());
        for user in users.filter(|u| u.resource == "pods") {
            queue.add(ObjectKey::new(claim.namespace(), &user.name));
        }
    };
    let changed = users.clone();
    claims.add_handler(move |change| {
        changed(change.object());
        if let Change::Updated { old, .. } = change {
            changed(old);
        }
    });
    slices.add_handler(move |change| {
        let slice = change.object();
        for claim in claims_by_pool.get(&pool(&slice.spec.driver, &slice.spec.pool.name)) {
            users(&claim);
        }
    });
    let workers = ctx
        .options
        .device_taint_eviction
        .concurrent_device_taint_eviction_syncs
        .get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        pods.wait_synced().await;
        claims.wait_synced().await;
        slices.wait_synced().await;
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
    /// When the pod must go, if it must.
    fn evict_at(&self, pod: &Pod, now: Timestamp) -> Option<Timestamp> {
        let claims = claim_keys(pod).filter_map(|key| self.claims.get_key(&key));
        let claims = claims.filter(|claim| may_use(pod, claim));
        let times = claims.filter_map(|claim| {
            let allocation = claim.status.as_ref()?.allocation.as_ref()?;
            let results = allocation.devices.as_ref()?.results.iter().flatten();
            let pools: HashMap<String, Vec<Arc<ResourceSlice>>> = results
                .map(|r| pool(&r.driver, &r.pool))
                .map(|pool| (pool.clone(), self.slices.get(&pool)))
                .collect();
            let device = |driver: &str, name: &str, device: &str| {
                plan::device(pools.get(&pool(driver, name))?, device)
            };
            plan::evict_at(allocation, device, now)
        });
        times.min()
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let pod = self.pods.get_key(key).filter(|p| !p.is_deleting());
        let on_node = pod.filter(|p| !p.spec.node_name.is_empty());
        let now = Timestamp::now();
        let due = on_node.and_then(|pod| Some((self.evict_at(&pod, now)?, pod)));
        let Some((at, pod)) = due else {
            self.cancel(key);
            return Ok(Requeue::No);
        };
        if at > now {
            self.scheduled.lock().insert(key.clone(), at);
            let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            return Ok(Requeue::After(left));
        }
        self.evict(key, &pod).await?;
        self.deletions.happened(at);
        self.scheduled.lock().remove(key);
        Ok(Requeue::No)
    }

    fn cancel(&self, key: &ObjectKey) {
        // One that was deleted needs no word any more.
        let scheduled = self.scheduled.lock().remove(key).is_some();
        if let Some(pod) = self
            .pods
            .get_key(key)
            .filter(|p| scheduled && !p.is_deleting())
        {
            let about = reference(key, pod.uid());
            self.events
                .event(&about, false, REASON, "Cancelling deletion");
        }
    }

    async fn evict(&self, key: &ObjectKey, pod: &Pod) -> Result<(), Error> {
        tracing::info!(pod = %key, "Deleting pod because of a device taint");
        let about = reference(key, pod.uid());
        self.events
            .event(&about, false, REASON, "Marking for deletion");
        let api = self.api.within(key.namespace());
        let condition = json!({
            "type": "DisruptionTarget", "status": "True",
            "reason": "DeletionByDeviceTaintManager",
            "message": "Device Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": now(), "lastProbeTime": null,
        });
        let patch = Patch::Strategic(json!({
            "metadata": {"uid": pod.uid()}, "status": condition_patch(pod, condition),
        }));
        let patched = api
            .patch_status(key.name(), &patch, &PatchOptions::default())
            .await;
        if optional(patched)?.is_some() {
            let delete = DeleteOptions::with_uid(pod.uid());
            optional(api.delete(key.name(), &delete).await)?;
        }
        Ok(())
    }
}

fn reference(key: &ObjectKey, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(key.namespace().to_owned()),
        name: Some(key.name().to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}
