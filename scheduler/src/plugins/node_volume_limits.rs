//! NodeVolumeLimits: a node can have so many volumes of a driver attached, as its CSINode
//! says.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::csi_translation;
use k8s_openapi::api::core::v1::Volume;

use super::volume_binding::uses;
use crate::cache::storage::{StorageEvent, claim_of, class_of, provisioned_by};
use crate::cache::{Cache, NodeInfo};
use crate::framework::{ClusterEvent, Filter, Hint, Plugin, Rejection};
use crate::model::{PodInfo, PodVolume};

pub struct NodeVolumeLimits;

/// A driver and one of its volumes.
type Handle = (String, String);

/// The driver's volume that a pod's own is, if its plugin of old counts.
fn own_handle(volume: &PodVolume, namespace: &str) -> Option<Handle> {
    if !volume.is_driven() {
        return None;
    }
    let own = Volume {
        name: volume.name.clone(),
        aws_elastic_block_store: volume.aws_elastic_block_store.as_deref().cloned(),
        gce_persistent_disk: volume.gce_persistent_disk.as_deref().cloned(),
        azure_disk: volume.azure_disk.as_deref().cloned(),
        cinder: volume.cinder.as_deref().cloned(),
        portworx_volume: volume.portworx_volume.as_deref().cloned(),
        ..Volume::default()
    };
    let csi = csi_translation::inline(&own, namespace).ok()??.spec?.csi?;
    Some((csi.driver, csi.volume_handle))
}

/// The driver's volumes that a pod uses. One that does not exist yet goes by its claim.
fn handles<'a>(pod: &'a PodInfo, cluster: &'a Cache) -> impl Iterator<Item = Handle> + 'a {
    let storage = &cluster.storage;
    pod.volumes.iter().filter_map(move |volume| {
        let Some((key, _)) = claim_of(pod, volume) else {
            return own_handle(volume, &pod.namespace);
        };
        let claim = storage.claims.get(&key)?;
        match storage.volumes.get(claim.spec.volume_name.as_str()) {
            Some(volume) => {
                let csi = volume.csi()?;
                Some((csi.driver.clone(), csi.volume_handle.clone()))
            }
            None => {
                let class = storage.classes.get(class_of(claim))?;
                let driver = provisioned_by(&class.provisioner)?;
                Some((driver.to_owned(), format!("\u{1}{key}")))
            }
        }
    })
}

/// Volumes that are attached to a node, by the API's word.
fn attached<'a>(node: &'a NodeInfo, cluster: &'a Cache) -> impl Iterator<Item = Handle> + 'a {
    let storage = &cluster.storage;
    let of_node = storage.attachments.of(&node.name);
    of_node.filter_map(|attachment| {
        if attachment.spec.attacher.is_empty() {
            return None;
        }
        let name = attachment.spec.source.persistent_volume_name.as_deref()?;
        let csi = storage.volumes.get(name)?.spec.csi.as_ref()?;
        Some((attachment.spec.attacher.clone(), csi.volume_handle.clone()))
    })
}

fn judge(new: &BTreeSet<Handle>, node: &NodeInfo, cluster: &Cache) -> bool {
    let Some(csi_node) = cluster.storage.csi_nodes.get(&*node.name) else {
        return true;
    };
    let limits = csi_node.spec.drivers.iter().filter_map(|driver| {
        let limit = driver.allocatable.as_ref()?.count?;
        let wanted = new.iter().filter(|(d, _)| *d == driver.name).count();
        (wanted > 0).then_some((driver.name.as_str(), limit))
    });
    let limits: Vec<(&str, usize)> = limits.collect();
    // Whose volumes they are and whether they are the same does not matter where there are few.
    let most = node.volumes + cluster.storage.attachments.count(&node.name) + new.len();
    if limits.iter().all(|(_, limit)| most <= *limit) {
        return true;
    }
    let mut there: BTreeSet<Handle> = node.pods.iter().flat_map(|p| handles(p, cluster)).collect();
    let fresh: Vec<&Handle> = new.iter().filter(|h| !there.contains(*h)).collect();
    let more: Vec<Handle> = attached(node, cluster).collect();
    there.extend(more);
    limits.iter().all(|(driver, limit)| {
        let wanted = fresh.iter().filter(|(d, _)| d == driver).count();
        let taken = there.iter().filter(|(d, _)| d == driver).count();
        wanted == 0 || taken + wanted <= *limit
    })
}

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn is_own(&self, pod: &PodInfo) -> bool {
        pod.has_volumes()
    }

    fn filter(&self, pod: &Arc<PodInfo>, cluster: &Cache) -> Filter {
        let new: BTreeSet<Handle> = handles(pod, cluster).collect();
        if new.is_empty() {
            return Filter::Skip;
        }
        Filter::own(move |node, _, cluster| {
            if judge(&new, node, cluster) {
                return Ok(());
            }
            Err(Rejection::resolvable("node(s) exceed max volume count"))
        })
    }

    fn hint(&self, pod: &PodInfo, event: &ClusterEvent<'_>, _cluster: &Cache) -> Hint {
        match event {
            ClusterEvent::PodGone(other) => Hint::queue_if(other.has_volumes()),
            ClusterEvent::NodeAdded(_) => Hint::Queue,
            ClusterEvent::Storage(event) => match event {
                StorageEvent::CsiNode | StorageEvent::Attachment => Hint::Queue,
                StorageEvent::Claim { key, added: true } => Hint::queue_if(uses(pod, key)),
                _ => Hint::Skip,
            },
            _ => Hint::Skip,
        }
    }
}
