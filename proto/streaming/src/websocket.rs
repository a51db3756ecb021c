//! The server's half of a WebSocket's handshake (RFC 6455, 4.2), over requests that were read
//! already.
//!
//! What must not be here: what the messages mean.

use std::io;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Why a request does not become a WebSocket. What it says is what upstream's answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("bad method")]
    Method,
    #[error("not websocket protocol")]
    NotWebSocket,
    #[error("mismatch challenge/response")]
    Key,
    #[error("missing or bad WebSocket Version")]
    Version,
    /// Several protocols are offered where none is chosen.
    #[error("")]
    Ambiguous,
    /// None of the protocols that are offered is spoken, or the request has no origin.
    #[error("")]
    Forbidden,
}

impl Refusal {
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::Method => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::Forbidden => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    pub fn response(self) -> Response<String> {
        let mut response = Response::new(self.to_string());
        *response.status_mut() = self.status();
        if self == Refusal::Version {
            let known = HeaderValue::from_static("13");
            response
                .headers_mut()
                .insert(header::SEC_WEBSOCKET_VERSION, known);
        }
        response
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    let value = headers.get(name).and_then(|v| v.to_str().ok());
    value.unwrap_or_default().trim()
}

/// Whether a request wants to become a WebSocket.
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    text(headers, header::UPGRADE).eq_ignore_ascii_case("websocket")
        && text(headers, header::CONNECTION)
            .to_ascii_lowercase()
            .contains("upgrade")
}

/// The protocols that a client offers, the one it likes most first.
pub fn protocols(headers: &HeaderMap) -> Vec<&str> {
    let offered = text(headers, header::SEC_WEBSOCKET_PROTOCOL);
    match offered {
        "" => Vec::new(),
        offered => offered.split(',').map(str::trim).collect(),
    }
}

/// Whether a remote command is to be translated: its client wants to say that a stream ended.
pub fn wants_stream_close(headers: &HeaderMap) -> bool {
    is_asked_for(headers) && protocols(headers).contains(&super::REMOTE_COMMAND_V5)
}

/// The protocols over SPDY that a client wants to tunnel.
pub fn tunnelled(headers: &HeaderMap) -> Vec<&str> {
    if !is_asked_for(headers) {
        return Vec::new();
    }
    let protocols = protocols(headers).into_iter();
    protocols
        .filter(|protocol| protocol.ends_with(".k8s.io"))
        .filter_map(|protocol| protocol.strip_prefix("SPDY/3.1+"))
        .collect()
}

/// A request that may become a WebSocket.
#[derive(Debug, Clone)]
pub struct Handshake {
    key: String,
}

impl Handshake {
    /// # Errors
    /// It may not.
    pub fn of(method: &Method, headers: &HeaderMap) -> Result<Handshake, Refusal> {
        if method != Method::GET {
            return Err(Refusal::Method);
        }
        if !is_asked_for(headers) {
            return Err(Refusal::NotWebSocket);
        }
        let key = text(headers, header::SEC_WEBSOCKET_KEY);
        if key.is_empty() {
            return Err(Refusal::Key);
        }
        if text(headers, header::SEC_WEBSOCKET_VERSION) != "13" {
            return Err(Refusal::Version);
        }
        let key = key.to_owned();
        Ok(Handshake { key })
    }

    /// The answer after which the connection is a WebSocket.
    pub fn response(&self, protocol: &str) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let accept = derive_accept_key(self.key.as_bytes());
        for (name, value) in [
            (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
            (header::SEC_WEBSOCKET_PROTOCOL, protocol),
        ] {
            if let Ok(value) = HeaderValue::from_str(value)
                && !value.is_empty()
            {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// The first protocol that the client offers and `spoken` has. A client that offers none gets
/// the one without a name.
///
/// # Errors
/// None is spoken.
pub fn choose<'a>(headers: &'a HeaderMap, spoken: &[&str]) -> Result<&'a str, Refusal> {
    let offered = protocols(headers);
    let offered = if offered.is_empty() {
        vec![""]
    } else {
        offered
    };
    let found = offered.into_iter().find(|p| spoken.contains(p));
    found.ok_or(Refusal::Forbidden)
}

/// The WebSocket that an upgraded connection is.
pub async fn server<S>(connection: S) -> WebSocketStream<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // What is written goes out at once: somebody sits at a terminal.
    let config = WebSocketConfig::default().write_buffer_size(0);
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// What a WebSocket's end is to somebody who reads bytes.
pub(crate) fn io_error(error: tokio_tungstenite::tungstenite::Error) -> io::Error {
    match error {
        tokio_tungstenite::tungstenite::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs
            .map(|(k, v)| {
                (
                    header::HeaderName::from_static(k),
                    HeaderValue::from_str(v).unwrap(),
                )
            })
            .collect()
    }

    fn asked(protocol: &str) -> HeaderMap {
        headers(&[
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", protocol),
        ])
    }

    #[test]
    fn the_key_of_the_rfc_is_answered() {
        let handshake = Handshake::of(&Method::GET, &asked("a")).unwrap();
        let response = handshake.response("a");
        assert_eq!(
            response.headers()["sec-websocket-accept"],
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        assert_eq!(response.headers()["sec-websocket-protocol"], "a");
        let without = handshake.response("");
        assert!(!without.headers().contains_key("sec-websocket-protocol"));
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        let of = |method: Method, headers: &HeaderMap| Handshake::of(&method, headers).err();
        assert_eq!(of(Method::POST, &asked("")), Some(Refusal::Method));
        assert_eq!(
            of(Method::GET, &HeaderMap::new()),
            Some(Refusal::NotWebSocket)
        );
        let mut old = asked("");
        old.insert("sec-websocket-version", HeaderValue::from_static("8"));
        assert_eq!(of(Method::GET, &old), Some(Refusal::Version));
        assert_eq!(
            Refusal::Version.response().headers()["sec-websocket-version"],
            "13"
        );
    }

    #[test]
    fn protocols_are_chosen_in_the_clients_order() {
        let both = asked("x, base64.binary.k8s.io,binary.k8s.io");
        let spoken = ["", "binary.k8s.io", "base64.binary.k8s.io"];
        assert_eq!(choose(&both, &spoken), Ok("base64.binary.k8s.io"));
        assert_eq!(choose(&asked("x"), &spoken), Err(Refusal::Forbidden));
        assert_eq!(choose(&asked(""), &spoken), Ok(""));
    }

    #[test]
    fn what_is_translated_is_told_from_what_is_passed_on() {
        assert!(wants_stream_close(&asked(
            "v4.channel.k8s.io, v5.channel.k8s.io"
        )));
        assert!(!wants_stream_close(&asked("v4.channel.k8s.io")));
        assert_eq!(
            tunnelled(&asked("SPDY/3.1+portforward.k8s.io, v4.channel.k8s.io")),
            ["portforward.k8s.io"]
        );
        assert!(tunnelled(&headers(&[("upgrade", "SPDY/3.1")])).is_empty());
    }
}
