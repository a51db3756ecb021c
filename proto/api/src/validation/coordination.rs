//! Leases, and candidates for those that are handed out by version.

use meta::field::ErrorList;
use meta::validation as format;

use super::at::At;
use super::metadata::immutable;
use super::{Rules, any_update, required, semver};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "coordination.k8s.io",
        kind: "Lease",
        name: format::dns1123_subdomain,
        object: |at, errors| lease(&at.get("spec"), errors),
        update: any_update,
        status: any_update,
    },
    Rules {
        group: "coordination.k8s.io",
        kind: "LeaseCandidate",
        name: format::config_map_key,
        object: |at, errors| candidate(&at.get("spec"), errors),
        update: |new, old, errors| {
            let (new, old) = (new.get("spec"), old.get("spec"));
            immutable(&new.get("leaseName"), &old.get("leaseName"), errors);
        },
        status: any_update,
    },
];

fn candidate(spec: &At<'_>, errors: &mut ErrorList) {
    required(&spec.get("leaseName"), errors);
    let (emulation, binary) = (spec.get("emulationVersion"), spec.get("binaryVersion"));
    let emulated = semver::parse(emulation.text());
    if emulation.is_given() && emulated.is_none() {
        emulation.invalid(errors, "must be a valid semantic version");
    }
    let own = semver::parse(binary.text());
    if required(&binary, errors) && own.is_none() {
        binary.invalid(errors, "must be a valid semantic version");
    }
    if let (Some(own), Some(emulated)) = (&own, &emulated)
        && own < emulated
    {
        binary.invalid(
            errors,
            "must be greater than or equal to `emulationVersion`",
        );
    }
    let strategy = spec.get("strategy");
    if !required(&strategy, errors) {
        return;
    }
    if strategy.text() == "OldestEmulationVersion" && emulated.is_none_or(|v| v.is_zero()) {
        emulation.required(
            errors,
            "must be specified when `strategy` is 'OldestEmulationVersion'",
        );
    }
    known_strategy(&strategy, errors);
}

/// A strategy of our own, or one of somebody's domain.
fn known_strategy(strategy: &At<'_>, errors: &mut ErrorList) {
    // Upstream says the field's name twice.
    let named = strategy.moved(strategy.path.child("strategy"));
    if strategy.text().contains('/') {
        named.check(errors, format::qualified_name(strategy.text()));
    } else {
        named.one_of(errors, &["OldestEmulationVersion"]);
    }
}

fn lease(spec: &At<'_>, errors: &mut ErrorList) {
    let duration = spec.get("leaseDurationSeconds");
    if duration.int().is_some_and(|d| d <= 0) {
        duration.invalid(errors, "must be greater than 0");
    }
    spec.get("leaseTransitions").non_negative(errors);
    let strategy = spec.get("strategy");
    if strategy.is_set() {
        known_strategy(&strategy, errors);
    }
    if spec.get("preferredHolder").is_given() && !spec.get("strategy").is_given() {
        spec.get("preferredHolder")
            .forbidden(errors, "may only be specified if `strategy` is defined");
    }
}
