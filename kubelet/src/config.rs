//! `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1): the file that `--config` names, with
//! upstream's defaults. Flags overlay the file before it is read into the type (see `options.rs`),
//! so that this is the only place that knows a default.

use std::collections::BTreeMap;

use component::flags::GoDuration;
use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};

use crate::resources::requests::ResourceList;

const fn seconds(n: i64) -> GoDuration {
    GoDuration::from_secs(n)
}

/// Every field of the v1beta1 configuration. Fields that this kubelet does not act on are kept, so
/// that `/configz` shows the file as it was read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeletConfiguration {
    pub enable_server: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub static_pod_path: String,
    pub pod_logs_dir: String,
    pub sync_frequency: GoDuration,
    pub file_check_frequency: GoDuration,
    pub http_check_frequency: GoDuration,
    #[serde(rename = "staticPodURL", skip_serializing_if = "String::is_empty")]
    pub static_pod_url: String,
    /// Headers of the requests for it, each with its values.
    #[serde(
        rename = "staticPodURLHeader",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub static_pod_url_header: BTreeMap<String, Vec<String>>,
    pub address: String,
    pub port: u16,
    #[serde(skip_serializing_if = "is_zero")]
    pub read_only_port: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tls_cert_file: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tls_private_key_file: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_cipher_suites: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tls_min_version: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rotate_certificates: bool,
    #[serde(
        rename = "serverTLSBootstrap",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub server_tls_bootstrap: bool,
    pub authentication: Authentication,
    pub authorization: Authorization,
    #[serde(rename = "registryPullQPS")]
    pub registry_pull_qps: i32,
    pub registry_burst: i32,
    #[serde(rename = "eventRecordQPS")]
    pub event_record_qps: i32,
    pub event_burst: i32,
    pub enable_debugging_handlers: bool,
    pub healthz_port: u16,
    pub healthz_bind_address: String,
    pub oom_score_adj: i32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cluster_domain: String,
    #[serde(rename = "clusterDNS", skip_serializing_if = "Vec::is_empty")]
    pub cluster_dns: Vec<String>,
    pub streaming_connection_idle_timeout: GoDuration,
    pub node_status_update_frequency: GoDuration,
    pub node_status_report_frequency: GoDuration,
    pub node_lease_duration_seconds: i32,
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: GoDuration,
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: GoDuration,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: i32,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: i32,
    pub volume_stats_agg_period: GoDuration,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup_root: String,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: bool,
    pub cgroup_driver: String,
    pub cpu_manager_policy: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cpu_manager_policy_options: BTreeMap<String, String>,
    #[serde(
        rename = "singleProcessOOMKill",
        skip_serializing_if = "Option::is_none"
    )]
    pub single_process_oom_kill: Option<bool>,
    pub cpu_manager_reconcile_period: GoDuration,
    pub memory_manager_policy: String,
    pub topology_manager_policy: String,
    pub topology_manager_scope: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub topology_manager_policy_options: BTreeMap<String, String>,
    pub runtime_request_timeout: GoDuration,
    pub hairpin_mode: String,
    pub max_pods: i64,
    #[serde(rename = "podCIDR", skip_serializing_if = "String::is_empty")]
    pub pod_cidr: String,
    pub pod_pids_limit: i64,
    pub resolv_conf: String,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    #[serde(rename = "cpuCFSQuotaPeriod")]
    pub cpu_cfs_quota_period: GoDuration,
    pub node_status_max_images: i32,
    pub max_open_files: u64,
    pub content_type: String,
    #[serde(rename = "kubeAPIQPS")]
    pub kube_api_qps: i32,
    #[serde(rename = "kubeAPIBurst")]
    pub kube_api_burst: i32,
    pub serialize_image_pulls: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_image_pulls: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_hard: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub eviction_soft: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    pub eviction_pressure_transition_period: GoDuration,
    #[serde(skip_serializing_if = "is_none")]
    pub eviction_max_pod_grace_period: i32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    pub merge_default_eviction_settings: bool,
    pub enable_controller_attach_detach: bool,
    pub protect_kernel_defaults: bool,
    #[serde(rename = "makeIPTablesUtilChains")]
    pub make_iptables_util_chains: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub feature_gates: BTreeMap<String, bool>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kernel_memcg_notification: bool,
    pub fail_swap_on: bool,
    pub memory_swap: MemorySwap,
    pub container_log_max_size: String,
    pub container_log_max_files: i32,
    pub container_log_max_workers: i32,
    pub container_log_monitor_interval: GoDuration,
    pub config_map_and_secret_change_detection_strategy: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub system_reserved: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kube_reserved: BTreeMap<String, String>,
    #[serde(
        rename = "reservedSystemCPUs",
        skip_serializing_if = "String::is_empty"
    )]
    pub reserved_system_cpus: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reserved_memory: Vec<MemoryReservation>,
    pub enforce_node_allocatable: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_unsafe_sysctls: Vec<String>,
    pub volume_plugin_dir: String,
    #[serde(rename = "providerID", skip_serializing_if = "String::is_empty")]
    pub provider_id: String,
    pub logging: serde_json::Value,
    pub enable_system_log_handler: bool,
    pub enable_system_log_query: bool,
    pub shutdown_grace_period: GoDuration,
    pub shutdown_grace_period_critical_pods: GoDuration,
    pub crash_loop_back_off: CrashLoopBackOff,
    pub enable_profiling_handler: bool,
    pub enable_debug_flags_handler: bool,
    pub seccomp_default: bool,
    pub memory_throttling_factor: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub register_with_taints: Vec<Taint>,
    pub register_node: bool,
    pub local_storage_capacity_isolation: bool,
    pub container_runtime_endpoint: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub image_service_endpoint: String,
    #[serde(rename = "failCgroupV1")]
    pub fail_cgroup_v1: bool,
    pub pods_per_core: i64,
}

fn is_zero(port: &u16) -> bool {
    *port == 0
}

fn is_none(number: &i32) -> bool {
    *number == 0
}

/// Memory of one NUMA node that is the system's: `memory` and `hugepages-<size>`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemoryReservation {
    pub numa_node: u32,
    pub limits: ResourceList,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    pub x509: X509,
    pub webhook: WebhookAuthentication,
    pub anonymous: Anonymous,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct X509 {
    /// File of the CAs that sign client certificates; empty: none are accepted.
    #[serde(rename = "clientCAFile", skip_serializing_if = "String::is_empty")]
    pub client_ca_file: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookAuthentication {
    pub enabled: bool,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: GoDuration,
}

impl Default for WebhookAuthentication {
    fn default() -> Self {
        Self {
            enabled: true,
            cache_ttl: seconds(120),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Anonymous {
    pub enabled: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Authorization {
    pub mode: String,
    pub webhook: WebhookAuthorization,
}

impl Default for Authorization {
    fn default() -> Self {
        Self {
            mode: "Webhook".into(),
            webhook: WebhookAuthorization::default(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct WebhookAuthorization {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: GoDuration,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: GoDuration,
}

impl Default for WebhookAuthorization {
    fn default() -> Self {
        Self {
            cache_authorized_ttl: seconds(300),
            cache_unauthorized_ttl: seconds(30),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemorySwap {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub swap_behavior: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CrashLoopBackOff {
    pub max_container_restart_period: GoDuration,
}

impl Default for CrashLoopBackOff {
    fn default() -> Self {
        Self {
            max_container_restart_period: seconds(300),
        }
    }
}

impl Default for KubeletConfiguration {
    fn default() -> Self {
        Self {
            enable_server: true,
            static_pod_path: String::new(),
            pod_logs_dir: "/var/log/pods".into(),
            sync_frequency: seconds(60),
            file_check_frequency: seconds(20),
            http_check_frequency: seconds(20),
            static_pod_url: String::new(),
            static_pod_url_header: BTreeMap::new(),
            address: "0.0.0.0".into(),
            port: 10250,
            read_only_port: 0,
            tls_cert_file: String::new(),
            tls_private_key_file: String::new(),
            tls_cipher_suites: Vec::new(),
            tls_min_version: String::new(),
            rotate_certificates: false,
            server_tls_bootstrap: false,
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            registry_pull_qps: 5,
            registry_burst: 10,
            event_record_qps: 50,
            event_burst: 100,
            enable_debugging_handlers: true,
            healthz_port: 10248,
            healthz_bind_address: "127.0.0.1".into(),
            oom_score_adj: -999,
            cluster_domain: String::new(),
            cluster_dns: Vec::new(),
            streaming_connection_idle_timeout: seconds(4 * 3600),
            node_status_update_frequency: seconds(0),
            node_status_report_frequency: seconds(0),
            node_lease_duration_seconds: 40,
            image_minimum_gc_age: seconds(120),
            image_maximum_gc_age: seconds(0),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            volume_stats_agg_period: seconds(60),
            cgroup_root: String::new(),
            cgroups_per_qos: true,
            cgroup_driver: "cgroupfs".into(),
            cpu_manager_policy: "none".into(),
            cpu_manager_policy_options: BTreeMap::new(),
            single_process_oom_kill: None,
            cpu_manager_reconcile_period: seconds(10),
            memory_manager_policy: "None".into(),
            topology_manager_policy: "none".into(),
            topology_manager_scope: "container".into(),
            topology_manager_policy_options: BTreeMap::new(),
            runtime_request_timeout: seconds(120),
            hairpin_mode: "promiscuous-bridge".into(),
            max_pods: 110,
            pod_cidr: String::new(),
            pod_pids_limit: -1,
            resolv_conf: "/etc/resolv.conf".into(),
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: GoDuration::from_millis(100),
            node_status_max_images: 50,
            max_open_files: 1_000_000,
            content_type: "application/vnd.kubernetes.protobuf".into(),
            kube_api_qps: 50,
            kube_api_burst: 100,
            serialize_image_pulls: None,
            max_parallel_image_pulls: None,
            eviction_hard: None,
            eviction_soft: BTreeMap::new(),
            eviction_soft_grace_period: BTreeMap::new(),
            eviction_pressure_transition_period: seconds(300),
            eviction_max_pod_grace_period: 0,
            eviction_minimum_reclaim: BTreeMap::new(),
            merge_default_eviction_settings: false,
            enable_controller_attach_detach: true,
            protect_kernel_defaults: false,
            make_iptables_util_chains: true,
            feature_gates: BTreeMap::new(),
            kernel_memcg_notification: false,
            fail_swap_on: true,
            memory_swap: MemorySwap::default(),
            container_log_max_size: "10Mi".into(),
            container_log_max_files: 5,
            container_log_max_workers: 1,
            container_log_monitor_interval: seconds(10),
            config_map_and_secret_change_detection_strategy: "Watch".into(),
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            reserved_system_cpus: String::new(),
            reserved_memory: Vec::new(),
            enforce_node_allocatable: vec!["pods".into()],
            allowed_unsafe_sysctls: Vec::new(),
            volume_plugin_dir: "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/".into(),
            provider_id: String::new(),
            logging: serde_json::json!({"format": "text", "flushFrequency": "5s", "verbosity": 0}),
            enable_system_log_handler: true,
            enable_system_log_query: false,
            shutdown_grace_period: seconds(0),
            shutdown_grace_period_critical_pods: seconds(0),
            crash_loop_back_off: CrashLoopBackOff::default(),
            enable_profiling_handler: true,
            enable_debug_flags_handler: true,
            seccomp_default: false,
            memory_throttling_factor: 0.9,
            register_with_taints: Vec::new(),
            register_node: true,
            local_storage_capacity_isolation: true,
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".into(),
            image_service_endpoint: String::new(),
            fail_cgroup_v1: true,
            pods_per_core: 0,
        }
    }
}

/// Evicting a pod beats losing the node: what must stay free where the file says nothing.
const DEFAULT_EVICTION_HARD: [(&str, &str); 5] = [
    ("memory.available", "100Mi"),
    ("nodefs.available", "10%"),
    ("nodefs.inodesFree", "5%"),
    ("imagefs.available", "15%"),
    ("imagefs.inodesFree", "5%"),
];

impl KubeletConfiguration {
    /// Fills the defaults that depend on other fields. An absent and an empty or zero value mean
    /// the same in this format, except for booleans and where noted upstream.
    pub fn complete(mut self) -> Self {
        let defaults = Self::default();
        // The report frequency follows the update frequency where only that one is set.
        if self.node_status_report_frequency.is_zero() {
            self.node_status_report_frequency = if self.node_status_update_frequency.is_zero() {
                seconds(300)
            } else {
                self.node_status_update_frequency
            };
        }
        if self.node_status_update_frequency.is_zero() {
            self.node_status_update_frequency = seconds(10);
        }
        for (own, default) in [
            (&mut self.sync_frequency, defaults.sync_frequency),
            (
                &mut self.file_check_frequency,
                defaults.file_check_frequency,
            ),
            (
                &mut self.http_check_frequency,
                defaults.http_check_frequency,
            ),
            (
                &mut self.runtime_request_timeout,
                defaults.runtime_request_timeout,
            ),
            (
                &mut self.streaming_connection_idle_timeout,
                defaults.streaming_connection_idle_timeout,
            ),
            (
                &mut self.eviction_pressure_transition_period,
                defaults.eviction_pressure_transition_period,
            ),
            (
                &mut self.volume_stats_agg_period,
                defaults.volume_stats_agg_period,
            ),
            (
                &mut self.cpu_cfs_quota_period,
                defaults.cpu_cfs_quota_period,
            ),
            (
                &mut self.cpu_manager_reconcile_period,
                defaults.cpu_manager_reconcile_period,
            ),
            (
                &mut self.authentication.webhook.cache_ttl,
                defaults.authentication.webhook.cache_ttl,
            ),
        ] {
            if own.is_zero() {
                *own = default;
            }
        }
        for (own, default) in [
            (&mut self.address, defaults.address),
            (
                &mut self.healthz_bind_address,
                defaults.healthz_bind_address,
            ),
            (&mut self.cgroup_driver, defaults.cgroup_driver),
            (&mut self.pod_logs_dir, defaults.pod_logs_dir),
            (
                &mut self.container_runtime_endpoint,
                defaults.container_runtime_endpoint,
            ),
            (&mut self.authorization.mode, defaults.authorization.mode),
            (&mut self.cpu_manager_policy, defaults.cpu_manager_policy),
            (
                &mut self.memory_manager_policy,
                defaults.memory_manager_policy,
            ),
            (
                &mut self.topology_manager_policy,
                defaults.topology_manager_policy,
            ),
            (
                &mut self.topology_manager_scope,
                defaults.topology_manager_scope,
            ),
        ] {
            if own.is_empty() {
                *own = default;
            }
        }
        if self.port == 0 {
            self.port = defaults.port;
        }
        if self.max_pods == 0 {
            self.max_pods = defaults.max_pods;
        }
        if self.node_lease_duration_seconds == 0 {
            self.node_lease_duration_seconds = defaults.node_lease_duration_seconds;
        }
        self.serialize_image_pulls
            .get_or_insert(self.max_parallel_image_pulls.is_none_or(|n| n < 2));
        let unset = self.eviction_hard.is_none();
        let thresholds = self.eviction_hard.get_or_insert_default();
        if unset || self.merge_default_eviction_settings {
            for (signal, value) in DEFAULT_EVICTION_HARD {
                let entry = thresholds.entry(signal.to_owned());
                entry.or_insert_with(|| value.to_owned());
            }
        }
        self
    }

    /// The images' endpoint: the runtime's own unless it is told apart.
    pub fn image_endpoint(&self) -> &str {
        if self.image_service_endpoint.is_empty() {
            &self.container_runtime_endpoint
        } else {
            &self.image_service_endpoint
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_over_defaults() {
        let yaml = "
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
cgroupRoot: /rig/node1
authentication:
  anonymous: {enabled: false}
  x509: {clientCAFile: /pki/ca.crt}
clusterDNS: [10.96.0.10]
syncFrequency: 0s
nodeStatusUpdateFrequency: 4s
evictionHard:
  memory.available: 100Mi
";
        let value: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
        let config = serde_json::from_value::<KubeletConfiguration>(value)
            .unwrap()
            .complete();
        assert!(!config.fail_cgroup_v1);
        assert_eq!(config.authentication.x509.client_ca_file, "/pki/ca.crt");
        assert!(config.authentication.webhook.enabled);
        assert_eq!(config.sync_frequency, seconds(60));
        assert_eq!(config.node_status_report_frequency, seconds(4));
        assert_eq!(config.eviction_hard.as_ref().unwrap().len(), 1);
        assert_eq!(config.serialize_image_pulls, Some(true));
        let shown = serde_json::to_value(&config).unwrap();
        assert_eq!(shown["runtimeRequestTimeout"], "2m0s");
        assert_eq!(shown["clusterDNS"][0], "10.96.0.10");
    }

    #[test]
    fn thresholds_over_defaults() {
        let hard = |config: serde_json::Value| {
            let config = serde_json::from_value::<KubeletConfiguration>(config).unwrap();
            let hard = config.complete().eviction_hard.unwrap();
            let pairs = hard
                .iter()
                .map(|(signal, value)| format!("{signal}<{value}"));
            pairs.collect::<Vec<_>>().join(",")
        };
        let defaults = "imagefs.available<15%,imagefs.inodesFree<5%,memory.available<100Mi,\
                        nodefs.available<10%,nodefs.inodesFree<5%";
        assert_eq!(hard(serde_json::json!({})), defaults);
        assert_eq!(hard(serde_json::json!({"evictionHard": {}})), "");
        let own = serde_json::json!({"nodefs.available": "1Gi"});
        let merged = serde_json::json!({"evictionHard": own, "mergeDefaultEvictionSettings": true});
        assert_eq!(hard(merged), defaults.replace("10%", "1Gi"));
        let alone = serde_json::json!({"evictionHard": own});
        assert_eq!(hard(alone), "nodefs.available<1Gi");
    }
}
