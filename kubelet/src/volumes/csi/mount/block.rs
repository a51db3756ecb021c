//! Volumes that pods want as devices (`volumeMode: Block`). The driver puts the device at a path of
//! the kubelet's; the pod's directory has a link to it, which is also what says that the pod has
//! the volume: it is there before the driver is asked, and goes after the driver has let go.
//!
//! The layout is upstream's.

use super::*;

/// The directory of all devices, below the kubelet's root directory.
const DEVICES: &str = "plugins/kubernetes.io/csi/volumeDevices";

/// Where the parts of one volume lie.
struct Paths {
    /// Where the driver stages it.
    staging: PathBuf,
    /// Where the driver puts the device for the pod.
    publish: PathBuf,
    /// The device once more, held by the kubelet.
    map: PathBuf,
    /// What there is to know of it.
    data: PathBuf,
    /// Of the pod's.
    link: PathBuf,
}

impl Paths {
    fn new(root: &Root, uid: &str, dir_name: &str) -> Self {
        let devices = root.path().join(DEVICES);
        let own = devices.join(dir_name);
        Self {
            staging: devices.join("staging").join(dir_name),
            publish: devices.join("publish").join(dir_name).join(uid),
            map: own.join("dev").join(uid),
            data: own.join("data"),
            link: root.pod(uid).devices(data::PLUGIN).join(dir_name),
        }
    }
}

/// Names and data of the volumes that are known to be in use as devices.
pub fn known(root: &Path) -> impl Iterator<Item = (String, Data)> + use<> {
    let entries = fs::read_dir(root.join(DEVICES))
        .into_iter()
        .flatten()
        .flatten();
    entries.filter_map(|entry| {
        let data = Data::read(&entry.path().join("data")).ok()?;
        Some((entry.file_name().into_string().ok()?, data))
    })
}

/// The pods that have a volume as a device.
fn users(root: &Root, dir_name: &str) -> Vec<String> {
    let pods = fs::read_dir(root.pods()).into_iter().flatten().flatten();
    let names = pods.filter_map(|pod| pod.file_name().into_string().ok());
    let uses = |uid: &String| {
        Paths::new(root, uid, dir_name)
            .link
            .symlink_metadata()
            .is_ok()
    };
    names.filter(uses).collect()
}

fn missing_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

/// The device at a second place, so that it stays where it is while a pod has it.
fn hold(device: &Path, at: &Path) -> io::Result<()> {
    if mount::is_mount_point(at) {
        return Ok(());
    }
    make_dir(at.parent().unwrap_or(at))?;
    fs::File::create(at)?;
    mount::bind(device, at)
}

impl Csi {
    /// The path of a pod's device, ready to be used.
    ///
    /// # Errors
    /// When it cannot be had yet.
    pub async fn map(&self, pod: &Pod, volume: &CsiVolume) -> Result<PathBuf, CsiError> {
        let failed = |why: String| CsiError::Map(volume.name.clone(), why);
        let text = |error: &dyn std::fmt::Display| failed(error.to_string());
        let paths = Paths::new(&self.root, pod.uid(), &volume.dir_name());
        let entry = (pod.uid().to_owned(), volume.dir_name());
        let known = self.published.lock().contains(&entry);
        if known && volume.resize.is_none() {
            return Ok(paths.link);
        }
        let kind = self.kind(&volume.driver).await.map_err(failed)?;
        let client = match self.drivers.get(&volume.driver) {
            Ok(client) => client,
            Err(_) if mount::is_mount_point(&paths.map) => return Ok(paths.link),
            Err(why) => return Err(failed(why)),
        };
        self.want(pod, volume);
        let mut publish_context = BTreeMap::new();
        if attaches(kind.as_deref()) {
            publish_context = self.attached(volume).await?;
        }
        let _turn = self.turns.take(volume.key()).await;
        let others = users(&self.root, &volume.dir_name());
        if volume.is_one_pods() && others.iter().any(|uid| uid != pod.uid()) {
            return Err(failed(ELSEWHERE.into()));
        }
        let can = client.capabilities().await.map_err(|error| text(&error))?;
        let finer = can.has(Capability::SingleNodeMultiWriter);
        let mut staged = String::new();
        make_dir(&paths.data).map_err(|error| text(&error))?;
        let data = Data {
            volume_lifecycle_mode: String::new(),
            ..Data::published(volume, &self.node)
        };
        data.write(&paths.data).map_err(|error| text(&error))?;
        if can.has(Capability::StageUnstageVolume) {
            staged = paths.staging.to_string_lossy().into_owned();
            if !known {
                make_dir(&paths.staging).map_err(|error| text(&error))?;
                let secrets = self
                    .secret(volume.stage_secret.as_ref())
                    .await
                    .map_err(failed)?;
                let request = NodeStageVolumeRequest {
                    volume_id: volume.handle.clone(),
                    publish_context: publish_context.clone(),
                    staging_target_path: staged.clone(),
                    volume_capability: Some(volume.capability(finer, None)),
                    secrets,
                    volume_context: volume.attributes.clone(),
                };
                client.stage(request).await.map_err(|error| text(&error))?;
            }
        }
        if !known {
            make_dir(paths.publish.parent().unwrap_or(&paths.publish))
                .and_then(|()| make_dir(paths.link.parent().unwrap_or(&paths.link)))
                .map_err(|error| text(&error))?;
            if paths.link.symlink_metadata().is_err() {
                std::os::unix::fs::symlink(&paths.publish, &paths.link)
                    .map_err(|error| text(&error))?;
            }
            let secrets = self
                .secret(volume.publish_secret.as_ref())
                .await
                .map_err(failed)?;
            let mut volume_context = volume.attributes.clone();
            if kind.is_some_and(|kind| kind.spec.pod_info_on_mount == Some(true)) {
                volume_context.extend(volume.pod_info(pod));
            }
            let request = NodePublishVolumeRequest {
                volume_id: volume.handle.clone(),
                publish_context,
                staging_target_path: staged.clone(),
                target_path: paths.publish.to_string_lossy().into_owned(),
                volume_capability: Some(volume.capability(finer, None)),
                readonly: volume.read_only,
                secrets,
                volume_context,
            };
            client
                .publish(request)
                .await
                .map_err(|error| text(&error))?;
            hold(&paths.publish, &paths.map).map_err(|error| text(&error))?;
        }
        self.expand(pod, &client, &can, volume, &paths.publish, &staged)
            .await?;
        self.published.lock().insert(entry);
        Ok(paths.link)
    }

    /// Takes back every device that a pod has.
    ///
    /// # Errors
    /// When a driver does not answer: try again later.
    pub async fn unmap_pod(&self, uid: &str) -> Result<(), CsiError> {
        let links = self.root.pod(uid).devices(data::PLUGIN);
        let links = fs::read_dir(links).into_iter().flatten().flatten();
        for name in links.filter_map(|link| link.file_name().into_string().ok()) {
            let failed = |why: String| CsiError::Unmap(name.clone(), why);
            let text = |error: &dyn std::fmt::Display| failed(error.to_string());
            let paths = Paths::new(&self.root, uid, &name);
            let data = Data::read(&paths.data).map_err(|error| text(&error))?;
            let _turn = self.turns.take(data.key()).await;
            let client = self.drivers.get(&data.driver_name).map_err(failed)?;
            mount::unmount(&paths.map)
                .and_then(|()| missing_is_fine(fs::remove_file(&paths.map)))
                .map_err(|error| text(&error))?;
            let request = NodeUnpublishVolumeRequest {
                volume_id: data.volume_handle.clone(),
                target_path: paths.publish.to_string_lossy().into_owned(),
            };
            client
                .unpublish(request)
                .await
                .map_err(|error| text(&error))?;
            missing_is_fine(fs::remove_file(&paths.publish))
                .and_then(|()| missing_is_fine(fs::remove_file(&paths.link)))
                .map_err(|error| text(&error))?;
            self.published
                .lock()
                .remove(&(uid.to_owned(), name.clone()));
            self.unused.lock().insert(Staged {
                key: data.key(),
                device: Some(name),
            });
            self.look.notify_one();
        }
        Ok(())
    }

    /// Unstages a device that no pod has any more.
    pub(super) async fn unstage_device(&self, key: &Key, name: &str) -> Result<(), String> {
        if !users(&self.root, name).is_empty() {
            return Ok(());
        }
        let text = |error: io::Error| error.to_string();
        let paths = Paths::new(&self.root, "", name);
        if paths.staging.exists() {
            let client = self.drivers.get(&key.0)?;
            let can = client
                .capabilities()
                .await
                .map_err(|error| error.to_string())?;
            if can.has(Capability::StageUnstageVolume) {
                let request = NodeUnstageVolumeRequest {
                    volume_id: key.1.clone(),
                    staging_target_path: paths.staging.to_string_lossy().into_owned(),
                };
                client
                    .unstage(request)
                    .await
                    .map_err(|error| error.to_string())?;
            }
        }
        // What a driver has left there is not ours to delete.
        for dir in [&paths.publish, &paths.staging, &paths.map] {
            missing_is_fine(fs::remove_dir(dir)).map_err(text)?;
        }
        missing_is_fine(fs::remove_dir_all(&paths.data)).map_err(text)?;
        missing_is_fine(fs::remove_dir(paths.data.parent().unwrap_or(&paths.data)))
            .map_err(text)?;
        info!(
            driver = key.0,
            handle = key.1,
            "a device is not in use here any more"
        );
        self.in_use.remove(&unique_name(&key.0, &key.1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_say_who_has_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let paths = Paths::new(&root, "u", "pv");
        for (path, below) in [
            (&paths.staging, "staging/pv"),
            (&paths.publish, "publish/pv/u"),
            (&paths.map, "pv/dev/u"),
            (&paths.data, "pv/data"),
        ] {
            assert_eq!(*path, dir.path().join(DEVICES).join(below));
        }
        assert!(
            paths
                .link
                .ends_with("pods/u/volumeDevices/kubernetes.io~csi/pv")
        );
        assert!(users(&root, "pv").is_empty());
        make_dir(paths.link.parent().unwrap()).unwrap();
        // It counts before the device is there.
        std::os::unix::fs::symlink(&paths.publish, &paths.link).unwrap();
        assert_eq!(users(&root, "pv"), ["u"]);
        make_dir(&paths.data).unwrap();
        let data = Data {
            driver_name: "d".into(),
            volume_handle: "h".into(),
            ..Data::default()
        };
        data.write(&paths.data).unwrap();
        assert_eq!(
            known(dir.path()).collect::<Vec<_>>(),
            [("pv".to_owned(), data)]
        );
    }
}
