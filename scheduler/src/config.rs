//! `KubeSchedulerConfiguration` (kubescheduler.config.k8s.io/v1): upstream's fields, and
//! what of them this build can do.

use anyhow::bail;
use component::flags::GoDuration;
use serde::Deserialize;

pub const KIND: &str = "KubeSchedulerConfiguration";
pub const VERSIONS: &[&str] = &["kubescheduler.config.k8s.io/v1"];

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubeSchedulerConfiguration {
    pub api_version: String,
    pub kind: String,
    pub parallelism: i32,
    pub leader_election: LeaderElection,
    pub client_connection: ClientConnection,
    pub enable_profiling: bool,
    pub enable_contention_profiling: bool,
    pub percentage_of_nodes_to_score: Option<usize>,
    pub pod_initial_backoff_seconds: u64,
    pub pod_max_backoff_seconds: u64,
    pub delay_cache_until_active: bool,
    pub profiles: Vec<ProfileConfiguration>,
    pub extenders: Vec<serde_json::Value>,
}

impl Default for KubeSchedulerConfiguration {
    fn default() -> Self {
        Self {
            api_version: VERSIONS[0].to_owned(),
            kind: KIND.to_owned(),
            parallelism: 16,
            leader_election: LeaderElection::default(),
            client_connection: ClientConnection::default(),
            enable_profiling: true,
            enable_contention_profiling: true,
            percentage_of_nodes_to_score: None,
            pod_initial_backoff_seconds: 1,
            pod_max_backoff_seconds: 10,
            delay_cache_until_active: false,
            profiles: vec![ProfileConfiguration::default()],
            extenders: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LeaderElection {
    pub leader_elect: bool,
    pub lease_duration: GoDuration,
    pub renew_deadline: GoDuration,
    pub retry_period: GoDuration,
    pub resource_lock: String,
    pub resource_name: String,
    pub resource_namespace: String,
}

impl Default for LeaderElection {
    fn default() -> Self {
        Self {
            leader_elect: true,
            lease_duration: GoDuration::from_secs(15),
            renew_deadline: GoDuration::from_secs(10),
            retry_period: GoDuration::from_secs(2),
            resource_lock: "leases".to_owned(),
            resource_name: "kube-scheduler".to_owned(),
            resource_namespace: "kube-system".to_owned(),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClientConnection {
    pub kubeconfig: String,
    pub accept_content_types: String,
    pub content_type: String,
    pub qps: f32,
    pub burst: u32,
}

impl Default for ClientConnection {
    fn default() -> Self {
        Self {
            kubeconfig: String::new(),
            accept_content_types: String::new(),
            content_type: "application/vnd.kubernetes.protobuf".to_owned(),
            qps: 50.0,
            burst: 100,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProfileConfiguration {
    pub scheduler_name: String,
    pub percentage_of_nodes_to_score: Option<usize>,
    pub plugins: Option<serde_json::Value>,
    pub plugin_config: Vec<serde_json::Value>,
}

impl Default for ProfileConfiguration {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            percentage_of_nodes_to_score: None,
            plugins: None,
            plugin_config: Vec::new(),
        }
    }
}

impl KubeSchedulerConfiguration {
    /// Refuses what this build cannot do, by name, rather than doing something else.
    pub fn validate(&self) -> anyhow::Result<()> {
        if self.profiles.is_empty() {
            bail!("profiles: Required value");
        }
        for (i, profile) in self.profiles.iter().enumerate() {
            if profile.scheduler_name.is_empty() {
                bail!("profiles[{i}].schedulerName: Required value");
            }
            let before = &self.profiles[..i];
            if before
                .iter()
                .any(|p| p.scheduler_name == profile.scheduler_name)
            {
                bail!(
                    "profiles[{i}].schedulerName: Duplicate value: {:?}",
                    profile.scheduler_name
                );
            }
            if profile.plugins.is_some() || !profile.plugin_config.is_empty() {
                bail!(
                    "profiles[{i}]: plugins and pluginConfig are not available in this build; profiles run the default plugins"
                );
            }
        }
        if !self.extenders.is_empty() {
            bail!("extenders are not available in this build");
        }
        if self.percentage_of_nodes_to_score.is_some_and(|p| p > 100) {
            bail!("percentageOfNodesToScore: Invalid value: must be in the range [0, 100]");
        }
        Ok(())
    }
}
