//! Carries out what is to become of volumes that nobody claims any more.
//!
//! The pod that cleans a volume is known by its UID to the manager that made it, and only that
//! one's end counts: whoever may make pods could make one of that name which cleans nothing. A
//! pod that is there already, from a manager before this one or from somebody else, is deleted,
//! and once it is gone the volume is cleaned from the beginning, which does no harm.

use std::collections::HashMap;
use std::time::Duration;

use client::workqueue::Requeue;
use client::{
    Api, DeleteOptions, Error, ListOptions, Object as _, ObjectKey, WatchEvent, optional,
};
use k8s_openapi::api::core::v1::{Event as PodEvent, PersistentVolume, Pod as FullPod};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Controller;
use super::matching::claim_ref;
use super::plan::{self, Reclaiming};
use super::recycler::{self, Progress, Recyclers};
use crate::context::Context;
use crate::events::{Recorder, reference};

/// A watch that has ended is begun again after so long.
const PAUSE: Duration = Duration::from_secs(1);

/// What volumes are cleaned with, and those under way.
pub struct Reclaimer {
    recyclers: Recyclers,
    pods: Api<FullPod>,
    pod_events: Api<PodEvent>,
    /// By the volume's name.
    states: Mutex<HashMap<String, State>>,
    stop: CancellationToken,
}

enum State {
    Cleaned(Cleaning),
    /// It could not be cleaned, and is not tried again before this.
    Rests(Instant),
}

/// A pod that this manager has made.
struct Cleaning {
    volume_uid: String,
    namespace: String,
    pod_uid: String,
    /// What is told about the pod is told about the volume for as long.
    _relay: DropGuard,
}

impl Reclaimer {
    pub fn new(ctx: &Context, client: &client::Client) -> anyhow::Result<Self> {
        Ok(Self {
            recyclers: Recyclers::from_flags(&ctx.options.binder.recycler)?,
            pods: Api::all(client),
            pod_events: Api::all(client),
            states: Mutex::default(),
            stop: ctx.stop.clone(),
        })
    }

    /// The namespace and UID of the pod that cleans the volume.
    fn pod_of(&self, volume: &PersistentVolume) -> Option<(String, String)> {
        match self.states.lock().get(volume.name())? {
            State::Cleaned(c) if c.volume_uid == volume.uid() => {
                Some((c.namespace.clone(), c.pod_uid.clone()))
            }
            _ => None,
        }
    }

    fn rest_of(&self, volume: &str) -> Option<Duration> {
        match self.states.lock().get(volume)? {
            State::Rests(until) => Some(until.saturating_duration_since(Instant::now())),
            State::Cleaned(_) => None,
        }
        .filter(|rest| !rest.is_zero())
    }

    /// Nobody wants the volume cleaned any more: it is gone, or has a claim again.
    pub async fn abandon(&self, volume: &str) -> Result<(), Error> {
        let state = self.states.lock().remove(volume);
        if let Some(State::Cleaned(cleaning)) = state {
            self.delete_pod(volume, &cleaning.namespace, &cleaning.pod_uid)
                .await?;
        }
        Ok(())
    }

    async fn delete_pod(&self, volume: &str, namespace: &str, uid: &str) -> Result<(), Error> {
        let options = if uid.is_empty() {
            DeleteOptions::new()
        } else {
            DeleteOptions::with_uid(uid)
        };
        let name = recycler::pod_name(volume);
        match self.pods.within(namespace).delete(&name, &options).await {
            // Gone, be it that another has its name.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other,
        }
    }
}

impl Controller {
    /// What the volume's policy says, now that its claim is gone.
    pub(super) async fn reclaim(&self, volume: &PersistentVolume) -> Result<Requeue, Error> {
        let mut volume = volume.clone();
        if !matches!(plan::volume_phase(&volume), "Released" | "Failed")
            && let Some(stored) = self.set_volume(&volume, "Released", "").await?
        {
            volume = stored;
        }
        match plan::reclaiming(&volume) {
            Reclaiming::Leave => {}
            Reclaiming::Fail(event) => self.fail(&volume, &event).await?,
            Reclaiming::Recycle => return self.recycle(&volume).await,
            Reclaiming::Remove(path) => return self.remove(&volume, path).await,
        }
        Ok(Requeue::No)
    }

    /// The first failure is told; the volume is tried again nevertheless.
    async fn fail(&self, volume: &PersistentVolume, event: &plan::Event) -> Result<(), Error> {
        if let Some(stored) = self.set_volume(volume, "Failed", &event.2).await? {
            self.tell_volume(&stored, event);
        }
        Ok(())
    }

    async fn fail_recycling(&self, volume: &PersistentVolume, why: &str) -> Result<(), Error> {
        let message = format!("Recycle failed: {why}");
        self.fail(volume, &(true, "VolumeFailedRecycle", message))
            .await
    }

    async fn recycle(&self, volume: &PersistentVolume) -> Result<Requeue, Error> {
        if let Some((namespace, uid)) = self.reclaimer.pod_of(volume) {
            return self.look_at_pod(volume, &namespace, &uid).await;
        }
        if let Some(rest) = self.reclaimer.rest_of(volume.name()) {
            return Ok(Requeue::After(rest));
        }
        // What is left is of another volume that had the name.
        self.reclaimer.abandon(volume.name()).await?;
        if let Some(pods) = self.users(volume) {
            let message = format!("Volume is used by pods: {}", pods.join(","));
            self.tell_volume(volume, &(false, "VolumeFailedRecycle", message));
            return Ok(Requeue::After(self.period));
        }
        self.start_pod(volume).await
    }

    /// Pods that still have the claim which is gone; those of a claim of the same name, which
    /// has another volume, do not count.
    fn users(&self, volume: &PersistentVolume) -> Option<Vec<String>> {
        let claim = claim_ref(volume)?;
        let namespace = claim.namespace.as_deref().unwrap_or_default();
        let key = ObjectKey::new(namespace, claim.name.as_deref().unwrap_or_default());
        if self.claims.get_key(&key).is_some() {
            return None;
        }
        let pods = self.pods_by_claim.get(key.as_str());
        let active = pods.iter().filter(|p| !p.is_terminal());
        let mut names: Vec<String> = active
            .map(|p| format!("{}/{}", p.namespace(), p.name()))
            .collect();
        names.sort();
        Some(names).filter(|n| !n.is_empty())
    }

    async fn start_pod(&self, volume: &PersistentVolume) -> Result<Requeue, Error> {
        let reclaimer = &self.reclaimer;
        let Some(pod) = reclaimer.recyclers.pod(volume) else {
            return Ok(Requeue::No);
        };
        let namespace = pod.namespace().to_owned();
        match reclaimer.pods.within(&namespace).create(&pod).await {
            Ok(made) => {
                let relay = reclaimer.stop.child_token();
                tokio::spawn(relay_events(
                    reclaimer.pod_events.within(&namespace),
                    made.uid().to_owned(),
                    self.events.clone(),
                    volume.clone(),
                    relay.clone(),
                ));
                let cleaning = Cleaning {
                    volume_uid: volume.uid().to_owned(),
                    namespace,
                    pod_uid: made.uid().to_owned(),
                    _relay: relay.drop_guard(),
                };
                let mut states = reclaimer.states.lock();
                states.insert(volume.name().to_owned(), State::Cleaned(cleaning));
                // The pod's end is heard of.
                Ok(Requeue::No)
            }
            Err(error) if error.is_already_exists() => {
                let name = pod.name();
                let why = match reclaimer.delete_pod(volume.name(), &namespace, "").await {
                    Ok(()) => "old recycler pod found, will retry later".to_owned(),
                    Err(error) => {
                        format!("failed to delete old recycler pod {namespace}/{name}: {error}")
                    }
                };
                self.fail_recycling(volume, &why).await?;
                Ok(Requeue::After(self.period))
            }
            Err(error) => {
                let why = format!("unexpected error creating recycler pod:  {error}");
                self.rest(volume, &why).await
            }
        }
    }

    /// Fails, and does not try again at once.
    async fn rest(&self, volume: &PersistentVolume, why: &str) -> Result<Requeue, Error> {
        let until = State::Rests(Instant::now() + self.period);
        let name = volume.name().to_owned();
        self.reclaimer.states.lock().insert(name, until);
        self.fail_recycling(volume, why).await?;
        Ok(Requeue::After(self.period))
    }

    async fn look_at_pod(
        &self,
        volume: &PersistentVolume,
        namespace: &str,
        uid: &str,
    ) -> Result<Requeue, Error> {
        let name = recycler::pod_name(volume.name());
        let cached = self.pods.get(namespace, &name);
        if cached.is_some_and(|p| p.uid() == uid && !p.is_terminal()) {
            return Ok(Requeue::No);
        }
        // Why it has failed is not in the cache, nor may it be there yet.
        let pods = self.reclaimer.pods.within(namespace);
        let stored = optional(pods.get(&name).await)?;
        let progress = recycler::progress(stored.as_ref(), uid);
        if progress == Progress::Running {
            return Ok(Requeue::No);
        }
        let deleted = self
            .reclaimer
            .delete_pod(volume.name(), namespace, uid)
            .await;
        match (progress, deleted) {
            (Progress::Failed(why), _) => {
                let why = format!("failed to recycle volume: {why}");
                self.rest(volume, &why).await
            }
            (_, Err(error)) => {
                let why = format!("failed to delete recycler pod: {error}");
                self.rest(volume, &why).await
            }
            (_, Ok(())) => {
                self.reclaimer.states.lock().remove(volume.name());
                self.give_back(volume).await?;
                Ok(Requeue::No)
            }
        }
    }

    /// The volume is clean: others may claim it.
    async fn give_back(&self, volume: &PersistentVolume) -> Result<(), Error> {
        let Some(volume) = self.still_released(volume).await? else {
            return Ok(());
        };
        let message = "Volume recycled".to_owned();
        self.tell_volume(&volume, &(false, "VolumeRecycled", message));
        self.unbind(&volume).await
    }

    /// The volume as it is stored, if it still has the claim that is gone.
    async fn still_released(
        &self,
        volume: &PersistentVolume,
    ) -> Result<Option<PersistentVolume>, Error> {
        let claim_uid = |v: &PersistentVolume| claim_ref(v).and_then(|r| r.uid.clone());
        let live = optional(self.volume_api.get(volume.name()).await)?;
        Ok(live.filter(|v| v.uid() == volume.uid() && claim_uid(v) == claim_uid(volume)))
    }

    /// Removes what a hostPath volume has on this very host, and the volume.
    async fn remove(
        &self,
        volume: &PersistentVolume,
        path: Result<String, String>,
    ) -> Result<Requeue, Error> {
        let Some(volume) = self.still_released(volume).await? else {
            return Ok(Requeue::No);
        };
        let removed = match path {
            Ok(path) => tokio::task::spawn_blocking(move || remove_all(&path))
                .await
                .unwrap_or_else(|error| Err(error.to_string())),
            Err(why) => Err(why),
        };
        if let Err(why) = removed {
            self.fail(&volume, &(true, "VolumeFailedDelete", why))
                .await?;
            return Ok(Requeue::After(self.period));
        }
        if let Some(changed) = plan::unkept(&volume) {
            let stored = self.volume_api.replace(&changed).await?;
            self.written_volumes.note(&stored);
        }
        let options = DeleteOptions::with_uid(volume.uid());
        optional(self.volume_api.delete(volume.name(), &options).await)?;
        Ok(Requeue::No)
    }
}

/// Removes a directory and all that is in it, or whatever else is there; links are not followed.
fn remove_all(path: &str) -> Result<(), String> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {path}: {error}"))
        }
        _ => Ok(()),
    }
}

/// Tells about the volume what is told about its pod. Events are hints: when they cannot be had,
/// the volume is cleaned all the same.
async fn relay_events(
    api: Api<PodEvent>,
    pod_uid: String,
    recorder: Recorder,
    volume: PersistentVolume,
    stop: CancellationToken,
) {
    let about = reference(&volume);
    let tell = |event: &PodEvent| {
        let warning = event.type_.as_deref() == Some("Warning");
        let message = event.message.as_deref().unwrap_or_default();
        let message = format!("Recycler pod: {message}");
        recorder.event(&about, warning, "RecyclerPod", message);
    };
    let relay = async {
        let options = ListOptions::new().fields(format!("involvedObject.uid={pod_uid}"));
        let list = api.list(&options).await?;
        list.items.iter().for_each(&tell);
        let mut revision = list.resource_version().to_owned();
        loop {
            let mut watch = api.watch(&options.clone().at(&*revision)).await?;
            while let Some(change) = watch.next().await? {
                match change {
                    WatchEvent::Added(event) => {
                        tell(&event);
                        event.resource_version().clone_into(&mut revision);
                    }
                    WatchEvent::Modified(event) | WatchEvent::Deleted(event) => {
                        event.resource_version().clone_into(&mut revision);
                    }
                    WatchEvent::Bookmark {
                        resource_version, ..
                    } => revision = resource_version,
                    WatchEvent::Error(status) => return Err::<(), Error>(status.into()),
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        result = relay => if let Err(error) = result {
            tracing::debug!(%error, volume = volume.name(), "cannot follow events of the recycler pod");
        },
        () = stop.cancelled() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_removed() {
        let root = std::env::temp_dir().join(format!("reclaim-{}", std::process::id()));
        let (kept, gone) = (root.join("kept"), root.join("gone"));
        std::fs::create_dir_all(gone.join("a/b")).unwrap();
        std::fs::write(&kept, "x").unwrap();
        std::os::unix::fs::symlink(&kept, gone.join("a/link")).unwrap();
        let gone = gone.to_str().unwrap();
        assert_eq!(remove_all(gone), Ok(()));
        assert!(std::fs::symlink_metadata(gone).is_err() && kept.exists());
        // Again, as after a crash.
        assert_eq!(remove_all(gone), Ok(()));
        assert_eq!(remove_all(kept.to_str().unwrap()), Ok(()));
        assert!(!kept.exists());
        std::fs::remove_dir_all(root).unwrap();
    }
}
