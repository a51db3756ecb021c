//! What a pod wants of its claims, and which consumers of a claim are left: pure.

use k8s_openapi::api::resource::v1::{
    ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use meta::owner::controller_of;

use crate::kinds::Pod;
use crate::kinds::pod::PodResourceClaim;

/// On claims that were made for a pod: which of the pod's claims it is (KEP-4381).
pub const POD_CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
/// Keeps a claim that has devices.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// As many as the API allows to use one claim.
const CONSUMERS: usize = 256;
/// What a generated name may begin with, so that its random end stays.
const BASE: usize = 57;

/// Which claim one of a pod's claims is.
#[derive(Debug, PartialEq, Eq)]
pub enum Named<'a> {
    /// The user made it.
    ByUser(&'a str),
    /// It was made from a template for the pod.
    Made(&'a str),
    /// It was found that none is needed.
    NotNeeded,
    /// It is still to be made from this template.
    Missing(&'a str),
    /// Neither a name nor a template: something newer than this program.
    Unknown,
}

/// Which claim it is, as the pod's status knows.
pub fn named<'a>(pod: &'a Pod, claim: &'a PodResourceClaim) -> Named<'a> {
    if let Some(name) = &claim.resource_claim_name {
        return Named::ByUser(name);
    }
    let Some(template) = &claim.resource_claim_template_name else {
        return Named::Unknown;
    };
    let mut statuses = pod.status.resource_claim_statuses.iter();
    match statuses.find(|s| s.name == claim.name) {
        Some(status) => match &status.resource_claim_name {
            Some(name) => Named::Made(name),
            None => Named::NotNeeded,
        },
        None => Named::Missing(template),
    }
}

/// A claim of the name may be somebody else's.
pub fn is_for(pod: &Pod, claim: &ResourceClaim) -> bool {
    controller_of(&claim.metadata).is_some_and(|owner| owner.uid == *pod.metadata.uid)
}

/// It does not run and will not.
pub fn is_done(pod: &Pod) -> bool {
    pod.is_terminal() || pod.is_deleting() && pod.spec.node_name.is_empty()
}

/// Whether a pod that has its node without the scheduler must be noted as a user of the claim.
pub fn to_reserve(pod: &Pod, claim: &ResourceClaim) -> bool {
    let Some(status) = &claim.status else {
        return false;
    };
    let consumers = status.reserved_for.as_deref().unwrap_or_default();
    status.allocation.is_some()
        && consumers.len() < CONSUMERS
        && !consumers.iter().any(|c| c.uid == *pod.metadata.uid)
}

/// The pod as a user of a claim.
pub fn consumer(pod: &Pod) -> ResourceClaimConsumerReference {
    ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: pod.metadata.name.to_string(),
        uid: pod.metadata.uid.to_string(),
    }
}

/// The claim that a pod gets from a template.
pub fn from_template(pod: &Pod, name: &str, template: &ResourceClaimTemplate) -> ResourceClaim {
    let metadata = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = metadata.annotations.unwrap_or_default();
    annotations.insert(POD_CLAIM_NAME.to_owned(), name.to_owned());
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(base(&pod.metadata.name, name)),
            namespace: Some(pod.metadata.namespace.to_string()),
            labels: metadata.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                name: pod.metadata.name.to_string(),
                uid: pod.metadata.uid.to_string(),
                controller: Some(true),
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// Both names, each cut by its share when they are too long together. Names are ASCII.
fn base(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= BASE {
        return whole;
    }
    let pod = &pod[..pod.len() * BASE / whole.len()];
    // Upstream measures the second by the length that is left after the first was cut.
    let length = whole.len();
    format!("{pod}-{}", &claim[..claim.len() * BASE / length])
}

/// What becomes of a claim.
#[derive(Debug, Default, PartialEq)]
pub struct Release {
    /// The status to write.
    pub status: Option<ResourceClaim>,
    /// Whether its devices' finalizer goes, once the status is written.
    pub unprotect: bool,
}

/// What is to be done when only these consumers are left.
pub fn release(claim: &ResourceClaim, remaining: Vec<ResourceClaimConsumerReference>) -> Release {
    let before = claim.status.as_ref().and_then(|s| s.reserved_for.as_ref());
    let before = before.map_or(0, Vec::len);
    let finalizers = claim.metadata.finalizers.as_deref().unwrap_or_default();
    let protected = finalizers.iter().any(|f| f == FINALIZER);
    let unused = remaining.is_empty();
    let mut after = claim.clone();
    let status = after.status.get_or_insert_default();
    let allocated = status.allocation.is_some();
    if remaining.len() < before {
        // Devices go back with the last user, so that the next may get them elsewhere.
        if unused && protected {
            status.allocation = None;
        }
        let unprotect = protected && status.allocation.is_none();
        status.reserved_for = Some(remaining).filter(|r| !r.is_empty());
        return Release {
            status: Some(after),
            unprotect,
        };
    }
    if protected && unused && claim.metadata.deletion_timestamp.is_some() {
        status.allocation = None;
        return Release {
            status: Some(after).filter(|_| allocated),
            unprotect: true,
        };
    }
    Release::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"resourceClaims": [
                {"name": "mine", "resourceClaimName": "c"},
                {"name": "made", "resourceClaimTemplateName": "t"},
            ]},
            "status": status,
        }))
        .unwrap()
    }

    fn claim(meta: Value, users: &[&str]) -> ResourceClaim {
        let users = users.iter();
        let users: Value = users
            .map(|uid| json!({"resource": "pods", "name": uid, "uid": uid}))
            .collect();
        serde_json::from_value(json!({
            "metadata": meta, "spec": {},
            "status": {"allocation": {}, "reservedFor": users},
        }))
        .unwrap()
    }

    #[test]
    fn claims_have_names_once_they_are_made() {
        let new = pod(json!({}));
        assert_eq!(
            named(&new, &new.spec.resource_claims[0]),
            Named::ByUser("c")
        );
        assert_eq!(
            named(&new, &new.spec.resource_claims[1]),
            Named::Missing("t")
        );
        let made =
            pod(json!({"resourceClaimStatuses": [{"name": "made", "resourceClaimName": "x"}]}));
        assert_eq!(
            named(&made, &made.spec.resource_claims[1]),
            Named::Made("x")
        );
        let not = pod(json!({"resourceClaimStatuses": [{"name": "made"}]}));
        assert_eq!(named(&not, &not.spec.resource_claims[1]), Named::NotNeeded);
    }

    #[test]
    fn the_last_user_gives_devices_back() {
        let held = claim(json!({"finalizers": [FINALIZER]}), &["a", "b"]);
        let users = held.status.clone().unwrap().reserved_for.unwrap();
        assert_eq!(release(&held, users.clone()), Release::default());
        let one = release(&held, users[..1].to_vec());
        assert!(!one.unprotect);
        assert!(one.status.unwrap().status.unwrap().allocation.is_some());
        let none = release(&held, Vec::new());
        assert!(none.unprotect);
        assert!(none.status.unwrap().status.unwrap().allocation.is_none());
        // Somebody else allocates this one.
        let foreign = claim(json!({}), &["a"]);
        assert!(!release(&foreign, Vec::new()).unprotect);
    }

    #[test]
    fn an_unused_claim_that_is_deleted_is_let_go() {
        let meta = json!({"finalizers": [FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let unused = release(&claim(meta.clone(), &[]), Vec::new());
        assert!(unused.unprotect && unused.status.is_some());
        let used = claim(meta, &["a"]);
        let users = used.status.clone().unwrap().reserved_for.unwrap();
        assert_eq!(release(&used, users), Release::default());
    }

    #[test]
    fn long_names_are_cut_by_their_share() {
        assert_eq!(base("p", "c"), "p-c-");
        let cut = base(&"p".repeat(60), &"c".repeat(40));
        assert!(cut.len() <= BASE, "{cut}");
        assert!(cut.starts_with("pp") && cut.ends_with("cc"), "{cut}");
    }
}
