//! Serving HTTP over TLS: certificates that follow their files, client certificates,
//! HTTP/1.1 and HTTP/2, upgrades, and a stop in two phases.
//!
//! What must not be here: who may do what; a handler is told the peer's certificates.

mod client_cert;
mod client_chain;
mod client_policies;
mod connection;
mod gathered;
mod lifetime;
mod policy;
mod streams;
mod tls;
mod turns;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use nix::sys::socket::{setsockopt, sockopt};
use prometheus::IntCounter;
use rustls_pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::coalesced::Coalesced;
use crate::panics::Contained;
pub use client_cert::verifier_of;
use connection::Server;
use gathered::{Corked, Gathered};
pub use policy::{PolicyError, TlsPolicy};
pub use tls::{Identity, ServingCertificate, TlsError, TlsFiles, TlsOptions};

/// A response's body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

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
        // No async block around it: that would be a copy of it, and some kilobytes.
        Box::pin(answer.map(|answer| answer.unwrap_or_else(|_| panicked())))
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
    /// A connection without requests is kept so long.
    pub idle_timeout: Duration,
    /// How long requests may go on after the stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            http2_streams: 250,
            head_timeout: Duration::from_secs(32),
            idle_timeout: Duration::from_secs(90),
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
        let server = Arc::new(Server::new(limits, handler));
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
            if let Err(error) = keep_alive(&stream) {
                tracing::debug!("connection from {address}: {error}");
            }
            let tls = tls.clone();
            let server = Arc::clone(&server);
            let connections = connections.clone();
            let close = stop.child_token();
            let timeout = server.limits.head_timeout;
            let errors = self.handshake_errors.clone();
            tokio::spawn(async move {
                match tls {
                    None => {
                        let peer = Peer {
                            address,
                            certificates: Arc::from([]),
                        };
                        let connection = server.http1(stream, peer, close);
                        connections.track_future(connection).await;
                    }
                    Some(tls) => match tokio::time::timeout(timeout, tls.accept(stream)).await {
                        Ok(Ok((stream, certificates))) => {
                            let peer = Peer {
                                address,
                                certificates,
                            };
                            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            if http2 {
                                let stream = Coalesced::new(Gathered::new(stream));
                                let connection = server.http2(stream, peer, close);
                                connections.track_future(connection).await;
                            } else {
                                let connection = server.http1(stream, peer, close);
                                connections.track_future(connection).await;
                            }
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
            () = tokio::time::sleep(server.limits.drain_timeout) => {
                tracing::info!("connections were still open when the drain timeout ended");
            }
        }
    }
}

/// Has the kernel notice a client that is gone, so that its watches end. Not by PING of HTTP/2:
/// who was suspended, or without a network for a minute, goes on where it was.
fn keep_alive(stream: &TcpStream) -> nix::Result<()> {
    const IDLE: u32 = 3 * 60; // seconds
    const INTERVAL: u32 = 15;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &IDLE)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &INTERVAL)
}

/// The stream type that a TLS handshake yields.
type TlsStream = tokio_rustls::server::TlsStream<Corked<TcpStream>>;

#[cfg(test)]
mod tests;
