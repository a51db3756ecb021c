//! Makes a driver's volumes usable for pods, and takes them back. Every step can be repeated; what
//! was begun is known from the files beside the mount points, so a kubelet that starts anew goes
//! on. A volume that several pods share is staged by the first and unstaged after the last.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::informer::{Selection, Store};
use client::{Api, Client as ApiClient, Informer, Patch, PatchOptions};
use grpc::plugins::csi::{
    CapacityRange, NodeExpandVolumeRequest, NodeGetVolumeStatsRequest, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::storage::v1::CSIDriver;
use parking_lot::Mutex;
use serde_json::json;
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::attach::{self, InUse};
use super::client::{CallError, Capabilities, Capability, Client, Usage};
use super::data::{self, Data};
use super::drivers::Drivers;
use super::limits;
use super::volume::{CsiVolume, Lifecycle, Resize, SecretKey, attaches, staging_path, unique_name};
use crate::events::{Events, Kind};
use crate::node_status::facts::NodeFacts;
use crate::pods::dirs::Root;
use crate::pods::pod::PodExt;
use crate::resources::requests::value;
use crate::sys::mount;
use crate::turns::Turns;
use crate::volumes::ownership;
use crate::volumes::tokens::Tokens;

pub mod block;

/// Which step failed, and why.
#[derive(Debug, Error)]
pub enum CsiError {
    #[error("MountVolume.WaitForAttach failed for volume {0:?} : {1}")]
    Attach(String, String),
    #[error("MountVolume.MountDevice failed for volume {0:?} : {1}")]
    Stage(String, String),
    #[error("MountVolume.SetUp failed for volume {0:?} : {1}")]
    Publish(String, String),
    #[error("MountVolume.NodeExpandVolume failed for volume {0:?} : {1}")]
    Expand(String, String),
    #[error("UnmountVolume.TearDown failed for volume {0:?} : {1}")]
    Unpublish(String, String),
    #[error("UnmountDevice failed for volume {0:?} : {1}")]
    Unstage(String, String),
    #[error("MapVolume.MapPodDevice failed for volume {0:?} : {1}")]
    Map(String, String),
    #[error("UnmapVolume.UnmapPodDevice failed for volume {0:?} : {1}")]
    Unmap(String, String),
}

/// How long a pod waits for the drivers' objects to be known.
const FIRST_FETCH: Duration = Duration::from_secs(10);
/// Pauses between tries to unstage what nobody uses.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(120);

/// Of a volume that one pod alone may have.
const ELSEWHERE: &str =
    "volume uses the ReadWriteOncePod access mode and is already in use by another pod";

/// Driver and handle.
type Key = (String, String);

/// A volume that may be staged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Staged {
    key: Key,
    /// The name of its directory, if it is a device.
    device: Option<String>,
}

/// All volumes that are staged.
fn all_staged(root: &Path) -> impl Iterator<Item = Staged> + use<> {
    let volumes = data::staged(root).map(|data| Staged {
        key: data.key(),
        device: None,
    });
    let devices = block::known(root).map(|(name, data)| Staged {
        key: data.key(),
        device: Some(name),
    });
    volumes.chain(devices)
}

/// What it takes.
pub struct Setup {
    pub drivers: Drivers,
    /// `None` without an API server.
    pub api: Option<ApiClient>,
    pub tokens: Arc<Tokens>,
    pub events: Arc<Events>,
    pub node: String,
    pub root: Root,
    pub facts: Arc<NodeFacts>,
    /// Woken when the node's status is to be shown.
    pub node_changed: Arc<Notify>,
}

/// Everything about volumes of drivers.
pub struct Csi {
    drivers: Drivers,
    /// `None` without an API server, as the next.
    api: Option<ApiClient>,
    informer: Option<Informer<CSIDriver>>,
    /// The drivers' objects.
    kinds: Store<CSIDriver>,
    tokens: Arc<Tokens>,
    events: Arc<Events>,
    node: String,
    root: Root,
    in_use: Arc<InUse>,
    turns: Turns<Key>,
    /// What has been published since this kubelet started: pod and directory.
    published: Mutex<HashSet<(String, String)>>,
    /// What pods have asked for, whatever came of it.
    wanted: Mutex<HashMap<String, HashSet<Staged>>>,
    /// What may be staged for nobody.
    unused: Mutex<HashSet<Staged>>,
    look: Notify,
}

impl Csi {
    pub fn new(setup: Setup, stop: &CancellationToken) -> Arc<Self> {
        let informer = setup.api.as_ref().map(|api| {
            let informer = Informer::<CSIDriver>::new(Api::all(api), &Selection::default());
            let drivers = setup.drivers.clone();
            informer.add_handler(move |_| drivers.tell_changed());
            informer.start(stop);
            informer
        });
        let none = || Store::with([]);
        let kinds = informer.as_ref().map_or_else(none, |i| i.store().clone());
        let drivers = setup.drivers.clone();
        tokio::spawn(limits::run(drivers, kinds.clone(), stop.clone()));
        Self::start(setup, informer, kinds, stop)
    }

    fn start(
        setup: Setup,
        informer: Option<Informer<CSIDriver>>,
        kinds: Store<CSIDriver>,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let root = setup.root.path();
        let csi = Arc::new(Self {
            in_use: Arc::new(InUse::new(root, setup.facts, setup.node_changed)),
            unused: Mutex::new(all_staged(root).collect()),
            drivers: setup.drivers,
            api: setup.api,
            informer,
            kinds,
            tokens: setup.tokens,
            events: setup.events,
            node: setup.node,
            root: setup.root,
            turns: Turns::default(),
            published: Mutex::default(),
            wanted: Mutex::default(),
            look: Notify::new(),
        });
        tokio::spawn(csi.clone().unstage_unused(stop.clone()));
        csi
    }

    /// What the node's status names as in use.
    pub fn in_use(&self) -> Arc<InUse> {
        self.in_use.clone()
    }

    /// The driver's object; drivers need none.
    async fn kind(&self, driver: &str) -> Result<Option<Arc<CSIDriver>>, String> {
        if let Some(informer) = &self.informer {
            let synced = tokio::time::timeout(FIRST_FETCH, informer.wait_synced()).await;
            synced.map_err(|_| "CSIDrivers have not been read yet".to_owned())?;
        }
        Ok(self.kinds.get("", driver))
    }

    async fn secret(&self, key: Option<&SecretKey>) -> Result<BTreeMap<String, String>, String> {
        let Some((namespace, name)) = key else {
            return Ok(BTreeMap::new());
        };
        let api = self.api.as_ref().ok_or("there is no API server")?;
        let secret = Api::<Secret>::namespaced(api, namespace).get(name).await;
        let secret = secret.map_err(|error| {
            format!("kubernetes.io/csi: failed to find the secret {name} in the namespace {namespace} with error: {error}")
        })?;
        let data = secret.data.unwrap_or_default().into_iter();
        Ok(data
            .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
            .collect())
    }

    /// The mount point of a pod's volume, ready to be used. Quick where it has been before.
    ///
    /// # Errors
    /// When it cannot be had yet.
    pub async fn mount(&self, pod: &Pod, volume: &CsiVolume) -> Result<PathBuf, CsiError> {
        let name = || volume.name.clone();
        let set_up = |why: String| {
            CsiError::Publish(
                name(),
                format!("kubernetes.io/csi: mounter.SetUpAt failed: {why}"),
            )
        };
        let dir = data::dir_of(&self.root.pod(pod.uid()), &volume.dir_name());
        let target = dir.join("mount");
        let kind = self.kind(&volume.driver).await.map_err(set_up)?;
        let kind = kind.as_deref();
        let republish = kind.is_some_and(|kind| kind.spec.requires_republish == Some(true));
        let entry = (pod.uid().to_owned(), volume.dir_name());
        let known = self.published.lock().contains(&entry);
        if known && !republish && volume.resize.is_none() {
            return Ok(target);
        }
        let client = match self.drivers.get(&volume.driver) {
            Ok(client) => client,
            // It has been mounted before; the driver may be on its way.
            Err(_) if Data::read(&dir).is_ok() && mount::is_mount_point(&target) => {
                return Ok(target);
            }
            Err(why) => {
                let why =
                    format!("kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: {why}");
                return Err(CsiError::Publish(name(), why));
            }
        };
        let persistent = volume.lifecycle == Lifecycle::Persistent;
        if persistent {
            self.want(pod, volume);
        }
        let mut publish_context = BTreeMap::new();
        if persistent && attaches(kind) {
            publish_context = self.attached(volume).await?;
        }
        let _turn = self.turns.take(volume.key()).await;
        if volume.is_one_pods() && self.users(&volume.key()).any(|uid| uid != pod.uid()) {
            return Err(CsiError::Publish(name(), ELSEWHERE.into()));
        }
        let can = client
            .capabilities()
            .await
            .map_err(|error| set_up(error.to_string()))?;
        let group = pod.pod_spec().security_context.as_ref();
        let group = group.and_then(|context| context.fs_group);
        let own_group = group.filter(|_| can.has(Capability::VolumeMountGroup));
        let mut staged = String::new();
        if persistent {
            let staging = staging_path(self.root.path(), &volume.driver, &volume.handle);
            if !known {
                self.stage(&client, &can, volume, &staging, own_group, &publish_context)
                    .await
                    .map_err(|why| CsiError::Stage(name(), why))?;
            }
            if can.has(Capability::StageUnstageVolume) {
                staged = staging.to_string_lossy().into_owned();
            }
        }
        if known && !republish {
            self.expand(pod, &client, &can, volume, &target, &staged)
                .await?;
            return Ok(target);
        }
        volume.check_lifecycle(kind).map_err(set_up)?;
        let takes_group = volume.takes_group(kind).map_err(|why| set_up(why.into()))?;
        let request = NodePublishVolumeRequest {
            volume_id: volume.handle.clone(),
            publish_context,
            staging_target_path: staged.clone(),
            target_path: target.to_string_lossy().into_owned(),
            volume_capability: Some(
                volume.capability(can.has(Capability::SingleNodeMultiWriter), own_group),
            ),
            readonly: volume.read_only,
            ..Default::default()
        };
        self.publish(pod, &client, volume, kind, request, &dir, known)
            .await
            .map_err(|why| CsiError::Publish(name(), why))?;
        if known {
            return Ok(target);
        }
        if let Some(group) = group.filter(|_| takes_group && own_group.is_none()) {
            give_to_group(pod, &target, group).await.map_err(|error| {
                CsiError::Publish(
                    name(),
                    format!("applyFSGroup failed for vol {}: {error}", volume.handle),
                )
            })?;
        }
        if persistent {
            self.expand(pod, &client, &can, volume, &target, &staged)
                .await?;
        }
        self.published.lock().insert(entry);
        Ok(target)
    }

    /// Waits until the volume is attached, and returns what its attacher said.
    async fn attached(&self, volume: &CsiVolume) -> Result<BTreeMap<String, String>, CsiError> {
        let failed = |why| CsiError::Attach(volume.name.clone(), why);
        let Some(api) = &self.api else {
            return Err(failed("there is no API server".into()));
        };
        let attached = attach::wait(&self.in_use, api, volume, &self.node).await;
        attached.map_err(failed)
    }

    async fn stage(
        &self,
        client: &Client,
        can: &Capabilities,
        volume: &CsiVolume,
        staging: &Path,
        group: Option<i64>,
        publish_context: &BTreeMap<String, String>,
    ) -> Result<(), String> {
        let io = |error: io::Error| {
            format!(
                "kubernetes.io/csi: attacher.MountDevice failed to create dir {:?}: {error}",
                staging.display()
            )
        };
        let dir = staging.parent().unwrap_or(staging);
        make_dir(staging).map_err(io)?;
        // Without staging there is nothing to undo, so nothing to be written down.
        if !can.has(Capability::StageUnstageVolume) {
            return Ok(());
        }
        let secrets = self.secret(volume.stage_secret.as_ref()).await?;
        Data::staged(volume).write(dir).map_err(io)?;
        let request = NodeStageVolumeRequest {
            volume_id: volume.handle.clone(),
            publish_context: publish_context.clone(),
            staging_target_path: staging.to_string_lossy().into_owned(),
            volume_capability: Some(
                volume.capability(can.has(Capability::SingleNodeMultiWriter), group),
            ),
            secrets,
            volume_context: volume.attributes.clone(),
        };
        client.stage(request).await.map_err(|error| {
            // Another pod may have it staged: then the file is still of use.
            if error.is_final() && !self.is_used(&volume.driver, &volume.handle) {
                let _ = data::remove(staging);
            }
            error.to_string()
        })
    }

    #[allow(clippy::too_many_arguments)]
    async fn publish(
        &self,
        pod: &Pod,
        client: &Client,
        volume: &CsiVolume,
        kind: Option<&CSIDriver>,
        mut request: NodePublishVolumeRequest,
        dir: &Path,
        again: bool,
    ) -> Result<(), String> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            format!("kubernetes.io/csi: mounter.SetUpAt failed to {what}: {error}")
        };
        request.secrets = self
            .secret(volume.publish_secret.as_ref())
            .await
            .map_err(|error| {
                let (namespace, name) = volume.publish_secret.clone().unwrap_or_default();
                format!("fetching NodePublishSecretRef {namespace}/{name} failed: {error}")
            })?;
        request.volume_context.clone_from(&volume.attributes);
        if kind.is_some_and(|kind| kind.spec.pod_info_on_mount == Some(true)) {
            request.volume_context.extend(volume.pod_info(pod));
        }
        if let Some(kind) = kind
            && let Some(tokens) = self
                .tokens_for(pod, kind)
                .await
                .map_err(|error| failed("get service accoount token attributes", &error))?
        {
            let secret = kind.spec.service_account_token_in_secrets == Some(true);
            let place = if secret {
                &mut request.secrets
            } else {
                &mut request.volume_context
            };
            place.insert("csi.storage.k8s.io/serviceAccount.tokens".into(), tokens);
        }
        make_dir(dir).map_err(|error| failed("create dir", &error))?;
        // The driver may leave the mount point, or make it.
        let target = dir.join("mount");
        let fresh = !again && !mount::is_mount_point(&target);
        Data::published(volume, &self.node)
            .write(dir)
            .map_err(|error| failed("save volume info data", &error))?;
        client.publish(request).await.map_err(|error: CallError| {
            // A volume that pods look at stays as it is.
            if error.is_final() && fresh {
                let _ = data::remove(&target);
            }
            error.to_string()
        })
    }

    /// The tokens that the driver wants, as it is given them.
    async fn tokens_for(&self, pod: &Pod, kind: &CSIDriver) -> Result<Option<String>, String> {
        let Some(requests) = kind
            .spec
            .token_requests
            .as_ref()
            .filter(|list| !list.is_empty())
        else {
            return Ok(None);
        };
        let mut tokens = BTreeMap::new();
        for request in requests {
            let (audience, seconds) = (&request.audience, request.expiration_seconds);
            let token = self.tokens.get_with_end(pod, audience, seconds).await;
            let (token, end) = token.map_err(|error| error.to_string())?;
            let end = end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            tokens.insert(
                audience.clone(),
                json!({"token": token, "expirationTimestamp": end}),
            );
        }
        Ok(Some(json!(tokens).to_string()))
    }

    /// Grows the file system to what the volume has grown to, and says so in the claim.
    async fn expand(
        &self,
        pod: &Pod,
        client: &Client,
        can: &Capabilities,
        volume: &CsiVolume,
        target: &Path,
        staged: &str,
    ) -> Result<(), CsiError> {
        let Some(resize) = &volume.resize else {
            return Ok(());
        };
        let expanded = self
            .expand_to(resize, client, can, volume, target, staged)
            .await;
        let event = |kind, reason, message: &str| self.events.pod(pod, kind, reason, message);
        match expanded {
            Ok(()) => {
                let message = format!(
                    "MountVolume.NodeExpandVolume succeeded for volume {:?}",
                    volume.name
                );
                event(Kind::Normal, "FileSystemResizeSuccessful", &message);
                Ok(())
            }
            Err(why) => {
                let error = CsiError::Expand(volume.name.clone(), why);
                event(Kind::Warning, "VolumeResizeFailed", &error.to_string());
                // What pods use already they go on to use.
                if self.is_published(pod, volume) {
                    warn!(pod = %pod.full_name(), %error, "cannot grow a volume yet");
                    return Ok(());
                }
                Err(error)
            }
        }
    }

    async fn expand_to(
        &self,
        resize: &Resize,
        client: &Client,
        can: &Capabilities,
        volume: &CsiVolume,
        target: &Path,
        staged: &str,
    ) -> Result<(), String> {
        if can.has(Capability::ExpandVolume) {
            let secrets = self.secret(volume.expand_secret.as_ref()).await?;
            let request = NodeExpandVolumeRequest {
                volume_id: volume.handle.clone(),
                volume_path: target.to_string_lossy().into_owned(),
                capacity_range: Some(CapacityRange {
                    required_bytes: value(&resize.to),
                    limit_bytes: 0,
                }),
                staging_target_path: staged.to_owned(),
                volume_capability: Some(
                    volume.capability(can.has(Capability::SingleNodeMultiWriter), None),
                ),
                secrets,
            };
            client.expand(request).await.map_err(|error| {
                format!("Expander.NodeExpand failed to expand the volume : {error}")
            })?;
        }
        let api = self.api.as_ref().ok_or("there is no API server")?;
        let (namespace, name) = &resize.claim;
        let claims = Api::<PersistentVolumeClaim>::namespaced(api, namespace);
        let claim = claims.get(name).await.map_err(|error| error.to_string())?;
        let patch = Patch::Merge(grown(&claim, resize));
        let patched = claims
            .patch_status(name, &patch, &PatchOptions::default())
            .await;
        patched.map(drop).map_err(|error| error.to_string())
    }

    fn is_published(&self, pod: &Pod, volume: &CsiVolume) -> bool {
        let entry = (pod.uid().to_owned(), volume.dir_name());
        self.published.lock().contains(&entry)
    }

    fn want(&self, pod: &Pod, volume: &CsiVolume) {
        let mut wanted = self.wanted.lock();
        let own = wanted.entry(pod.uid().to_owned()).or_default();
        own.insert(Staged {
            key: volume.key(),
            device: volume.block.then(|| volume.dir_name()),
        });
    }

    /// A pod has nothing published any more: what it asked for may be staged for nobody, or be
    /// attached for nothing.
    pub fn release(&self, uid: &str) {
        if let Some(wanted) = self.wanted.lock().remove(uid) {
            self.unused.lock().extend(wanted);
            self.look.notify_one();
        }
    }

    /// Takes back everything that was published for a pod.
    ///
    /// # Errors
    /// When a driver does not answer: try again later.
    pub async fn unmount_pod(&self, uid: &str) -> Result<(), CsiError> {
        let pod = self.root.pod(uid);
        for dir in data::of_pod(&pod) {
            let name = dir
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let failed = |why: String| CsiError::Unpublish(name.clone(), why);
            let target = dir.join("mount");
            let data = match Data::read(&dir) {
                Ok(data) => data,
                // Made, and never published; or taken back but for the directory.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    data::remove(&target).map_err(|error| failed(error.to_string()))?;
                    continue;
                }
                Err(error) => return Err(failed(error.to_string())),
            };
            let key = data.key();
            let _turn = self.turns.take(key.clone()).await;
            let client = self.drivers.get(&data.driver_name).map_err(|why| {
                failed(format!(
                    "kubernetes.io/csi: Unmounter.TearDownAt failed to get CSI client: {why}"
                ))
            })?;
            let request = NodeUnpublishVolumeRequest {
                volume_id: data.volume_handle.clone(),
                target_path: target.to_string_lossy().into_owned(),
            };
            let unpublished = client.unpublish(request).await;
            unpublished.map_err(|error| {
                failed(format!(
                    "kubernetes.io/csi: Unmounter.TearDownAt failed: {error}"
                ))
            })?;
            data::remove(&target).map_err(|error| failed(error.to_string()))?;
            self.published
                .lock()
                .remove(&(uid.to_owned(), name.clone()));
            if !data.is_ephemeral() {
                self.unused.lock().insert(Staged { key, device: None });
                self.look.notify_one();
            }
        }
        Ok(())
    }

    /// The pods that have a volume, or will soon.
    fn users(&self, key: &Key) -> impl Iterator<Item = String> + use<> {
        let key = key.clone();
        let all = data::used(&self.root.pods());
        all.filter(move |(_, data)| !data.is_ephemeral() && data.key() == key)
            .map(|(uid, _)| uid)
    }

    fn is_used(&self, driver: &str, handle: &str) -> bool {
        let key = (driver.to_owned(), handle.to_owned());
        self.users(&key).next().is_some()
    }

    /// Unstages what no pod uses any more; retries what fails.
    async fn unstage_unused(self: Arc<Self>, stop: CancellationToken) {
        let mut pauses: HashMap<Staged, Duration> = HashMap::new();
        loop {
            let all: Vec<Staged> = self.unused.lock().iter().cloned().collect();
            for staged in all {
                let turn = self.turns.take(staged.key.clone()).await;
                let (driver, handle) = &staged.key;
                let unstaged = match &staged.device {
                    Some(name) => self.unstage_device(&staged.key, name).await,
                    None => self.unstage(driver, handle).await,
                };
                drop(turn);
                match unstaged {
                    Ok(()) => {
                        self.unused.lock().remove(&staged);
                        pauses.remove(&staged);
                    }
                    Err(why) => {
                        let error = CsiError::Unstage(handle.clone(), why);
                        let pause = pauses.entry(staged).or_insert(FIRST_PAUSE / 2);
                        *pause = (*pause * 2).min(MAX_PAUSE);
                        warn!(%error, "will try again");
                    }
                }
            }
            let pause = pauses.values().min().copied().unwrap_or(Duration::MAX);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn unstage(&self, driver: &str, handle: &str) -> Result<(), String> {
        if self.is_used(driver, handle) {
            return Ok(());
        }
        let staging = staging_path(self.root.path(), driver, handle);
        let dir = staging.parent().unwrap_or(&staging);
        if Data::read(dir).is_ok() {
            let client = self.drivers.get(driver)?;
            let can = client
                .capabilities()
                .await
                .map_err(|error| error.to_string())?;
            if can.has(Capability::StageUnstageVolume) {
                let request = NodeUnstageVolumeRequest {
                    volume_id: handle.to_owned(),
                    staging_target_path: staging.to_string_lossy().into_owned(),
                };
                client
                    .unstage(request)
                    .await
                    .map_err(|error| error.to_string())?;
            }
        }
        data::remove(&staging).map_err(|error| error.to_string())?;
        info!(driver, handle, "a volume is not in use here any more");
        self.in_use.remove(&unique_name(driver, handle));
        Ok(())
    }

    /// How much room there is in a pod's volume; `None` where its driver does not tell.
    pub async fn usage(&self, uid: &str, dir_name: &str) -> Option<Usage> {
        let dir = data::dir_of(&self.root.pod(uid), dir_name);
        let data = Data::read(&dir).ok()?;
        let client = self.drivers.get(&data.driver_name).ok()?;
        let can = client.capabilities().await.ok()?;
        if !can.has(Capability::GetVolumeStats) {
            return None;
        }
        let request = NodeGetVolumeStatsRequest {
            volume_id: data.volume_handle,
            volume_path: dir.join("mount").to_string_lossy().into_owned(),
            staging_target_path: String::new(),
        };
        client.stats(request).await.ok()
    }
}

/// What the claim says once its volume's file system has grown. Pure.
fn grown(claim: &PersistentVolumeClaim, resize: &Resize) -> serde_json::Value {
    const OVER: [&str; 4] = [
        "FileSystemResizePending",
        "Resizing",
        "ControllerResizeError",
        "NodeResizeError",
    ];
    let status = claim.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref());
    let left: Vec<_> = conditions
        .unwrap_or_default()
        .iter()
        .filter(|condition| !OVER.contains(&condition.type_.as_str()))
        .collect();
    let left = if left.is_empty() {
        json!(null)
    } else {
        json!(left)
    };
    json!({"status": {
        "capacity": {"storage": resize.to},
        "conditions": left,
        "allocatedResourceStatuses": {"storage": null},
    }})
}

fn make_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o750))
}

async fn give_to_group(pod: &Pod, target: &Path, group: i64) -> io::Result<()> {
    let Ok(group) = u32::try_from(group) else {
        return Err(io::Error::other("no such group"));
    };
    let context = pod.pod_spec().security_context.as_ref();
    let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
    let (target, lazy) = (target.to_owned(), policy == Some("OnRootMismatch"));
    let given = tokio::task::spawn_blocking(move || {
        if lazy && ownership::is_groups(&target, group, false) {
            return Ok(());
        }
        ownership::set_group(&target, group, false)
    });
    given
        .await
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

#[cfg(test)]
mod tests;
