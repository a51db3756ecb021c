//! Security contexts: a pod's and a container's, as the runtime takes them. Pure.

use grpc::cri::{
    Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext,
    NamespaceMode, NamespaceOption, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy,
    security_profile::ProfileType,
};
use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SELinuxOptions, SeccompProfile,
    SecurityContext,
};
use thiserror::Error;

use crate::pods::pod::PodExt;

/// Why a container's security context cannot be honoured.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SecurityError {
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    RunAsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})"
    )]
    ImageRunsAsRoot { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    ImageUserIsAName {
        user: String,
        pod: String,
        container: String,
    },
    #[error("localhostProfile must be set if seccompProfile type is Localhost.")]
    NoSeccompFile,
    #[error("missing localhost apparmor profile name")]
    NoAppArmorName,
    #[error("user namespaces are not supported by this kubelet (pod {0:?} has hostUsers: false)")]
    UserNamespaces(String),
}

/// The user that an image runs as where the pod does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageUser {
    Id(i64),
    Name(String),
}

/// Node-wide settings that security contexts depend on.
#[derive(Debug, Clone, Default)]
pub struct SecurityDefaults {
    /// Directory of local seccomp profiles.
    pub seccomp_root: String,
    /// `seccompDefault`: pods without a profile get the runtime's instead of none.
    pub seccomp_default: bool,
    /// What of `/proc` and `/sys` a container must not see, as this node has it.
    pub masked_paths: Vec<String>,
}

const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The paths to mask: the usual ones, and the CPUs' throttle counters that exist here.
pub fn masked_paths(throttle_paths: impl Iterator<Item = String>) -> Vec<String> {
    MASKED_PATHS
        .iter()
        .map(|path| (*path).to_owned())
        .chain(throttle_paths)
        .collect()
}

/// Namespaces of a pod: which are the node's, which shared, which each container's own.
///
/// # Errors
/// For a pod that wants a user namespace.
pub fn namespaces(pod: &Pod) -> Result<NamespaceOption, SecurityError> {
    let spec = pod.pod_spec();
    if spec.host_users == Some(false) {
        return Err(SecurityError::UserNamespaces(pod.description()));
    }
    let node_or_pod = |node: Option<bool>| {
        if node == Some(true) {
            NamespaceMode::Node
        } else {
            NamespaceMode::Pod
        }
    };
    let pid = match (spec.host_pid, spec.share_process_namespace) {
        (Some(true), _) => NamespaceMode::Node,
        (_, Some(true)) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    Ok(NamespaceOption {
        network: node_or_pod(spec.host_network).into(),
        ipc: node_or_pod(spec.host_ipc).into(),
        pid: pid.into(),
        ..Default::default()
    })
}

/// The sandbox's security context.
///
/// # Errors
/// As [`namespaces`].
pub fn sandbox(pod: &Pod) -> Result<LinuxSandboxSecurityContext, SecurityError> {
    let privileged = pod
        .containers()
        .iter()
        .chain(pod.init_containers())
        .any(|c| {
            c.security_context
                .as_ref()
                .is_some_and(|sc| sc.privileged == Some(true))
        });
    let mut context = LinuxSandboxSecurityContext {
        privileged,
        seccomp: Some(profile(ProfileType::RuntimeDefault)),
        namespace_options: Some(namespaces(pod)?),
        ..Default::default()
    };
    if let Some(sc) = &pod.pod_spec().security_context {
        context.run_as_user = int64(sc.run_as_user);
        context.run_as_group = int64(sc.run_as_group);
        context.supplemental_groups = supplemental_groups(sc);
        context.supplemental_groups_policy = groups_policy(sc).into();
        context.selinux_options = sc.se_linux_options.as_ref().map(selinux);
    }
    Ok(context)
}

/// A container's security context: its own settings over the pod's over the image's user.
///
/// # Errors
/// When the settings contradict the image (`runAsNonRoot`) or are incomplete.
pub fn container(
    pod: &Pod,
    container: &Container,
    image_user: &ImageUser,
    defaults: &SecurityDefaults,
) -> Result<LinuxContainerSecurityContext, SecurityError> {
    let effective = effective(pod, container);
    verify_non_root(pod, container, &effective, image_user)?;
    let pod_context = pod.pod_spec().security_context.as_ref();
    let own = container.security_context.as_ref();
    let (apparmor, apparmor_profile) = apparmor(own, pod_context)?;
    let unmasked = effective.proc_mount.as_deref() == Some("Unmasked");
    let readonly = READONLY_PATHS.iter().map(|path| (*path).to_owned());
    let mut context = LinuxContainerSecurityContext {
        capabilities: effective.capabilities.as_ref().map(|c| Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Default::default()
        }),
        privileged: effective.privileged.unwrap_or_default(),
        namespace_options: Some(namespaces(pod)?),
        selinux_options: effective.se_linux_options.as_ref().map(selinux),
        run_as_user: int64(effective.run_as_user),
        run_as_group: int64(effective.run_as_group),
        readonly_rootfs: effective.read_only_root_filesystem.unwrap_or_default(),
        no_new_privs: effective.allow_privilege_escalation == Some(false),
        masked_paths: if unmasked {
            Vec::new()
        } else {
            defaults.masked_paths.clone()
        },
        readonly_paths: if unmasked {
            Vec::new()
        } else {
            readonly.collect()
        },
        seccomp: Some(seccomp(own, pod_context, defaults)?),
        apparmor,
        apparmor_profile,
        ..Default::default()
    };
    if context.run_as_user.is_none() {
        match image_user {
            ImageUser::Id(id) => context.run_as_user = int64(Some(*id)),
            ImageUser::Name(name) => context.run_as_username.clone_from(name),
        }
    }
    if let Some(sc) = pod_context {
        context.supplemental_groups = supplemental_groups(sc);
        context.supplemental_groups_policy = groups_policy(sc).into();
    }
    Ok(context)
}

/// The container's settings, completed by those of the pod that apply to containers.
pub fn effective(pod: &Pod, container: &Container) -> SecurityContext {
    let mut effective = container.security_context.clone().unwrap_or_default();
    if let Some(sc) = &pod.pod_spec().security_context {
        effective.se_linux_options = effective
            .se_linux_options
            .or_else(|| sc.se_linux_options.clone());
        effective.run_as_user = effective.run_as_user.or(sc.run_as_user);
        effective.run_as_group = effective.run_as_group.or(sc.run_as_group);
        effective.run_as_non_root = effective.run_as_non_root.or(sc.run_as_non_root);
    }
    effective
}

fn verify_non_root(
    pod: &Pod,
    container: &Container,
    effective: &SecurityContext,
    image_user: &ImageUser,
) -> Result<(), SecurityError> {
    if effective.run_as_non_root != Some(true) {
        return Ok(());
    }
    let (pod, container) = (pod.description(), container.name.clone());
    match (effective.run_as_user, image_user) {
        (Some(0), _) => Err(SecurityError::RunAsRoot { pod, container }),
        (Some(_), _) => Ok(()),
        (None, ImageUser::Id(0)) => Err(SecurityError::ImageRunsAsRoot { pod, container }),
        (None, ImageUser::Id(_)) => Ok(()),
        (None, ImageUser::Name(user)) => Err(SecurityError::ImageUserIsAName {
            user: user.clone(),
            pod,
            container,
        }),
    }
}

fn seccomp(
    own: Option<&SecurityContext>,
    pod: Option<&PodSecurityContext>,
    defaults: &SecurityDefaults,
) -> Result<SecurityProfile, SecurityError> {
    let chosen: Option<&SeccompProfile> = own
        .and_then(|sc| sc.seccomp_profile.as_ref())
        .or_else(|| pod.and_then(|sc| sc.seccomp_profile.as_ref()));
    match chosen {
        None if defaults.seccomp_default => Ok(profile(ProfileType::RuntimeDefault)),
        None => Ok(profile(ProfileType::Unconfined)),
        Some(chosen) => match chosen.type_.as_str() {
            "RuntimeDefault" => Ok(profile(ProfileType::RuntimeDefault)),
            "Localhost" => {
                let file = chosen
                    .localhost_profile
                    .as_deref()
                    .filter(|file| !file.is_empty());
                let file = file.ok_or(SecurityError::NoSeccompFile)?;
                Ok(SecurityProfile {
                    profile_type: ProfileType::Localhost.into(),
                    localhost_ref: format!("{}/{file}", defaults.seccomp_root),
                })
            }
            _ => Ok(profile(ProfileType::Unconfined)),
        },
    }
}

/// The profile, and its older spelling for runtimes that know no other.
fn apparmor(
    own: Option<&SecurityContext>,
    pod: Option<&PodSecurityContext>,
) -> Result<(Option<SecurityProfile>, String), SecurityError> {
    let chosen: Option<&AppArmorProfile> = own
        .and_then(|sc| sc.app_armor_profile.as_ref())
        .or_else(|| pod.and_then(|sc| sc.app_armor_profile.as_ref()));
    let Some(chosen) = chosen else {
        return Ok((None, String::new()));
    };
    Ok(match chosen.type_.as_str() {
        "RuntimeDefault" => (
            Some(profile(ProfileType::RuntimeDefault)),
            "runtime/default".into(),
        ),
        "Localhost" => {
            let name = chosen
                .localhost_profile
                .clone()
                .ok_or(SecurityError::NoAppArmorName)?;
            let old = format!("localhost/{name}");
            (
                Some(SecurityProfile {
                    profile_type: ProfileType::Localhost.into(),
                    localhost_ref: name,
                }),
                old,
            )
        }
        _ => (Some(profile(ProfileType::Unconfined)), "unconfined".into()),
    })
}

fn profile(kind: ProfileType) -> SecurityProfile {
    SecurityProfile {
        profile_type: kind.into(),
        localhost_ref: String::new(),
    }
}

fn int64(value: Option<i64>) -> Option<Int64Value> {
    value.map(|value| Int64Value { value })
}

fn selinux(options: &SELinuxOptions) -> SeLinuxOption {
    SeLinuxOption {
        user: options.user.clone().unwrap_or_default(),
        role: options.role.clone().unwrap_or_default(),
        r#type: options.type_.clone().unwrap_or_default(),
        level: options.level.clone().unwrap_or_default(),
    }
}

fn supplemental_groups(sc: &PodSecurityContext) -> Vec<i64> {
    sc.fs_group
        .into_iter()
        .chain(sc.supplemental_groups.iter().flatten().copied())
        .collect()
}

fn groups_policy(sc: &PodSecurityContext) -> SupplementalGroupsPolicy {
    match sc.supplemental_groups_policy.as_deref() {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run(
        pod: Value,
        own: Value,
        user: ImageUser,
    ) -> Result<LinuxContainerSecurityContext, SecurityError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]},
        }))
        .unwrap();
        let defaults = SecurityDefaults {
            seccomp_root: "/s".into(),
            ..Default::default()
        };
        container(&pod, &pod.containers()[0], &user, &defaults)
    }

    #[test]
    fn the_container_wins_over_the_pod_over_the_image() {
        let image = ImageUser::Name("www".into());
        let context = run(json!({}), json!({}), image.clone()).unwrap();
        assert_eq!(
            (context.run_as_user, context.run_as_username.as_str()),
            (None, "www")
        );
        let context = run(
            json!({"runAsUser": 5, "fsGroup": 7, "supplementalGroups": [8]}),
            json!({}),
            image.clone(),
        )
        .unwrap();
        assert_eq!(context.run_as_user.unwrap().value, 5);
        assert_eq!(context.supplemental_groups, [7, 8]);
        let context = run(
            json!({"runAsUser": 5}),
            json!({"runAsUser": 6, "allowPrivilegeEscalation": false}),
            image,
        )
        .unwrap();
        assert_eq!(
            (context.run_as_user.unwrap().value, context.no_new_privs),
            (6, true)
        );
    }

    #[test]
    fn non_root_is_verified() {
        let non_root = json!({"runAsNonRoot": true});
        assert!(matches!(
            run(non_root.clone(), json!({}), ImageUser::Id(0)),
            Err(SecurityError::ImageRunsAsRoot { .. })
        ));
        assert!(matches!(
            run(non_root.clone(), json!({"runAsUser": 0}), ImageUser::Id(5)),
            Err(SecurityError::RunAsRoot { .. })
        ));
        assert!(matches!(
            run(non_root.clone(), json!({}), ImageUser::Name("x".into())),
            Err(SecurityError::ImageUserIsAName { .. })
        ));
        assert!(run(non_root, json!({}), ImageUser::Id(5)).is_ok());
    }

    #[test]
    fn profiles() {
        let context = run(
            json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a.json"}}),
            json!({}),
            ImageUser::Id(0),
        )
        .unwrap();
        assert_eq!(context.seccomp.unwrap().localhost_ref, "/s/a.json");
        let context = run(
            json!({}),
            json!({"procMount": "Unmasked"}),
            ImageUser::Id(0),
        )
        .unwrap();
        assert!(context.masked_paths.is_empty() && context.readonly_paths.is_empty());
        assert_eq!(
            context.seccomp.unwrap().profile_type(),
            ProfileType::Unconfined
        );
    }
}
