//! The volumes behind claims.

use std::sync::Arc;

use client::informer::Store;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

/// The volume that a claim has and that has the claim. `made_for`: the claim is to be one that
/// was made for the pod with this uid (KEP-1698).
pub fn bound(
    volumes: &Store<PersistentVolume>,
    claim: &PersistentVolumeClaim,
    made_for: Option<&str>,
) -> Option<Arc<PersistentVolume>> {
    let mut owners = claim.metadata.owner_references.iter().flatten();
    if let Some(uid) = made_for
        && !owners.any(|o| o.controller == Some(true) && o.uid == uid)
    {
        return None;
    }
    let bound = claim.status.as_ref()?.phase.as_deref() == Some("Bound");
    let name = claim.spec.as_ref()?.volume_name.as_ref()?;
    let volume = volumes.get("", name).filter(|_| bound)?;
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    (reference.uid == claim.metadata.uid).then(|| Arc::clone(&volume))
}
