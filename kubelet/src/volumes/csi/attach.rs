//! Whether a volume is attached to the node, which a controller does; and what the node says of
//! those it uses, so that none is taken from under it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use client::{Api, Client};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::data;
use super::mount::block;
use super::volume::{CsiVolume, attachment_name, unique_name};
use crate::node_status::facts::NodeFacts;

/// Between two looks, and how long to look before that is an error.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(123);

/// The volumes that the node's status names as in use.
pub struct InUse {
    names: Mutex<BTreeSet<String>>,
    facts: Arc<NodeFacts>,
    changed: Arc<Notify>,
}

impl InUse {
    /// With those that the kubelet before has left, below its root directory. `changed` is woken
    /// when the status is to be shown.
    pub fn new(root: &Path, facts: Arc<NodeFacts>, changed: Arc<Notify>) -> Self {
        let published = data::used(&root.join("pods")).map(|(_, data)| data);
        let published = published.filter(|data| !data.is_ephemeral());
        let devices = block::known(root).map(|(_, data)| data);
        let all = published.chain(data::staged(root)).chain(devices);
        let names = all.map(|data| unique_name(&data.driver_name, &data.volume_handle));
        let in_use = Self {
            names: Mutex::new(names.collect()),
            facts,
            changed,
        };
        in_use.tell(&in_use.names.lock());
        in_use
    }

    fn tell(&self, names: &BTreeSet<String>) {
        let names: Vec<String> = names.iter().cloned().collect();
        self.facts
            .update(|facts| facts.volumes_in_use.clone_from(&names));
        self.changed.notify_one();
    }

    pub fn add(&self, name: &str) {
        let mut names = self.names.lock();
        if names.insert(name.to_owned()) {
            self.tell(&names);
        }
    }

    pub fn remove(&self, name: &str) {
        let mut names = self.names.lock();
        if names.remove(name) {
            self.tell(&names);
        }
    }

    /// Says that the volume is in use, and waits until it is attached to the node.
    ///
    /// # Errors
    /// When that takes long.
    pub async fn wait_attached(&self, name: &str) -> Result<(), String> {
        self.add(name);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let node: Option<Arc<Node>> = self.facts.get().node.clone();
            let status = node.as_ref().and_then(|node| node.status.as_ref());
            let Some(why) = lacking(status, name) else {
                return Ok(());
            };
            if tokio::time::Instant::now() > deadline {
                return Err(why.into());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// What the node's status lacks for the volume to be used. Pure.
fn lacking(status: Option<&NodeStatus>, name: &str) -> Option<&'static str> {
    let used = status.and_then(|status| status.volumes_in_use.as_deref());
    if !used.unwrap_or_default().iter().any(|used| used == name) {
        return Some(
            "Volume has not been added to the list of VolumesInUse in the node's volume status",
        );
    }
    let attached = status.and_then(|status| status.volumes_attached.as_deref());
    let attached = attached.unwrap_or_default();
    if !attached.iter().any(|volume| volume.name == name) {
        return Some("Volume not attached according to node status");
    }
    None
}

/// What the attacher has said of it, once it is attached. Pure.
fn attached(
    attachment: &VolumeAttachment,
    handle: &str,
) -> Result<BTreeMap<String, String>, String> {
    if attachment.metadata.deletion_timestamp.is_some() {
        return Err("volume attachment is being deleted".into());
    }
    let name = attachment.metadata.name.as_deref().unwrap_or_default();
    let status = attachment.status.clone().unwrap_or_default();
    if status.attached {
        return Ok(status.attachment_metadata.unwrap_or_default());
    }
    let error = status.attach_error.and_then(|error| error.message);
    Err(error
        .unwrap_or_else(|| format!("volume {handle} is not attached for volume attachment {name}")))
}

/// Waits until the volume is known to be in use and attached, and returns what its attacher said.
///
/// # Errors
/// When that takes long.
pub async fn wait(
    in_use: &InUse,
    api: &Client,
    volume: &CsiVolume,
    node_name: &str,
) -> Result<BTreeMap<String, String>, String> {
    let name = unique_name(&volume.driver, &volume.handle);
    in_use.wait_attached(&name).await?;
    let attachment = attachment_name(&volume.handle, &volume.driver, node_name);
    let found = Api::<VolumeAttachment>::all(api).get(&attachment).await;
    let found = found.map_err(|error| {
        let handle = &volume.handle;
        format!("volume {handle} has GET error for volume attachment {attachment}: {error}")
    })?;
    attached(&found, &volume.handle)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_lacking() {
        let of = |status: serde_json::Value| {
            let status: NodeStatus = serde_json::from_value(status).unwrap();
            lacking(Some(&status), "v").unwrap_or("nothing")
        };
        assert!(of(json!({})).contains("VolumesInUse"));
        assert!(of(json!({"volumesInUse": ["v"]})).contains("not attached"));
        let both =
            json!({"volumesInUse": ["v"], "volumesAttached": [{"name": "v", "devicePath": ""}]});
        assert_eq!(of(both), "nothing");
    }

    #[test]
    fn attachments() {
        let of = |status: serde_json::Value| {
            let attachment: VolumeAttachment = serde_json::from_value(json!({
                "metadata": {"name": "a"}, "spec": {"attacher": "d", "nodeName": "n", "source": {}}, "status": status}))
            .unwrap();
            attached(&attachment, "h")
        };
        let said = of(json!({"attached": true, "attachmentMetadata": {"lun": "1"}})).unwrap();
        assert_eq!(said["lun"], "1");
        assert_eq!(
            of(json!({"attached": false})).unwrap_err(),
            "volume h is not attached for volume attachment a"
        );
        let failed = json!({"attached": false, "attachError": {"message": "no room"}});
        assert_eq!(of(failed).unwrap_err(), "no room");
    }
}
