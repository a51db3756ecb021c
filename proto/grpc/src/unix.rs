//! A channel over a Unix socket, which is how every one of these interfaces is served on a node.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint, Uri};

/// Why an endpoint such as `unix:///run/containerd/containerd.sock` cannot be used.
#[derive(Debug)]
pub enum EndpointError {
    /// Only `unix://` endpoints (or bare absolute paths) are local to the node.
    NotUnix(String),
}

impl std::fmt::Display for EndpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotUnix(endpoint) => {
                write!(
                    f,
                    "endpoint {endpoint:?} is not a unix socket: write it as unix:///path/to.sock"
                )
            }
        }
    }
}

impl std::error::Error for EndpointError {}

/// A channel to the Unix socket that `endpoint` names. Connects on first use, and again after
/// the server has gone away; so this succeeds while the server is still down.
///
/// # Errors
/// When `endpoint` is neither `unix://<path>` nor an absolute path.
pub fn connect_unix(endpoint: &str) -> Result<Channel, EndpointError> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !path.starts_with('/') {
        return Err(EndpointError::NotUnix(endpoint.to_owned()));
    }
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The authority is what the server sees as `:authority`; on a socket it means nothing.
    Ok(Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector))
}

/// Tells that a connection has ended; also when it is dropped with the channel.
pub struct Ended(oneshot::Receiver<()>);

impl Ended {
    /// Waits for it.
    pub async fn wait(self) {
        // It is never sent: the sender goes with the connection.
        let _ = self.0.await;
    }
}

/// A channel to the Unix socket at `path`, connected now, and what tells when that connection has
/// ended: for whoever must know whether the other side is there without asking it for something.
///
/// # Errors
/// When nobody serves there.
pub async fn dial_unix(path: &str) -> Result<(Channel, Ended), tonic::transport::Error> {
    let (alive, ended) = oneshot::channel::<()>();
    let alive = Arc::new(Mutex::new(Some(alive)));
    let path = path.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (path, alive) = (path.clone(), alive.clone());
        async move {
            let io = UnixStream::connect(path).await?;
            // A second connection, after the first one ended, tells nobody.
            let alive = alive.lock().unwrap_or_else(PoisonError::into_inner).take();
            Ok::<_, io::Error>(TokioIo::new(Connection { io, _alive: alive }))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok((channel, Ended(ended)))
}

/// A stream that is known to have ended by what is dropped with it.
struct Connection {
    io: UnixStream,
    _alive: Option<oneshot::Sender<()>>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_local_sockets_are_endpoints() {
        assert!(connect_unix("unix:///run/x.sock").is_ok());
        assert!(connect_unix("/run/x.sock").is_ok());
        assert!(connect_unix("tcp://127.0.0.1:1").is_err());
        assert!(connect_unix("run/x.sock").is_err());
    }
}
