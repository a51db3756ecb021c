//! Makes a pod's volumes, refreshes them, and takes them away. Everything is derived anew from the
//! pod and the disk, so a restarted kubelet goes on where the last one was.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use client::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, ProjectedVolumeSource, Volume};
use parking_lot::Mutex;
use thiserror::Error;

use super::claims::ClaimError;
use super::csi::{Csi, CsiError, CsiVolume};
use super::disks::{Disk, DiskError, Disks};
use super::empty_dir::{self, Medium};
use super::host_path::{self, HostPathError};
use super::objects::Objects;
use super::projection::{self, DEFAULT_MODE, File, Payload, ProjectionError, mode};
use super::stats::Told;
use super::tokens::{TokenError, Tokens};
use super::{atomic_writer, nfs, ownership};
use crate::cri::env::Missing;
use crate::cri::security::effective;
use crate::pods::dirs::{PodDir, Root};
use crate::pods::pod::{PodExt, as_container};
use crate::resources::downward::FieldContext;
use crate::resources::requests::ResourceList;
use crate::sys::host::{Host, ToolError};
use crate::sys::mount;
use crate::turns::Turns;

/// Why a pod's volumes are not there.
#[derive(Debug, Error)]
pub enum VolumeError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {source}")]
    SetUp { volume: String, source: Cause },
    #[error(
        "Unable to attach or mount volumes: unmounted volumes=[{0}], unattached volumes=[], failed to process \
         volumes=[{0}]: {1}"
    )]
    Claim(String, ClaimError),
    #[error(transparent)]
    Csi(#[from] CsiError),
    #[error(transparent)]
    Disk(#[from] DiskError),
}

#[derive(Debug, Error)]
pub enum Cause {
    #[error("{0}")]
    Object(String),
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    HostPath(#[from] HostPathError),
    #[error(transparent)]
    Write(#[from] atomic_writer::WriteError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("mount failed: {0}")]
    Tool(#[from] ToolError),
    #[error("NodeAffinity check failed: no matching NodeSelectorTerms")]
    NodeAffinity,
    #[error("volumes of this type are not supported by this kubelet: {0}")]
    Unsupported(&'static str),
}

/// A volume that containers can mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mounted {
    Path {
        path: PathBuf,
        read_only: bool,
    },
    /// A device.
    Device {
        path: PathBuf,
        read_only: bool,
    },
    /// An image, which the runtime mounts.
    Image {
        reference: String,
        pull_policy: String,
    },
}

/// A pod's volumes by name.
pub type MountedVolumes = HashMap<String, Mounted>;

/// What came of making a pod's volumes.
#[derive(Debug)]
pub struct PreparedVolumes {
    pub mounted: MountedVolumes,
    /// Why some of them show what they showed before, not what they should now.
    pub stale: Vec<VolumeError>,
}

/// What a volume is to become.
pub enum Want {
    Dir {
        path: PathBuf,
        medium: Medium,
    },
    Host {
        path: String,
        kind: String,
        read_only: bool,
    },
    /// A directory of the node, shown at a place of the pod's own.
    Local {
        from: PathBuf,
        to: PathBuf,
        read_only: bool,
    },
    Csi(Box<CsiVolume>),
    Disk(Box<Disk>),
    Export {
        export: nfs::Export,
        to: PathBuf,
    },
    Files {
        path: PathBuf,
        medium: Medium,
        /// What is to be in it, or why that cannot be told.
        payload: Result<Payload, Cause>,
    },
    Image {
        reference: String,
        pull_policy: String,
    },
}

/// The node's volumes.
pub struct Volumes {
    pub objects: Arc<Objects>,
    tokens: Arc<Tokens>,
    pub(super) root: Root,
    pub(super) api: Option<Client>,
    pub csi: Arc<Csi>,
    disks: Arc<Disks>,
    host: Host,
    /// A server that does not answer is waited for once.
    exports: Turns<PathBuf>,
    /// What pods have been provided with, by pod and volume.
    provided: Mutex<HashMap<(String, String), Mounted>>,
    pub(super) told: Told,
}

/// What volumes depend on beside the pod.
#[derive(Debug, Clone)]
pub struct VolumeContext {
    pub host_ips: Vec<String>,
    pub allocatable: ResourceList,
    /// The node's labels, which persistent volumes may ask for; `None` where no API server has it.
    pub labels: Option<BTreeMap<String, String>>,
}

impl Volumes {
    pub fn new(
        objects: Arc<Objects>,
        tokens: Arc<Tokens>,
        root: Root,
        api: Option<Client>,
        csi: Arc<Csi>,
        disks: Arc<Disks>,
    ) -> Self {
        Self {
            objects,
            tokens,
            root,
            api,
            csi,
            disks,
            host: Host::default(),
            exports: Turns::default(),
            provided: Mutex::default(),
            told: Told::default(),
        }
    }

    /// What a pod has been provided with under this name.
    pub(super) fn provided_path(&self, uid: &str, volume: &str) -> Option<Mounted> {
        let key = (uid.to_owned(), volume.to_owned());
        self.provided.lock().get(&key).cloned()
    }

    /// Makes or refreshes every volume that a container of the pod mounts. One that cannot be
    /// refreshed stays as it is: a running pod must not suffer from its sources being gone.
    ///
    /// # Errors
    /// On the first volume that cannot be had.
    pub async fn prepare(
        &self,
        pod: &Arc<Pod>,
        context: &VolumeContext,
    ) -> Result<PreparedVolumes, VolumeError> {
        let dir = self.root.pod(pod.uid());
        let mut prepared = PreparedVolumes {
            mounted: MountedVolumes::new(),
            stale: Vec::new(),
        };
        let mut wanted = Vec::new();
        for volume in used_volumes(pod) {
            let name = volume.name.clone();
            match self.provide(pod, volume, &dir, context).await {
                Some(provided) => {
                    let key = (pod.uid().to_owned(), name.clone());
                    let mounted = match provided {
                        Ok(mounted) => mounted,
                        // What the pod has it goes on to have.
                        Err(error) => match self.provided.lock().get(&key).cloned() {
                            Some(mounted) => {
                                prepared.stale.push(error);
                                mounted
                            }
                            None => return Err(error),
                        },
                    };
                    self.provided.lock().insert(key, mounted.clone());
                    prepared.mounted.insert(name, mounted);
                }
                None => {
                    let want = self.want(pod, volume, &dir, context).await;
                    let volume = name.clone();
                    let failed = |source| VolumeError::SetUp { volume, source };
                    wanted.push((name, want.map_err(failed)?));
                }
            }
        }
        let pod = pod.clone();
        // File operations may block, on a disk under load for long.
        let made = tokio::task::spawn_blocking(move || {
            for (name, want) in wanted {
                let (volume, failed) = (name.clone(), |source| VolumeError::SetUp {
                    volume: name.clone(),
                    source,
                });
                let (mounted, stale) = make(&pod, &name, want).map_err(failed)?;
                prepared.mounted.insert(volume, mounted);
                prepared.stale.extend(stale.map(failed));
            }
            Ok(prepared)
        });
        made.await.unwrap_or_else(|panic| {
            Err(VolumeError::SetUp {
                volume: String::new(),
                source: io::Error::other(panic).into(),
            })
        })
    }

    /// A volume that others provide, ready; `None` where it is none of these.
    async fn provide(
        &self,
        pod: &Arc<Pod>,
        volume: &Volume,
        dir: &PodDir,
        context: &VolumeContext,
    ) -> Option<Result<Mounted, VolumeError>> {
        let labels = context.labels.as_ref();
        let (name, want) = match self.provided(pod, volume, dir, labels).await? {
            Ok(want) => want,
            Err(error) => return Some(Err(error)),
        };
        if let Want::Csi(volume) = want {
            let read_only = volume.read_only;
            let mounted = if volume.block {
                let path = self.csi.map(pod, &volume).await;
                path.map(|path| Mounted::Device { path, read_only })
            } else {
                let path = self.csi.mount(pod, &volume).await;
                path.map(|path| Mounted::Path { path, read_only })
            };
            return Some(mounted.map_err(VolumeError::from));
        }
        if let Want::Disk(disk) = want {
            let read_only = disk.read_only;
            let mounted = if disk.block {
                let path = self.disks.map(pod, &disk).await;
                path.map(|path| Mounted::Device { path, read_only })
            } else {
                let path = self.disks.mount(pod, &disk).await;
                path.map(|path| Mounted::Path { path, read_only })
            };
            return Some(mounted.map_err(VolumeError::from));
        }
        if let Want::Export { export, to } = want {
            let mounted = self.mount_export(export, to).await;
            return Some(mounted.map_err(|source| VolumeError::SetUp {
                volume: name,
                source,
            }));
        }
        let (pod, volume) = (pod.clone(), volume.name.clone());
        let made = tokio::task::spawn_blocking(move || make(&pod, &volume, want)).await;
        let made = made.unwrap_or_else(|panic| Err(io::Error::other(panic).into()));
        Some(
            made.map(|(mounted, _)| mounted)
                .map_err(|source| VolumeError::SetUp {
                    volume: name,
                    source,
                }),
        )
    }

    async fn mount_export(&self, export: nfs::Export, to: PathBuf) -> Result<Mounted, Cause> {
        let turn = self.exports.take(to.clone()).await;
        let (host, path, read_only) = (self.host.clone(), to.clone(), export.read_only);
        let mounted = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            make_parents(&to)?;
            export.mount(&host, &to)
        });
        mounted
            .await
            .unwrap_or_else(|panic| Err(io::Error::other(panic).into()))?;
        Ok(Mounted::Path { path, read_only })
    }

    async fn want(
        &self,
        pod: &Pod,
        volume: &Volume,
        dir: &PodDir,
        context: &VolumeContext,
    ) -> Result<Want, Cause> {
        let path = |plugin| dir.volume(plugin, &volume.name);
        let fields = FieldContext {
            pod_ips: &[],
            host_ips: &context.host_ips,
            allocatable: Some(&context.allocatable),
        };
        if let Some(source) = &volume.empty_dir {
            let allocatable = context
                .allocatable
                .get("memory")
                .map_or(0, crate::resources::requests::value);
            let medium = match source.medium.as_deref().unwrap_or_default() {
                "" => Medium::Disk,
                "Memory" => Medium::Memory {
                    size: empty_dir::memory_size(pod, source, allocatable),
                },
                _ => return Err(Cause::Unsupported("emptyDir on huge pages")),
            };
            return Ok(Want::Dir {
                path: path("empty-dir"),
                medium,
            });
        }
        if let Some(source) = &volume.host_path {
            return Ok(Want::Host {
                path: source.path.clone(),
                kind: source.type_.clone().unwrap_or_default(),
                read_only: false,
            });
        }
        if let Some(source) = &volume.config_map {
            let optional = source.optional.unwrap_or_default();
            let data = self.config_map_data(pod, &source.name, optional).await;
            let items = source.items.as_deref().unwrap_or_default();
            let mode = mode(source.default_mode, DEFAULT_MODE);
            return Ok(Want::Files {
                path: path("configmap"),
                medium: Medium::Disk,
                payload: data
                    .and_then(|data| Ok(projection::config_map(&data, items, mode, optional)?)),
            });
        }
        if let Some(source) = &volume.secret {
            let optional = source.optional.unwrap_or_default();
            let name = source.secret_name.as_deref().unwrap_or_default();
            let data = self.secret_data(pod, name, optional).await;
            let items = source.items.as_deref().unwrap_or_default();
            let mode = mode(source.default_mode, DEFAULT_MODE);
            return Ok(Want::Files {
                path: path("secret"),
                medium: Medium::Memory { size: None },
                payload: data
                    .and_then(|data| Ok(projection::secret(&data, items, mode, optional)?)),
            });
        }
        if let Some(source) = &volume.downward_api {
            let items = source.items.as_deref().unwrap_or_default();
            let mode = mode(source.default_mode, DEFAULT_MODE);
            let payload = projection::downward_api(items, pod, &fields, mode);
            return Ok(Want::Files {
                path: path("downward-api"),
                medium: Medium::Memory { size: None },
                payload: payload.map_err(Cause::from),
            });
        }
        if let Some(source) = &volume.projected {
            return Ok(Want::Files {
                path: path("projected"),
                medium: Medium::Memory { size: None },
                payload: self.projected(pod, source, &fields).await,
            });
        }
        if let Some(source) = &volume.image {
            let reference = source.reference.clone().unwrap_or_default();
            let latest = reference.ends_with(":latest")
                || !reference
                    .rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .contains([':', '@']);
            let default = if latest { "Always" } else { "IfNotPresent" };
            let pull_policy = source.pull_policy.clone().unwrap_or_else(|| default.into());
            return Ok(Want::Image {
                reference,
                pull_policy,
            });
        }
        Err(Cause::Unsupported("one of a plugin that is no more"))
    }

    async fn projected(
        &self,
        pod: &Pod,
        source: &ProjectedVolumeSource,
        fields: &FieldContext<'_>,
    ) -> Result<Payload, Cause> {
        let default_mode = mode(source.default_mode, DEFAULT_MODE);
        let mut payload = Payload::new();
        for source in source.sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                let optional = source.optional.unwrap_or_default();
                let data = self.config_map_data(pod, &source.name, optional).await?;
                let items = source.items.as_deref().unwrap_or_default();
                payload.extend(projection::config_map(
                    &data,
                    items,
                    default_mode,
                    optional,
                )?);
            } else if let Some(source) = &source.secret {
                let optional = source.optional.unwrap_or_default();
                let data = self.secret_data(pod, &source.name, optional).await?;
                let items = source.items.as_deref().unwrap_or_default();
                payload.extend(projection::secret(&data, items, default_mode, optional)?);
            } else if let Some(source) = &source.downward_api {
                let items = source.items.as_deref().unwrap_or_default();
                payload.extend(projection::downward_api(items, pod, fields, default_mode)?);
            } else if let Some(source) = &source.service_account_token {
                let audience = source.audience.as_deref().unwrap_or_default();
                let token = self
                    .tokens
                    .get(pod, audience, source.expiration_seconds)
                    .await?;
                let uid = only_user(pod);
                // Where a user or group is to read it, nobody else is.
                let private = uid.is_some() || fs_group(pod).is_some();
                let mode = if private { 0o600 } else { default_mode };
                payload.insert(
                    source.path.clone(),
                    File {
                        data: token.into_bytes(),
                        mode,
                        uid,
                    },
                );
            } else {
                return Err(Cause::Unsupported(
                    "projected clusterTrustBundle and podCertificate",
                ));
            }
        }
        Ok(payload)
    }

    async fn config_map_data(
        &self,
        pod: &Pod,
        name: &str,
        optional: bool,
    ) -> Result<BTreeMap<String, Vec<u8>>, Cause> {
        let map = found(
            self.objects.config_map(pod.namespace(), name).await,
            optional,
        )?;
        Ok(map.as_deref().map(config_map_bytes).unwrap_or_default())
    }

    async fn secret_data(
        &self,
        pod: &Pod,
        name: &str,
        optional: bool,
    ) -> Result<BTreeMap<String, k8s_openapi::ByteString>, Cause> {
        let secret = found(self.objects.secret(pod.namespace(), name).await, optional)?;
        Ok(secret
            .and_then(|secret| secret.data.clone())
            .unwrap_or_default())
    }

    /// Takes a pod's volumes away: mounts first, then files. Nothing that is mounted is ever
    /// deleted through its mount point.
    ///
    /// # Errors
    /// When something stays mounted or cannot be deleted: try again later.
    pub async fn tear_down(&self, uid: &str) -> io::Result<()> {
        self.tokens.forget(uid);
        self.provided.lock().retain(|(pod, _), _| pod != uid);
        self.told.forget(uid);
        let dir = self.root.pod(uid);
        let parts = dir.sub_paths();
        // What shows part of a volume goes before the volume, and a driver's is the driver's to take.
        spawn_blocking(move || unmount_below(&parts)).await?;
        let (host, exports) = (self.host.clone(), dir.volume(nfs::PLUGIN, ""));
        let unmounted =
            spawn_blocking(move || nfs::unmount_all(&host, &exports).map_err(io::Error::other));
        unmounted.await?;
        let unmounted = self.csi.unmount_pod(uid).await;
        unmounted.map_err(io::Error::other)?;
        let unmapped = self.csi.unmap_pod(uid).await;
        unmapped.map_err(io::Error::other)?;
        self.csi.release(uid);
        let (disks, pod) = (self.disks.clone(), uid.to_owned());
        spawn_blocking(move || disks.unmap_pod(&pod)).await?;
        spawn_blocking(move || tear_down(&dir)).await?;
        self.disks.release();
        Ok(())
    }

    /// Removes what is left of a pod that is gone, volumes included.
    ///
    /// # Errors
    /// As [`Volumes::tear_down`].
    pub async fn remove_pod_dir(&self, uid: &str) -> io::Result<()> {
        self.tear_down(uid).await?;
        let dir = self.root.pod(uid);
        spawn_blocking(move || ignore_missing(fs::remove_dir_all(dir.path()))).await
    }

    /// The uids of all pods that have a directory.
    pub async fn pods_on_disk(&self) -> HashSet<String> {
        let pods = self.root.pods();
        let list = spawn_blocking(move || {
            let entries = fs::read_dir(pods)?.flatten();
            Ok(entries
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect())
        });
        list.await.unwrap_or_default()
    }
}

async fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn found<T>(lookup: Result<T, Missing>, optional: bool) -> Result<Option<T>, Cause> {
    match lookup {
        Ok(object) => Ok(Some(object)),
        Err(Missing::NotFound(_)) if optional => Ok(None),
        Err(Missing::NotFound(why) | Missing::Unavailable(why)) => Err(Cause::Object(why)),
    }
}

fn config_map_bytes(map: &ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = map
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map
        .binary_data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()));
    text.chain(binary).collect()
}

pub(super) fn all_containers(pod: &Pod) -> impl Iterator<Item = Container> {
    let ephemeral = pod.ephemeral_containers().iter().map(as_container);
    pod.containers()
        .iter()
        .chain(pod.init_containers())
        .cloned()
        .chain(ephemeral)
}

/// Volumes that no container mounts are not made.
fn used_volumes(pod: &Pod) -> Vec<&Volume> {
    let used: HashSet<String> = all_containers(pod)
        .flat_map(|c| {
            let mounts = c
                .volume_mounts
                .into_iter()
                .flatten()
                .map(|mount| mount.name);
            let devices = c
                .volume_devices
                .into_iter()
                .flatten()
                .map(|device| device.name);
            mounts.chain(devices).collect::<Vec<_>>()
        })
        .collect();
    pod.pod_spec()
        .volumes
        .iter()
        .flatten()
        .filter(|volume| used.contains(&volume.name))
        .collect()
}

fn fs_group(pod: &Pod) -> Option<u32> {
    pod.pod_spec()
        .security_context
        .as_ref()?
        .fs_group?
        .try_into()
        .ok()
}

/// The user that all of the pod's containers run as, if it is one and the pod says so.
fn only_user(pod: &Pod) -> Option<u32> {
    let users: HashSet<Option<i64>> = all_containers(pod)
        .map(|c| effective(pod, &c).run_as_user)
        .collect();
    match users.into_iter().collect::<Vec<_>>()[..] {
        [Some(user)] => user.try_into().ok(),
        _ => None,
    }
}

/// Makes a volume, or refreshes it. With an error beside it, it shows what it showed before.
fn make(pod: &Pod, name: &str, want: Want) -> Result<(Mounted, Option<Cause>), Cause> {
    let mounted = match want {
        Want::Dir { path, medium } => {
            make_parents(&path)?;
            // Files of the pod's own need not be walked again each time.
            if empty_dir::set_up(&path, medium)?
                && let Some(gid) = fs_group(pod)
            {
                ownership::set_group(&path, gid, false)?;
            }
            Mounted::Path {
                path,
                read_only: false,
            }
        }
        Want::Host {
            path,
            kind,
            read_only,
        } => {
            host_path::check(&path, &kind)?;
            Mounted::Path {
                path: path.into(),
                read_only,
            }
        }
        Want::Local {
            from,
            to,
            read_only,
        } => {
            make_parents(&to)?;
            if !mount::is_mount_point(&to) {
                fs::create_dir_all(&to)?;
                mount::bind(&from, &to)?;
                if let Some(gid) = fs_group(pod).filter(|_| !read_only) {
                    ownership::set_group(&to, gid, false)?;
                }
            }
            Mounted::Path {
                path: to,
                read_only,
            }
        }
        Want::Csi(_) | Want::Disk(_) | Want::Export { .. } => {
            return Err(Cause::Unsupported("one that nobody has mounted"));
        }
        Want::Files {
            path,
            medium,
            payload,
        } => {
            let written = payload.and_then(|payload| write(pod, name, &path, medium, &payload));
            let stale = match written {
                Err(cause) if !atomic_writer::is_written(&path) => return Err(cause),
                written => written.err(),
            };
            let read_only = true;
            return Ok((Mounted::Path { path, read_only }, stale));
        }
        Want::Image {
            reference,
            pull_policy,
        } => Mounted::Image {
            reference,
            pull_policy,
        },
    };
    Ok((mounted, None))
}

fn write(
    pod: &Pod,
    name: &str,
    path: &Path,
    medium: Medium,
    payload: &Payload,
) -> Result<(), Cause> {
    make_parents(path)?;
    empty_dir::set_up(path, medium)?;
    make_nested_mount_points(pod, name, path)?;
    let stamp = Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S").to_string();
    let stamp = format!("{stamp}.{}", rand::random::<u32>());
    atomic_writer::write(path, payload, &stamp, |target| match fs_group(pod) {
        Some(gid) => ownership::set_group(target, gid, true),
        None => Ok(()),
    })?;
    Ok(())
}

/// The directories above a volume are nobody's business but the kubelet's.
fn make_parents(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    if !parent.is_dir() {
        fs::create_dir_all(parent)?;
        fs::set_permissions(parent, PermissionsExt::from_mode(0o755))?;
    }
    Ok(())
}

/// Directories for other volumes that a container mounts inside this one, which is read-only to
/// the runtime.
fn make_nested_mount_points(pod: &Pod, volume: &str, path: &Path) -> io::Result<()> {
    for container in all_containers(pod) {
        let mounts = container.volume_mounts.as_deref().unwrap_or_default();
        for outer in mounts
            .iter()
            .filter(|mount| mount.name == volume && mount.sub_path.is_none())
        {
            for inner in mounts {
                let below = Path::new(&inner.mount_path).strip_prefix(&outer.mount_path);
                if let Ok(below) = below
                    && !below.as_os_str().is_empty()
                    && !below.components().any(|part| part.as_os_str() == "..")
                    // What leads through a link of the volume itself is a file of its own.
                    && below.components().next().is_some_and(|first| path.join(first).symlink_metadata().is_err())
                {
                    fs::create_dir_all(path.join(below))?;
                }
            }
        }
    }
    Ok(())
}

fn unmount_below(path: &Path) -> io::Result<()> {
    for point in mount::below(path)? {
        mount::unmount(&point)?;
    }
    Ok(())
}

fn tear_down(dir: &PodDir) -> io::Result<()> {
    unmount_below(dir.path())?;
    if let Some(point) = mount::below(dir.path())?.first() {
        return Err(io::Error::other(format!(
            "{} is still mounted",
            point.display()
        )));
    }
    for part in [dir.volumes(), dir.sub_paths(), dir.all_devices()] {
        ignore_missing(fs::remove_dir_all(part))?;
    }
    Ok(())
}

/// Makes the pod's own directories.
///
/// # Errors
/// When one cannot be made.
pub fn make_pod_dirs(dir: &PodDir) -> io::Result<()> {
    for path in [dir.path().to_owned(), dir.volumes(), dir.plugins()] {
        if !path.is_dir() {
            fs::create_dir_all(&path)?;
            fs::set_permissions(&path, PermissionsExt::from_mode(0o750))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_mounted_is_made() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}],
            "containers": [{"name": "c", "volumeMounts": [{"name": "b", "mountPath": "/b"}]}]}}))
        .unwrap();
        assert_eq!(
            used_volumes(&pod)
                .iter()
                .map(|v| v.name.as_str())
                .collect::<Vec<_>>(),
            ["b"]
        );
    }

    #[test]
    fn one_user_or_none() {
        let of = |pod: serde_json::Value| {
            only_user(&serde_json::from_value(json!({"spec": pod})).unwrap())
        };
        let c = |user: i64| json!({"name": "c", "securityContext": {"runAsUser": user}});
        assert_eq!(of(json!({"containers": [c(5), c(5)]})), Some(5));
        assert_eq!(of(json!({"containers": [c(5), c(6)]})), None);
        assert_eq!(of(json!({"containers": [{"name": "c"}]})), None);
        assert_eq!(
            of(json!({"securityContext": {"runAsUser": 7}, "containers": [{"name": "c"}]})),
            Some(7)
        );
    }

    #[test]
    fn nested_mount_points() {
        let dir = tempfile::tempdir().unwrap();
        let pod: Pod = serde_json::from_value(
            json!({"spec": {"containers": [{"name": "c", "volumeMounts": [
            {"name": "cfg", "mountPath": "/etc/cfg"}, {"name": "x", "mountPath": "/etc/cfg/sub/x"},
            {"name": "y", "mountPath": "/etc/cfgs"}]}]}}),
        )
        .unwrap();
        make_nested_mount_points(&pod, "cfg", dir.path()).unwrap();
        assert!(dir.path().join("sub/x").is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_refreshed_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v");
        let want = |payload| Want::Files {
            path: path.clone(),
            medium: Medium::Disk,
            payload,
        };
        let gone = || Err(Cause::Object("gone".into()));
        let pod = Pod::default();
        assert!(make(&pod, "v", want(gone())).is_err(), "nothing to show");
        let file = File {
            data: b"1".to_vec(),
            mode: DEFAULT_MODE,
            uid: None,
        };
        let payload = Payload::from([("a".to_owned(), file)]);
        assert!(make(&pod, "v", want(Ok(payload))).unwrap().1.is_none());
        let (_, stale) = make(&pod, "v", want(gone())).unwrap();
        assert_eq!(stale.unwrap().to_string(), "gone");
        assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
    }

    #[test]
    fn teardown_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let dir = Root::new(root.path()).pod("u");
        make_pod_dirs(&dir).unwrap();
        fs::create_dir_all(dir.volume("empty-dir", "a")).unwrap();
        tear_down(&dir).unwrap();
        assert!(!dir.volumes().exists() && dir.path().exists());
        tear_down(&dir).unwrap();
    }
}
