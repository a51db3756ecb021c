//! The daemon's own port: health, metrics, configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use component::health::Checks;
use component::metrics::Registry;
use component::serving::{
    Body, Bound, Limits, ServingCertificate, TlsFiles, TlsOptions, full, handler,
};
use http::{Response, StatusCode, header};
use prometheus::{IntGauge, IntGaugeVec, Opts};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::options::Options;

const DEFAULT_PORT: u16 = 10257;

/// The port, being served.
pub struct Serving {
    task: Option<JoinHandle<()>>,
    leader_status: IntGauge,
}

impl Serving {
    /// Binds and serves until `stop`; not at all with `--secure-port=0`.
    pub async fn start(
        options: &Arc<Options>,
        metrics: &Registry,
        stop: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let status = IntGaugeVec::new(
            Opts::new(
                "leader_election_master_status",
                "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. 'name' is the string used to identify the lease. Please make sure to group by name.",
            ),
            &["name"],
        )?;
        metrics.register(status.clone());
        let leader_status = status.with_label_values(&["kube-controller-manager"]);
        let port = options.serving.secure_port.unwrap_or(DEFAULT_PORT);
        if port == 0 {
            return Ok(Self { task: None, leader_status });
        }
        let certificate = ServingCertificate::load(tls(options)?)?;
        let bound = Bound::new(SocketAddr::new(options.serving.bind_address, port)).await?;
        tracing::info!(address = %bound.address(), "Serving securely");
        let health = Checks::new();
        let (options, metrics) = (Arc::clone(options), metrics.clone());
        let answer = handler(move |request, _peer| {
            let path = request.uri().path().to_owned();
            let query = request.uri().query().unwrap_or_default().to_owned();
            let allowed = options.auth.authorization_always_allow_paths.0.contains(&path);
            let (health, metrics, options) = (health.clone(), metrics.clone(), Arc::clone(&options));
            async move {
                if !allowed {
                    return text(StatusCode::UNAUTHORIZED, "text/plain; charset=utf-8", "Unauthorized\n");
                }
                answer(&path, &query, &health, &metrics, &options)
            }
        });
        let task = tokio::spawn(bound.serve(Some(certificate), answer, Limits::default(), stop.clone()));
        Ok(Self {
            task: Some(task),
            leader_status,
        })
    }

    /// The gauge of whether we lead.
    pub fn leader_status(&self) -> IntGauge {
        self.leader_status.clone()
    }

    /// Waits until requests under way are answered, after the stop.
    pub async fn finish(self) {
        if let Some(task) = self.task
            && let Err(err) = task.await
        {
            tracing::error!(%err, "the server died");
        }
    }
}

fn tls(options: &Options) -> anyhow::Result<TlsOptions> {
    let flags = &options.serving;
    let files = if flags.tls_cert_file.is_empty() {
        let directory = if flags.cert_dir.is_empty() {
            std::env::temp_dir().join(format!("kube-controller-manager-{}", std::process::id()))
        } else {
            PathBuf::from(&flags.cert_dir)
        };
        let names = ["localhost".to_owned(), flags.bind_address.to_string()];
        TlsFiles::self_signed(Path::new(&directory), "kube-controller-manager", &names)?
    } else {
        TlsFiles {
            certificate: flags.tls_cert_file.clone().into(),
            key: flags.tls_private_key_file.clone().into(),
        }
    };
    let cas = [&options.auth.client_ca_file, &options.auth.requestheader_client_ca_file];
    Ok(TlsOptions {
        default: Some(files),
        by_name: Vec::new(),
        client_ca: cas.into_iter().filter(|f| !f.is_empty()).map(PathBuf::from).collect(),
        only_tls13: flags.tls_min_version == "VersionTLS13",
    })
}

fn text(status: StatusCode, content_type: &str, body: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(body.into()));
    *response.status_mut() = status;
    if let Ok(value) = content_type.parse() {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}

fn answer(path: &str, query: &str, health: &Checks, metrics: &Registry, options: &Options) -> Response<Body> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    for endpoint in ["healthz", "livez", "readyz"] {
        let rest = path.strip_prefix('/').and_then(|p| p.strip_prefix(endpoint));
        if rest.is_some_and(|r| r.is_empty() || r.starts_with('/')) {
            return health.respond(endpoint, path, query).map(full);
        }
    }
    match path {
        "/metrics" => {
            let (body, content_type) = metrics.render();
            text(StatusCode::OK, content_type, body)
        }
        "/configz" => text(StatusCode::OK, "application/json", options.configz().to_string()),
        _ => text(StatusCode::NOT_FOUND, PLAIN, "404 page not found\n"),
    }
}
