//! Where the API server is and who we are: kubeconfig files and the in-cluster environment.
//!
//! A [`Config`] is data. Files it names are read when connections are made, and again when
//! they change, so that rotated certificates and tokens are picked up.

mod kubeconfig;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

pub use kubeconfig::{
    AuthInfo, Cluster, Context, Kubeconfig, Named, NamedAuthInfo, NamedCluster, NamedContext,
};

/// Where the in-cluster credentials are mounted.
const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is not a kubeconfig: {message}", path.display())]
    Parse { path: PathBuf, message: String },
    #[error("kubeconfig: {0}")]
    Missing(String),
    #[error("kubeconfig: {0} is not supported")]
    Unsupported(&'static str),
    #[error("invalid server address {0:?}: want http(s)://host[:port][/path]")]
    Server(String),
    #[error("{what}: {message}")]
    Tls { what: String, message: String },
    #[error(
        "not in a cluster: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
    )]
    NotInCluster,
}

/// PEM text, given inline or as a file that may change.
#[derive(Clone, PartialEq, Eq)]
pub enum Pem {
    Data(Vec<u8>),
    File(PathBuf),
}

impl Pem {
    /// The text as it is now.
    pub fn read(&self) -> Result<Vec<u8>, ConfigError> {
        match self {
            Self::Data(data) => Ok(data.clone()),
            Self::File(path) => read(path),
        }
    }
}

impl fmt::Debug for Pem {
    /// Never shows key material.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(_) => f.write_str("Data(…)"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

/// PEM text of a certificate chain and of its key.
type Shown = (Vec<u8>, Vec<u8>);

/// A client certificate that the program itself renews while it is in use. Until there is one,
/// connections show none.
#[derive(Clone, Default)]
pub struct RenewedCertificate(Arc<ArcSwapOption<Shown>>);

impl RenewedCertificate {
    /// What is shown from the next request on: PEM text of the chain and of its key.
    pub fn set(&self, certificate: Option<(Vec<u8>, Vec<u8>)>) {
        self.0.store(certificate.map(Arc::new));
    }

    pub(crate) fn get(&self) -> Option<Arc<Shown>> {
        self.0.load_full()
    }
}

impl fmt::Debug for RenewedCertificate {
    /// Never shows key material.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenewedCertificate(…)")
    }
}

/// Bearer token or password of the requests. Client certificates are not here, they belong
/// to the connection.
#[derive(Clone, Default)]
pub enum Auth {
    #[default]
    None,
    Token(String),
    /// Read again every few seconds, as projected tokens rotate.
    TokenFile(PathBuf),
    Basic {
        username: String,
        password: String,
    },
}

impl fmt::Debug for Auth {
    /// Never shows the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::TokenFile(path) => write!(f, "TokenFile({})", path.display()),
            Self::Basic { username, .. } => write!(f, "Basic({username}, …)"),
        }
    }
}

/// The user to act as (`Impersonate-*` headers).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Impersonation {
    pub user: String,
    pub uid: Option<String>,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Which wire form built-in kinds are sent in; either form is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ContentType {
    Json,
    /// `application/vnd.kubernetes.protobuf`, the daemons' default as upstream.
    #[default]
    Protobuf,
}

/// Everything needed to talk to one API server as one user.
#[derive(Debug, Clone)]
pub struct Config {
    /// `https://host:port[/prefix]`
    pub server: String,
    /// Name to expect in the server's certificate instead of the address's host.
    pub tls_server_name: Option<String>,
    /// Do not check the server's certificate at all.
    pub insecure_skip_tls_verify: bool,
    /// Who may have signed the server's certificate; the system's authorities if absent.
    pub certificate_authority: Option<Pem>,
    /// Certificate chain and key to identify with.
    pub client_certificate: Option<(Pem, Pem)>,
    /// Identifies with this instead of [`Config::client_certificate`].
    pub renewed_certificate: Option<RenewedCertificate>,
    pub auth: Auth,
    pub impersonate: Option<Impersonation>,
    /// The kubeconfig context's namespace.
    pub namespace: String,
    /// What the requests' `User-Agent` says. [`Config::user_agent`] makes one as upstream's daemons do.
    pub user_agent: String,
    /// Requests per second, on average; `None` for no limit on the client's side.
    pub qps: Option<f32>,
    /// Requests that may be sent at once before [`Config::qps`] holds them back.
    pub burst: u32,
    /// Limit for one request, watches excepted.
    pub timeout: Option<Duration>,
    pub content_type: ContentType,
}

impl Config {
    /// A server without credentials.
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            server: server.into(),
            tls_server_name: None,
            insecure_skip_tls_verify: false,
            certificate_authority: None,
            client_certificate: None,
            renewed_certificate: None,
            auth: Auth::None,
            impersonate: None,
            namespace: "default".to_owned(),
            user_agent: default_user_agent(env!("CARGO_PKG_NAME")),
            qps: None,
            burst: 0,
            timeout: None,
            content_type: ContentType::default(),
        }
    }

    /// The current context of a kubeconfig file: what a daemon's `--kubeconfig` means.
    pub fn from_kubeconfig(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Kubeconfig::load(path.as_ref())?.config(None)
    }

    /// The service account of the pod that we run in.
    pub fn in_cluster() -> Result<Self, ConfigError> {
        let var = |name| std::env::var(name).ok().filter(|v: &String| !v.is_empty());
        let (Some(host), Some(port)) = (
            var("KUBERNETES_SERVICE_HOST"),
            var("KUBERNETES_SERVICE_PORT"),
        ) else {
            return Err(ConfigError::NotInCluster);
        };
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        let dir = Path::new(SERVICE_ACCOUNT_DIR);
        let namespace = std::fs::read_to_string(dir.join("namespace")).unwrap_or_default();
        let token = dir.join("token");
        read(&token)?;
        Ok(Self {
            certificate_authority: Some(Pem::File(dir.join("ca.crt"))),
            auth: Auth::TokenFile(token),
            namespace: namespace.trim().to_owned(),
            ..Self::new(format!("https://{host}:{port}"))
        })
    }

    /// What upstream's daemons do with `--kubeconfig` and `--master`: the file if one is
    /// given, else the in-cluster environment; `master` overrides the address.
    pub fn load(kubeconfig: Option<&Path>, master: Option<&str>) -> Result<Self, ConfigError> {
        let master = master.filter(|m| !m.is_empty());
        let mut config = match (kubeconfig, master) {
            (Some(path), _) if !path.as_os_str().is_empty() => Self::from_kubeconfig(path)?,
            (_, Some(master)) => Self::new(master),
            _ => Self::in_cluster()?,
        };
        if let Some(master) = master {
            config.server = master.to_owned();
        }
        Ok(config)
    }

    /// Sets the `User-Agent` to `<component>/v1.36.2 (linux/amd64) kubernetes/…`, as upstream's.
    #[must_use]
    pub fn user_agent(mut self, component: &str) -> Self {
        self.user_agent = default_user_agent(component);
        self
    }

    /// Sets the client-side rate limit; `qps` of zero or less switches it off.
    #[must_use]
    pub fn rate_limit(mut self, qps: f32, burst: u32) -> Self {
        self.qps = (qps > 0.0).then_some(qps);
        self.burst = burst.max(1);
        self
    }

    /// The same server, with no credentials at all.
    #[must_use]
    pub fn anonymous(mut self) -> Self {
        self.client_certificate = None;
        self.renewed_certificate = None;
        self.auth = Auth::None;
        self.impersonate = None;
        self
    }
}

fn default_user_agent(component: &str) -> String {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!(
        "{component}/v{} (linux/{arch}) kubernetes/ferrokube",
        env!("CARGO_PKG_VERSION")
    )
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}
