//! exec, attach and port-forward: the caller's upgraded connection is joined to the runtime's
//! streaming server, byte for byte, where both know the protocol. What comes over a WebSocket
//! that runtimes do not know is translated.

use bytes::Bytes;
use component::serving::{Body, full};
use grpc::cri;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use meta::Status;
use streaming::websocket::{self, Handshake};
use streaming::{REMOTE_COMMAND_V4, REMOTE_COMMAND_V5, translate, tunnel};
use tokio::net::TcpStream;
use tracing::debug;

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
            query
                .iter()
                .any(|(key, value)| key == name && (value == "1" || value == "true"))
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

type Refusal = (StatusCode, String);

fn bad_gateway(error: impl std::fmt::Display) -> Refusal {
    (
        StatusCode::BAD_GATEWAY,
        format!("error dialing backend: {error}"),
    )
}

/// Sends a request to the runtime's `url` over a connection of its own.
async fn send(
    method: Method,
    url: &str,
    mut headers: HeaderMap,
) -> Result<Response<Incoming>, Refusal> {
    let url: Uri = url.parse().map_err(bad_gateway)?;
    let authority = url
        .authority()
        .ok_or_else(|| bad_gateway("the runtime's URL has no host"))?;
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80)))
        .await
        .map_err(bad_gateway)?;
    // Terminals send single keys.
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(bad_gateway)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "the connection to the runtime's streaming server");
        }
    });
    headers.remove(http::header::AUTHORIZATION);
    headers.insert(HOST, authority.as_str().parse().map_err(bad_gateway)?);
    headers.insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = Request::new(Empty::<Bytes>::new());
    *onward.method_mut() = method;
    *onward.uri_mut() = path.parse().map_err(bad_gateway)?;
    *onward.headers_mut() = headers;
    sender.send_request(onward).await.map_err(bad_gateway)
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
        return Err((StatusCode::BAD_REQUEST, "Upgrade request required".into()));
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
    }
}
