//! Devices that have to become ready before a pod can use them (KEP-5007).

use std::time::Duration;

use client::Object as _;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::cache::devices::allocation_of;

/// Whether the devices of an allocated claim are ready; or why they never will be.
pub fn is_ready(claim: &ResourceClaim) -> Result<bool, String> {
    let Some(allocation) = allocation_of(claim) else {
        return Ok(false);
    };
    let status = claim.status.as_ref().and_then(|s| s.devices.as_deref());
    let results = allocation
        .devices
        .as_ref()
        .and_then(|d| d.results.as_deref());
    for result in results.unwrap_or_default() {
        let wanted = result.binding_conditions.as_deref().unwrap_or_default();
        if wanted.is_empty() {
            continue;
        }
        let known = status.unwrap_or_default().iter().find(|d| {
            d.device == result.device && d.driver == result.driver && d.pool == result.pool
        });
        let Some(known) = known else {
            return Ok(false);
        };
        let conditions = known.conditions.as_deref().unwrap_or_default();
        let holds = |ty: &String| -> Option<&Condition> {
            conditions
                .iter()
                .find(|c| c.type_ == *ty && c.status == "True")
        };
        let failures = result.binding_failure_conditions.as_deref();
        if let Some(failed) = failures.unwrap_or_default().iter().find_map(holds) {
            return Err(format!(
                "device binding failed: claim={}, reason={}, message={:?}",
                claim.name(),
                failed.reason,
                failed.message
            ));
        }
        if !wanted.iter().all(|ty| holds(ty).is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether devices of an allocated claim have to become ready first.
pub fn has_conditions(claim: &ResourceClaim) -> bool {
    let devices = allocation_of(claim).and_then(|a| a.devices.as_ref());
    let mut results = devices
        .and_then(|d| d.results.as_ref())
        .into_iter()
        .flatten();
    results.any(|r| r.binding_conditions.as_ref().is_some_and(|c| !c.is_empty()))
}

/// Whether they have had long enough to.
pub fn is_overdue(claim: &ResourceClaim, timeout: Duration, now: jiff::Timestamp) -> bool {
    let since = allocation_of(claim).and_then(|a| a.allocation_timestamp.as_ref());
    has_conditions(claim)
        && since.is_some_and(|since| {
            u64::try_from((now - since.0).get_seconds()).is_ok_and(|s| s > timeout.as_secs())
                || now.duration_since(since.0)
                    > jiff::SignedDuration::try_from(timeout).unwrap_or_default()
        })
}
