//! kube-scheduler's flags. `--config` overrules the connection and election flags, as
//! upstream does.

use std::path::PathBuf;

use component::features::FeatureGates;
use component::flags::GoDuration;
use component::flags::common::{
    ClientConnectionFlags, DelegatedAuthFlags, LeaderElectionFlags, SecureServingFlags,
};
use component::{config_file, logs};

use crate::config::{self, KubeSchedulerConfiguration};

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub logs: logs::Options,
    #[command(flatten)]
    pub client: ClientConnectionFlags,
    #[command(flatten)]
    pub leader: LeaderElectionFlags,
    #[command(flatten)]
    pub serving: SecureServingFlags,
    #[command(flatten)]
    pub auth: DelegatedAuthFlags,
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    #[arg(long)]
    pub feature_gates: Option<FeatureGates>,
    #[arg(long, default_value_t = true)]
    pub profiling: bool,
    /// The longest that a pod waits for an event before it is tried again all the same.
    #[arg(long, default_value = "5m")]
    pub pod_max_in_unschedulable_pods_duration: GoDuration,
}

impl AsRef<logs::Options> for Options {
    fn as_ref(&self) -> &logs::Options {
        &self.logs
    }
}

impl Options {
    /// The configuration in force: the file's, or the flags'.
    pub fn configuration(&self) -> anyhow::Result<KubeSchedulerConfiguration> {
        let config = match &self.config {
            Some(path) => config_file::load(path, config::VERSIONS, config::KIND)?,
            None => self.flags_configuration(),
        };
        config.validate()?;
        Ok(config)
    }

    fn flags_configuration(&self) -> KubeSchedulerConfiguration {
        let mut config = KubeSchedulerConfiguration::default();
        let connection = &mut config.client_connection;
        if let Some(path) = &self.client.kubeconfig {
            connection.kubeconfig = path.display().to_string();
        }
        connection
            .content_type
            .clone_from(&self.client.kube_api_content_type);
        connection.qps = self.client.kube_api_qps.unwrap_or(connection.qps);
        connection.burst = self.client.kube_api_burst.unwrap_or(connection.burst);
        let leader = &mut config.leader_election;
        leader.leader_elect = self.leader.leader_elect;
        leader.lease_duration = self.leader.leader_elect_lease_duration;
        leader.renew_deadline = self.leader.leader_elect_renew_deadline;
        leader.retry_period = self.leader.leader_elect_retry_period;
        leader
            .resource_namespace
            .clone_from(&self.leader.leader_elect_resource_namespace);
        if let Some(name) = &self.leader.leader_elect_resource_name {
            leader.resource_name.clone_from(name);
        }
        config
    }
}
