//! Nodes.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
use super::{Rules, requirements};

pub(super) const RULES: &[Rules] = &[Rules {
    group: "",
    kind: "Node",
    name: format::dns1123_subdomain,
    object: node,
    update,
    status: |new, _, errors| status(new, errors),
}];

fn node(node: &At<'_>, errors: &mut ErrorList) {
    let spec = node.get("spec");
    let mut seen = HashSet::new();
    // Upstream takes taints for metadata here.
    let taints = spec
        .get("taints")
        .moved(node.get("metadata").path.child("taints"));
    for taint in taints.items() {
        let (key, effect) = (taint.get("key"), taint.get("effect"));
        key.check(errors, format::qualified_name(key.text()));
        taint
            .get("value")
            .check(errors, format::label_value(taint.get("value").text()));
        if effect.is_given() {
            effect.one_of(errors, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        } else {
            effect.required(errors, "");
        }
        if !seen.insert((key.text(), effect.text())) {
            let mut duplicate = ErrorList::new();
            taint.duplicate(&mut duplicate);
            for mut error in duplicate.0 {
                error.detail = "taints must be unique by key and effect pair".to_owned();
                errors.push(error);
            }
        }
    }
    let cidrs = spec.get("podCIDRs");
    let mut families = [0, 0];
    for cidr in cidrs.items() {
        cidr.cidr(errors);
        families[usize::from(cidr.text().contains(':'))] += 1;
    }
    if cidrs.len() > 1
        && cidrs
            .items()
            .any(|cidr| format::ip::parse_cidr_sloppy(cidr.text()).is_none())
    {
        let detail = "invalid PodCIDRs. failed to check with dual stack";
        errors.push(FieldError::internal(&cidrs.path, detail));
    }
    if cidrs.len() > 1 && families != [1, 1] {
        cidrs.invalid(
            errors,
            "may specify no more than one CIDR for each IP family",
        );
    }
    resources(node, errors);
    features(&node.get("status").get("declaredFeatures"), errors);
}

/// What a node says it can do (KEP-5328): `MyFeature` or `MyFeature/mySubFeature`, sorted.
fn features(features: &At<'_>, errors: &mut ErrorList) {
    let mut last: Option<&str> = None;
    for feature in features.items() {
        let name = feature.text();
        // Upstream tells of the order when it looks at the one before.
        match last {
            Some(last) if last == name => feature.duplicate(errors),
            Some(last) if last > name => {
                feature.invalid(errors, "list must be sorted alphabetically");
            }
            _ => {}
        }
        last = Some(name);
        if name.len() > format::SUBDOMAIN_MAX_LENGTH {
            let most = format::SUBDOMAIN_MAX_LENGTH;
            feature.invalid(
                errors,
                format!("invalid feature name {name:?}: must be no more than {most} characters"),
            );
        } else if !is_feature(name) {
            feature.invalid(
                errors,
                format!("invalid feature name {name:?}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"),
            );
        }
    }
}

fn is_feature(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
        && name.split('/').all(|segment| {
            segment.starts_with(|c: char| c.is_ascii_alphabetic())
                && segment.bytes().all(|b| b.is_ascii_alphanumeric())
        })
}

fn resources(node: &At<'_>, errors: &mut ErrorList) {
    let status = node.get("status");
    for list in ["capacity", "allocatable"] {
        let list = status.get(list);
        for (name, quantity) in list.entries() {
            // Upstream makes fields of the keys.
            let quantity = quantity.moved(list.path.child(name.to_owned()));
            requirements::amount(name, &quantity, errors);
        }
    }
}

fn status(node: &At<'_>, errors: &mut ErrorList) {
    resources(node, errors);
    let status = node.get("status");
    features(&status.get("declaredFeatures"), errors);
    let mut seen = HashSet::new();
    for address in status.get("addresses").items() {
        if !seen.insert((address.get("type").text(), address.get("address").text())) {
            address.duplicate(errors);
        }
    }
}

fn update(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (new, old) = (new.get("spec"), old.get("spec"));
    // Both may be set once.
    for field in ["podCIDRs", "providerID"] {
        let (new, old) = (new.get(field), old.get(field));
        if old.is_given() && new.value() != old.value() {
            let detail = if field == "podCIDRs" {
                "node updates may not change podCIDR except from \"\" to valid"
            } else {
                "node updates may not change providerID except from \"\" to valid"
            };
            errors.push(FieldError::forbidden(&new.path, detail));
        }
    }
    let (id, was) = (new.get("externalID"), old.get("externalID"));
    if id.text() != was.text() {
        id.forbidden(errors, "may not be updated");
    }
}
