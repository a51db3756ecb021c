//! HTTP requests to containers, for probes and lifecycle hooks: one connection each, certificates
//! not verified (the container's own network is the only way to it).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use client::AnyServer;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How much of an answer is read.
const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    #[error("{0}")]
    Request(String),
    #[error("Get {url:?}: {why}")]
    Failed { url: String, why: String },
    #[error(
        "Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    )]
    Timeout { url: String },
}

/// An answer, as far as anyone looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
    /// A redirect to another host, which is not followed.
    pub redirected_away: Option<String>,
}

/// A request made from an object's `httpGet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGet {
    pub uri: Uri,
    /// Headers of the request, `Host` included where it differs.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// A port given by number or by name.
///
/// # Errors
/// When the container has no such port, or it is out of range.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, HttpError> {
    let number = match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            let named = ports
                .clone()
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| port.container_port);
            named.or_else(|| name.parse().ok()).ok_or_else(|| {
                HttpError::Request(format!("couldn't find port: {name} in {}", container.name))
            })?
        }
    };
    match u16::try_from(number) {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(HttpError::Request(format!("invalid port number: {number}"))),
    }
}

impl HttpGet {
    /// `agent` goes into the user agent: `kube-<agent>/1.36`.
    ///
    /// # Errors
    /// When port, path or headers make no request.
    pub fn new(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
        agent: &str,
    ) -> Result<Self, HttpError> {
        let scheme = action.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
        let host = action
            .host
            .as_deref()
            .filter(|host| !host.is_empty())
            .unwrap_or(pod_ip);
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let port = port(&action.port, container)?;
        let path = action.path.as_deref().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let wrong = |error: &dyn std::fmt::Display| HttpError::Request(error.to_string());
        let uri: Uri = format!("{scheme}://{host}:{port}{slash}{path}")
            .parse()
            .map_err(|e| wrong(&e))?;

        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::new();
        for header in action.http_headers.iter().flatten() {
            let name: HeaderName = header.name.parse().map_err(|e| wrong(&e))?;
            headers.push((
                name,
                HeaderValue::from_str(&header.value).map_err(|e| wrong(&e))?,
            ));
        }
        let version = concat!(
            "/",
            env!("CARGO_PKG_VERSION_MAJOR"),
            ".",
            env!("CARGO_PKG_VERSION_MINOR")
        );
        for (name, default) in [
            (USER_AGENT, format!("kube-{agent}{version}")),
            (ACCEPT, "*/*".into()),
        ] {
            if !headers.iter().any(|(own, _)| *own == name) {
                headers.push((
                    name,
                    HeaderValue::from_str(&default).map_err(|e| wrong(&e))?,
                ));
            }
        }
        // Written empty, a default header is left out.
        headers.retain(|(_, value)| !value.is_empty());
        Ok(Self { uri, headers })
    }

    /// Sends it, and follows redirects to the same host.
    ///
    /// # Errors
    /// When no answer comes within `timeout`.
    pub async fn send(&self, timeout: Duration) -> Result<Answer, HttpError> {
        let url = self.uri.to_string();
        match tokio::time::timeout(timeout, self.follow()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(why)) => Err(HttpError::Failed { url, why }),
            Err(_) => Err(HttpError::Timeout { url }),
        }
    }

    async fn follow(&self) -> Result<Answer, String> {
        let mut uri = self.uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let (answer, location) = self.once(&uri).await?;
            let Some(location) =
                location.filter(|_| matches!(answer.status, 301 | 302 | 303 | 307 | 308))
            else {
                return Ok(answer);
            };
            let next =
                resolve(&uri, &location).ok_or_else(|| format!("bad redirect to {location:?}"))?;
            if next.host() != uri.host() {
                return Ok(Answer {
                    redirected_away: Some(next.to_string()),
                    ..answer
                });
            }
            uri = next;
        }
        Err(format!("stopped after {MAX_REDIRECTS} redirects"))
    }

    async fn once(&self, uri: &Uri) -> Result<(Answer, Option<String>), String> {
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let address = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let tcp = TcpStream::connect((host.as_str(), port))
            .await
            .map_err(|error| format!("dial tcp {address}: connect: {}", go_error(&error)))?;
        if tls {
            let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
            let stream = TlsConnector::from(INSECURE.clone())
                .connect(name, tcp)
                .await;
            self.exchange(uri, stream.map_err(|error| error.to_string())?)
                .await
        } else {
            self.exchange(uri, tcp).await
        }
    }

    async fn exchange<S>(&self, uri: &Uri, stream: S) -> Result<(Answer, Option<String>), String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header("connection", "close");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !self.headers.iter().any(|(name, _)| *name == HOST) {
            request = request.header(
                HOST,
                uri.authority().map_or("", |authority| authority.as_str()),
            );
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let work = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|error| explain(&error))?;
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned);
            let status = response.status().as_u16();
            // A longer body is cut, which is no failure.
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            Ok((
                Answer {
                    status,
                    body,
                    redirected_away: None,
                },
                location,
            ))
        };
        // The connection is driven here and ends with the answer: no task is left behind.
        tokio::pin!(work);
        tokio::select! {
            answer = &mut work => answer,
            ended = connection => match ended {
                Ok(()) => work.await,
                Err(error) => Err(explain(&error)),
            },
        }
    }
}

fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.contains("://") {
        return location.parse().ok();
    }
    let mut parts = base.clone().into_parts();
    let path = if location.starts_with('/') {
        location.to_owned()
    } else {
        let directory = base
            .path()
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory);
        format!("{directory}/{location}")
    };
    parts.path_and_query = Some(path.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// The kernel's words as Go has them, since people search for these.
pub fn go_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::ConnectionReset => "connection reset by peer".into(),
        std::io::ErrorKind::HostUnreachable => "no route to host".into(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        _ => error.to_string(),
    }
}

fn explain(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        "EOF".into()
    } else {
        error.to_string()
    }
}

/// A probe asks whether a server answers, not who it is.
static INSECURE: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|error| unreachable!("ring serves the default protocol versions: {error}"))
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
        .with_no_client_auth();
    Arc::new(config)
});

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn get(action: serde_json::Value, ip: &str) -> Result<HttpGet, HttpError> {
        let container = serde_json::from_value(
            json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]}),
        )
        .unwrap();
        HttpGet::new(
            &serde_json::from_value(action).unwrap(),
            &container,
            ip,
            "probe",
        )
    }

    #[test]
    fn requests() {
        let uri = |action, ip| get(action, ip).unwrap().uri.to_string();
        assert_eq!(
            uri(json!({"port": "web", "path": "/x?y=z"}), "10.0.0.1"),
            "http://10.0.0.1:8080/x?y=z"
        );
        assert_eq!(
            uri(
                json!({"port": 1, "scheme": "HTTPS", "host": "h"}),
                "10.0.0.1"
            ),
            "https://h:1/"
        );
        assert_eq!(
            uri(json!({"port": 1, "path": "p"}), "fd00::1"),
            "http://[fd00::1]:1/p"
        );
        assert!(get(json!({"port": "none"}), "").is_err() && get(json!({"port": 0}), "").is_err());
        let headers = get(
            json!({"port": 1, "httpHeaders": [{"name": "Accept", "value": ""}]}),
            "h",
        )
        .unwrap()
        .headers;
        assert_eq!(
            headers,
            [(USER_AGENT, HeaderValue::from_static("kube-probe/1.36"))]
        );
    }

    async fn serve(answers: Vec<&'static str>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                let _ = stream.read(&mut buffer).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        port
    }

    #[tokio::test]
    async fn redirects_stay_at_home() {
        let port = serve(vec![
            "HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 302 Found\r\nLocation: http://elsewhere.example/\r\nContent-Length: 0\r\n\r\n",
        ])
        .await;
        let request = get(json!({"port": port}), "127.0.0.1").unwrap();
        let answer = request.send(Duration::from_secs(5)).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        let answer = request.send(Duration::from_secs(5)).await.unwrap();
        assert_eq!(
            answer.redirected_away.as_deref(),
            Some("http://elsewhere.example/")
        );
    }

    #[tokio::test]
    async fn nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = get(json!({"port": port}), "127.0.0.1")
            .unwrap()
            .send(Duration::from_secs(5))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused"
            )
        );
    }
}
