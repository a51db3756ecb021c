//! One request on its way through the server.
//!
//! What must not be here: what is done with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use component::aside::LONG;
use http::{HeaderMap, Method, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use meta::Status;

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
    pub warnings: Arc<Warnings>,
    /// The other end of the connection.
    pub peer: std::net::IpAddr,
    /// Taken once.
    pub body: Option<Incoming>,
    /// How long the body was, once it has been read.
    pub body_size: Option<usize>,
    /// For requests that turn the connection into a tunnel.
    pub upgrade: Option<OnUpgrade>,
}

/// Longer queries, in bytes, have selectors of very many terms.
const LONG_QUERY: usize = 2 << 10;

impl RequestContext {
    /// Whether the request itself is much to read: its body, which may leave open how large it
    /// is, or its query.
    pub fn is_long(&self) -> bool {
        let most = |body: &Incoming| body.size_hint().upper();
        let body = self.body.as_ref();
        body.is_some_and(|body| most(body).is_none_or(|most| most > LONG as u64))
            || self
                .uri
                .query()
                .is_some_and(|query| query.len() > LONG_QUERY)
    }

    /// The whole body. 413 beyond [`MAX_BODY`].
    pub async fn read_body(&mut self) -> Result<Bytes, Status> {
        let Some(mut body) = self.body.take() else {
            return Ok(Bytes::new());
        };
        match Limited::new(&mut body, MAX_BODY).collect().await {
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
/// closes, the answer is lost.
async fn drain(mut body: Incoming) {
    const MOST: usize = 64 << 20;
    const PATIENCE: Duration = Duration::from_secs(2);
    let all = async {
        let mut read = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read += frame.data_ref().map_or(0, |data| data.len());
            if read > MOST {
                return;
            }
        }
    };
    // Who is slower than that waits for no answer.
    let _ = tokio::time::timeout(PATIENCE, all).await;
}
