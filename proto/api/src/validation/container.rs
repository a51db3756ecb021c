//! Containers: what regular, init and ephemeral containers must hold to.

use std::collections::HashSet;

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;
pub(super) use super::env::{field_ref, resource_field_ref};
pub(super) use super::mounts::{descending_path, no_backsteps};
pub(super) use super::requirements::{amount as quantity_value, overcommits, quantities};
use super::volume::Volumes;
use super::{env, mounts, requirements, windows};

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
    /// The pod's processes are users of the host.
    pub host_users: bool,
    /// `os.name`, where there is an `os`.
    pub os: Option<&'a str>,
    /// A pod, not the template of pods.
    pub is_pod: bool,
    /// Nothing of the pod is started again.
    pub never_restarts: bool,
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
                "resizePolicy",
                "restartPolicy",
                "restartPolicyRules",
            ] {
                let field = container.get(field);
                // What is given may be empty, such as a hook or a list.
                if field.is_set() {
                    field.forbidden(errors, "cannot be set for an Ephemeral Container");
                }
            }
            let resources = container.get("resources");
            let mut parts = ["claims", "limits", "requests"].into_iter();
            if parts.any(|part| resources.get(part).is_set()) {
                resources.forbidden(errors, "cannot be set for an Ephemeral Container");
            }
            for mount in container.get("volumeMounts").items() {
                for field in ["subPath", "subPathExpr"] {
                    if mount.get(field).is_given() {
                        mount
                            .get(field)
                            .forbidden(errors, "cannot be set for an Ephemeral Container");
                    }
                }
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
    if role != Role::Ephemeral {
        if restart.is_set() {
            restart.one_of(errors, &["Always", "Never", "OnFailure"]);
        }
        restart_rules(container, errors);
    }
    if runs_on {
        lifecycle(&container.get("lifecycle"), pod, errors);
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
    let image = container.get("image");
    if !image.is_given() {
        image.required(errors, "");
    } else if pod.is_pod && image.text().trim() != image.text() {
        image.invalid(errors, "must not have leading or trailing whitespace");
    }
    container
        .get("terminationMessagePolicy")
        .one_of(errors, &["FallbackToLogsOnError", "File"]);
    ports(&container.get("ports"), errors);
    env::env(&container.get("env"), errors);
    env::env_from(&container.get("envFrom"), errors);
    mounts::mounts(container, pod.volumes, errors);
    container
        .get("imagePullPolicy")
        .one_of(errors, &["Always", "IfNotPresent", "Never"]);
    requirements::resources(&container.get("resources"), &pod.claims, errors);
    requirements::resize_policy(&container.get("resizePolicy"), pod.never_restarts, errors);
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
        if added.items().any(|c| c.text() == "CAP_SYS_ADMIN") {
            context.invalid(errors, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    let mount = context.get("procMount");
    if mount.is_set() {
        mount.one_of(errors, &["Default", "Unmasked"]);
        if mount.text() == "Unmasked" && host_users {
            mount.invalid(errors, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    seccomp(&context.get("seccompProfile"), errors);
    windows::options(&context.get("windowsOptions"), errors);
    app_armor(&context.get("appArmorProfile"), errors);
}

pub(super) fn app_armor(profile: &At<'_>, errors: &mut ErrorList) {
    const LOCAL: &str = "must be set when AppArmor type is Localhost";
    /// The longest path, in bytes.
    const LIMIT: usize = 4095;
    if !profile.is_set() {
        return;
    }
    let (kind, local) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "Localhost" => {
            if local.text().trim() != local.text() {
                local.invalid(errors, "must not be padded with whitespace");
            } else if !local.is_given() {
                local.required(errors, LOCAL);
            }
            if local.text().len() > LIMIT {
                errors.push(FieldError::too_long(&local.path, LIMIT));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if local.is_set() {
                local.invalid(errors, "can only be set when AppArmor type is Localhost");
            }
        }
        "" => kind.required(errors, "type is required when appArmorProfile is set"),
        _ => kind.one_of(errors, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}

/// What becomes of a container by how it ended (KEP-5307).
fn restart_rules(container: &At<'_>, errors: &mut ErrorList) {
    const RULES: usize = 20;
    const VALUES: usize = 255;
    let rules = container.get("restartPolicyRules");
    let policy = container.get("restartPolicy");
    if rules.len() > 0 && !policy.is_set() {
        policy.required(
            errors,
            "must specify restartPolicy when restart rules are used",
        );
    }
    if rules.len() > RULES {
        errors.push(FieldError::too_many(&rules.path, rules.len(), RULES));
    }
    for rule in rules.items() {
        rule.get("action")
            .one_of(errors, &["Restart", "RestartAllContainers"]);
        let codes = rule.get("exitCodes");
        if !codes.is_set() {
            codes.required(errors, "must be specified");
            continue;
        }
        codes.get("operator").one_of(errors, &["In", "NotIn"]);
        let values = codes.get("values");
        if values.len() > VALUES {
            errors.push(FieldError::too_many(&values.path, values.len(), VALUES));
        }
    }
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

fn lifecycle(lifecycle: &At<'_>, pod: &Pod<'_>, errors: &mut ErrorList) {
    for hook in ["postStart", "preStop"] {
        let hook = lifecycle.get(hook);
        if hook.is_set() {
            handler(
                &hook,
                &["exec", "httpGet", "tcpSocket", "sleep"],
                pod.grace_period,
                errors,
            );
        }
    }
    let signal = lifecycle.get("stopSignal");
    match pod.os {
        _ if !signal.is_set() => {}
        None => signal.forbidden(
            errors,
            "may not be set for containers with empty `spec.os.name`",
        ),
        Some("windows") => signal.one_of(errors, &["SIGKILL", "SIGTERM"]),
        // Those of Linux are in the schema.
        Some(_) => {}
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
                    // Upstream does not say which header.
                    let name = name.moved(action.path.child("httpHeaders"));
                    name.check(errors, format::http_header_name(name.text()));
                }
            }
            "tcpSocket" => port(&action.get("port"), errors),
            "grpc" => port_number(&action.get("port"), errors),
            "sleep" => {
                let seconds = action.get("seconds").int().unwrap_or(0);
                if let Some(most) = grace.filter(|most| !(0..=*most).contains(&seconds)) {
                    let detail = format!(
                        "must be non-negative and less than terminationGracePeriodSeconds ({most})"
                    );
                    errors.push(FieldError::invalid(&action.path, seconds, detail));
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
