//! selinux-warning-controller: warns of pods that want the same volume with different SELinux
//! labels (KEP-1710).
//!
//! It looks at all pods, wherever they are or will be, and writes nothing but events: by them and
//! by its metric it is known beforehand which pods could not share a node if drivers mounted
//! volumes with labels.

mod label;
mod metrics;
mod pod;
mod usage;

use std::convert::Infallible;
use std::sync::Arc;

use client::informer::{Event as Change, Index, Store};
use client::workqueue::{Queue, Requeue};
use client::{Object as _, ObjectKey};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::CSIDriver;
use parking_lot::Mutex;

use self::pod::{Mounted, Pod, Wanted};
use self::usage::{Access, Conflict, Usage};
use crate::context::{Context, Run};
use crate::controllers::attachdetach::volume::{self, Attachable};
use crate::events::{Recorder, reference};
use crate::workload::volumes;

struct Controller {
    pods: Store<Pod>,
    pods_by_claim: Index<Pod>,
    claims: Store<PersistentVolumeClaim>,
    volumes: Store<PersistentVolume>,
    drivers: Store<CSIDriver>,
    usage: Arc<Mutex<Usage>>,
    events: Recorder,
    queue: Queue<ObjectKey>,
}

/// A volume of a pod, as far as it is known.
enum Found {
    /// Its claim is not bound yet: it comes again when it is.
    NotYet,
    /// Nobody mounts it with a label.
    Unlabelled,
    Volume(Box<Attachable>),
}

/// Sets the controller up.
pub fn start(ctx: &Context) -> anyhow::Result<Option<Run>> {
    let pods = ctx.informer::<Pod>();
    let claims = ctx.informer::<PersistentVolumeClaim>();
    let volumes = ctx.informer::<PersistentVolume>();
    let drivers = ctx.informer::<CSIDriver>();
    let controller = Arc::new(Controller {
        pods: pods.store().clone(),
        pods_by_claim: pods.add_index("claim", |pod| {
            let names = pod.claims();
            let keys = names.map(|(name, _)| ObjectKey::new(pod.namespace(), &name));
            keys.map(|key| key.to_string()).collect()
        }),
        claims: claims.store().clone(),
        volumes: volumes.store().clone(),
        drivers: drivers.store().clone(),
        usage: Arc::default(),
        events: ctx.recorder("selinux_warning"),
        queue: ctx.queue("selinux_warning"),
    });
    metrics::tell(&ctx.meter, &controller.usage)?;
    let queue = controller.queue.clone();
    pods.add_handler(move |change| {
        let seen = match change {
            Change::Updated { old, new } => old.uses_as(new),
            Change::Added(_) | Change::Deleted(_) => false,
        };
        if !seen {
            queue.add(change.key());
        }
    });
    let c = Arc::clone(&controller);
    claims.add_handler(move |change| {
        if change.previous().map(|p| of_claim(p)) != change.current().map(|p| of_claim(p)) {
            c.claim_changed(&change.key());
        }
    });
    let c = Arc::clone(&controller);
    volumes.add_handler(move |change| {
        if let (old, Some(new)) = (change.previous(), change.current())
            && let Some(claim) = of_volume(new)
            && old.and_then(|old| of_volume(old)).as_ref() != Some(&claim)
        {
            c.claim_changed(&claim.0);
        }
    });
    let c = Arc::clone(&controller);
    drivers.add_handler(move |change| {
        let mounts = |driver: Option<&Arc<CSIDriver>>| driver.is_some_and(|d| mounts_labelled(d));
        if mounts(change.previous()) != mounts(change.current()) {
            c.driver_changed(change.object().name());
        }
    });
    let stop = ctx.stop.clone();
    Ok(Some(Box::pin(async move {
        pods.wait_synced().await;
        claims.wait_synced().await;
        volumes.wait_synced().await;
        drivers.wait_synced().await;
        let queue = controller.queue.clone();
        queue
            .run(1, &stop, move |key| {
                let requeue = controller.sync(&key);
                async move { Ok::<_, Infallible>(requeue) }
            })
            .await;
    })))
}

/// What of a claim matters here.
fn of_claim(claim: &PersistentVolumeClaim) -> [Option<String>; 3] {
    let spec = claim.spec.as_ref();
    let status = claim.status.as_ref();
    [
        claim.metadata.uid.clone(),
        spec.and_then(|spec| spec.volume_name.clone()),
        status.and_then(|status| status.phase.clone()),
    ]
}

/// The claim, with its uid, that a volume is bound to.
fn of_volume(volume: &PersistentVolume) -> Option<(ObjectKey, String)> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    let part = |of: &Option<String>| of.clone().unwrap_or_default();
    let key = ObjectKey::new(&part(&claim.namespace), &part(&claim.name));
    Some((key, claim.uid.clone()?))
}

/// The driver mounts volumes with the labels that pods want.
fn mounts_labelled(driver: &CSIDriver) -> bool {
    driver.spec.se_linux_mount == Some(true)
}

impl Controller {
    fn claim_changed(&self, claim: &ObjectKey) {
        for pod in self.pods_by_claim.get(claim.as_str()) {
            self.queue.add(pod.key());
        }
    }

    fn driver_changed(&self, driver: &str) {
        for pod in self.usage.lock().pods_of(driver) {
            self.queue.add(pod);
        }
    }

    fn find(&self, pod: &Pod, mounted: &Mounted) -> Found {
        let volume = &mounted.volume;
        let found = if let Some((claim, made)) = volume.claim(pod.name()) {
            let claim = self.claims.get(pod.namespace(), &claim);
            let made_for = made.then(|| pod.uid());
            let bound = claim.and_then(|claim| volumes::bound(&self.volumes, &claim, made_for));
            let Some(bound) = bound else {
                return Found::NotYet;
            };
            volume::persistent(&bound)
        } else {
            let own = volume.disk.as_ref();
            own.and_then(|disk| volume::inline(disk, pod.namespace()))
        };
        found.map_or(Found::Unlabelled, |volume| Found::Volume(Box::new(volume)))
    }

    /// Disks that nodes bring in by themselves are mounted with labels; of drivers those say it
    /// that do.
    fn is_mounted_labelled(&self, volume: &Attachable) -> bool {
        let driver = volume.driver.as_ref();
        driver.is_none_or(|driver| {
            let driver = self.drivers.get("", &driver.name);
            driver.is_some_and(|driver| mounts_labelled(&driver))
        })
    }

    fn sync(&self, key: &ObjectKey) -> Requeue {
        let Some(pod) = self.pods.get_key(key).filter(|pod| !pod.ended) else {
            self.usage.lock().remove(key);
            return Requeue::No;
        };
        self.usage.lock().meet(key, pod.uid());
        let mut requeue = Requeue::No;
        for mounted in &pod.volumes {
            match (&mounted.label, self.find(&pod, mounted)) {
                (_, Found::NotYet) => {}
                (Wanted::Several, _) => {
                    let name = &mounted.volume.name;
                    let message = format!(
                        "Volume \"{name}\" is mounted twice with different SELinux labels inside this pod"
                    );
                    let about = reference(&*pod);
                    self.events
                        .event(&about, true, "MultipleSELinuxLabels", message);
                    // The pod will never run well, and it is told again before that is forgotten.
                    requeue = Requeue::Backoff;
                }
                (_, Found::Unlabelled) => {}
                (wanted, Found::Volume(volume)) => {
                    let label = match wanted {
                        Wanted::Mounted(label) => Some(label.clone()),
                        _ => None,
                    };
                    let driver = volume.driver.as_ref().map(|driver| driver.name.as_str());
                    // Under the lock: a driver that changes meanwhile finds the pod afterwards.
                    let mut usage = self.usage.lock();
                    let access = Access(label.filter(|_| self.is_mounted_labelled(&volume)));
                    let conflicts = usage.add(key, &volume.unique, driver, access);
                    drop(usage);
                    conflicts.iter().for_each(|conflict| self.warn(conflict));
                }
            }
        }
        requeue
    }

    /// Who is gone needs no word any more.
    fn warn(&self, conflict: &Conflict) {
        if let Some(pod) = self.pods.get_key(&conflict.pod) {
            let reason = conflict.property.reason();
            self.events
                .event(&reference(&*pod), false, reason, conflict.message());
        }
    }
}
