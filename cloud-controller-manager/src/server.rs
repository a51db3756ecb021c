//! Wires the controllers of a cloud: provider, clients, informers, election, ports.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use client::Client;
use client::events::Recorder;
use client::informer::Informers;
use client::leader_election::{self, Outcome};
use component::health::Checks;
use component::metrics::Registry;
use component::secure_port::SecurePort;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::controllers::{Context, controllers};
use crate::options::Options;
use crate::provider;

const NAME: &str = "cloud-controller-manager";

pub async fn serve(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    tracing::info!("effective configuration: {options:?}");
    let provider = provider::build(&options.cloud_provider, options.cloud_config.as_deref())?;
    let cluster_cidrs = options.cluster_cidrs()?;
    let config = options
        .client
        .config(NAME, 20.0, 30)
        .context("no way to the API server: --kubeconfig")?;
    let client = Client::new(config)?;
    let registry = Registry::new();
    if let Some(gates) = &options.feature_gates {
        gates.check()?;
        registry.report_features(gates);
    }
    let port = SecurePort {
        name: NAME,
        default_port: 10258,
        healthz: Checks::new(),
        livez: Checks::new(),
        readyz: Checks::new(),
        registry,
        configz: serde_json::json!({"cloudControllerManager": {"cloudProvider": provider.name()}}),
        zpages: None,
    };
    port.listen(&options.serving, &options.auth, &stop).await?;

    let lead = |leading: CancellationToken| {
        let client = client.clone();
        let options = &options;
        async move {
            let informers = Informers::new(&client);
            let mut running = JoinSet::new();
            for (name, start) in controllers() {
                if !options.runs(name) {
                    tracing::info!("controller {name} is disabled");
                    continue;
                }
                let client = if options.use_service_account_credentials {
                    match client.as_service_account("kube-system", name) {
                        Ok(client) => client,
                        Err(error) => {
                            tracing::error!("controller {name} has no credentials: {error}");
                            continue;
                        }
                    }
                } else {
                    client.for_part(name)
                };
                let context = Context {
                    recorder: Recorder::start(&client, name, "", &leading),
                    client,
                    informers: informers.clone(),
                    provider: Arc::clone(&provider),
                    node_status_update_frequency: options.node_status_update_frequency.get(),
                    node_monitor_period: options.node_monitor_period.get(),
                    node_workers: options.concurrent_node_syncs,
                    service_workers: options.concurrent_service_syncs,
                    configure_cloud_routes: options.configure_cloud_routes,
                    route_reconciliation_period: options.route_reconciliation_period.get(),
                    cluster_cidrs: cluster_cidrs.clone(),
                    stop: leading.clone(),
                };
                match start(context) {
                    Some(controller) => {
                        tracing::info!("starting controller {name}");
                        running.spawn(controller);
                    }
                    None => tracing::info!("controller {name}: nothing for it in this cloud"),
                }
            }
            informers.start(&leading);
            while running.join_next().await.is_some() {}
            // A cloud without controllers still holds the lease.
            leading.cancelled().await;
        }
    };
    if !options.leader.leader_elect {
        lead(stop).await;
        return Ok(());
    }
    let flags = &options.leader;
    let mut lease = leader_election::Config::new(
        &flags.leader_elect_resource_namespace,
        flags.leader_elect_resource_name.as_deref().unwrap_or(NAME),
        leader_election::default_identity(),
    );
    lease.lease_duration = flags.leader_elect_lease_duration.get();
    lease.renew_deadline = flags.leader_elect_renew_deadline.get();
    lease.retry_period = flags.leader_elect_retry_period.get();
    lease.validate().map_err(anyhow::Error::msg)?;
    match leader_election::run(&client.for_part("leader-election"), lease, stop, lead).await {
        Outcome::Stopped => Ok(()),
        Outcome::Lost => bail!("leaderelection lost"),
    }
}
