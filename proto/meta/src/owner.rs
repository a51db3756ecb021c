//! Owner references: who owns an object, and who of them controls it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::gvk::GroupVersionKind;

/// The reference that says `controller: true`, if any. The API allows at most one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|r| r.controller == Some(true))
}

/// Whether `meta`'s controller is the object of this UID.
pub fn is_controlled_by(meta: &ObjectMeta, owner_uid: &str) -> bool {
    controller_of(meta).is_some_and(|r| r.uid == owner_uid)
}

/// A reference that makes `owner` the controller, with `blockOwnerDeletion`.
pub fn new_controller_ref(owner: &ObjectMeta, kind: &GroupVersionKind) -> OwnerReference {
    OwnerReference {
        controller: Some(true),
        block_owner_deletion: Some(true),
        ..new_owner_ref(owner, kind)
    }
}

/// A plain reference to `owner`: it keeps the object alive, but does not control it.
pub fn new_owner_ref(owner: &ObjectMeta, kind: &GroupVersionKind) -> OwnerReference {
    OwnerReference {
        api_version: kind.api_version(),
        kind: kind.kind.clone(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_found() {
        let owner = ObjectMeta {
            name: Some("rs".into()),
            uid: Some("u1".into()),
            ..ObjectMeta::default()
        };
        let kind = GroupVersionKind::new("apps", "v1", "ReplicaSet");
        let mut pod = ObjectMeta {
            owner_references: Some(vec![new_owner_ref(&owner, &kind)]),
            ..ObjectMeta::default()
        };
        assert_eq!(controller_of(&pod), None);
        pod.owner_references = Some(vec![new_controller_ref(&owner, &kind)]);
        assert_eq!(
            controller_of(&pod).map(|r| r.api_version.as_str()),
            Some("apps/v1")
        );
        assert!(is_controlled_by(&pod, "u1") && !is_controlled_by(&pod, "u2"));
    }
}
