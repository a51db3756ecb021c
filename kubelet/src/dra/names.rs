//! Which claims a pod uses, and what of them a container does. Pure.

use k8s_openapi::api::core::v1::{Container, Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use thiserror::Error;

use crate::pods::pod::PodExt;

/// Why it cannot be told, or must not be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ClaimError {
    #[error("pod \"{0}\": ResourceClaim not created yet")]
    NotCreated(String),
    #[error("pod \"{0}\", spec.resourceClaim {1:?}: none of the supported fields are set")]
    Unsupported(String, String),
    #[error("ResourceClaim {0} was not created for Pod {1} (Pod is not owner)")]
    NotOwner(String, String),
    #[error("pod {0} ({1}) is not allowed to use ResourceClaim {2} ({3})")]
    NotReserved(String, String, String, String),
}

/// A claim that the pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    pub name: String,
    /// It was made for this pod, and must still be that one.
    pub generated: bool,
}

fn path(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace(), pod.name())
}

/// The claim that is meant; `None` where none was needed after all.
fn of_entry(pod: &Pod, entry: &PodResourceClaim) -> Result<Option<Used>, ClaimError> {
    if let Some(name) = &entry.resource_claim_name {
        return Ok(Some(Used {
            name: name.clone(),
            generated: false,
        }));
    }
    if entry.resource_claim_template_name.is_none() {
        return Err(ClaimError::Unsupported(path(pod), entry.name.clone()));
    }
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| status.resource_claim_statuses.iter().flatten());
    let status = statuses
        .into_iter()
        .find(|status| status.name == entry.name)
        .ok_or_else(|| ClaimError::NotCreated(path(pod)))?;
    Ok(status.resource_claim_name.clone().map(|name| Used {
        name,
        generated: true,
    }))
}

/// All claims of a pod, that of its extended resources last.
///
/// # Errors
/// When one has not been made yet.
pub fn of_pod(pod: &Pod) -> Result<Vec<Used>, ClaimError> {
    let mut used = Vec::new();
    for entry in pod.pod_spec().resource_claims.iter().flatten() {
        used.extend(of_entry(pod, entry)?);
    }
    let status = pod.status.as_ref();
    let extended = status.and_then(|status| status.extended_resource_claim_status.as_ref());
    used.extend(extended.map(|extended| Used {
        name: extended.resource_claim_name.clone(),
        generated: false,
    }));
    Ok(used)
}

/// What a container uses of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub claim: String,
    /// One request of the claim; all of them where it is none.
    pub request: Option<String>,
    /// How the pod calls the claim; none for that of extended resources.
    pub entry: Option<String>,
}

/// # Errors
/// As [`of_pod`].
pub fn of_container(pod: &Pod, container: &Container) -> Result<Vec<Part>, ClaimError> {
    let resources = container.resources.as_ref();
    let asked = resources.and_then(|resources| resources.claims.as_deref());
    let mut parts = Vec::new();
    for claim in asked.unwrap_or_default() {
        let entries = pod.pod_spec().resource_claims.iter().flatten();
        let Some(entry) = entries.into_iter().find(|entry| entry.name == claim.name) else {
            continue;
        };
        if let Some(used) = of_entry(pod, entry)? {
            parts.push(Part {
                claim: used.name,
                request: claim.request.clone().filter(|request| !request.is_empty()),
                entry: Some(entry.name.clone()),
            });
        }
    }
    let status = pod.status.as_ref();
    if let Some(extended) = status.and_then(|s| s.extended_resource_claim_status.as_ref()) {
        let requests = resources.and_then(|resources| resources.requests.as_ref());
        let asks = |name: &str| requests.is_some_and(|requests| requests.contains_key(name));
        let mappings = extended.request_mappings.iter();
        let own = mappings.filter(|m| m.container_name == container.name && asks(&m.resource_name));
        parts.extend(own.map(|mapping| Part {
            claim: extended.resource_claim_name.clone(),
            request: Some(mapping.request_name.clone()),
            entry: None,
        }));
    }
    Ok(parts)
}

/// Whether the pod may use the claim, as the API server has it.
///
/// # Errors
/// When it was made for another pod, or is not reserved for this one.
pub fn check(pod: &Pod, used: &Used, claim: &ResourceClaim) -> Result<(), ClaimError> {
    let group = pod.pod_spec().scheduling_group.as_ref();
    let group = group.and_then(|group| group.pod_group_name.as_deref());
    let owners = claim.metadata.owner_references.as_deref();
    let controller = owners
        .unwrap_or_default()
        .iter()
        .find(|owner| owner.controller == Some(true));
    let of_group = |owner: &OwnerReference| {
        owner.kind == "PodGroup"
            && owner.api_version.starts_with("scheduling.k8s.io/")
            && group == Some(owner.name.as_str())
    };
    if used.generated && !controller.is_some_and(|owner| owner.uid == pod.uid() || of_group(owner))
    {
        let claim = format!("{}/{}", pod.namespace(), used.name);
        return Err(ClaimError::NotOwner(claim, path(pod)));
    }
    let status = claim.status.as_ref();
    let consumers = status.and_then(|status| status.reserved_for.as_deref());
    let reserved = consumers.unwrap_or_default().iter().any(|consumer| {
        consumer.uid == pod.uid()
            || consumer.api_group.as_deref() == Some("scheduling.k8s.io")
                && consumer.resource == "podgroups"
                && group == Some(consumer.name.as_str())
    });
    if reserved {
        return Ok(());
    }
    Err(ClaimError::NotReserved(
        pod.name().into(),
        pod.uid().into(),
        used.name.clone(),
        claim.metadata.uid.clone().unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {
                "resourceClaims": [
                    {"name": "own", "resourceClaimName": "claim"},
                    {"name": "made", "resourceClaimTemplateName": "t"},
                    {"name": "needless", "resourceClaimTemplateName": "t"}],
                "containers": [{"name": "c", "resources": {"claims": [
                    {"name": "made", "request": "r"}, {"name": "needless"}]}}]},
            "status": {"resourceClaimStatuses": [
                {"name": "made", "resourceClaimName": "p-made-x"}, {"name": "needless"}]},
        }))
        .unwrap()
    }

    #[test]
    fn claims_are_found() {
        let mut pod = pod();
        let used = |name: &str, generated| Used {
            name: name.into(),
            generated,
        };
        assert_eq!(
            of_pod(&pod).unwrap(),
            [used("claim", false), used("p-made-x", true)]
        );
        let parts = of_container(&pod, &pod.containers()[0]).unwrap();
        let part = Part {
            claim: "p-made-x".into(),
            request: Some("r".into()),
            entry: Some("made".into()),
        };
        assert_eq!(parts, [part]);
        pod.status = None;
        let error = of_pod(&pod).unwrap_err();
        assert_eq!(
            error.to_string(),
            "pod \"n/p\": ResourceClaim not created yet"
        );
    }

    #[test]
    fn others_claims_are_not_used() {
        let pod = pod();
        let claim = |owner: &str, user: &str| -> ResourceClaim {
            serde_json::from_value(json!({
                "metadata": {"name": "x", "namespace": "n", "uid": "cu", "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": owner, "controller": true}]},
                "spec": {}, "status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": user}]},
            }))
            .unwrap()
        };
        let used = Used {
            name: "x".into(),
            generated: true,
        };
        assert_eq!(check(&pod, &used, &claim("u", "u")), Ok(()));
        let error = |claim| check(&pod, &used, &claim).unwrap_err().to_string();
        assert_eq!(
            error(claim("other", "u")),
            "ResourceClaim n/x was not created for Pod n/p (Pod is not owner)"
        );
        assert_eq!(
            error(claim("u", "other")),
            "pod p (u) is not allowed to use ResourceClaim x (cu)"
        );
    }
}
