//! Which objects a controller owns by its selector: those to adopt, to keep, to let go.
//!
//! An object belongs to the controller that its controller reference names. An object without
//! one is adopted by a controller whose selector matches; an own object whose labels no longer
//! match is released.

use client::Patch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

/// What to do about one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Ours, and it matches.
    Keep,
    /// Nobody's, and it matches.
    Adopt,
    /// Ours, but it does not match any more.
    Release,
    /// None of our business.
    Ignore,
}

/// The claim of a controller on an object.
pub fn claim(
    controller_uid: &str,
    controller_deleting: bool,
    controller_ref: Option<&OwnerReference>,
    deleting: bool,
    matches: bool,
) -> Claim {
    match controller_ref {
        Some(r) if r.uid != controller_uid => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if controller_deleting => Claim::Ignore,
        Some(_) => Claim::Release,
        None if controller_deleting || deleting || !matches => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// The patch that makes `owner` the controller of the object of this UID. The UID in it makes
/// the server refuse if another object has taken the name. What is adopted gets the finalizer.
pub fn adopt_patch(owner: &OwnerReference, uid: &str, finalizer: Option<&str>) -> Patch {
    let mut patch = json!({"metadata": {"ownerReferences": [owner], "uid": uid}});
    if let Some(finalizer) = finalizer {
        patch["metadata"]["finalizers"] = json!([finalizer]);
    }
    Patch::Strategic(patch)
}

/// The patch that takes the reference to `owner_uid` away, and the finalizer with it.
pub fn release_patch(owner_uid: &str, uid: &str, finalizer: Option<&str>) -> Patch {
    let mut patch = json!({
        "metadata": {"ownerReferences": [{"$patch": "delete", "uid": owner_uid}], "uid": uid},
    });
    if let Some(finalizer) = finalizer {
        patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([finalizer]);
    }
    Patch::Strategic(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims() {
        let ours = OwnerReference {
            uid: "me".into(),
            controller: Some(true),
            ..Default::default()
        };
        let theirs = OwnerReference {
            uid: "other".into(),
            ..ours.clone()
        };
        for (owner, we_go, it_goes, matches, want) in [
            (Some(&ours), false, false, true, Claim::Keep),
            (Some(&ours), true, true, true, Claim::Keep),
            (Some(&ours), false, false, false, Claim::Release),
            (Some(&ours), true, false, false, Claim::Ignore),
            (Some(&theirs), false, false, true, Claim::Ignore),
            (None, false, false, true, Claim::Adopt),
            (None, false, true, true, Claim::Ignore),
            (None, true, false, true, Claim::Ignore),
            (None, false, false, false, Claim::Ignore),
        ] {
            assert_eq!(claim("me", we_go, owner, it_goes, matches), want);
        }
    }
}
