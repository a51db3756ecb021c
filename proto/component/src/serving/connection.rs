//! Connections of either protocol: which one is agreed on by TLS (ALPN), and without TLS it is
//! HTTP/1.1.
//!
//! What must not be here: how connections come to be.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;

use http::{Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::lifetime::{Answer, Lifetime, Watched};
use super::streams::Streams;
use super::turns::{InTurns, Turn};
use super::{Handler, Limits, Peer};
use crate::panics::{Contained, Panicked};

/// The headers of a request over HTTP/2, in bytes: what Go's server takes. Selectors of many values
/// are long.
const MAX_HEADERS: u32 = 1 << 20;

/// What connections have in common.
pub(super) struct Server {
    pub limits: Limits,
    handler: Handler,
    http1: http1::Builder,
    http2: http2::Builder<Streams>,
}

impl Server {
    pub fn new(limits: Limits, handler: Handler) -> Self {
        let mut http1 = http1::Builder::new();
        // `Lifetime` knows an idle connection from a slow head.
        http1.header_read_timeout(None);
        let mut http2 = http2::Builder::new(Streams);
        http2
            .max_concurrent_streams(limits.http2_streams)
            .max_header_list_size(MAX_HEADERS);
        Self {
            limits,
            handler,
            http1,
            http2,
        }
    }

    /// Serves a connection of HTTP/1. After `close` it takes no more requests.
    pub fn http1<S>(
        &self,
        stream: S,
        peer: Peer,
        close: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = peer.address;
        let lifetime = Lifetime::new(false, &self.limits);
        let turn = Turn::new();
        let (here, of_connection, handler) = (lifetime.clone(), turn.clone(), self.handler.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (here, turn) = (here.clone(), of_connection.clone());
            let open = here.request();
            let response = handler(request, peer.clone());
            async move {
                turn.unless_over().await;
                let response = response.await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    here.upgrade();
                }
                Ok::<_, Infallible>(response.map(|body| Answer::new(body, open)))
            }
        });
        let stream = TokioIo::new(Watched::new(stream, lifetime.clone()));
        let connection = self.http1.serve_connection(stream, service).with_upgrades();
        let tell = http1::UpgradeableConnection::graceful_shutdown;
        finish(
            address,
            InTurns::new(lifetime.of(connection, tell, close), turn),
        )
    }

    /// Serves a connection of HTTP/2. After `close` it takes no more requests.
    pub fn http2<S>(
        &self,
        stream: S,
        peer: Peer,
        close: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<S>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = peer.address;
        let lifetime = Lifetime::new(true, &self.limits);
        let (here, last, handler) = (lifetime.clone(), close.clone(), self.handler.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (here, last) = (here.clone(), last.clone());
            let answer =
                (!here.has_ended()).then(|| (here.request(), handler(request, peer.clone())));
            async move {
                // The client may ask somebody else.
                let (open, response) = answer.ok_or(h2::Reason::REFUSED_STREAM)?;
                let mut response = response.await;
                let asked = response.headers_mut().remove(header::CONNECTION);
                let mut response = response.map(|body| Answer::new(body, open));
                if asked.is_some_and(|asked| asked == "close") {
                    here.end();
                    response.body_mut().is_last(last);
                }
                Ok::<_, h2::Error>(response)
            }
        });
        let stream = TokioIo::new(Watched::new(stream, lifetime.clone()));
        let connection = self.http2.serve_connection(stream, service);
        let tell = http2::Connection::graceful_shutdown;
        finish(address, lifetime.of(connection, tell, close))
    }
}

/// Runs a connection to its end. One that panics takes nobody with it.
async fn finish(address: SocketAddr, connection: impl Future<Output = Option<hyper::Result<()>>>) {
    match Contained::new(connection).await {
        Ok(Some(Ok(()))) => {}
        Ok(Some(Err(error))) => tracing::debug!("connection from {address}: {error}"),
        Ok(None) => tracing::debug!("connection from {address}: idle for too long"),
        Err(Panicked) => tracing::error!("connection from {address}: panicked"),
    }
}
