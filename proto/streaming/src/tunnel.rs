//! A WebSocket whose binary messages are the bytes of a SPDY connection
//! (`SPDY/3.1+portforward.k8s.io`, KEP-4006).
//!
//! What must not be here: what the bytes mean.

use std::io;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::websocket::io_error;

/// The most that one message carries, in bytes.
const PIECE: usize = 32 * 1024;

/// The protocol that stands for what was chosen over SPDY, for [`Handshake::response`].
///
/// [`Handshake::response`]: crate::websocket::Handshake::response
pub fn protocol(answer: &HeaderMap) -> String {
    let chosen = answer.get(crate::PROTOCOL_VERSION);
    match chosen.and_then(|c| c.to_str().ok()).map(str::trim) {
        None | Some("") => String::new(),
        Some(chosen) => format!("{}+{chosen}", crate::SPDY),
    }
}

/// Carries bytes both ways until one side ends.
///
/// # Errors
/// A connection broke, or the client sent text.
pub async fn tunnel<C, B>(client: WebSocketStream<C>, backend: B) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite,
{
    let (mut to_client, mut from_client) = client.split();
    let (mut from_backend, mut to_backend) = tokio::io::split(backend);
    let inward = async {
        while let Some(message) = from_client.next().await {
            match message.map_err(io_error)? {
                Message::Binary(bytes) => {
                    to_backend.write_all(&bytes).await?;
                    to_backend.flush().await?;
                }
                Message::Close(_) => break,
                Message::Text(_) => return Err(io::Error::other("invalid message type received")),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(())
    };
    let outward = async {
        let mut read = BytesMut::new();
        loop {
            read.reserve(PIECE);
            if from_backend.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            let bytes: Bytes = read.split().freeze();
            let sent = to_client.send(Message::Binary(bytes)).await;
            sent.map_err(io_error)?;
        }
    };
    let ended = tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    };
    // What is left to say to who is gone makes no difference.
    let _ = to_backend.shutdown().await;
    crate::part(crate::whole(to_client, from_client)).await;
    ended
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::{goodbye, websocket};

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_is_told() {
        let (near, far) = tokio::io::duplex(1024);
        let (backend, mut runtime) = tokio::io::duplex(1024);
        let served =
            tokio::spawn(async move { tunnel(websocket::server(far).await, backend).await });
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let message = |bytes: &'static [u8]| Message::Binary(Bytes::from_static(bytes));
        client.send(message(b"ab")).await.unwrap();
        client.send(message(b"cd")).await.unwrap();
        let mut read = [0; 4];
        runtime.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"abcd");
        runtime.write_all(b"xyz").await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap(), message(b"xyz"));
        drop(runtime);
        assert_eq!(client.next().await.unwrap().unwrap(), goodbye());
        drop(client);
        served.await.unwrap().unwrap();
    }
}
