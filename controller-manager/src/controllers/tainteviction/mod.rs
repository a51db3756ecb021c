//! taint-eviction-controller: deletes pods from nodes with `NoExecute` taints that they do not
//! tolerate, or not for that long.

mod plan;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, DeleteOptions, Error, Object as _, ObjectKey, Patch, PatchOptions, optional};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use parking_lot::Mutex;
use serde_json::json;

use self::plan::{Action, Scheduled};
use crate::context::{Context, Run, now};
use crate::events::Recorder;
use crate::kinds::{Node, Pod, Taint};
use crate::metrics::Deletions;
use crate::workload::index;
use crate::workload::pods::condition_patch;

const WORKERS: usize = 8;

struct Controller {
    nodes: Store<Node>,
    pods: Store<Pod>,
    pods_by_node: Index<Pod>,
    api: Api<Pod>,
    events: Recorder,
    scheduled: Mutex<HashMap<ObjectKey, Scheduled>>,
    queue: Queue<ObjectKey>,
    deletions: Deletions,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("node-controller")?;
    let nodes = ctx.informer::<Node>();
    let pods = ctx.pods();
    let controller = Arc::new(Controller {
        nodes: nodes.store().clone(),
        pods: pods.store().clone(),
        pods_by_node: index::pods_by_node(&pods),
        api: Api::all(&client),
        events: ctx.recorder("taint-eviction-controller"),
        scheduled: Mutex::default(),
        queue: ctx.queue("noexec_taint_pod"),
        deletions: Deletions::new(&ctx.meter, "taint_eviction_controller")?,
    });
    let c = Arc::clone(&controller);
    nodes.add_handler(move |change| {
        let old = change.previous().map(|n| no_execute(n)).unwrap_or_default();
        let new = change.current().map(|n| no_execute(n)).unwrap_or_default();
        if old != new {
            let pods = c.pods_by_node.get(change.object().name());
            pods.iter().for_each(|pod| c.queue.add(pod.key()));
        }
    });
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| {
        let relevant = |p: &Arc<Pod>| (p.spec.node_name.clone(), p.spec.tolerations.clone());
        if change.previous().map(relevant) != change.current().map(relevant) {
            c.queue.add(change.key());
        }
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        nodes.wait_synced().await;
        pods.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(WORKERS, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.sync(&key).await }
            })
            .await;
    })))
}

fn no_execute(node: &Node) -> Vec<Taint> {
    let taints = node.spec.taints.iter();
    taints
        .filter(|t| &*t.effect == "NoExecute")
        .cloned()
        .collect()
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(pod) = self.pods.get_key(key) else {
            self.cancel(key);
            return Ok(Requeue::No);
        };
        // One that ends for another reason is marked, too; one that was marked ends already.
        let marked = |pod: &Pod| {
            let sign = pod.condition("DisruptionTarget");
            sign.is_some_and(|c| &*c.status == "True")
        };
        if pod.is_deleting() && marked(&pod) {
            self.scheduled.lock().remove(key);
            return Ok(Requeue::No);
        }
        let node = self.nodes.get("", &pod.spec.node_name);
        let taints = node.as_ref().map(|n| no_execute(n)).unwrap_or_default();
        let now = now();
        let scheduled = self.scheduled.lock().get(key).copied();
        let wait = |s: Scheduled| {
            let left = s.at.duration_since(now);
            Ok(Requeue::After(Duration::try_from(left).unwrap_or_default()))
        };
        match plan::plan(&pod.spec.tolerations, &taints, scheduled, now) {
            Action::Stay => {
                self.cancel(key);
                Ok(Requeue::No)
            }
            Action::Keep => match scheduled {
                Some(s) if s.at > now => wait(s),
                due => self.evict(key, &pod, due.map_or(now, |s| s.at)).await,
            },
            Action::Evict(new) => {
                self.cancel(key);
                if new.at <= now {
                    return self.evict(key, &pod, new.at).await;
                }
                self.scheduled.lock().insert(key.clone(), new);
                wait(new)
            }
        }
    }

    fn cancel(&self, key: &ObjectKey) {
        if self.scheduled.lock().remove(key).is_some() {
            let message = format!("Cancelling deletion of Pod {key}");
            self.events
                .event(&reference(key), false, "TaintManagerEviction", message);
        }
    }

    async fn evict(&self, key: &ObjectKey, pod: &Pod, due: Timestamp) -> Result<Requeue, Error> {
        tracing::info!(pod = %key, "Deleting pod");
        let message = format!("Marking for deletion Pod {key}");
        self.events
            .event(&reference(key), false, "TaintManagerEviction", message);
        let api = self.api.within(key.namespace());
        if pod
            .condition("DisruptionTarget")
            .is_none_or(|c| &*c.status != "True")
        {
            let condition = json!({
                "type": "DisruptionTarget", "status": "True",
                "reason": "DeletionByTaintManager",
                "message": "Taint manager: deleting due to NoExecute taint",
                "lastTransitionTime": now(), "lastProbeTime": null,
                "observedGeneration": pod.metadata.generation,
            });
            let patch = Patch::Strategic(json!({
                "metadata": {"uid": pod.uid()}, "status": condition_patch(pod, condition),
            }));
            let patched = api
                .patch_status(key.name(), &patch, &PatchOptions::default())
                .await;
            if optional(patched)?.is_none() {
                return Ok(Requeue::No);
            }
        }
        optional(api.delete(key.name(), &DeleteOptions::new()).await)?;
        self.deletions.happened(due);
        self.scheduled.lock().remove(key);
        Ok(Requeue::No)
    }
}

/// Upstream's event names the pod by name only.
fn reference(key: &ObjectKey) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(key.namespace().to_owned()),
        name: Some(key.name().to_owned()),
        ..ObjectReference::default()
    }
}
