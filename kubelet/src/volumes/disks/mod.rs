//! Disks that come over a network and that the node itself brings in: iSCSI and Fibre Channel. A
//! disk is brought in and mounted once, at a place of the node's own, and shown to each pod from
//! there; after the last pod it goes.
//!
//! `iscsi.rs` and `fc.rs` bring disks in and let go of them, `device.rs` reads what the kernel shows
//! of them, `format.rs` sees to file systems. Directories and files are upstream's, and tell alone
//! who has what: a kubelet that starts anew needs nothing else.

mod device;
mod fc;
mod format;
mod iscsi;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::{Api, Client};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Secret, Volume};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::csi::InUse;
use super::ownership;
use crate::pods::dirs::Root;
use crate::pods::pod::PodExt;
use crate::sys::host::Host;
use crate::turns::Turns;

use fc::Fc;
use iscsi::Iscsi;

/// Which step failed, and why.
#[derive(Debug, Error)]
pub enum DiskError {
    #[error("MountVolume.WaitForAttach failed for volume {0:?} : {1}")]
    Attach(String, String),
    #[error("MountVolume.MountDevice failed for volume {0:?} : {1}")]
    MountDevice(String, String),
    #[error("MountVolume.SetUp failed for volume {0:?} : {1}")]
    SetUp(String, String),
    #[error("MapVolume.MapPodDevice failed for volume {0:?} : {1}")]
    Map(String, String),
}

/// A file system of a disk's is unmounted when nobody has it any more; one that resists is tried
/// again, with pauses that grow.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(120);
/// A disk that was unmounted is detached in so many tries, after so many of the node's pauses each.
const DETACH_TRIES: u32 = 12;
const DETACH_PAUSES: u32 = 10;
/// Directory of devices, beside those of file systems.
const DEVICES: &str = "volumeDevices";

/// What brings the disk in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Iscsi(Box<Iscsi>),
    Fc(Fc),
}

impl Source {
    fn plugin(&self) -> &'static str {
        match self {
            Self::Iscsi(_) => iscsi::PLUGIN,
            Self::Fc(_) => fc::PLUGIN,
        }
    }

    fn dir_name(&self) -> PathBuf {
        match self {
            Self::Iscsi(disk) => disk.dir_name(),
            Self::Fc(disk) => disk.dir_name(),
        }
    }

    /// What only one at a time may deal with: a target, as its sessions are shared; or a disk.
    fn turn(&self) -> String {
        match self {
            Self::Iscsi(disk) => disk.iqn.clone(),
            Self::Fc(disk) => disk.dir_name().to_string_lossy().into_owned(),
        }
    }

    fn unique_name(&self) -> String {
        let name = match self {
            Self::Iscsi(disk) => disk.unique_name(),
            Self::Fc(disk) => disk.unique_name(),
        };
        format!("kubernetes.io/{}/{name}", self.plugin())
    }

    fn attach(&self, host: &Host) -> Result<PathBuf, String> {
        match self {
            Self::Iscsi(disk) => disk.attach(host),
            Self::Fc(disk) => disk.attach(host),
        }
    }
}

/// A volume on such a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The persistent volume's, or the pod's own.
    name: String,
    source: Source,
    fs_type: String,
    pub read_only: bool,
    /// Of the mount; sorted.
    options: Vec<String>,
    /// A device, not files.
    pub block: bool,
    /// Namespace and name of what the target wants to be told.
    secret: Option<(String, String)>,
}

/// The options of a mount: the volume's own, and `ro`; in upstream's order.
pub fn mount_options(own: &[String], read_only: bool) -> Vec<String> {
    let own = own.iter().filter(|option| !option.is_empty()).cloned();
    let all: BTreeSet<String> = own.chain(read_only.then(|| "ro".to_owned())).collect();
    all.into_iter().collect()
}

impl Disk {
    /// A pod's own; `None` where the volume is none on such a disk.
    ///
    /// # Errors
    /// When it does not say which disk.
    pub fn inline(pod: &Pod, volume: &Volume) -> Result<Option<Self>, String> {
        let (source, fs_type, read_only, secret) = if let Some(source) = &volume.iscsi {
            let secret = source.secret_ref.as_ref();
            let secret = secret.map(|secret| (pod.namespace().to_owned(), secret.name.clone()));
            let disk = Source::Iscsi(Box::new(iscsi::of(&volume.name, source)));
            (disk, &source.fs_type, source.read_only, secret)
        } else if let Some(source) = &volume.fc {
            (
                Source::Fc(fc::of(source)?),
                &source.fs_type,
                source.read_only,
                None,
            )
        } else {
            return Ok(None);
        };
        let read_only = read_only.unwrap_or_default();
        Ok(Some(Self {
            name: volume.name.clone(),
            source,
            fs_type: fs_type.clone().unwrap_or_default(),
            read_only,
            options: mount_options(&[], read_only),
            block: false,
            secret,
        }))
    }

    /// A persistent one. `read_only` is the pod's word, `options` are the volume's.
    ///
    /// # Errors
    /// As [`Disk::inline`].
    pub fn persistent(
        pod: &Pod,
        volume: &PersistentVolume,
        read_only: bool,
        options: &[String],
    ) -> Result<Option<Self>, String> {
        let Some(spec) = &volume.spec else {
            return Ok(None);
        };
        let name = volume.metadata.name.clone().unwrap_or_default();
        let (source, fs_type, secret) = if let Some(source) = &spec.iscsi {
            let secret = source.secret_ref.clone().and_then(|secret| {
                let namespace = secret.namespace.filter(|namespace| !namespace.is_empty());
                Some((
                    namespace.unwrap_or_else(|| pod.namespace().to_owned()),
                    secret.name?,
                ))
            });
            let disk = Source::Iscsi(Box::new(iscsi::of(&name, &iscsi::inlined(source))));
            (disk, &source.fs_type, secret)
        } else if let Some(source) = &spec.fc {
            (Source::Fc(fc::of(source)?), &source.fs_type, None)
        } else {
            return Ok(None);
        };
        Ok(Some(Self {
            name,
            source,
            fs_type: fs_type.clone().unwrap_or_default(),
            read_only,
            options: mount_options(options, read_only),
            block: spec.volume_mode.as_deref() == Some("Block"),
            secret,
        }))
    }
}

/// A place of the node's own where a disk is, or was.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    source: Source,
    block: bool,
}

/// All disks of the node.
pub struct Disks {
    host: Host,
    root: Root,
    api: Option<Client>,
    /// Whom a controller attaches disks for; `None` where none does.
    in_use: Option<Arc<InUse>>,
    turns: Turns<String>,
    /// How the node's status names what is at a place.
    names: Mutex<HashMap<PathBuf, String>>,
    look: Notify,
}

impl Disks {
    /// `in_use` is told of disks that a controller attaches to the node.
    pub fn new(
        host: Host,
        root: Root,
        api: Option<Client>,
        in_use: Option<Arc<InUse>>,
    ) -> Arc<Self> {
        let disks = Self {
            host,
            root,
            api,
            in_use,
            turns: Turns::default(),
            names: Mutex::default(),
            look: Notify::new(),
        };
        for place in disks.places() {
            let name = place.source.unique_name();
            if let Some(in_use) = &disks.in_use {
                in_use.add(&name);
            }
            disks.names.lock().insert(place.dir, name);
        }
        Arc::new(disks)
    }

    fn plugin_dir(&self, plugin: &str, block: bool) -> PathBuf {
        let dir = self.root.path().join("plugins/kubernetes.io").join(plugin);
        if block { dir.join(DEVICES) } else { dir }
    }

    fn place(&self, disk: &Disk) -> PathBuf {
        self.plugin_dir(disk.source.plugin(), disk.block)
            .join(disk.source.dir_name())
    }

    /// Every place that there is a directory of.
    fn places(&self) -> Vec<Place> {
        let dirs = |dir: PathBuf| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.path())
                .filter(|path| !path.ends_with(DEVICES))
        };
        let mut all = Vec::new();
        for block in [false, true] {
            for dir in dirs(self.plugin_dir(iscsi::PLUGIN, block)).flat_map(dirs) {
                if let Some(disk) = Iscsi::known(&dir) {
                    let source = Source::Iscsi(Box::new(disk));
                    all.push(Place { dir, source, block });
                }
            }
            for dir in dirs(self.plugin_dir(fc::PLUGIN, block)) {
                if let Some(disk) = Fc::known(&dir) {
                    let source = Source::Fc(disk);
                    all.push(Place { dir, source, block });
                }
            }
        }
        all
    }

    /// What the target of a disk wants to be told.
    async fn secret(&self, disk: &Disk) -> Result<BTreeMap<String, String>, String> {
        let wanted =
            matches!(&disk.source, Source::Iscsi(disk) if disk.chap_discovery || disk.chap_session);
        let Some((namespace, name)) = disk.secret.as_ref().filter(|_| wanted) else {
            return Ok(BTreeMap::new());
        };
        let api = self.api.as_ref().ok_or("cannot get kube client")?;
        let secret = Api::<Secret>::namespaced(api, namespace).get(name).await;
        let secret = secret
            .map_err(|error| format!("couldn't get secret {namespace}/{name} error: {error}"))?;
        let data = secret.data.unwrap_or_default().into_iter();
        Ok(data
            .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
            .collect())
    }

    /// The disk is somebody's. A kubelet that starts anew knows it by its directory, which spells the
    /// name of some otherwise than the volume does.
    fn note(&self, disk: &Disk) {
        let name = disk.source.unique_name();
        let before = self.names.lock().insert(self.place(disk), name.clone());
        if let Some(in_use) = &self.in_use {
            in_use.add(&name);
            if let Some(before) = before.filter(|before| *before != name) {
                in_use.remove(&before);
            }
        }
    }

    /// Waits until the disk is the node's to use.
    async fn ready(&self, disk: &Disk) -> Result<Disk, DiskError> {
        let failed = |why| DiskError::Attach(disk.name.clone(), why);
        let name = disk.source.unique_name();
        if let Some(in_use) = &self.in_use {
            in_use.wait_attached(&name).await.map_err(failed)?;
        }
        let mut disk = disk.clone();
        let secret = self.secret(&disk).await.map_err(failed)?;
        if let Source::Iscsi(iscsi) = &mut disk.source {
            iscsi.secret = secret;
        }
        Ok(disk)
    }

    /// The mount point of a pod's volume, ready to be used. Quick where it has been before.
    ///
    /// # Errors
    /// When it cannot be had yet.
    pub async fn mount(self: &Arc<Self>, pod: &Pod, disk: &Disk) -> Result<PathBuf, DiskError> {
        self.note(disk);
        let dir = self
            .root
            .pod(pod.uid())
            .volume(disk.source.plugin(), &disk.name);
        if self.host.is_mount_point(&dir).is_ok_and(|mounted| mounted) {
            return Ok(dir);
        }
        let disk = self.ready(disk).await?;
        let context = pod.pod_spec().security_context.as_ref();
        let group = context
            .and_then(|context| context.fs_group)
            .and_then(|group| u32::try_from(group).ok());
        let lazy = context.and_then(|context| context.fs_group_change_policy.as_deref())
            == Some("OnRootMismatch");
        let group = group.filter(|_| !disk.read_only).map(|group| (group, lazy));
        let turn = self.turns.take(disk.source.turn()).await;
        let (own, target) = (self.clone(), dir.clone());
        // Whoever waits may leave, the work goes on: half of it would be of no use to anybody.
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            own.show(&disk, &target, group)
        });
        made.await
            .unwrap_or_else(|panic| Err(DiskError::SetUp(String::new(), panic.to_string())))?;
        Ok(dir)
    }

    /// The path of a pod's device, ready to be used.
    ///
    /// # Errors
    /// As [`Disks::mount`].
    pub async fn map(self: &Arc<Self>, pod: &Pod, disk: &Disk) -> Result<PathBuf, DiskError> {
        self.note(disk);
        let link = self
            .root
            .pod(pod.uid())
            .devices(disk.source.plugin())
            .join(&disk.name);
        let held = self.place(disk).join(pod.uid());
        if link.symlink_metadata().is_ok()
            && self.host.is_mount_point(&held).is_ok_and(|mounted| mounted)
        {
            return Ok(link);
        }
        let disk = self.ready(disk).await?;
        let turn = self.turns.take(disk.source.turn()).await;
        let (own, at) = (self.clone(), link.clone());
        let made = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            own.hold(&disk, &held, &at)
        });
        made.await
            .unwrap_or_else(|panic| Err(DiskError::Map(String::new(), panic.to_string())))?;
        Ok(link)
    }

    /// Brings the disk in and writes down what it takes to let go of it.
    fn bring(&self, disk: &Disk) -> Result<PathBuf, DiskError> {
        let failed = |why| DiskError::Attach(disk.name.clone(), why);
        let place = self.place(disk);
        let device = disk.source.attach(&self.host).map_err(failed)?;
        let save = || {
            make_dir(&place)?;
            match &disk.source {
                // Below what is mounted already it has been written.
                Source::Iscsi(iscsi) if !self.host.is_mount_point(&place)? => iscsi.save(&place),
                _ => Ok(()),
            }
        };
        save().map_err(|error: io::Error| failed(error.to_string()))?;
        Ok(device)
    }

    fn show(
        &self,
        disk: &Disk,
        target: &Path,
        group: Option<(u32, bool)>,
    ) -> Result<(), DiskError> {
        let device = self.bring(disk)?;
        let place = self.place(disk);
        let failed = |why| DiskError::MountDevice(disk.name.clone(), why);
        let mounted = self
            .host
            .is_mount_point(&place)
            .map_err(|error| failed(error.to_string()))?;
        if !mounted {
            format::mount_disk(&self.host, &device, &place, &disk.fs_type, &disk.options)
                .map_err(failed)?;
        }
        let failed = |why: String| DiskError::SetUp(disk.name.clone(), why);
        make_dir(target).map_err(|error| failed(error.to_string()))?;
        let (from, to) = (place.to_string_lossy(), target.to_string_lossy());
        let net = disk.options.iter().any(|option| option == "_netdev");
        let bind = if net { "bind,_netdev" } else { "bind" };
        let own = disk.options.iter().map(String::as_str);
        let options = ["bind", "remount"].into_iter().chain(own);
        let options = options.collect::<Vec<_>>().join(",");
        // A bind mount takes no options; they are for the second time.
        let shown = self.host.run("mount", &["-o", bind, &from, &to]);
        let shown = shown.and_then(|_| self.host.run("mount", &["-o", &options, &from, &to]));
        if let Err(error) = shown {
            if self
                .host
                .is_mount_point(target)
                .is_ok_and(|mounted| mounted)
            {
                let _ = self.host.run("umount", &[&to]);
            }
            let _ = fs::remove_dir(target);
            return Err(failed(error.to_string()));
        }
        if let Some((group, lazy)) = group
            && !(lazy && ownership::is_groups(target, group, false))
            && let Err(error) = ownership::set_group(target, group, false)
        {
            warn!(volume = disk.name, %error, "cannot give a volume to the pod's group");
        }
        Ok(())
    }

    /// The device at a place of the pod's, so that it is known who has it, and a link to it.
    fn hold(&self, disk: &Disk, held: &Path, link: &Path) -> Result<(), DiskError> {
        let device = self.bring(disk)?;
        let failed = |why: String| DiskError::Map(disk.name.clone(), why);
        let text = |error: io::Error| failed(error.to_string());
        if !self.host.is_mount_point(held).map_err(text)? {
            fs::File::create(held).map_err(text)?;
            let (from, to) = (device.to_string_lossy(), held.to_string_lossy());
            self.host
                .run("mount", &["-o", "bind", &from, &to])
                .map_err(|error| failed(error.to_string()))?;
        }
        make_dir(link.parent().unwrap_or(link)).map_err(text)?;
        ignore_missing(fs::remove_file(link)).map_err(text)?;
        std::os::unix::fs::symlink(&device, link).map_err(text)
    }

    /// Takes back the devices that a pod has. Its mounts go with its directory. Blocks.
    ///
    /// # Errors
    /// When one stays.
    pub fn unmap_pod(&self, uid: &str) -> io::Result<()> {
        let pod = self.root.pod(uid);
        for place in self.places().into_iter().filter(|place| place.block) {
            let held = place.dir.join(uid);
            if held.symlink_metadata().is_err() {
                continue;
            }
            if self.host.is_mount_point(&held)? {
                self.host
                    .run("umount", &[&held.to_string_lossy()])
                    .map_err(io::Error::other)?;
            }
            ignore_missing(fs::remove_file(&held))?;
        }
        for plugin in [iscsi::PLUGIN, fc::PLUGIN] {
            ignore_missing(fs::remove_dir_all(pod.devices(plugin)))?;
        }
        Ok(())
    }

    /// Something may be in nobody's use any more.
    pub fn release(&self) {
        self.look.notify_one();
    }

    /// Whether pods have what is at a place.
    fn is_used(&self, place: &Place) -> io::Result<bool> {
        if place.block {
            let mut entries = fs::read_dir(&place.dir)?.flatten();
            return Ok(entries.any(|entry| entry.file_name() != iscsi::FILE));
        }
        let mounts = self.host.mounts()?;
        let Some(own) = mounts.iter().rfind(|entry| entry.point == place.dir) else {
            return Ok(false);
        };
        let pods = self.root.pods();
        Ok(mounts
            .iter()
            .any(|entry| entry.device == own.device && entry.point.starts_with(&pods)))
    }

    /// Lets go of what is at a place, if nobody has it. Blocks.
    fn let_go(&self, place: &Place) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        if !place.dir.exists() || self.is_used(place).map_err(|error| text(&error))? {
            return Ok(());
        }
        let mounts = self.host.mounts().map_err(|error| text(&error))?;
        let mounted = mounts.iter().rfind(|entry| entry.point == place.dir);
        if mounted.is_some() {
            let unmounted = self.host.run("umount", &[&place.dir.to_string_lossy()]);
            unmounted.map_err(|error| text(&error))?;
        }
        match &place.source {
            Source::Iscsi(disk) => {
                // What the mount has hidden knows more than the directory's name.
                let disk = Iscsi::known(&place.dir).unwrap_or_else(|| Iscsi::clone(disk));
                disk.detach(&self.host, self.is_busy(&disk, &place.dir))?;
            }
            // Without a mount nothing says that it was brought in.
            Source::Fc(disk) if mounted.is_some() || place.block => {
                let device = mounted.map(|entry| Path::new(entry.source.as_str()));
                let mut gone = disk.detach(&self.host, device);
                // Multipath may be busy with what has just been unmounted; later nobody would know.
                for _ in 0..DETACH_TRIES {
                    if gone.is_ok() {
                        break;
                    }
                    std::thread::sleep(self.host.pause * DETACH_PAUSES);
                    gone = disk.detach(&self.host, device);
                }
                gone?;
            }
            Source::Fc(_) => {}
        }
        fs::remove_dir_all(&place.dir).map_err(|error| text(&error))?;
        let name = self.names.lock().remove(&place.dir);
        if let Some(in_use) = &self.in_use {
            in_use.remove(&name.unwrap_or_else(|| place.source.unique_name()));
        }
        info!(
            disk = place.source.unique_name(),
            "a disk is not in use here any more"
        );
        Ok(())
    }

    /// Whether another volume is reached by the sessions of this one's target.
    fn is_busy(&self, disk: &Iscsi, dir: &Path) -> bool {
        self.places().iter().any(|place| {
            place.dir != dir
                && matches!(&place.source, Source::Iscsi(other)
                    if other.iqn == disk.iqn && other.portals[0] == disk.portals[0])
        })
    }

    /// Lets go of whatever nobody has, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut left = false;
            for place in self.places() {
                let turn = self.turns.take(place.source.turn()).await;
                let own = self.clone();
                let gone = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    let gone = own.let_go(&place);
                    gone.map_err(|why| (place.source.unique_name(), why))
                });
                if let Ok(Err((disk, error))) = gone.await {
                    warn!(disk, error, "cannot let go of a disk yet");
                    left = true;
                }
            }
            pause = if left {
                (pause * 2).min(MAX_PAUSE)
            } else {
                FIRST_PAUSE
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look.notified() => {}
                () = tokio::time::sleep(pause), if left => {}
            }
        }
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests;
