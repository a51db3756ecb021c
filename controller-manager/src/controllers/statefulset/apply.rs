//! Carries out a StatefulSet's plan, and tells of it in upstream's words.

use std::sync::Arc;

use client::{DeleteOptions, Error, Object as _};
use futures::future::join_all;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use meta::Status;

use super::Controller;
use super::claims::{self, Claims};
use super::history::History;
use super::identity::{self, Member};
use super::plan::{Plan, Step};
use crate::events::reference;
use crate::kinds::Pod;

/// Steps are carried out in batches that double, up to so many.
const MAX_BATCH: usize = 500;

/// What all steps need.
struct Scene<'a> {
    set: &'a StatefulSet,
    history: &'a History,
    claims: &'a Claims,
}

impl Controller {
    /// Returns how many pods have been deleted so that new ones replace them.
    pub(super) async fn carry_out(
        &self,
        set: &StatefulSet,
        history: &History,
        claims: &Claims,
        plan: &Plan,
    ) -> (i32, Result<(), Error>) {
        let scene = Scene {
            set,
            history,
            claims,
        };
        for stage in &plan.stages {
            let mut rest = stage.as_slice();
            let mut batch = 1;
            while !rest.is_empty() {
                let (now, later) = rest.split_at(batch.min(rest.len()));
                let results = join_all(now.iter().map(|steps| self.take(&scene, steps))).await;
                if let Some(error) = results.into_iter().find_map(Result::err) {
                    return (0, Err(error));
                }
                rest = later;
                if plan.at_once {
                    batch = (batch * 2).min(MAX_BATCH);
                }
            }
        }
        let mut replaced = 0;
        for pod in &plan.replace {
            if let Err(error) = self.delete(set, pod).await {
                return (replaced, Err(error));
            }
            // Only those that were of the revision before are in its count.
            replaced += i32::from(identity::revision(pod) == history.current.name());
        }
        (replaced, Ok(()))
    }

    async fn take(&self, scene: &Scene<'_>, steps: &[Step]) -> Result<(), Error> {
        for step in steps {
            match step {
                Step::Create { member, updated } => self.create(scene, member, *updated).await?,
                Step::Delete(pod) => self.delete(scene.set, pod).await?,
                Step::Repair(member) => self.repair(scene, member).await?,
                Step::Claims(member) => {
                    let fresh = self.make_claims(scene, member).await?;
                    let owned = self.own_claims(scene, member, &fresh).await;
                    self.tell_failure("Update", scene.set, member, &owned);
                    owned?;
                }
                Step::Owners(member) => self.own_claims(scene, member, &[]).await?,
            }
        }
        Ok(())
    }

    fn tell(&self, verb: &str, set: &StatefulSet, pod: &str, result: &Result<(), Error>) {
        let what = format!("{verb} Pod {pod} in StatefulSet {}", set.name());
        let (reason, message) = match result {
            Ok(()) => (format!("Successful{verb}"), format!("{what} successful")),
            Err(e) => (format!("Failed{verb}"), format!("{what} failed error: {e}")),
        };
        self.events
            .event(&reference(set), result.is_err(), &reason, message);
    }

    fn tell_failure(
        &self,
        verb: &str,
        set: &StatefulSet,
        member: &Member,
        result: &Result<(), Error>,
    ) {
        if result.is_err() {
            self.tell(verb, set, &member.name, result);
        }
    }

    async fn create(&self, scene: &Scene<'_>, member: &Member, updated: bool) -> Result<(), Error> {
        let set = scene.set;
        let fresh = match self.make_claims(scene, member).await {
            Ok(fresh) => fresh,
            Err(e) => {
                let failed = Err(e);
                self.tell("Create", set, &member.name, &failed);
                return failed;
            }
        };
        let revision = match updated {
            true => &scene.history.update,
            false => &scene.history.current,
        };
        let template = History::template(revision).unwrap_or_default();
        let pod = identity::pod(set, &template, revision.name(), member.ordinal);
        self.expectations.expect_creations(&set.key(), set.uid(), 1);
        let created = self.full_pods.create(&pod).await.map(drop);
        if let Err(e) = &created {
            self.expectations.creation_observed(&set.key());
            // It is there, though the cache did not show it: no failure worth telling.
            if e.is_already_exists() {
                return created;
            }
        } else {
            let owned = self.own_claims(scene, member, &fresh).await;
            self.tell_failure("Update", set, member, &owned);
            owned?;
        }
        self.tell("Create", set, &member.name, &created);
        created
    }

    /// The very pod that was decided on: another of its name may be there by now.
    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let key = set.key();
        self.expectations
            .expect_deletions(&key, set.uid(), [pod.uid().to_owned()]);
        let api = self.pods.within(pod.namespace());
        let deleted = api
            .delete(pod.name(), &DeleteOptions::with_uid(pod.uid()))
            .await;
        let deleted = match deleted {
            Ok(()) => Ok(()),
            Err(e) => {
                self.expectations.deletion_observed(&key, pod.uid());
                if e.is_not_found() { Ok(()) } else { Err(e) }
            }
        };
        self.tell("Delete", set, pod.name(), &deleted);
        deleted
    }

    async fn repair(&self, scene: &Scene<'_>, member: &Member) -> Result<(), Error> {
        let set = scene.set;
        let repaired = async {
            let fresh = self.make_claims(scene, member).await?;
            self.own_claims(scene, member, &fresh).await?;
            let api = self.full_pods.within(set.namespace());
            let live = api.get(&member.name).await?;
            let mut whole = live.clone();
            identity::make_whole(set, &mut whole, member.ordinal);
            if whole != live {
                self.full_pods.replace(&whole).await?;
            }
            Ok(())
        };
        let repaired = repaired.await;
        if !repaired.as_ref().is_err_and(Error::is_conflict) {
            self.tell("Update", set, &member.name, &repaired);
        }
        repaired
    }

    /// Makes the pod's claims that are missing, and returns those.
    async fn make_claims(
        &self,
        scene: &Scene<'_>,
        member: &Member,
    ) -> Result<Vec<Arc<PersistentVolumeClaim>>, Error> {
        let mut failure = None;
        let mut fresh = Vec::new();
        for claim in claims::wanted(scene.set, member.ordinal) {
            let name = claim.name().to_owned();
            if let Some(there) = scene.claims.get(&name) {
                if there.metadata.deletion_timestamp.is_some() {
                    let status = Status {
                        message: format!("pvc {name} is being deleted"),
                        ..Status::internal("")
                    };
                    failure = Some(status.into());
                }
                continue;
            }
            let created = self.claim_api.create(&claim).await;
            if !created.as_ref().is_err_and(Error::is_already_exists) {
                self.tell_claim(scene.set, member, &claim, created.as_ref().err());
            }
            match created {
                Ok(created) => fresh.push(Arc::new(created)),
                Err(e) => failure = Some(e),
            }
        }
        failure.map_or(Ok(fresh), Err)
    }

    fn tell_claim(
        &self,
        set: &StatefulSet,
        member: &Member,
        claim: &PersistentVolumeClaim,
        failure: Option<&Error>,
    ) {
        let (claim, pod, set_name) = (claim.name(), &member.name, set.name());
        let (reason, message) = match failure {
            None => (
                "SuccessfulCreate",
                format!("Create Claim {claim} Pod {pod} in StatefulSet {set_name} success"),
            ),
            Some(e) => (
                "FailedCreate",
                format!(
                    "Create Claim {claim} for Pod {pod} in StatefulSet {set_name} failed error: {e}"
                ),
            ),
        };
        self.events
            .event(&reference(set), failure.is_some(), reason, message);
    }

    /// Gives the pod's claims the owners that the set's policy wants. `fresh` are those that
    /// have just been made: the cache may not have them.
    async fn own_claims(
        &self,
        scene: &Scene<'_>,
        member: &Member,
        fresh: &[Arc<PersistentVolumeClaim>],
    ) -> Result<(), Error> {
        for (_, name) in claims::names(scene.set, member.ordinal) {
            let made = fresh.iter().find(|claim| claim.name() == name);
            let Some(claim) = made.or_else(|| scene.claims.get(&name)) else {
                continue;
            };
            if claims::conflicts(claim, scene.set, member) {
                let message = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim"
                );
                let about = reference(scene.set);
                self.events
                    .event(&about, true, "ConflictingController", message);
            }
            if let Some(owners) = claims::new_owners(claim, scene.set, member) {
                let mut changed = PersistentVolumeClaim::clone(claim);
                changed.metadata.owner_references = Some(owners).filter(|o| !o.is_empty());
                self.claim_api.replace(&changed).await?;
            }
        }
        Ok(())
    }
}
