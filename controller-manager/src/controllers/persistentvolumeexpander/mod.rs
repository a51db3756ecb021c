//! persistentvolume-expander-controller: a claim that asks for more than it has is told who it
//! waits for. The drivers' resizers do the work.

use std::sync::Arc;

use api::csi_translation;
use client::informer::{Event as Change, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use meta::Quantity;

use crate::context::{Context, Run, retry_conflicts};
use crate::events::{Recorder, reference};

/// Names who is to resize a volume of a plugin that was part of Kubernetes once.
const RESIZER: &str = "volume.kubernetes.io/storage-resizer";

struct Controller {
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    api: Api<PersistentVolumeClaim>,
    events: Recorder,
}

/// What a claim asks for, and what it has.
fn sizes(claim: &PersistentVolumeClaim) -> (Quantity, Quantity) {
    let size = |of: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>| {
        of.and_then(|q| q.0.parse().ok()).unwrap_or(Quantity::ZERO)
    };
    let resources = claim.spec.as_ref().and_then(|s| s.resources.as_ref());
    let asked = resources.and_then(|r| r.requests.as_ref()?.get("storage"));
    let capacity = claim.status.as_ref().and_then(|s| s.capacity.as_ref());
    (size(asked), size(capacity.and_then(|c| c.get("storage"))))
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

/// Whether an event may have made the claim ask for more.
fn is_news(change: &Change<PersistentVolumeClaim>) -> bool {
    match change {
        Change::Added(claim) => is_bound(claim),
        Change::Deleted(_) => false,
        Change::Updated { old, new } => {
            let ((old_asked, old_has), (asked, has)) = (sizes(old), sizes(new));
            is_bound(new) && (asked > old_asked || has > old_has)
        }
    }
}

/// What to tell of a claim that waits, and the resizer that is to be named on it: pure. `None`:
/// it does not wait.
fn waits_for(
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> Option<(String, Option<&'static str>)> {
    let (asked, has) = sizes(claim);
    let spec = volume.spec.as_ref()?;
    let owner = spec.claim_ref.as_ref()?;
    if owner.uid.as_deref() != Some(claim.uid()) || asked <= has {
        return None;
    }
    Some(match csi_translation::plugin_of(spec) {
        Some((plugin, driver)) => (
            format!(
                "CSI migration enabled for {plugin}; waiting for external resizer to expand the pvc"
            ),
            Some(driver),
        ),
        None => (
            "waiting for an external controller to expand this PVC".to_owned(),
            None,
        ),
    })
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("expand-controller")?;
    let claims = ctx.informer::<PersistentVolumeClaim>();
    let volumes = ctx.informer::<PersistentVolume>();
    let queue: Queue<ObjectKey> = ctx.queue("volume_expand");
    let q = queue.clone();
    claims.add_handler(move |change| {
        if is_news(change) {
            q.add(change.key());
        }
    });
    let controller = Arc::new(Controller {
        claims: claims.store().clone(),
        volumes: volumes.store().clone(),
        api: Api::all(&client),
        events: ctx.recorder("volume_expand"),
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        claims.wait_synced().await;
        volumes.wait_synced().await;
        queue
            .run(1, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            })
            .await;
    })))
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(claim) = self.claims.get_key(key) else {
            return Ok(Requeue::No);
        };
        let named = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref());
        let Some(volume) = self.volumes.get("", named.unwrap_or_default()) else {
            // The claim's volume is on its way to the cache, or the claim is lost.
            return Ok(Requeue::No);
        };
        let Some((message, resizer)) = waits_for(&claim, &volume) else {
            return Ok(Requeue::No);
        };
        self.events
            .event(&reference(&*claim), false, "ExternalExpanding", message);
        let annotations = claim.metadata.annotations.as_ref();
        if let Some(resizer) = resizer
            && annotations
                .and_then(|a| a.get(RESIZER))
                .is_none_or(|r| r != resizer)
        {
            let mut changed = PersistentVolumeClaim::clone(&claim);
            let annotations = changed.metadata.annotations.get_or_insert_default();
            annotations.insert(RESIZER.to_owned(), resizer.to_owned());
            self.api.replace(&changed).await?;
        }
        Ok(Requeue::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(asked: &str, has: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "c", "uid": "u"},
            "spec": {"resources": {"requests": {"storage": asked}}},
            "status": {"phase": "Bound", "capacity": {"storage": has}}}))
        .unwrap()
    }

    #[test]
    fn claims_wait_for_more() {
        let volume = |more: serde_json::Value| -> PersistentVolume {
            let mut value =
                json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"name": "c", "uid": "u"}}});
            for (k, v) in more.as_object().unwrap() {
                value["spec"][k] = v.clone();
            }
            serde_json::from_value(value).unwrap()
        };
        let csi = volume(json!({"csi": {"driver": "d", "volumeHandle": "h"}}));
        let disk = volume(json!({"gcePersistentDisk": {"pdName": "x"}}));
        let other = volume(json!({"claimRef": {"name": "c", "uid": "other"}}));
        let words = |asked, has, v: &PersistentVolume| waits_for(&claim(asked, has), v);
        let message = "waiting for an external controller to expand this PVC".to_owned();
        assert_eq!(words("2Gi", "1Gi", &csi), Some((message, None)));
        assert_eq!(words("1Gi", "1Gi", &csi), None);
        assert_eq!(words("2Gi", "1Gi", &other), None);
        assert_eq!(
            words("2Gi", "1Gi", &disk).unwrap().1,
            Some("pd.csi.storage.gke.io")
        );
    }

    #[test]
    fn only_growth_is_news() {
        let change = |old, new| Change::Updated {
            old: Arc::new(old),
            new: Arc::new(new),
        };
        assert!(is_news(&change(claim("1Gi", "1Gi"), claim("2Gi", "1Gi"))));
        assert!(is_news(&change(claim("2Gi", "1Gi"), claim("2Gi", "2Gi"))));
        assert!(!is_news(&change(claim("2Gi", "1Gi"), claim("2Gi", "1Gi"))));
    }
}
