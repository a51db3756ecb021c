//! Volumes behind claims, and those of drivers: found, and what is to be made of them.

use std::collections::{BTreeMap, HashSet};

use api::{csi_translation, placement};
use k8s_openapi::api::core::v1::{PersistentVolume, Pod, Volume};

use super::claims::{self, Bound, ClaimError};
use super::csi::CsiVolume;
use super::disks::Disk;
use super::manager::{Cause, VolumeError, Volumes, Want, all_containers};
use super::nfs;
use crate::pods::dirs::PodDir;
use crate::pods::pod::PodExt;

/// What is wrong with how containers use a volume that is a device, or is none. Pure.
fn misused(pod: &Pod, volume: &str, block: bool) -> Option<String> {
    let (mut mounted, mut devices) = (HashSet::new(), HashSet::new());
    for container in all_containers(pod) {
        mounted.extend(
            container
                .volume_mounts
                .into_iter()
                .flatten()
                .map(|m| m.name),
        );
        devices.extend(
            container
                .volume_devices
                .into_iter()
                .flatten()
                .map(|d| d.name),
        );
    }
    if block && mounted.contains(volume) {
        Some(format!(
            "volume {volume} has volumeMode Block, but is specified in volumeMounts"
        ))
    } else if !block && devices.contains(volume) {
        Some(format!(
            "volume {volume} has volumeMode Filesystem, but is specified in volumeDevices"
        ))
    } else {
        None
    }
}

/// Whether nodes with these labels can have the volume. Pure.
fn reaches(volume: &PersistentVolume, labels: &BTreeMap<String, String>) -> bool {
    let spec = volume.spec.as_ref();
    let affinity = spec.and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|required| {
        let mut terms = required.node_selector_terms.iter();
        terms.any(|term| placement::matches(term, "", labels))
    })
}

/// A volume whose plugin of old has become a driver is the driver's.
fn translated(mut bound: Bound) -> Result<Bound, Cause> {
    let translated = csi_translation::persistent(&bound.volume);
    if let Some(volume) = translated.map_err(|error| Cause::Object(error.to_string()))? {
        bound.volume = volume;
    }
    Ok(bound)
}

/// The options that a volume is to be mounted with: of old in an annotation.
fn mount_options(volume: &PersistentVolume) -> Vec<String> {
    let annotations = volume.metadata.annotations.as_ref();
    match annotations.and_then(|all| all.get("volume.beta.kubernetes.io/mount-options")) {
        Some(options) => options.split(',').map(str::to_owned).collect(),
        None => volume
            .spec
            .as_ref()
            .and_then(|spec| spec.mount_options.clone())
            .unwrap_or_default(),
    }
}

fn of_bound(pod: &Pod, bound: &Bound, dir: &PodDir) -> Result<Want, Cause> {
    let spec = bound.volume.spec.clone().unwrap_or_default();
    let name = bound.volume.metadata.name.as_deref().unwrap_or_default();
    if let Some(source) = &spec.csi {
        let mut volume = CsiVolume::persistent(&bound.volume, source, bound.read_only);
        volume.resize = bound.resize();
        return Ok(Want::Csi(Box::new(volume)));
    }
    let options = mount_options(&bound.volume);
    if let Some(source) = &spec.nfs {
        return Ok(Want::Export {
            export: nfs::Export::new(source, bound.read_only, &options),
            to: dir.volume(nfs::PLUGIN, name),
        });
    }
    let disk = Disk::persistent(pod, &bound.volume, bound.read_only, &options);
    if let Some(disk) = disk.map_err(Cause::Object)? {
        return Ok(Want::Disk(Box::new(disk)));
    }
    if let Some(source) = spec.host_path {
        return Ok(Want::Host {
            path: source.path,
            kind: source.type_.unwrap_or_default(),
            read_only: bound.read_only,
        });
    }
    if let Some(source) = spec.local {
        if bound.is_block() {
            return Err(Cause::Unsupported("a local block device"));
        }
        return Ok(Want::Local {
            from: source.path.into(),
            to: dir.volume("local-volume", name),
            read_only: bound.read_only,
        });
    }
    Err(Cause::Unsupported("a persistent one of another kind"))
}

impl Volumes {
    /// What a volume that others provide is to become, by the name that messages have for it;
    /// `None` where it is none of these.
    pub(super) async fn provided(
        &self,
        pod: &Pod,
        volume: &Volume,
        dir: &PodDir,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Option<Result<(String, Want), VolumeError>> {
        if let Some(source) = &volume.csi {
            let want = CsiVolume::inline(pod, &volume.name, source);
            return Some(Ok((volume.name.clone(), Want::Csi(Box::new(want)))));
        }
        if let Some(source) = &volume.nfs {
            let read_only = source.read_only.unwrap_or_default();
            let export = nfs::Export::new(source, read_only, &[]);
            let to = dir.volume(nfs::PLUGIN, &volume.name);
            return Some(Ok((volume.name.clone(), Want::Export { export, to })));
        }
        let failed = |source| VolumeError::SetUp {
            volume: volume.name.clone(),
            source,
        };
        match Disk::inline(pod, volume) {
            Ok(None) => {}
            Ok(Some(disk)) => return Some(Ok((volume.name.clone(), Want::Disk(Box::new(disk))))),
            Err(why) => return Some(Err(failed(Cause::Object(why)))),
        }
        match csi_translation::inline(volume, pod.namespace()) {
            Ok(None) => {}
            Ok(Some(made)) => {
                let name = made.metadata.name.clone().unwrap_or_default();
                let source = made.spec.as_ref().and_then(|spec| spec.csi.as_ref())?;
                // As upstream: the source's own word counts where the driver attaches it.
                let want = Want::Csi(Box::new(CsiVolume::persistent(&made, source, false)));
                return Some(Ok((name, want)));
            }
            Err(error) => return Some(Err(failed(Cause::Object(error.to_string())))),
        }
        let meant = claims::claim_of(pod, volume)?;
        let failed = |error: ClaimError| VolumeError::Claim(volume.name.clone(), error);
        let bound = match claims::resolve(self.api.as_ref(), pod, meant).await {
            Ok(bound) => bound,
            Err(error) => return Some(Err(failed(error))),
        };
        let name = bound.volume.metadata.name.clone().unwrap_or_default();
        let wanted = match misused(pod, &volume.name, bound.is_block()) {
            Some(why) => Err(Cause::Object(why)),
            None => translated(bound),
        };
        let wanted = wanted.and_then(|bound| match labels {
            Some(labels) if !reaches(&bound.volume, labels) => Err(Cause::NodeAffinity),
            _ => of_bound(pod, &bound, dir),
        });
        Some(
            wanted
                .map(|want| (name.clone(), want))
                .map_err(|source| VolumeError::SetUp {
                    volume: name,
                    source,
                }),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pods::dirs::Root;

    #[test]
    fn devices_are_no_files() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "c",
            "volumeMounts": [{"name": "m", "mountPath": "/m"}], "volumeDevices": [{"name": "d", "devicePath": "/d"}]}]}}))
        .unwrap();
        assert_eq!(misused(&pod, "m", false), None);
        assert_eq!(misused(&pod, "d", true), None);
        assert!(
            misused(&pod, "m", true)
                .unwrap()
                .contains("volumeMode Block")
        );
        assert!(
            misused(&pod, "d", false)
                .unwrap()
                .contains("volumeMode Filesystem")
        );
    }

    #[test]
    fn by_kind() {
        let bound = |spec: serde_json::Value| Bound {
            claim: Default::default(),
            volume: serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": spec}))
                .unwrap(),
            read_only: true,
        };
        let of = |spec| of_bound(&Pod::default(), &bound(spec), &Root::new("/k").pod("u"));
        let local = of(json!({"local": {"path": "/disk"}})).unwrap();
        assert!(matches!(local, Want::Local { to, read_only: true, .. }
            if to.ends_with("u/volumes/kubernetes.io~local-volume/pv")));
        let csi = json!({"csi": {"driver": "d", "volumeHandle": "h"}});
        assert!(matches!(of(csi).unwrap(), Want::Csi(volume) if volume.read_only));
        let block = json!({"volumeMode": "Block", "csi": {"driver": "d", "volumeHandle": "h"}});
        assert!(matches!(of(block).unwrap(), Want::Csi(volume) if volume.block));
        let nfs = json!({"mountOptions": ["hard"], "nfs": {"server": "s", "path": "/p"}});
        assert!(matches!(of(nfs).unwrap(), Want::Export { export, to }
            if export.read_only && to.ends_with("u/volumes/kubernetes.io~nfs/pv")));
        let disk = json!({"volumeMode": "Block", "fc": {"targetWWNs": ["5006"], "lun": 1}});
        assert!(matches!(of(disk).unwrap(), Want::Disk(disk) if disk.block && disk.read_only));
        let asks = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}]}});
        let old = json!({"awsElasticBlockStore": {"volumeID": "vol-1"}, "nodeAffinity": asks});
        let old = translated(bound(old)).unwrap();
        let zone = |key: &str, zone: &str| BTreeMap::from([(key.to_owned(), zone.to_owned())]);
        assert!(reaches(
            &old.volume,
            &zone("topology.ebs.csi.aws.com/zone", "a")
        ));
        assert!(!reaches(
            &old.volume,
            &zone("topology.kubernetes.io/zone", "a")
        ));
        let old = of_bound(&Pod::default(), &old, &Root::new("/k").pod("u")).unwrap();
        assert!(
            matches!(old, Want::Csi(volume) if volume.driver == "ebs.csi.aws.com" && volume.handle == "vol-1")
        );
        for other in [
            json!({"volumeMode": "Block", "local": {"path": "/dev/x"}}),
            json!({"flexVolume": {"driver": "a/b"}}),
            json!({"fc": {"lun": 0}}),
        ] {
            assert!(of(other).is_err());
        }
    }
}
