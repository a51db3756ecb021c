//! The file that says which devices containers have, `kubelet_internal_checkpoint`, in upstream's
//! format.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{checksum, dump_map};

/// Upstream's name of it, in the directory of the plugins' sockets.
pub const FILE: &str = "kubelet_internal_checkpoint";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checkpoint {
    data: Data,
    checksum: u64,
}

/// Lists that are absent are not empty ones: the checksum tells them apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Data {
    pub pod_device_entries: Option<Vec<Entry>>,
    /// Healthy devices by resource.
    pub registered_devices: Option<BTreeMap<String, Option<Vec<String>>>>,
}

/// What one container has of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    #[serde(rename = "PodUID")]
    pub pod_uid: String,
    pub container_name: String,
    pub resource_name: String,
    /// By NUMA node, those of none under -1.
    #[serde(rename = "DeviceIDs")]
    pub device_ids: Option<BTreeMap<i64, Option<Vec<String>>>>,
    /// The plugin's answer (`ContainerAllocateResponse`), base64.
    pub alloc_resp: Option<String>,
}

impl Data {
    /// # Errors
    /// When the text is not a whole checkpoint.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let checkpoint: Checkpoint =
            serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if checksum(&checkpoint.data.dump()) != checkpoint.checksum {
            return Err("checkpoint is corrupted".into());
        }
        Ok(checkpoint.data)
    }

    pub fn text(self) -> serde_json::Result<Vec<u8>> {
        let checksum = checksum(&self.dump());
        serde_json::to_vec(&Checkpoint {
            data: self,
            checksum,
        })
    }

    fn dump(&self) -> String {
        const NIL: &str = "<nil>";
        let list = |list: &Option<Vec<String>>| match list {
            None => NIL.to_owned(),
            Some(list) => format!("[{}]", list.join(" ")),
        };
        let entry = |entry: &Entry| {
            let ids = entry.device_ids.as_ref();
            let ids = ids.map(|ids| dump_map(ids, i64::to_string, list));
            let bytes = entry.alloc_resp.as_ref();
            let bytes = bytes.map(|text| {
                let bytes = BASE64.decode(text).unwrap_or_default();
                let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
                format!("[{}]", bytes.join(" "))
            });
            format!(
                "{{PodUID:(string){} ContainerName:(string){} ResourceName:(string){} \
                 DeviceIDs:(checkpoint.DevicesPerNUMA){} AllocResp:([]uint8){}}}",
                entry.pod_uid,
                entry.container_name,
                entry.resource_name,
                ids.as_deref().unwrap_or(NIL),
                bytes.as_deref().unwrap_or(NIL),
            )
        };
        let entries = self.pod_device_entries.as_ref().map(|entries| {
            let entries: Vec<String> = entries.iter().map(entry).collect();
            format!("[{}]", entries.join(" "))
        });
        let registered = self.registered_devices.as_ref();
        let registered = registered.map(|map| dump_map(map, Clone::clone, list));
        format!(
            "(checkpoint.checkpointData){{PodDeviceEntries:([]checkpoint.PodDevicesEntry){} \
             RegisteredDevices:(map[string][]string){}}}",
            entries.as_deref().unwrap_or(NIL),
            registered.as_deref().unwrap_or(NIL),
        )
    }
}
