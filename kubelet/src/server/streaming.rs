//! exec, attach and port-forward: the caller's upgraded connection is joined to the runtime's
//! streaming server, byte for byte, where both know the protocol. What comes over a WebSocket
//! that runtimes do not know is translated.

use std::sync::Arc;

use bytes::Bytes;
use component::serving::{Body, full};
use grpc::cri;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use meta::Status;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use streaming::websocket::{self, Handshake};
use streaming::{REMOTE_COMMAND_V4, REMOTE_COMMAND_V5, translate, tunnel};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tracing::debug;

use super::answer::Refusal;
use crate::pods::source_http::AUTHORITIES;

/// The streams that the caller asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

impl Streams {
    /// # Errors
    /// A text where none is asked for.
    pub fn parse(query: &[(String, String)]) -> Result<Self, String> {
        let on = |name: &str| {
            let first = query.iter().find(|(key, _)| key == name);
            first.is_some_and(|(_, value)| value == "1")
        };
        let tty = on("tty");
        // A terminal has one output.
        let streams = Self {
            stdin: on("input"),
            stdout: on("output"),
            stderr: on("error") && !tty,
            tty,
        };
        if !streams.stdin && !streams.stdout && !streams.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr".into());
        }
        Ok(streams)
    }

    pub fn exec(self, container_id: String, cmd: Vec<String>) -> cri::ExecRequest {
        cri::ExecRequest {
            container_id,
            cmd,
            tty: self.tty,
            stdin: self.stdin,
            stdout: self.stdout,
            stderr: self.stderr,
        }
    }

    pub fn attach(self, container_id: String) -> cri::AttachRequest {
        cri::AttachRequest {
            container_id,
            stdin: self.stdin,
            tty: self.tty,
            stdout: self.stdout,
            stderr: self.stderr,
        }
    }
}

/// Upstream's status for it.
fn not_dialled(error: impl std::fmt::Display) -> Refusal {
    let why = format!("error dialing backend: {error}\n");
    (StatusCode::INTERNAL_SERVER_ERROR, why)
}

/// To the runtime's streaming server, which may have TLS: then a certificate that this machine
/// trusts is asked of it, as of any other server.
async fn connect(url: &Uri) -> Result<Either<TcpStream, TlsStream<TcpStream>>, Refusal> {
    let host = url
        .host()
        .ok_or_else(|| not_dialled("the URL has no host"))?;
    let host = host.trim_matches(['[', ']']);
    let is_tls = url.scheme() == Some(&Scheme::HTTPS);
    let port = url.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(not_dialled)?;
    // Terminals send single keys.
    let _ = stream.set_nodelay(true);
    if !is_tls {
        return Ok(Either::Left(stream));
    }
    let name = ServerName::try_from(host.to_owned()).map_err(not_dialled)?;
    let tls = TlsConnector::from(Arc::new(tls().map_err(not_dialled)?));
    let stream = tls.connect(name, stream).await.map_err(not_dialled)?;
    Ok(Either::Right(stream))
}

fn tls() -> Result<rustls::ClientConfig, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    let bundle = AUTHORITIES.iter().find_map(|path| std::fs::read(path).ok());
    let certificates = CertificateDer::pem_slice_iter(bundle.as_deref().unwrap_or_default());
    roots.add_parsable_certificates(certificates.flatten());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Sends a request to the runtime's `url` over a connection of its own.
async fn send(
    method: Method,
    url: &str,
    mut headers: HeaderMap,
) -> Result<Response<Incoming>, Refusal> {
    let url: Uri = url.parse().map_err(not_dialled)?;
    let authority = url
        .authority()
        .ok_or_else(|| not_dialled("the runtime's URL has no host"))?;
    let stream = connect(&url).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(not_dialled)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "the connection to the runtime's streaming server");
        }
    });
    headers.remove(http::header::AUTHORIZATION);
    headers.insert(HOST, authority.as_str().parse().map_err(not_dialled)?);
    headers.insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = Request::new(Empty::<Bytes>::new());
    *onward.method_mut() = method;
    *onward.uri_mut() = path.parse().map_err(not_dialled)?;
    *onward.headers_mut() = headers;
    sender.send_request(onward).await.map_err(not_dialled)
}

/// The runtime's answer as the caller's.
fn passed_on(answer: Response<Incoming>) -> Response<Body> {
    answer.map(|body| body.map_err(|error| error.into()).boxed_unsync())
}

/// Sends the request on to `url`, and joins the two connections once both are upgraded.
///
/// # Errors
/// Status and text where the runtime does not play along.
pub async fn join(mut request: Request<Incoming>, url: &str) -> Result<Response<Body>, Refusal> {
    if !request.headers().contains_key(UPGRADE) {
        let why = "Upgrade request required\n";
        return Err((StatusCode::INTERNAL_SERVER_ERROR, why.into()));
    }
    let headers = request.headers().clone();
    let mut answer = send(request.method().clone(), url, headers).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(passed_on(answer));
    }
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().clone_from(answer.headers());
    let ours = hyper::upgrade::on(&mut request);
    let theirs = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        match futures::try_join!(ours, theirs) {
            Ok((ours, theirs)) => {
                let joined = tokio::io::copy_bidirectional(
                    &mut TokioIo::new(ours),
                    &mut TokioIo::new(theirs),
                )
                .await;
                debug!(?joined, "a stream has ended");
            }
            Err(error) => debug!(%error, "a stream was not upgraded"),
        }
    });
    Ok(response)
}

/// Serves a command over a WebSocket with a runtime that speaks SPDY.
///
/// # Errors
/// None; whether the runtime can be reached is said over the WebSocket.
pub fn translate(
    mut request: Request<Incoming>,
    url: &str,
    streams: Streams,
) -> Result<Response<Body>, Refusal> {
    let handshake = match Handshake::of(request.method(), request.headers()) {
        Ok(handshake) => handshake,
        Err(refusal) => return Ok(refusal.response().map(full)),
    };
    let client = hyper::upgrade::on(&mut request);
    let url = url.to_owned();
    let streams = translate::Streams {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        tty: streams.tty,
    };
    tokio::spawn(async move {
        match client.await {
            Ok(client) => {
                let client = websocket::server(TokioIo::new(client)).await;
                let code = translate::translate(client, streams, dial(&url)).await;
                debug!(code, "a command over a WebSocket has ended");
            }
            Err(error) => debug!(%error, "a command was not upgraded"),
        }
    });
    let response = handshake.response(REMOTE_COMMAND_V5);
    Ok(response.map(|()| full(Bytes::new())))
}

/// A connection over which the runtime speaks SPDY.
async fn dial(url: &str) -> Result<TokioIo<Upgraded>, Status> {
    let mut headers = HeaderMap::new();
    streaming::spdy_request(&mut headers, &[REMOTE_COMMAND_V4]);
    let answer = send(Method::POST, url, headers).await;
    let mut answer = answer.map_err(|(_, why)| Status::internal(why))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS || !streaming::is_spdy(answer.headers()) {
        let why = format!("unable to upgrade connection: {}", answer.status());
        return Err(Status::internal(why));
    }
    let upgraded = hyper::upgrade::on(&mut answer).await;
    upgraded.map(TokioIo::new).map_err(Status::internal)
}

/// Forwards ports over SPDY over a WebSocket with a runtime that speaks SPDY.
///
/// # Errors
/// Status and text where the runtime does not play along.
pub async fn tunnel(mut request: Request<Incoming>, url: &str) -> Result<Response<Body>, Refusal> {
    let handshake = match Handshake::of(request.method(), request.headers()) {
        Ok(handshake) => handshake,
        Err(refusal) => return Ok(refusal.response().map(full)),
    };
    let mut headers = request.headers().clone();
    streaming::spdy_request(&mut headers, &websocket::tunnelled(request.headers()));
    let mut answer = send(Method::POST, url, headers).await?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(passed_on(answer));
    }
    if !streaming::is_spdy(answer.headers()) {
        let why = "unable to upgrade: missing upgrade headers in response";
        return Err((StatusCode::INTERNAL_SERVER_ERROR, why.into()));
    }
    let response = handshake.response(&tunnel::protocol(answer.headers()));
    let client = hyper::upgrade::on(&mut request);
    let runtime = hyper::upgrade::on(&mut answer);
    tokio::spawn(async move {
        match futures::try_join!(client, runtime) {
            Ok((client, runtime)) => {
                let client = websocket::server(TokioIo::new(client)).await;
                let ended = tunnel::tunnel(client, TokioIo::new(runtime)).await;
                debug!(?ended, "a tunnel has ended");
            }
            Err(error) => debug!(%error, "a tunnel was not upgraded"),
        }
    });
    Ok(response.map(|()| full(Bytes::new())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams() {
        let parse = |query: &[(&str, &str)]| {
            Streams::parse(
                &query
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect::<Vec<_>>(),
            )
        };
        let all = parse(&[
            ("input", "1"),
            ("output", "1"),
            ("error", "1"),
            ("tty", "1"),
        ])
        .unwrap();
        assert_eq!(
            all,
            Streams {
                stdin: true,
                stdout: true,
                stderr: false,
                tty: true
            }
        );
        assert!(parse(&[("tty", "1")]).is_err());
        assert!(parse(&[("output", "true")]).is_err());
    }
}
