//! VolumeRestrictions: some volumes stand one pod per node, claims of `ReadWriteOncePod`
//! one pod at all.

use std::sync::Arc;

use client::ObjectKey;

use super::volume_binding::uses;
use crate::cache::Cache;
use crate::cache::storage::StorageEvent;
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection, Shift};
use crate::model::{PodInfo, PodVolume};

pub struct VolumeRestrictions;

const DISK: &str = "node(s) had no available disk";
const IN_USE: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";

/// Whether two pods of one node cannot have these volumes both.
fn conflict(a: &PodVolume, b: &PodVolume) -> bool {
    if let (Some(a), Some(b)) = (&a.gce_persistent_disk, &b.gce_persistent_disk) {
        let read_only = a.read_only == Some(true) && b.read_only == Some(true);
        return a.pd_name == b.pd_name && !read_only;
    }
    if let (Some(a), Some(b)) = (&a.aws_elastic_block_store, &b.aws_elastic_block_store) {
        return a.volume_id == b.volume_id;
    }
    if let (Some(a), Some(b)) = (&a.iscsi, &b.iscsi) {
        let read_only = a.read_only == Some(true) && b.read_only == Some(true);
        return a.iqn == b.iqn && !read_only;
    }
    if let (Some(a), Some(b)) = (&a.rbd, &b.rbd) {
        let read_only = a.read_only == Some(true) && b.read_only == Some(true);
        return a.monitors.iter().any(|m| b.monitors.contains(m))
            && a.pool.as_deref().unwrap_or("rbd") == b.pool.as_deref().unwrap_or("rbd")
            && a.image == b.image
            && !read_only;
    }
    false
}

fn conflicts(a: &[PodVolume], b: &[PodVolume]) -> bool {
    a.iter().any(|a| b.iter().any(|b| conflict(a, b)))
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn is_own(&self, pod: &PodInfo) -> bool {
        pod.has_volumes()
    }

    fn filter(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Filter {
        let mut exclusive: Vec<ObjectKey> = Vec::new();
        for source in pod
            .volumes
            .iter()
            .filter_map(|v| v.persistent_volume_claim.as_ref())
        {
            let key = ObjectKey::new(&pod.namespace, &source.claim_name);
            match cluster.storage.claims.get(&key) {
                None => {
                    let why = format!("persistentvolumeclaim {:?} not found", key.name());
                    return Filter::Reject(Rejection::unresolvable(why));
                }
                Some(claim) => {
                    let modes = &claim.spec.access_modes;
                    if modes.iter().any(|mode| mode == "ReadWriteOncePod") {
                        exclusive.push(key);
                    }
                }
            }
        }
        let in_use = exclusive
            .iter()
            .filter(|key| cluster.claim_is_used(key))
            .count();
        let in_use = i64::try_from(in_use).unwrap_or(i64::MAX);
        let inline = pod
            .volumes
            .iter()
            .any(|v| v.persistent_volume_claim.is_none());
        if in_use == 0 && !inline {
            return Filter::Skip;
        }
        let volumes = pod.volumes.clone();
        Filter::own(move |node, shifts: &[Shift], _| {
            if inline && node.pods.iter().any(|p| conflicts(&volumes, &p.volumes)) {
                return Err(Rejection::resolvable(DISK));
            }
            let shifted = shifts.iter().map(|shift| {
                let used = exclusive.iter().filter(|key| uses(&shift.pod, key)).count();
                shift.by * i64::try_from(used).unwrap_or(0)
            });
            if in_use + shifted.sum::<i64>() > 0 {
                return Err(Rejection::resolvable(IN_USE));
            }
            Ok(())
        })
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        match event {
            ClusterEvent::NodeAdded(_) => Hint::Queue,
            ClusterEvent::PodGone(other) => {
                let sources = pod
                    .volumes
                    .iter()
                    .filter_map(|v| v.persistent_volume_claim.as_ref());
                let mut keys = sources.map(|s| ObjectKey::new(&pod.namespace, &s.claim_name));
                Hint::queue_if(
                    conflicts(&pod.volumes, &other.volumes) || keys.any(|key| uses(other, &key)),
                )
            }
            ClusterEvent::Storage(StorageEvent::Claim { key, added: true }) => {
                Hint::queue_if(uses(pod, key))
            }
            _ => Hint::Skip,
        }
    }
}
