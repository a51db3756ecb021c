//! Connections to etcd's members: one HTTP/2 connection each, made when needed, with TLS
//! files read anew for every connection so that replaced certificates need no restart.
//!
//! What must not be here: etcd's messages, which errors a request survives.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

/// Where etcd is and how it is spoken to (`--etcd-servers`, `--etcd-cafile`, …).
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// `https://host:port` or `http://host:port`, one per member.
    pub servers: Vec<String>,
    /// The CA of the members' certificates; the system's roots without it.
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// What is wrong with the configured servers.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("no etcd servers are configured (--etcd-servers)")]
    None,
    #[error("--etcd-servers: {0:?} is not http://host:port or https://host:port")]
    Invalid(String),
}

/// Why a connection could not be made. A request that meets it was never sent.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("connect to {server}: {source}")]
    Io {
        server: String,
        source: std::io::Error,
    },
    #[error("read {}: {source}", file.display())]
    Pem {
        file: PathBuf,
        source: rustls_pki_types::pem::Error,
    },
    #[error("TLS for etcd: {0}")]
    Tls(#[from] rustls::Error),
    #[error("TLS for etcd: {0} is no server name")]
    Name(String),
}

/// upstream's: notices a dead member within 40 s.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// With other members to turn to, do not wait so long for one.
const DIAL_TIMEOUT_OF_SEVERAL: Duration = Duration::from_secs(5);

/// The members; requests stay with one until it fails them.
pub(super) struct Members {
    members: Vec<Member>,
    current: AtomicUsize,
}

#[derive(Clone)]
pub(super) struct Member {
    pub(super) server: String,
    pub(super) channel: Channel,
    index: usize,
}

impl Members {
    pub(super) fn new(transport: &Transport) -> Result<Self, TransportError> {
        if transport.servers.is_empty() {
            return Err(TransportError::None);
        }
        let shared = Arc::new(transport.clone());
        let members = transport
            .servers
            .iter()
            .enumerate()
            .map(|(index, server)| {
                let (connector, plain) = Connector::new(server, shared.clone())?;
                let dial = if transport.servers.len() > 1 {
                    DIAL_TIMEOUT_OF_SEVERAL
                } else {
                    DIAL_TIMEOUT
                };
                let channel = Endpoint::from_shared(plain)
                    .map_err(|_| TransportError::Invalid(server.clone()))?
                    .connect_timeout(dial)
                    .http2_keep_alive_interval(KEEPALIVE)
                    .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                    // Pages and the watch are megabytes; the default window stalls them.
                    .initial_stream_window_size(4 << 20)
                    .initial_connection_window_size(16 << 20)
                    .connect_with_connector_lazy(connector);
                Ok(Member {
                    server: server.clone(),
                    channel,
                    index,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            members,
            current: AtomicUsize::new(0),
        })
    }

    pub(super) fn current(&self) -> Member {
        let i = self.current.load(Ordering::Relaxed) % self.members.len();
        self.members[i].clone()
    }

    /// Turns away from a member, unless somebody has done so already.
    pub(super) fn failed(&self, member: &Member) {
        let next = (member.index + 1) % self.members.len();
        let _ =
            self.current
                .compare_exchange(member.index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn all(&self) -> &[Member] {
        &self.members
    }
}

/// Dials one member.
#[derive(Clone)]
struct Connector {
    server: String,
    host: String,
    port: u16,
    tls: bool,
    transport: Arc<Transport>,
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connector {
    /// Also the address without TLS, which tonic wants since TLS happens here.
    fn new(server: &str, transport: Arc<Transport>) -> Result<(Self, String), TransportError> {
        let invalid = || TransportError::Invalid(server.to_owned());
        let uri: Uri = server.parse().map_err(|_| invalid())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(invalid()),
        };
        let authority = uri.authority().ok_or_else(invalid)?;
        let port = authority.port_u16().unwrap_or(2379);
        let host = authority.host();
        let plain = format!("http://{host}:{port}");
        let host = host.trim_matches(['[', ']']).to_owned();
        let connector = Self {
            server: server.to_owned(),
            host,
            port,
            tls,
            transport,
        };
        Ok((connector, plain))
    }

    async fn connect(self) -> Result<Box<dyn Io>, ConnectError> {
        let io = |source| ConnectError::Io {
            server: self.server.clone(),
            source,
        };
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        if !self.tls {
            return Ok(Box::new(stream));
        }
        let config = client_config(&self.transport)?;
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| ConnectError::Name(self.host.clone()))?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(io)?;
        Ok(Box::new(stream))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}

/// Where distributions keep the system's roots, for members without a CA of their own.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

fn client_config(transport: &Transport) -> Result<ClientConfig, ConnectError> {
    let ca = transport
        .ca_file
        .as_deref()
        .unwrap_or(Path::new(SYSTEM_ROOTS));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(ca)?);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match (&transport.cert_file, &transport.key_file) {
        (Some(cert), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(pem(key))?;
            let shown = client::client_certificate(certificates(cert)?, key, &provider)?;
            builder.with_client_cert_resolver(shown)
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(pem(file))
}

fn pem(file: &Path) -> impl FnOnce(rustls_pki_types::pem::Error) -> ConnectError {
    let file = file.to_owned();
    move |source| ConnectError::Pem { file, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_urls() {
        let transport = |server: &str| Transport {
            servers: vec![server.to_owned()],
            ..Transport::default()
        };
        for bad in ["127.0.0.1:2379", "ftp://x:1", "https://"] {
            assert!(
                matches!(
                    Members::new(&transport(bad)),
                    Err(TransportError::Invalid(_))
                ),
                "{bad}"
            );
        }
        let none = Members::new(&Transport::default());
        assert!(matches!(none, Err(TransportError::None)));
        let shared = Arc::new(Transport::default());
        let (connector, plain) = Connector::new("https://[::1]:23790", shared).unwrap();
        assert_eq!((connector.host.as_str(), connector.port), ("::1", 23790));
        assert_eq!(plain, "http://[::1]:23790");
    }

    #[tokio::test]
    async fn requests_leave_a_member_that_failed_once() {
        let members = Members::new(&Transport {
            servers: vec!["http://a:1".into(), "http://b:1".into()],
            ..Transport::default()
        })
        .unwrap();
        let first = members.current();
        members.failed(&first);
        members.failed(&first);
        assert_eq!(members.current().server, "http://b:1");
    }
}
