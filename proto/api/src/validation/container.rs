//! Containers: what regular, init and ephemeral containers must hold to.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::quantity::Quantity;
use meta::validation as format;

use super::at::{At, NOT_NEGATIVE};
use super::quota;
use super::volume::Volumes;

/// What a container may be depends on the list it stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Regular,
    Init,
    Ephemeral,
}

/// What containers are checked against.
pub(super) struct Pod<'a> {
    pub volumes: &'a Volumes<'a>,
    pub grace_period: Option<i64>,
    pub claims: HashSet<&'a str>,
    /// The pod's users are the host's.
    pub host_users: bool,
}

pub(super) fn containers<'a>(
    list: &At<'a>,
    role: Role,
    pod: &Pod<'_>,
    taken: &mut HashSet<&'a str>,
    errors: &mut ErrorList,
) {
    if role == Role::Regular && list.len() == 0 {
        list.required(errors, "");
    }
    let mut host_ports = HashSet::new();
    for container in list.items() {
        common(&container, pod, errors);
        let name = container.get("name");
        if name.is_given() && !taken.insert(name.text()) {
            name.duplicate(errors);
        }
        by_role(&container, role, pod, errors);
        if role != Role::Ephemeral {
            host_port_conflicts(&container, &mut host_ports, errors);
        }
    }
}

fn by_role(container: &At<'_>, role: Role, pod: &Pod<'_>, errors: &mut ErrorList) {
    let restart = container.get("restartPolicy");
    let sidecar = role == Role::Init && restart.text() == "Always";
    let runs_on = role == Role::Regular || sidecar;
    match role {
        Role::Ephemeral => {
            for field in [
                "ports",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
                "lifecycle",
            ] {
                if container.get(field).is_given() {
                    container
                        .get(field)
                        .forbidden(errors, "cannot be set for an Ephemeral Container");
                }
            }
            if container.get("resources").is_given() {
                container
                    .get("resources")
                    .forbidden(errors, "cannot be set for an Ephemeral Container");
            }
        }
        Role::Init if !sidecar => {
            for field in [
                "lifecycle",
                "livenessProbe",
                "readinessProbe",
                "startupProbe",
            ] {
                if container.get(field).is_set() {
                    container.get(field).forbidden(
                        errors,
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
        }
        _ => {}
    }
    if restart.is_set() {
        restart.one_of(errors, &["Always", "Never", "OnFailure"]);
    }
    if runs_on {
        lifecycle(&container.get("lifecycle"), pod.grace_period, errors);
        for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
            probe(&container.get(name), name, pod.grace_period, errors);
        }
    }
}

fn common(container: &At<'_>, pod: &Pod<'_>, errors: &mut ErrorList) {
    let name = container.get("name");
    if name.is_given() {
        name.check(errors, format::dns1123_label(name.text()));
    } else {
        name.required(errors, "");
    }
    if !container.get("image").is_given() {
        container.get("image").required(errors, "");
    }
    container
        .get("terminationMessagePolicy")
        .one_of(errors, &["FallbackToLogsOnError", "File"]);
    ports(&container.get("ports"), errors);
    env(&container.get("env"), errors);
    env_from(&container.get("envFrom"), errors);
    mounts(container, pod.volumes, errors);
    container
        .get("imagePullPolicy")
        .one_of(errors, &["Always", "IfNotPresent", "Never"]);
    resources(&container.get("resources"), Some(&pod.claims), errors);
    security_context(&container.get("securityContext"), pod.host_users, errors);
}

fn ports(ports: &At<'_>, errors: &mut ErrorList) {
    let mut names = HashSet::new();
    for port in ports.items() {
        let name = port.get("name");
        if name.is_given() {
            let messages = format::port_name(name.text());
            if messages.is_empty() && !names.insert(name.text()) {
                name.duplicate(errors);
            }
            name.check(errors, messages);
        }
        let number = port.get("containerPort");
        if number.is_given() {
            port_number(&number, errors);
        } else {
            number.required(errors, "");
        }
        if port.get("hostPort").is_given() {
            port_number(&port.get("hostPort"), errors);
        }
        protocol(&port.get("protocol"), errors);
    }
}

pub(super) fn protocol(protocol: &At<'_>, errors: &mut ErrorList) {
    if protocol.is_given() {
        protocol.one_of(errors, &["SCTP", "TCP", "UDP"]);
    } else {
        protocol.required(errors, "");
    }
}

pub(super) fn port_number(port: &At<'_>, errors: &mut ErrorList) {
    port.check(errors, format::port_number(port.int().unwrap_or_default()));
}

fn host_port_conflicts(container: &At<'_>, taken: &mut HashSet<String>, errors: &mut ErrorList) {
    for port in container.get("ports").items() {
        let host = port.get("hostPort");
        if !host.is_given() {
            continue;
        }
        let key = format!(
            "{}/{}/{}",
            port.get("protocol").text(),
            port.get("hostIP").text(),
            host.int().unwrap_or_default()
        );
        if !taken.insert(key.clone()) {
            errors.push(FieldError::duplicate(&host.path, key));
        }
    }
}

fn env(env: &At<'_>, errors: &mut ErrorList) {
    for variable in env.items() {
        let name = variable.get("name");
        if name.is_given() {
            name.check(errors, format::relaxed_env_var_name(name.text()));
        } else {
            name.required(errors, "");
        }
        env_source(&variable, errors);
    }
}

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn env_source(variable: &At<'_>, errors: &mut ErrorList) {
    let source = variable.get("valueFrom");
    if !source.is_set() {
        return;
    }
    let given: Vec<_> = [
        "fieldRef",
        "resourceFieldRef",
        "configMapKeyRef",
        "secretKeyRef",
        "fileKeyRef",
    ]
    .into_iter()
    .filter(|name| source.get(name).is_set())
    .collect();
    match given.as_slice() {
        [] => source.invalid(errors, "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"),
        [_] => {
            if variable.get("value").is_given() {
                source.invalid(errors, "may not be specified when `value` is not empty");
            }
        }
        _ => source.invalid(errors, "may not have more than one field specified at a time"),
    }
    if source.get("fieldRef").is_set() {
        field_ref(&source.get("fieldRef"), ENV_FIELDS, errors);
    }
    if source.get("resourceFieldRef").is_set() {
        resource_field_ref(&source.get("resourceFieldRef"), false, errors);
    }
    for name in ["configMapKeyRef", "secretKeyRef"] {
        let reference = source.get(name);
        if reference.is_set() {
            key_ref(&reference, errors);
        }
    }
}

fn key_ref(reference: &At<'_>, errors: &mut ErrorList) {
    if !reference.get("name").is_given() {
        reference.get("name").required(errors, "");
    }
    let key = reference.get("key");
    if key.is_given() {
        key.check(errors, format::config_map_key(key.text()));
    } else {
        key.required(errors, "");
    }
}

/// A downward API field; labels and annotations may be subscripted.
pub(super) fn field_ref(reference: &At<'_>, known: &[&str], errors: &mut ErrorList) {
    let path = reference.get("fieldPath");
    if !reference.get("apiVersion").is_given() {
        reference.get("apiVersion").required(errors, "");
    } else if !path.is_given() {
        path.required(errors, "");
    } else if let Some((base, key)) = subscript(path.text()) {
        match base {
            "metadata.annotations" => {
                path.check(errors, format::qualified_name(&key.to_lowercase()));
            }
            "metadata.labels" => path.check(errors, format::qualified_name(key)),
            _ => path.invalid(errors, "does not support subscript"),
        }
    } else {
        path.one_of(errors, known);
    }
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

const CONTAINER_RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn resource_field_ref(reference: &At<'_>, volume: bool, errors: &mut ErrorList) {
    let resource = reference.get("resource");
    if volume && !reference.get("containerName").is_given() {
        reference.get("containerName").required(errors, "");
    } else if !resource.is_given() {
        resource.required(errors, "");
    } else if !resource.text().starts_with("limits.hugepages-")
        && !resource.text().starts_with("requests.hugepages-")
    {
        resource.one_of(errors, CONTAINER_RESOURCES);
    }
}

fn env_from(sources: &At<'_>, errors: &mut ErrorList) {
    for source in sources.items() {
        let prefix = source.get("prefix");
        if prefix.is_given() {
            prefix.check(errors, format::relaxed_env_var_name(prefix.text()));
        }
        let given: Vec<_> = ["configMapRef", "secretRef"]
            .into_iter()
            .map(|name| source.get(name))
            .filter(At::is_set)
            .collect();
        for reference in &given {
            if !reference.get("name").is_given() {
                reference.get("name").required(errors, "");
            }
        }
        match given.len() {
            1 => {}
            0 => errors.push(FieldError::invalid(
                &sources.path,
                "",
                "must specify one of: `configMapRef` or `secretRef`",
            )),
            _ => errors.push(FieldError::invalid(
                &sources.path,
                "",
                "may not have more than one field specified at a time",
            )),
        }
    }
}

fn mounts(container: &At<'_>, volumes: &Volumes<'_>, errors: &mut ErrorList) {
    let mut points = HashSet::new();
    for mount in container.get("volumeMounts").items() {
        let (name, path) = (mount.get("name"), mount.get("mountPath"));
        if !name.is_given() {
            name.required(errors, "");
        }
        if !volumes.contains(name.text()) {
            name.not_found(errors);
        }
        if !path.is_given() {
            path.required(errors, "");
        }
        if !points.insert(path.text()) {
            path.invalid(errors, "must be unique");
        }
        for field in ["subPath", "subPathExpr"] {
            let sub = mount.get(field);
            if sub.is_given() {
                descending_path(&sub, errors);
            }
        }
        if mount.get("subPath").is_given() && mount.get("subPathExpr").is_given() {
            mount
                .get("subPathExpr")
                .invalid(errors, "subPathExpr and subPath are mutually exclusive");
        }
        let propagation = mount.get("mountPropagation");
        if propagation.is_set() {
            propagation.one_of(errors, &["Bidirectional", "HostToContainer", "None"]);
            let privileged = container.get("securityContext").get("privileged").is_true();
            if propagation.text() == "Bidirectional" && !privileged {
                propagation.forbidden(
                    errors,
                    "Bidirectional mount propagation is available only to privileged containers",
                );
            }
        }
    }
    let mut devices = HashSet::new();
    for device in container.get("volumeDevices").items() {
        let (name, path) = (device.get("name"), device.get("devicePath"));
        if !volumes.contains(name.text()) {
            name.not_found(errors);
        } else if !volumes.is_block(name.text()) {
            name.invalid(errors, "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
        }
        if !path.is_given() {
            path.required(errors, "");
        } else if !devices.insert(path.text()) {
            path.invalid(errors, "must be unique");
        }
    }
}

/// A relative path that does not climb.
pub(super) fn descending_path(path: &At<'_>, errors: &mut ErrorList) {
    if path.text().starts_with('/') {
        path.invalid(errors, "must be a relative path");
    }
    no_backsteps(path, errors);
}

pub(super) fn no_backsteps(path: &At<'_>, errors: &mut ErrorList) {
    if path.text().split('/').any(|step| step == "..") {
        path.invalid(errors, "must not contain '..'");
    }
}

/// Requests and limits of a container (`claims` given) or of a whole pod.
pub(super) fn resources(
    resources: &At<'_>,
    claims: Option<&HashSet<&str>>,
    errors: &mut ErrorList,
) {
    let limits = resources.get("limits");
    for list in [limits.clone(), resources.get("requests")] {
        for (name, quantity) in list.entries() {
            quota::container_resource_name(name, &quantity, errors);
            quantity_value(name, &quantity, errors);
        }
    }
    for (name, request) in resources.get("requests").entries() {
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
        if !overcommits(name) && asked != most {
            request.invalid_at(
                errors,
                &resources.path.child("requests"),
                format!("must be equal to {name} limit of {most}"),
            );
        } else if asked > most {
            request.invalid_at(
                errors,
                &resources.path.child("requests"),
                format!("must be less than or equal to {name} limit of {most}"),
            );
        }
    }
    for claim in resources.get("claims").items() {
        let name = claim.get("name");
        match claims {
            Some(known) if !known.contains(name.text()) => name.not_found(errors),
            _ => {}
        }
    }
}

impl At<'_> {
    /// An `Invalid` with this value, told of another field.
    fn invalid_at(&self, errors: &mut ErrorList, path: &meta::field::Path, detail: String) {
        errors.push(FieldError::invalid(path, self.bad_value(), detail));
    }
}

fn parse(value: Option<&serde_json::Value>) -> Option<Quantity> {
    value?.as_str()?.parse().ok()
}

/// An amount of a resource of that name.
pub(super) fn quantity_value(name: &str, quantity: &At<'_>, errors: &mut ErrorList) {
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
    if quota::is_integer(name) && amount.milli_value() % 1000 != 0 {
        invalid("must be an integer");
    }
}

/// May be requested below its limit; extended resources and huge pages may not.
pub(super) fn overcommits(name: &str) -> bool {
    crate::resources::is_native(name) && !name.starts_with("hugepages-")
}

fn security_context(context: &At<'_>, host_users: bool, errors: &mut ErrorList) {
    if !context.is_set() {
        return;
    }
    for id in ["runAsUser", "runAsGroup"] {
        context.get(id).check(errors, id_messages(&context.get(id)));
    }
    let escalation = context.get("allowPrivilegeEscalation");
    if escalation.is_set() && !escalation.is_true() {
        if context.get("privileged").is_true() {
            context.invalid(
                errors,
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        let added = context.get("capabilities").get("add");
        if added
            .items()
            .any(|c| matches!(c.text(), "CAP_SYS_ADMIN" | "SYS_ADMIN"))
        {
            context.invalid(errors, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    let mount = context.get("procMount");
    if mount.is_set() {
        mount.one_of(errors, &["Default", "Unmasked"]);
        if host_users && mount.text() == "Unmasked" {
            mount.invalid(errors, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(&context.get("seccompProfile"), errors);
}

/// User and group ids.
pub(super) fn id_messages(id: &At<'_>) -> Vec<String> {
    match id.int() {
        Some(n) if !(0..=i64::from(i32::MAX)).contains(&n) => {
            vec!["must be between 0 and 2147483647, inclusive".to_owned()]
        }
        _ => Vec::new(),
    }
}

pub(super) fn seccomp(profile: &At<'_>, errors: &mut ErrorList) {
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    if !kind.is_given() {
        kind.required(errors, "type is required when seccompProfile is set");
    } else {
        kind.one_of(errors, &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
    match (kind.text() == "Localhost", local.is_given()) {
        (true, false) => local.required(errors, "must be set when seccomp type is Localhost"),
        (true, true) => descending_path(&local, errors),
        (false, true) => local.invalid(errors, "can only be set when seccomp type is Localhost"),
        (false, false) => {}
    }
}

fn lifecycle(lifecycle: &At<'_>, grace: Option<i64>, errors: &mut ErrorList) {
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.get(hook);
        if hook.is_set() {
            handler(
                &hook,
                &["exec", "httpGet", "tcpSocket", "sleep"],
                grace,
                errors,
            );
        }
    }
}

fn probe(probe: &At<'_>, role: &str, grace: Option<i64>, errors: &mut ErrorList) {
    if !probe.is_set() {
        return;
    }
    handler(
        probe,
        &["exec", "httpGet", "tcpSocket", "grpc"],
        grace,
        errors,
    );
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        probe.get(field).non_negative(errors);
    }
    let termination = probe.get("terminationGracePeriodSeconds");
    if role == "readinessProbe" {
        if termination.is_set() {
            termination.invalid(errors, "must not be set for readinessProbes");
        }
    } else {
        if termination.is_set() && termination.int().unwrap_or(0) <= 0 {
            termination.invalid(errors, "must be greater than 0");
        }
        let successes = probe.get("successThreshold");
        if successes.int().is_some_and(|n| n != 1) {
            successes.invalid(errors, "must be 1");
        }
    }
}

fn handler(handler: &At<'_>, kinds: &[&'static str], grace: Option<i64>, errors: &mut ErrorList) {
    let mut given = 0;
    for kind in kinds {
        let action = handler.get(kind);
        if !action.is_set() {
            continue;
        }
        given += 1;
        if given > 1 {
            action.forbidden(errors, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" if action.get("command").len() == 0 => {
                action.get("command").required(errors, "")
            }
            "httpGet" => {
                if !action.get("path").is_given() {
                    action.get("path").required(errors, "");
                }
                port(&action.get("port"), errors);
                action.get("scheme").one_of(errors, &["HTTP", "HTTPS"]);
                for header in action.get("httpHeaders").items() {
                    let name = header.get("name");
                    name.check(errors, format::http_header_name(name.text()));
                }
            }
            "tcpSocket" => port(&action.get("port"), errors),
            "grpc" => port_number(&action.get("port"), errors),
            "sleep" => {
                let seconds = action.get("seconds");
                let most = grace.unwrap_or(0);
                if seconds.int().is_none_or(|s| s < 0 || s > most) {
                    seconds.invalid(errors, format!("must be non-negative and less than terminationGracePeriodSeconds ({most}). Enable AllowPodLifecycleSleepActionZeroValue feature gate for zero sleep."));
                }
            }
            _ => {}
        }
    }
    if given == 0 {
        handler.required(errors, "must specify a handler type");
    }
}

/// A port by number or by name.
pub(super) fn port(port: &At<'_>, errors: &mut ErrorList) {
    match port.value() {
        Some(serde_json::Value::String(name)) => port.check(errors, format::port_name(name)),
        _ => port_number(port, errors),
    }
}
