//! Serving HTTP over TLS: certificates that follow their files, client certificates,
//! HTTP/1.1 and HTTP/2, upgrades, and a stop in two phases.
//!
//! What must not be here: who may do what; a handler is told the peer's certificates.

mod client_cert;
mod client_chain;
mod client_policies;
mod gathered;
mod policy;
mod streams;
mod tls;
mod turns;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prometheus::IntCounter;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::coalesced::Coalesced;
use crate::panics::{Contained, Panicked};
pub use client_cert::verifier_of;
use gathered::{Corked, Gathered};
pub use policy::{PolicyError, TlsPolicy};
use streams::Streams;
pub use tls::{ServingCertificate, TlsError, TlsFiles, TlsOptions};
use turns::{InTurns, Turn};

/// A response's body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The headers of a request over HTTP/2, in bytes: what Go's server takes. Selectors of many values
/// are long.
const MAX_HEADERS: u32 = 1 << 20;

/// A body that is there as a whole.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    http_body_util::Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// The chain that TLS has verified, leaf first; empty when none was presented.
    pub certificates: Arc<[CertificateDer<'static>]>,
}

type HandlerFuture = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Answers requests. Upgrades go through `hyper::upgrade::on` of the request. `Connection: close`
/// in an answer over HTTP/2 is no header there, but ends the connection once its requests are
/// answered (GOAWAY, RFC 9113, 6.8), as in Go.
pub type Handler = Arc<dyn Fn(Request<Incoming>, Peer) -> HandlerFuture + Send + Sync>;

/// Wraps an async function as a [`Handler`].
pub fn handler<F, Fut>(f: F) -> Handler
where
    F: Fn(Request<Incoming>, Peer) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    Arc::new(move |request, peer| {
        let answer = Contained::new(f(request, peer));
        Box::pin(async move { answer.await.unwrap_or_else(|_| panicked()) })
    })
}

/// The answer to a request whose handler panicked.
fn panicked() -> Response<Body> {
    let mut response = Response::new(full(
        "The server panicked while it served this request. Its log says where.\n",
    ));
    *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// What a connection may do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// `--http2-max-streams-per-connection`; upstream's default is 250 for the API server.
    pub http2_streams: u32,
    /// A TLS handshake, or the head of a request, may take this long.
    pub head_timeout: Duration,
    /// How long requests may go on after the stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            http2_streams: 250,
            head_timeout: Duration::from_secs(32),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// A socket that is bound and not served yet: its address can be told before.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    handshake_errors: Option<IntCounter>,
}

impl Bound {
    /// Counts connections that end in the TLS handshake.
    pub fn count_handshake_errors(self, counter: IntCounter) -> Self {
        Self {
            handshake_errors: Some(counter),
            ..self
        }
    }

    /// Binds; port 0 takes a free one.
    pub async fn new(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self {
            listener,
            address,
            handshake_errors: None,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then lets requests finish within the drain timeout. `tls`
    /// is `None` for plain HTTP, which only loopback health ports use.
    pub async fn serve(
        self,
        tls: Option<ServingCertificate>,
        handler: Handler,
        limits: Limits,
        stop: CancellationToken,
    ) {
        let mut builder = auto::Builder::new(Streams);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_timeout)
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2_streams)
            .max_header_list_size(MAX_HEADERS)
            // A peer that is gone is noticed, so that its watches end.
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .keep_alive_timeout(Duration::from_secs(15));
        let builder = Arc::new(builder);
        let connections = TaskTracker::new();
        loop {
            let (stream, address) = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // Out of descriptors, most likely: others must close theirs first.
                        tracing::warn!("cannot accept a connection: {error}");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let _ = stream.set_nodelay(true);
            let tls = tls.clone();
            let handler = Arc::clone(&handler);
            let builder = Arc::clone(&builder);
            let connections = connections.clone();
            let close = stop.child_token();
            let timeout = limits.head_timeout;
            let errors = self.handshake_errors.clone();
            tokio::spawn(async move {
                match tls {
                    None => {
                        let peer = Peer {
                            address,
                            certificates: Arc::from([]),
                        };
                        let connection = connection(&builder, stream, peer, handler, close);
                        connections.track_future(connection).await;
                    }
                    Some(tls) => match tokio::time::timeout(timeout, tls.accept(stream)).await {
                        Ok(Ok((stream, certificates))) => {
                            let peer = Peer {
                                address,
                                certificates,
                            };
                            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            let stream = Coalesced::new(Gathered::new(stream, http2), http2);
                            let connection = connection(&builder, stream, peer, handler, close);
                            connections.track_future(connection).await;
                        }
                        Ok(Err(error)) => {
                            tracing::debug!("TLS handshake error from {address}: {error}");
                            errors.iter().for_each(IntCounter::inc);
                        }
                        Err(_) => {
                            tracing::debug!("TLS handshake from {address} timed out");
                            errors.iter().for_each(IntCounter::inc);
                        }
                    },
                }
            });
        }
        // Nobody new; those who are here may finish.
        drop(self.listener);
        connections.close();
        tokio::select! {
            () = connections.wait() => {}
            () = tokio::time::sleep(limits.drain_timeout) => {
                tracing::info!("connections were still open when the drain timeout ended");
            }
        }
    }
}

/// Serves a connection. After `close` it takes no more requests.
async fn connection<S>(
    builder: &auto::Builder<Streams>,
    stream: S,
    peer: Peer,
    handler: Handler,
    close: CancellationToken,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let address = peer.address;
    let turn = Turn::new();
    let (of_connection, last) = (turn.clone(), close.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let http2 = request.version() == Version::HTTP_2;
        let (turn, last) = (of_connection.clone(), last.clone());
        let response = handler(request, peer.clone());
        async move {
            if !http2 {
                turn.unless_over().await;
                return Ok::<_, Infallible>(response.await);
            }
            let mut response = response.await;
            let asked = response.headers_mut().remove(http::header::CONNECTION);
            if asked.is_some_and(|asked| asked == "close") {
                last.cancel();
            }
            Ok(response)
        }
    });
    let served = async {
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = close.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        connection.await
    };
    match Contained::new(InTurns::new(served, turn)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("connection from {address}: {error}"),
        Err(Panicked) => tracing::error!("connection from {address}: panicked"),
    }
}

/// The stream type that a TLS handshake yields.
type TlsStream = tokio_rustls::server::TlsStream<Corked<TcpStream>>;

#[cfg(test)]
mod tests;
