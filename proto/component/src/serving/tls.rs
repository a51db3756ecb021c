//! The server's certificate and the authorities of its clients, read again when their
//! files change; and a self-signed certificate where none is given.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CipherSuite, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::TlsStream;
use super::client_cert::{RequestClientCert, verifier_of};
use super::gathered::Corked;
use super::policy::TlsPolicy;
use crate::files::Changes;

/// How often files are looked at. Rotated certificates overlap by far more.
const RELOAD_PERIOD: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {path}: {message}")]
    Read { path: String, message: String },
    #[error("{path} holds no certificate")]
    NoCertificate { path: String },
    #[error(
        "{path} does not hold the key of the certificate, or a key of an unknown kind: {message}"
    )]
    Key { path: String, message: String },
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(String),
    #[error("TLS configuration: {0}")]
    Config(String),
}

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl TlsFiles {
    /// `<directory>/<name>.crt` and `.key`, made self-signed for `names` unless both are
    /// there already (`--cert-dir`).
    pub fn self_signed(directory: &Path, name: &str, names: &[String]) -> Result<Self, TlsError> {
        let files = Self {
            certificate: directory.join(format!("{name}.crt")),
            key: directory.join(format!("{name}.key")),
        };
        if files.certificate.exists() && files.key.exists() {
            return Ok(files);
        }
        let made = || -> anyhow::Result<()> {
            let key = rcgen::generate_simple_self_signed(names.to_vec())?;
            std::fs::create_dir_all(directory)?;
            write_private(&files.key, key.signing_key.serialize_pem().as_bytes())?;
            std::fs::write(&files.certificate, key.cert.pem())?;
            Ok(())
        };
        made().map_err(|error| TlsError::SelfSigned(format!("{error:#}")))?;
        Ok(files)
    }
}

/// A certificate and its key that a server shows.
#[derive(Debug, Clone)]
pub enum Identity {
    Files(TlsFiles),
    /// Nowhere but in memory.
    Made(Arc<CertifiedKey>),
    /// As it is told for each handshake, which fails where there is none.
    Resolved(Arc<dyn ResolvesServerCert>),
}

impl From<TlsFiles> for Identity {
    fn from(files: TlsFiles) -> Self {
        Self::Files(files)
    }
}

impl Identity {
    /// Makes one that nobody has signed for `names`, and that ends with the process.
    pub fn self_signed(names: &[String]) -> Result<Self, TlsError> {
        let failed = |error: &dyn std::fmt::Display| TlsError::SelfSigned(error.to_string());
        let made = rcgen::generate_simple_self_signed(names).map_err(|e| failed(&e))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let chain = vec![made.cert.der().clone()];
        let made = CertifiedKey::from_der(chain, key, &provider()).map_err(|e| failed(&e))?;
        Ok(Self::Made(Arc::new(made)))
    }

    fn files(&self) -> Option<&TlsFiles> {
        match self {
            Self::Files(files) => Some(files),
            Self::Made(_) | Self::Resolved(_) => None,
        }
    }

    fn resolver(&self) -> Result<Arc<dyn ResolvesServerCert>, TlsError> {
        let always = |key: &Arc<CertifiedKey>| SingleCertAndKey::from(CertifiedKey::clone(key));
        match self {
            Self::Files(files) => Ok(Arc::new(always(&certified(files)?))),
            Self::Made(made) => Ok(Arc::new(always(made))),
            Self::Resolved(resolver) => Ok(Arc::clone(resolver)),
        }
    }
}

/// Writes a file that only its owner reads.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(bytes)
}

/// What a server shows and whom it asks for a certificate.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// The certificate for clients that name no host, or one that no other fits.
    pub default: Option<Identity>,
    /// `--tls-sni-cert-key`: certificates for the host names that they name.
    pub by_name: Vec<TlsFiles>,
    /// Bundles of authorities for client certificates (`--client-ca-file`,
    /// `--requestheader-client-ca-file`). Clients are asked for a certificate and may
    /// have none; one that is presented must verify.
    pub client_ca: Vec<PathBuf>,
    /// The handshake takes any certificate, and the handler verifies it: a stranger's gets
    /// a status then, not an alert.
    pub verifies_later: bool,
    /// Further authorities as PEM, which may change: those that a cluster publishes. Empty
    /// while they are not known.
    pub published_ca: Option<watch::Receiver<Vec<u8>>>,
    pub policy: TlsPolicy,
}

impl TlsOptions {
    fn files(&self) -> impl Iterator<Item = &Path> {
        let default = self.default.as_ref().and_then(Identity::files);
        default
            .into_iter()
            .chain(&self.by_name)
            .flat_map(|f| [f.certificate.as_path(), f.key.as_path()])
            .chain(self.client_ca.iter().map(PathBuf::as_path))
    }

    fn published(&self) -> Vec<u8> {
        self.published_ca
            .as_ref()
            .map(|ca| ca.borrow().clone())
            .unwrap_or_default()
    }

    /// When each file last changed.
    fn stamps(&self) -> Vec<Option<SystemTime>> {
        self.files()
            .map(|path| std::fs::metadata(path).and_then(|m| m.modified()).ok())
            .collect()
    }
}

/// A TLS configuration that follows its files. Cheap to clone.
#[derive(Clone)]
pub struct ServingCertificate(Arc<ArcSwap<ServerConfig>>);

impl ServingCertificate {
    /// Reads the files, and reads them again whenever they change. A change that cannot
    /// be used is logged, and the server goes on with what it had.
    pub fn load(options: TlsOptions) -> Result<Self, TlsError> {
        let mut stamps = options.stamps();
        let current = Arc::new(ArcSwap::from_pointee(build(&options)?));
        let weak = Arc::downgrade(&current);
        let mut published = options.published_ca.clone();
        tokio::spawn(async move {
            let mut changes = Changes::of(options.files(), RELOAD_PERIOD);
            loop {
                let republished = tokio::select! {
                    () = changes.next() => false,
                    changed = changed(&mut published) => changed,
                };
                let Some(current) = weak.upgrade() else {
                    return;
                };
                let now = options.stamps();
                if now == stamps && !republished {
                    continue;
                }
                match build(&options) {
                    Ok(config) => {
                        current.store(Arc::new(config));
                        stamps = now;
                        tracing::info!("serving certificates were loaded again");
                    }
                    Err(error) => {
                        tracing::warn!("certificates changed and cannot be used: {error}")
                    }
                }
            }
        });
        Ok(Self(current))
    }

    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> std::io::Result<(TlsStream, Arc<[CertificateDer<'static>]>)> {
        let acceptor = TlsAcceptor::from(self.0.load_full());
        let stream = acceptor.accept(Corked::new(stream)).await?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = certificates.iter().cloned().collect();
        Ok((stream, certificates))
    }
}

/// Waits for a change of what is published; for ever if nothing is.
async fn changed(published: &mut Option<watch::Receiver<Vec<u8>>>) -> bool {
    if let Some(ca) = published
        && ca.changed().await.is_ok()
    {
        return true;
    }
    *published = None;
    std::future::pending().await
}

/// AES with keys of 128 bits goes first, as in Go's servers: of what all find safe, it is the
/// cheapest.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    let is_cheapest = |suite: CipherSuite| {
        matches!(
            suite,
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    let suites = &mut provider.cipher_suites;
    suites.sort_by_key(|suite| !is_cheapest(suite.suite()));
    Arc::new(provider)
}

fn build(options: &TlsOptions) -> Result<ServerConfig, TlsError> {
    let config_error = |error: &dyn std::fmt::Display| TlsError::Config(error.to_string());
    let mut provided = CryptoProvider::clone(&provider());
    options.policy.narrow(&mut provided);
    let builder = ServerConfig::builder_with_provider(Arc::new(provided))
        .with_protocol_versions(options.policy.versions())
        .map_err(|e| config_error(&e))?;
    let mut trusted = Vec::new();
    for path in &options.client_ca {
        trusted.extend(certificates(path)?);
    }
    for certificate in CertificateDer::pem_slice_iter(&options.published()) {
        trusted.push(certificate.map_err(|e| config_error(&e))?);
    }
    let mut roots = RootCertStore::empty();
    for certificate in &trusted {
        (roots.add(certificate.clone())).map_err(|e| config_error(&e))?;
    }
    let builder = if roots.is_empty() {
        builder.with_no_client_auth()
    } else if options.verifies_later {
        builder.with_client_cert_verifier(Arc::new(RequestClientCert::new(&roots, provider())))
    } else {
        let verifier = verifier_of(&trusted).map_err(|e| config_error(&e))?;
        builder.with_client_cert_verifier(verifier)
    };
    let resolver = Resolver {
        default: options
            .default
            .as_ref()
            .map(Identity::resolver)
            .transpose()?,
        by_name: by_name(&options.by_name)?,
    };
    let mut config = builder.with_cert_resolver(Arc::new(resolver));
    // As in Go: what a suite costs here, clients do not know.
    config.ignore_client_order = true;
    config.alpn_protocols = options.policy.protocols();
    Ok(config)
}

fn read_error(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Read {
        path: path.display().to_string(),
        message: error.to_string(),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|e| read_error(path, &e))?
        .collect::<Result<_, _>>()
        .map_err(|e| read_error(path, &e))?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate {
            path: path.display().to_string(),
        });
    }
    Ok(found)
}

fn certified(files: &TlsFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| read_error(&files.key, &e))?;
    let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(|e| TlsError::Key {
        path: files.key.display().to_string(),
        message: e.to_string(),
    })?;
    Ok(Arc::new(certified))
}

/// Certificates under the DNS names that they are for.
fn by_name(files: &[TlsFiles]) -> Result<HashMap<String, Arc<CertifiedKey>>, TlsError> {
    let mut map = HashMap::new();
    for files in files {
        let certified = certified(files)?;
        for name in dns_names(&certified.cert[0]) {
            // The first certificate for a name wins, as upstream.
            map.entry(name).or_insert_with(|| Arc::clone(&certified));
        }
    }
    Ok(map)
}

fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let dns = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
    dns.collect()
}

#[derive(Debug)]
struct Resolver {
    default: Option<Arc<dyn ResolvesServerCert>>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let wildcard = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
            self.by_name
                .get(name)
                .or_else(|| self.by_name.get(&wildcard?))
        });
        match named {
            Some(named) => Some(Arc::clone(named)),
            None => self.default.as_ref()?.resolve(hello),
        }
    }
}
