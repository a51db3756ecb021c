//! From a pod's volume to the persistent volume behind its claim.

use std::time::Duration;

use client::{Api, Client};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use thiserror::Error;

use super::csi::Resize;
use crate::pods::pod::PodExt;
use crate::resources::requests::value;

/// Why there is no volume behind a claim.
#[derive(Debug, Error)]
#[error("error processing PVC {namespace}/{claim}: {why}")]
pub struct ClaimError {
    namespace: String,
    claim: String,
    why: String,
}

/// A claim and its volume.
#[derive(Debug, Clone)]
pub struct Bound {
    pub claim: PersistentVolumeClaim,
    pub volume: PersistentVolume,
    /// The pod's word.
    pub read_only: bool,
}

/// A claim that is deleted while nobody uses it loses this.
const PROTECTED: &str = "kubernetes.io/pvc-protection";

/// The claim that a pod's volume means: its name, whether read-only, and whether it was made for
/// the pod.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        let read_only = source.read_only.unwrap_or_default();
        return Some((source.claim_name.clone(), read_only, false));
    }
    volume.ephemeral.as_ref()?;
    Some((format!("{}-{}", pod.name(), volume.name), false, true))
}

/// The volume's name, if the claim may be used. Pure.
fn check_claim(pod: &Pod, claim: &PersistentVolumeClaim, own: bool) -> Result<String, String> {
    let metadata = &claim.metadata;
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let is_owner = |pod: &Pod| {
        owners
            .iter()
            .any(|owner| owner.controller == Some(true) && owner.uid == pod.uid())
    };
    if own && !is_owner(pod) {
        return Err(format!(
            "PVC {}/{} was not created for pod {}/{} (pod is not owner)",
            pod.namespace(),
            metadata.name.as_deref().unwrap_or_default(),
            pod.namespace(),
            pod.name()
        ));
    }
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    let protected = finalizers.iter().any(|name| name == PROTECTED);
    if metadata.deletion_timestamp.is_some() && !protected {
        return Err("PVC is being deleted".into());
    }
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if phase != Some("Bound") {
        return Err("PVC is not bound".into());
    }
    let spec = claim.spec.as_ref();
    let name = spec.and_then(|spec| spec.volume_name.clone());
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| "PVC has empty pvc.Spec.VolumeName".into())
}

/// Whether the volume is this claim's. Pure.
fn check_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let spec = volume.spec.as_ref();
    let reference = spec.and_then(|spec| spec.claim_ref.as_ref()).ok_or_else(|| {
        format!("found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim")
    })?;
    let (meant, uid) = (&reference.uid, &claim.metadata.uid);
    if meant != uid {
        return Err(format!(
            "found PV object {name} but its pv.Spec.ClaimRef.UID {} does not point to claim.UID {}",
            meant.as_deref().unwrap_or_default(),
            uid.as_deref().unwrap_or_default()
        ));
    }
    Ok(())
}

/// How long to wait for the API server: pods that run already wait with us.
const PATIENCE: Duration = Duration::from_secs(20);

/// Finds the volume behind a claim.
///
/// # Errors
/// When there is none, or it must not be used.
pub async fn resolve(
    api: Option<&Client>,
    pod: &Pod,
    meant: (String, bool, bool),
) -> Result<Bound, ClaimError> {
    let claim = meant.0.clone();
    let found = tokio::time::timeout(PATIENCE, find(api, pod, meant)).await;
    found.unwrap_or_else(|_| {
        Err(ClaimError {
            namespace: pod.namespace().into(),
            claim,
            why: "failed to fetch PVC from API server: it does not answer".into(),
        })
    })
}

async fn find(
    api: Option<&Client>,
    pod: &Pod,
    (name, read_only, own): (String, bool, bool),
) -> Result<Bound, ClaimError> {
    let failed = |why: String| ClaimError {
        namespace: pod.namespace().into(),
        claim: name.clone(),
        why,
    };
    let api = api.ok_or_else(|| failed("there is no API server to ask".into()))?;
    let claims = Api::<PersistentVolumeClaim>::namespaced(api, pod.namespace());
    let claim = claims.get(&name).await;
    let claim =
        claim.map_err(|error| failed(format!("failed to fetch PVC from API server: {error}")))?;
    let volume_name = check_claim(pod, &claim, own).map_err(failed)?;
    let volume = Api::<PersistentVolume>::all(api).get(&volume_name).await;
    let volume = volume.map_err(|error| {
        failed(format!(
            "failed to fetch PV {volume_name} from API server: {error}"
        ))
    })?;
    check_volume(&volume, &claim).map_err(failed)?;
    Ok(Bound {
        claim,
        volume,
        read_only,
    })
}

impl Bound {
    /// The volume is a device, not files.
    pub fn is_block(&self) -> bool {
        let spec = self.volume.spec.as_ref();
        spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block")
    }

    /// What the file system is to grow to, where the volume has grown and the claim does not say
    /// so yet.
    pub fn resize(&self) -> Option<Resize> {
        let to = self
            .volume
            .spec
            .as_ref()?
            .capacity
            .as_ref()?
            .get("storage")?;
        let shown = self
            .claim
            .status
            .as_ref()?
            .capacity
            .as_ref()?
            .get("storage")?;
        let metadata = &self.claim.metadata;
        (value(to) > value(shown) && !self.read_only).then(|| Resize {
            claim: (
                metadata.namespace.clone().unwrap_or_default(),
                metadata.name.clone().unwrap_or_default(),
            ),
            to: to.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"containers": []}}))
            .unwrap()
    }

    #[test]
    fn claims_of_a_pod() {
        let of =
            |volume: serde_json::Value| claim_of(&pod(), &serde_json::from_value(volume).unwrap());
        let claim =
            json!({"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}});
        assert_eq!(of(claim), Some(("c".into(), true, false)));
        let own = json!({"name": "v", "ephemeral": {}});
        assert_eq!(of(own), Some(("p-v".into(), false, true)));
        assert_eq!(of(json!({"name": "v", "emptyDir": {}})), None);
    }

    #[test]
    fn only_bound_claims_of_ones_own() {
        let of = |metadata: serde_json::Value, phase: &str, own: bool| {
            let claim = json!({"metadata": metadata, "spec": {"volumeName": "pv"}, "status": {"phase": phase}});
            check_claim(&pod(), &serde_json::from_value(claim).unwrap(), own)
                .unwrap_or_else(|why| why)
        };
        assert_eq!(of(json!({"name": "c"}), "Bound", false), "pv");
        assert_eq!(
            of(json!({"name": "c"}), "Pending", false),
            "PVC is not bound"
        );
        let deleted = json!({"name": "c", "deletionTimestamp": "2020-01-01T00:00:00Z"});
        assert_eq!(of(deleted, "Bound", false), "PVC is being deleted");
        let kept = json!({"name": "c", "deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": [PROTECTED]});
        assert_eq!(of(kept, "Bound", false), "pv");
        assert_eq!(
            of(json!({"name": "c"}), "Bound", true),
            "PVC n/c was not created for pod n/p (pod is not owner)"
        );
    }

    #[test]
    fn volumes_that_have_grown() {
        let bound = |read_only| Bound {
            claim: serde_json::from_value(
                json!({"metadata": {"name": "c", "namespace": "n", "uid": "cu"}, "spec": {},
                "status": {"capacity": {"storage": "1Gi"}}}),
            )
            .unwrap(),
            volume: serde_json::from_value(json!({"metadata": {"name": "pv"},
                "spec": {"capacity": {"storage": "2Gi"}, "claimRef": {"uid": "other"}}}))
            .unwrap(),
            read_only,
        };
        assert_eq!(bound(false).resize().unwrap().to.0, "2Gi");
        assert_eq!(bound(true).resize(), None);
        let bound = bound(false);
        assert_eq!(
            check_volume(&bound.volume, &bound.claim).unwrap_err(),
            "found PV object pv but its pv.Spec.ClaimRef.UID other does not point to claim.UID cu"
        );
    }
}
