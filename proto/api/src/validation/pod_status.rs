//! What an update of a pod's status may say: what has ended stays ended, and what it tells of is
//! in the spec.

use std::collections::{HashMap, HashSet};

use meta::field::{ErrorList, FieldError};
use meta::validation as format;
use serde_json::Value;

use super::at::At;
use super::metadata::immutable;
use super::{container, required};

/// What the system itself says of a pod.
const SYSTEM_CONDITIONS: [&str; 4] = ["PodScheduled", "Ready", "Initialized", "ContainersReady"];

/// One address of each family; what was there before may stay as it is.
fn addresses(list: &At<'_>, before: &At<'_>, errors: &mut ErrorList) {
    let known: HashSet<&str> = before.items().map(|item| item.get("ip").text()).collect();
    let mut families = [0, 0];
    let mut unreadable = None;
    for (i, item) in list.items().enumerate() {
        let ip = item.get("ip").moved(item.path.clone());
        if !known.contains(ip.text()) {
            ip.ip(errors);
        }
        match format::ip::parse_ip_sloppy(ip.text()) {
            Some(address) => families[usize::from(address.is_ipv6())] += 1,
            None => unreadable = unreadable.or(Some((i, ip.text().to_owned()))),
        }
    }
    if list.len() < 2 {
        return;
    }
    if let Some((i, ip)) = &unreadable {
        let why = format!("failed to check for dual stack with error:invalid IP[{i}]: {ip}");
        errors.push(FieldError::internal(&list.path, why));
    }
    if unreadable.is_some() || families.contains(&0) || list.len() > 2 {
        list.invalid(errors, "may specify no more than one IP for each IP family");
    }
}

/// Whether the end of one of these containers can make all of the pod's begin anew (KEP-5532).
fn restarts_all(containers: &At<'_>) -> bool {
    let mut rules = containers
        .items()
        .flat_map(|container| container.get("restartPolicyRules").items());
    rules.any(|rule| rule.get("action").text() == "RestartAllContainers")
}

/// Whether a container that ended with this exit code may run again: by its own rules, its own
/// policy, or its pod's (KEP-5307).
fn may_restart(container: &At<'_>, spec: &At<'_>, exit_code: i64) -> bool {
    let by_policy = |policy: &str| match policy {
        "OnFailure" => exit_code != 0,
        "Never" => false,
        _ => true,
    };
    let own = container.get("restartPolicy").text();
    if own.is_empty() {
        return by_policy(spec.get("restartPolicy").text());
    }
    let matches = |rule: &At<'_>| {
        let codes = rule.get("exitCodes");
        let listed = codes
            .get("values")
            .items()
            .any(|value| value.int() == Some(exit_code));
        match codes.get("operator").text() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    let mut rules = container.get("restartPolicyRules").items();
    let rule = rules.find(matches);
    rule.is_some_and(|rule| rule.get("action").text() == "Restart") || by_policy(own)
}

/// An update of the `status` subresource of a pod.
pub(super) fn status(new: &At<'_>, old: &At<'_>, errors: &mut ErrorList) {
    let (spec, was_spec) = (new.get("spec"), old.get("spec"));
    let (said, before) = (new.get("status"), old.get("status"));
    for condition in said.get("conditions").items() {
        let generation = condition.get("observedGeneration");
        if generation.int().is_some_and(|g| g < 0) {
            generation.invalid(errors, "must be a non-negative integer");
        }
        // Upstream names the Go field here.
        let kind = condition.get("type").renamed("Type");
        if !SYSTEM_CONDITIONS.contains(&kind.text()) {
            kind.check(errors, format::qualified_name(kind.text()));
        }
    }
    nominated(&said, &before, &was_spec, errors);
    let generation = said.get("observedGeneration");
    if generation.int().is_some_and(|g| g < 0) {
        generation.invalid(errors, "must be a non-negative integer");
    }
    immutable(&said.get("qosClass"), &before.get("qosClass"), errors);
    transitions(&said, &before, &was_spec, errors);
    claims(&said.get("resourceClaimStatuses"), &spec, errors);
    extended_claim(&said.get("extendedResourceClaimStatus"), &spec, errors);
    addresses(&said.get("podIPs"), &before.get("podIPs"), errors);
    let hosts = said.get("hostIPs");
    if let Some(first) = hosts.items().next()
        && first.get("ip").text() != said.get("hostIP").text()
    {
        first.get("ip").invalid(errors, "must be equal to `hostIP`");
    }
    addresses(&hosts, &before.get("hostIPs"), errors);
    let windows = spec.get("os").get("name").text() == "windows";
    for (list, _) in LISTS {
        users(&said.get(list), windows, errors);
    }
    for (list, containers) in LISTS {
        allocated(&said.get(list), &spec.get(containers), errors);
    }
}

/// The lists of statuses, and whose they are.
const LISTS: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
];

/// Containers by name.
fn named<'a>(containers: &At<'a>) -> HashMap<&'a str, At<'a>> {
    let items = containers.items();
    items.map(|c| (c.get("name").text(), c)).collect()
}

fn nominated(said: &At<'_>, before: &At<'_>, spec: &At<'_>, errors: &mut ErrorList) {
    let node = said.get("nominatedNodeName");
    if !node.is_given() || node.text() == before.get("nominatedNodeName").text() {
        return;
    }
    node.check(errors, format::dns1123_subdomain(node.text()));
    if spec.get("nodeName").is_given() {
        node.forbidden(
            errors,
            "may not be set on pods that are already bound to a node",
        );
    }
}

/// Containers that have ended for good stay ended.
fn transitions(said: &At<'_>, before: &At<'_>, spec: &At<'_>, errors: &mut ErrorList) {
    let all_again = LISTS[..2]
        .iter()
        .any(|(_, kind)| restarts_all(&spec.get(kind)));
    for (list, kind) in LISTS {
        let ephemeral = kind == "ephemeralContainers";
        if all_again && !ephemeral {
            continue;
        }
        let statuses = said.get(list);
        let containers = named(&spec.get(kind));
        let mut by_name: HashMap<&str, Vec<At<'_>>> = HashMap::new();
        for status in statuses.items() {
            let same = by_name.entry(status.get("name").text());
            same.or_default().push(status);
        }
        for (i, earlier) in before.get(list).items().enumerate() {
            let Some(ended) = earlier.get("state").raw("terminated") else {
                continue;
            };
            let code = ended.get("exitCode").and_then(Value::as_i64).unwrap_or(0);
            let name = earlier.get("name").text();
            let container = containers.get(name);
            if !ephemeral && container.is_some_and(|c| may_restart(c, spec, code)) {
                continue;
            }
            for after in by_name.get(name).into_iter().flatten() {
                if after.get("state").raw("terminated").is_none() {
                    // The place is the one that it had before.
                    errors.push(FieldError::forbidden(
                        &statuses.path.index(i).child("state"),
                        "may not be transitioned to non-terminated state",
                    ));
                }
            }
        }
    }
}

fn claim_name(name: &At<'_>, errors: &mut ErrorList) {
    name.check(errors, format::dns1123_subdomain(name.text()));
}

/// The claims that were made for the pod.
fn claims(statuses: &At<'_>, spec: &At<'_>, errors: &mut ErrorList) {
    let claims = spec.get("resourceClaims");
    let known: HashSet<&str> = claims.items().map(|c| c.get("name").text()).collect();
    let mut seen = HashSet::new();
    for status in statuses.items() {
        let name = status.get("name");
        if !known.contains(name.text()) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(&name.path, name.text(), detail));
        }
        if !seen.insert(name.text()) {
            name.duplicate(errors);
        }
        if status.get("resourceClaimName").is_set() {
            claim_name(&status.get("resourceClaimName"), errors);
        }
    }
}

/// The claim that was made for the extended resources of the pod (KEP-5004).
fn extended_claim(status: &At<'_>, spec: &At<'_>, errors: &mut ErrorList) {
    if !status.is_set() {
        return;
    }
    let mappings = status.get("requestMappings");
    if mappings.len() == 0 {
        mappings.required(errors, "at least one request mapping is required");
    }
    let mut containers = named(&spec.get("initContainers"));
    containers.extend(named(&spec.get("containers")));
    let mut seen = HashSet::new();
    for mapping in mappings.items() {
        let (name, resource) = (mapping.get("containerName"), mapping.get("resourceName"));
        let wrong = match containers.get(name.text()) {
            None => Some((
                &name,
                "must match the name of an entry in spec.initContainers.name or spec.containers.name",
            )),
            Some(container) => {
                let requests = container.get("resources").get("requests");
                requests.raw(resource.text()).is_none().then_some((
                    &resource,
                    "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests",
                ))
            }
        };
        if let Some((field, detail)) = wrong {
            errors.push(FieldError::invalid(&field.path, field.text(), detail));
        }
        let request = mapping.get("requestName");
        // Upstream does not say of which mapping.
        let path = status.path.child("requestName");
        for message in format::dns1123_label(request.text()) {
            errors.push(FieldError::invalid(&path, request.text(), message));
        }
        if !seen.insert([name.text(), resource.text(), request.text()]) {
            for field in [&name, &resource, &request] {
                field.duplicate(errors);
            }
        }
    }
    let name = status.get("resourceClaimName");
    if required(&name, errors) {
        claim_name(&name, errors);
    }
}

/// Who a container runs as.
fn users(statuses: &At<'_>, windows: bool, errors: &mut ErrorList) {
    for status in statuses.items() {
        let linux = status.get("user").get("linux");
        if !linux.is_set() {
            continue;
        }
        if windows {
            linux.forbidden(errors, "cannot be set for a windows pod");
            continue;
        }
        for id in ["uid", "gid"] {
            let id = linux.get(id);
            id.check(errors, container::id_messages(&id));
        }
        for group in linux.get("supplementalGroups").items() {
            group.check(errors, container::id_messages(&group));
        }
    }
}

/// The health of the devices that a container has (KEP-4680).
fn allocated(statuses: &At<'_>, containers: &At<'_>, errors: &mut ErrorList) {
    const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];
    const MESSAGE_LIMIT: usize = 1024;
    let by_name = named(containers);
    for status in statuses.items() {
        let resources = status.get("allocatedResourcesStatus");
        if containers.path.to_string().ends_with("ephemeralContainers") {
            if resources.is_set() {
                resources.forbidden(errors, "cannot be set for a container status");
            }
            continue;
        }
        let container = by_name.get(status.get("name").text());
        for resource in resources.items() {
            let name = resource.get("name");
            if let Some(container) = container
                && let Some(detail) = not_asked_for(name.text(), container)
            {
                errors.push(FieldError::invalid(&name.path, name.text(), detail));
            }
            let mut ids = HashSet::new();
            for device in resource.get("resources").items() {
                let health = device.get("health");
                health.one_of(errors, &HEALTH);
                let message = device.get("message");
                if message.is_set() && !message.is_given() {
                    message.required(errors, "must be non-empty if specified");
                } else if message.text().len() > MESSAGE_LIMIT {
                    errors.push(FieldError::too_long(&message.path, MESSAGE_LIMIT));
                }
                let id = device.get("resourceID");
                if !ids.insert(id.text()) {
                    id.duplicate(errors);
                }
            }
        }
    }
}

fn not_asked_for(name: &str, container: &At<'_>) -> Option<&'static str> {
    let resources = container.get("resources");
    if name.starts_with("claim:") {
        let known = resources.get("claims").items().any(|claim| {
            let (of, request) = (claim.get("name").text(), claim.get("request").text());
            match request {
                "" => name == format!("claim:{of}"),
                request => name == format!("claim:{of}/{request}"),
            }
        });
        return (!known).then_some("must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty");
    }
    let known = resources.get("requests").raw(name).is_some();
    (!known).then_some("must match one of the container's resource requests")
}
