//! persistentvolume-binder-controller: gives claims their volumes, asks others to make volumes,
//! and says of each claim and volume how it is.

mod matching;
mod plan;
mod reclaim;
mod recycler;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Api, Error, Object as _, ObjectKey, optional};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;

use self::matching::{claim_ref, claim_spec};
use self::plan::{AroundClaim, ClaimAct, VolumeAct};
use self::reclaim::Reclaimer;
use crate::context::{Context, Run, enqueue_all, retry_conflicts};
use crate::events::{Recorder, reference};
use crate::kinds::Pod;
use crate::workload::index;
use crate::workload::written::Written;

struct Controller {
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    classes: Store<StorageClass>,
    pods: Store<Pod>,
    pods_by_claim: Index<Pod>,
    claim_api: Api<PersistentVolumeClaim>,
    volume_api: Api<PersistentVolume>,
    events: Recorder,
    written_claims: Written,
    written_volumes: Written,
    reclaimer: Reclaimer,
    provisioning: bool,
    /// Claims that wait, and volumes that could not be reclaimed, are looked at so often.
    period: Duration,
    claim_queue: Queue<ObjectKey>,
    volume_queue: Queue<ObjectKey>,
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let client = ctx.client("persistent-volume-binder")?;
    let claims = ctx.informer::<PersistentVolumeClaim>();
    let volumes = ctx.informer::<PersistentVolume>();
    let classes = ctx.informer::<StorageClass>();
    let pods = ctx.pods();
    let flags = &ctx.options.binder;
    let controller = Arc::new(Controller {
        claims: claims.store().clone(),
        volumes: volumes.store().clone(),
        classes: classes.store().clone(),
        pods: pods.store().clone(),
        pods_by_claim: index::pods_by_claim(&pods),
        claim_api: Api::all(&client),
        volume_api: Api::all(&client),
        events: ctx.recorder("persistentvolume-controller"),
        written_claims: Written::default(),
        written_volumes: Written::default(),
        reclaimer: Reclaimer::new(ctx, &client)?,
        provisioning: flags.enable_dynamic_provisioning,
        period: flags.pvclaimbinder_sync_period.get(),
        claim_queue: ctx.queue("claims"),
        volume_queue: ctx.queue("volumes"),
    });
    enqueue_all(&volumes, &controller.volume_queue);
    let c = Arc::clone(&controller);
    volumes.add_handler(move |change| c.volume_changed(change));
    let c = Arc::clone(&controller);
    claims.add_handler(move |change| {
        if let Change::Deleted(claim) = change {
            c.written_claims.forget(&claim.key());
            if let Some(volume) = claim_spec(claim).volume_name {
                c.volume_queue.add(ObjectKey::new("", &volume));
            }
        } else {
            c.claim_queue.add(change.key());
        }
    });
    let c = Arc::clone(&controller);
    pods.add_handler(move |change| c.pod_changed(change));
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        claims.wait_synced().await;
        volumes.wait_synced().await;
        classes.wait_synced().await;
        pods.wait_synced().await;
        let (claim_queue, volume_queue) = (
            controller.claim_queue.clone(),
            controller.volume_queue.clone(),
        );
        let for_volumes = Arc::clone(&controller);
        tokio::join!(
            claim_queue.run(1, &stop, move |key| {
                let controller = Arc::clone(&controller);
                async move { retry_conflicts(controller.sync_claim(&key).await) }
            }),
            volume_queue.run(1, &stop, move |key| {
                let controller = Arc::clone(&for_volumes);
                async move { retry_conflicts(controller.sync_volume(&key).await) }
            }),
        );
    })))
}

impl Controller {
    /// The claim of a volume, before and now, has to know.
    fn volume_changed(&self, change: &Change<PersistentVolume>) {
        for volume in [change.previous(), change.current()].into_iter().flatten() {
            if let Some(reference) = claim_ref(volume) {
                let namespace = reference.namespace.as_deref().unwrap_or_default();
                let name = reference.name.as_deref().unwrap_or_default();
                self.claim_queue.add(ObjectKey::new(namespace, name));
            }
        }
        if change.current().is_none() {
            self.written_volumes.forget(&change.key());
        }
        if let (Some(old), Some(new)) = (change.previous(), change.current())
            && claim_ref(old).is_some()
            && claim_ref(new).is_none()
        {
            self.wake_waiting(new.name());
        }
    }

    /// A volume waits for the end of the pod that cleans it, and for that of a pod which is in
    /// the way.
    fn pod_changed(&self, change: &Change<Pod>) {
        let ended = change.current().is_none_or(|pod| pod.is_terminal());
        let pod = change.current().or(change.previous());
        if ended && let Some(volume) = pod.and_then(|pod| recycler::volume_of(pod.name())) {
            self.volume_queue.add(ObjectKey::new("", volume));
        }
    }

    fn tell_claim(&self, claim: &PersistentVolumeClaim, event: &plan::Event) {
        let (warning, reason, message) = event;
        self.events
            .event(&reference(claim), *warning, reason, message);
    }

    fn tell_volume(&self, volume: &PersistentVolume, event: &plan::Event) {
        let (warning, reason, message) = event;
        self.events
            .event(&reference(volume), *warning, reason, message);
    }

    async fn sync_claim(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(claim) = self.claims.get_key(key) else {
            return Ok(Requeue::No);
        };
        if self.written_claims.is_ahead_of(&*claim) {
            return Ok(Requeue::No);
        }
        if let Some(changed) = plan::driven_claim(&claim) {
            let stored = self.claim_api.replace(&changed).await?;
            self.written_claims.note(&stored);
            return Ok(Requeue::No);
        }
        let volumes = self.volumes.list();
        let classes = self.classes.list();
        let mut waiting: Vec<String> = self
            .pods_by_claim
            .get(key.as_str())
            .iter()
            .filter(|p| !p.is_terminal() && p.spec.node_name.is_empty())
            .map(|p| p.name().to_owned())
            .collect();
        waiting.sort();
        let around = AroundClaim {
            volumes: &volumes,
            classes: &classes,
            waiting_pods: &waiting,
            provisioning: self.provisioning,
        };
        match plan::claim(&claim, &around) {
            ClaimAct::Bind(volume) => {
                self.bind(&volume, &claim).await?;
                return Ok(Requeue::No);
            }
            ClaimAct::Pend(event) => {
                if let Some(event) = event {
                    self.tell_claim(&claim, &event);
                }
                self.set_claim(&claim, "Pending", None).await?;
            }
            ClaimAct::Assign(class) => {
                let mut changed = PersistentVolumeClaim::clone(&claim);
                changed.spec.get_or_insert_default().storage_class_name = Some(class);
                let stored = self.claim_api.replace(&changed).await?;
                self.written_claims.note(&stored);
                return Ok(Requeue::No);
            }
            ClaimAct::Provision(class) => {
                let (changed, event) = plan::for_provisioner(&claim, &class);
                if let Some(changed) = changed {
                    let stored = self.claim_api.replace(&changed).await?;
                    self.written_claims.note(&stored);
                }
                self.tell_claim(&claim, &event);
            }
            ClaimAct::Lose(event) => {
                self.lose(&claim, &event).await?;
                return Ok(Requeue::No);
            }
            ClaimAct::Fail(event) => self.tell_claim(&claim, &event),
        }
        Ok(Requeue::After(self.period))
    }

    /// A claim that is lost stays so: the cache is not believed alone.
    async fn lose(&self, claim: &PersistentVolumeClaim, event: &plan::Event) -> Result<(), Error> {
        if let Some(name) = claim_spec(claim).volume_name.filter(|n| !n.is_empty()) {
            let live = optional(self.volume_api.get(&name).await)?;
            let ours = |r: &k8s_openapi::api::core::v1::ObjectReference| {
                r.uid.as_deref() == Some(claim.uid())
            };
            if live.is_some_and(|v| claim_ref(&v).is_none_or(ours)) {
                self.claim_queue.add_after(claim.key(), self.period);
                return Ok(());
            }
        }
        if let Some(stored) = self.set_claim(claim, "Lost", None).await? {
            self.tell_claim(&stored, event);
        }
        Ok(())
    }

    async fn set_claim(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Result<Option<PersistentVolumeClaim>, Error> {
        let Some(changed) = plan::claim_in(claim, phase, volume) else {
            return Ok(None);
        };
        let stored = self.claim_api.replace_status(&changed).await?;
        self.written_claims.note(&stored);
        Ok(Some(stored))
    }

    async fn set_volume(
        &self,
        volume: &PersistentVolume,
        phase: &str,
        message: &str,
    ) -> Result<Option<PersistentVolume>, Error> {
        let Some(changed) = plan::volume_in(volume, phase, message) else {
            return Ok(None);
        };
        let stored = self.volume_api.replace_status(&changed).await?;
        self.written_volumes.note(&stored);
        Ok(Some(stored))
    }

    async fn bind(
        &self,
        volume: &PersistentVolume,
        claim: &PersistentVolumeClaim,
    ) -> Result<(), Error> {
        let mut volume = volume.clone();
        let mut about = reference(claim);
        about.field_path = None;
        if let Some(changed) = plan::bind_volume(&volume, claim, about) {
            volume = self.volume_api.replace(&changed).await?;
            self.written_volumes.note(&volume);
        }
        if let Some(stored) = self.set_volume(&volume, "Bound", "").await? {
            volume = stored;
        }
        let mut claim = claim.clone();
        if let Some(changed) = plan::bind_claim(&claim, &volume) {
            claim = self.claim_api.replace(&changed).await?;
            self.written_claims.note(&claim);
        }
        self.set_claim(&claim, "Bound", Some(&volume)).await?;
        Ok(())
    }

    async fn sync_volume(&self, key: &ObjectKey) -> Result<Requeue, Error> {
        let Some(volume) = self.volumes.get_key(key) else {
            self.reclaimer.abandon(key.name()).await?;
            return Ok(Requeue::No);
        };
        if self.written_volumes.is_ahead_of(&*volume) {
            return Ok(Requeue::No);
        }
        if let Some(changed) = plan::driven_volume(&volume) {
            let stored = self.volume_api.replace(&changed).await?;
            self.written_volumes.note(&stored);
            return Ok(Requeue::No);
        }
        let claim = self.claim_of(&volume).await?;
        let act = plan::volume(&volume, claim.as_deref());
        if act != VolumeAct::Reclaim {
            self.reclaimer.abandon(volume.name()).await?;
        }
        match act {
            VolumeAct::Phase(phase) => {
                let changed = self.set_volume(&volume, phase, "").await?;
                if changed.is_some() && phase == "Available" {
                    self.wake_waiting(volume.name());
                }
            }
            VolumeAct::Reclaim => return self.reclaim(&volume).await,
            VolumeAct::Unbind => self.unbind(&volume).await?,
            VolumeAct::LookAtClaim => {
                if let Some(claim) = claim {
                    self.claim_queue.add(claim.key());
                }
            }
            VolumeAct::Mismatch => {
                if let Some(claim) = claim {
                    let message = format!(
                        "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
                        claim.name()
                    );
                    self.tell_volume(&volume, &(true, "VolumeMismatch", message));
                    let message = format!(
                        "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to incompatible volumeMode.",
                        volume.name()
                    );
                    self.tell_claim(&claim, &(true, "VolumeMismatch", message));
                }
            }
        }
        Ok(Requeue::No)
    }

    /// Claims that no volume was there for, and those that want this one: their volume may have
    /// been lost, and be made anew.
    fn wake_waiting(&self, volume: &str) {
        let waits = |c: &PersistentVolumeClaim| {
            let named = c.spec.as_ref().and_then(|s| s.volume_name.as_deref());
            let named = named.unwrap_or_default();
            named.is_empty() || named == volume
        };
        for claim in self.claims.filter(waits) {
            self.claim_queue.add(claim.key());
        }
    }

    /// The very claim that the volume is bound to. That it is gone is asked of the server, since
    /// data may be deleted for it.
    async fn claim_of(
        &self,
        volume: &PersistentVolume,
    ) -> Result<Option<Arc<PersistentVolumeClaim>>, Error> {
        let Some(reference) = claim_ref(volume) else {
            return Ok(None);
        };
        let uid = reference.uid.as_deref().unwrap_or_default();
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let name = reference.name.as_deref().unwrap_or_default();
        if uid.is_empty() {
            return Ok(None);
        }
        let cached = self.claims.get(namespace, name);
        if cached.as_ref().is_some_and(|c| c.uid() == uid) {
            return Ok(cached);
        }
        let live = optional(self.claim_api.within(namespace).get(name).await)?;
        Ok(live.filter(|c| c.uid() == uid).map(Arc::new))
    }

    async fn unbind(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let stored = self.volume_api.replace(&plan::unbind(volume)).await?;
        self.written_volumes.note(&stored);
        self.set_volume(&stored, "Available", "").await?;
        Ok(())
    }
}
