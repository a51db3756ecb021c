//! The volume claims of a StatefulSet's pods: which there should be, and who owns them, so that
//! they go with their pod or with the set if the set says so (KEP-1847). Pure.

use std::collections::HashMap;
use std::sync::Arc;

use client::Object as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use meta::GroupVersionKind;
use meta::owner::new_controller_ref;

use super::identity::Member;

/// Claims by name, as the cache has them.
pub type Claims = HashMap<String, Arc<PersistentVolumeClaim>>;

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    let spec = set.spec.as_ref();
    spec.and_then(|s| s.volume_claim_templates.as_deref())
        .unwrap_or_default()
}

/// The names of the set's claims for an ordinal, with the names of their volumes.
pub fn names(set: &StatefulSet, ordinal: i64) -> impl Iterator<Item = (&str, String)> {
    templates(set).iter().map(move |template| {
        let volume = template.name();
        (volume, format!("{volume}-{}-{ordinal}", set.name()))
    })
}

/// The claims that a pod needs.
pub fn wanted(set: &StatefulSet, ordinal: i64) -> Vec<PersistentVolumeClaim> {
    let selected = set
        .spec
        .as_ref()
        .and_then(|s| s.selector.match_labels.clone());
    let claim = |(template, (_, name)): (&PersistentVolumeClaim, (_, String))| {
        let mut claim = template.clone();
        claim.metadata.name = Some(name);
        claim.metadata.namespace = set.metadata.namespace.clone();
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(selected.clone().unwrap_or_default());
        claim
    };
    let named = templates(set).iter().zip(names(set, ordinal));
    named.map(claim).collect()
}

/// Whether claims are deleted with the pod that is scaled away, and with the set.
fn policy(set: &StatefulSet) -> (bool, bool) {
    let spec = set.spec.as_ref();
    let policy = spec.and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
    let deletes = |what: Option<&String>| what.is_some_and(|w| w == "Delete");
    policy.map_or((false, false), |p| {
        (
            deletes(p.when_scaled.as_ref()),
            deletes(p.when_deleted.as_ref()),
        )
    })
}

fn owners(claim: &PersistentVolumeClaim) -> &[OwnerReference] {
    claim
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default()
}

/// The set and one of its pods, as owners of a claim.
struct Owners {
    set: OwnerReference,
    pod: OwnerReference,
}

impl Owners {
    fn new(set: &StatefulSet, member: &Member) -> Self {
        let pod = ObjectMeta {
            name: Some(member.name.clone()),
            uid: Some(member.uid.clone()),
            ..ObjectMeta::default()
        };
        Self {
            set: new_controller_ref(
                &set.metadata,
                &GroupVersionKind::new("apps", "v1", "StatefulSet"),
            ),
            pod: new_controller_ref(&pod, &GroupVersionKind::new("", "v1", "Pod")),
        }
    }

    /// The one of the two that a reference means by its name.
    fn named(&self, reference: &OwnerReference) -> Option<&OwnerReference> {
        [&self.set, &self.pod].into_iter().find(|own| {
            own.api_version == reference.api_version
                && own.kind == reference.kind
                && own.name == reference.name
        })
    }

    /// A reference to an object that had the name before.
    fn is_stale(&self, reference: &OwnerReference) -> bool {
        self.named(reference)
            .is_some_and(|own| own.uid != reference.uid)
    }
}

/// Somebody else takes care of the claim: we keep out of it.
pub fn conflicts(claim: &PersistentVolumeClaim, set: &StatefulSet, member: &Member) -> bool {
    let own = Owners::new(set, member);
    policy(set) != (false, false)
        && owners(claim)
            .iter()
            .any(|r| own.is_stale(r) || (own.named(r).is_none() && r.controller == Some(true)))
}

/// The owners that the claim should have, if it has others.
pub fn new_owners(
    claim: &PersistentVolumeClaim,
    set: &StatefulSet,
    member: &Member,
) -> Option<Vec<OwnerReference>> {
    let own = Owners::new(set, member);
    let now = owners(claim);
    // Left by a set or pod that is gone: the garbage collector's business.
    if now.iter().any(|r| own.is_stale(r)) {
        return None;
    }
    let mut new: Vec<_> = now
        .iter()
        .filter(|r| own.named(r).is_none())
        .cloned()
        .collect();
    if !conflicts(claim, set, member) {
        new.extend(match (policy(set), member.stays) {
            ((true, _), false) => Some(own.pod.clone()),
            ((true, true), true) | ((false, true), _) => Some(own.set.clone()),
            ((false, false), _) | ((true, false), true) => None,
        });
    }
    let is_own = |r: &&OwnerReference| r.uid == own.set.uid || r.uid == own.pod.uid;
    let ours = |refs: &[OwnerReference]| {
        let ours = refs.iter().filter(is_own);
        let mut ours: Vec<_> = ours.map(|r| (r.uid.clone(), r.controller)).collect();
        ours.sort();
        ours
    };
    (ours(now) != ours(&new)).then_some(new)
}

/// Whether the claim of a pod that is to be made still belongs to the pod before it, and will
/// go with it: the new pod must wait.
pub fn awaited(set: &StatefulSet, member: &Member, claims: &Claims) -> bool {
    let own = Owners::new(set, member);
    policy(set).0
        && names(set, member.ordinal).any(|(_, name)| {
            let claim = claims.get(&name);
            claim.is_some_and(|c| {
                let mut of_pod = owners(c).iter().filter(|r| own.named(r) == Some(&own.pod));
                of_pod.any(|r| r.uid != own.pod.uid)
            })
        })
}

/// Whether all claims that there are have the owners that they should have.
pub fn are_owned(set: &StatefulSet, member: &Member, claims: &Claims) -> bool {
    names(set, member.ordinal).all(|(_, name)| {
        let claim = claims.get(&name);
        claim.is_none_or(|c| new_owners(c, set, member).is_none())
    })
}
