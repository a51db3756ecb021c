//! `KubeSchedulerConfiguration` (kubescheduler.config.k8s.io/v1): upstream's fields and
//! defaults. Which plugins a profile has comes of [`plugins`]; what a plugin's arguments may
//! say is in [`args`].

pub mod args;
pub mod plugins;
mod whole;

use anyhow::{Context as _, bail};
use component::flags::GoDuration;
use meta::validation::qualified_name;
use serde::Deserialize;
use serde_json::Value;

use crate::extender::ExtenderConfiguration;

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
    pub extenders: Vec<ExtenderConfiguration>,
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

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProfileConfiguration {
    /// May be left out when there is one profile.
    pub scheduler_name: Option<String>,
    pub percentage_of_nodes_to_score: Option<usize>,
    pub plugins: plugins::Plugins,
    pub plugin_config: Vec<args::PluginConfig>,
}

/// Reads a configuration as Go does: `null` is as good as nothing, and so is the zero value of
/// what must not be zero.
pub fn decode(mut given: Value) -> anyhow::Result<KubeSchedulerConfiguration> {
    drop_nulls(&mut given);
    let config = serde_json::from_value(given).context("decoding the configuration")?;
    Ok(fill_in(config))
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn fill_in(mut config: KubeSchedulerConfiguration) -> KubeSchedulerConfiguration {
    fn fill<T: PartialEq + Default>(field: &mut T, default: T) {
        if *field == T::default() {
            *field = default;
        }
    }
    if config.profiles.is_empty() {
        config.profiles.push(ProfileConfiguration::default());
    }
    let default = LeaderElection::default();
    let election = &mut config.leader_election;
    fill(&mut election.lease_duration, default.lease_duration);
    fill(&mut election.renew_deadline, default.renew_deadline);
    fill(&mut election.retry_period, default.retry_period);
    fill(&mut election.resource_lock, default.resource_lock);
    fill(&mut election.resource_name, default.resource_name);
    fill(&mut election.resource_namespace, default.resource_namespace);
    let default = ClientConnection::default();
    let connection = &mut config.client_connection;
    fill(&mut connection.content_type, default.content_type);
    fill(&mut connection.qps, default.qps);
    fill(&mut connection.burst, default.burst);
    config
}

pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

fn percentage(path: &str, given: Option<usize>) -> anyhow::Result<()> {
    match given {
        Some(n @ 101..) => bail!("{path}: Invalid value: {n}: not in valid range [0-100]"),
        _ => Ok(()),
    }
}

/// Whether it may be the name of a resource that Kubernetes itself does not know.
fn is_extended(name: &str) -> bool {
    let domain = name.split_once('/').map(|(domain, _)| domain);
    let native = |domain: &str| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io");
    domain.is_some_and(|domain| !native(domain)) && !name.starts_with("requests.")
}

impl KubeSchedulerConfiguration {
    /// The names of the profiles.
    pub fn scheduler_names(&self) -> Vec<String> {
        let one = self.profiles.len() == 1;
        let names = self.profiles.iter().map(|p| p.scheduler_name.clone());
        names
            .map(|name| {
                name.unwrap_or_else(|| {
                    if one {
                        DEFAULT_SCHEDULER.into()
                    } else {
                        String::new()
                    }
                })
            })
            .collect()
    }

    /// Extended resources that extenders look after instead of NodeResourcesFit.
    pub fn resources_of_extenders(&self) -> Vec<String> {
        let managed = self.extenders.iter().flat_map(|e| &e.managed_resources);
        managed
            .filter(|resource| resource.ignored_by_scheduler)
            .map(|resource| resource.name.clone())
            .collect()
    }

    fn validate_extenders(&self) -> anyhow::Result<()> {
        let mut seen: Vec<&str> = Vec::new();
        for (i, extender) in self.extenders.iter().enumerate() {
            if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
                bail!(
                    "extenders[{i}].weight: Invalid value: {}: must have a positive weight applied to it",
                    extender.weight
                );
            }
            for (j, resource) in extender.managed_resources.iter().enumerate() {
                let name = resource.name.as_str();
                let path = format!("extenders[{i}].managedResources[{j}].name");
                if let Some(why) = qualified_name(name).first() {
                    bail!("{path}: Invalid value: {name:?}: {why}");
                }
                if !is_extended(name) {
                    bail!("{path}: Invalid value: {name:?}: is an invalid extended resource name");
                }
                if seen.contains(&name) {
                    bail!(
                        "{path}: Invalid value: {name:?}: duplicate extender managed resource name"
                    );
                }
                seen.push(name);
            }
        }
        let binders = self.extenders.iter().filter(|e| !e.bind_verb.is_empty());
        if binders.count() > 1 {
            bail!("extenders: Invalid value: only one extender can implement bind");
        }
        Ok(())
    }

    /// Refuses what makes no sense, in upstream's words where it has some.
    pub fn validate(&self) -> anyhow::Result<()> {
        if self.parallelism <= 0 {
            bail!(
                "parallelism: Invalid value: {}: should be an integer value greater than zero",
                self.parallelism
            );
        }
        if self.profiles.is_empty() {
            bail!("profiles: Required value");
        }
        let names = self.scheduler_names();
        for (i, (profile, name)) in self.profiles.iter().zip(&names).enumerate() {
            if name.is_empty() {
                bail!("profiles[{i}].schedulerName: Required value");
            }
            if names[..i].contains(name) {
                bail!("profiles[{i}].schedulerName: Duplicate value: {name:?}");
            }
            let path = format!("profiles[{i}].percentageOfNodesToScore");
            percentage(&path, profile.percentage_of_nodes_to_score)?;
            // There is one queue.
            if profile.plugins.queue_sort != self.profiles[0].plugins.queue_sort {
                bail!(
                    "profiles[{i}].plugins.queueSort: Invalid value: must be the same for all profiles"
                );
            }
        }
        percentage(
            "percentageOfNodesToScore",
            self.percentage_of_nodes_to_score,
        )?;
        if self.pod_initial_backoff_seconds == 0 {
            bail!("podInitialBackoffSeconds: Invalid value: 0: must be greater than 0");
        }
        if self.pod_max_backoff_seconds < self.pod_initial_backoff_seconds {
            bail!(
                "podMaxBackoffSeconds: Invalid value: {}: must be greater than or equal to PodInitialBackoffSeconds",
                self.pod_max_backoff_seconds
            );
        }
        self.validate_extenders()?;
        match self.leader_election.leader_elect {
            true => self.validate_election(),
            false => Ok(()),
        }
    }

    fn validate_election(&self) -> anyhow::Result<()> {
        let election = &self.leader_election;
        for (field, time) in [
            ("leaseDuration", &election.lease_duration),
            ("renewDeadline", &election.renew_deadline),
            ("retryPeriod", &election.retry_period),
        ] {
            if time.get().is_zero() {
                bail!("leaderElection.{field}: Invalid value: 0s: must be greater than zero");
            }
        }
        if election.lease_duration.get() <= election.renew_deadline.get() {
            bail!(
                "leaderElection.leaseDuration: Invalid value: {:?}: must be greater than `RenewDeadline`",
                election.lease_duration.get()
            );
        }
        let lock = &election.resource_lock;
        if lock != "leases" {
            bail!(
                "leaderElection.resourceLock: Invalid value: {lock:?}: resourceLock value must be \"leases\""
            );
        }
        for (field, name) in [
            ("resourceNamespace", &election.resource_namespace),
            ("resourceName", &election.resource_name),
        ] {
            if name.is_empty() {
                bail!("leaderElection.{field}: Required value");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
