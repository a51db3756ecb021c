//! What resource-claim-controller counts, under upstream's names.

use std::collections::BTreeMap;

use client::informer::Store;
use k8s_openapi::api::resource::v1::ResourceClaim;

use super::POD_CLAIM_NAME;
use crate::metrics::{Meter, number};

const EXTENDED: &str = "resource.kubernetes.io/extended-resource-claim";

/// Whether a claim is one of those who look after devices.
pub fn admin_access(claim: &ResourceClaim) -> &'static str {
    let devices = claim.spec.devices.as_ref();
    let mut requests = devices.iter().flat_map(|d| d.requests.iter().flatten());
    let is = |exactly: &k8s_openapi::api::resource::v1::ExactDeviceRequest| {
        exactly.admin_access == Some(true)
    };
    match requests.any(|r| r.exactly.as_ref().is_some_and(is)) {
        true => "true",
        false => "false",
    }
}

/// Counts the claims that there are whenever it is asked for.
pub fn count_claims(meter: &Meter, claims: &Store<ResourceClaim>) -> prometheus::Result<()> {
    let gauges = meter.gauges(
        "resourceclaim_controller_resource_claims",
        "Claims that there are.",
        &["allocated", "admin_access", "source"],
    )?;
    let claims = claims.clone();
    meter.before_gathering(move || {
        let mut counts: BTreeMap<[&str; 3], usize> = BTreeMap::new();
        for claim in claims.list() {
            let allocated = claim
                .status
                .as_ref()
                .is_some_and(|s| s.allocation.is_some());
            let annotations = claim.metadata.annotations.as_ref();
            let annotation = |name: &str| annotations.and_then(|a| a.get(name));
            let source = if annotation(EXTENDED).is_some_and(|v| v == "true") {
                "extended_resource"
            } else if annotation(POD_CLAIM_NAME).is_some_and(|v| !v.is_empty()) {
                "resource_claim_template"
            } else {
                ""
            };
            let allocated = if allocated { "true" } else { "false" };
            let labels = [allocated, admin_access(&claim), source];
            *counts.entry(labels).or_default() += 1;
        }
        gauges.reset();
        for (labels, count) in counts {
            gauges.with_label_values(&labels).set(number(count));
        }
    });
    Ok(())
}
