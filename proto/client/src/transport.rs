//! Connections to one API server.
//!
//! One HTTP/2 connection carries all requests ([`http2`]); HTTP/1.1 is for servers that have
//! nothing better. It is pinged, so that a server that vanished without a word is noticed in
//! about 45 seconds, watches included. When certificate files
//! change, new requests go over new connections; requests under way finish on the old ones.

mod gathering;
mod http2;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper_rustls::{
    FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream,
};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tower::ServiceExt as _;
use tower::util::MapResponse;

use self::gathering::Gathering;
pub use self::http2::Body;
use self::http2::{Http2, Sent};

use crate::config::{Config, ConfigError};
use crate::error::Error;
use crate::tls::Material;

/// As upstream's `HTTP2_READ_IDLE_TIMEOUT_SECONDS` and `HTTP2_PING_TIMEOUT_SECONDS`.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the files are looked at, at most.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

type Connector = MapResponse<HttpsConnector<HttpConnector>, fn(Stream) -> Gathering<Stream>>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Hyper = legacy::Client<Connector, Full<Bytes>>;

pub(crate) struct Transport {
    config: Config,
    current: ArcSwap<Connections>,
    checked: Mutex<Instant>,
}

struct Connections {
    material: Material,
    /// None where there is no TLS to agree on it.
    http2: Option<Http2>,
    http1: Hyper,
}

impl Transport {
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let material = Material::read(config)?;
        let connections = Connections::new(config, material)?;
        Ok(Self {
            config: config.clone(),
            current: ArcSwap::from_pointee(connections),
            checked: Mutex::new(Instant::now()),
        })
    }

    /// Sends a request with an absolute URI and waits for the head of the answer.
    pub async fn send(&self, mut request: Request<Bytes>) -> Result<Response<Body>, Error> {
        self.reload();
        let connections = self.current.load_full();
        if let Some(http2) = &connections.http2 {
            match http2.send(request).await {
                Ok(Sent::Answered(answer)) => return Ok(*answer),
                Ok(Sent::NotHttp2(again)) => request = *again,
                Err(e) => {
                    let connecting = e.is_connect();
                    return Err(self.failure(e, connecting));
                }
            }
        }
        let answer = Box::pin(connections.http1.request(request.map(Full::new))).await;
        answer.map(|answer| answer.map(Body::Http1)).map_err(|e| {
            let connecting = e.is_connect();
            self.failure(e, connecting)
        })
    }

    /// `connecting`: whether nothing can have been sent, which tells if it is safe to send
    /// again.
    fn failure(
        &self,
        e: impl std::error::Error + Send + Sync + 'static,
        connecting: bool,
    ) -> Error {
        match self.error(e) {
            Error::Transport {
                server,
                message,
                refused,
                source,
                ..
            } => Error::Transport {
                server,
                message,
                refused,
                connecting,
                source,
            },
            other => other,
        }
    }

    fn reload(&self) {
        let mut checked = self.checked.lock();
        let current = self.current.load();
        if checked.elapsed() < RELOAD_INTERVAL && !current.material.is_outdated(&self.config) {
            return;
        }
        *checked = Instant::now();
        // Half-written files are no reason to give up what works.
        let fresh = Material::read(&self.config).and_then(|material| {
            if material == current.material {
                return Ok(None);
            }
            Connections::new(&self.config, material).map(Some)
        });
        match fresh {
            Ok(None) => {}
            Ok(Some(connections)) => {
                tracing::info!(server = %self.config.server, "certificates changed, reconnecting");
                self.current.store(Arc::new(connections));
            }
            Err(err) => tracing::warn!(%err, "keeping the old certificates"),
        }
    }

    pub fn error(&self, err: impl std::error::Error + Send + Sync + 'static) -> Error {
        let mut refused = false;
        let mut message = err.to_string();
        let mut source = err.source();
        while let Some(e) = source {
            if let Some(io) = e.downcast_ref::<std::io::Error>() {
                refused |= io.kind() == std::io::ErrorKind::ConnectionRefused;
            }
            let text = e.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = e.source();
        }
        Error::Transport {
            server: self.config.server.clone(),
            message,
            refused,
            connecting: false,
            source: Some(Box::new(err)),
        }
    }

    pub fn server(&self) -> &str {
        &self.config.server
    }
}

impl Connections {
    fn new(config: &Config, material: Material) -> Result<Self, ConfigError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_keepalive(Some(Duration::from_secs(30)));
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));

        let tls = if config.server.starts_with("http://") {
            // Never used, but the connector wants one; without roots it trusts nobody.
            rustls::ClientConfig::builder_with_provider(Arc::new(
                rustls::crypto::ring::default_provider(),
            ))
            .with_safe_default_protocol_versions()
            .map_err(|e| ConfigError::Tls {
                what: "TLS versions".into(),
                message: e.to_string(),
            })?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth()
        } else {
            material.client_config(config)?
        };
        let mut builder = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http();
        if let Some(name) = &config.tls_server_name {
            let name = rustls_pki_types::ServerName::try_from(name.clone()).map_err(|e| {
                ConfigError::Tls {
                    what: format!("tls-server-name {name:?}"),
                    message: e.to_string(),
                }
            })?;
            builder = builder.with_server_name_resolver(FixedServerNameResolver::new(name));
        }
        let connector = builder.enable_http1().enable_http2().wrap_connector(http);
        let connector: Connector = connector.map_response(Gathering);
        let server = BaseUri::parse(&config.server)?;
        let http2 = match server.scheme == http::uri::Scheme::HTTPS {
            true => Some(Http2::new(connector.clone(), server.root()?)),
            false => None,
        };
        let http1 = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .build(connector);
        Ok(Self {
            material,
            http2,
            http1,
        })
    }
}

/// The parts of the server's address that requests are made from.
#[derive(Debug, Clone)]
pub(crate) struct BaseUri {
    scheme: http::uri::Scheme,
    authority: http::uri::Authority,
    /// Without a slash at the end.
    prefix: String,
}

impl BaseUri {
    /// `host:port`, for metrics.
    pub fn host(&self) -> &str {
        self.authority.as_str()
    }

    pub fn parse(server: &str) -> Result<Self, ConfigError> {
        let bad = || ConfigError::Server(server.to_owned());
        // Upstream takes a bare host:port for plain HTTP.
        let text = if server.contains("://") {
            server.to_owned()
        } else {
            format!("http://{server}")
        };
        let parts = text.parse::<Uri>().map_err(|_| bad())?.into_parts();
        let scheme = parts.scheme.ok_or_else(bad)?;
        if scheme != http::uri::Scheme::HTTP && scheme != http::uri::Scheme::HTTPS {
            return Err(bad());
        }
        let prefix = parts
            .path_and_query
            .map_or(String::new(), |p| p.path().to_owned());
        Ok(Self {
            scheme,
            authority: parts.authority.ok_or_else(bad)?,
            prefix: prefix.trim_end_matches('/').to_owned(),
        })
    }

    /// Scheme and authority alone.
    fn root(&self) -> Result<Uri, ConfigError> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query("/")
            .build()
            .map_err(|_| ConfigError::Server(self.authority.to_string()))
    }

    /// `path_and_query` starts with a slash.
    pub fn join(&self, path_and_query: &str) -> Result<Uri, Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path_and_query}", self.prefix))
            .build()
            .map_err(|e| Error::Request(format!("{path_and_query:?}: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let uri = |s: &str| BaseUri::parse(s).map(|b| b.join("/api?x=1").unwrap().to_string());
        assert_eq!(uri("https://h:6443").unwrap(), "https://h:6443/api?x=1");
        assert_eq!(
            uri("https://h/prefix/").unwrap(),
            "https://h/prefix/api?x=1"
        );
        assert_eq!(
            uri("127.0.0.1:8080").unwrap(),
            "http://127.0.0.1:8080/api?x=1"
        );
        assert!(uri("ftp://h").is_err());
        assert!(uri("").is_err());
    }
}
