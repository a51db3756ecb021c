//! A pod's sandbox as the runtime is to make it. Pure.

use std::collections::HashSet;

use grpc::cri::{
    DnsConfig, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::limits::{self, LimitDefaults};
use super::security::{self, SecurityError};
use super::{labels, logs};
use crate::pods::pod::PodExt;

/// What a sandbox takes beside the pod's spec.
#[derive(Debug)]
pub struct SandboxInput<'a> {
    pub attempt: u32,
    pub dns: DnsConfig,
    /// The name the kernel is told; unused on the host network.
    pub hostname: String,
    pub cgroup_parent: String,
    /// `podLogsDir`.
    pub logs_root: &'a str,
    pub limits: &'a LimitDefaults,
}

/// # Errors
/// As [`security::sandbox`].
pub fn config(pod: &Pod, input: SandboxInput<'_>) -> Result<PodSandboxConfig, SecurityError> {
    let sysctls = pod
        .pod_spec()
        .security_context
        .iter()
        .flat_map(|sc| sc.sysctls.iter().flatten());
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: pod.name().into(),
            namespace: pod.namespace().into(),
            uid: pod.uid().into(),
            attempt: input.attempt,
        }),
        hostname: if pod.host_network() {
            String::new()
        } else {
            input.hostname
        },
        log_directory: logs::pod_directory(input.logs_root, pod),
        dns_config: Some(input.dns),
        port_mappings: pod.containers().iter().flat_map(port_mappings).collect(),
        labels: labels::pod_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: input.cgroup_parent,
            security_context: Some(security::sandbox(pod)?),
            // The runtime tells namespaced settings by their dots.
            sysctls: sysctls
                .map(|s| (s.name.replace('/', "."), s.value.clone()))
                .collect(),
            overhead: Some(limits::overhead(pod, input.limits)),
            resources: Some(limits::sandbox(pod, input.limits)),
        }),
    })
}

/// A container's ports, each once.
fn port_mappings(container: &Container) -> Vec<PortMapping> {
    let mut seen = HashSet::new();
    let mut mappings = Vec::new();
    for port in container.ports.iter().flatten() {
        let host_ip = port.host_ip.clone().unwrap_or_default();
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let host_port = port.host_port.unwrap_or_default();
        let identity = match port.name.as_deref() {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => format!("{protocol}-{host_ip}:{}:{host_port}", port.container_port),
        };
        if seen.insert(identity) {
            mappings.push(PortMapping {
                protocol: match protocol {
                    "UDP" => Protocol::Udp,
                    "SCTP" => Protocol::Sctp,
                    _ => Protocol::Tcp,
                }
                .into(),
                container_port: port.container_port,
                host_port,
                host_ip,
            });
        }
    }
    mappings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sandbox() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"a": "b"}, "annotations": {"x": "y"}},
            "spec": {
                "securityContext": {"sysctls": [{"name": "net/core/somaxconn", "value": "1"}]},
                "containers": [{"name": "c", "ports": [
                    {"containerPort": 80, "hostPort": 8080}, {"containerPort": 80, "hostPort": 8080},
                    {"containerPort": 53, "protocol": "UDP", "name": "dns"}]}],
            },
        }))
        .unwrap();
        let limits = LimitDefaults::default();
        let input = SandboxInput {
            attempt: 2,
            dns: DnsConfig::default(),
            hostname: "p".into(),
            cgroup_parent: "/kubepods/besteffort/podu".into(),
            logs_root: "/var/log/pods",
            limits: &limits,
        };
        let config = config(&pod, input).unwrap();
        assert_eq!(config.log_directory, "/var/log/pods/n_p_u");
        assert_eq!(config.port_mappings.len(), 2);
        assert_eq!(config.labels["io.kubernetes.pod.uid"], "u");
        assert_eq!(config.annotations["x"], "y");
        assert_eq!(config.linux.unwrap().sysctls["net.core.somaxconn"], "1");
    }
}
