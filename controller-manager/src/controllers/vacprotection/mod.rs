//! volumeattributesclass-protection-controller: keeps a VolumeAttributesClass that is being
//! deleted until no volume and no claim names it (KEP-3751).

use std::collections::BTreeSet;
use std::sync::Arc;

use client::informer::{Event as Change, Index, Informer, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Kind, ObjectKey, optional};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;

use crate::context::{Context, Run, retry_conflicts};
use crate::workload::protection::{self, Protection};

const FINALIZER: &str = "kubernetes.io/vac-protection";

struct Controller {
    classes: Store<VolumeAttributesClass>,
    volumes: Index<PersistentVolume>,
    claims: Index<PersistentVolumeClaim>,
    api: Api<VolumeAttributesClass>,
    queue: Queue<ObjectKey>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("volumeattributesclass-protection-controller")?;
    let classes = ctx.informer::<VolumeAttributesClass>();
    let volumes = ctx.informer::<PersistentVolume>();
    let claims = ctx.informer::<PersistentVolumeClaim>();
    let by_class = "volume-attributes-class";
    let controller = Arc::new(Controller {
        classes: classes.store().clone(),
        volumes: volumes.add_index(by_class, |v| named_by_volume(v).into_iter().collect()),
        claims: claims.add_index(by_class, |c| named_by_claim(c).into_iter().collect()),
        api: Api::all(&client),
        queue: ctx.queue("vacprotection"),
    });
    let queue = controller.queue.clone();
    classes.add_handler(move |change| {
        let state = |c: &VolumeAttributesClass| protection::state(&c.metadata, FINALIZER);
        let acts = |c: &Arc<_>| state(c) != Protection::Settled;
        if change.current().is_some_and(acts) {
            queue.add(change.key());
        }
    });
    enqueue_freed(&volumes, &controller.queue, named_by_volume);
    enqueue_freed(&claims, &controller.queue, named_by_claim);
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        classes.wait_synced().await;
        volumes.wait_synced().await;
        claims.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(1, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync(&key).await) }
            })
            .await;
    })))
}

fn name(name: Option<&String>) -> Option<String> {
    name.filter(|n| !n.is_empty()).cloned()
}

fn named_by_volume(volume: &PersistentVolume) -> BTreeSet<String> {
    let spec = volume.spec.as_ref();
    let class = spec.and_then(|s| s.volume_attributes_class_name.as_ref());
    name(class).into_iter().collect()
}

/// A claim names the class that it wants, the one that it has, and the one that it is changed to.
fn named_by_claim(claim: &PersistentVolumeClaim) -> BTreeSet<String> {
    let spec = claim.spec.as_ref();
    let status = claim.status.as_ref();
    let modify = status.and_then(|s| s.modify_volume_status.as_ref());
    let names = [
        spec.and_then(|s| s.volume_attributes_class_name.as_ref()),
        status.and_then(|s| s.current_volume_attributes_class_name.as_ref()),
        modify.and_then(|m| m.target_volume_attributes_class_name.as_ref()),
    ];
    names.into_iter().filter_map(name).collect()
}

/// Enqueues the classes that an object does not name any more.
fn enqueue_freed<K: Kind>(
    informer: &Informer<K>,
    queue: &Queue<ObjectKey>,
    names: fn(&K) -> BTreeSet<String>,
) {
    let queue = queue.clone();
    informer.add_handler(move |change| {
        let freed = match change {
            Change::Added(_) => return,
            Change::Updated { old, new } => &names(old) - &names(new),
            Change::Deleted(object) => names(object),
        };
        for name in freed {
            queue.add(ObjectKey::new("", &name));
        }
    });
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(class) = self.classes.get_key(key) else {
            return Ok(Requeue::No);
        };
        let mut changed = VolumeAttributesClass::clone(&class);
        match protection::state(&class.metadata, FINALIZER) {
            Protection::Settled => return Ok(Requeue::No),
            Protection::Missing => protection::protect(&mut changed.metadata, FINALIZER),
            Protection::Ending => {
                let name = key.name();
                if !self.volumes.get(name).is_empty() || !self.claims.get(name).is_empty() {
                    return Ok(Requeue::No);
                }
                protection::release(&mut changed.metadata, FINALIZER);
            }
        }
        optional(self.api.replace(&changed).await)?;
        Ok(Requeue::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_name_up_to_three_classes() {
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "c"}, "spec": {"volumeAttributesClassName": "wanted"},
            "status": {"currentVolumeAttributesClassName": "had",
                "modifyVolumeStatus": {"status": "Pending", "targetVolumeAttributesClassName": "next"}},
        }))
        .unwrap();
        let names = ["had", "next", "wanted"].map(str::to_owned).into();
        assert_eq!(named_by_claim(&claim), names);
        let none: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "c"}, "spec": {"volumeAttributesClassName": ""}}))
        .unwrap();
        assert_eq!(named_by_claim(&none), BTreeSet::new());
    }
}
