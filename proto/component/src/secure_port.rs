//! The HTTPS port of a daemon that serves nothing but its own state: health, metrics,
//! version, configuration; for those whom the API server lets.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use client::informer::Selection;
use client::{Api, Client, Config, Informer};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::ConfigMap;
use meta::Status;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::auth::{Attributes, Delegated};
use crate::flags::common::{DelegatedAuthFlags, SecureServingFlags};
use crate::health::Checks;
use crate::metrics::{Registry, Slis};
use crate::serving::{
    Body, Bound, Identity, Limits, Peer, ServingCertificate, TlsFiles, TlsOptions, full, handler,
};
use crate::version;
use crate::zpages::ZPages;

/// What the port shows.
#[derive(Clone)]
pub struct SecurePort {
    /// The daemon's name, for its self-signed certificate.
    pub name: &'static str,
    /// When `--secure-port` is not given.
    pub default_port: u16,
    pub healthz: Checks,
    pub livez: Checks,
    pub readyz: Checks,
    pub registry: Registry,
    /// `/configz`: the configuration in force, under its component's name.
    pub configz: serde_json::Value,
    /// `/statusz` and `/flagz`, if the daemon has them.
    pub zpages: Option<ZPages>,
}

/// What is always there.
pub const PATHS: [&str; 7] = [
    "/configz", "/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz",
];

impl SecurePort {
    /// Listens until `stop`; `None` when the port is turned off (`--secure-port=0`).
    pub async fn listen(
        self,
        serving: &SecureServingFlags,
        auth: &DelegatedAuthFlags,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<SocketAddr>> {
        let port = serving.secure_port.unwrap_or(self.default_port);
        if port == 0 {
            return Ok(None);
        }
        let address = SocketAddr::new(serving.bind_address, port);
        let tls = ServingCertificate::load(self.tls(serving, auth, stop)?)
            .context("cannot load the serving certificate")?;
        let bound = Bound::new(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let address = bound.address();
        let slis = Slis::new().context("metrics of health checks")?;
        for checks in [&self.healthz, &self.livez, &self.readyz] {
            checks.report(&slis);
        }
        let shared = Arc::new(Shared {
            slis,
            delegated: Delegated::from_flags(auth, self.name)
                .context("delegated authentication and authorization")?,
            always: auth.authorization_always_allow_paths.0.clone(),
            port: self,
        });
        let handler = handler(move |request, peer| {
            let shared = Arc::clone(&shared);
            async move { shared.answer(request, peer).await }
        });
        tokio::spawn(bound.serve(Some(tls), handler, Limits::default(), stop.clone()));
        tracing::info!("serving securely on {address}");
        Ok(Some(address))
    }

    fn tls(
        &self,
        serving: &SecureServingFlags,
        auth: &DelegatedAuthFlags,
        stop: &CancellationToken,
    ) -> anyhow::Result<TlsOptions> {
        let given = !serving.tls_cert_file.is_empty();
        let default = if given {
            Identity::from(TlsFiles {
                certificate: PathBuf::from(&serving.tls_cert_file),
                key: PathBuf::from(&serving.tls_private_key_file),
            })
        } else {
            let host = client::leader_election::hostname();
            let names = [
                host,
                "localhost".to_owned(),
                serving.bind_address.to_string(),
            ];
            if serving.cert_dir.is_empty() {
                Identity::self_signed(&names)?
            } else {
                let directory = Path::new(&serving.cert_dir);
                TlsFiles::self_signed(directory, self.name, &names)?.into()
            }
        };
        let client_ca = Some(Path::new(&auth.client_ca_file)).filter(|p| !p.as_os_str().is_empty());
        Ok(TlsOptions {
            default: Some(default),
            by_name: sni(&serving.tls_sni_cert_key)?,
            published_ca: match client_ca {
                None => published_ca(auth, self.name, stop)?,
                Some(_) => None,
            },
            client_ca: client_ca.map(Path::to_owned).into_iter().collect(),
            verifies_later: false,
            policy: serving.tls_policy()?,
        })
    }
}

/// Without `--client-ca-file`, the authority for client certificates is the one that the API
/// server publishes in `kube-system/extension-apiserver-authentication`; unless
/// `--authentication-skip-lookup`. It is followed until `stop`.
fn published_ca(
    auth: &DelegatedAuthFlags,
    component: &str,
    stop: &CancellationToken,
) -> anyhow::Result<Option<watch::Receiver<Vec<u8>>>> {
    let Some(kubeconfig) = &auth.authentication_kubeconfig else {
        return Ok(None);
    };
    if auth.authentication_skip_lookup {
        return Ok(None);
    }
    let config = Config::from_kubeconfig(kubeconfig)
        .context("--authentication-kubeconfig")?
        .user_agent(component);
    let client = Client::new(config).context("--authentication-kubeconfig")?;
    let selection = Selection::name("kube-system", "extension-apiserver-authentication");
    let published = Informer::<ConfigMap>::new(Api::all(&client), &selection);
    let (sender, receiver) = watch::channel(Vec::new());
    published.add_handler(move |event| {
        let data = event.current().and_then(|map| map.data.as_ref());
        let pem = data.and_then(|data| data.get("client-ca-file"));
        sender.send_replace(pem.map(|pem| pem.clone().into_bytes()).unwrap_or_default());
    });
    published.start(stop);
    Ok(Some(receiver))
}

/// `certificate,key` with optional `:pattern,…`: the certificates' own names decide here.
fn sni(pairs: &[String]) -> anyhow::Result<Vec<TlsFiles>> {
    pairs
        .iter()
        .map(|pair| {
            let files = pair
                .split_once(':')
                .map_or(pair.as_str(), |(files, _)| files);
            let (certificate, key) = files
                .split_once(',')
                .with_context(|| format!("--tls-sni-cert-key: {pair:?} is no certificate,key"))?;
            Ok(TlsFiles {
                certificate: certificate.into(),
                key: key.into(),
            })
        })
        .collect()
}

struct Shared {
    delegated: Delegated,
    slis: Slis,
    /// `--authorization-always-allow-paths`; a trailing `*` stands for anything.
    always: Vec<String>,
    port: SecurePort,
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let path = request.uri().path();
        if !self.is_open(path)
            && let Err(refusal) = self.admit(&request, &peer).await
        {
            return refused(&refusal);
        }
        let query = request.uri().query().unwrap_or_default();
        let port = &self.port;
        let first = path
            .trim_start_matches('/')
            .split('/')
            .next()
            .unwrap_or_default();
        match first {
            "healthz" => port.healthz.respond(first, path, query).map(full),
            "livez" => port.livez.respond(first, path, query).map(full),
            "readyz" => port.readyz.respond(first, path, query).map(full),
            "metrics" => {
                let (body, content_type) = match path {
                    "/metrics/slis" => self.slis.render(),
                    path => {
                        let page = port.registry.render_page(path);
                        page.unwrap_or_else(|| port.registry.render())
                    }
                };
                with_type(full(body), content_type)
            }
            "statusz" | "flagz" if let Some(pages) = &port.zpages => {
                let accept = request.headers().get(http::header::ACCEPT);
                let accept = accept.and_then(|v| v.to_str().ok()).unwrap_or_default();
                let page = match first {
                    "statusz" => pages.statusz(accept, jiff::Timestamp::now()),
                    _ => pages.flagz(accept),
                };
                page.map(full)
            }
            "configz" => json(&port.configz),
            "version" => json(&version::INFO),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn is_open(&self, path: &str) -> bool {
        self.always.iter().any(|open| match open.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == open,
        })
    }

    async fn admit(&self, request: &Request<Incoming>, peer: &Peer) -> Result<(), Status> {
        let user = self.delegated.authenticate(peer, request.headers()).await?;
        let attributes = Attributes {
            verb: request.method().as_str().to_ascii_lowercase(),
            path: request.uri().path().to_owned(),
        };
        self.delegated.authorize(&user, &attributes).await
    }
}

fn with_type(body: Body, content_type: &'static str) -> Response<Body> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static(content_type));
    response
}

fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(full(bytes), "application/json"),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn refused(status: &Status) -> Response<Body> {
    let mut response = json(status);
    let code = u16::try_from(status.code).unwrap_or_default();
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::FORBIDDEN);
    response
}

fn text(status: StatusCode, body: &str) -> Response<Body> {
    let mut response = with_type(full(body.to_owned()), "text/plain; charset=utf-8");
    *response.status_mut() = status;
    response
}
