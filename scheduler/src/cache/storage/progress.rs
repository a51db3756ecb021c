//! Whether what has been asked for a pod's volumes comes true (`checkBindings`). Pure.

use client::ObjectKey;

use super::{SELECTED_NODE, Storage, Volume, is_bound};
use crate::cache::NodeInfo;

/// What has been written for a pod's volumes, and what is to come of it. What is known may be
/// older than what has been written.
#[derive(Debug, Default)]
pub struct Awaited {
    /// Volumes that have been set aside, which version says so, and the claims that get them.
    pub bindings: Vec<(ObjectKey, Box<str>, ObjectKey)>,
    /// Claims whose volumes are to be made, and which version says where.
    pub provisions: Vec<(ObjectKey, Box<str>)>,
}

/// Versions are numbers.
fn is_older(version: &str, than: &str) -> bool {
    (version.len(), version) < (than.len(), than)
}

impl Storage {
    /// Whether all of it has come true; or why it will not on this node.
    pub fn progress(
        &self,
        awaited: &Awaited,
        name: &str,
        node: Option<&NodeInfo>,
    ) -> Result<bool, String> {
        let Some(node) = node else {
            return Err(format!(
                "failed to get node {name:?}: node {name:?} not found"
            ));
        };
        for (volume, version, claim) in &awaited.bindings {
            let missing = |resource, key: &ObjectKey| {
                let key = key.as_str();
                format!("failed to check binding: {resource} {key:?} not found")
            };
            let known = self.volumes.get(volume);
            let known = known.ok_or_else(|| missing("persistentvolumes", volume))?;
            let claim =
                (self.claims.get(claim)).ok_or_else(|| missing("persistentvolumeclaims", claim))?;
            if is_older(&known.metadata.resource_version, version) {
                return Ok(false);
            }
            self.must_reach(known, node)?;
            let owner = known.spec.claim_ref.as_ref().and_then(|r| r.uid.as_deref());
            if owner.unwrap_or_default().is_empty() {
                return Err(format!("ClaimRef got reset for pv {:?}", volume.name()));
            }
            if !is_bound(claim) {
                return Ok(false);
            }
        }
        for (key, version) in &awaited.provisions {
            let Some(claim) = self.claims.get(key) else {
                return Err(format!(
                    "failed to check provisioning pvc: persistentvolumeclaims {:?} not found",
                    key.as_str()
                ));
            };
            if is_older(&claim.metadata.resource_version, version) {
                return Ok(false);
            }
            let annotations = &claim.metadata.annotations;
            if annotations.is_empty() {
                return Err(format!(
                    "selectedNode annotation reset for PVC {:?}",
                    key.name()
                ));
            }
            // Who cannot make the volume there takes the node away: another one is to be found.
            if annotations.get(SELECTED_NODE).map(String::as_str) != Some(name) {
                return Err(format!("provisioning failed for PVC {:?}", key.name()));
            }
            if !claim.spec.volume_name.is_empty() {
                let Some(volume) = self.volumes.get(claim.spec.volume_name.as_str()) else {
                    // It has not been heard of yet; or it is gone, and the claim will lose it.
                    return Ok(false);
                };
                self.must_reach(volume, node)?;
            }
            if !is_bound(claim) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn must_reach(&self, volume: &Volume, node: &NodeInfo) -> Result<(), String> {
        if self.reaches_bound(volume, node) {
            return Ok(());
        }
        Err(format!(
            "pv {:?} node affinity doesn't match node {:?}: no matching NodeSelectorTerms",
            volume.metadata.name, node.name
        ))
    }
}
