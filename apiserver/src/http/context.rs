//! One request on its way through the server.
//!
//! What must not be here: what is done with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, Version, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use meta::Status;
use tokio_util::sync::CancellationToken;

use super::negotiate::Media;
use super::query::Query;
use super::request_info::RequestInfo;
use crate::authn::User;
use crate::registry::store::Warnings;

/// The largest body that is read, in bytes.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// A request that has passed authentication and authorization.
pub struct RequestContext {
    pub info: RequestInfo,
    pub method: Method,
    pub uri: Uri,
    pub query: Query,
    pub headers: HeaderMap,
    pub user: Arc<User>,
    /// Whether nobody has been authenticated.
    pub of_nobody: bool,
    pub warnings: Arc<Warnings>,
    /// The other end of the connection.
    pub peer: std::net::IpAddr,
    /// Taken once.
    pub body: Option<Incoming>,
    /// What was read of the body before anybody asked for it.
    pub read_ahead: Option<Result<Bytes, Status>>,
    /// How long the body was, once it has been read.
    pub body_size: Option<usize>,
    /// For requests that turn the connection into a tunnel.
    pub upgrade: Option<OnUpgrade>,
    /// Whether somebody works on it elsewhere, and has the body ([`RequestContext::hand_over`]).
    pub away: bool,
    /// Cancelled when nobody waits for the answer any more.
    pub left_alone: CancellationToken,
}

/// Longer queries, in bytes, have selectors of very many terms.
const LONG_QUERY: usize = 2 << 10;

/// Whether a content type is one of YAML's, such as that of server-side apply.
fn is_yaml(name: &[u8]) -> bool {
    let mut parts = name.windows(b"yaml".len());
    parts.any(|part| part.eq_ignore_ascii_case(b"yaml"))
}

impl RequestContext {
    /// Whether the request itself is much to work on. A body that is large, or does not say how
    /// large it is, is read now: to wait for it is no work.
    pub async fn is_long(&mut self) -> bool {
        let media = match self.headers.get(header::CONTENT_TYPE) {
            Some(name) if is_yaml(name.as_bytes()) => Media::Yaml,
            _ => Media::Json,
        };
        let long = media.long();
        let most = self.body.as_ref().map(|body| body.size_hint().upper());
        if most.is_some_and(|most| most.is_none_or(|most| most > long as u64)) {
            self.read_ahead = Some(self.read_body().await);
        }
        let query = self.uri.query().unwrap_or_default();
        self.body_size.is_some_and(|size| size > long) || query.len() > LONG_QUERY
    }

    /// The request for whoever works on it, with its body. What says what it asks stays here too,
    /// for whoever waits and may not wait to the end.
    pub fn hand_over(&mut self) -> Self {
        Self {
            info: self.info.clone(),
            method: self.method.clone(),
            uri: self.uri.clone(),
            query: self.query.clone(),
            headers: self.headers.clone(),
            user: self.user.clone(),
            of_nobody: self.of_nobody,
            warnings: self.warnings.clone(),
            peer: self.peer,
            body: self.body.take(),
            read_ahead: self.read_ahead.take(),
            body_size: self.body_size,
            upgrade: self.upgrade.take(),
            away: std::mem::replace(&mut self.away, true),
            left_alone: self.left_alone.clone(),
        }
    }

    /// The whole body. 413 beyond [`MAX_BODY`].
    pub async fn read_body(&mut self) -> Result<Bytes, Status> {
        if let Some(read) = self.read_ahead.take() {
            return read;
        }
        let Some(mut body) = self.body.take() else {
            return Ok(Bytes::new());
        };
        let all = Limited::new(&mut body, MAX_BODY).collect();
        // Nothing has been begun yet.
        let all = self.left_alone.run_until_cancelled(all).await;
        let Some(all) = all else {
            return Err(Status::timeout("nobody waits for the answer", 0));
        };
        match all {
            Ok(collected) => {
                let bytes = collected.to_bytes();
                self.body_size = Some(bytes.len());
                Ok(bytes)
            }
            Err(e) if e.is::<LengthLimitError>() => {
                drain(body).await;
                Err(Status::request_entity_too_large(format!(
                    "limit is {MAX_BODY}"
                )))
            }
            Err(e) => Err(Status::bad_request(e.to_string())),
        }
    }
}

/// Reads on what nobody wants, for a while: to a client that is still writing when the connection
/// closes, or the stream of HTTP/2 (curl 7), the answer is lost.
pub async fn drain(body: Incoming) {
    discard(body, 64 << 20).await;
}

/// Reads on what nobody wants, up to `most` bytes and for a while; whether that was all.
async fn discard(mut body: Incoming, most: u64) -> bool {
    const PATIENCE: Duration = Duration::from_secs(2);
    let all = async {
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return false;
            };
            read += frame.data_ref().map_or(0, |data| data.len() as u64);
            if read > most {
                return false;
            }
        }
        true
    };
    // Who is slower than that waits for no answer.
    let all = tokio::time::timeout(PATIENCE, all).await;
    all.unwrap_or(false)
}

impl RequestContext {
    /// Reads what is left of the body, before the answer; whether another request may follow on
    /// the connection.
    pub async fn finish_reading(&mut self, version: Version) -> bool {
        /// More is not worth a connection (Go's net/http).
        const MOST: u64 = 256 << 10;
        if self.away {
            return version == Version::HTTP_2;
        }
        let Some(unread) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return true;
        };
        if version == Version::HTTP_2 {
            drain(unread).await;
            return true;
        }
        // To ask for the body only now would be to invite the client to send it.
        let invited = !self.headers.contains_key(header::EXPECT);
        invited && unread.size_hint().lower() <= MOST && discard(unread, MOST).await
    }
}
