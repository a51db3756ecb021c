//! What belongs to the node: its namespaces, ports, addresses, sysctls and processes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Forbidden, Pod, containers, items, name, plural, quoted, setters, text};

pub(super) fn namespaces(pod: &Pod<'_>) -> Option<Forbidden> {
    let used: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| pod.spec[*field] == true)
        .map(|field| format!("{field}=true"))
        .collect();
    if used.is_empty() {
        return None;
    }
    Forbidden::new("host namespaces", used.join(", "))
}

pub(super) fn ports(pod: &Pod<'_>) -> Option<Forbidden> {
    let mut forbidden = BTreeSet::new();
    let bad = pod.bad_containers(|container| {
        let ports = items(&container["ports"]).filter_map(|p| p["hostPort"].as_i64());
        let used: Vec<String> = ports.filter(|p| *p != 0).map(|p| p.to_string()).collect();
        let is_bad = !used.is_empty();
        forbidden.extend(used);
        is_bad
    });
    if bad.is_empty() {
        return None;
    }
    let detail = format!(
        "{} {} {} {}",
        containers(&bad),
        plural("uses", "use", bad.len()),
        plural("hostPort", "hostPorts", forbidden.len()),
        forbidden.into_iter().collect::<Vec<_>>().join(", "),
    );
    Forbidden::new("hostPort", detail)
}

/// A probe of another host would make the kubelet a proxy into its network.
pub(super) fn probes(pod: &Pod<'_>) -> Option<Forbidden> {
    let mut hosts = BTreeSet::new();
    let bad = pod.bad_containers(|container| {
        let lifecycle = &container["lifecycle"];
        let handlers = [
            &container["livenessProbe"],
            &container["readinessProbe"],
            &container["startupProbe"],
            &lifecycle["postStart"],
            &lifecycle["preStop"],
        ];
        let of = |handler: &'_ Value| {
            ["httpGet", "tcpSocket"].map(|kind| text(&handler[kind]["host"]).to_owned())
        };
        let said: Vec<String> = handlers
            .into_iter()
            .flat_map(of)
            .filter(|host| !host.is_empty())
            .collect();
        let is_bad = !said.is_empty();
        hosts.extend(said);
        is_bad
    });
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<&str> = BTreeSet::from_iter(bad).into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&bad),
        plural("uses", "use", bad.len()),
        plural(
            "probe or lifecycle host",
            "probe or lifecycle hosts",
            hosts.len()
        ),
        quoted(&hosts),
    );
    Forbidden::new("probe or lifecycle host", detail)
}

/// Sysctls that reach no further than the pod, with the version that took them in.
const SAFE_SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];

fn sysctls_at(pod: &Pod<'_>, minor: u32) -> Option<Forbidden> {
    let safe = |sysctl: &str| {
        let mut known = SAFE_SYSCTLS.iter();
        known.any(|(name, since)| *name == sysctl && *since <= minor)
    };
    let forbidden: Vec<&str> = items(&pod.security_context()["sysctls"])
        .map(name)
        .filter(|sysctl| !safe(sysctl))
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    Forbidden::new("forbidden sysctls", forbidden.join(", "))
}

pub(super) fn sysctls(pod: &Pod<'_>) -> Option<Forbidden> {
    sysctls_at(pod, 0)
}

pub(super) fn sysctls_1_27(pod: &Pod<'_>) -> Option<Forbidden> {
    sysctls_at(pod, 27)
}

pub(super) fn sysctls_1_29(pod: &Pod<'_>) -> Option<Forbidden> {
    sysctls_at(pod, 29)
}

pub(super) fn sysctls_1_32(pod: &Pod<'_>) -> Option<Forbidden> {
    sysctls_at(pod, 32)
}

pub(super) fn windows_process(pod: &Pod<'_>) -> Option<Forbidden> {
    let is_host = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let bad = pod.bad_containers(|c| is_host(&c["securityContext"]));
    let setters = setters(is_host(pod.security_context()), &bad)?;
    Forbidden::new(
        "hostProcess",
        format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
