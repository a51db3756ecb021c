//! kube-proxy's flags. With `--config` most of them are ignored, as upstream does; those
//! that are not are marked.

use std::path::PathBuf;

use component::features::FeatureGates;
use component::flags::{CommaList, GoDuration};
use component::{config_file, logs};

use crate::config::{self, KubeProxyConfiguration};

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub logs: logs::Options,
    /// The path to the configuration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Remove this node's rules and exit.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub cleanup: bool,
    /// The node's name, instead of the host's (also with --config).
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// The address of the API server, instead of the kubeconfig's (also with --config).
    #[arg(long, default_value = "")]
    pub master: String,
    #[arg(long, default_value = "")]
    pub kubeconfig: String,
    #[arg(long)]
    pub feature_gates: Option<FeatureGates>,
    #[arg(long, default_value = "")]
    pub proxy_mode: String,
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    #[arg(long, default_value = "")]
    pub detect_local_mode: String,
    #[arg(long, default_value = "")]
    pub nodeport_addresses: CommaList,
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: String,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub bind_address_hard_fail: bool,
    #[arg(long, default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: String,
    #[arg(long, default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: String,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub masquerade_all: bool,
    #[arg(long, default_value_t = 5.0)]
    pub kube_api_qps: f32,
    #[arg(long, default_value_t = 10)]
    pub kube_api_burst: i32,
    #[arg(long, default_value = "15m")]
    pub config_sync_period: GoDuration,
    #[arg(long, default_value_t = -999, allow_negative_numbers = true)]
    pub oom_score_adj: i32,
    #[arg(long, default_value_t = 32768)]
    pub conntrack_max_per_core: i32,
    #[arg(long, default_value_t = 131_072)]
    pub conntrack_min: i32,
    #[arg(long, default_value = "24h")]
    pub conntrack_tcp_timeout_established: GoDuration,
    #[arg(long, default_value = "1h")]
    pub conntrack_tcp_timeout_close_wait: GoDuration,
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub conntrack_tcp_be_liberal: bool,
    #[arg(long, default_value = "0s")]
    pub conntrack_udp_timeout: GoDuration,
    #[arg(long, default_value = "0s")]
    pub conntrack_udp_timeout_stream: GoDuration,
}

impl AsRef<logs::Options> for Options {
    fn as_ref(&self) -> &logs::Options {
        &self.logs
    }
}

impl Options {
    /// The configuration in force: the file's, or the flags'.
    pub fn configuration(&self) -> anyhow::Result<KubeProxyConfiguration> {
        let mut config = match &self.config {
            Some(path) => config_file::load(path, config::VERSIONS, config::KIND)?,
            None => self.flags_configuration(),
        };
        if !self.hostname_override.is_empty() {
            config.hostname_override.clone_from(&self.hostname_override);
        }
        config.validate()?;
        Ok(config)
    }

    fn flags_configuration(&self) -> KubeProxyConfiguration {
        let mut config = KubeProxyConfiguration::default();
        config
            .client_connection
            .kubeconfig
            .clone_from(&self.kubeconfig);
        config.client_connection.qps = self.kube_api_qps;
        config.client_connection.burst = self.kube_api_burst;
        config.mode.clone_from(&self.proxy_mode);
        config.cluster_cidr.clone_from(&self.cluster_cidr);
        config.detect_local_mode.clone_from(&self.detect_local_mode);
        config.node_port_addresses = Some(self.nodeport_addresses.0.clone());
        config.bind_address.clone_from(&self.bind_address);
        config.bind_address_hard_fail = self.bind_address_hard_fail;
        config
            .healthz_bind_address
            .clone_from(&self.healthz_bind_address);
        config
            .metrics_bind_address
            .clone_from(&self.metrics_bind_address);
        config.nftables.masquerade_all = self.masquerade_all;
        config.config_sync_period = self.config_sync_period;
        config.oom_score_adj = Some(self.oom_score_adj);
        config.conntrack.max_per_core = Some(self.conntrack_max_per_core);
        config.conntrack.min = Some(self.conntrack_min);
        config.conntrack.tcp_established_timeout = Some(self.conntrack_tcp_timeout_established);
        config.conntrack.tcp_close_wait_timeout = Some(self.conntrack_tcp_timeout_close_wait);
        config.conntrack.tcp_be_liberal = self.conntrack_tcp_be_liberal;
        config.conntrack.udp_timeout = self.conntrack_udp_timeout;
        config.conntrack.udp_stream_timeout = self.conntrack_udp_timeout_stream;
        config
    }
}
