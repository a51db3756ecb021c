//! The client's side, kept cheap: requests over HTTP/2 and TLS as client-go makes them,
//! bodies as the chunks that arrive. Nothing is decoded here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pki::Pki;

/// Protobuf, as client-go asks for it.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// JSON.
pub const JSON: &str = "application/json";
/// What kubectl shows: rows with the cells of columns, as JSON.
pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
/// What all objects have, as JSON.
pub const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
/// The same of a list.
pub const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
/// A strategic merge patch.
pub const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// A merge patch.
pub const MERGE: &str = "application/merge-patch+json";
/// A server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";

/// Bounds what hangs; nothing is measured with it.
const LIMIT: Duration = Duration::from_secs(180);

// The windows of Go's HTTP/2 client: what the server may send ahead is part of what
// is measured.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 1 << 30;
/// What HTTP/2 begins with.
const NARROW_WINDOW: u32 = (64 << 10) - 1;

/// A server, and who asks it.
#[derive(Clone)]
pub struct Endpoint {
    address: SocketAddr,
    tls: TlsConnector,
}

impl Endpoint {
    /// The administrator at a port of loopback.
    ///
    /// # Errors
    ///
    /// When the certificates cannot be read.
    pub fn new(port: u16, pki: &Pki) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(pki.path("ca.crt"))?)?;
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(pki.path("admin.crt"))?],
            PrivateKeyDer::from_pem_file(pki.path("admin.key"))?,
        )?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address: ([127, 0, 0, 1], port).into(),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// A connection of its own.
    ///
    /// # Errors
    ///
    /// When nobody listens, or it is not the server that was expected.
    pub async fn connect(&self) -> Result<Connection> {
        self.connect_with(STREAM_WINDOW, CONNECTION_WINDOW).await
    }

    /// A connection whose server has to wait for the reader almost at once.
    ///
    /// # Errors
    ///
    /// Likewise.
    pub async fn connect_narrow(&self) -> Result<Connection> {
        self.connect_with(NARROW_WINDOW, NARROW_WINDOW).await
    }

    async fn connect_with(&self, stream_window: u32, window: u32) -> Result<Connection> {
        let connecting = async {
            let tcp = TcpStream::connect(self.address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("localhost")?;
            let stream = self.tls.connect(name, tcp).await?;
            let (sender, connection) = Builder::new(TokioExecutor::new())
                .initial_stream_window_size(stream_window)
                .initial_connection_window_size(window)
                .handshake(TokioIo::new(stream))
                .await?;
            tokio::spawn(async move {
                // Whoever waits for an answer learns of its end.
                let _ = connection.await;
            });
            anyhow::Ok(Connection {
                sender,
                authority: self.address.to_string(),
            })
        };
        tokio::time::timeout(LIMIT, connecting)
            .await
            .context("connecting takes too long")?
    }
}

/// An HTTP/2 connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask {
    method: Method,
    path: String,
    accept: &'static str,
    content: Option<(&'static str, Bytes)>,
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

impl Ask {
    /// Something to read, as JSON unless said otherwise.
    pub fn get(path: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path: path.into(),
            accept: JSON,
            content: None,
        }
    }

    /// Something to delete.
    pub fn delete(path: impl Into<String>) -> Self {
        Self {
            method: Method::DELETE,
            ..Self::get(path)
        }
    }

    /// Something to send.
    pub fn send(
        method: Method,
        path: impl Into<String>,
        kind: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        Self {
            method,
            content: Some((kind, body.into())),
            ..Self::get(path)
        }
    }

    /// JSON to create.
    pub fn post(path: impl Into<String>, body: &serde_json::Value) -> Self {
        Self::send(Method::POST, path, JSON, body.to_string())
    }

    /// The wanted form of the answer.
    #[must_use]
    pub fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }
}

impl Connection {
    /// Whether it can take no more requests.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whom it asks, as `host:port`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Sends a request as it is, and returns once the answer begins, however late.
    ///
    /// # Errors
    ///
    /// When the connection ends before that.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let mut sender = self.sender.clone();
        sender.ready().await?;
        Ok(sender.send_request(request).await?)
    }

    /// Asks, and returns once the answer begins.
    ///
    /// # Errors
    ///
    /// When the connection ends before that.
    pub async fn open(&self, ask: &Ask) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(&ask.method)
            .uri(format!("https://{}{}", self.authority, ask.path))
            .header(header::ACCEPT, ask.accept)
            .header(header::USER_AGENT, "stand");
        let mut body = Bytes::new();
        if let Some((kind, bytes)) = &ask.content {
            request = request.header(header::CONTENT_TYPE, *kind);
            body = bytes.clone();
        }
        let request = request.body(Full::new(body))?;
        let mut sender = self.sender.clone();
        let answering = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let answer = tokio::time::timeout(LIMIT, answering).await;
        Ok(answer.with_context(|| format!("{} takes too long", ask.path))??)
    }

    /// Asks, and returns status and body.
    ///
    /// # Errors
    ///
    /// When the connection ends before that.
    pub async fn ask(&self, ask: &Ask) -> Result<(StatusCode, Bytes)> {
        let answer = self.open(ask).await?;
        let status = answer.status();
        let body = tokio::time::timeout(LIMIT, answer.into_body().collect()).await;
        let body = body.with_context(|| format!("{} takes too long", ask.path))??;
        Ok((status, body.to_bytes()))
    }

    /// Asks for what must be answered with one of the successful statuses.
    ///
    /// # Errors
    ///
    /// When it is not.
    pub async fn success(&self, ask: &Ask) -> Result<Bytes> {
        let (status, body) = self.ask(ask).await?;
        if !status.is_success() {
            bail!("{} {}: {}", ask.method, ask.path, refusal(status, &body));
        }
        Ok(body)
    }

    /// The successful answer as JSON.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn json(&self, ask: &Ask) -> Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.success(ask).await?)?)
    }

    /// Asks, and hands every chunk of the successful answer on.
    ///
    /// # Errors
    ///
    /// When the answer is another, or ends before its end, or `chunk` fails.
    pub async fn stream(
        &self,
        ask: &Ask,
        mut chunk: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut answer = self.open(ask).await?;
        if !answer.status().is_success() {
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            bail!("{}: {}", ask.path, refusal(status, &body));
        }
        while let Some(frame) = next(answer.body_mut()).await? {
            chunk(&frame)?;
        }
        Ok(())
    }
}

/// The next bytes of a body; none at its end.
///
/// # Errors
///
/// When the connection breaks.
pub async fn next(body: &mut Incoming) -> Result<Option<Bytes>> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(frame) => {
                if let Ok(data) = frame?.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(600)]);
    format!("{status}: {text}")
}
