//! Wires the scheduler: configuration, clients, informers, the loop, election, ports.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use client::events::series::SeriesRecorder;
use client::informer::{Informers, Selection};
use client::leader_election::{self, Outcome};
use client::metrics::ClientMetrics;
use client::{Client, Config};
use component::health::Checks;
use component::metrics::Registry;
use component::secure_port::SecurePort;
use tokio_util::sync::CancellationToken;

use crate::bind::Binder;
use crate::config::KubeSchedulerConfiguration;
use crate::extender::Extender;
use crate::metrics::Metrics;
use crate::model::{Node, Pod};
use crate::options::Options;
use crate::plugins;
use crate::profile::Profile;
use crate::queue::Backoff;
use crate::scheduler::{Scheduler, Settings};

/// Pods that have ended use nothing and want nothing.
const LIVE_PODS: &str = "status.phase!=Succeeded,status.phase!=Failed";

pub async fn serve(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let config = options.configuration()?;
    tracing::info!("effective configuration: {config:?}");
    let registry = Registry::new();
    let requests = ClientMetrics::register(registry.inner())?;
    let client = client(&options, &config)?.with_metrics(&requests);
    if let Some(gates) = &options.feature_gates {
        registry.report_features(gates);
    }
    let metrics = Metrics::new(&registry)?;
    // Bindings do not wait until events have been written.
    let connection = &config.client_connection;
    let for_events = client.with_rate_limit(connection.qps, connection.burst);
    let recorder = SeriesRecorder::start(&for_events, "default-scheduler", &stop);
    let gates = options.feature_gates.clone().unwrap_or_default();
    gates.check()?;
    let groups = gates.enabled("GenericWorkload");
    if groups {
        metrics.groups.register(&registry);
    }
    let informers = Informers::new(&client);
    let pods = informers.select::<Pod>(&Selection::fields(LIVE_PODS));
    let nodes = informers.get::<Node>();
    let scheduler = Scheduler::new(
        profiles(&config, &options)?,
        pods,
        Settings {
            groups,
            expectations: gates.enabled("NominatedNodeNameForExpectation"),
            backoff: backoff(&config),
            left_over: options.pod_max_in_unschedulable_pods_duration.get(),
        },
        Binder::new(&client, recorder),
        config
            .extenders
            .iter()
            .map(Extender::new)
            .collect::<anyhow::Result<_>>()?,
        metrics,
    );
    let pending = Arc::clone(&scheduler);
    registry.before_gathering(move || pending.report());

    scheduler.follow(&nodes);
    scheduler.follow_objects(&informers);
    scheduler.follow_storage(&informers);
    if gates.enabled("DynamicResourceAllocation") {
        scheduler.follow_devices(&informers);
    }
    if groups {
        scheduler.follow_groups(&informers);
    }

    let readyz = Checks::new();
    let synced = informers.clone();
    readyz.add("sched-handler-sync", move || {
        match synced.pending().as_slice() {
            [] => Ok(()),
            pending => Err(format!("waiting for {}", pending.join(", "))),
        }
    });
    let port = SecurePort {
        name: "kube-scheduler",
        default_port: 10259,
        healthz: Checks::new(),
        livez: Checks::new(),
        readyz,
        registry,
        configz: serde_json::json!({"componentconfig": {"leaderElection": config.leader_election.leader_elect}}),
        zpages: None,
    };
    port.listen(&options.serving, &options.auth, &stop).await?;
    informers.start(&stop);

    let run = |leading: CancellationToken| async move {
        tokio::select! {
            () = leading.cancelled() => {}
            () = informers.wait_synced() => {
                tracing::info!("caches are synced; scheduling");
                scheduler.run(leading.clone()).await;
            }
        }
    };
    let election = &config.leader_election;
    if !election.leader_elect {
        run(stop).await;
        return Ok(());
    }
    let mut lease = leader_election::Config::new(
        &election.resource_namespace,
        &election.resource_name,
        leader_election::default_identity(),
    );
    lease.lease_duration = election.lease_duration.get();
    lease.renew_deadline = election.renew_deadline.get();
    lease.retry_period = election.retry_period.get();
    lease.validate().map_err(anyhow::Error::msg)?;
    match leader_election::run(&client.for_part("leader-election"), lease, stop, run).await {
        Outcome::Stopped => Ok(()),
        Outcome::Lost => bail!("leaderelection lost"),
    }
}

fn client(options: &Options, config: &KubeSchedulerConfiguration) -> anyhow::Result<Client> {
    let connection = &config.client_connection;
    let path = Some(connection.kubeconfig.as_str())
        .filter(|p| !p.is_empty())
        .map(Path::new);
    let mut client = Config::load(path, options.client.master.as_deref())
        .context(
            "no way to the API server: --kubeconfig, or clientConnection.kubeconfig of --config",
        )?
        .user_agent("kube-scheduler")
        .rate_limit(connection.qps, connection.burst);
    if connection.content_type == "application/json" {
        client.content_type = client::config::ContentType::Json;
    }
    Ok(Client::new(client)?)
}

fn profiles(
    config: &KubeSchedulerConfiguration,
    options: &Options,
) -> anyhow::Result<Vec<Profile>> {
    let gates = options.feature_gates.clone().unwrap_or_default();
    let ignored = config.resources_of_extenders();
    let mut profiles = Vec::new();
    for (profile, name) in config.profiles.iter().zip(config.scheduler_names()) {
        let mut made = plugins::profile(&name, profile, &ignored, &|gate| gates.enabled(gate))?;
        let share = &mut made.percentage_of_nodes_to_score;
        *share = share.or(config.percentage_of_nodes_to_score);
        profiles.push(made);
    }
    Ok(profiles)
}

fn backoff(config: &KubeSchedulerConfiguration) -> Backoff {
    Backoff {
        initial: std::time::Duration::from_secs(config.pod_initial_backoff_seconds),
        max: std::time::Duration::from_secs(config.pod_max_backoff_seconds),
    }
}
