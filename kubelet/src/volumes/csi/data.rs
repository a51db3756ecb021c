//! `vol_data.json`: beside a mount point, what it takes to undo it. The files are upstream's; with
//! them a kubelet that starts anew needs no object of the API to take a volume down.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::volume::{CsiVolume, Lifecycle, attachment_name};
use crate::pods::dirs::PodDir;
use crate::sys::mount;

const FILE: &str = "vol_data.json";
pub const PLUGIN: &str = "csi";

/// What a file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Data {
    #[serde(rename = "attachmentID", skip_serializing_if = "String::is_empty")]
    pub attachment_id: String,
    pub driver_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    #[serde(rename = "specVolID", skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub volume_handle: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume_lifecycle_mode: String,
}

impl Data {
    /// Of a volume published for a pod.
    pub fn published(volume: &CsiVolume, node: &str) -> Self {
        Self {
            attachment_id: attachment_name(&volume.handle, &volume.driver, node),
            driver_name: volume.driver.clone(),
            node_name: node.to_owned(),
            name: volume.name.clone(),
            volume_handle: volume.handle.clone(),
            volume_lifecycle_mode: volume.lifecycle.as_str().into(),
        }
    }

    /// Of a volume staged for the node.
    pub fn staged(volume: &CsiVolume) -> Self {
        Self {
            driver_name: volume.driver.clone(),
            volume_handle: volume.handle.clone(),
            ..Self::default()
        }
    }

    pub fn is_ephemeral(&self) -> bool {
        self.volume_lifecycle_mode == Lifecycle::Ephemeral.as_str()
    }

    /// Driver and handle.
    pub fn key(&self) -> (String, String) {
        (self.driver_name.clone(), self.volume_handle.clone())
    }

    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn read(dir: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(dir.join(FILE))?)?)
    }

    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        // Upstream's encoder sorts the keys and ends the line.
        let sorted: BTreeMap<String, String> = serde_json::from_value(serde_json::to_value(self)?)?;
        let text = format!("{}\n", serde_json::to_string(&sorted)?);
        let new = dir.join(".vol_data.new");
        fs::write(&new, text)?;
        fs::rename(new, dir.join(FILE))
    }
}

/// Where a pod's volume of this name lies: the mount point is `mount` below it.
pub fn dir_of(pod: &PodDir, dir_name: &str) -> PathBuf {
    pod.volume(PLUGIN, dir_name)
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// A pod's volumes of drivers, as its directory has them.
pub fn of_pod(pod: &PodDir) -> Vec<PathBuf> {
    entries(&dir_of(pod, ""))
        .filter(|path| path.is_dir())
        .collect()
}

/// All volumes that pods have, by the pods' uids, below the directory of all pods.
pub fn used(pods: &Path) -> impl Iterator<Item = (String, Data)> + use<> {
    entries(pods).flat_map(|pod| {
        let uid = pod.file_name().unwrap_or_default().to_string_lossy();
        let uid = uid.into_owned();
        let dirs = entries(&pod.join("volumes/kubernetes.io~csi"));
        dirs.filter_map(move |dir| Some((uid.clone(), Data::read(&dir).ok()?)))
    })
}

/// All volumes that are staged, below the kubelet's root directory.
pub fn staged(root: &Path) -> impl Iterator<Item = Data> + use<> {
    let drivers = entries(&root.join("plugins/kubernetes.io/csi"));
    let volumes = drivers.flat_map(|driver| entries(&driver));
    volumes.filter_map(|dir| Data::read(&dir).ok())
}

/// Removes a mount point that nothing is mounted at any more, the file beside it, and their
/// directory.
///
/// # Errors
/// When something is mounted, or lies there that is not ours.
pub fn remove(mount_point: &Path) -> io::Result<()> {
    if mount::is_mount_point(mount_point) {
        return Err(io::Error::other(format!(
            "{} is still mounted",
            mount_point.display()
        )));
    }
    let missing_is_fine = |done: io::Result<()>| match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    missing_is_fine(fs::remove_dir(mount_point))?;
    let Some(dir) = mount_point.parent() else {
        return Ok(());
    };
    missing_is_fine(fs::remove_file(dir.join(FILE)))?;
    missing_is_fine(fs::remove_dir(dir))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::dirs::Root;

    #[test]
    fn files_are_upstreams() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let data = Data {
            attachment_id: "csi-1".into(),
            driver_name: "d".into(),
            node_name: "n".into(),
            name: "pv".into(),
            volume_handle: "h".into(),
            volume_lifecycle_mode: "Persistent".into(),
        };
        let own = dir_of(&root.pod("u"), "pv");
        fs::create_dir_all(own.join("mount")).unwrap();
        data.write(&own).unwrap();
        assert_eq!(
            fs::read_to_string(own.join(FILE)).unwrap(),
            "{\"attachmentID\":\"csi-1\",\"driverName\":\"d\",\"nodeName\":\"n\",\"specVolID\":\"pv\",\"volumeHandle\":\"h\",\"volumeLifecycleMode\":\"Persistent\"}\n"
        );
        assert_eq!(of_pod(&root.pod("u")), std::slice::from_ref(&own));
        assert_eq!(
            used(&root.pods()).collect::<Vec<_>>(),
            [("u".to_owned(), data)]
        );
        remove(&own.join("mount")).unwrap();
        assert!(!own.exists());
        remove(&own.join("mount")).unwrap();

        let global = super::super::volume::staging_path(root.path(), "d", "h");
        fs::create_dir_all(&global).unwrap();
        let data = Data {
            driver_name: "d".into(),
            volume_handle: "h".into(),
            ..Data::default()
        };
        data.write(global.parent().unwrap()).unwrap();
        assert_eq!(staged(root.path()).collect::<Vec<_>>(), [data]);
        // What a driver has left in it is not deleted.
        fs::write(global.join("file"), "").unwrap();
        assert!(remove(&global).is_err());
    }
}
