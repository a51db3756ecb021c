//! What the kubelet reads off a `Pod` object: names, kinds of pod, restart rules. Pure accessors;
//! nothing here knows the runtime or the API.

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, EphemeralContainer, Pod, PodSpec, PodStatus,
};

/// Where a pod came from: `api`, `file` or `http`.
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// On a mirror pod, the hash of the static pod that it shows.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Hash of the manifest that a static pod was read from.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// When the kubelet first saw the pod.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// A pod's identity on this node. For a static pod it is derived from its manifest, so that it
/// differs from the uid of its mirror pod.
pub type PodUid = std::sync::Arc<str>;

/// Reading a pod without repeating what is optional on the wire and never absent in practice.
pub trait PodExt {
    fn pod_spec(&self) -> &PodSpec;
    fn uid(&self) -> &str;
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    /// `name_namespace`, as the node API and upstream's logs name a pod.
    fn full_name(&self) -> String;
    /// `name_namespace(uid)`, as messages and events name a pod.
    fn description(&self) -> String;
    fn annotation(&self, key: &str) -> Option<&str>;
    fn init_containers(&self) -> &[Container];
    fn containers(&self) -> &[Container];
    fn ephemeral_containers(&self) -> &[EphemeralContainer];
    fn host_network(&self) -> bool;
    fn phase(&self) -> &str;
    fn status_or_default(&self) -> PodStatus;
    /// Read from a file or URL on this node rather than from the API.
    fn is_static(&self) -> bool;
    /// The API's picture of a static pod.
    fn is_mirror(&self) -> bool;
    fn is_deleting(&self) -> bool;
    /// Protected from eviction and preemption: static, mirror or of system priority.
    fn is_critical(&self) -> bool;
    /// The pod's restart policy is other than `Never`.
    fn restarts_on_failure(&self) -> bool;
    /// The spec of the named container of any kind; an ephemeral one as a plain container.
    fn container_spec(&self, name: &str) -> Option<Container>;
}

static EMPTY_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;

impl PodExt for Pod {
    fn pod_spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY_SPEC)
    }
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }
    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }
    fn full_name(&self) -> String {
        format!("{}_{}", self.name(), self.namespace())
    }
    fn description(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }
    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata
            .annotations
            .as_ref()?
            .get(key)
            .map(String::as_str)
    }
    fn init_containers(&self) -> &[Container] {
        self.pod_spec()
            .init_containers
            .as_deref()
            .unwrap_or_default()
    }
    fn containers(&self) -> &[Container] {
        &self.pod_spec().containers
    }
    fn ephemeral_containers(&self) -> &[EphemeralContainer] {
        self.pod_spec()
            .ephemeral_containers
            .as_deref()
            .unwrap_or_default()
    }
    fn host_network(&self) -> bool {
        self.pod_spec().host_network.unwrap_or_default()
    }
    fn phase(&self) -> &str {
        self.status
            .as_ref()
            .and_then(|s| s.phase.as_deref())
            .unwrap_or_default()
    }
    fn status_or_default(&self) -> PodStatus {
        self.status.clone().unwrap_or_default()
    }
    fn is_static(&self) -> bool {
        self.annotation(CONFIG_SOURCE)
            .is_some_and(|source| source != "api")
    }
    fn is_mirror(&self) -> bool {
        self.annotation(CONFIG_MIRROR).is_some()
    }
    fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
    fn is_critical(&self) -> bool {
        self.is_static()
            || self.is_mirror()
            || self
                .pod_spec()
                .priority
                .is_some_and(|priority| priority >= SYSTEM_CRITICAL_PRIORITY)
    }
    fn restarts_on_failure(&self) -> bool {
        self.pod_spec().restart_policy.as_deref() != Some("Never")
    }
    fn container_spec(&self, name: &str) -> Option<Container> {
        let plain = self
            .containers()
            .iter()
            .chain(self.init_containers())
            .find(|c| c.name == name)
            .cloned();
        plain.or_else(|| {
            self.ephemeral_containers()
                .iter()
                .find(|c| c.name == name)
                .map(as_container)
        })
    }
}

/// `Succeeded` or `Failed`: no container will run again.
pub fn is_terminal_phase(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// A sidecar: an init container that keeps running beside the regular ones (KEP-753).
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The fields that an ephemeral container shares with every other container.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: e.liveness_probe,
        name: e.name,
        ports: e.ports,
        readiness_probe: e.readiness_probe,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: e.restart_policy,
        restart_policy_rules: e.restart_policy_rules,
        security_context: e.security_context,
        startup_probe: e.startup_probe,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

/// Whether a container that ended with `exit_code` is to run again: its own rules first, then its
/// own policy, then the pod's (KEP-5307).
pub fn restarts_after_exit(container: &Container, spec: &PodSpec, exit_code: i32) -> bool {
    if let Some(policy) = container.restart_policy.as_deref() {
        let action = matching_action(container, exit_code);
        if matches!(action, Some("Restart" | "RestartAllContainers")) {
            return true;
        }
        match policy {
            "Always" => return true,
            "OnFailure" => return exit_code != 0,
            "Never" => return false,
            _ => {}
        }
    }
    match spec.restart_policy.as_deref() {
        Some("OnFailure") => exit_code != 0,
        Some("Never") => false,
        _ => true,
    }
}

/// What a container's rules say of its end with this exit code: the first that matches.
pub fn matching_action(container: &Container, exit_code: i32) -> Option<&str> {
    let mut rules = container.restart_policy_rules.iter().flatten();
    let matching = rules.find(|rule| rule_matches(rule, exit_code));
    matching.map(|rule| rule.action.as_str())
}

fn rule_matches(rule: &ContainerRestartRule, exit_code: i32) -> bool {
    let Some(codes) = &rule.exit_codes else {
        return false;
    };
    let listed = codes
        .values
        .as_deref()
        .unwrap_or_default()
        .contains(&exit_code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

/// Whether the container could ever run a second time, whatever its exit code.
pub fn can_restart(container: &Container, spec: &PodSpec) -> bool {
    match container.restart_policy.as_deref() {
        Some(policy) => {
            let rules = container
                .restart_policy_rules
                .as_deref()
                .unwrap_or_default();
            policy != "Never" || rules.iter().any(|rule| rule.action == "Restart")
        }
        None => spec.restart_policy.as_deref() != Some("Never"),
    }
}
