//! The kubelet's client of the API server, and the certificate that it shows.
//!
//! With `rotateCertificates` the certificate is kept by a [`Manager`], and the kubelet runs on while
//! it waits for its first one. Without, there is one before anything else, and no other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use client::config::{ContentType, Pem};
use client::metrics::ClientMetrics;
use client::{Client, Config, RenewedCertificate};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::manager::{self, Clients, Current, Manager};
use super::metrics::ManagerMetrics;
use super::pair::Pair;
use super::request::CLIENT;
use super::store::Store;
use super::template::Template;
use super::{bootstrap, kubeconfig};
use crate::metrics::Metrics;
use crate::options::Options;

const NAME: &str = "kubelet-client";
/// How often it is looked whether the certificate is still good.
const LOOK: Duration = Duration::from_secs(10);
/// The same, while there has been none.
const LOOK_FIRST: Duration = Duration::from_secs(1);
/// How long the kubelet lives without one, where the API server would answer it.
const EXIT_AFTER: Duration = Duration::from_secs(300);

/// The client of `--kubeconfig`.
///
/// # Errors
/// When the kubeconfig cannot be used, or there is no certificate where one is waited for.
pub async fn connect(
    path: &Path,
    options: &Options,
    node: &str,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> anyhow::Result<Client> {
    let asks = Asks::of(path, options)?;
    let config = match options.config.rotate_certificates {
        true => return rotating(asks, options, node, metrics, stop),
        false => asks.once(path, options, node, stop).await?,
    };
    finish(config, options, metrics)
}

/// Who asks for a certificate.
enum Asks {
    /// Nobody needs to: the kubeconfig does.
    Nobody(Config),
    /// The bootstrap kubeconfig's user.
    Bootstrap(Config),
}

impl Asks {
    fn of(path: &Path, options: &Options) -> anyhow::Result<Self> {
        let read = |path: &Path| {
            let config = Config::from_kubeconfig(path);
            let config = config.with_context(|| format!("cannot use {}", path.display()))?;
            anyhow::Ok(config.user_agent("kubelet"))
        };
        match &options.bootstrap_kubeconfig {
            Some(bootstrap) if !kubeconfig::is_valid(path, Timestamp::now())? => {
                info!("asking for a client certificate as the bootstrap kubeconfig's user");
                Ok(Self::Bootstrap(read(bootstrap)?))
            }
            _ => Ok(Self::Nobody(read(path)?)),
        }
    }

    /// The configuration, once there is a certificate.
    async fn once(
        self,
        path: &Path,
        options: &Options,
        node: &str,
        stop: &CancellationToken,
    ) -> anyhow::Result<Config> {
        let bootstrap = match self {
            Self::Nobody(config) => return Ok(config),
            Self::Bootstrap(bootstrap) => bootstrap,
        };
        let directory = &options.cert_dir;
        let store = Store::open(directory, NAME, None)?;
        bootstrap::obtain(&bootstrap, path, &store, directory, node, stop)
            .await
            .context("cannot get a client certificate")?;
        let config = Config::from_kubeconfig(path)
            .with_context(|| format!("cannot use {}", path.display()))?;
        Ok(config.user_agent("kubelet"))
    }
}

fn finish(config: Config, options: &Options, metrics: &Metrics) -> anyhow::Result<Client> {
    let mut config = config.rate_limit(
        options.config.kube_api_qps as f32,
        u32::try_from(options.config.kube_api_burst).unwrap_or(100),
    );
    if options.config.content_type == "application/json" {
        config.content_type = ContentType::Json;
    }
    let requests = ClientMetrics::register(metrics.registry.inner())?;
    Ok(Client::new(config)?.with_metrics(&requests))
}

/// The configuration of who has the certificate, and where the first one may lie.
struct Own {
    config: Config,
    files: Option<(PathBuf, PathBuf)>,
    data: Option<(Vec<u8>, Vec<u8>)>,
}

impl Own {
    fn of(config: &Config) -> Self {
        let (mut files, mut data) = (None, None);
        match config.client_certificate.clone() {
            Some((Pem::File(certificate), Pem::File(key))) => files = Some((certificate, key)),
            Some((Pem::Data(certificate), Pem::Data(key))) => data = Some((certificate, key)),
            _ => {}
        }
        let config = config.clone().anonymous();
        Self {
            config,
            files,
            data,
        }
    }
}

/// A client whose certificate is renewed while it is in use.
fn rotating(
    asks: Asks,
    options: &Options,
    node: &str,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> anyhow::Result<Client> {
    let (without, mut own) = match asks {
        Asks::Nobody(config) => (config.clone(), Own::of(&config)),
        Asks::Bootstrap(bootstrap) => {
            // It names what will be there.
            let pem = Store::open(&options.cert_dir, NAME, None)?.current_path();
            let path = options.kubeconfig.as_deref().unwrap_or(Path::new(""));
            kubeconfig::write(&bootstrap, path, &pem)?;
            let mut own = Own::of(&bootstrap);
            (own.files, own.data) = (Some((pem.clone(), pem)), None);
            (bootstrap, own)
        }
    };
    let store = Store::open(&options.cert_dir, NAME, own.files)?;
    let (pair, renew_first) = manager::open(&store, own.data, Timestamp::now())?;
    let current = Current::new(pair);
    let shown = RenewedCertificate::default();
    show(&shown, current.get(Timestamp::now()).as_deref());
    own.config.renewed_certificate = Some(shown.clone());
    let client = finish(own.config, options, metrics)?;

    let healthy = Arc::new(AtomicBool::new(false));
    let wanted = Template::node(node);
    let manager = Manager {
        purpose: CLIENT,
        store,
        clients: Clients {
            // What is asked for must not wait for what the kubelet does else.
            with_certificate: client.with_rate_limit(5.0, 10),
            without: Client::new(without)?,
        },
        wanted: Box::new(move || Some(wanted.clone())),
        current: current.clone(),
        metrics: ManagerMetrics::client(metrics.registry.inner(), &current)?,
        healthy: healthy.clone(),
        renew_first,
    };
    tokio::spawn(manager.run(stop.clone()));
    tokio::spawn(watch(current, shown, healthy, stop.clone()));
    Ok(client)
}

fn show(shown: &RenewedCertificate, pair: Option<&Pair>) {
    shown.set(pair.map(|pair| (pair.chain.clone(), pair.key.clone())));
}

/// Has the client show what there is, and ends the kubelet where it has nothing to show and the API
/// server would answer it: whoever starts it again may have other credentials for it.
async fn watch(
    current: Current,
    shown: RenewedCertificate,
    healthy: Arc<AtomicBool>,
    stop: CancellationToken,
) {
    let mut last = current.get(Timestamp::now());
    let mut available = Instant::now();
    loop {
        let every = if last.is_some() { LOOK } else { LOOK_FIRST };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let Some(pair) = current.get(Timestamp::now()) else {
            if available.elapsed() > EXIT_AFTER && healthy.load(Ordering::Relaxed) {
                error!(
                    "No valid client certificate is found and the server is responsive, exiting."
                );
                std::process::exit(1);
            }
            continue;
        };
        available = Instant::now();
        if !last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &pair)) {
            info!("Certificate rotation detected, connecting with the new credentials");
            show(&shown, Some(&pair));
            last = Some(pair);
        }
    }
}
