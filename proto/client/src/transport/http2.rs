//! One HTTP/2 connection that carries all requests, watches included. Requests and answers
//! pass between whoever asks and the connection's task, and through no other.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong, RecvStream};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, Uri};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use hyper_util::client::legacy::connect::Connection as _;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tower::ServiceExt as _;

use super::{Connector, PING_INTERVAL, PING_TIMEOUT};

/// What the server may send before it is read: of one answer, and of all together.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;
/// How many requests may be open before the server has said how many it takes.
const STREAMS_AT_FIRST: usize = 100;
/// How often a connection may turn out to be closed before a request is on it.
const ATTEMPTS: usize = 3;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum Http2Error {
    /// Nothing has been sent.
    #[error("client error (Connect)")]
    Connect(#[source] BoxError),
    #[error("client error (SendRequest)")]
    Send(#[source] h2::Error),
}

impl Http2Error {
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect(_))
    }
}

/// What became of a request.
pub enum Sent {
    Answered(Box<Response<Body>>),
    /// The server does not speak HTTP/2; here is the request again.
    NotHttp2(Box<Request<Bytes>>),
}

/// A server, and the connection to it if there is one.
pub struct Http2 {
    connector: Connector,
    server: Uri,
    /// With its number.
    current: Mutex<(u64, Option<SendRequest<Bytes>>)>,
    /// The server has chosen HTTP/1.1.
    http1: AtomicBool,
}

impl Http2 {
    /// Connects on first use. `server` has scheme and authority.
    pub fn new(connector: Connector, server: Uri) -> Self {
        Self {
            connector,
            server,
            current: Mutex::new((0, None)),
            http1: AtomicBool::new(false),
        }
    }

    /// Sends a request with an absolute URI and waits for the head of the answer.
    pub async fn send(&self, mut request: Request<Bytes>) -> Result<Sent, Http2Error> {
        if self.http1.load(Ordering::Relaxed) {
            return Ok(Sent::NotHttp2(Box::new(request)));
        }
        let length = request.body().len();
        let has_content = matches!(
            *request.method(),
            Method::POST | Method::PUT | Method::PATCH
        );
        if length > 0 || has_content {
            request.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        for attempt in 1..=ATTEMPTS {
            let Some((number, sender)) = self.connected().await? else {
                return Ok(Sent::NotHttp2(Box::new(request)));
            };
            let opened = match sender.ready().await {
                Ok(mut sender) => sender.send_request(head(&request), length == 0),
                Err(error) => Err(error),
            };
            match opened {
                Ok((answer, mut content)) => {
                    if length > 0 {
                        let sent = content.send_data(request.into_body(), true);
                        sent.map_err(Http2Error::Send)?;
                    }
                    let answer = answer.await.map_err(Http2Error::Send)?;
                    return Ok(Sent::Answered(Box::new(answer.map(Body::Http2))));
                }
                // It is closed, or is being closed: nothing was sent.
                Err(error) => {
                    self.forget(number).await;
                    if attempt == ATTEMPTS {
                        return Err(Http2Error::Send(error));
                    }
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The connection, made if there is none; `None` when the server does not speak HTTP/2.
    async fn connected(&self) -> Result<Option<(u64, SendRequest<Bytes>)>, Http2Error> {
        let mut current = self.current.lock().await;
        if let (number, Some(sender)) = &*current {
            return Ok(Some((*number, sender.clone())));
        }
        // Seldom needed, it is no part of what every request waits with.
        Box::pin(self.connect(&mut current)).await
    }

    async fn connect(
        &self,
        current: &mut (u64, Option<SendRequest<Bytes>>),
    ) -> Result<Option<(u64, SendRequest<Bytes>)>, Http2Error> {
        let connecting = self.connector.clone().oneshot(self.server.clone());
        let stream = connecting.await.map_err(Http2Error::Connect)?;
        if !stream.connected().is_negotiated_h2() {
            self.http1.store(true, Ordering::Relaxed);
            return Ok(None);
        }
        let sender = open(TokioIo::new(stream)).await;
        let sender = sender.map_err(|e| Http2Error::Connect(e.into()))?;
        current.0 += 1;
        current.1 = Some(sender.clone());
        Ok(Some((current.0, sender)))
    }

    /// Has the next request connect anew, unless another one has done so.
    async fn forget(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.0 == number {
            current.1 = None;
        }
    }
}

fn head(request: &Request<Bytes>) -> Request<()> {
    let mut head = Request::new(());
    head.method_mut().clone_from(request.method());
    head.uri_mut().clone_from(request.uri());
    head.headers_mut().clone_from(request.headers());
    head
}

/// Begins HTTP/2 on a stream, and spawns the task that drives it.
async fn open<S>(stream: S) -> Result<SendRequest<Bytes>, h2::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(STREAMS_AT_FIRST)
        .handshake(stream)
        .await?;
    let pings = connection.ping_pong();
    tokio::spawn(async move {
        match pings {
            Some(pings) => drive(connection, pings, PING_INTERVAL, PING_TIMEOUT).await,
            None => drop(connection.await),
        }
    });
    Ok(sender)
}

/// Drives a connection until it ends, or a ping is not answered: that ends what is under way.
async fn drive<S>(
    connection: Connection<S, Bytes>,
    mut pings: PingPong,
    interval: Duration,
    timeout: Duration,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let silence = async {
        loop {
            tokio::time::sleep(interval).await;
            let answered = tokio::time::timeout(timeout, pings.ping(Ping::opaque())).await;
            if !matches!(answered, Ok(Ok(_))) {
                return;
            }
        }
    };
    tokio::select! {
        // Whoever waits for an answer learns of its end.
        _ = connection => {}
        () = silence => tracing::info!("the server does not answer pings, closing the connection"),
    }
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    Http1(Incoming),
    Http2(RecvStream),
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    #[error("error reading a body from connection")]
    Http2(#[source] io::Error),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Http1(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Self::Http2(body) => match ready!(body.poll_data(cx)) {
                None => Poll::Ready(None),
                Some(Ok(data)) => {
                    // It fails only for more than has been received.
                    let _ = body.flow_control().release_capacity(data.len());
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                // The server has said all it wants to.
                Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) => {
                    Poll::Ready(None)
                }
                Some(Err(error)) => {
                    let error = match error.is_io() {
                        true => error
                            .into_io()
                            .unwrap_or_else(|| io::ErrorKind::Other.into()),
                        false => io::Error::other(error),
                    };
                    Poll::Ready(Some(Err(BodyError::Http2(error))))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::{BodyExt as _, Full};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioExecutor;
    use tokio::io::DuplexStream;

    use super::*;

    /// Answers with the method, the length that was said, and the body.
    async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let said = request.headers().get(CONTENT_LENGTH).cloned();
        let method = request.method().clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let text = format!("{method} {said:?} {}", body.len());
        Ok(Response::new(Full::new(text.into())))
    }

    fn serve(stream: DuplexStream) -> tokio::task::JoinHandle<()> {
        tokio::spawn(async move {
            let service = service_fn(echo);
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        })
    }

    async fn ask(sender: &SendRequest<Bytes>, body: Bytes) -> Result<String, h2::Error> {
        let mut head = Request::new(());
        *head.uri_mut() = Uri::from_static("https://server/path");
        let mut sender = sender.clone().ready().await?;
        let (answer, mut content) = sender.send_request(head, body.is_empty())?;
        if !body.is_empty() {
            content.send_data(body, true)?;
        }
        let body = Body::Http2(answer.await?.into_body());
        let bytes = body.collect().await.unwrap().to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn bodies_of_all_sizes_go_through() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        serve(theirs);
        let sender = open(ours).await.unwrap();
        for length in [0, 1, 900, 1100, 300_000] {
            let answer = ask(&sender, vec![b'x'; length].into()).await.unwrap();
            assert_eq!(answer, format!("GET None {length}"));
        }
    }

    #[tokio::test]
    async fn a_connection_that_has_ended_is_noticed_before_anything_is_sent() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = serve(theirs);
        let sender = open(ours).await.unwrap();
        ask(&sender, Bytes::new()).await.unwrap();
        server.abort();
        let _ = server.await;
        while sender.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(ask(&sender, Bytes::new()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_has_gone_silent_is_given_up() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        serve(theirs);
        let sender = open(ours).await.unwrap();
        tokio::time::sleep(10 * PING_INTERVAL).await;
        ask(&sender, Bytes::new()).await.unwrap();

        let (ours, _silent) = tokio::io::duplex(1 << 16);
        let sender = open(ours).await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(ask(&sender, Bytes::new()).await.is_err());
        assert_eq!(began.elapsed(), PING_INTERVAL + PING_TIMEOUT);
    }
}
