//! persistentvolumeclaim-protection-controller: keeps a claim that is being deleted until no
//! pod uses it.

use std::sync::Arc;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, ListOptions, Object as _, ObjectKey, optional};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use meta::owner::controller_of;

use crate::context::{Context, Run, retry_conflicts};
use crate::kinds::Pod;
use crate::workload::index;
use crate::workload::protection::{self, Protection};

const FINALIZER: &str = "kubernetes.io/pvc-protection";

struct Controller {
    claims: Store<PersistentVolumeClaim>,
    pods_by_claim: Index<Pod>,
    api: Api<PersistentVolumeClaim>,
    pods: Api<Pod>,
    queue: Queue<ObjectKey>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("pvc-protection-controller")?;
    let claims = ctx.informer::<PersistentVolumeClaim>();
    let pods = ctx.pods();
    let controller = Arc::new(Controller {
        claims: claims.store().clone(),
        pods_by_claim: index::pods_by_claim(&pods),
        api: Api::all(&client),
        pods: Api::all(&client),
        queue: ctx.queue("pvcprotection"),
    });
    let queue = controller.queue.clone();
    claims.add_handler(move |change| {
        let state = |c: &PersistentVolumeClaim| protection::state(&c.metadata, FINALIZER);
        if change
            .current()
            .is_some_and(|c| state(c) != Protection::Settled)
        {
            queue.add(change.key());
        }
    });
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| c.pod_changed(change));
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        claims.wait_synced().await;
        pods.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(1, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            })
            .await;
    })))
}

fn claim_keys(pod: &Pod) -> impl Iterator<Item = ObjectKey> {
    pod.claims()
        .map(|(name, _)| ObjectKey::new(pod.namespace(), &name))
}

/// Whether the pod keeps the claim. One that is on no node has nothing mounted, and its start
/// will fail for want of the claim.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    if pod.spec.node_name.is_empty() {
        return false;
    }
    let shut_down = pod.is_deleting() && pod.metadata.deletion_grace_period_seconds == Some(0);
    let made_for_pod = || {
        let owner = controller_of(&claim.metadata);
        !shut_down && owner.is_some_and(|o| o.uid == pod.uid())
    };
    pod.claims()
        .any(|(name, ephemeral)| name == claim.name() && (!ephemeral || made_for_pod()))
}

impl Controller {
    fn pod_changed(&self, change: &Change<Pod>) {
        let enqueue = |pod: &Pod| claim_keys(pod).for_each(|key| self.queue.add(key));
        match change {
            Change::Deleted(pod) => enqueue(pod),
            Change::Added(pod) if lets_go(pod) => enqueue(pod),
            Change::Added(_) => {}
            Change::Updated { old, new } => {
                if lets_go(new) {
                    enqueue(new);
                }
                if old.uid() != new.uid() {
                    enqueue(old);
                }
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(claim) = self.claims.get_key(key) else {
            return Ok(Requeue::No);
        };
        let mut changed = PersistentVolumeClaim::clone(&claim);
        match protection::state(&claim.metadata, FINALIZER) {
            Protection::Settled => return Ok(Requeue::No),
            Protection::Missing => protection::protect(&mut changed.metadata, FINALIZER),
            Protection::Ending => {
                if self.is_used(&claim).await? {
                    tracing::debug!(claim = %key, "Keeping PVC because it is being used");
                    return Ok(Requeue::No);
                }
                protection::release(&mut changed.metadata, FINALIZER);
            }
        }
        optional(self.api.replace(&changed).await)?;
        Ok(Requeue::No)
    }

    /// What the cache does not know of is asked of the server: a pod may have come to a node
    /// since, and letting its claim go would lose data.
    async fn is_used(&self, claim: &PersistentVolumeClaim) -> Result<bool, Error> {
        let cached = self.pods_by_claim.get(claim.key().as_str());
        if cached.iter().any(|pod| uses(pod, claim)) {
            return Ok(true);
        }
        let pods = self.pods.within(claim.namespace());
        let live = pods.list(&ListOptions::new()).await?;
        Ok(live.items.iter().any(|pod| uses(pod, claim)))
    }
}

/// Whether a pod's change can free a claim: it has ended or is about to, or is on no node.
fn lets_go(pod: &Pod) -> bool {
    !pod.is_active() || pod.spec.node_name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(owner: Option<&str>) -> PersistentVolumeClaim {
        let owners: Vec<_> = owner
            .iter()
            .map(|uid| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}))
            .collect();
        serde_json::from_value(json!({"metadata": {
            "name": "p-data", "namespace": "n", "ownerReferences": owners}}))
        .unwrap()
    }

    fn pod(node: &str, volume: serde_json::Value, grace: Option<i64>) -> Pod {
        let deleted = grace.map(|_| "2024-01-01T00:00:00Z");
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u",
                "deletionTimestamp": deleted, "deletionGracePeriodSeconds": grace},
            "spec": {"nodeName": node, "volumes": [{"name": "tmp", "emptyDir": {}}, volume]},
        }))
        .unwrap()
    }

    #[test]
    fn pods_on_nodes_keep_their_claims() {
        let named = json!({"name": "v", "persistentVolumeClaim": {"claimName": "p-data"}});
        let made = json!({"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}});
        for (node, volume, grace, owner, used) in [
            ("a", &named, None, None, true),
            ("", &named, None, None, false),
            ("a", &named, Some(0), None, true),
            ("a", &made, None, Some("u"), true),
            ("a", &made, None, Some("other"), false),
            ("a", &made, Some(0), Some("u"), false),
            ("a", &made, Some(30), Some("u"), true),
        ] {
            let pod = pod(node, volume.clone(), grace);
            assert_eq!(pod.spec.volumes.len(), 1, "only claims are kept");
            assert_eq!(uses(&pod, &claim(owner)), used, "{node} {volume} {grace:?}");
            assert_eq!(claim_keys(&pod).next(), Some(ObjectKey::from("n/p-data")));
        }
    }
}
