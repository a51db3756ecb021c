//! PreBind of DynamicResources: claims learn what they have been given, and for which pod;
//! and what has to be taken back. I/O.

use std::sync::Arc;
use std::time::Duration;

use client::{DeleteOptions, Object as _, Patch, PatchOptions};
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{
    ResourceClaim, ResourceClaimConsumerReference, ResourceClaimStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use crate::bind::Binder;
use crate::cache::devices::{allocation_of, is_reserved_for};
use crate::framework::Relief;
use crate::model::PodInfo;
use crate::plugins::dynamic_resources::extended::{Mappings, UNNAMED};
use crate::plugins::dynamic_resources::{
    Promise, Promised, has_conditions, is_overdue, is_ready, needs_reservation,
};
use crate::scheduler::Scheduler;

/// Keeps a claim as long as its devices are allocated (`resourceapi.Finalizer`).
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// How often a write is tried that others' writes come before.
const ATTEMPTS: usize = 5;
/// The pause between them.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a pod's claims are not ready for it. The texts are upstream's.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("{what}: {error}")]
    Api { what: String, error: client::Error },
    #[error("{0}")]
    Refused(String),
}

fn api(what: impl Into<String>) -> impl FnOnce(client::Error) -> ClaimError {
    let what = what.into();
    |error| ClaimError::Api { what, error }
}

impl Scheduler {
    /// Writes what the pod's claims get, and waits until the devices are ready. `written` are
    /// the claims as they are now, for [`Binder::unreserve`].
    pub(crate) async fn bind_devices(
        &self,
        pod: &PodInfo,
        promise: &Promise,
        node: &str,
        written: &mut Vec<Arc<ResourceClaim>>,
    ) -> Result<(), ClaimError> {
        for promised in &promise.claims {
            let claim = if needs_reservation(&promised.claim, pod) {
                let conditions = promise.settings.features.binding_conditions;
                let claims_made = &self.metrics.claims_made;
                let claim = self
                    .binder
                    .bind_claim(pod, promised, conditions, written, claims_made);
                let claim = Arc::new(claim.await?);
                self.claim_changed(&claim);
                claim
            } else {
                Arc::clone(&promised.claim)
            };
            written.push(claim);
        }
        let waits = promise.settings.features.binding_conditions
            && written.iter().any(|claim| has_conditions(claim));
        if !waits {
            return Ok(());
        }
        self.binder.waits_for_devices(pod, node);
        let timeout = promise.settings.binding_timeout;
        let waiting = async {
            loop {
                let changed = self.awaited_changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.are_ready(written, timeout)? {
                    return Ok(());
                }
                changed.await;
            }
        };
        let began = tokio::time::Instant::now();
        let outcome = tokio::time::timeout(timeout, waiting).await;
        let overdue = "device binding timeout: context deadline exceeded".to_owned();
        let outcome = outcome.unwrap_or(Err(ClaimError::Refused(overdue)));
        let status = match &outcome {
            Ok(()) => "success",
            Err(why) if why.to_string().starts_with("device binding timeout") => "timeout",
            Err(why) if why.to_string().starts_with("device binding failed") => "failed",
            Err(_) => "error",
        };
        let drivers: Vec<(&str, bool)> = written.iter().flat_map(|c| drivers(c)).collect();
        let profile = &pod.scheduler_name;
        self.metrics
            .waited_for_devices(profile, &drivers, status, began.elapsed());
        outcome
    }

    fn are_ready(
        &self,
        claims: &mut [Arc<ResourceClaim>],
        timeout: Duration,
    ) -> Result<bool, ClaimError> {
        let state = self.lock();
        for claim in claims {
            let key = claim.key();
            let Some(now) = state.cache.devices.claim(&key) else {
                let gone = format!("could not find *v1.ResourceClaim \"{key}\"");
                return Err(ClaimError::Refused(gone));
            };
            *claim = Arc::clone(now);
            if is_ready(claim).map_err(ClaimError::Refused)? {
                continue;
            }
            if is_overdue(claim, timeout, Timestamp::now()) {
                let overdue = format!("device binding timeout: claim={}", claim.name());
                return Err(ClaimError::Refused(overdue));
            }
            return Ok(false);
        }
        Ok(true)
    }
}

/// The drivers of a claim's devices, and whether each device had to become ready.
fn drivers(claim: &ResourceClaim) -> Vec<(&str, bool)> {
    let devices = allocation_of(claim).and_then(|a| a.devices.as_ref());
    let results = devices.and_then(|d| d.results.as_deref());
    let results = results.unwrap_or_default().iter();
    let conditional = |conditions: &Option<Vec<String>>| {
        conditions
            .as_ref()
            .is_some_and(|conditions| !conditions.is_empty())
    };
    results
        .map(|r| (r.driver.as_str(), conditional(&r.binding_conditions)))
        .collect()
}

impl Binder {
    /// Writes into a claim what it gets and that the pod uses it; `made` is told of a claim
    /// that is created.
    async fn bind_claim(
        &self,
        pod: &PodInfo,
        promised: &Promised,
        stamped: bool,
        made: &mut Vec<Arc<ResourceClaim>>,
        claims_made: &prometheus::IntCounterVec,
    ) -> Result<ResourceClaim, ClaimError> {
        let claims = self.devices.within(pod.key.namespace());
        let mut claim = (*promised.claim).clone();
        let mut place = None;
        if claim.name() == UNNAMED {
            claim.metadata.name = None;
            claim.metadata.uid = None;
            let what = format!("create claim for extended resources {}/", claim.namespace());
            let created = claims.create(&claim).await;
            let status = if created.is_ok() {
                "success"
            } else {
                "failure"
            };
            claims_made.with_label_values(&[status]).inc();
            claim = created.map_err(api(what))?;
            place = Some(made.len());
            made.push(Arc::new(claim.clone()));
        }
        let mut attempt = 0;
        let bound = loop {
            attempt += 1;
            let outcome = self
                .write_claim(claim.clone(), promised, pod, stamped)
                .await;
            match outcome {
                Err(ClaimError::Api { error, .. }) if error.is_conflict() && attempt < ATTEMPTS => {
                }
                outcome => break outcome?,
            }
            tokio::time::sleep(PAUSE).await;
            let what = format!("get updated claim {} after conflict", claim.key());
            claim = claims.get(claim.name()).await.map_err(api(what))?;
        };
        if let Some(mappings) = &promised.mappings {
            self.tell_pod(pod, &bound, mappings).await?;
        }
        if let Some(place) = place {
            // The caller keeps the version that is bound.
            made.remove(place);
        }
        Ok(bound)
    }

    async fn write_claim(
        &self,
        mut claim: ResourceClaim,
        promised: &Promised,
        pod: &PodInfo,
        stamped: bool,
    ) -> Result<ResourceClaim, ClaimError> {
        let claims = self.devices.within(pod.key.namespace());
        let key = claim.key();
        let refuse =
            |what: &str| ClaimError::Refused(format!("claim {key} {what} in the meantime"));
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(refuse("got deleted"));
        }
        if let Some(allocation) = &promised.allocation {
            if allocation_of(&claim).is_some() {
                return Err(refuse("got allocated elsewhere"));
            }
            let finalizers = claim.metadata.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
                finalizers.push(FINALIZER.to_owned());
                let what = format!("add finalizer to claim {key}");
                claim = claims.replace(&claim).await.map_err(api(what))?;
            }
            let status = claim.status.get_or_insert_default();
            status.allocation = Some((**allocation).clone());
        }
        let status = claim.status.get_or_insert_default();
        let reserved = status.reserved_for.get_or_insert_default();
        reserved.push(ResourceClaimConsumerReference {
            api_group: None,
            resource: "pods".to_owned(),
            name: pod.key.name().to_owned(),
            uid: pod.uid.to_string(),
        });
        if stamped {
            let Some(allocation) = &mut status.allocation else {
                return Err(refuse("got deallocated elsewhere"));
            };
            let now = || Time(Timestamp::now());
            allocation.allocation_timestamp.get_or_insert_with(now);
        }
        let what = if promised.allocation.is_some() {
            format!("add allocation and reservation to claim {key}")
        } else {
            format!("add reservation to claim {key}")
        };
        claims.replace_status(&claim).await.map_err(api(what))
    }

    /// Notes in the pod's status which claim its extended resources come from.
    async fn tell_pod(
        &self,
        pod: &PodInfo,
        claim: &ResourceClaim,
        mappings: &Mappings,
    ) -> Result<(), ClaimError> {
        let status = json!({"extendedResourceClaimStatus": {
            "requestMappings": mappings,
            "resourceClaimName": claim.name(),
        }});
        let what = format!("update pod {} ExtendedResourceClaimStatus", pod.key);
        self.patch(pod, status).await.map_err(api(what))
    }

    /// Unreserve: the pod does not use these claims after all.
    pub(crate) async fn unreserve(&self, pod: &PodInfo, claims: &[Arc<ResourceClaim>]) {
        for claim in claims {
            let outcome = if crate::plugins::dynamic_resources::extended::is_for(claim, pod) {
                self.delete_claim(claim).await
            } else if allocation_of(claim).is_some() && is_reserved_for(claim, &pod.uid) {
                let patch = json!({
                    "metadata": {"uid": claim.uid()},
                    "status": {"reservedFor": [{"$patch": "delete", "uid": pod.uid}]},
                });
                let claims = self.devices.within(claim.namespace());
                let options = PatchOptions::default();
                claims
                    .patch_status(claim.name(), &Patch::Strategic(patch), &options)
                    .await
                    .map(drop)
            } else {
                Ok(())
            };
            if let Err(error) = outcome
                && !error.is_not_found()
            {
                tracing::warn!("cannot take claim {} back: {error}", claim.key());
            }
        }
    }

    /// Frees what keeps a pod waiting.
    pub(crate) async fn relieve(&self, relief: &Relief) -> client::Result<()> {
        match relief {
            Relief::None => Ok(()),
            Relief::Deallocate(claim) => {
                let mut claim = (**claim).clone();
                claim.status = Some(ResourceClaimStatus::default());
                let claims = self.devices.within(claim.namespace());
                claims.replace_status(&claim).await.map(drop)
            }
            Relief::Delete(claim) => self.delete_claim(claim).await,
        }
    }

    /// Deletes a claim that the scheduler has made.
    async fn delete_claim(&self, claim: &ResourceClaim) -> client::Result<()> {
        let claims = self.devices.within(claim.namespace());
        let mut claim = claim.clone();
        for attempt in 1.. {
            let finalizers = claim.metadata.finalizers.get_or_insert_default();
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            match claims.replace(&claim).await {
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
                outcome => {
                    outcome?;
                    break;
                }
            }
            tokio::time::sleep(PAUSE).await;
            claim = claims.get(claim.name()).await?;
        }
        claims.delete(claim.name(), &DeleteOptions::default()).await
    }
}
