//! persistentvolume-protection-controller: keeps a volume that is being deleted until it is
//! bound to no claim.

use client::workqueue::{Queue, Requeue};
use client::{Api, ObjectKey, optional};
use k8s_openapi::api::core::v1::PersistentVolume;

use crate::context::{Context, Run, retry_conflicts};
use crate::workload::protection::{self, Protection};

const FINALIZER: &str = "kubernetes.io/pv-protection";

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("pv-protection-controller")?;
    let volumes = ctx.informer::<PersistentVolume>();
    let queue: Queue<ObjectKey> = ctx.queue("pvprotection");
    let added = queue.clone();
    volumes.add_handler(move |change| {
        if change.current().is_some_and(|v| plan(v).is_some()) {
            added.add(change.key());
        }
    });
    let api: Api<PersistentVolume> = Api::all(&client);
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        volumes.wait_synced().await;
        let store = volumes.store().clone();
        queue
            .run(1, &stop, move |key| {
                let (changed, api) = (store.get_key(&key).and_then(|v| plan(&v)), api.clone());
                async move {
                    let Some(changed) = changed else {
                        return Ok(Requeue::No);
                    };
                    let result = optional(api.replace(&changed).await).map(|_| Requeue::No);
                    retry_conflicts(result)
                }
            })
            .await;
    })))
}

/// The volume as it should be, if it is not.
fn plan(volume: &PersistentVolume) -> Option<PersistentVolume> {
    let mut changed = volume.clone();
    match protection::state(&volume.metadata, FINALIZER) {
        Protection::Settled => return None,
        Protection::Missing => protection::protect(&mut changed.metadata, FINALIZER),
        Protection::Ending => {
            let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
            if phase == Some("Bound") {
                return None;
            }
            protection::release(&mut changed.metadata, FINALIZER);
        }
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bound_volumes_stay() {
        let volume =
            |deleted: Option<&str>, finalizers: &[&str], phase: &str| -> PersistentVolume {
                serde_json::from_value(json!({
                "metadata": {"name": "v", "deletionTimestamp": deleted, "finalizers": finalizers},
                "status": {"phase": phase},
            }))
            .unwrap()
            };
        let finalizers = |v: Option<PersistentVolume>| v.map(|v| v.metadata.finalizers.unwrap());
        let deleted = Some("2024-01-01T00:00:00Z");
        let ours = vec![FINALIZER.to_owned()];
        assert_eq!(
            finalizers(plan(&volume(None, &[], "Available"))),
            Some(ours)
        );
        assert_eq!(plan(&volume(None, &[FINALIZER], "Available")), None);
        assert_eq!(plan(&volume(deleted, &[FINALIZER], "Bound")), None);
        assert_eq!(
            finalizers(plan(&volume(deleted, &[FINALIZER], "Released"))),
            Some(vec![])
        );
    }
}
