//! What pods of one operating system may not say, and the options of Windows containers.

use meta::field::{ErrorList, FieldError};
use meta::validation as format;

use super::at::At;

/// Every container of a pod, the initializing ones first.
fn containers<'a>(spec: &At<'a>) -> Vec<At<'a>> {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .flat_map(|list| spec.get(list).items())
        .collect()
}

pub(super) fn operating_system(spec: &At<'_>, errors: &mut ErrorList) {
    const KNOWN: [&str; 2] = ["linux", "windows"];
    let os = spec.get("os");
    let name = os.get("name");
    if !os.is_set() {
        return;
    }
    match name.text() {
        "" => name.required(errors, ""),
        "linux" => linux(spec, errors),
        "windows" => windows(spec, errors),
        other => errors.push(FieldError::not_supported(&os.path, other, &KNOWN)),
    }
}

fn linux(spec: &At<'_>, errors: &mut ErrorList) {
    let all = containers(spec);
    for of in std::iter::once(spec).chain(&all) {
        let options = of.get("securityContext").get("windowsOptions");
        if options.is_set() {
            options.forbidden(errors, "windows options cannot be set for a linux pod");
        }
    }
}

/// What has no meaning on Windows, of the pod and of a container.
const POD_FIELDS: &[&str] = &["hostUsers", "shareProcessNamespace"];
const POD_FLAGS: &[&str] = &["hostPID", "hostIPC"];
const POD_CONTEXT: &[&str] = &[
    "appArmorProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "runAsGroup",
    "runAsUser",
    "seLinuxChangePolicy",
    "seLinuxOptions",
    "seccompProfile",
    "supplementalGroups",
    "supplementalGroupsPolicy",
];
const CONTAINER_CONTEXT: &[&str] = &[
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "capabilities",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsUser",
    "seLinuxOptions",
    "seccompProfile",
];

fn windows(spec: &At<'_>, errors: &mut ErrorList) {
    let mut forbid = |field: At<'_>| {
        if field.is_set() {
            field.forbidden(errors, "cannot be set for a windows pod");
        }
    };
    for field in POD_FIELDS {
        forbid(spec.get(field));
    }
    for field in POD_FLAGS.iter().filter(|f| spec.get(f).is_true()) {
        forbid(spec.get(field));
    }
    for field in POD_CONTEXT {
        forbid(spec.get("securityContext").get(field));
    }
    let sysctls = spec.get("securityContext").get("sysctls");
    if sysctls.len() > 0 {
        forbid(sysctls);
    }
    for container in containers(spec) {
        for field in CONTAINER_CONTEXT {
            forbid(container.get("securityContext").get(field));
        }
    }
}

/// Containers that are processes of their host: all of a pod's or none.
pub(super) fn host_process(spec: &At<'_>, errors: &mut ErrorList) {
    fn flag<'a>(of: &At<'a>) -> At<'a> {
        let options = of.get("securityContext").get("windowsOptions");
        options.get("hostProcess")
    }
    let of_pod = flag(spec);
    let all = containers(spec);
    let mut count = 0;
    for container in &all {
        let own = flag(container);
        if of_pod.is_set() && own.is_set() && of_pod.is_true() != own.is_true() {
            own.invalid(
                errors,
                format!(
                    "pod hostProcess value must be identical if both are specified, was {}",
                    of_pod.is_true()
                ),
            );
        }
        let effective = if own.is_set() { &own } else { &of_pod };
        count += usize::from(effective.is_true());
    }
    if count == 0 {
        return;
    }
    if count != all.len() {
        errors.push(FieldError::invalid(&spec.path, "", "If pod contains any hostProcess containers then all containers must be HostProcess containers"));
    }
    if !spec.get("hostNetwork").is_true() {
        errors.push(FieldError::invalid(
            &spec.path.child("hostNetwork"),
            false,
            "hostNetwork must be true if pod contains any hostProcess containers",
        ));
    }
}

/// The longest credential specification, in bytes.
const CREDENTIAL_LIMIT: usize = 64 * 1024;
/// The longest domain and the longest user's name, in characters.
const DOMAIN_LIMIT: usize = 256;
const USER_LIMIT: usize = 104;

pub(super) fn options(options: &At<'_>, errors: &mut ErrorList) {
    let name = options.get("gmsaCredentialSpecName");
    if name.is_set() {
        name.check(errors, format::dns1123_subdomain(name.text()));
    }
    let credential = options.get("gmsaCredentialSpec");
    if credential.is_set() && credential.text().is_empty() {
        credential.invalid(errors, "gmsaCredentialSpec cannot be an empty string");
    } else if credential.text().len() > CREDENTIAL_LIMIT {
        credential.invalid(errors, "gmsaCredentialSpec size must be under 64 KiB");
    }
    if options.get("runAsUserName").is_set() {
        user_name(&options.get("runAsUserName"), errors);
    }
}

/// `DOMAIN\user` or `user`.
fn user_name(name: &At<'_>, errors: &mut ErrorList) {
    let parts: Vec<&str> = name.text().split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [""] => {
            name.invalid(errors, "runAsUserName cannot be an empty string");
            return;
        }
        _ if name.text().contains(char::is_control) => {
            name.invalid(errors, "runAsUserName cannot contain control characters");
            return;
        }
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => {
            name.invalid(
                errors,
                "runAsUserName cannot contain more than one backslash",
            );
            return;
        }
    };
    if domain.is_some_and(|d| d.len() >= DOMAIN_LIMIT) {
        name.invalid(
            errors,
            format!("runAsUserName's Domain length must be under {DOMAIN_LIMIT} characters"),
        );
    }
    if domain.is_some_and(|d| !is_net_bios(d) && !is_domain(d)) {
        name.invalid(
            errors,
            "runAsUserName's Domain doesn't match the NetBios nor the DNS format",
        );
    }
    if user.is_empty() {
        name.invalid(errors, "runAsUserName's User cannot be empty");
    } else if user.len() > USER_LIMIT {
        name.invalid(
            errors,
            format!("runAsUserName's User length must not be longer than {USER_LIMIT} characters"),
        );
    }
    if user.chars().all(|c| matches!(c, '.' | ' ')) {
        name.invalid(
            errors,
            "runAsUserName's User cannot contain only periods or spaces",
        );
    }
    if user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)) {
        name.invalid(
            errors,
            r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#,
        );
    }
}

/// Up to 15 characters, none of them special, the first no dot.
fn is_net_bios(domain: &str) -> bool {
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_domain(domain: &str) -> bool {
    domain.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}
