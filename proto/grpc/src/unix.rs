//! A channel over a Unix socket, which is how every one of these interfaces is served on a node.

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
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
