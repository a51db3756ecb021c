//! exec, attach and port-forward: the caller's upgraded connection is joined to the runtime's
//! streaming server, byte for byte. What protocol the two speak is their own affair.

use bytes::Bytes;
use component::serving::{Body, full};
use grpc::cri;
use http::header::{CONNECTION, HOST, UPGRADE};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
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

/// Sends the request on to `url`, and joins the two connections once both are upgraded.
///
/// # Errors
/// Status and text where the runtime does not play along.
pub async fn join(
    mut request: Request<Incoming>,
    url: &str,
) -> Result<Response<Body>, (StatusCode, String)> {
    let bad_gateway = |error: &dyn std::fmt::Display| {
        (
            StatusCode::BAD_GATEWAY,
            format!("error dialing backend: {error}"),
        )
    };
    let upgrade = request.headers().get(UPGRADE).cloned();
    if upgrade.is_none() {
        return Err((StatusCode::BAD_REQUEST, "Upgrade request required".into()));
    }
    let url: Uri = url.parse().map_err(|error| bad_gateway(&error))?;
    let authority = url
        .authority()
        .ok_or_else(|| bad_gateway(&"the runtime's URL has no host"))?
        .clone();
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80)))
        .await
        .map_err(|error| bad_gateway(&error))?;
    // Terminals send single keys.
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| bad_gateway(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "the connection to the runtime's streaming server");
        }
    });

    let path = url
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let mut onward = Request::builder()
        .method(request.method().clone())
        .uri(path);
    if let Some(headers) = onward.headers_mut() {
        headers.clone_from(request.headers());
        headers.remove(http::header::AUTHORIZATION);
        headers.insert(
            HOST,
            authority
                .as_str()
                .parse()
                .map_err(|error| bad_gateway(&error))?,
        );
        headers.insert(CONNECTION, http::HeaderValue::from_static("Upgrade"));
    }
    let onward = onward
        .body(Empty::<Bytes>::new())
        .map_err(|error| bad_gateway(&error))?;
    let mut answer = sender
        .send_request(onward)
        .await
        .map_err(|error| bad_gateway(&error))?;

    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = answer.into_parts();
        let body = body.map_err(|error| error.into()).boxed_unsync();
        return Ok(Response::from_parts(parts, body));
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
