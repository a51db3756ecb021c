//! Resources by pod and container, in a file that outlives the kubelet. Its format is that of
//! upstream's checkpoints, so that either kubelet goes on where the other stopped.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::cri::hash::fnv1a_32;
use crate::pods::pod::PodExt;

/// A record that cannot be used.
#[derive(Debug, Error)]
#[error(
    "could not restore state from checkpoint: {why}, please drain this node and delete pod resource information \
     checkpoint file {path:?} before restarting the kubelet"
)]
pub struct RecordError {
    path: PathBuf,
    why: String,
}

/// One pod's resources: the containers' by name, and its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PodResources {
    #[serde(
        rename = "ContainerResources",
        default,
        deserialize_with = "null_is_empty"
    )]
    pub containers: BTreeMap<String, ResourceRequirements>,
    #[serde(rename = "PodLevelResources", default)]
    pub pod: Option<ResourceRequirements>,
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl PodResources {
    /// What a pod asks for. Ephemeral containers have no resources of their own.
    pub fn of(pod: &Pod) -> Self {
        let containers = pod.init_containers().iter().chain(pod.containers());
        Self {
            containers: containers
                .map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default()))
                .collect(),
            pod: pod.pod_spec().resources.clone(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    /// [`Entries`] as text.
    data: String,
    checksum: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Entries {
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_is_empty"
    )]
    entries: BTreeMap<String, PodResources>,
}

/// FNV-1a over what Go's dump of a string looks like.
fn checksum(data: &str) -> u64 {
    u64::from(fnv1a_32(format!("(string){data}").as_bytes()))
}

#[derive(Default)]
struct Inner {
    pods: Entries,
    /// Checksum of what the file holds.
    written: Option<u64>,
}

/// The record, in memory and in its file.
pub struct Record {
    path: PathBuf,
    inner: Mutex<Inner>,
}

impl Record {
    /// Reads the file, if it is there.
    ///
    /// # Errors
    /// When it is there and is not a whole record.
    pub fn open(path: PathBuf) -> Result<Self, RecordError> {
        let failed = |why: String| RecordError {
            path: path.clone(),
            why,
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self {
                    path,
                    inner: Mutex::default(),
                });
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let checkpoint: Checkpoint =
            serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        if checksum(&checkpoint.data) != checkpoint.checksum {
            return Err(failed("checkpoint is corrupted".into()));
        }
        let pods = serde_json::from_str(&checkpoint.data)
            .map_err(|error| failed(format!("failed to get pod resource information: {error}")))?;
        let written = Some(checkpoint.checksum);
        Ok(Self {
            path,
            inner: Mutex::new(Inner { pods, written }),
        })
    }

    pub fn get(&self, uid: &str) -> Option<PodResources> {
        self.look(uid, PodResources::clone)
    }

    /// Looks at what is known of a pod; `None` where that is nothing.
    pub fn look<T>(&self, uid: &str, look: impl FnOnce(&PodResources) -> T) -> Option<T> {
        self.inner.lock().pods.entries.get(uid).map(look)
    }

    /// # Errors
    /// When the file cannot be written; what is in memory has changed all the same.
    pub fn set(&self, uid: &str, resources: PodResources) -> io::Result<()> {
        self.change(uid, |known| *known = resources)
    }

    /// Changes what is known of a pod, which may be nothing.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn change(&self, uid: &str, change: impl FnOnce(&mut PodResources)) -> io::Result<()> {
        let mut inner = self.inner.lock();
        change(inner.pods.entries.entry(uid.to_owned()).or_default());
        self.write(&mut inner)
    }

    /// Forgets a pod. The file learns of it with the next change: a pod too many does no harm.
    pub fn remove(&self, uid: &str) {
        self.inner.lock().pods.entries.remove(uid);
    }

    /// Forgets all but these pods, in the same way.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.inner.lock().pods.entries.retain(|uid, _| keep(uid));
    }

    /// Replaces the file as a whole: whoever is killed in between leaves the old one.
    fn write(&self, inner: &mut Inner) -> io::Result<()> {
        let data = serde_json::to_string(&inner.pods)?;
        let checksum = checksum(&data);
        if inner.written == Some(checksum) {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&Checkpoint { data, checksum })?)?;
        fs::rename(&new, &self.path)?;
        inner.written = Some(checksum);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn upstreams_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        // A file as upstream's tests have it, checksum included.
        let entries = r#"{"entries":{"pod1":{"ContainerResources":{"container1":{"requests":{"cpu":"1Ki","memory":"1Ki"}}}}}}"#;
        let file = json!({"data": entries, "checksum": 1_178_570_812});
        fs::write(&path, file.to_string()).unwrap();
        let record = Record::open(path.clone()).unwrap();
        let pod = record.get("pod1").unwrap();
        let requests = pod.containers["container1"].requests.as_ref().unwrap();
        assert_eq!(requests["cpu"].0, "1Ki");
        fs::write(&path, json!({"data": "{}", "checksum": 1}).to_string()).unwrap();
        assert!(Record::open(path).is_err());
    }

    #[test]
    fn it_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let pod: Pod = serde_json::from_value(json!({"metadata": {"uid": "u"}, "spec": {
            "resources": {"limits": {"cpu": "1"}},
            "initContainers": [{"name": "i"}],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}],
        }}))
        .unwrap();
        let record = Record::open(path.clone()).unwrap();
        record.set("u", PodResources::of(&pod)).unwrap();
        record.set("gone", PodResources::default()).unwrap();
        record.remove("gone");
        record.change("u", |pod| pod.pod = None).unwrap();
        let again = Record::open(path).unwrap();
        assert_eq!(again.get("gone"), None);
        let known = again.get("u").unwrap();
        assert_eq!(known.pod, None);
        assert_eq!(known.containers.len(), 2);
        again.retain(|uid| uid != "u");
        assert_eq!(again.get("u"), None);
    }
}
