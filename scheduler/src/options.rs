//! kube-scheduler's flags. `--config` overrules those of the connection; those of the election
//! that are given overrule it, as upstream has it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{ArgMatches, Command, FromArgMatches};
use component::features::FeatureGates;
use component::flags::common::{
    ClientConnectionFlags, DelegatedAuthFlags, LeaderElectionFlags, SecureServingFlags,
};
use component::flags::{self, CommaList, GoDuration};
use component::zpages::Flags;
use component::{config_file, logs};

use crate::config::{self, KubeSchedulerConfiguration, LeaderElection};

#[derive(Debug, clap::Args)]
pub struct Options {
    /// All of them, as `/flagz` shows them.
    #[command(flatten)]
    pub flags: Flags,
    #[command(flatten)]
    pub logs: logs::Options,
    #[command(flatten)]
    pub client: ClientConnectionFlags,
    #[command(flatten)]
    pub given: Given,
    #[command(flatten)]
    pub leader: LeaderElectionFlags,
    #[command(flatten)]
    pub serving: SecureServingFlags,
    #[command(flatten)]
    pub auth: DelegatedAuthFlags,
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Write the configuration to this file, and exit.
    #[arg(long)]
    pub write_config_to: Option<PathBuf>,
    #[arg(long, default_value = "")]
    pub feature_gates: FeatureGates,
    #[arg(long, default_value = "")]
    pub emulated_version: CommaList,
    #[arg(long, default_value = "")]
    pub min_compatibility_version: CommaList,
    #[arg(long, default_value_t = true)]
    pub profiling: bool,
    #[arg(long, default_value_t = true)]
    pub contention_profiling: bool,
    /// The longest that a pod waits for an event before it is tried again all the same.
    #[arg(long, default_value = "5m")]
    pub pod_max_in_unschedulable_pods_duration: GoDuration,
    #[arg(long, default_value = "")]
    pub show_hidden_metrics_for_version: String,
    #[arg(long, default_value = "")]
    pub disabled_metrics: CommaList,
    #[arg(long, default_value = "")]
    pub allow_metric_labels: String,
    #[arg(long, default_value = "")]
    pub allow_metric_labels_manifest: String,
}

/// Flags of the election.
const ELECTION: [&str; 7] = [
    "leader-elect",
    "leader-elect-lease-duration",
    "leader-elect-renew-deadline",
    "leader-elect-retry-period",
    "leader-elect-resource-lock",
    "leader-elect-resource-name",
    "leader-elect-resource-namespace",
];

/// Which flags of the election were given. It takes part in their parsing, before them, and adds
/// none.
#[derive(Debug, Clone, Default)]
pub struct Given(Vec<&'static str>);

impl FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = ELECTION.into_iter();
        let given = given.filter(|flag| flags::is_set(matches, flag));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

impl AsRef<logs::Options> for Options {
    fn as_ref(&self) -> &logs::Options {
        &self.logs
    }
}

impl Options {
    /// The configuration in force: the file's, or the flags'.
    pub fn configuration(&self) -> anyhow::Result<KubeSchedulerConfiguration> {
        let mut config = match &self.config {
            Some(path) => config::decode(config_file::load(path, config::VERSIONS, config::KIND)?)
                .with_context(|| format!("config file {}", path.display()))?,
            None => self.flags_configuration(),
        };
        self.elect(&mut config.leader_election);
        config.validate()?;
        for version in &self.emulated_version.0 {
            let version = version.strip_prefix("kube=").unwrap_or(version);
            if !matches!(version, "" | "1.36") {
                bail!("--emulated-version: only 1.36 is supported, not {version:?}");
            }
        }
        Ok(config)
    }

    /// What the flags say of the election.
    fn elect(&self, election: &mut LeaderElection) {
        let flags = &self.leader;
        for given in &self.given.0 {
            match *given {
                "leader-elect" => election.leader_elect = flags.leader_elect,
                "leader-elect-lease-duration" => {
                    election.lease_duration = flags.leader_elect_lease_duration;
                }
                "leader-elect-renew-deadline" => {
                    election.renew_deadline = flags.leader_elect_renew_deadline;
                }
                "leader-elect-retry-period" => {
                    election.retry_period = flags.leader_elect_retry_period;
                }
                "leader-elect-resource-lock" => {
                    let lock = &flags.leader_elect_resource_lock;
                    election.resource_lock.clone_from(lock);
                }
                "leader-elect-resource-name" => {
                    let name = flags.leader_elect_resource_name.clone();
                    election.resource_name = name.unwrap_or_default();
                }
                _ => {
                    let namespace = &flags.leader_elect_resource_namespace;
                    election.resource_namespace.clone_from(namespace);
                }
            }
        }
    }

    fn flags_configuration(&self) -> KubeSchedulerConfiguration {
        let mut config = KubeSchedulerConfiguration {
            enable_profiling: self.profiling,
            enable_contention_profiling: self.contention_profiling,
            ..KubeSchedulerConfiguration::default()
        };
        let connection = &mut config.client_connection;
        if let Some(path) = &self.client.kubeconfig {
            connection.kubeconfig = path.display().to_string();
        }
        connection
            .content_type
            .clone_from(&self.client.kube_api_content_type);
        connection.qps = self.client.kube_api_qps.unwrap_or(connection.qps);
        connection.burst = self.client.kube_api_burst.unwrap_or(connection.burst);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_of_the_election_overrules_the_file() {
        let args = [
            "kube-scheduler",
            "--leader-elect",
            "--leader-elect-resource-name=mine",
        ];
        let options = flags::parse::<Options>("kube-scheduler", args.map(Into::into)).unwrap();
        let mut election = LeaderElection {
            leader_elect: false,
            retry_period: GoDuration::from_secs(7),
            ..LeaderElection::default()
        };
        options.elect(&mut election);
        assert!(election.leader_elect);
        assert_eq!(election.resource_name, "mine");
        assert_eq!(election.retry_period, GoDuration::from_secs(7));
    }
}
