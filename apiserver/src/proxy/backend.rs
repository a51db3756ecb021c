//! One request to one backend over a connection of its own, and its answer back: as a
//! stream, or as a tunnel when both sides agree to upgrade.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use meta::Status;
use prometheus::IntCounter;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tls::ClientTls;
use crate::http::body::{Body, BoxError};
use crate::http::websocket;

/// For the connection, and again for the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers of an answer may have as many bytes, as in Go.
const MAX_HEAD: usize = 10 << 20;

/// An address, and how to speak to it.
pub struct Backend {
    pub host: String,
    pub port: u16,
    /// `None`: plain HTTP.
    pub tls: Option<Arc<ClientTls>>,
    /// Counts certificates that were not believed.
    pub unverified: Option<IntCounter>,
}

/// What is sent.
pub struct Outgoing {
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// With the `Host` by which the client knows the backend; without one, it is its address.
    pub headers: HeaderMap,
    pub body: Option<Incoming>,
    /// The client's connection, if it wants to upgrade.
    pub upgrade: Option<OnUpgrade>,
}

/// Headers that are between two neighbours and not passed on. Upgrades keep `Connection`
/// and `Upgrade`.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .flat_map(|v| v.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Removes what a neighbour says is between it and us only (RFC 9110, 7.6.1). A client's must go
/// before we add anything: it shall not have that removed.
pub fn remove_named(headers: &mut HeaderMap) {
    let named: Vec<HeaderValue> = headers
        .get_all(header::CONNECTION)
        .iter()
        .cloned()
        .collect();
    for names in named.iter().filter_map(|v| v.to_str().ok()) {
        // What is left of `TE` is decided where the rest is stripped.
        for name in names.split(',').map(str::trim) {
            if !name.eq_ignore_ascii_case("te") {
                headers.remove(name);
            }
        }
    }
}

fn strip(headers: &mut HeaderMap, upgrading: bool) {
    if !upgrading {
        headers.remove(header::CONNECTION);
        headers.remove(header::UPGRADE);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// What a request says to the backend. Whether trailers are understood is the client's matter.
fn strip_request(headers: &mut HeaderMap, upgrading: bool) {
    let codings = headers.get_all(header::TE).iter();
    let takes_trailers = codings
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    strip(headers, upgrading);
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// What an answer says to the client, with the names of its trailers, which come only in chunks.
fn strip_response(headers: &mut HeaderMap) {
    let in_chunks = headers.contains_key(header::TRANSFER_ENCODING);
    if in_chunks {
        // How long it is, its end says (RFC 9112, 6.3): a length beside that is not to be believed.
        headers.remove(header::CONTENT_LENGTH);
    }
    let trailers: Vec<HeaderValue> = headers.get_all(header::TRAILER).iter().cloned().collect();
    remove_named(headers);
    strip(headers, false);
    for names in trailers.into_iter().filter(|_| in_chunks) {
        headers.append(header::TRAILER, names);
    }
}

impl Backend {
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Sends the request and passes on what is answered, an upgrade too. 503 when the backend
    /// cannot be reached.
    pub async fn send(&self, mut outgoing: Outgoing) -> Result<Response<Body>, Status> {
        let client = outgoing.upgrade.take();
        let upgrading = client.is_some() && wants_upgrade(&outgoing.headers);
        let mut response = self.exchange(outgoing, upgrading).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(client) = client
        {
            let backend = hyper::upgrade::on(&mut response);
            let response = response.map(|_| crate::http::body::empty());
            return Ok(websocket::upgraded(response, tunnel(client, backend)));
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let message = "the backend switched protocols though nobody asked it to";
            return Err(Status::unknown(message));
        }
        strip_response(response.headers_mut());
        // Which HTTP the backend speaks is not the client's matter.
        *response.version_mut() = Version::default();
        Ok(response.map(passed_on))
    }

    /// Sends a request for SPDY. The answer's status says whether the connection is that now.
    pub async fn upgrade(
        &self,
        target: String,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, Status> {
        let outgoing = Outgoing {
            method: Method::POST,
            target,
            headers,
            body: None,
            upgrade: None,
        };
        self.exchange(outgoing, true).await
    }

    async fn exchange(
        &self,
        outgoing: Outgoing,
        upgrading: bool,
    ) -> Result<Response<Incoming>, Status> {
        let unreachable = |e: &dyn std::fmt::Display| {
            Status::service_unavailable(format!(
                "error trying to reach service: dial tcp {}: {e}",
                self.authority()
            ))
        };
        let connect = TcpStream::connect((self.host.as_str(), self.port));
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .map_err(|_| unreachable(&"i/o timeout"))?
            .map_err(|e| unreachable(&refusal(&e)))?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return self.over(stream, outgoing, upgrading).await;
        };
        let config = tls.config().map_err(Status::internal)?;
        let name = ServerName::try_from(self.host.clone()).map_err(Status::internal)?;
        let handshake = tokio_rustls::TlsConnector::from(config).connect(name, stream);
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, handshake)
            .await
            .map_err(|_| unreachable(&"TLS handshake timeout"))?
            .inspect_err(|e| self.count(e))
            .map_err(|e| unreachable(&e))?;
        self.over(stream, outgoing, upgrading).await
    }

    fn count(&self, error: &std::io::Error) {
        let cause = error.get_ref().and_then(|e| e.downcast_ref());
        if let (Some(rustls::Error::InvalidCertificate(_)), Some(counter)) =
            (cause, &self.unverified)
        {
            counter.inc();
        }
    }

    async fn over<S>(
        &self,
        stream: S,
        outgoing: Outgoing,
        upgrading: bool,
    ) -> Result<Response<Incoming>, Status>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |e: &dyn std::fmt::Display| {
            Status::service_unavailable(format!("error trying to reach service: {e}"))
        };
        let (mut sender, connection) = http1::Builder::new()
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
        tokio::spawn(async move {
            if let Err(e) = connection.with_upgrades().await {
                tracing::debug!(error = %e, "connection to a backend");
            }
        });
        let Outgoing {
            method,
            target,
            mut headers,
            body,
            upgrade: _,
        } = outgoing;
        strip_request(&mut headers, upgrading);
        if !headers.contains_key(header::HOST) {
            let host = HeaderValue::from_str(&self.authority());
            headers.insert(header::HOST, host.map_err(Status::internal)?);
        }
        let body: Body = match body {
            Some(body) => passed_on(body),
            None => crate::http::body::empty(),
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(Status::internal)?;
        *request.headers_mut() = headers;
        let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
        match response.status() {
            // Above all no redirect: it would lead the client, and what it sends, to wherever the
            // backend likes (CVE-2020-8559).
            code if upgrading && code != StatusCode::SWITCHING_PROTOCOLS && code.as_u16() < 400 => {
                let message = format!("invalid upgrade response: status code {}", code.as_u16());
                Err(Status::unknown(message))
            }
            _ => Ok(response),
        }
    }
}

/// A body that is passed on as it comes.
pub fn passed_on(body: Incoming) -> Body {
    body.map_err(|e| -> BoxError { Box::new(e) }).boxed_unsync()
}

/// Copies bytes both ways until one side ends.
async fn tunnel(client: OnUpgrade, backend: OnUpgrade) {
    let (client, backend) = match tokio::join!(client, backend) {
        (Ok(client), Ok(backend)) => (client, backend),
        (Err(e), _) | (_, Err(e)) => {
            tracing::debug!(error = %e, "an upgrade was not completed");
            return;
        }
    };
    let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
    if let Err(e) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
        tracing::debug!(error = %e, "a tunnel ended");
    }
}

/// Why there is no connection, in the words that Go's clients print.
fn refusal(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn upgrades_are_recognised() {
        let mut headers = HeaderMap::new();
        assert!(!wants_upgrade(&headers));
        headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        headers.insert(
            header::CONNECTION,
            HeaderValue::from_static("keep-alive, Upgrade"),
        );
        assert!(wants_upgrade(&headers));
        strip(&mut headers, false);
        assert!(headers.is_empty());
    }

    #[test]
    fn what_is_between_neighbours_is_not_passed_on() {
        let from = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pairs = pairs.iter();
            pairs
                .map(|(name, value)| {
                    let name = HeaderName::from_static(name);
                    (name, HeaderValue::from_static(value))
                })
                .collect()
        };
        let mut request = from(&[
            ("connection", "close, X-Hop, TE"),
            ("x-hop", "a"),
            ("te", "gzip, trailers"),
            ("trailer", "etag"),
            ("accept", "b"),
        ]);
        remove_named(&mut request);
        strip_request(&mut request, false);
        assert_eq!(request, from(&[("accept", "b"), ("te", "trailers")]));
        let mut answer = from(&[("trailer", "etag"), ("transfer-encoding", "chunked")]);
        strip_response(&mut answer);
        assert_eq!(answer, from(&[("trailer", "etag")]));
        let both = [("content-length", "9"), ("transfer-encoding", "chunked")];
        let mut answer = from(&both);
        strip_response(&mut answer);
        assert!(answer.is_empty());
        let mut answer = from(&[("trailer", "etag"), ("content-length", "1")]);
        strip_response(&mut answer);
        assert_eq!(answer, from(&[("content-length", "1")]));
    }

    /// A backend that answers one request so.
    async fn answering(answer: &'static str) -> Backend {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        Backend {
            host: "127.0.0.1".to_owned(),
            port,
            tls: None,
            unverified: None,
        }
    }

    #[tokio::test]
    async fn who_asks_for_an_upgrade_is_not_led_elsewhere() {
        let upgrade = async |answer| {
            let backend = answering(answer).await;
            let answer = backend.upgrade("/exec".to_owned(), HeaderMap::new()).await;
            answer
                .map(|answer| answer.status())
                .map_err(|status| status.code)
        };
        let redirect = "HTTP/1.1 302 Found\r\nlocation: https://198.51.100.1/\r\n\r\n";
        assert_eq!(upgrade(redirect).await, Err(500));
        let content = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(upgrade(content).await, Err(500));
        let refusal = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(upgrade(refusal).await, Ok(StatusCode::FORBIDDEN));
    }

    #[tokio::test]
    async fn the_backends_protocol_is_not_the_clients() {
        let get = async |answer| {
            let outgoing = Outgoing {
                method: Method::GET,
                target: "/".to_owned(),
                headers: HeaderMap::new(),
                body: None,
                upgrade: None,
            };
            let answer = answering(answer).await.send(outgoing).await;
            answer
                .map(|answer| (answer.status(), answer.version()))
                .map_err(|status| status.code)
        };
        let old = "HTTP/1.0 404 Not Found\r\n\r\n";
        let passed_on = (StatusCode::NOT_FOUND, Version::HTTP_11);
        assert_eq!(get(old).await, Ok(passed_on));
        let sloppy =
            "HTTP/1.1 404 Not Found\r\nx-a : 1\r\nx-b: 1,\r\n 2\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(get(sloppy).await, Ok(passed_on));
        let unasked = "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n";
        assert_eq!(get(unasked).await, Err(500));
    }
}
