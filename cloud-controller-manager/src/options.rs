//! cloud-controller-manager's flags.

use std::path::PathBuf;

use anyhow::{Context as _, bail};

use component::features::FeatureGates;
use component::flags::common::{
    ClientConnectionFlags, DelegatedAuthFlags, LeaderElectionFlags, SecureServingFlags,
};
use component::flags::{CommaList, GoDuration};
use component::logs;
use ipnet::IpNet;

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
    /// The provider for cloud services.
    #[arg(long, default_value = "")]
    pub cloud_provider: String,
    /// The provider's configuration file; for baremetal, the inventory.
    #[arg(long)]
    pub cloud_config: Option<PathBuf>,
    /// Controllers to run: '*' for all, 'foo' for foo, '-foo' for all but foo.
    #[arg(long, default_value = "*")]
    pub controllers: CommaList,
    /// Each controller uses a service account of its own.
    #[arg(long, default_value_t = false)]
    pub use_service_account_credentials: bool,
    /// How often the addresses of nodes are looked up again.
    #[arg(long, default_value = "5m")]
    pub node_status_update_frequency: GoDuration,
    /// How often nodes that are not ready are looked up in the cloud.
    #[arg(long, default_value = "5s")]
    pub node_monitor_period: GoDuration,
    /// Workers that initialize nodes.
    #[arg(long, default_value_t = 1)]
    pub concurrent_node_syncs: usize,
    /// Workers that sync load balancers.
    #[arg(long, default_value_t = 1)]
    pub concurrent_service_syncs: usize,
    #[arg(long, default_value = "kubernetes")]
    pub cluster_name: String,
    /// The networks of all pods, one per IP family: routes in them are this daemon's.
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// Whether routes to nodes' pods are made in a cloud that has routes.
    #[arg(long, default_value_t = true)]
    pub configure_cloud_routes: bool,
    #[arg(long, default_value_t = false)]
    pub allocate_node_cidrs: bool,
    #[arg(long, default_value = "10s")]
    pub route_reconciliation_period: GoDuration,
    #[arg(long, default_value = "12h")]
    pub min_resync_period: GoDuration,
    #[arg(long, default_value = "0s")]
    pub controller_start_interval: GoDuration,
    #[arg(long)]
    pub feature_gates: Option<FeatureGates>,
    #[arg(long, default_value_t = true)]
    pub profiling: bool,
}

impl AsRef<logs::Options> for Options {
    fn as_ref(&self) -> &logs::Options {
        &self.logs
    }
}

impl Options {
    /// `--cluster-cidr`, read.
    pub fn cluster_cidrs(&self) -> anyhow::Result<Vec<IpNet>> {
        let parts = self.cluster_cidr.split(',').map(str::trim);
        let cidrs: Vec<IpNet> = parts
            .filter(|part| !part.is_empty())
            .map(|part| {
                part.parse()
                    .with_context(|| format!("--cluster-cidr: {part:?}"))
            })
            .collect::<anyhow::Result<_>>()?;
        let of_both = |[a, b]: &[IpNet; 2]| a.addr().is_ipv4() != b.addr().is_ipv4();
        match <&[IpNet; 2]>::try_from(cidrs.as_slice()) {
            Ok(pair) if of_both(pair) => Ok(cidrs),
            Err(_) if cidrs.len() < 2 => Ok(cidrs),
            _ => {
                bail!("--cluster-cidr: two networks are of two IP families, and more there are not")
            }
        }
    }

    /// Is the controller of that name to run?
    pub fn runs(&self, controller: &str) -> bool {
        let listed = &self.controllers.0;
        let named = |name: &str| listed.iter().any(|entry| entry == name);
        !named(&format!("-{controller}")) && (named(controller) || named("*"))
    }
}
