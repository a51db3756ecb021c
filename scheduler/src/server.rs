//! Wires the scheduler: configuration, clients, informers, the loop, election, ports.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use client::events::Recorder;
use client::events::series::SeriesRecorder;
use client::informer::{Informers, Selection};
use client::leader_election::{self, Outcome, Watchdog};
use client::metrics::ClientMetrics;
use client::{Client, Config};
use component::candidate;
use component::health::Checks;
use component::metrics::Registry;
use component::secure_port::{PATHS, SecurePort};
use component::zpages::ZPages;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::bind::Binder;
use crate::config::{DEFAULT_SCHEDULER, KubeSchedulerConfiguration};
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

const NAME: &str = "kube-scheduler";

pub async fn serve(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let config = options.configuration()?;
    tracing::info!("effective configuration: {config:?}");
    let registry = Registry::new();
    registry.disable(options.disabled_metrics.0.clone());
    let requests = ClientMetrics::register(registry.inner())?;
    let client = client(&options, &config)?.with_metrics(&requests);
    let gates = &options.feature_gates;
    gates.check()?;
    registry.report_features(gates);
    let profiles = profiles(&config, &options)?;
    let whole = config.whole(&|gate| gates.enabled(gate));
    if let Some(path) = &options.write_config_to {
        let text = serde_saphyr::to_string(&whole).context("--write-config-to")?;
        std::fs::write(path, text).context("--write-config-to")?;
        tracing::info!("wrote configuration to {}", path.display());
        return Ok(());
    }
    let metrics = Metrics::new(&registry)?;
    // Bindings do not wait until events have been written.
    let connection = &config.client_connection;
    let for_events = client.with_rate_limit(connection.qps, connection.burst);
    let recorder = SeriesRecorder::start(&for_events, "default-scheduler", &stop);
    let groups = gates.enabled("GenericWorkload");
    if groups {
        metrics.groups.register(&registry);
    }
    let informers = Informers::new(&client);
    let pods = informers.select::<Pod>(&Selection::fields(LIVE_PODS));
    let nodes = informers.get::<Node>();
    let scheduler = Scheduler::new(
        profiles,
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
    let requested = Arc::clone(&scheduler);
    registry.add_page("/metrics/resources", move || requested.resources());

    scheduler.follow(&nodes);
    scheduler.follow_objects(&informers);
    scheduler.follow_storage(&informers);
    if gates.enabled("DynamicResourceAllocation") {
        scheduler.follow_devices(&informers);
    }
    if groups {
        scheduler.follow_groups(&informers);
    }

    let election = &config.leader_election;
    let (healthz, readyz) = (Checks::default(), Checks::default());
    let watchdog = Watchdog::default();
    if election.leader_elect {
        for checks in [&healthz, &readyz] {
            let watchdog = watchdog.clone();
            checks.add("leaderElection", move || watchdog.check());
        }
    }
    let stopping = stop.clone();
    readyz.add("shutdown", move || match stopping.is_cancelled() {
        false => Ok(()),
        true => Err("process is shutting down".to_owned()),
    });
    let synced = informers.clone();
    readyz.add("sched-handler-sync", move || {
        match synced.pending().as_slice() {
            [] => Ok(()),
            pending => Err(format!("waiting for {}", pending.join(", "))),
        }
    });
    let status = registry.leader_status(NAME)?;
    let port = SecurePort {
        name: NAME,
        default_port: 10259,
        healthz,
        livez: Checks::new(),
        readyz: readyz.clone(),
        registry,
        configz: serde_json::json!({"componentconfig": whole}),
        zpages: Some(ZPages::new(NAME, gates, &options.flags, &PATHS)),
    };
    port.listen(&options.serving, &options.auth, &stop).await?;

    if !(config.delay_cache_until_active && election.leader_elect) {
        informers.start(&stop);
        // Who does not see the cluster yet is not to lead.
        let synced = stop.run_until_cancelled(informers.wait_synced()).await;
        if synced.is_none() {
            return Ok(());
        }
    }
    let ended = stop.clone();
    let run = |leading: CancellationToken| async move {
        informers.start(&ended);
        tokio::select! {
            () = leading.cancelled() => {}
            () = informers.wait_synced() => {
                tracing::info!("caches are synced; scheduling");
                // A task of its own: some decisions take seconds, in which the lease is renewed.
                let mut task = JoinSet::new();
                task.spawn(scheduler.run(leading.clone()));
                task.join_next().await;
            }
        }
    };
    if !election.leader_elect {
        run(stop).await;
        return Ok(());
    }
    // As upstream, in the name of the first profile.
    let names = config.scheduler_names();
    let whose = names.first().map_or(DEFAULT_SCHEDULER, String::as_str);
    let elector = client.for_part("leader-election");
    let identity = leader_election::default_identity();
    let coordinated = gates.enabled("CoordinatedLeaderElection");
    if coordinated {
        candidate::stand(&elector, NAME, &identity, &readyz, &stop);
    }
    let lease = leader_election::Config {
        lease_duration: election.lease_duration.get(),
        renew_deadline: election.renew_deadline.get(),
        retry_period: election.retry_period.get(),
        recorder: Some(Recorder::start(&for_events, whose, "", &stop)),
        status: Some(status),
        watchdog,
        coordinated,
        ..leader_election::Config::new(
            &election.resource_namespace,
            &election.resource_name,
            identity,
        )
    };
    lease.validate().map_err(anyhow::Error::msg)?;
    match leader_election::run(&elector, lease, stop, run).await {
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
        .user_agent(NAME)
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
    let gates = &options.feature_gates;
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
