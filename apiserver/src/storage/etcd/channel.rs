//! Connections to etcd's members: one HTTP/2 connection each, made when needed, with TLS
//! files read anew for every connection so that replaced certificates need no restart.
//!
//! What must not be here: etcd's messages, which errors a request survives.

use std::future::Future;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use component::coalesced::Coalesced;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tonic::transport::{Channel, Endpoint};

/// Where etcd is and how it is spoken to (`--etcd-servers`, `--etcd-cafile`, …).
#[derive(Debug, Clone, Default)]
pub struct Transport {
    /// `https://host:port`, `http://host:port` or `host:port`, one per member.
    pub servers: Vec<String>,
    /// The CA of the members' certificates; the system's roots without it.
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

impl Transport {
    /// How long a member may take to answer a new connection.
    fn dial_timeout(&self) -> Duration {
        match self.servers.len() {
            0 | 1 => DIAL_TIMEOUT,
            _ => DIAL_TIMEOUT_OF_SEVERAL,
        }
    }
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
                let channel = Endpoint::from_shared(plain)
                    .map_err(|_| TransportError::Invalid(server.clone()))?
                    .connect_timeout(transport.dial_timeout())
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

/// A connection on which the member must say something soon: HTTP/2 begins with its settings. The
/// kernel of one that hangs accepts connections too.
struct Greeted<S> {
    stream: S,
    /// Until it has said something.
    due: Option<Pin<Box<Sleep>>>,
}

impl<S> Greeted<S> {
    fn within(limit: Duration, stream: S) -> Self {
        Self {
            stream,
            due: Some(Box::pin(tokio::time::sleep(limit))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, into);
        if read.is_ready() {
            this.due = None;
        } else if let Some(due) = &mut this.due {
            ready!(due.as_mut().poll(cx));
            this.due = None;
            return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connector {
    /// Also the address without TLS, which tonic wants since TLS happens here.
    fn new(server: &str, transport: Arc<Transport>) -> Result<(Self, String), TransportError> {
        let invalid = || TransportError::Invalid(server.to_owned());
        let uri: Uri = server.parse().map_err(|_| invalid())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            // As etcd's own client has it: with the files for TLS, it is TLS.
            None => transport.ca_file.is_some() || transport.cert_file.is_some(),
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
        let stream = Greeted::within(self.transport.dial_timeout(), stream);
        if !self.tls {
            return Ok(Box::new(Coalesced::new(stream)));
        }
        let config = client_config(&self.transport)?;
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| ConnectError::Name(self.host.clone()))?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(io)?;
        Ok(Box::new(Coalesced::new(stream)))
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn servers_are_urls() {
        let transport = |server: &str| Transport {
            servers: vec![server.to_owned()],
            ..Transport::default()
        };
        for bad in ["ftp://x:1", "https://", "/a", ""] {
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
        for (ca_file, tls) in [(None, false), (Some("ca.crt".into()), true)] {
            let shared = Arc::new(Transport {
                ca_file,
                ..Transport::default()
            });
            let (connector, plain) = Connector::new("127.0.0.1:2379", shared).unwrap();
            assert_eq!(
                (connector.tls, plain.as_str()),
                (tls, "http://127.0.0.1:2379")
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_says_nothing_is_given_up() {
        let limit = Duration::from_secs(5);
        let (near, _far) = tokio::io::duplex(64);
        let mut silent = Greeted::within(limit, near);
        let before = tokio::time::Instant::now();
        let error = silent.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert_eq!(before.elapsed(), limit);

        // Who has said something may be silent for as long as the keepalives allow.
        let (near, mut said) = tokio::io::duplex(64);
        let mut greeted = Greeted::within(limit, near);
        said.write_u8(1).await.unwrap();
        assert_eq!(greeted.read_u8().await.unwrap(), 1);
        let later = tokio::time::timeout(2 * limit, greeted.read_u8()).await;
        assert!(later.is_err());
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
