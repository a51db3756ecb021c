//! Requests that become WebSockets: watches and logs for clients that can read nothing else
//! (browsers), and the task behind every connection that was upgraded.
//!
//! What must not be here: the protocols of remote commands (`proto/streaming`).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, Response, Uri};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use streaming::Message;
use streaming::websocket::{self, Handshake, Refusal};

use tokio_util::sync::CancellationToken;

use super::body::{self, Body};
use super::context::RequestContext;

pub use streaming::websocket::is_asked_for;

/// Marks an answer whose connection goes on after it: cancelled when that has ended.
#[derive(Clone)]
pub struct Lasts(pub CancellationToken);

/// Runs what the upgraded connection is for, and says with the answer how long that lasts.
pub fn upgraded(
    mut response: Response<Body>,
    session: impl Future<Output = ()> + Send + 'static,
) -> Response<Body> {
    let ended = CancellationToken::new();
    response.extensions_mut().insert(Lasts(ended.clone()));
    let guard = ended.drop_guard();
    tokio::spawn(async move {
        session.await;
        drop(guard);
    });
    response
}

fn refused(refusal: Refusal) -> Response<Body> {
    refusal.response().map(body::full)
}

/// The protocol of a watch is whatever one the client names. Pages of other sites are told
/// apart by their origin, so there must be one.
fn of_watch(headers: &HeaderMap) -> Result<&str, Refusal> {
    let origin = headers.get(http::header::ORIGIN);
    let origin = origin.and_then(|o| o.to_str().ok()).unwrap_or_default();
    let is_url = origin.starts_with('/')
        || origin
            .parse::<Uri>()
            .is_ok_and(|origin| origin.scheme().is_some());
    if !is_url {
        return Err(Refusal::Forbidden);
    }
    match websocket::protocols(headers).as_slice() {
        [] => Ok(""),
        [one] => Ok(one),
        _ => Err(Refusal::Ambiguous),
    }
}

/// Answers a watch whose events are messages.
pub fn watch(
    request: &mut RequestContext,
    events: impl Stream<Item = Message> + Send + 'static,
) -> Response<Body> {
    match of_watch(&request.headers) {
        Ok(protocol) => {
            let protocol = protocol.to_owned();
            send(request, &protocol, events)
        }
        Err(refusal) => refused(refusal),
    }
}

const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

/// Answers with bytes as they come (`binary.k8s.io`), after an empty message that says that
/// the connection stands.
pub fn read(request: &mut RequestContext, bytes: Body) -> Response<Body> {
    let protocol = match websocket::choose(&request.headers, &["", BINARY, BASE64]) {
        Ok(protocol) => protocol.to_owned(),
        Err(refusal) => return refused(refusal),
    };
    let as_text = protocol == BASE64;
    let message = move |bytes: Bytes| match as_text {
        true => Message::Text(STANDARD.encode(bytes).into()),
        false => Message::Binary(bytes),
    };
    let pieces = bytes.into_data_stream();
    // What breaks off ends; there is no way to say more.
    let pieces = pieces
        .take_while(|piece| std::future::ready(piece.is_ok()))
        .filter_map(|piece| std::future::ready(piece.ok()));
    let empty = futures::stream::iter([Bytes::new()]);
    send(request, &protocol, empty.chain(pieces).map(message))
}

/// Sends the messages until they end or the client leaves.
fn send(
    request: &mut RequestContext,
    protocol: &str,
    messages: impl Stream<Item = Message> + Send + 'static,
) -> Response<Body> {
    let handshake = match Handshake::of(&request.method, &request.headers) {
        Ok(handshake) => handshake,
        Err(refusal) => return refused(refusal),
    };
    let Some(upgrade) = request.upgrade.take() else {
        return refused(Refusal::NotWebSocket);
    };
    let path: Arc<str> = request.info.path.as_str().into();
    let session = async move {
        let connection = match upgrade.await {
            Ok(connection) => connection,
            Err(error) => return tracing::debug!(%path, %error, "no WebSocket came of a request"),
        };
        let client = websocket::server(TokioIo::new(connection)).await;
        if let Err(error) = streaming::send(client, messages).await {
            tracing::debug!(%path, %error, "a WebSocket broke");
        }
    };
    let response = handshake.response(protocol).map(|()| body::empty());
    upgraded(response, session)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header};

    use super::*;

    #[test]
    fn watches_need_an_origin_and_no_choice() {
        let mut headers = HeaderMap::new();
        assert_eq!(of_watch(&headers), Err(Refusal::Forbidden));
        headers.insert(header::ORIGIN, HeaderValue::from_static("null"));
        assert_eq!(of_watch(&headers), Err(Refusal::Forbidden));
        headers.insert(header::ORIGIN, HeaderValue::from_static("https://a"));
        assert_eq!(of_watch(&headers), Ok(""));
        let protocol = header::SEC_WEBSOCKET_PROTOCOL;
        headers.insert(&protocol, HeaderValue::from_static("x"));
        assert_eq!(of_watch(&headers), Ok("x"));
        headers.insert(&protocol, HeaderValue::from_static("x, y"));
        assert_eq!(of_watch(&headers), Err(Refusal::Ambiguous));
    }
}
