//! What containers and pods ask for: requests, limits, claims, and how a resize goes.

use std::collections::{BTreeSet, HashSet};

use meta::field::{ErrorList, FieldError};
use meta::quantity::Quantity;
use meta::validation as format;
use serde_json::Value;

use super::at::{At, NOT_NEGATIVE};
use super::quota;

const NOT_INTEGER: &str = "must be an integer";

/// A quantity out of a tree.
pub(super) fn parse(value: Option<&Value>) -> Option<Quantity> {
    value?.as_str()?.parse().ok()
}

/// An amount of the resource `name`: not negative, and whole where halves mean nothing.
pub(super) fn amount(name: &str, quantity: &At<'_>, errors: &mut ErrorList) {
    let Some(amount) = parse(quantity.value()) else {
        return;
    };
    let mut invalid = |detail: &str| {
        let shown = amount.to_string();
        errors.push(FieldError::invalid(&quantity.path, shown, detail));
    };
    if amount.is_negative() {
        invalid(NOT_NEGATIVE);
    }
    if quota::is_integer(name) && !amount.is_whole() {
        invalid(NOT_INTEGER);
    }
}

fn is_huge(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// May be requested below its limit; extended resources and huge pages may not.
pub(super) fn overcommits(name: &str) -> bool {
    crate::resources::is_native(name) && !is_huge(name)
}

/// A list of amounts by the names of container resources.
pub(super) fn quantities(list: &At<'_>, errors: &mut ErrorList) {
    for (name, quantity) in list.entries() {
        quota::container_resource_name(name, &quantity, errors);
        amount(name, &quantity, errors);
    }
}

/// Requests and limits of a container.
pub(super) fn resources(resources: &At<'_>, claims: &HashSet<&str>, errors: &mut ErrorList) {
    requirements(resources, quota::container_resource_name, claims, errors);
}

/// Checks the name of a resource, at the amount of it.
type ResourceName = fn(&str, &At<'_>, &mut ErrorList);

fn requirements(
    resources: &At<'_>,
    resource_name: ResourceName,
    claims: &HashSet<&str>,
    errors: &mut ErrorList,
) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    for list in [&limits, &requests] {
        for (name, quantity) in list.entries() {
            resource_name(name, &quantity, errors);
            amount(name, &quantity, errors);
        }
    }
    let (mut huge, mut usual) = (false, false);
    for (name, quantity) in limits.entries().chain(requests.entries()) {
        huge |= is_huge(name);
        usual |= matches!(name, "cpu" | "memory");
        // The size of a page is in the name.
        let page = name
            .strip_prefix("hugepages-")
            .and_then(|size| size.parse::<Quantity>().ok());
        if let (Some(page), Some(asked)) = (page, parse(quantity.value())) {
            let page = page.value();
            if page <= 0 || asked.value() % page != 0 {
                quantity.invalid(
                    errors,
                    format!("{asked} is not positive integer multiple of {name}"),
                );
            }
        }
    }
    within_limits(&limits, &requests, errors);
    self::claims(&resources.get("claims"), claims, errors);
    if huge && !usual {
        resources.forbidden(errors, "HugePages require cpu or memory");
    }
}

fn within_limits(limits: &At<'_>, requests: &At<'_>, errors: &mut ErrorList) {
    for (name, request) in requests.entries() {
        let Some(limit) = limits.raw(name) else {
            if !overcommits(name) {
                errors.push(FieldError::required(
                    &limits.path,
                    "Limit must be set for non overcommitable resources",
                ));
            }
            continue;
        };
        let (Some(asked), Some(most)) = (parse(request.value()), parse(Some(limit))) else {
            continue;
        };
        let detail = if !overcommits(name) && asked != most {
            format!("must be equal to {name} limit of {most}")
        } else if asked > most {
            format!("must be less than or equal to {name} limit of {most}")
        } else {
            continue;
        };
        errors.push(FieldError::invalid(
            &requests.path,
            request.bad_value(),
            detail,
        ));
    }
}

fn claims(claims: &At<'_>, known: &HashSet<&str>, errors: &mut ErrorList) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.get("name").text(), claim.get("request"));
        if name.is_empty() {
            errors.push(FieldError::required(&claim.path, ""));
            continue;
        }
        if seen.contains(name) {
            errors.push(FieldError::duplicate(&claim.path, name));
        } else {
            let mut key = name.to_owned();
            if request.is_given() {
                request.check(errors, format::dns1123_label(request.text()));
                key = format!("{name}/{}", request.text());
            }
            let prefix = format!("{name}/");
            let next = seen.range(prefix.clone()..).next();
            let part_of = !request.is_given() && next.is_some_and(|k| k.starts_with(&prefix));
            if seen.contains(&key) || part_of {
                errors.push(FieldError::duplicate(&claim.path, key.as_str()));
            }
            seen.insert(key);
        }
        if !known.contains(name) {
            let mut error = FieldError::not_found(&claim.path, name);
            error.detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            if known.is_empty() {
                error.detail += " which is empty";
            } else {
                let mut names: Vec<&str> = known.iter().copied().collect();
                names.sort_unstable();
                error.detail += &format!(": {}", names.join(", "));
            }
            errors.push(error);
        }
    }
}

/// Requests and limits of a whole pod, which its containers share.
pub(super) fn of_pod(spec: &At<'_>, known: &HashSet<&str>, errors: &mut ErrorList) {
    let resources = spec.get("resources");
    if !resources.is_set() {
        return;
    }
    if spec.get("os").get("name").text() == "windows" {
        resources.forbidden(errors, "may not be set for a windows pod");
        return;
    }
    let claims = resources.get("claims");
    if claims.is_set() {
        claims.forbidden(errors, "claims may not be set for Resources at pod-level");
    }
    requirements(&resources, pod_resource_name, known, errors);
    for (name, request) in resources.get("requests").entries() {
        let (Some(asked), total) = (parse(request.value()), aggregate(spec, name)) else {
            continue;
        };
        if asked < total {
            request.invalid(
                errors,
                format!("must be greater than or equal to aggregate container requests of {total}"),
            );
        }
    }
    each_within(spec, &resources, errors);
}

fn pod_resource_name(name: &str, quantity: &At<'_>, errors: &mut ErrorList) {
    const RESOURCES: [&str; 3] = ["cpu", "hugepages-", "memory"];
    if !quota::resource_name(name, quantity, errors) {
        return;
    }
    if !quota::is_standard(name) {
        let detail = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(&quantity.path, name, detail));
    } else if !matches!(name, "cpu" | "memory") && !is_huge(name) {
        errors.push(FieldError::not_supported(&quantity.path, name, &RESOURCES));
    }
}

/// What all containers ask for together; the initializing ones run before the others.
fn aggregate(spec: &At<'_>, name: &str) -> Quantity {
    let asked = |container: &At<'_>| {
        let requests = container.get("resources").get("requests");
        parse(requests.raw(name)).unwrap_or_default()
    };
    let (mut sidecars, mut most) = (Quantity::default(), Quantity::default());
    for container in spec.get("initContainers").items() {
        let own = asked(&container);
        let mut needed = sidecars.clone();
        needed.add(&own);
        if container.get("restartPolicy").text() == "Always" {
            sidecars.add(&own);
        }
        if needed > most {
            most = needed;
        }
    }
    let mut total = sidecars;
    for container in spec.get("containers").items() {
        total.add(&asked(&container));
    }
    if most > total { most } else { total }
}

fn each_within(spec: &At<'_>, resources: &At<'_>, errors: &mut ErrorList) {
    let limits = resources.get("limits");
    for list in ["containers", "initContainers"] {
        for (i, container) in spec.get(list).items().enumerate() {
            for (name, own) in container.get("resources").get("limits").entries() {
                let (Some(own_limit), Some(limit)) = (parse(own.value()), parse(limits.raw(name)))
                else {
                    continue;
                };
                if own_limit > limit {
                    let path = resources
                        .path
                        .child(list)
                        .index(i)
                        .key(name)
                        .child("limits");
                    errors.push(FieldError::invalid(
                        &path,
                        own.bad_value(),
                        format!("must be less than or equal to pod limits of {limit}"),
                    ));
                }
            }
        }
    }
}

/// Whether a container is restarted when its resources change.
pub(super) fn resize_policy(policies: &At<'_>, never_restarts: bool, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for policy in policies.items() {
        let resource = policy.get("resourceName").moved(policies.path.clone());
        let restart = policy.get("restartPolicy").moved(policies.path.clone());
        if !seen.insert(resource.text()) {
            errors.push(FieldError::duplicate(&policy.path, resource.text()));
        }
        for (field, known) in [
            (&resource, ["cpu", "memory"]),
            (&restart, ["NotRequired", "RestartContainer"]),
        ] {
            if field.is_given() {
                field.one_of(errors, &known);
            } else {
                field.required(errors, "");
            }
        }
        if never_restarts && restart.text() != "NotRequired" {
            restart.invalid(
                errors,
                "must be 'NotRequired' when pod `restartPolicy` is 'Never'",
            );
        }
    }
}
