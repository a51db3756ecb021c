//! What is asked of a driver for a volume: read off a pod's inline volume or a persistent one, and
//! the driver's own object. Pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use grpc::plugins::csi::VolumeCapability;
use grpc::plugins::csi::volume_capability::access_mode::Mode;
use grpc::plugins::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, CSIVolumeSource, PersistentVolume, Pod, SecretReference,
};
use k8s_openapi::api::storage::v1::CSIDriver;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use sha2::{Digest, Sha256};

use crate::pods::pod::PodExt;

/// How long a volume lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    Persistent,
    /// As long as its pod.
    Ephemeral,
}

impl Lifecycle {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Persistent => "Persistent",
            Self::Ephemeral => "Ephemeral",
        }
    }
}

/// A volume that has grown, and whose file system must yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Resize {
    /// Namespace and name of the claim.
    pub claim: (String, String),
    pub to: Quantity,
}

/// Namespace and name.
pub type SecretKey = (String, String);

/// One volume of a driver.
#[derive(Debug, Clone, PartialEq)]
pub struct CsiVolume {
    pub driver: String,
    /// As the driver knows it.
    pub handle: String,
    /// As files and messages name it: the persistent volume, or the pod's own.
    pub name: String,
    pub lifecycle: Lifecycle,
    /// A device, not files.
    pub block: bool,
    pub read_only: bool,
    pub fs_type: String,
    pub attributes: BTreeMap<String, String>,
    pub access_modes: Vec<String>,
    pub mount_options: Vec<String>,
    pub publish_secret: Option<SecretKey>,
    pub stage_secret: Option<SecretKey>,
    pub expand_secret: Option<SecretKey>,
    pub resize: Option<Resize>,
}

fn hex(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name of the object that says whether a volume is attached to a node.
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", hex(&format!("{handle}{driver}{node}")))
}

/// Where a volume is staged, below the kubelet's root directory.
pub fn staging_path(root: &Path, driver: &str, handle: &str) -> PathBuf {
    let own = root.join("plugins/kubernetes.io/csi").join(driver);
    own.join(hex(handle)).join("globalmount")
}

/// As the node's status names an attached volume.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("kubernetes.io/csi/{driver}^{handle}")
}

impl CsiVolume {
    /// A volume that is written into the pod.
    pub fn inline(pod: &Pod, name: &str, source: &CSIVolumeSource) -> Self {
        let secret = source.node_publish_secret_ref.as_ref();
        Self {
            driver: source.driver.clone(),
            handle: format!("csi-{}", hex(&format!("{}{name}", pod.uid()))),
            name: name.to_owned(),
            lifecycle: Lifecycle::Ephemeral,
            block: false,
            read_only: source.read_only.unwrap_or_default(),
            fs_type: source.fs_type.clone().unwrap_or_default(),
            attributes: source.volume_attributes.clone().unwrap_or_default(),
            access_modes: vec!["ReadWriteOnce".into()],
            mount_options: Vec::new(),
            publish_secret: secret.map(|s| (pod.namespace().to_owned(), s.name.clone())),
            stage_secret: None,
            expand_secret: None,
            resize: None,
        }
    }

    /// A persistent volume. `read_only` is the pod's word.
    pub fn persistent(
        volume: &PersistentVolume,
        source: &CSIPersistentVolumeSource,
        read_only: bool,
    ) -> Self {
        let secret = |reference: &Option<SecretReference>| {
            let reference = reference.clone()?;
            Some((
                reference.namespace.unwrap_or_default(),
                reference.name.unwrap_or_default(),
            ))
        };
        let spec = volume.spec.clone().unwrap_or_default();
        Self {
            driver: source.driver.clone(),
            handle: source.volume_handle.clone(),
            name: volume.metadata.name.clone().unwrap_or_default(),
            lifecycle: Lifecycle::Persistent,
            block: spec.volume_mode.as_deref() == Some("Block"),
            read_only,
            fs_type: source.fs_type.clone().unwrap_or_default(),
            attributes: source.volume_attributes.clone().unwrap_or_default(),
            access_modes: spec.access_modes.unwrap_or_default(),
            mount_options: spec.mount_options.unwrap_or_default(),
            publish_secret: secret(&source.node_publish_secret_ref),
            stage_secret: secret(&source.node_stage_secret_ref),
            expand_secret: secret(&source.node_expand_secret_ref),
            resize: None,
        }
    }

    /// The directory below the pod's that holds mount point and file.
    pub fn dir_name(&self) -> String {
        self.name.replace('/', "~")
    }

    /// What the volume is to be able to do. `finer`: the driver tells one writer from several on
    /// one node; `group`: it makes the volume the group's by itself.
    pub fn capability(&self, finer: bool, group: Option<i64>) -> VolumeCapability {
        let mode = self.access_modes.first().map(String::as_str);
        let mode = match mode.unwrap_or("ReadWriteOnce") {
            "ReadWriteOnce" if finer => Mode::SingleNodeMultiWriter,
            "ReadWriteOncePod" if finer => Mode::SingleNodeSingleWriter,
            "ReadWriteOnce" | "ReadWriteOncePod" => Mode::SingleNodeWriter,
            "ReadOnlyMany" => Mode::MultiNodeReaderOnly,
            "ReadWriteMany" => Mode::MultiNodeMultiWriter,
            _ => Mode::Unknown,
        };
        let access_type = if self.block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                mount_flags: self.mount_options.clone(),
                volume_mount_group: group.map_or_else(String::new, |group| group.to_string()),
            })
        };
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(access_type),
        }
    }

    /// Driver and handle.
    pub fn key(&self) -> (String, String) {
        (self.driver.clone(), self.handle.clone())
    }

    /// Whether no second pod may have it meanwhile.
    pub fn is_one_pods(&self) -> bool {
        self.access_modes == ["ReadWriteOncePod"]
    }

    /// Whether files are to be given to the pod's group by us (`fsGroupPolicy`).
    ///
    /// # Errors
    /// When the driver's object does not say what it must.
    pub fn takes_group(&self, kind: Option<&CSIDriver>) -> Result<bool, &'static str> {
        let policy = match kind.map(|kind| kind.spec.fs_group_policy.as_deref()) {
            None => "ReadWriteOnceWithFSType",
            Some(Some(policy)) if !policy.is_empty() => policy,
            Some(_) => {
                return Err("expected valid fsGroupPolicy, received nil value or empty string");
            }
        };
        if policy == "None" || self.read_only {
            return Ok(false);
        }
        if policy == "File" {
            return Ok(true);
        }
        let once = |mode: &String| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod";
        Ok(!self.fs_type.is_empty() && self.access_modes.iter().any(once))
    }

    /// # Errors
    /// When the driver has no volumes of this life.
    pub fn check_lifecycle(&self, kind: Option<&CSIDriver>) -> Result<(), String> {
        let (mode, driver) = (self.lifecycle.as_str(), &self.driver);
        let Some(kind) = kind else {
            return match self.lifecycle {
                Lifecycle::Persistent => Ok(()),
                Lifecycle::Ephemeral => Err(format!(
                    "volume mode {mode:?} not supported by driver {driver} (no CSIDriver object)"
                )),
            };
        };
        let modes = kind.spec.volume_lifecycle_modes.as_deref();
        let modes = modes.filter(|modes| !modes.is_empty());
        let supported = match modes {
            Some(modes) => modes.iter().any(|known| known == mode),
            None => self.lifecycle == Lifecycle::Persistent,
        };
        supported.then_some(()).ok_or_else(|| {
            format!(
                "volume mode {mode:?} not supported by driver {driver} (only supports {:?})",
                modes.unwrap_or(&["Persistent".to_owned()])
            )
        })
    }

    /// What the driver is told of the pod, where it wants to know.
    pub fn pod_info(&self, pod: &Pod) -> BTreeMap<String, String> {
        let account = pod.pod_spec().service_account_name.as_deref();
        let ephemeral = self.lifecycle == Lifecycle::Ephemeral;
        [
            ("pod.name", pod.name()),
            ("pod.namespace", pod.namespace()),
            ("pod.uid", pod.uid()),
            ("serviceAccount.name", account.unwrap_or_default()),
            ("ephemeral", if ephemeral { "true" } else { "false" }),
        ]
        .into_iter()
        .map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value.to_owned()))
        .collect()
    }
}

/// Whether volumes of the driver are attached to a node before it can use them.
pub fn attaches(kind: Option<&CSIDriver>) -> bool {
    kind.and_then(|kind| kind.spec.attach_required) != Some(false)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(modes: &[&str], fs_type: &str) -> CsiVolume {
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": "pv"},
            "spec": {"accessModes": modes, "csi": {"driver": "d", "volumeHandle": "h", "fsType": fs_type,
                "nodeStageSecretRef": {"name": "s", "namespace": "n"}}},
        }))
        .unwrap();
        let source = volume.spec.clone().unwrap().csi.unwrap();
        CsiVolume::persistent(&volume, &source, false)
    }

    fn driver(spec: serde_json::Value) -> CSIDriver {
        serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).unwrap()
    }

    #[test]
    fn names_are_upstreams() {
        // As `sha256sum` has them.
        assert_eq!(
            staging_path(Path::new("/k"), "d", "h").to_string_lossy(),
            "/k/plugins/kubernetes.io/csi/d/aaa9402664f1a41f40ebbc52c9993eb66aeb366602958fdfaa283b71e64db123/globalmount"
        );
        assert_eq!(unique_name("d", "h"), "kubernetes.io/csi/d^h");
        assert_eq!(
            attachment_name("h", "d", "n"),
            format!("csi-{}", hex("hdn"))
        );
    }

    #[test]
    fn access_modes() {
        let mode = |modes: &[&str], finer| {
            let capability = volume(modes, "").capability(finer, Some(5));
            let Some(AccessType::Mount(mount)) = capability.access_type else {
                panic!("no mount")
            };
            assert_eq!(mount.volume_mount_group, "5");
            capability.access_mode.unwrap().mode()
        };
        assert_eq!(mode(&["ReadWriteOnce"], false), Mode::SingleNodeWriter);
        assert_eq!(
            mode(&["ReadWriteOncePod"], true),
            Mode::SingleNodeSingleWriter
        );
        assert_eq!(mode(&["ReadWriteOnce"], true), Mode::SingleNodeMultiWriter);
        assert_eq!(
            mode(&["ReadOnlyMany", "ReadWriteOnce"], true),
            Mode::MultiNodeReaderOnly
        );
    }

    #[test]
    fn groups_by_policy() {
        let of = |volume: &CsiVolume, policy: &str| {
            volume.takes_group(Some(&driver(json!({"fsGroupPolicy": policy}))))
        };
        let (once, many) = (
            volume(&["ReadWriteOnce"], "ext4"),
            volume(&["ReadWriteMany"], ""),
        );
        assert_eq!(once.takes_group(None), Ok(true));
        assert_eq!(many.takes_group(None), Ok(false));
        assert_eq!(of(&many, "File"), Ok(true));
        assert_eq!(of(&once, "None"), Ok(false));
        assert!(of(&once, "").is_err());
        let read_only = CsiVolume {
            read_only: true,
            ..once
        };
        assert_eq!(of(&read_only, "File"), Ok(false));
    }

    #[test]
    fn lives() {
        let pod: Pod = serde_json::from_value(
            json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "serviceAccountName": "sa"}}),
        )
        .unwrap();
        let source = CSIVolumeSource {
            driver: "d".into(),
            ..Default::default()
        };
        let inline = CsiVolume::inline(&pod, "v", &source);
        assert_eq!(inline.handle, format!("csi-{}", hex("uv")));
        assert_eq!(
            inline.check_lifecycle(None).unwrap_err(),
            "volume mode \"Ephemeral\" not supported by driver d (no CSIDriver object)"
        );
        let both = driver(json!({"volumeLifecycleModes": ["Persistent", "Ephemeral"]}));
        assert_eq!(inline.check_lifecycle(Some(&both)), Ok(()));
        assert!(inline.check_lifecycle(Some(&driver(json!({})))).is_err());
        assert_eq!(volume(&[], "").check_lifecycle(None), Ok(()));
        let info = inline.pod_info(&pod);
        assert_eq!(info["csi.storage.k8s.io/ephemeral"], "true");
        assert_eq!(info["csi.storage.k8s.io/serviceAccount.name"], "sa");
        assert!(attaches(None) && !attaches(Some(&driver(json!({"attachRequired": false})))));
    }
}
