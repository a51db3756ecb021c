//! What is known of the claims that pods on this node use: by whom, of which drivers, which devices
//! were prepared. Kept in a file in upstream's format, so that either kubelet goes on where the
//! other stopped: what was prepared is given up even if its pod went while no kubelet ran.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use flate2::Crc;
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

/// Upstream's name of the file below the root directory.
const FILE: &str = "dra_manager_state";

/// A file that cannot be used.
#[derive(Debug, Error)]
#[error(
    "could not restore the state of dynamic resources from {path:?}: {why}; drain the node and remove the file"
)]
pub struct CheckpointError {
    path: PathBuf,
    why: String,
}

/// One prepared device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    pub pool_name: String,
    pub device_name: String,
    #[serde(rename = "ShareID", default)]
    pub share_id: Option<String>,
    /// Requests that it is for; none: all.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub request_names: Vec<String>,
    #[serde(rename = "CDIDeviceIDs", default, deserialize_with = "null_is_empty")]
    pub cdi_device_ids: Vec<String>,
}

/// What one driver has to do with a claim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DriverState {
    #[serde(default, deserialize_with = "null_is_empty")]
    pub devices: Vec<Device>,
}

/// A member of a set, as upstream writes sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {}

/// One claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Claim {
    #[serde(rename = "ClaimUID")]
    pub uid: String,
    #[serde(rename = "ClaimName")]
    pub name: String,
    pub namespace: String,
    #[serde(rename = "PodUIDs", default, deserialize_with = "null_is_empty")]
    pub pods: BTreeMap<String, Member>,
    /// Every driver with a result in the allocation, even if it has no device for it.
    #[serde(rename = "DriverState", default, deserialize_with = "null_is_empty")]
    pub drivers: BTreeMap<String, DriverState>,
    /// Prepared since this kubelet started. Another one's word is not taken for it.
    #[serde(skip)]
    pub prepared: bool,
}

fn null_is_empty<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl Claim {
    /// `None` where nothing is allocated.
    pub fn of(claim: &ResourceClaim) -> Option<Self> {
        let allocation = claim.status.as_ref()?.allocation.as_ref()?;
        let results = allocation
            .devices
            .iter()
            .flat_map(|devices| devices.results.iter().flatten());
        Some(Self {
            uid: claim.metadata.uid.clone().unwrap_or_default(),
            name: claim.metadata.name.clone().unwrap_or_default(),
            namespace: claim.metadata.namespace.clone().unwrap_or_default(),
            pods: BTreeMap::new(),
            drivers: results
                .map(|result| (result.driver.clone(), DriverState::default()))
                .collect(),
            prepared: false,
        })
    }

    /// The devices for a request, or all of them, with their drivers.
    pub fn devices<'a>(
        &'a self,
        request: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a str, &'a Device)> {
        let fits = move |device: &Device| match request {
            None => true,
            Some(request) => {
                // A choice of a request that offers several is known by the request.
                let base = request.split('/').next().unwrap_or(request);
                device.request_names.is_empty()
                    || device
                        .request_names
                        .iter()
                        .any(|r| r == request || r == base)
            }
        };
        self.drivers.iter().flat_map(move |(driver, state)| {
            let own = state.devices.iter().filter(move |device| fits(device));
            own.map(move |device| (driver.as_str(), device))
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Checkpoint {
    /// [`State`] as text.
    data: String,
    checksum: u32,
}

#[derive(Serialize, Deserialize)]
struct State {
    #[serde(default)]
    kind: String,
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(
        rename = "ClaimInfoStateList",
        default,
        deserialize_with = "null_is_empty"
    )]
    claims: Vec<Claim>,
}

fn checksum(data: &str) -> u32 {
    let mut crc = Crc::new();
    crc.update(data.as_bytes());
    crc.sum()
}

type Key = (String, String);

/// All claims, by namespace and name.
#[derive(Debug)]
pub struct Claims {
    path: PathBuf,
    claims: BTreeMap<Key, Claim>,
}

impl Claims {
    /// Reads the file, if it is there.
    ///
    /// # Errors
    /// When it is there and is not whole.
    pub fn open(root: &Path) -> Result<Self, CheckpointError> {
        let path = root.join(FILE);
        let failed = |why: String| CheckpointError {
            path: path.clone(),
            why,
        };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let claims = BTreeMap::new();
                return Ok(Self { path, claims });
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let checkpoint: Checkpoint =
            serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))?;
        if checksum(&checkpoint.data) != checkpoint.checksum {
            return Err(failed("checkpoint is corrupted".into()));
        }
        let state: State =
            serde_json::from_str(&checkpoint.data).map_err(|error| failed(error.to_string()))?;
        let claims = state.claims.into_iter();
        let claims = claims.map(|claim| ((claim.namespace.clone(), claim.name.clone()), claim));
        Ok(Self {
            claims: claims.collect(),
            path,
        })
    }

    /// Writes the file as a whole.
    ///
    /// # Errors
    /// When that fails; what is in memory holds all the same.
    pub fn write(&self) -> io::Result<()> {
        let data = serde_json::to_string(&State {
            kind: "DRACheckpoint".into(),
            api_version: "checkpoint.dra.kubelet.k8s.io/v1".into(),
            claims: self.claims.values().cloned().collect(),
        })?;
        let checksum = checksum(&data);
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&Checkpoint { data, checksum })?)?;
        fs::rename(new, &self.path)
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub fn get_mut(&mut self, namespace: &str, name: &str) -> Option<&mut Claim> {
        self.claims
            .get_mut(&(namespace.to_owned(), name.to_owned()))
    }

    /// The claim as it is known, or as it is given.
    pub fn get_or_insert(&mut self, claim: Claim) -> &mut Claim {
        let key = (claim.namespace.clone(), claim.name.clone());
        self.claims.entry(key).or_insert(claim)
    }

    pub fn remove(&mut self, namespace: &str, name: &str) {
        self.claims.remove(&(namespace.to_owned(), name.to_owned()));
    }

    pub fn iter(&self) -> impl Iterator<Item = &Claim> {
        self.claims.values()
    }

    /// How many prepared claims each driver has, and all of them together have.
    pub fn in_use(&self) -> (BTreeMap<&str, i64>, i64) {
        let (mut drivers, mut all) = (BTreeMap::new(), 0);
        for claim in self.claims.values().filter(|claim| claim.prepared) {
            all += 1;
            for driver in claim.drivers.keys() {
                *drivers.entry(driver.as_str()).or_default() += 1;
            }
        }
        (drivers, all)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_upstreams_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut claims = Claims::open(dir.path()).unwrap();
        let object: ResourceClaim = serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "n", "uid": "cu"}, "spec": {},
            "status": {"allocation": {"devices": {"results": [
                {"driver": "d.io", "pool": "p", "device": "gpu", "request": "r"}]}}},
        }))
        .unwrap();
        let claim = claims.get_or_insert(Claim::of(&object).unwrap());
        claim.pods.insert("u".into(), Member {});
        claim.prepared = true;
        let device = Device {
            pool_name: "p".into(),
            device_name: "gpu".into(),
            share_id: None,
            request_names: vec!["r".into()],
            cdi_device_ids: vec!["d.io/gpu=0".into()],
        };
        claim.drivers.get_mut("d.io").unwrap().devices = vec![device];
        claims.write().unwrap();
        assert_eq!(claims.in_use().1, 1);
        let file: Checkpoint =
            serde_json::from_slice(&fs::read(dir.path().join(FILE)).unwrap()).unwrap();
        assert_eq!(
            file.data,
            concat!(
                r#"{"kind":"DRACheckpoint","apiVersion":"checkpoint.dra.kubelet.k8s.io/v1","ClaimInfoStateList":["#,
                r#"{"ClaimUID":"cu","ClaimName":"c","Namespace":"n","PodUIDs":{"u":{}},"DriverState":{"d.io":{"Devices":["#,
                r#"{"PoolName":"p","DeviceName":"gpu","ShareID":null,"RequestNames":["r"],"CDIDeviceIDs":["d.io/gpu=0"]}]}}}]}"#
            )
        );
        let again = Claims::open(dir.path()).unwrap();
        let known = again.get("n", "c").unwrap();
        assert!(!known.prepared && known.pods.contains_key("u"));
        assert_eq!(known.devices(Some("r/sub")).count(), 1);
        assert_eq!(known.devices(Some("other")).count(), 0);
        assert_eq!(known.devices(None).count(), 1);
    }

    #[test]
    fn upstreams_empty_lists_are_read_and_damage_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let data = r#"{"kind":"DRACheckpoint","apiVersion":"checkpoint.dra.kubelet.k8s.io/v1","ClaimInfoStateList":null}"#;
        // As Go's crc32.ChecksumIEEE has it.
        let write = |checksum: u32| {
            let file = json!({"Data": data, "Checksum": checksum}).to_string();
            fs::write(dir.path().join(FILE), file).unwrap();
        };
        write(checksum(data));
        assert_eq!(Claims::open(dir.path()).unwrap().iter().count(), 0);
        assert_eq!(checksum("123456789"), 0xcbf4_3926);
        write(1);
        assert!(Claims::open(dir.path()).is_err());
    }

    #[test]
    fn what_is_not_allocated_is_no_claim() {
        let claim: ResourceClaim =
            serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {}})).unwrap();
        assert_eq!(Claim::of(&claim), None);
    }
}
