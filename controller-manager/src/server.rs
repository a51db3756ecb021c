//! Wires everything: serving, leader election, caches, controllers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use client::Client;
use client::leader_election::{self, Outcome, Watchdog, default_identity};
use client::metrics::ClientMetrics;
use client::workqueue::MetricsProvider;
use component::candidate;
use component::health::Checks;
use component::metrics::Registry;
use component::secure_port::{PATHS, SecurePort};
use component::zpages::ZPages;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject as _};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::metrics::Meter;
use crate::options::Options;
use crate::registry::CONTROLLERS;

const NAME: &str = "kube-controller-manager";
const DEFAULT_PORT: u16 = 10257;

/// Runs until `stop`, or until another manager may lead.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    options.validate()?;
    if options.serving.secure_port != Some(0) {
        check_request_header_ca(&options.auth.requestheader_client_ca_file)?;
    }
    let options = Arc::new(options);
    let (qps, burst) = options.rate_limit();
    let config = options.client.config(NAME, qps, burst)?;
    let metrics = Registry::new();
    metrics.disable(options.generic.disabled_metrics.0.clone());
    let requests = ClientMetrics::register(metrics.inner())?;
    let client = Client::new(config)?.with_metrics(&requests);
    let gates = &options.generic.feature_gates;
    gates.check()?;
    metrics.report_features(gates);
    let queues = MetricsProvider::register(metrics.inner())?;
    let meter = Meter::new(&metrics);

    let election = &options.leader_election;
    let healthz = Checks::default();
    let watchdog = Watchdog::default();
    if election.leader_elect {
        let watchdog = watchdog.clone();
        healthz.add("leaderElection", move || watchdog.check());
    }
    let port = SecurePort {
        name: NAME,
        default_port: DEFAULT_PORT,
        healthz: healthz.clone(),
        livez: Checks::new(),
        readyz: Checks::new(),
        registry: metrics.clone(),
        configz: options.configz(),
        zpages: Some(ZPages::new(NAME, gates, &options.flags, &PATHS)),
    };
    port.listen(&options.serving, &options.auth, &stop).await?;

    if !election.leader_elect {
        let context = Context::new(Arc::clone(&options), client, queues, meter, stop.clone());
        run_controllers(&context, &healthz).await?;
        return Ok(());
    }
    let status = metrics.leader_status(NAME)?;
    let elector = client.for_part("leader-election");
    let identity = default_identity();
    let lease = election
        .leader_elect_resource_name
        .as_deref()
        .unwrap_or(NAME);
    let coordinated = gates.enabled("CoordinatedLeaderElection");
    if coordinated {
        candidate::stand(&elector, NAME, &identity, &healthz, &stop);
    }
    let config = leader_election::Config {
        lease_duration: election.leader_elect_lease_duration.get(),
        renew_deadline: election.leader_elect_renew_deadline.get(),
        retry_period: election.leader_elect_retry_period.get(),
        // As upstream by default: the next manager waits for the lease to expire.
        release_on_stop: gates.enabled("ControllerManagerReleaseLeaderElectionLockOnExit"),
        recorder: Some(client::events::Recorder::start(&client, NAME, "", &stop)),
        status: Some(status),
        watchdog,
        coordinated,
        ..leader_election::Config::new(&election.leader_elect_resource_namespace, lease, identity)
    };
    config.validate().map_err(anyhow::Error::msg)?;
    let mut failure = None;
    let outcome = leader_election::run(&elector, config, stop.clone(), |leading| {
        let context = Context::new(
            Arc::clone(&options),
            client.clone(),
            queues.clone(),
            meter.clone(),
            leading,
        );
        let failure = &mut failure;
        let healthz = &healthz;
        async move { *failure = run_controllers(&context, healthz).await.err() }
    })
    .await;
    if let Some(error) = failure {
        return Err(error);
    }
    match outcome {
        Outcome::Stopped => Ok(()),
        Outcome::Lost => anyhow::bail!("leaderelection lost"),
    }
}

/// That the authority of front proxies can be read, since upstream does not start without it.
fn check_request_header_ca(path: &str) -> anyhow::Result<()> {
    const WHAT: &str = "unable to create request header authentication config";
    if path.is_empty() {
        return Ok(());
    }
    let mut found = CertificateDer::pem_file_iter(path).map_err(|error| match error {
        pem::Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
            anyhow::anyhow!("{WHAT}: open {path}: no such file or directory")
        }
        error => anyhow::anyhow!("{WHAT}: {path}: {error}"),
    })?;
    anyhow::ensure!(
        matches!(found.next(), Some(Ok(_))),
        "{WHAT}: error loading CA bundle for \"request-header::{path}\": data does not contain any \
         valid RSA or ECDSA certificates"
    );
    Ok(())
}

/// Sets the chosen controllers up, starts the caches they asked for, and runs them until the
/// context's token is cancelled.
async fn run_controllers(context: &Context, healthz: &Checks) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    let gates = &context.options.generic.feature_gates;
    for controller in CONTROLLERS {
        if !context.options.is_enabled(controller) {
            tracing::debug!(controller = controller.name, "controller is disabled");
            continue;
        }
        if !controller.gates.iter().all(|gate| gates.enabled(gate)) {
            tracing::info!(
                controller = controller.name,
                requiredFeatureGates = controller.gates.join(","),
                "Controller is disabled by a feature gate"
            );
            continue;
        }
        let Some(start) = controller.start else {
            tracing::info!(
                controller = controller.name,
                "Skipping a cloud provider controller"
            );
            continue;
        };
        match start(context).with_context(|| format!("error starting {}", controller.name))? {
            Some(run) => {
                healthz.add(controller.name, || Ok(()));
                runs.push((controller.name, run));
            }
            None => tracing::info!(
                controller = controller.name,
                "Skipping controller, its options leave it nothing to do"
            ),
        }
    }
    context.informers.start(&context.stop);
    let mut tasks = JoinSet::new();
    let interval = context.options.generic.controller_start_interval.get();
    for (name, run) in runs {
        tracing::info!(controller = name, "Started controller");
        tasks.spawn(async move {
            run.await;
            name
        });
        if !interval.is_zero() {
            tokio::time::sleep(interval).await;
        }
    }
    let ended = async {
        while let Some(result) = tasks.join_next().await {
            match result {
                Ok(name) => tracing::info!(controller = name, "Controller ended"),
                Err(err) => tracing::error!(%err, "a controller died"),
            }
        }
    };
    tokio::pin!(ended);
    tokio::select! {
        // Those that found nothing to do; the manager stays as long as it leads.
        () = &mut ended => {
            context.stop.cancelled().await;
            return Ok(());
        }
        () = context.stop.cancelled() => {}
    }
    let limit = context.options.generic.controller_shutdown_timeout.get();
    if tokio::time::timeout(limit.max(Duration::from_millis(1)), ended)
        .await
        .is_err()
    {
        tracing::warn!("controllers did not end in time");
    }
    Ok(())
}
