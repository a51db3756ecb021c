//! Kernel parameters that a pod sets.

use std::collections::HashSet;

use meta::field::ErrorList;

use super::at::At;

/// Their names.
pub(super) fn checked(sysctls: &At<'_>, errors: &mut ErrorList) {
    let mut names = HashSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        if !name.is_given() {
            name.required(errors, "");
        } else if !is_sysctl_name(name.text()) {
            name.invalid(errors, "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$");
        } else if !names.insert(name.text()) {
            name.duplicate(errors);
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

/// What the kernel keeps for each namespace cannot be set for the host's by a pod.
pub(super) fn of_host(group: &str, kind: &str, object: &At<'_>, errors: &mut ErrorList) {
    const IPC: [&str; 10] = [
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg",
    ];
    let Some(spec) = super::pod::spec_of(group, kind, object) else {
        return;
    };
    for sysctl in spec.get("securityContext").get("sysctls").items() {
        let name = sysctl.get("name");
        let dotted = dotted(name.text());
        let known = dotted.split('*').next().unwrap_or_default();
        if spec.get("hostNetwork").is_true() && known.starts_with("net.") {
            name.invalid(errors, "may not be specified when 'hostNetwork' is true");
        } else if spec.get("hostIPC").is_true()
            && (known.starts_with("fs.mqueue.") || IPC.contains(&known))
        {
            name.invalid(errors, "may not be specified when 'hostIPC' is true");
        }
    }
}

/// A sysctl's name with dots between its parts: where slashes are, dots are part of a name.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_the_hosts_is_not_set_by_pods() {
        let refused = |spec: serde_json::Value| {
            let mut errors = ErrorList::new();
            of_host("", "Pod", &At::root(&json!({"spec": spec})), &mut errors);
            errors.len()
        };
        let sysctls = json!({"sysctls": [
            {"name": "net.core.somaxconn"}, {"name": "net/ipv4/conf/eth0.1/x"},
            {"name": "kernel.sem"}, {"name": "kernel.shmfoo"}, {"name": "fs.mqueue.msg_max"},
        ]});
        let spec = |field: &str| json!({field: true, "securityContext": sysctls});
        assert_eq!(refused(spec("hostNetwork")), 2);
        assert_eq!(refused(spec("hostIPC")), 2);
        assert_eq!(refused(spec("hostPID")), 0);
    }
}
