//! Profiles that confine processes: AppArmor, SELinux, seccomp.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Forbidden, Pod, containers, name, plural, quoted, setters, text};

fn annotations<'a>(pod: &Pod<'a>) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    let annotations = pod.metadata.get("annotations").and_then(Value::as_object);
    let all = annotations.into_iter().flatten();
    all.map(|(key, value)| (key.as_str(), text(value)))
}

/// The pod and the containers that name a profile of another type than `RuntimeDefault` and
/// `Localhost`.
struct Bad<'a> {
    pod: bool,
    containers: Vec<&'a str>,
    types: BTreeSet<&'a str>,
}

fn bad_profiles<'a>(pod: &Pod<'a>, field: &str) -> Bad<'a> {
    let mut types = BTreeSet::new();
    let mut is_bad = |context: &'a Value| {
        let profile = &context[field];
        let kind = text(&profile["type"]);
        let bad = profile.is_object() && !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            types.insert(kind);
        }
        bad
    };
    let of_pod = is_bad(pod.security_context());
    let of_containers = pod.bad_containers(|c| c.get("securityContext").is_some_and(&mut is_bad));
    Bad {
        pod: of_pod,
        containers: of_containers,
        types,
    }
}

pub(super) fn app_armor(pod: &Pod<'_>) -> Option<Forbidden> {
    let bad = bad_profiles(pod, "appArmorProfile");
    let allowed = |profile: &str| {
        matches!(profile, "" | "runtime/default") || profile.starts_with("localhost/")
    };
    let mut annotated: Vec<String> = annotations(pod)
        .filter(|(key, _)| key.starts_with("container.apparmor.security.beta.kubernetes.io/"))
        .filter(|(_, value)| !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotated.sort();
    let mut set: Vec<String> = setters(bad.pod, &bad.containers).into_iter().collect();
    if !annotated.is_empty() {
        set.push(plural("annotation", "annotations", annotated.len()).to_owned());
    }
    if set.is_empty() {
        return None;
    }
    let types = bad.types.iter().map(|t| (*t).to_owned());
    let values: Vec<String> = types.chain(annotated).collect();
    Forbidden::new(
        plural(
            "forbidden AppArmor profile",
            "forbidden AppArmor profiles",
            values.len(),
        ),
        format!(
            "{} must not set AppArmor profile type to {}",
            set.join(" and "),
            quoted(values)
        ),
    )
}

fn selinux_of(pod: &Pod<'_>, allowed: &[&str]) -> Option<Forbidden> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut is_bad = |context: &Value| {
        let options = &context["seLinuxOptions"];
        let kind = text(&options["type"]);
        let bad_type = !kind.is_empty() && !allowed.contains(&kind);
        if bad_type {
            types.insert(kind.to_owned());
        }
        let (has_user, has_role) = (
            !text(&options["user"]).is_empty(),
            !text(&options["role"]).is_empty(),
        );
        user |= has_user;
        role |= has_role;
        bad_type || has_user || has_role
    };
    let of_pod = is_bad(pod.security_context());
    let bad = pod.bad_containers(|c| is_bad(&c["securityContext"]));
    let setters = setters(of_pod, &bad)?;
    let mut data = Vec::new();
    if !types.is_empty() {
        let word = plural("type", "types", types.len());
        data.push(format!("{word} {}", quoted(&types)));
    }
    if user {
        data.push("user may not be set".to_owned());
    }
    if role {
        data.push("role may not be set".to_owned());
    }
    Forbidden::new(
        "seLinuxOptions",
        format!(
            "{setters} set forbidden securityContext.seLinuxOptions: {}",
            data.join("; ")
        ),
    )
}

const SELINUX_TYPES: [&str; 4] = [
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

pub(super) fn selinux(pod: &Pod<'_>) -> Option<Forbidden> {
    selinux_of(pod, &SELINUX_TYPES[..3])
}

pub(super) fn selinux_1_31(pod: &Pod<'_>) -> Option<Forbidden> {
    selinux_of(pod, &SELINUX_TYPES)
}

/// Before v1.19 seccomp profiles were annotations.
pub(super) fn seccomp_annotations(pod: &Pod<'_>) -> Option<Forbidden> {
    let allowed = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let of_pod = "seccomp.security.alpha.kubernetes.io/pod".to_owned();
    let of_container =
        |c: &Value| format!("container.seccomp.security.alpha.kubernetes.io/{}", name(c));
    let keys: Vec<String> = std::iter::once(of_pod)
        .chain(pod.containers().map(of_container))
        .collect();
    let forbidden: BTreeSet<String> = annotations(pod)
        .filter(|(key, value)| keys.iter().any(|k| k == key) && !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", forbidden.len());
    let all: Vec<String> = forbidden.into_iter().collect();
    Forbidden::new(
        "seccompProfile",
        format!("forbidden {word} {}", all.join(", ")),
    )
}

pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Forbidden> {
    let bad = bad_profiles(pod, "seccompProfile");
    let setters = setters(bad.pod, &bad.containers)?;
    Forbidden::new(
        "seccompProfile",
        format!(
            "{setters} must not set securityContext.seccompProfile.type to {}",
            quoted(bad.types)
        ),
    )
}

/// Restricted pods have to say that they want a profile.
pub(super) fn seccomp_required(pod: &Pod<'_>) -> Option<Forbidden> {
    if let Some(forbidden) = seccomp(pod) {
        return Some(forbidden);
    }
    if pod.security_context()["seccompProfile"].is_object() {
        return None;
    }
    let silent = pod.bad_containers(|c| !c["securityContext"]["seccompProfile"].is_object());
    if silent.is_empty() {
        return None;
    }
    let silent = containers(&silent);
    Forbidden::new(
        "seccompProfile",
        format!(
            r#"pod or {silent} must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost""#
        ),
    )
}

/// A pod for Windows cannot set the field.
pub(super) fn seccomp_required_but_windows(pod: &Pod<'_>) -> Option<Forbidden> {
    if pod.is_windows() {
        return None;
    }
    seccomp_required(pod)
}
