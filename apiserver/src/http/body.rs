//! Response bodies and the headers every answer has.
//!
//! What must not be here: encoding of objects.

use std::convert::Infallible;
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use component::aside::{LONG, TURN, aside, give_way};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use meta::Status;

use super::negotiate::{self, Media};

/// Whatever ends a body early.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Answers shorter than this are not worth compressing.
const GZIP_THRESHOLD: usize = 128 * 1024;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never: Infallible| match never {})
        .boxed_unsync()
}

pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body that is written as it comes.
pub fn stream(chunks: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Body {
    // Frames without anything in them are an attack to some who look out for one.
    let nothing = |chunk: &Result<Bytes, BoxError>| chunk.as_ref().is_ok_and(Bytes::is_empty);
    let frames = GivesWay::new(Box::pin(chunks), nothing).map_ok(Frame::data);
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// An answer in one piece, compressed when that pays and the client takes it.
pub fn bytes(
    status: StatusCode,
    content_type: &str,
    body: Bytes,
    request: &HeaderMap,
) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, value(content_type));
    compressed(response.map(|_| body), request, GZIP_THRESHOLD)
}

/// The answer, compressed if it is larger than `threshold` and the client takes it.
pub fn compressed(
    mut response: Response<Bytes>,
    request: &HeaderMap,
    threshold: usize,
) -> Response<Body> {
    if response.body().len() <= threshold || !negotiate::accepts_gzip(request) {
        return response.map(full);
    }
    say_gzip(response.headers_mut());
    response.map(|body| full(aside(body.len() > LONG, || gzip(&body))))
}

/// What takes a while to make, in parts, with turns of the others in between.
pub struct GivesWay<S: Stream> {
    parts: S,
    /// Parts that are not worth telling of.
    nothing: fn(&S::Item) -> bool,
    /// How long parts have been made since others had their turn.
    busy: Duration,
}

impl<S: Stream> GivesWay<S> {
    pub fn new(parts: S, nothing: fn(&S::Item) -> bool) -> Self {
        Self {
            parts,
            nothing,
            busy: Duration::ZERO,
        }
    }
}

impl<S: Stream + Unpin> Stream for GivesWay<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.get_mut();
        loop {
            if this.busy >= TURN {
                this.busy = Duration::ZERO;
                return give_way(cx);
            }
            let began = Instant::now();
            let polled = this.parts.poll_next_unpin(cx);
            this.busy = match &polled {
                Poll::Ready(_) => this.busy + began.elapsed(),
                Poll::Pending => Duration::ZERO,
            };
            match polled {
                Poll::Ready(Some(part)) if (this.nothing)(&part) => {}
                polled => return polled,
            }
        }
    }
}

/// A long answer, sent as it is made. `gzip`: that is how its pieces are.
pub fn pieces(
    content_type: &str,
    pieces: impl Iterator<Item = Result<Bytes, BoxError>> + Send + 'static,
    gzip: bool,
) -> Response<Body> {
    let mut response = Response::new(stream(futures::stream::iter(pieces)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, value(content_type));
    if gzip {
        say_gzip(headers);
    }
    response
}

fn say_gzip(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

fn gzip(body: &[u8]) -> Bytes {
    // The fastest level, as upstream's: the network is seldom what is slow.
    let mut encoder = flate2::write::GzEncoder::new(
        Vec::with_capacity(body.len() / 4),
        flate2::Compression::fast(),
    );
    encoder
        .write_all(body)
        .and_then(|()| encoder.finish())
        .expect("writing to memory cannot fail")
        .into()
}

pub fn text(status: StatusCode, body: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// What a request is answered that took too long: upstream's filter writes the status itself, as
/// text whatever the client accepts, and does not say of which kind it is.
pub fn out_of_time() -> Response<Body> {
    const STATUS: &str = concat!(
        r#"{"metadata":{},"status":"Failure","#,
        r#""message":"Timeout: request did not complete within the allotted timeout","#,
        r#""reason":"Timeout","details":{},"code":504}"#,
        "\n"
    );
    let mut response = text(StatusCode::GATEWAY_TIMEOUT, STATUS);
    response
        .headers_mut()
        .remove(header::X_CONTENT_TYPE_OPTIONS);
    response
}

/// What a path that nobody serves is answered with.
pub fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// A `Status` in the form that the client negotiated, JSON when that is none.
pub fn status(status: &Status, request: &HeaderMap, pretty: bool) -> Response<Body> {
    let accept = negotiate::header(request, header::ACCEPT);
    // A refusal that a client takes in no form is shown in the one that people read.
    let (media, pretty) = negotiate::accept(accept, |_, convert| convert.is_none())
        .map_or((Media::Json, pretty || !status.success), |a| {
            (a.media, pretty)
        });
    let code = match status.code {
        0 => StatusCode::OK,
        _ => status.http_status(),
    };
    let value = serde_json::to_value(status).expect("a Status is JSON");
    let encoded = super::encode::tree("v1", "Status", &value, media, pretty);
    let mut response = match encoded {
        Ok(body) => bytes(code, media.name(), body, request),
        Err(e) => text(code, format!("{}: {} ({e})", status.reason, status.message)),
    };
    if let Some(seconds) = status.suggests_client_delay().filter(|s| *s > 0) {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A header value; what cannot be one becomes empty.
pub fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refusals_that_no_form_is_taken_of_are_for_people() {
        let mut request = HeaderMap::new();
        let accept = HeaderValue::from_static("application/json;as=Table;g=meta.k8s.io;v=v1");
        request.insert(header::ACCEPT, accept);
        let text = |shown: Response<Body>| async {
            let body = shown.into_body().collect().await.unwrap();
            String::from_utf8(body.to_bytes().to_vec()).unwrap()
        };
        let refused = status(&Status::path_not_found(), &request, false);
        assert!(text(refused).await.starts_with("{\n  \"kind\""));
        let done = status(&Status::success(), &request, false);
        assert!(text(done).await.starts_with("{\"kind\""));
    }

    #[tokio::test]
    async fn a_request_out_of_time_is_answered_in_text() {
        let response = out_of_time();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        let headers = response.headers();
        assert_eq!(headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(headers.len(), 1);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (body.last(), &status["code"], status.get("kind")),
            (Some(&b'\n'), &serde_json::json!(504), None)
        );
    }

    #[test]
    fn long_answers_are_compressed_for_who_takes_it() {
        let mut request = HeaderMap::new();
        let long = Bytes::from(vec![b'a'; GZIP_THRESHOLD + 1]);
        let plain = bytes(StatusCode::OK, "application/json", long.clone(), &request);
        assert!(plain.headers().get(header::CONTENT_ENCODING).is_none());
        request.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let packed = bytes(StatusCode::OK, "application/json", long, &request);
        assert_eq!(packed.headers()[header::CONTENT_ENCODING], "gzip");
        let short = bytes(StatusCode::OK, "application/json", Bytes::new(), &request);
        assert!(short.headers().get(header::CONTENT_ENCODING).is_none());
    }
}
