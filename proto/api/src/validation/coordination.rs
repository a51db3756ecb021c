//! Leases.

use meta::field::ErrorList;
use meta::validation as format;

use super::at::At;
use super::{Rules, any_update};

pub(super) const RULES: &[Rules] = &[Rules {
    group: "coordination.k8s.io",
    kind: "Lease",
    name: format::dns1123_subdomain,
    object: |at, errors| lease(&at.get("spec"), errors),
    update: any_update,
    status: any_update,
}];

fn lease(spec: &At<'_>, errors: &mut ErrorList) {
    let duration = spec.get("leaseDurationSeconds");
    if duration.int().is_some_and(|d| d <= 0) {
        duration.invalid(errors, "must be greater than 0");
    }
    spec.get("leaseTransitions").non_negative(errors);
    let holder = spec.get("holderIdentity");
    if holder.is_set() && holder.text().is_empty() {
        holder.invalid(errors, "must not be empty");
    }
    if spec.get("preferredHolder").is_given() && !spec.get("strategy").is_given() {
        spec.get("preferredHolder")
            .forbidden(errors, "may only be specified if `strategy` is defined");
    }
}
