//! Pods and pod templates.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
use super::container::{self, Role};
use super::volume::{self, Volumes};
use super::{Rules, any_update, metadata, pod_update};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "",
        kind: "Pod",
        name: format::dns1123_subdomain,
        object: pod,
        update: pod_update::update,
        status: pod_update::status,
    },
    Rules {
        group: "",
        kind: "PodTemplate",
        name: format::dns1123_subdomain,
        object: |at, errors| template(&at.get("template"), errors),
        update: any_update,
        status: any_update,
    },
];

fn pod(pod: &At<'_>, errors: &mut ErrorList) {
    spec(&pod.get("spec"), errors);
    host_ports(&pod.get("spec"), true, errors);
}

/// What only a pod that runs may have.
pub(super) fn created(pod: &At<'_>, errors: &mut ErrorList) {
    let ephemeral = pod.get("spec").get("ephemeralContainers");
    if ephemeral.is_given() {
        ephemeral.forbidden(errors, "cannot be set on create");
    }
}

/// The template of a workload: metadata and spec.
pub(super) fn template(template: &At<'_>, errors: &mut ErrorList) {
    metadata::labels(&template.get("metadata").get("labels"), errors);
    spec(&template.get("spec"), errors);
    host_ports(&template.get("spec"), false, errors);
    let ephemeral = template.get("spec").get("ephemeralContainers");
    if ephemeral.is_given() {
        ephemeral.forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

fn spec(spec: &At<'_>, errors: &mut ErrorList) {
    volume::volumes(&spec.get("volumes"), errors);
    let volumes = Volumes::named(&spec.get("volumes"));
    let pod = container::Pod {
        volumes: &volumes,
        grace_period: spec.get("terminationGracePeriodSeconds").int(),
        claims: spec
            .get("resourceClaims")
            .items()
            .map(|c| c.get("name").text())
            .collect(),
        host_users: spec.raw("hostUsers") != Some(&false.into()),
    };
    let mut names = HashSet::new();
    container::containers(
        &spec.get("containers"),
        Role::Regular,
        &pod,
        &mut names,
        errors,
    );
    container::containers(
        &spec.get("initContainers"),
        Role::Init,
        &pod,
        &mut names,
        errors,
    );
    container::containers(
        &spec.get("ephemeralContainers"),
        Role::Ephemeral,
        &pod,
        &mut names,
        errors,
    );
    container::resources(&spec.get("resources"), None, errors);

    spec.get("restartPolicy")
        .one_of(errors, &["Always", "OnFailure", "Never"]);
    spec.get("dnsPolicy").one_of(
        errors,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    metadata::labels(&spec.get("nodeSelector"), errors);
    security_context(spec, errors);
    affinity(&spec.get("affinity"), errors);
    dns_config(spec, errors);
    gates(spec, errors);
    spread(&spec.get("topologySpreadConstraints"), errors);
    for (field, rule) in [
        (
            "serviceAccountName",
            format::dns1123_subdomain as fn(&str) -> Vec<String>,
        ),
        ("nodeName", format::dns1123_subdomain),
        ("hostname", format::dns1123_label),
        ("subdomain", format::dns1123_label),
        ("priorityClassName", format::dns1123_subdomain),
        ("runtimeClassName", format::dns1123_subdomain),
    ] {
        let name = spec.get(field);
        if name.is_given() {
            name.check(errors, rule(name.text()));
        }
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline
        .int()
        .is_some_and(|d| !(1..=i64::from(i32::MAX)).contains(&d))
    {
        deadline.invalid(errors, "must be between 1 and 2147483647, inclusive");
    }
    tolerations(&spec.get("tolerations"), errors);
    for alias in spec.get("hostAliases").items() {
        alias.get("ip").ip(errors);
        for name in alias.get("hostnames").items() {
            name.check(errors, format::dns1123_subdomain(name.text()));
        }
    }
    let preemption = spec.get("preemptionPolicy");
    if preemption.is_set() {
        preemption.one_of(errors, &["PreemptLowerPriority", "Never"]);
    }
    if spec.get("os").is_set() {
        spec.get("os")
            .get("name")
            .one_of(errors, &["linux", "windows"]);
    }
}

fn security_context(spec: &At<'_>, errors: &mut ErrorList) {
    let context = spec.get("securityContext");
    for id in ["runAsUser", "runAsGroup", "fsGroup"] {
        context
            .get(id)
            .check(errors, container::id_messages(&context.get(id)));
    }
    for group in context.get("supplementalGroups").items() {
        group.check(errors, container::id_messages(&group));
    }
    let mut names = HashSet::new();
    for sysctl in context.get("sysctls").items() {
        let name = sysctl.get("name");
        if !name.is_given() {
            name.required(errors, "");
        } else if !is_sysctl_name(name.text()) {
            name.invalid(errors, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if !names.insert(name.text()) {
            name.duplicate(errors);
        }
    }
    container::seccomp(&context.get("seccompProfile"), errors);
    let policy = context.get("fsGroupChangePolicy");
    if policy.is_set() {
        policy.one_of(errors, &["Always", "OnRootMismatch"]);
    }
    if spec.get("shareProcessNamespace").is_true() && spec.get("hostPID").is_true() {
        // It was a part of the security context once.
        let path = spec
            .path
            .child("securityContext")
            .child("shareProcessNamespace");
        errors.push(FieldError::invalid(
            &path,
            &serde_json::json!(true),
            "ShareProcessNamespace and HostPID cannot both be enabled",
        ));
    }
}

/// On the host's network a container's port is the host's. A template may leave it out:
/// its pods get it by default.
fn host_ports(spec: &At<'_>, of_pod: bool, errors: &mut ErrorList) {
    if !spec.get("hostNetwork").is_true() {
        return;
    }
    let containers = spec.get("containers");
    for port in containers.items().flat_map(|c| c.get("ports").items()) {
        let host = port.get("hostPort");
        let given = host.int().is_some_and(|number| number != 0);
        if (of_pod || given) && host.int() != port.get("containerPort").int() {
            host.invalid(
                errors,
                "must match `containerPort` when `hostNetwork` is true",
            );
        }
    }
}

/// `kernel.shm_rmid_forced` or `net/ipv4/tcp_syncookies`: dotted or slashed labels.
fn is_sysctl_name(name: &str) -> bool {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|label| {
            let bytes = label.as_bytes();
            bytes.first().is_some_and(|b| edge(*b))
                && bytes.last().is_some_and(|b| edge(*b))
                && bytes.iter().all(|b| edge(*b) || matches!(b, b'-' | b'_'))
        })
}

fn gates(spec: &At<'_>, errors: &mut ErrorList) {
    let mut names = HashSet::new();
    for gate in spec.get("schedulingGates").items() {
        let name = gate.get("name");
        for message in format::qualified_name(name.text()) {
            errors.push(FieldError::invalid(&gate.path, name.text(), message));
        }
        if !names.insert(name.text()) {
            errors.push(FieldError::duplicate(&gate.path, name.text()));
        }
    }
    for gate in spec.get("readinessGates").items() {
        let kind = gate.get("conditionType");
        kind.check(errors, format::qualified_name(kind.text()));
    }
}

fn dns_config(spec: &At<'_>, errors: &mut ErrorList) {
    let config = spec.get("dnsConfig");
    if spec.get("dnsPolicy").text() == "None" {
        if !config.is_set() {
            config.required(errors, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if config.get("nameservers").len() == 0 {
            config.get("nameservers").required(
                errors,
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
        }
    }
    if config.get("nameservers").len() > 3 {
        config
            .get("nameservers")
            .invalid(errors, "must not have more than 3 nameservers");
    }
    for server in config.get("nameservers").items() {
        server.ip(errors);
    }
    if config.get("searches").len() > 32 {
        config
            .get("searches")
            .invalid(errors, "must not have more than 32 search paths");
    }
    for option in config.get("options").items() {
        if !option.get("name").is_given() {
            option.get("name").required(errors, "must not be empty");
        }
    }
}

pub(super) fn tolerations(tolerations: &At<'_>, errors: &mut ErrorList) {
    for toleration in tolerations.items() {
        let (key, operator, value) = (
            toleration.get("key"),
            toleration.get("operator"),
            toleration.get("value"),
        );
        if key.is_given() {
            key.check(errors, format::qualified_name(key.text()));
        } else if operator.text() != "Exists" {
            operator.invalid(errors, "operator must be Exists when `key` is empty, which means \"match all values and all keys\"");
        }
        let effect = toleration.get("effect");
        if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
            effect.invalid(
                errors,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator.text() {
            "" | "Equal" => value.check(errors, format::label_value(value.text())),
            "Exists" if value.is_given() => {
                // The field blamed is the operator, as upstream does.
                operator.invalid(errors, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            _ => operator.one_of(errors, &["Equal", "Exists"]),
        }
        if effect.is_given() {
            effect.one_of(errors, &["NoExecute", "NoSchedule", "PreferNoSchedule"]);
        }
    }
}

fn affinity(affinity: &At<'_>, errors: &mut ErrorList) {
    let node = affinity.get("nodeAffinity");
    let required = node.get("requiredDuringSchedulingIgnoredDuringExecution");
    if required.is_set() {
        node_selector(&required, errors);
    }
    for preferred in node
        .get("preferredDuringSchedulingIgnoredDuringExecution")
        .items()
    {
        weight(&preferred, errors);
        node_selector_term(&preferred.get("preference"), errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = affinity.get(kind);
        for term in pods
            .get("requiredDuringSchedulingIgnoredDuringExecution")
            .items()
        {
            pod_term(&term, errors);
        }
        for preferred in pods
            .get("preferredDuringSchedulingIgnoredDuringExecution")
            .items()
        {
            weight(&preferred, errors);
            pod_term(&preferred.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(term: &At<'_>, errors: &mut ErrorList) {
    let weight = term.get("weight");
    if !(1..=100).contains(&weight.int().unwrap_or(0)) {
        weight.invalid(errors, "must be in the range 1-100");
    }
}

fn node_selector(selector: &At<'_>, errors: &mut ErrorList) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.len() == 0 {
        terms.required(errors, "must have at least one node selector term");
    }
    for term in terms.items() {
        node_selector_term(&term, errors);
    }
}

fn node_selector_term(term: &At<'_>, errors: &mut ErrorList) {
    for requirement in term.get("matchExpressions").items() {
        selector_requirement(&requirement, true, errors);
    }
    for requirement in term.get("matchFields").items() {
        let (key, operator) = (requirement.get("key"), requirement.get("operator"));
        operator.one_of(errors, &["In", "NotIn"]);
        if requirement.get("values").len() != 1 {
            requirement.get("values").required(
                errors,
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            );
        }
        if key.text() != "metadata.name" {
            key.invalid(errors, "not a valid field selector key");
        }
    }
}

/// A requirement of a node selector (`node`) or of a label selector.
fn selector_requirement(requirement: &At<'_>, node: bool, errors: &mut ErrorList) {
    let (operator, values) = (requirement.get("operator"), requirement.get("values"));
    match operator.text() {
        "In" | "NotIn" if values.len() == 0 => {
            values.required(
                errors,
                "must be specified when `operator` is 'In' or 'NotIn'",
            );
        }
        "In" | "NotIn" => {}
        "Exists" | "DoesNotExist" => {
            if values.len() > 0 {
                values.forbidden(
                    errors,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
        }
        "Gt" | "Lt" if node => {
            if values.len() != 1 {
                values.required(
                    errors,
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                );
            }
        }
        _ if node => operator.invalid(errors, "not a valid selector operator"),
        _ => operator.invalid(errors, "not a valid selector operator"),
    }
    let key = requirement.get("key");
    key.check(errors, format::qualified_name(key.text()));
    if !node {
        for value in values.items() {
            value.check(errors, format::label_value(value.text()));
        }
    }
}

/// A `metav1.LabelSelector`.
pub(super) fn label_selector(selector: &At<'_>, errors: &mut ErrorList) {
    metadata::labels(&selector.get("matchLabels"), errors);
    for requirement in selector.get("matchExpressions").items() {
        selector_requirement(&requirement, false, errors);
    }
}

fn pod_term(term: &At<'_>, errors: &mut ErrorList) {
    label_selector(&term.get("labelSelector"), errors);
    label_selector(&term.get("namespaceSelector"), errors);
    for namespace in term.get("namespaces").items() {
        namespace.check(errors, format::dns1123_label(namespace.text()));
    }
    topology_key(&term.get("topologyKey"), errors);
}

fn topology_key(key: &At<'_>, errors: &mut ErrorList) {
    if key.is_given() {
        key.check(errors, format::qualified_name(key.text()));
    } else {
        key.required(errors, "can not be empty");
    }
}

fn spread(constraints: &At<'_>, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for constraint in constraints.items() {
        let skew = constraint.get("maxSkew");
        if skew.int().unwrap_or(0) <= 0 {
            skew.invalid(errors, "must be greater than zero");
        }
        topology_key(&constraint.get("topologyKey"), errors);
        let unsatisfiable = constraint.get("whenUnsatisfiable");
        unsatisfiable.one_of(errors, &["DoNotSchedule", "ScheduleAnyway"]);
        let pair = (constraint.get("topologyKey").text(), unsatisfiable.text());
        if !seen.insert(pair) {
            errors.push(FieldError::duplicate(
                &constraint.path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{}, {}}}", pair.0, pair.1),
            ));
        }
        let domains = constraint.get("minDomains");
        if domains.is_set() {
            if domains.int().unwrap_or(0) <= 0 {
                domains.invalid(errors, "must be greater than zero");
            }
            if unsatisfiable.text() != "DoNotSchedule" {
                domains.invalid(
                    errors,
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule",
                );
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if constraint.get(policy).is_set() {
                constraint.get(policy).one_of(errors, &["Honor", "Ignore"]);
            }
        }
        label_selector(&constraint.get("labelSelector"), errors);
    }
}
