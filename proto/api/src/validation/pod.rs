//! Pods and pod templates.

use std::collections::{HashMap, HashSet};

use meta::field::{ErrorList, FieldError};
use meta::validation as format;
use serde_json::Value;

use super::at::At;
use super::container::{self, Role};
use super::volume::{self, Volumes};
use super::{
    Rules, any_update, app_armor, env, metadata, pod_status, pod_update, required, requirements,
    sysctls, windows, workload,
};

pub(super) const RULES: &[Rules] = &[
    Rules {
        group: "",
        kind: "Pod",
        name: format::dns1123_subdomain,
        object: pod,
        update: pod_update::update,
        status: pod_status::status,
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
    let spec = pod.get("spec");
    self::spec(&spec, true, errors);
    host_ports(&spec, true, errors);
    annotations(&pod.get("metadata").get("annotations"), &spec, errors);
    hostname_override(&spec, errors);
    volume::tokens_have_an_account(&spec, errors);
}

/// What only a pod that runs may have.
pub(super) fn created(pod: &At<'_>, errors: &mut ErrorList) {
    let ephemeral = pod.get("spec").get("ephemeralContainers");
    if ephemeral.is_given() {
        ephemeral.forbidden(errors, "cannot be set on create");
    }
    let (annotations, spec) = (pod.get("metadata").get("annotations"), pod.get("spec"));
    app_armor::contradictions(&annotations, &spec, errors);
    if spec.get("nodeName").is_given() && spec.get("schedulingGates").len() > 0 {
        spec.get("nodeName").forbidden(
            errors,
            "cannot be set until all schedulingGates have been cleared",
        );
    }
}

/// The template of a workload: metadata and spec.
pub(super) fn template(template: &At<'_>, errors: &mut ErrorList) {
    template_metadata(template, errors);
    let spec = template.get("spec");
    self::spec(&spec, false, errors);
    hostname_override(&spec, errors);
    host_ports(&template.get("spec"), false, errors);
    let ephemeral = template.get("spec").get("ephemeralContainers");
    if ephemeral.is_given() {
        ephemeral.forbidden(errors, "ephemeral containers not allowed in pod template");
    }
}

/// Labels and annotations of a template.
pub(super) fn template_metadata(template: &At<'_>, errors: &mut ErrorList) {
    // Upstream leaves `metadata` out of these paths.
    let meta = template.get("metadata").moved(template.path.clone());
    metadata::template(&meta, errors);
    let spec = template.get("spec");
    annotations(&meta.get("annotations"), &spec, errors);
    app_armor::contradictions(&meta.get("annotations"), &spec, errors);
}

fn spec(spec: &At<'_>, is_pod: bool, errors: &mut ErrorList) {
    let volumes = Volumes::checked(&spec.get("volumes"), errors);
    let claims = resource_claims(&spec.get("resourceClaims"), errors);
    let pod = container::Pod {
        volumes: &volumes,
        grace_period: spec.get("terminationGracePeriodSeconds").int(),
        claims,
        host_users: spec.raw("hostUsers") != Some(&Value::Bool(false)),
        os: spec
            .get("os")
            .is_set()
            .then(|| spec.get("os").get("name").text()),
        is_pod,
        never_restarts: spec.get("restartPolicy").text() == "Never",
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
    env::file_volumes(spec, errors);
    requirements::of_pod(spec, &pod.claims, errors);
    targets(spec, errors);

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
    workload::of_pod(spec, errors);
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
    ] {
        let name = spec.get(field);
        if name.is_given() {
            name.check(errors, rule(name.text()));
        }
    }
    let class = spec.get("runtimeClassName");
    if class.is_set() {
        class.check(errors, format::dns1123_subdomain(class.text()));
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
    if preemption.is_set() && required(&preemption, errors) {
        preemption.one_of(errors, &["PreemptLowerPriority", "Never"]);
    }
    // Upstream checks the overhead as if it were a container's limits.
    let overhead = spec.get("overhead");
    if let Some(amounts) = overhead.value() {
        let limits = serde_json::json!({"limits": amounts});
        requirements::resources(&At::new(overhead.path, &limits), &HashSet::new(), errors);
    }
    windows::operating_system(spec, errors);
    windows::host_process(spec, errors);
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
    sysctls::checked(&context.get("sysctls"), errors);
    container::seccomp(&context.get("seccompProfile"), errors);
    windows::options(&context.get("windowsOptions"), errors);
    container::app_armor(&context.get("appArmorProfile"), errors);
    for (field, known) in [
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        if context.get(field).is_set() {
            context.get(field).one_of(errors, &known);
        }
    }
    if spec.raw("hostUsers") == Some(&Value::Bool(false)) {
        own_users(spec, errors);
    }
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

/// Where a kind has the spec of its pods.
pub(super) fn spec_of<'a>(group: &str, kind: &str, object: &At<'a>) -> Option<At<'a>> {
    let spec = object.get("spec");
    Some(match (group, kind) {
        ("", "Pod") => spec,
        ("", "PodTemplate") => object.get("template").get("spec"),
        ("", "ReplicationController")
        | ("apps", "DaemonSet" | "Deployment" | "ReplicaSet" | "StatefulSet")
        | ("batch", "Job") => spec.get("template").get("spec"),
        ("batch", "CronJob") => {
            let job = spec.get("jobTemplate").get("spec");
            job.get("template").get("spec")
        }
        _ => return None,
    })
}

/// With users of its own a pod has no part in the host's other namespaces.
fn own_users(spec: &At<'_>, errors: &mut ErrorList) {
    const WHY: &str = "when `hostUsers` is false";
    // Whether the network may be the host's is a feature's matter.
    for (field, named) in [("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(field).is_true() {
            spec.get(field).renamed(named).forbidden(errors, WHY);
        }
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.get(list).items() {
            if container.get("volumeDevices").len() > 0 {
                container.get("volumeDevices").forbidden(errors, WHY);
            }
        }
    }
}

/// The containers that ephemeral ones look into are not ephemeral themselves.
fn targets(spec: &At<'_>, errors: &mut ErrorList) {
    let known = names(spec, &["containers", "initContainers"]);
    for container in spec.get("ephemeralContainers").items() {
        let target = container.get("targetContainerName");
        if target.is_given() && !known.contains(target.text()) {
            target.not_found(errors);
        }
    }
}

/// What the containers of some of a pod's lists are called.
fn names<'a>(spec: &At<'a>, lists: &[&'static str]) -> HashSet<&'a str> {
    lists
        .iter()
        .flat_map(|list| spec.get(list).items())
        .map(|container| container.get("name").text())
        .collect()
}

/// The claims of a pod by the names under which its containers use them.
fn resource_claims<'a>(claims: &At<'a>, errors: &mut ErrorList) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for claim in claims.items() {
        let (name, template) = (
            claim.get("resourceClaimName"),
            claim.get("resourceClaimTemplateName"),
        );
        let own = claim.get("name");
        if required(&own, errors) {
            if names.insert(own.text()) {
                own.check(errors, format::dns1123_label(own.text()));
            } else {
                own.duplicate(errors);
            }
        }
        match (name.is_set(), template.is_set()) {
            (true, true) => claim.invalid(errors, "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"),
            (false, false) => claim.invalid(
                errors,
                "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            ),
            _ => {}
        }
        for source in [name, template] {
            if source.is_set() {
                source.check(errors, format::dns1123_subdomain(source.text()));
            }
        }
    }
    names
}

/// Annotations that were fields of a pod before the fields were.
fn annotations(annotations: &At<'_>, spec: &At<'_>, errors: &mut ErrorList) {
    const MIRROR: &str = "kubernetes.io/config.mirror";
    const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const SECCOMP_OF: &str = "container.seccomp.security.alpha.kubernetes.io/";
    const APP_ARMOR_OF: &str = "container.apparmor.security.beta.kubernetes.io/";
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    let containers = names(
        spec,
        &["containers", "initContainers", "ephemeralContainers"],
    );
    for (key, value) in annotations.entries() {
        let text = value.text();
        if key == MIRROR && !spec.get("nodeName").is_given() {
            value.invalid(
                errors,
                "must set spec.nodeName if mirror pod annotation is set",
            );
        } else if key == COST && !text.is_empty() {
            let plain = !text.starts_with('+') && (text == "0" || !text.starts_with('0'));
            if text.parse::<i32>().is_err() || !plain {
                value.invalid(errors, "must be a 32bit integer");
            }
        } else if key == SECCOMP || key.starts_with(SECCOMP_OF) {
            let known = matches!(text, "runtime/default" | "docker/default" | "unconfined");
            if !known && !text.starts_with("localhost/") {
                // Upstream makes a field of the key here.
                let path = annotations.path.child(key.to_owned());
                errors.push(FieldError::invalid(
                    &path,
                    text,
                    "must be a valid seccomp profile",
                ));
            }
        } else if let Some(name) = key.strip_prefix(APP_ARMOR_OF) {
            if !containers.contains(name) {
                errors.push(FieldError::invalid(
                    &value.path,
                    name,
                    "container not found",
                ));
            }
            let known = matches!(text, "" | "runtime/default" | "unconfined");
            if !known && !text.starts_with("localhost/") {
                value.invalid(errors, format!("invalid AppArmor profile name: {text:?}"));
            }
        }
    }
}

/// A host name of the pod's own choice (KEP-4762).
fn hostname_override(spec: &At<'_>, errors: &mut ErrorList) {
    /// Linux' limit, in bytes.
    const LIMIT: usize = 64;
    let name = spec.get("hostnameOverride");
    if !name.is_set() {
        return;
    }
    if spec.get("setHostnameAsFQDN").is_true() {
        name.forbidden(
            errors,
            "may not be specified when setHostnameAsFQDN is true",
        );
    }
    if spec.get("hostNetwork").is_true() {
        name.forbidden(errors, "may not be specified when hostNetwork is true");
    }
    if name.text().len() > LIMIT {
        errors.push(FieldError::too_long(&name.path, LIMIT));
    }
    name.check(errors, format::dns1123_subdomain(name.text()));
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
            return;
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
    let together: usize = config
        .get("searches")
        .items()
        .map(|s| s.text().len() + 1)
        .sum();
    if together > SEARCH_LIMIT + 1 {
        config.get("searches").invalid(
            errors,
            format!("must not have more than {SEARCH_LIMIT} characters (including spaces) in the search list"),
        );
    }
    for search in config.get("searches").items().filter(|s| s.text() != ".") {
        let domain = search.text().strip_suffix('.').unwrap_or(search.text());
        for message in format::dns1123_subdomain_with_underscore(domain) {
            errors.push(FieldError::invalid(&search.path, domain, message));
        }
    }
    for option in config.get("options").items() {
        if !option.get("name").is_given() {
            option.required(errors, "must not be empty");
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
            // The field blamed is the operator, as upstream does.
            "" | "Equal" => {
                let wrong = format::label_value(value.text());
                value.moved(operator.path).check(errors, wrong);
            }
            "Exists" if value.is_given() => {
                operator.invalid(errors, "value must be empty when `operator` is 'Exists'");
            }
            // What they compare is a feature's matter.
            "Exists" | "Gt" | "Lt" => {}
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

/// The values of required node affinities must be such as labels can have.
pub(super) fn node_affinity_values(
    group: &str,
    kind: &str,
    object: &At<'_>,
    errors: &mut ErrorList,
) {
    let selector = match (group, kind) {
        ("", "PersistentVolume") => object.get("spec").get("nodeAffinity").get("required"),
        _ => match spec_of(group, kind, object) {
            Some(pod) => pod
                .get("affinity")
                .get("nodeAffinity")
                .get("requiredDuringSchedulingIgnoredDuringExecution"),
            None => return,
        },
    };
    node_selector_values(&selector, errors);
}

pub(super) fn node_selector_values(selector: &At<'_>, errors: &mut ErrorList) {
    for term in selector.get("nodeSelectorTerms").items() {
        for requirement in term.get("matchExpressions").items() {
            for value in requirement.get("values").items() {
                value.check(errors, format::label_value(value.text()));
            }
        }
    }
}

fn weight(term: &At<'_>, errors: &mut ErrorList) {
    let weight = term.get("weight");
    if !(1..=100).contains(&weight.int().unwrap_or(0)) {
        weight.invalid(errors, "must be in the range 1-100");
    }
}

pub(super) fn node_selector(selector: &At<'_>, errors: &mut ErrorList) {
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
        if !matches!(operator.text(), "In" | "NotIn") {
            operator.invalid(errors, "not a valid selector operator");
        } else if requirement.get("values").len() != 1 {
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
    // Upstream does not say which namespace.
    let path = term.path.child("namespace");
    for namespace in term.get("namespaces").items() {
        let namespace = namespace.moved(path.clone());
        namespace.check(errors, format::dns1123_label(namespace.text()));
    }
    label_keys(term, errors);
    let key = term.get("topologyKey");
    if !key.is_given() {
        key.required(errors, "can not be empty");
    }
    for message in format::qualified_name(key.text()) {
        errors.push(FieldError::invalid(&key.path, key.text(), message));
    }
}

/// Keys of which a pod's own values are added to the selector.
fn label_keys(of: &At<'_>, errors: &mut ErrorList) {
    let lists = ["matchLabelKeys", "mismatchLabelKeys"].map(|list| of.get(list));
    for list in &lists {
        if list.len() > 0 && !of.get("labelSelector").is_set() {
            list.forbidden(
                errors,
                "must not be specified when labelSelector is not set",
            );
            continue;
        }
        for key in list.items() {
            key.check(errors, format::qualified_name(key.text()));
        }
    }
    let [matching, mismatching] = &lists;
    let others: HashSet<&str> = mismatching.items().map(|key| key.text()).collect();
    for key in matching.items() {
        if others.contains(key.text()) {
            key.invalid(
                errors,
                "exists in both matchLabelKeys and mismatchLabelKeys",
            );
        }
    }
}

/// The most characters of search domains together, with the spaces between them.
const SEARCH_LIMIT: usize = 2048;

fn spread(constraints: &At<'_>, errors: &mut ErrorList) {
    let all: Vec<At<'_>> = constraints.items().collect();
    let pair = |of: &At<'_>| {
        let text = |field| of.get(field).text().to_owned();
        (text("topologyKey"), text("whenUnsatisfiable"))
    };
    let mut left: HashMap<(String, String), usize> = HashMap::new();
    for constraint in &all {
        *left.entry(pair(constraint)).or_default() += 1;
    }
    for constraint in &all {
        let skew = constraint.get("maxSkew");
        if skew.int().unwrap_or(0) <= 0 {
            skew.invalid(errors, "must be greater than zero");
        }
        let key = constraint.get("topologyKey");
        if !key.is_given() {
            key.required(errors, "can not be empty");
        }
        let unsatisfiable = constraint.get("whenUnsatisfiable");
        unsatisfiable.one_of(errors, &["DoNotSchedule", "ScheduleAnyway"]);
        let own = pair(constraint);
        let later = left.entry(own.clone()).or_default();
        *later = later.saturating_sub(1);
        if *later > 0 {
            errors.push(FieldError::duplicate(
                &constraint.path.child("{topologyKey, whenUnsatisfiable}"),
                format!("{{{}, {}}}", own.0, own.1),
            ));
        }
        label_keys(constraint, errors);
        let domains = constraint.get("minDomains");
        if domains.is_set() {
            if domains.int().unwrap_or(0) <= 0 {
                domains.invalid(errors, "must be greater than zero");
            }
            if unsatisfiable.text() != "DoNotSchedule" {
                domains.invalid(
                    errors,
                    format!(
                        "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                        unsatisfiable.text()
                    ),
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
