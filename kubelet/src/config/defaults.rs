//! What an absent field means: upstream's defaults of v1beta1. Nothing else knows a default.

use std::collections::BTreeMap;

use component::features::FeatureGates;
use component::flags::GoDuration;

use super::{
    API_VERSION, Authentication, Authorization, CrashLoopBackOff, KIND, KubeletConfiguration,
    Logging, MemorySwap, is_zero, seconds,
};

/// The longest that a container which crashes waits for its next start.
const MAX_CONTAINER_BACKOFF: GoDuration = seconds(300);

impl Default for KubeletConfiguration {
    fn default() -> Self {
        Self {
            kind: KIND.into(),
            api_version: API_VERSION.into(),
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
            tls_curve_preferences: Vec::new(),
            tls_min_version: String::new(),
            rotate_certificates: false,
            server_tls_bootstrap: false,
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            registry_pull_qps: 5,
            registry_burst: 10,
            image_pull_credentials_verification_policy: String::new(),
            preloaded_images_verification_allowlist: Vec::new(),
            event_record_qps: 50,
            event_burst: 100,
            enable_debugging_handlers: true,
            enable_contention_profiling: false,
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
            kubelet_cgroups: String::new(),
            system_cgroups: String::new(),
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
            qos_reserved: BTreeMap::new(),
            runtime_request_timeout: seconds(120),
            hairpin_mode: "promiscuous-bridge".into(),
            max_pods: 110,
            pod_cidr: String::new(),
            pod_pids_limit: -1,
            resolv_conf: "/etc/resolv.conf".into(),
            run_once: false,
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
            pods_per_core: 0,
            enable_controller_attach_detach: true,
            protect_kernel_defaults: false,
            make_iptables_util_chains: true,
            iptables_masquerade_bit: 14,
            iptables_drop_bit: 15,
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
            show_hidden_metrics_for_version: String::new(),
            system_reserved_cgroup: String::new(),
            kube_reserved_cgroup: String::new(),
            enforce_node_allocatable: vec!["pods".into()],
            allowed_unsafe_sysctls: Vec::new(),
            volume_plugin_dir: "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/".into(),
            provider_id: String::new(),
            logging: Logging::default(),
            enable_system_log_handler: true,
            enable_system_log_query: false,
            shutdown_grace_period: seconds(0),
            shutdown_grace_period_critical_pods: seconds(0),
            shutdown_grace_period_by_pod_priority: Vec::new(),
            crash_loop_back_off: CrashLoopBackOff::default(),
            enable_profiling_handler: true,
            enable_debug_flags_handler: true,
            seccomp_default: false,
            memory_throttling_factor: 0.9,
            memory_reservation_policy: "None".into(),
            register_with_taints: Vec::new(),
            register_node: true,
            tracing: None,
            local_storage_capacity_isolation: true,
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".into(),
            image_service_endpoint: String::new(),
            fail_cgroup_v1: true,
            user_namespaces: None,
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
    /// Fills in what the file leaves out. Only where upstream's field is a pointer does a zero
    /// stay: there it is a value.
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
        or(&mut self.node_status_update_frequency, seconds(10));
        or(&mut self.sync_frequency, defaults.sync_frequency);
        or(
            &mut self.file_check_frequency,
            defaults.file_check_frequency,
        );
        or(
            &mut self.http_check_frequency,
            defaults.http_check_frequency,
        );
        or(&mut self.address, defaults.address);
        or(&mut self.port, defaults.port);
        let (tokens, own) = (defaults.authentication.webhook, &mut self.authentication);
        or(&mut own.webhook.cache_ttl, tokens.cache_ttl);
        let (reviews, own) = (defaults.authorization, &mut self.authorization);
        or(&mut own.mode, reviews.mode);
        let (reviews, own) = (reviews.webhook, &mut own.webhook);
        or(&mut own.cache_authorized_ttl, reviews.cache_authorized_ttl);
        or(
            &mut own.cache_unauthorized_ttl,
            reviews.cache_unauthorized_ttl,
        );
        or(&mut self.registry_burst, defaults.registry_burst);
        or(&mut self.event_burst, defaults.event_burst);
        or(
            &mut self.healthz_bind_address,
            defaults.healthz_bind_address,
        );
        or(
            &mut self.streaming_connection_idle_timeout,
            defaults.streaming_connection_idle_timeout,
        );
        or(
            &mut self.node_lease_duration_seconds,
            defaults.node_lease_duration_seconds,
        );
        or(
            &mut self.image_minimum_gc_age,
            defaults.image_minimum_gc_age,
        );
        or(
            &mut self.volume_stats_agg_period,
            defaults.volume_stats_agg_period,
        );
        or(&mut self.cgroup_driver, defaults.cgroup_driver);
        or(&mut self.cpu_manager_policy, defaults.cpu_manager_policy);
        or(
            &mut self.cpu_manager_reconcile_period,
            defaults.cpu_manager_reconcile_period,
        );
        or(
            &mut self.memory_manager_policy,
            defaults.memory_manager_policy,
        );
        or(
            &mut self.topology_manager_policy,
            defaults.topology_manager_policy,
        );
        or(
            &mut self.topology_manager_scope,
            defaults.topology_manager_scope,
        );
        or(
            &mut self.runtime_request_timeout,
            defaults.runtime_request_timeout,
        );
        or(&mut self.hairpin_mode, defaults.hairpin_mode);
        or(&mut self.max_pods, defaults.max_pods);
        // No limit is -1, however it is said.
        self.pod_pids_limit = self.pod_pids_limit.max(-1);
        or(&mut self.max_open_files, defaults.max_open_files);
        or(&mut self.content_type, defaults.content_type);
        or(&mut self.kube_api_burst, defaults.kube_api_burst);
        self.serialize_image_pulls
            .get_or_insert(self.max_parallel_image_pulls.is_none_or(|n| n < 2));
        or(
            &mut self.eviction_pressure_transition_period,
            defaults.eviction_pressure_transition_period,
        );
        or(
            &mut self.container_log_max_size,
            defaults.container_log_max_size,
        );
        or(
            &mut self.config_map_and_secret_change_detection_strategy,
            defaults.config_map_and_secret_change_detection_strategy,
        );
        or(&mut self.volume_plugin_dir, defaults.volume_plugin_dir);
        self.logging.complete();
        or(
            &mut self.memory_reservation_policy,
            defaults.memory_reservation_policy,
        );
        or(
            &mut self.container_runtime_endpoint,
            defaults.container_runtime_endpoint,
        );
        or(&mut self.pod_logs_dir, defaults.pod_logs_dir);
        self.complete_gated();
        self.complete_evictions();
        self
    }

    /// Fields that are there only while their feature is.
    fn complete_gated(&mut self) {
        // Gates that make no sense are told of by the validation.
        let gates = FeatureGates::from_pairs(&self.feature_gates).unwrap_or_default();
        if gates.enabled("KubeletCrashLoopBackOffMax") {
            let period = &mut self.crash_loop_back_off.max_container_restart_period;
            period.get_or_insert(MAX_CONTAINER_BACKOFF);
        }
        if gates.enabled("KubeletEnsureSecretPulledImages") {
            let policy = &mut self.image_pull_credentials_verification_policy;
            or(policy, "NeverVerifyPreloadedImages".into());
        }
    }

    fn complete_evictions(&mut self) {
        let unset = self.eviction_hard.is_none();
        let thresholds = self.eviction_hard.get_or_insert_default();
        if unset || self.merge_default_eviction_settings {
            for (signal, value) in DEFAULT_EVICTION_HARD {
                let entry = thresholds.entry(signal.to_owned());
                entry.or_insert_with(|| value.to_owned());
            }
        }
    }
}

/// The default, in place of a zero.
fn or<T: Default + PartialEq>(own: &mut T, default: T) {
    if is_zero(own) {
        *own = default;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn completed(config: Value) -> KubeletConfiguration {
        let config = serde_json::from_value::<KubeletConfiguration>(config).unwrap();
        config.complete()
    }

    #[test]
    fn thresholds_over_defaults() {
        let hard = |config: Value| {
            let hard = completed(config).eviction_hard.unwrap();
            let pairs = hard
                .iter()
                .map(|(signal, value)| format!("{signal}<{value}"));
            pairs.collect::<Vec<_>>().join(",")
        };
        let defaults = "imagefs.available<15%,imagefs.inodesFree<5%,memory.available<100Mi,\
                        nodefs.available<10%,nodefs.inodesFree<5%";
        assert_eq!(hard(json!({})), defaults);
        assert_eq!(hard(json!({"evictionHard": {}})), "");
        let own = json!({"nodefs.available": "1Gi"});
        let merged = json!({"evictionHard": own, "mergeDefaultEvictionSettings": true});
        assert_eq!(hard(merged), defaults.replace("10%", "1Gi"));
        let alone = json!({"evictionHard": own});
        assert_eq!(hard(alone), "nodefs.available<1Gi");
    }

    #[test]
    fn zeros_are_defaults_but_for_pointers() {
        let zeros = json!({
            "maxPods": 0, "eventBurst": 0, "maxOpenFiles": 0, "hairpinMode": "", "port": 0,
            "imageMinimumGCAge": "0s", "volumePluginDir": "", "containerLogMaxSize": "",
            "authorization": {"webhook": {"cacheAuthorizedTTL": "0s", "cacheUnauthorizedTTL": "0s"}},
            "logging": {"format": "", "flushFrequency": "0s"}, "podPidsLimit": -7,
            // These may be zero.
            "healthzPort": 0, "eventRecordQPS": 0, "registryPullQPS": 0, "oomScoreAdj": 0,
            "cpuCFSQuotaPeriod": "0s", "resolvConf": "", "enforceNodeAllocatable": [],
        });
        let shown = serde_json::to_value(completed(zeros)).unwrap();
        let default = serde_json::to_value(completed(json!({}))).unwrap();
        let mut other: Vec<&str> = Vec::new();
        for (field, value) in default.as_object().unwrap() {
            if shown[field] != *value {
                other.push(field);
            }
        }
        other.sort_unstable();
        let may_be_zero = [
            "cpuCFSQuotaPeriod",
            "enforceNodeAllocatable",
            "eventRecordQPS",
            "healthzPort",
            "oomScoreAdj",
            "registryPullQPS",
            "resolvConf",
        ];
        assert_eq!(other, may_be_zero);
    }

    #[test]
    fn gates_decide_on_some() {
        let of = |gates: Value| {
            let c = completed(json!({"featureGates": gates}));
            let period = c.crash_loop_back_off.max_container_restart_period;
            (period, c.image_pull_credentials_verification_policy)
        };
        assert_eq!(
            of(json!({})),
            (Some(seconds(300)), "NeverVerifyPreloadedImages".into())
        );
        let off =
            json!({"KubeletCrashLoopBackOffMax": false, "KubeletEnsureSecretPulledImages": false});
        assert_eq!(of(off), (None, String::new()));
    }
}
