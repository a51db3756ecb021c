//! Carries out claims: adopts and releases what a controller's selector says.

use std::sync::Arc;

use client::{Api, Error, Object, PatchOptions, Result};
use futures::Future;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::claim::{Claim, adopt_patch, claim, release_patch};

/// The controller that claims.
pub struct Claimant<'a> {
    /// The reference that its objects get.
    pub reference: &'a OwnerReference,
    /// It is being deleted.
    pub deleting: bool,
    /// What it keeps its objects with.
    pub finalizer: Option<&'a str>,
}

/// Of an object, what claims look at.
pub struct Claimed<'a> {
    pub controller: Option<&'a OwnerReference>,
    pub deleting: bool,
    pub matches: bool,
}

/// Those of `objects` that the claimant owns, after adopting and releasing. `recheck` asks the
/// API server whether the claimant still exists; it is called before the first adoption, since
/// a cache may not know of its deletion yet.
pub async fn claim_all<K, Fut>(
    api: &Api<K>,
    claimant: &Claimant<'_>,
    objects: Vec<Arc<K>>,
    describe: impl for<'k> Fn(&'k K) -> Claimed<'k>,
    recheck: impl FnOnce() -> Fut,
) -> Result<Vec<Arc<K>>>
where
    K: Object,
    Fut: Future<Output = Result<()>>,
{
    let mut recheck = Some(recheck);
    let mut owned = Vec::with_capacity(objects.len());
    let mut failure: Option<Error> = None;
    let uid = claimant.reference.uid.as_str();
    for object in objects {
        let what = describe(&object);
        let decision = claim(
            uid,
            claimant.deleting,
            what.controller,
            what.deleting,
            what.matches,
        );
        let patch = match decision {
            Claim::Ignore => continue,
            Claim::Keep => {
                owned.push(object);
                continue;
            }
            Claim::Adopt => {
                if let Some(recheck) = recheck.take() {
                    recheck().await?;
                }
                adopt_patch(claimant.reference, object.uid(), claimant.finalizer)
            }
            Claim::Release => release_patch(uid, object.uid(), claimant.finalizer),
        };
        let own = api.within(object.namespace());
        match own
            .patch(object.name(), &patch, &PatchOptions::default())
            .await
        {
            Ok(_) if decision == Claim::Adopt => owned.push(object),
            Ok(_) => {}
            Err(e) if e.is_not_found() => {}
            // It is another object of the same name by now.
            Err(e) if decision == Claim::Release && e.is_invalid() => {}
            Err(e) => failure = Some(e),
        }
    }
    failure.map_or(Ok(owned), Err)
}

/// A recheck's verdict: the claimant, as the server has it now, is the one we know and stays.
pub fn still_there<K: Object>(live: &K, uid: &str, deleting: bool, what: &str) -> Result<()> {
    let gone = live.uid() != uid;
    if gone || deleting {
        let name = live.key();
        let state = if gone {
            "is gone"
        } else {
            "has just been deleted"
        };
        return Err(Error::Request(format!(
            "can't adopt for {what} {name}: it {state}"
        )));
    }
    Ok(())
}
