//! The protocols of `exec`, `attach` and `portforward` where somebody has to speak them:
//! WebSockets towards clients, SPDY/3.1 towards container runtimes and older kubelets.
//!
//! A client that begins with a WebSocket (`v5.channel.k8s.io`, `SPDY/3.1+portforward.k8s.io`;
//! KEP-4006) may be served by a runtime that knows SPDY only. Whoever is the last to know
//! WebSockets translates: the kubelet, or the API server for kubelets that do not say that
//! they can. Where both ends speak the same, bytes are passed on and none of this is needed.
//!
//! What must not be here: how the other side is found and reached.

pub mod spdy;
pub mod translate;
pub mod tunnel;
pub mod websocket;

use std::io;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
pub use tokio_tungstenite::WebSocketStream;
pub use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::Utf8Bytes};

/// The protocol that the translator serves; it can tell that a stream has ended.
pub const REMOTE_COMMAND_V5: &str = "v5.channel.k8s.io";
/// What it speaks on the other side.
pub const REMOTE_COMMAND_V4: &str = "v4.channel.k8s.io";
/// Says which of a protocol's versions are spoken over SPDY.
pub const PROTOCOL_VERSION: &str = "x-stream-protocol-version";
/// As `Upgrade` names it.
pub const SPDY: &str = "SPDY/3.1";

/// The frame that ends a WebSocket in peace.
pub fn goodbye() -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: Utf8Bytes::from_static(""),
    }))
}

/// How long a client may take to agree that a WebSocket ends.
const PARTING: Duration = Duration::from_secs(2);

/// Says goodbye, and waits for the client to have heard it: a connection that is closed over
/// what was not read yet may lose what was sent last.
pub(crate) async fn part<C>(mut client: WebSocketStream<C>)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let parted = async {
        if client.send(goodbye()).await.is_ok() {
            while let Some(Ok(_)) = client.next().await {}
        }
    };
    if tokio::time::timeout(PARTING, parted).await.is_err() {
        tracing::debug!("a client did not say goodbye");
    }
    let _ = client.get_mut().shutdown().await;
}

/// Sends messages until they end or the client leaves. What the client says is ignored.
///
/// # Errors
/// The connection broke.
pub async fn send<C>(
    client: WebSocketStream<C>,
    messages: impl Stream<Item = Message>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let (mut to_client, mut from_client) = client.split();
    let outward = async {
        let mut messages = std::pin::pin!(messages);
        while let Some(message) = messages.next().await {
            to_client.send(message).await?;
        }
        Ok(())
    };
    let inward = async {
        while let Some(message) = from_client.next().await {
            if message?.is_close() {
                break;
            }
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = outward => ended,
        ended = inward => ended,
    };
    part(whole(to_client, from_client)).await;
    ended.map_err(websocket::io_error)
}

/// A WebSocket of its halves.
pub(crate) fn whole<C>(
    to: SplitSink<WebSocketStream<C>, Message>,
    from: SplitStream<WebSocketStream<C>>,
) -> WebSocketStream<C>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    to.reunite(from).expect("both halves are of one")
}

/// The headers of a request for SPDY, with the protocols that may be spoken over it.
pub fn spdy_request(headers: &mut http::HeaderMap, protocols: &[&str]) {
    use http::{HeaderValue, header};
    for name in [
        header::SEC_WEBSOCKET_PROTOCOL,
        header::SEC_WEBSOCKET_KEY,
        header::SEC_WEBSOCKET_VERSION,
        header::SEC_WEBSOCKET_EXTENSIONS,
    ] {
        headers.remove(name);
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(SPDY));
    headers.remove(PROTOCOL_VERSION);
    for protocol in protocols {
        if let Ok(protocol) = HeaderValue::from_str(protocol) {
            headers.append(PROTOCOL_VERSION, protocol);
        }
    }
}

/// Whether an answer with status 101 is what was asked for with [`spdy_request`].
pub fn is_spdy(headers: &http::HeaderMap) -> bool {
    let has = |name, word: &str| {
        let value = headers.get(name).and_then(|v| v.to_str().ok());
        value.is_some_and(|v| v.to_ascii_lowercase().contains(word))
    };
    has(http::header::CONNECTION, "upgrade") && has(http::header::UPGRADE, "spdy/3.1")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn a_request_for_a_websocket_becomes_one_for_spdy() {
        let mut headers = HeaderMap::new();
        headers.insert("upgrade", HeaderValue::from_static("websocket"));
        headers.insert("sec-websocket-key", HeaderValue::from_static("x"));
        headers.insert("user-agent", HeaderValue::from_static("kubectl"));
        assert!(!is_spdy(&headers));
        spdy_request(&mut headers, &["portforward.k8s.io"]);
        assert!(is_spdy(&headers));
        assert!(!headers.contains_key("sec-websocket-key"));
        assert_eq!(headers["user-agent"], "kubectl");
        assert_eq!(headers[PROTOCOL_VERSION], "portforward.k8s.io");
    }
}
