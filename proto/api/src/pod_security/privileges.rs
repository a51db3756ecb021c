//! What a process may do: privileged containers, capabilities, gaining privileges.

use std::collections::BTreeSet;

use super::{Forbidden, Pod, containers, items, quoted, text};

pub(super) fn privileged(pod: &Pod<'_>) -> Option<Forbidden> {
    let bad = pod.bad_containers(|c| c["securityContext"]["privileged"] == true);
    if bad.is_empty() {
        return None;
    }
    let bad = containers(&bad);
    Forbidden::new(
        "privileged",
        format!("{bad} must not set securityContext.privileged=true"),
    )
}

pub(super) fn escalation(pod: &Pod<'_>) -> Option<Forbidden> {
    let bad = pod.bad_containers(|c| c["securityContext"]["allowPrivilegeEscalation"] != false);
    if bad.is_empty() {
        return None;
    }
    let bad = containers(&bad);
    Forbidden::new(
        "allowPrivilegeEscalation != false",
        format!("{bad} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

/// A pod for Windows cannot set the field.
pub(super) fn escalation_but_windows(pod: &Pod<'_>) -> Option<Forbidden> {
    if pod.is_windows() {
        return None;
    }
    escalation(pod)
}

/// What container runtimes give by default, without `NET_RAW`.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The containers that add other capabilities than these, and which.
fn adding<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut forbidden = BTreeSet::new();
    let bad = pod.bad_containers(|container| {
        let added = items(&container["securityContext"]["capabilities"]["add"]).map(text);
        let beyond: Vec<&str> = added.filter(|c| !allowed.contains(c)).collect();
        let is_bad = !beyond.is_empty();
        forbidden.extend(beyond);
        is_bad
    });
    (bad, forbidden)
}

fn must_not_add(bad: &[&str], forbidden: &BTreeSet<&str>) -> String {
    format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers(bad),
        quoted(forbidden),
    )
}

pub(super) fn added_capabilities(pod: &Pod<'_>) -> Option<Forbidden> {
    let (bad, forbidden) = adding(pod, &DEFAULT_CAPABILITIES);
    if bad.is_empty() {
        return None;
    }
    Forbidden::new("non-default capabilities", must_not_add(&bad, &forbidden))
}

pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Forbidden> {
    let keeping = pod.bad_containers(|container| {
        let mut dropped = items(&container["securityContext"]["capabilities"]["drop"]);
        !dropped.any(|c| c == "ALL")
    });
    let (bad, forbidden) = adding(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !keeping.is_empty() {
        let keeping = containers(&keeping);
        details.push(format!(
            r#"{keeping} must set securityContext.capabilities.drop=["ALL"]"#
        ));
    }
    if !bad.is_empty() {
        details.push(must_not_add(&bad, &forbidden));
    }
    if details.is_empty() {
        return None;
    }
    Forbidden::new("unrestricted capabilities", details.join("; "))
}

/// A pod for Windows cannot set the field.
pub(super) fn capabilities_but_windows(pod: &Pod<'_>) -> Option<Forbidden> {
    if pod.is_windows() {
        return None;
    }
    capabilities(pod)
}
