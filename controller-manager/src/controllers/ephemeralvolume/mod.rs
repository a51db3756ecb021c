//! ephemeral-volume-controller: makes the claims of volumes that live as long as their pod
//! (KEP-1698). The garbage collector deletes them.

use std::sync::Arc;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, optional};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod as FullPod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meta::GroupVersionKind;
use meta::owner::{controller_of, new_controller_ref};
use prometheus::IntCounter;

use crate::context::{Context, Run};
use crate::events::{Recorder, reference};
use crate::kinds::Pod;

struct Controller {
    pods: Store<Pod>,
    pods_by_claim: Index<Pod>,
    claims: Store<PersistentVolumeClaim>,
    pod_api: Api<FullPod>,
    claim_api: Api<PersistentVolumeClaim>,
    events: Recorder,
    queue: Queue<ObjectKey>,
    creates: IntCounter,
    failures: IntCounter,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("ephemeral-volume-controller")?;
    let pods = ctx.pods();
    let claims = ctx.informer::<PersistentVolumeClaim>();
    let controller = Arc::new(Controller {
        pods: pods.store().clone(),
        pods_by_claim: crate::workload::index::pods_by_claim(&pods),
        claims: claims.store().clone(),
        pod_api: Api::all(&client),
        claim_api: Api::all(&client),
        events: ctx.recorder("ephemeral_volume"),
        queue: ctx.queue("ephemeral_volume"),
        creates: ctx.meter.counter(
            "ephemeral_volume_controller_create_total",
            "Claims that were to be made.",
        )?,
        failures: ctx.meter.counter(
            "ephemeral_volume_controller_create_failures_total",
            "Claims that could not be made.",
        )?,
    });
    let queue = controller.queue.clone();
    pods.add_handler(move |change| {
        // Volumes of a pod do not change.
        if let Change::Added(pod) = change
            && needs_claims(pod)
        {
            queue.add(pod.key());
        }
    });
    let c = Arc::clone(&controller);
    claims.add_handler(move |change| {
        if let Change::Deleted(claim) = change {
            let pods = c.pods_by_claim.get(claim.key().as_str());
            let pods = pods.iter().filter(|p| needs_claims(p));
            pods.for_each(|pod| c.queue.add(pod.key()));
        }
    });
    let workers = ctx
        .options
        .ephemeral_volume
        .concurrent_ephemeralvolume_syncs
        .get();
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        pods.wait_synced().await;
        claims.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(workers, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { controller.sync(&key).await }
            })
            .await;
    })))
}

fn needs_claims(pod: &Pod) -> bool {
    !pod.is_deleting() && pod.claims().any(|(_, ephemeral)| ephemeral)
}

/// The claim of a pod's volume; `None`: the volume is of another sort.
fn claim(pod: &FullPod, volume: &Volume) -> Option<PersistentVolumeClaim> {
    let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
    let metadata = template.metadata.clone().unwrap_or_default();
    let owner = new_controller_ref(&pod.metadata, &GroupVersionKind::new("", "v1", "Pod"));
    Some(PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", pod.name(), volume.name)),
            namespace: pod.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    })
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(pod) = self.pods.get_key(key).filter(|p| needs_claims(p)) else {
            return Ok(Requeue::No);
        };
        let ephemeral = pod.claims().filter(|(_, ephemeral)| *ephemeral);
        let mut missing = Vec::new();
        for (name, _) in ephemeral {
            match self.claims.get(pod.namespace(), &name) {
                None => missing.push(name),
                Some(claim) => self.check(&pod, &claim)?,
            }
        }
        if missing.is_empty() {
            return Ok(Requeue::No);
        }
        // The cache leaves templates out.
        let api = self.pod_api.within(key.namespace());
        let live = optional(api.get(key.name()).await)?;
        let Some(live) = live.filter(|p| p.uid() == pod.uid()) else {
            return Ok(Requeue::No);
        };
        let volumes = live.spec.iter().flat_map(|s| s.volumes.iter().flatten());
        for volume in volumes {
            let claim = claim(&live, volume).filter(|c| missing.iter().any(|m| m == c.name()));
            let Some(claim) = claim else { continue };
            self.creates.inc();
            if let Err(e) = self.claim_api.create(&claim).await {
                self.failures.inc();
                let what = format!("create PVC {}: {e}", claim.name());
                self.tell(&pod, &volume.name, &what);
                return Err(e);
            }
        }
        Ok(Requeue::No)
    }

    fn tell(&self, pod: &Pod, volume: &str, what: &str) {
        let message = format!("ephemeral volume {volume}: {what}");
        self.events
            .event(&reference(pod), true, "FailedBinding", message);
    }

    /// A claim of the name that somebody else made is not to be used.
    fn check(&self, pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), Error> {
        if controller_of(&claim.metadata).is_some_and(|o| o.uid == pod.uid()) {
            return Ok(());
        }
        let what = format!(
            "PVC {} was not created for pod {} (pod is not owner)",
            claim.key(),
            pod.key()
        );
        let volume = claim.name().strip_prefix(pod.name()).unwrap_or_default();
        self.tell(pod, volume.trim_start_matches('-'), &what);
        Err(Error::Request(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_belong_to_their_pod() {
        let pod: FullPod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "tmp", "emptyDir": {}}, {"name": "data", "ephemeral":
                {"volumeClaimTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"storageClassName": "fast"}}}}]},
        }))
        .unwrap();
        let volumes = pod.spec.clone().unwrap().volumes.unwrap();
        assert!(claim(&pod, &volumes[0]).is_none());
        let claim = claim(&pod, &volumes[1]).unwrap();
        assert_eq!(claim.name(), "p-data");
        assert_eq!(controller_of(&claim.metadata).unwrap().uid, "u");
        assert_eq!(claim.metadata.labels.unwrap()["a"], "b");
        assert_eq!(
            claim.spec.unwrap().storage_class_name.as_deref(),
            Some("fast")
        );
    }
}
