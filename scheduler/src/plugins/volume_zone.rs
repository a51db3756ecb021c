//! VolumeZone: a pod goes to the zone that its volumes' labels name. Volumes of today name
//! it in their node affinity; this is for those that do not.

use std::sync::Arc;

use client::ObjectKey;

use super::volume_binding::uses;
use crate::cache::Cache;
use crate::cache::storage::{StorageEvent, class_of};
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection};
use crate::model::PodInfo;

pub struct VolumeZone;

const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
/// Labels and what they are called today.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", ZONE),
    ("failure-domain.beta.kubernetes.io/region", REGION),
    (ZONE, ZONE),
    (REGION, REGION),
];

/// What labels of the pod's volumes must be on its node: the label, its name of today, and
/// its values.
type Wanted = (&'static str, &'static str, Vec<String>);

fn wanted(pod: &PodInfo, cluster: &Cache) -> Result<Vec<Wanted>, String> {
    let storage = &cluster.storage;
    let mut wanted = Vec::new();
    for source in pod
        .volumes
        .iter()
        .filter_map(|v| v.persistent_volume_claim.as_ref())
    {
        let key = ObjectKey::new(&pod.namespace, &source.claim_name);
        let Some(claim) = storage.claims.get(&key) else {
            return Err(format!("persistentvolumeclaim {:?} not found", key.name()));
        };
        if claim.spec.volume_name.is_empty() {
            let name = class_of(claim);
            if name.is_empty() {
                return Err("PersistentVolumeClaim had no pv name and storageClass name".into());
            }
            let Some(class) = storage.classes.get(name) else {
                return Err(format!("storageclass.storage.k8s.io {name:?} not found"));
            };
            match class.volume_binding_mode.as_deref() {
                None => {
                    return Err(format!(
                        "VolumeBindingMode not set for StorageClass {name:?}"
                    ));
                }
                Some("WaitForFirstConsumer") => continue,
                Some(_) => return Err("PersistentVolume had no name".into()),
            }
        }
        let name = claim.spec.volume_name.as_str();
        let Some(volume) = storage.volumes.get(name) else {
            return Err(format!("persistentvolume {name:?} not found"));
        };
        for (label, today) in LABELS {
            if let Some(value) = volume.metadata.labels.get(label) {
                let values = value.split("__").map(str::to_owned).collect();
                wanted.push((label, today, values));
            }
        }
    }
    Ok(wanted)
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn is_own(&self, pod: &PodInfo) -> bool {
        pod.has_volumes()
    }

    fn filter(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Filter {
        let wanted = match wanted(pod, cluster) {
            Ok(wanted) if wanted.is_empty() => return Filter::Skip,
            Ok(wanted) => wanted,
            Err(why) => return Filter::Reject(Rejection::unresolvable(why)),
        };
        Filter::own(move |node, _, _| {
            // A cluster of one zone need not say so on its nodes.
            let zoned = LABELS
                .iter()
                .any(|(label, _)| node.labels.contains_key(*label));
            let is_there = |(label, today, values): &Wanted| {
                let value = node.labels.get(*label).or_else(|| node.labels.get(*today));
                value.is_some_and(|value| values.contains(value))
            };
            if zoned && !wanted.iter().all(is_there) {
                return Err(Rejection::unresolvable(
                    "node(s) had no available volume zone",
                ));
            }
            Ok(())
        })
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        match event {
            ClusterEvent::NodeAdded(_) => Hint::Queue,
            ClusterEvent::NodeUpdated { old, new } => {
                Hint::queue_if(old.metadata.labels != new.metadata.labels)
            }
            ClusterEvent::Storage(event) => match event {
                StorageEvent::Claim { key, .. } => Hint::queue_if(uses(pod, key)),
                StorageEvent::Class { added, waits, .. } => Hint::queue_if(*added && *waits),
                StorageEvent::Volume { added, labels } => Hint::queue_if(*added || *labels),
                _ => Hint::Skip,
            },
            _ => Hint::Skip,
        }
    }
}
