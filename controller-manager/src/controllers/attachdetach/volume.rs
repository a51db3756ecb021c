//! What has to be attached to a node before a volume can be mounted there: pure.

use api::csi_translation;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, FCVolumeSource, PersistentVolume, PersistentVolumeSpec, Volume,
};
use k8s_openapi::api::storage::v1::VolumeAttachmentSource;
use sha2::{Digest as _, Sha256};

const CSI: &str = "kubernetes.io/csi/";
const ISCSI: &str = "kubernetes.io/iscsi/";
const FC: &str = "kubernetes.io/fc/";

/// A volume that has to be attached.
#[derive(Debug, Clone, PartialEq)]
pub struct Attachable {
    /// As nodes' statuses name it.
    pub unique: String,
    /// As people know it: the PersistentVolume, or the pod's own.
    pub name: String,
    /// Who attaches it. `None` for disks that nodes bring in by themselves once they are told that
    /// they may.
    pub driver: Option<Driver>,
    /// It may be attached to several nodes at a time.
    pub shared: bool,
}

/// A volume as its CSI driver knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Driver {
    pub name: String,
    pub handle: String,
    /// Where the driver finds the rest of it.
    pub source: VolumeAttachmentSource,
}

impl Driver {
    /// The VolumeAttachment of the volume and a node; drivers and kubelets know it by this name.
    pub fn attachment(&self, node: &str) -> String {
        attachment_name(&self.name, &self.handle, node)
    }
}

/// What upstream calls a volume in a node's status.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("{CSI}{driver}^{handle}")
}

/// See [`Driver::attachment`].
pub fn attachment_name(driver: &str, handle: &str, node: &str) -> String {
    let hash = Sha256::digest(format!("{handle}{driver}{node}"));
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("csi-{hex}")
}

/// Of what nodes' statuses name: disks that no driver attaches.
pub fn is_disk(unique: &str) -> bool {
    unique.starts_with(ISCSI) || unique.starts_with(FC)
}

/// Of what nodes' statuses name: what is attached here.
pub fn is_known(unique: &str) -> bool {
    unique.starts_with(CSI) || is_disk(unique)
}

/// `None` where the volume does not say which disk it is.
fn fc(source: &FCVolumeSource) -> Option<String> {
    let targets = source.target_wwns.as_deref().unwrap_or_default();
    let ids = source.wwids.as_deref().unwrap_or_default();
    match source.lun {
        Some(lun) if !targets.is_empty() => Some(format!("{FC}[{}]:{lun}", targets.join(" "))),
        _ if !ids.is_empty() => Some(format!("{FC}[{}]", ids.join(" "))),
        _ => None,
    }
}

fn iscsi(portal: &str, iqn: &str, lun: i32) -> String {
    format!("{ISCSI}{portal}:{iqn}:{lun}")
}

/// Of volumes that say nothing nothing is known.
fn is_shared(spec: &PersistentVolumeSpec) -> bool {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    modes.is_empty()
        || modes
            .iter()
            .any(|m| m == "ReadWriteMany" || m == "ReadOnlyMany")
}

fn of_driver(
    name: &str,
    spec: &PersistentVolumeSpec,
    csi: &CSIPersistentVolumeSource,
    source: VolumeAttachmentSource,
) -> Attachable {
    Attachable {
        unique: unique_name(&csi.driver, &csi.volume_handle),
        name: name.to_owned(),
        driver: Some(Driver {
            name: csi.driver.clone(),
            handle: csi.volume_handle.clone(),
            source,
        }),
        shared: is_shared(spec),
    }
}

/// Of a persistent volume; `None` where nothing has to be attached.
pub fn persistent(volume: &PersistentVolume) -> Option<Attachable> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let by_name = || VolumeAttachmentSource {
        persistent_volume_name: Some(name.to_owned()),
        ..VolumeAttachmentSource::default()
    };
    let spec = volume.spec.as_ref()?;
    let unique = if let Some(csi) = &spec.csi {
        return Some(of_driver(name, spec, csi, by_name()));
    } else if let Some(disk) = &spec.iscsi {
        iscsi(&disk.target_portal, &disk.iqn, disk.lun)
    } else if let Some(disk) = &spec.fc {
        fc(disk)?
    } else {
        let translated = csi_translation::persistent(volume)
            .inspect_err(|error| tracing::debug!(volume = name, %error, "No volume of a driver"));
        let spec = translated.ok()??.spec?;
        let csi = spec.csi.as_ref()?;
        return Some(of_driver(name, &spec, csi, by_name()));
    };
    Some(Attachable {
        unique,
        name: name.to_owned(),
        driver: None,
        shared: is_shared(spec),
    })
}

/// Of a pod's own volume, as [`persistent`]. `namespace` is the pod's.
pub fn inline(volume: &Volume, namespace: &str) -> Option<Attachable> {
    let unique = if let Some(disk) = &volume.iscsi {
        iscsi(&disk.target_portal, &disk.iqn, disk.lun)
    } else if let Some(disk) = &volume.fc {
        fc(disk)?
    } else {
        let translated = csi_translation::inline(volume, namespace).inspect_err(
            |error| tracing::debug!(volume = volume.name, %error, "No volume of a driver"),
        );
        let translated = translated.ok()??;
        let (name, spec) = (translated.metadata.name?, translated.spec?);
        let csi = spec.csi.as_ref()?;
        // There is no object of this volume that the driver could look at.
        let source = VolumeAttachmentSource {
            inline_volume_spec: Some(spec.clone()),
            ..VolumeAttachmentSource::default()
        };
        return Some(of_driver(&name, &spec, csi, source));
    };
    // Nothing is known of who else may have it.
    Some(Attachable {
        unique,
        name: volume.name.clone(),
        driver: None,
        shared: true,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of_persistent(spec: Value) -> Option<Attachable> {
        let volume = json!({"metadata": {"name": "pv"}, "spec": spec});
        persistent(&serde_json::from_value(volume).unwrap())
    }

    fn of_inline(source: Value) -> Option<Attachable> {
        let mut volume = source;
        volume["name"] = "own".into();
        inline(&serde_json::from_value(volume).unwrap(), "ns")
    }

    #[test]
    fn names_are_those_that_drivers_know() {
        assert_eq!(unique_name("d.io", "h"), "kubernetes.io/csi/d.io^h");
        // sha256 of "hd.ion".
        assert_eq!(
            attachment_name("d.io", "h", "n"),
            "csi-f9c0a2e55a623bb2869fea8487e4badd0af73938bd4b9b164f308d27ed06b4cc"
        );
    }

    #[test]
    fn disks_that_nodes_bring_in() {
        let lun = json!({"targetPortal": "10.0.0.1", "iqn": "iqn.a:b", "lun": 3});
        let ported = json!({"targetPortal": "10.0.0.1:3260", "iqn": "iqn.a:b", "lun": 0});
        let targets = json!({"targetWWNs": ["5006", "5007"], "lun": 0, "wwids": ["x"]});
        for (kind, source, unique) in [
            ("iscsi", lun, "kubernetes.io/iscsi/10.0.0.1:iqn.a:b:3"),
            (
                "iscsi",
                ported,
                "kubernetes.io/iscsi/10.0.0.1:3260:iqn.a:b:0",
            ),
            ("fc", targets, "kubernetes.io/fc/[5006 5007]:0"),
            (
                "fc",
                json!({"wwids": ["a b", "c"]}),
                "kubernetes.io/fc/[a b c]",
            ),
        ] {
            let own = of_inline(json!({kind: source})).unwrap();
            let spec = json!({"accessModes": ["ReadWriteOnce"], kind: source});
            let persistent = of_persistent(spec).unwrap();
            assert_eq!(
                (&*own.unique, &*own.name, own.shared),
                (unique, "own", true)
            );
            assert_eq!(
                (&*persistent.unique, &*persistent.name, persistent.shared),
                (unique, "pv", false)
            );
            assert!(own.driver.is_none() && persistent.driver.is_none());
            assert!(is_disk(unique) && is_known(unique));
        }
        // Neither where it is nor what it is.
        assert_eq!(of_inline(json!({"fc": {"targetWWNs": ["5006"]}})), None);
        assert_eq!(of_persistent(json!({"fc": {"lun": 1}})), None);
    }

    #[test]
    fn persistent_volumes_of_drivers() {
        for (spec, unique, shared) in [
            (
                json!({"accessModes": ["ReadWriteMany"], "csi": {"driver": "d", "volumeHandle": "h"}}),
                "kubernetes.io/csi/d^h",
                true,
            ),
            (
                json!({"accessModes": ["ReadWriteOnce"], "awsElasticBlockStore": {"volumeID": "aws://a/vol-1"}}),
                "kubernetes.io/csi/ebs.csi.aws.com^vol-1",
                false,
            ),
            // The driver knows fewer modes than the plugin had.
            (
                json!({"accessModes": ["ReadWriteOnce", "ReadWriteMany"], "gcePersistentDisk": {"pdName": "p"}}),
                "kubernetes.io/csi/pd.csi.storage.gke.io^projects/UNSPECIFIED/zones/UNSPECIFIED/disks/p",
                false,
            ),
        ] {
            let volume = of_persistent(spec).unwrap();
            assert_eq!((&*volume.unique, volume.shared), (unique, shared));
            let source = volume.driver.unwrap().source;
            assert_eq!(
                serde_json::to_value(source).unwrap(),
                json!({"persistentVolumeName": "pv"})
            );
            assert!(is_known(unique) && !is_disk(unique));
        }
        for other in [
            json!({"nfs": {"server": "s", "path": "/"}}),
            json!({"hostPath": {"path": "/x"}}),
            json!({"awsElasticBlockStore": {"volumeID": "aws://a/disk-1"}}),
        ] {
            assert_eq!(of_persistent(other), None);
        }
    }

    #[test]
    fn pods_own_volumes_of_drivers() {
        let disk = json!({"cinder": {"volumeID": "c", "fsType": "ext4", "readOnly": true}});
        let volume = of_inline(disk).unwrap();
        assert_eq!(
            volume.unique,
            "kubernetes.io/csi/cinder.csi.openstack.org^c"
        );
        assert_eq!(volume.name, "cinder.csi.openstack.org-c");
        assert!(!volume.shared);
        let driver = volume.driver.unwrap();
        assert_eq!(driver.name, "cinder.csi.openstack.org");
        let spec = json!({"inlineVolumeSpec": {
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Filesystem",
            "csi": {"driver": "cinder.csi.openstack.org", "volumeHandle": "c", "fsType": "ext4", "readOnly": true},
        }});
        assert_eq!(serde_json::to_value(driver.source).unwrap(), spec);
        let share = json!({"azureFile": {"secretName": "x", "shareName": "s"}});
        assert!(of_inline(share).unwrap().shared);
        // A driver's own in the pod lives and dies with it: its kubelet sees to it.
        assert_eq!(of_inline(json!({"csi": {"driver": "d"}})), None);
        assert_eq!(of_inline(json!({"emptyDir": {}})), None);
    }
}
